"""What stands in for the real thing where a test must control time or failure."""

from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.subscriber import Subscriber


class FakeTransport:
    """A transport whose client reads when it is told to.

    It keeps asyncio's promises: `pause_writing` once it holds more than `high_water`, `resume_writing` when it has
    drained.
    """

    def __init__(self, high_water: int = 0) -> None:
        self.subscriber: Subscriber | None = None
        self.reading = True
        self.received = b""
        self.buffered = b""
        self.largest_buffer = 0
        self.writes = 0
        self.closed = False
        self.aborted = False
        self.paused = False
        self._high_water = high_water

    def write(self, data: bytes) -> None:
        if self.closed or self.aborted:
            return
        self.writes += 1
        if self.reading:
            self.received += data
            return
        self.buffered += data
        self.largest_buffer = max(self.largest_buffer, len(self.buffered))
        if len(self.buffered) > self._high_water and not self.paused and self.subscriber:
            self.paused = True
            self.subscriber.pause_writing()

    def stall(self) -> None:
        """The client stops reading."""
        self.reading = False

    def read(self) -> None:
        """The client reads everything, and goes on reading."""
        self.reading = True
        self.received += self.buffered
        self.buffered = b""
        if self.paused and self.subscriber:
            self.paused = False
            self.subscriber.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.buffered)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True
        if self.subscriber:
            self.subscriber.connection_lost(None)


def definition(number: int) -> dict[str, object]:
    """A flag definition that differs for each number."""
    return {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "on" if number % 2 else "off",
        "metadata": {"n": number},
    }


def empty_snapshot(epoch: str = "e0", revision: int = 0) -> Snapshot:
    return Snapshot(Position(epoch, revision, f"{epoch}-{revision}"))


def next_change(snapshot: Snapshot, key: str = "flag", number: int | None = None) -> Change:
    """A change that follows a snapshot; without a number it deletes the flag."""
    epoch, revision, nonce = snapshot.position
    return Change(
        epoch=epoch,
        revision=revision + 1,
        nonce=f"{epoch}-{revision + 1}",
        previous=nonce,
        at=1_764_000_000_000_000 + revision,
        flags={key: None if number is None else definition(number)},
    )
