"""So many a turn: what a herd brings is taken in small portions, and streams that are open do not notice it."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum


class Turn(Enum):
    """When something's turn is."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"
    """Too many wait."""


class Pace:
    """Lets a number of things happen in each turn of the event loop, in the order in which they came.

    A turn of the loop is what everything else waits for: the fewer things happen in one, the sooner it is a change's
    turn to be written. Nothing waits where no more come than there is room for.

    Args:
        per_turn: how many happen in one turn.
        most: how many may wait.
    """

    def __init__(self, per_turn: int, most: int) -> None:
        self._per_turn = per_turn
        self._most = most
        self._taken = 0
        self._waiting: deque[Callable[[], object]] = deque()
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def enter(self, start: Callable[[], object]) -> Turn:
        """Say when something may happen. `start` is called only where it is later."""
        if not self._waiting and self._taken < self._per_turn:
            self._taken += 1
            self._schedule()
            return Turn.NOW
        if len(self._waiting) >= self._most:
            return Turn.NEVER
        self._waiting.append(start)
        self._schedule()
        return Turn.LATER

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._taken = min(self._per_turn, len(self._waiting))
        for _ in range(self._taken):
            self._waiting.popleft()()
        if self._taken:
            self._schedule()
