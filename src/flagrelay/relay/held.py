"""What the last changes brought, held for whoever has to catch up."""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Held(Generic[Item]):
    """A bounded run of items, one for each change, numbered by a sequence of this process.

    A stream's position is the number of the last item that it has. `head` is the newest item's number; the
    held items are those after `start`. Positions never mean revisions here, so that a new history
    (another epoch, a revision that fell back) and what has no revision (a local kill) cost the hot path nothing:
    `reset` moves `start` past everybody, and whoever stands before `start` needs everything.

    Args:
        most: how many items are held.
        most_bytes: and how large they are together; the newest is always held.
    """

    __slots__ = ("_bytes", "_ids", "_items", "_most", "_most_bytes", "_positions", "head", "start")

    def __init__(self, most: int, most_bytes: int) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._ids: deque[str] = deque([""])
        self._positions: dict[str, int] = {}
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.start = 0
        self.head = 0

    def append(self, item: Item, size: int, event_id: str) -> None:
        """A new head, and the id of the state that it brings; the oldest items go where there is no room."""
        self._items.append((item, size))
        self._bytes += size
        self.head += 1
        self._ids.append(event_id)
        self._positions[event_id] = self.head
        while len(self._items) > self._most or (self._bytes > self._most_bytes and len(self._items) > 1):
            self._bytes -= self._items.popleft()[1]
            oldest = self._ids.popleft()
            if self._positions.get(oldest) == self.start:  # a kill that came, went and came again has one id
                del self._positions[oldest]
            self.start += 1

    def reset(self, event_id: str) -> None:
        """Another history: nobody can catch up by items, but who has its first state."""
        self._items.clear()
        self._bytes = 0
        self.head += 1
        self.start = self.head
        self._ids = deque([event_id])
        self._positions = {event_id: self.head}

    def find(self, event_id: str) -> int | None:
        """The position of who has a state; None where nothing is held of it."""
        return self._positions.get(event_id)

    def after(self, position: int) -> Iterable[Item] | None:
        """The items after a position, in order; None where they are no longer held."""
        if position < self.start:
            return None
        return [item for item, _ in islice(self._items, position - self.start, None)]
