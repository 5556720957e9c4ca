from itertools import product

import pytest

from flagrelay.relay.states import TRANSITIONS, SourceEvent, SourceState, transition

PAIRS = list(product(SourceState, SourceEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_of_state_and_event_either_moves_or_raises(state: SourceState, event: SourceEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert transition(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=f"{state} cannot take {event}"):
            transition(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {SourceState.CONNECTING}
    for _ in SourceState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(SourceState)
    assert {before for before, _ in TRANSITIONS} == set(SourceState)


def test_a_source_that_has_loaded_never_returns_to_connecting_by_losing_redis() -> None:
    assert SourceState.CONNECTING not in {
        after for (_, event), after in TRANSITIONS.items() if event is SourceEvent.LOST
    }
