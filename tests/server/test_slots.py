"""The table of what may happen to a slot, and who has which role in it."""

from itertools import product

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flagrelay.server.slots import TRANSITIONS, Slot, SlotEvent, SlotState, transition

PAIRS = list(product(SlotState, SlotEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_of_state_and_event_either_moves_or_raises(state: SlotState, event: SlotEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert transition(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=f"{state} cannot take {event}"):
            transition(state, event)


def test_every_state_can_be_reached_and_all_but_the_last_be_left() -> None:
    reached = {SlotState.WAITING}
    for _ in SlotState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(SlotState)
    assert {before for before, _ in TRANSITIONS} == set(SlotState) - {SlotState.STOPPED}


def test_nobody_follows_once_a_slot_stops() -> None:
    after = {TRANSITIONS[pair] for pair in TRANSITIONS if pair[0] in (SlotState.STOPPING, SlotState.STOPPED)}
    assert after == {SlotState.STOPPING, SlotState.STOPPED}


def test_a_slot_can_be_stopped_whatever_happens_in_it() -> None:
    stoppable = {state for state, event in TRANSITIONS if event is SlotEvent.STOP}
    assert stoppable == set(SlotState) - {SlotState.STOPPING, SlotState.STOPPED}


ROLES = {
    SlotState.WAITING: {(False, False, False)},
    SlotState.STARTING: {(True, False, False)},
    SlotState.SERVING: {(True, False, False)},
    SlotState.RENEWING: {(True, True, False)},
    SlotState.RETIRING: {(True, False, True)},
    SlotState.STOPPED: {(False, False, False)},
}
"""Who is there in which state: worker, successor, predecessor."""


class Slots(RuleBasedStateMachine):
    """A slot and the processes that a supervisor starts for it, which may end at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.slot: Slot[int] = Slot(1)
        self.alive: set[int] = set()
        self.accepting: set[int] = set()
        self.started = 0

    def start(self) -> int:
        self.started += 1
        self.alive.add(self.started)
        return self.started

    @precondition(lambda self: self.slot.state is SlotState.WAITING)
    @rule()
    def due(self) -> None:
        self.slot.due(self.start())

    @precondition(lambda self: self.slot.state is SlotState.SERVING)
    @rule()
    def renew(self) -> None:
        self.slot.renew(self.start())

    @precondition(lambda self: self.alive - self.accepting)
    @rule()
    def accept(self) -> None:
        newest = max(self.alive - self.accepting)
        self.slot.accepting(newest)
        self.accepting.add(newest)

    @precondition(lambda self: self.alive)
    @rule()
    def oldest_ends(self) -> None:
        self.end(min(self.alive))

    @precondition(lambda self: self.alive)
    @rule()
    def newest_ends(self) -> None:
        self.end(max(self.alive))

    def end(self, process: int) -> None:
        self.alive.discard(process)
        roles = {self.slot.worker, self.slot.successor, self.slot.predecessor}
        assert self.slot.ended(process) == (process in roles)
        if self.slot.state is SlotState.STOPPING and not self.alive:
            self.slot.emptied()

    @precondition(lambda self: self.slot.state not in (SlotState.STOPPING, SlotState.STOPPED))
    @rule()
    def stop(self) -> None:
        self.slot.stop()
        if not self.alive:
            self.slot.emptied()

    @precondition(lambda self: self.slot.state is SlotState.STOPPED)
    @rule()
    def nothing_more(self) -> None:
        with pytest.raises(ValueError, match="stopped cannot take due"):
            self.slot.due(0)

    @invariant()
    def everybody_with_a_role_runs(self) -> None:
        there = [self.slot.worker, self.slot.successor, self.slot.predecessor]
        assert {process for process in there if process is not None} <= self.alive

    @invariant()
    def the_roles_are_those_of_the_state(self) -> None:
        if self.slot.state in ROLES:
            slot = self.slot
            there = tuple(process is not None for process in (slot.worker, slot.successor, slot.predecessor))
            assert there in ROLES[slot.state]

    @invariant()
    def who_serves_accepts(self) -> None:
        if self.slot.state in (SlotState.SERVING, SlotState.RENEWING, SlotState.RETIRING):
            assert self.slot.worker in self.accepting
        if self.slot.state is SlotState.STARTING:
            assert self.slot.worker not in self.accepting

    @invariant()
    def a_slot_that_has_stopped_is_empty(self) -> None:
        if self.slot.state is SlotState.STOPPED:
            assert not self.alive


TestSlots = Slots.TestCase
