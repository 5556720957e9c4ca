"""A slot with what its supervisor knows of it, and how patient the supervisor is."""

import socket
from collections import Counter
from dataclasses import dataclass, field

from flagrelay.relay.backoff import Backoff
from flagrelay.server.slots import Slot
from flagrelay.server.worker_process import WorkerProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a supervisor waits, in seconds."""

    answer: float = 1.0
    """For a worker's answer to a question."""
    order: float = 3.0
    """For a worker to do what must hold on all, its disk included."""
    start: float = 60.0
    """For a worker to join after it was started; for a successor to be ready after that."""
    ready: float = 3.0
    """For a worker to be ready that replaces a dead one, and for which connections wait."""
    end: float = 5.0
    """For a worker to end, beyond what its drain may take."""
    again: tuple[float, float] = (0.1, 10.0)
    """Before a dead worker is replaced: at first, and at most."""


@dataclass(slots=True, eq=False)
class Place(Slot[WorkerProcess]):
    """A slot, and what the supervisor knows of it."""

    listener: socket.socket | None = None
    backoff: Backoff = field(kw_only=True)
    failures: int = 0
    """Workers that have ended in a row before they accepted."""
    restarts: Counter[str] = field(default_factory=Counter)
    """Workers that were replaced, by why."""
    why: str = "it starts"
    """Why there is nobody to ask, where there is nobody."""

    def close(self) -> None:
        """Leave its share of connections to the others."""
        if self.listener:
            self.listener.close()
            self.listener = None
