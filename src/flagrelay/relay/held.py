"""The frames of the last changes, held for whoever has to catch up."""

from collections import deque
from itertools import islice

from flagrelay.wire.frame import Frame, Framing


class Held:
    """A bounded run of frames, numbered by a sequence of this process.

    A stream's position is the number of the last frame that it has. `head` is the newest frame's number; the
    held frames are those after `start`. Positions never mean revisions here, so that a new history
    (another epoch, a revision that fell back) costs the hot path nothing: `reset` moves `start` past everybody,
    and whoever stands before `start` needs the whole flag set.

    Args:
        most: how many frames are held.
        most_bytes: and how many bytes of them (as chunks); the newest is always held.
    """

    __slots__ = ("_bytes", "_frames", "_most", "_most_bytes", "head", "start")

    def __init__(self, most: int, most_bytes: int) -> None:
        self._frames: deque[Frame] = deque()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.start = 0
        self.head = 0

    def append(self, frame: Frame) -> None:
        """A new head; the oldest frames go where there is no room."""
        self._frames.append(frame)
        self._bytes += len(frame.chunked)
        self.head += 1
        while len(self._frames) > self._most or (self._bytes > self._most_bytes and len(self._frames) > 1):
            self._bytes -= len(self._frames.popleft().chunked)
            self.start += 1

    def reset(self) -> None:
        """Another history: nobody can catch up by frames."""
        self._frames.clear()
        self._bytes = 0
        self.head += 1
        self.start = self.head

    def after(self, position: int, framing: Framing) -> bytes | None:
        """Everything after a position, as one piece of bytes; None where it is no longer held."""
        if position < self.start:
            return None
        return b"".join([frame[framing] for frame in islice(self._frames, position - self.start, None)])
