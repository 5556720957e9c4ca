"""What may be done with a release in which state, as one table. A pair that is not in it does not fit."""

from collections.abc import Mapping
from enum import StrEnum

from flagrelay.errors import ActionUnfit


class State(StrEnum):
    """How a release stands."""

    PLANNED = "planned"
    """Stored, and not started: everybody has the baseline."""
    RUNNING = "running"
    """At a stage."""
    WITHDRAWN = "withdrawn"
    """Started, and taken back from everybody."""
    FINISHED = "finished"
    """Everybody has it; the flag is plain again."""
    ABANDONED = "abandoned"
    """Nobody has it; the flag is plain again."""
    DETACHED = "detached"
    """The flag is plain again, as it stood."""


class Action(StrEnum):
    """What can be done with a release."""

    PLAN = "plan"
    APPROVE = "approve"
    START = "start"
    ADVANCE = "advance"
    RETREAT = "retreat"
    WITHDRAW = "withdraw"
    """To retreat, or to un-release, behind the first stage."""
    UNRELEASE = "unrelease"
    RESTORE = "restore"
    FINISH = "finish"
    ABANDON = "abandon"
    DETACH = "detach"


GIVING = (Action.PLAN, Action.START, Action.ADVANCE, Action.RESTORE, Action.FINISH)
"""What may give a flag to people. It waits until a flag that is killed is revived."""

_ANYWHERE = {
    Action.APPROVE: None,
    Action.UNRELEASE: None,
    Action.RESTORE: None,
    Action.ABANDON: State.ABANDONED,
    Action.DETACH: State.DETACHED,
}
"""What fits every state that is not an end; None for the state that it is in."""

_OF_ITS_OWN: Mapping[State, Mapping[Action, State]] = {
    State.PLANNED: {Action.PLAN: State.PLANNED, Action.START: State.RUNNING},
    State.RUNNING: {
        Action.PLAN: State.RUNNING,
        Action.ADVANCE: State.RUNNING,
        Action.RETREAT: State.RUNNING,
        Action.WITHDRAW: State.WITHDRAWN,
        Action.FINISH: State.FINISHED,
    },
    State.WITHDRAWN: {Action.PLAN: State.WITHDRAWN, Action.START: State.RUNNING, Action.ADVANCE: State.RUNNING},
}

TRANSITIONS: Mapping[tuple[State, Action], State] = {
    (state, action): then or state
    for state, own in _OF_ITS_OWN.items()
    for action, then in {**own, **_ANYWHERE}.items()
}
"""The state that an action leads to. The three ends have no way on."""


def transition(flag: str, state: State, action: Action) -> State:
    """The state that an action leads to.

    Raises:
        ActionUnfit: the action does not fit the state; says what would.
    """
    then = TRANSITIONS.get((state, action))
    if then is None:
        raise ActionUnfit(flag, action.value, state.value, fitting(state))
    return then


def fitting(state: State) -> list[str]:
    """What may be done in a state, whatever else, by the names of commands."""
    names = [action for held, action in TRANSITIONS if held is state]
    return list(dict.fromkeys("retreat" if action is Action.WITHDRAW else action.value for action in names))
