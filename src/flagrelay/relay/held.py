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
    (another epoch, a revision that fell back) costs the hot path nothing: `reset` moves `start` past everybody,
    and whoever stands before `start` needs everything.

    Args:
        most: how many items are held.
        most_bytes: and how large they are together; the newest is always held.
    """

    __slots__ = ("_bytes", "_items", "_most", "_most_bytes", "head", "start")

    def __init__(self, most: int, most_bytes: int) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.start = 0
        self.head = 0

    def append(self, item: Item, size: int) -> None:
        """A new head; the oldest items go where there is no room."""
        self._items.append((item, size))
        self._bytes += size
        self.head += 1
        while len(self._items) > self._most or (self._bytes > self._most_bytes and len(self._items) > 1):
            self._bytes -= self._items.popleft()[1]
            self.start += 1

    def reset(self) -> None:
        """Another history: nobody can catch up by items."""
        self._items.clear()
        self._bytes = 0
        self.head += 1
        self.start = self.head

    def after(self, position: int) -> Iterable[Item] | None:
        """The items after a position, in order; None where they are no longer held."""
        if position < self.start:
            return None
        return [item for item, _ in islice(self._items, position - self.start, None)]
