"""What the streams of a hub are fed with: the definitions, as they are."""

from collections.abc import Callable, Sequence
from typing import Protocol

from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.held import Held
from flagrelay.relay.subscriber import Subscriber
from flagrelay.wire.event_id import event_id_of, format_event_id
from flagrelay.wire.frame import Frame, Framing, goodbye_frame, patch_frame, put_frame

TAILS_BYTES = 16 * 1024 * 1024
"""The most that is kept of what streams still lack, joined, for others who lack the same."""


class Feed(Protocol):
    """What a hub asks of its feed. Streams have positions: numbers of this process that only grow.

    `head` is the newest one; whoever has a state of which nothing is held any more needs it whole.
    """

    snapshot: Snapshot | None

    @property
    def head(self) -> int:
        """The newest position."""

    def find(self, event_id: str) -> int | None:
        """The position of who has that event, where one can catch up from it."""

    def restart(self, snapshot: Snapshot, past: Sequence[Change]) -> None:
        """Another history, of which the last changes are known, or none: who has another cannot catch up."""

    def publish(self, change: Change, snapshot: Snapshot) -> None:
        """One change later: a new head."""

    def tail(self, subscriber: Subscriber) -> bytes:
        """Everything after a stream's position; empty where nothing of it concerns the stream."""

    def whole(self, subscriber: Subscriber) -> bytes:
        """Everything."""

    def heartbeat(self) -> Frame:
        """How fresh it is, at this moment."""

    def goodbye(self, reason: str, retry_ms: int) -> Frame:
        """The last words to a stream."""

    def left(self, subscriber: Subscriber) -> None:
        """A stream is gone."""


class DefinitionsFeed:
    """The flag set and its changes: each encoded once, the same bytes for everybody.

    Args:
        held: the frames of the last changes.
        heartbeat: makes the heartbeat of this moment.
    """

    def __init__(self, held: Held[Frame], heartbeat: Callable[[], Frame]) -> None:
        self.snapshot: Snapshot | None = None
        self.heartbeat = heartbeat
        self._held = held
        self._put: Frame | None = None
        self._tails: tuple[dict[int, bytes], ...] = tuple({} for _ in Framing)
        self._tails_bytes = 0

    @property
    def head(self) -> int:
        """The newest position."""
        return self._held.head

    def find(self, event_id: str) -> int | None:
        """The position of who has that event, where the changes after it are held."""
        return self._held.find(event_id)

    def restart(self, snapshot: Snapshot, past: Sequence[Change]) -> None:
        """Another history: who has one of its last states can catch up."""
        self._renew(snapshot)
        if not past or snapshot.mark:  # what a relay shows with kills of its own was never so before
            self._held.reset(event_id_of(snapshot))
            return
        self._held.reset(format_event_id(past[0].epoch, past[0].revision - 1))
        for change in past:
            event_id = format_event_id(change.epoch, change.revision)
            frame = patch_frame(change, event_id)
            self._held.append(frame, frame.size, event_id)

    def publish(self, change: Change, snapshot: Snapshot) -> None:
        """One change later: encoded here, once."""
        event_id = event_id_of(snapshot)
        frame = patch_frame(change, event_id)
        self._renew(snapshot)
        self._held.append(frame, frame.size, event_id)

    def _renew(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._put = None
        self._forget_tails()

    def tail(self, subscriber: Subscriber) -> bytes:
        """The frames after a stream's position where they are held, else the whole flag set."""
        tails = self._tails[subscriber.framing]
        tail = tails.get(subscriber.position)
        if tail is None:
            frames = self._held.after(subscriber.position)
            framing = subscriber.framing
            tail = self.whole(subscriber) if frames is None else b"".join([frame[framing] for frame in frames])
            # Clients that resume from a thousand revisions would otherwise make us keep a thousand tails.
            if self._tails_bytes + len(tail) > TAILS_BYTES:
                self._forget_tails()
            tails[subscriber.position] = tail
            self._tails_bytes += len(tail)
        return tail

    def _forget_tails(self) -> None:
        for tails in self._tails:
            tails.clear()
        self._tails_bytes = 0

    def whole(self, subscriber: Subscriber) -> bytes:
        """The whole flag set."""
        if self._put is None:
            if self.snapshot is None:
                raise RuntimeError("a feed that has loaded nothing has nothing to send")
            self._put = put_frame(self.snapshot)
        return self._put[subscriber.framing]

    def goodbye(self, reason: str, retry_ms: int) -> Frame:
        """A `goodbye`, with when to come back."""
        return goodbye_frame(reason, retry_ms=retry_ms)

    def left(self, subscriber: Subscriber) -> None:
        """Nothing is kept for a single stream."""
