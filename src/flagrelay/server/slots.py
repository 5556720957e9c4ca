"""The places of a node's workers, as a table; pure.

            ┌──────────────────────── ENDED ─────────────────────────┐
            ▼                                                        │
    WAITING ──DUE──▶ STARTING ──ACCEPTING──▶ SERVING ──RENEW──▶ RENEWING ──ACCEPTING──▶ RETIRING
                        ▲  │ENDED              ▲ │ENDED         │  │                    │   │ENDED
                        │  ▼                   │ ▼              │  └──ABANDONED──▶ SERVING  ▼
                        │ WAITING              │ WAITING        │                       │ WAITING
                        └──────────────────────┼─────ENDED──────┘                       │
                                               └────────────────RETIRED─────────────────┘

    any but STOPPED ──STOP──▶ STOPPING ──EMPTY──▶ STOPPED

A slot has a worker; while it is renewed also a successor, which does not accept yet, and then a predecessor, which
accepts no more. A process that has lost its role, because something else happened meanwhile, ends by itself.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Process = TypeVar("Process")


class SlotState(StrEnum):
    """Where a slot stands."""

    WAITING = "waiting"
    """Nobody is there; somebody will be started."""
    STARTING = "starting"
    """A worker was started, and does not accept yet."""
    SERVING = "serving"
    """A worker accepts."""
    RENEWING = "renewing"
    """A worker accepts, and its successor was started."""
    RETIRING = "retiring"
    """A worker accepts, and its predecessor drains."""
    STOPPING = "stopping"
    """Whoever is there drains, and nobody follows."""
    STOPPED = "stopped"


class SlotEvent(StrEnum):
    """What moves a slot from one state to another."""

    DUE = "due"
    ACCEPTING = "accepting"
    """Who was started last accepts."""
    ENDED = "ended"
    """The worker has ended."""
    RENEW = "renew"
    ABANDONED = "abandoned"
    """The successor has ended."""
    RETIRED = "retired"
    """The predecessor has ended."""
    STOP = "stop"
    EMPTY = "empty"
    """No process of the slot is left."""


TRANSITIONS = {
    (SlotState.WAITING, SlotEvent.DUE): SlotState.STARTING,
    (SlotState.WAITING, SlotEvent.STOP): SlotState.STOPPING,
    (SlotState.STARTING, SlotEvent.ACCEPTING): SlotState.SERVING,
    (SlotState.STARTING, SlotEvent.ENDED): SlotState.WAITING,
    (SlotState.STARTING, SlotEvent.STOP): SlotState.STOPPING,
    (SlotState.SERVING, SlotEvent.ENDED): SlotState.WAITING,
    (SlotState.SERVING, SlotEvent.RENEW): SlotState.RENEWING,
    (SlotState.SERVING, SlotEvent.STOP): SlotState.STOPPING,
    (SlotState.RENEWING, SlotEvent.ACCEPTING): SlotState.RETIRING,
    (SlotState.RENEWING, SlotEvent.ABANDONED): SlotState.SERVING,
    (SlotState.RENEWING, SlotEvent.ENDED): SlotState.STARTING,
    (SlotState.RENEWING, SlotEvent.STOP): SlotState.STOPPING,
    (SlotState.RETIRING, SlotEvent.RETIRED): SlotState.SERVING,
    (SlotState.RETIRING, SlotEvent.ENDED): SlotState.WAITING,
    (SlotState.RETIRING, SlotEvent.STOP): SlotState.STOPPING,
    (SlotState.STOPPING, SlotEvent.ACCEPTING): SlotState.STOPPING,
    (SlotState.STOPPING, SlotEvent.ENDED): SlotState.STOPPING,
    (SlotState.STOPPING, SlotEvent.ABANDONED): SlotState.STOPPING,
    (SlotState.STOPPING, SlotEvent.RETIRED): SlotState.STOPPING,
    (SlotState.STOPPING, SlotEvent.EMPTY): SlotState.STOPPED,
}


def transition(state: SlotState, event: SlotEvent) -> SlotState:
    """The state that follows.

    Raises:
        ValueError: the pair is not in the table, which is a bug of the caller.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a slot that is {state} cannot take {event}") from None


@dataclass(slots=True, eq=False)
class Slot(Generic[Process]):
    """A place for one worker, and who is in it."""

    number: int
    state: SlotState = SlotState.WAITING
    worker: Process | None = None
    successor: Process | None = None
    predecessor: Process | None = None

    def due(self, worker: Process) -> None:
        """Somebody was started where nobody was."""
        self._take(SlotEvent.DUE)
        self.worker = worker

    def renew(self, successor: Process) -> None:
        """Somebody was started beside the worker."""
        self._take(SlotEvent.RENEW)
        self.successor = successor

    def accepting(self, process: Process) -> None:
        """Who was started last accepts; a successor is the worker from now on. One without a role changes nothing."""
        if process in (self.worker, self.successor):
            self._take(SlotEvent.ACCEPTING)
            if process is self.successor:
                self.worker, self.successor, self.predecessor = process, None, self.worker

    def ended(self, process: Process) -> bool:
        """A process has ended. Returns whether it had a role; one without changes nothing."""
        if process is self.worker:
            self._take(SlotEvent.ENDED)
            self.worker, self.successor, self.predecessor = self.successor, None, None
        elif process is self.successor:
            self._take(SlotEvent.ABANDONED)
            self.successor = None
        elif process is self.predecessor:
            self._take(SlotEvent.RETIRED)
            self.predecessor = None
        else:
            return False
        return True

    def stop(self) -> None:
        """Nobody follows from now on."""
        self._take(SlotEvent.STOP)

    def emptied(self) -> None:
        """No process is left, with a role or without."""
        self._take(SlotEvent.EMPTY)

    def _take(self, event: SlotEvent) -> None:
        self.state = transition(self.state, event)
