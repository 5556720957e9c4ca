"""What OFREP's event streams are fed with: that there is something to fetch."""

from collections.abc import Sequence

from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.subscriber import Subscriber
from flagrelay.wire.event_id import event_id_of
from flagrelay.wire.frame import Frame, comment_frame
from flagrelay.wire.ofrep import refetch_frame


class RefetchFeed:
    """One event, however many changes it stands for: clients fetch everything that concerns them.

    Its heartbeats and goodbyes are comments: these streams carry no events but OFREP's own.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.head = 0
        self._event: Frame | None = None
        self._at = 0

    def find(self, event_id: str) -> int | None:
        """Nobody catches up by what changed: the newest event says it all."""
        return self.head if self.snapshot and event_id == event_id_of(self.snapshot) else None

    def restart(self, snapshot: Snapshot, past: Sequence[Change]) -> None:  # noqa: ARG002 - a feed's signature
        """Another history."""
        self._renew(snapshot)

    def publish(self, change: Change, snapshot: Snapshot) -> None:
        """One change later."""
        self._at = change.at
        self._renew(snapshot)

    def _renew(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.head += 1
        self._event = None

    def tail(self, subscriber: Subscriber) -> bytes:
        """The newest event."""
        return self.whole(subscriber)

    def whole(self, subscriber: Subscriber) -> bytes:
        """The newest event."""
        if self._event is None:
            if self.snapshot is None:
                raise RuntimeError("a feed that has loaded nothing has nothing to send")
            self._event = refetch_frame(event_id_of(self.snapshot), at=self._at)
        return self._event[subscriber.framing]

    def heartbeat(self) -> Frame:
        """A comment, which keeps the connection open."""
        return comment_frame("heartbeat")

    def goodbye(self, reason: str, retry_ms: int) -> Frame:
        """A comment, with when to come back."""
        return comment_frame(f"goodbye: {reason}", retry_ms=retry_ms)

    def left(self, subscriber: Subscriber) -> None:
        """Nothing is kept for a single stream."""
