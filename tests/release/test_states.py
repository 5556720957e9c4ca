"""What may be done in which state: the whole table."""

from itertools import product

import pytest

from flagrelay.errors import ActionUnfit
from flagrelay.release.states import TRANSITIONS, Action, State, fitting, transition

TABLE = """
            planned    running    withdrawn  finished   abandoned  detached
plan        planned    running    withdrawn  -          -          -
approve     planned    running    withdrawn  -          -          -
start       running    -          running    -          -          -
advance     -          running    running    -          -          -
retreat     -          running    -          -          -          -
withdraw    -          withdrawn  -          -          -          -
unrelease   planned    running    withdrawn  -          -          -
restore     planned    running    withdrawn  -          -          -
finish      -          finished   -          -          -          -
abandon     abandoned  abandoned  abandoned  -          -          -
detach      detached   detached   detached   -          -          -
"""


def table() -> dict[tuple[State, Action], str]:
    header, *rows = (line.split() for line in TABLE.strip().splitlines())
    return {
        (State(state), Action(action)): then
        for action, *cells in rows
        for state, then in zip(header, cells, strict=True)
    }


def test_the_table_names_every_state_and_action() -> None:
    assert set(table()) == set(product(State, Action))
    assert set(TRANSITIONS) <= set(table())


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)))
def test_each_action_leads_where_the_table_says_or_is_refused(state: State, action: Action) -> None:
    then = table()[state, action]
    if then != "-":
        assert transition("checkout", state, action) is State(then)
        return
    with pytest.raises(ActionUnfit) as raised:
        transition("checkout", state, action)
    message = str(raised.value)
    assert message.startswith(f'{action}: the release of flag "checkout" is {state}; ')
    assert message.endswith("; nothing was changed")
    assert raised.value.fitting == tuple(fitting(state))
    assert all(name in message for name in fitting(state))


@pytest.mark.parametrize("state", [State.PLANNED, State.RUNNING, State.WITHDRAWN])
def test_what_fits_is_named_as_commands_are_and_each_is_true(state: State) -> None:
    names = fitting(state)
    assert len(names) == len(set(names))
    assert "withdraw" not in names
    assert all(table()[state, Action(name)] != "-" for name in names)
    assert {name for name in names if name != "retreat"} == {
        action.value
        for action in Action
        if table()[state, action] != "-" and action not in (Action.RETREAT, Action.WITHDRAW)
    }


@pytest.mark.parametrize("state", [State.FINISHED, State.ABANDONED, State.DETACHED])
def test_an_end_has_no_way_on_and_says_so(state: State) -> None:
    assert fitting(state) == []
    with pytest.raises(ActionUnfit, match=f"is {state}; it has ended; nothing was changed"):
        transition("checkout", state, Action.ADVANCE)
