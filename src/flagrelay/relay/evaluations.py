"""What streams of evaluated values are fed with: what every flag says for a context, and what changed of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flagrelay.flags.change import Change
from flagrelay.flags.compiled_flag import CompiledFlag
from flagrelay.flags.resolution import Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.held import Held
from flagrelay.relay.subscriber import Subscriber
from flagrelay.wire.evaluated import altered, evaluated_patch_frame, evaluated_put_frame
from flagrelay.wire.event_id import event_id_of
from flagrelay.wire.frame import Frame, goodbye_frame

PUTS_BYTES = 4 * 1024 * 1024
"""The most that is kept of whole evaluations, for streams with the same context that come after."""

Before = Mapping[str, CompiledFlag | None]
"""The flags that a change touched, as they were before it; None for one that was not there."""


class View:
    """One evaluation context, as all streams that have it see the flags.

    Args:
        identity: what tells it from other views.
        context: the evaluation context.
        public: whether it sees only what may leave to clients.
    """

    __slots__ = ("context", "identity", "patch", "public", "streams")

    def __init__(self, identity: tuple[bool, bytes], context: Mapping[str, Any]) -> None:
        self.identity = identity
        self.public = identity[0]
        self.context = context
        self.streams = 0
        self.patch: tuple[int, int, Frame | None] = (-1, -1, None)

    def resolve(self, flag: CompiledFlag | None) -> Resolution | None:
        """What a flag says here; None where there is none to be seen."""
        if flag is None or (self.public and flag.server_only):
            return None
        return flag.resolve(self.context)


class EvaluationsFeed:
    """What every flag says for each stream's context, and patches of what a change altered.

    A flag is resolved again only where a change touched it: as it was and as it is. Streams with equal contexts share
    a view and its work; views for which the same changed share the bytes.

    Args:
        held: the flags that each of the last changes touched, as they were before it.
        heartbeat: makes the heartbeat of this moment.
    """

    def __init__(self, held: Held[Before], heartbeat: Callable[[], Frame]) -> None:
        self.snapshot: Snapshot | None = None
        self.heartbeat = heartbeat
        self._held = held
        self._at = 0
        self._views: dict[tuple[bool, bytes], View] = {}
        self._before: dict[int, Before | None] = {}
        self._patches: dict[tuple[tuple[str, Resolution | None], ...], Frame] = {}
        self._puts: dict[View, Frame] = {}
        self._puts_bytes = 0

    @property
    def head(self) -> int:
        """The newest position."""
        return self._held.head

    def find(self, event_id: str) -> int | None:
        """The position of who has that event, where one can catch up from it."""
        return self._held.find(event_id)

    def view(self, identity: tuple[bool, bytes], context: Mapping[str, Any]) -> View:
        """The view of a context, shared with whoever has it already."""
        view = self._views.get(identity)
        if view is None:
            view = self._views[identity] = View(identity, context)
        view.streams += 1
        return view

    def left(self, subscriber: Subscriber) -> None:
        """A stream is gone, and its view with the last of them."""
        view = subscriber.view
        if view is not None:
            view.streams -= 1
            if not view.streams:
                self._views.pop(view.identity, None)
                self._puts.pop(view, None)

    def restart(self, snapshot: Snapshot, past: Sequence[Change]) -> None:  # noqa: ARG002 - a feed's signature
        """Another history. What flags said before its changes is not known."""
        self._renew(snapshot)
        self._held.reset(event_id_of(snapshot))

    def publish(self, change: Change, snapshot: Snapshot) -> None:
        """One change later: what it touched is noted; who is concerned shows when each stream's turn comes."""
        before = _touched(self.snapshot, snapshot, change)
        self._at = change.at
        self._renew(snapshot)
        self._held.append(before, len(before), event_id_of(snapshot))

    def _renew(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._before.clear()
        self._patches.clear()
        self._puts.clear()
        self._puts_bytes = 0

    def tail(self, subscriber: Subscriber) -> bytes:
        """A patch of what the changes after a stream's position altered for it."""
        view = _view_of(subscriber)
        position = subscriber.position
        if view.patch[:2] == (position, self._held.head):
            frame = view.patch[2]
        else:
            before = self._touched_since(position)
            if before is None:
                return self.whole(subscriber)
            frame = self._patch(view, before)
            view.patch = (position, self._held.head, frame)
        return b"" if frame is None else frame[subscriber.framing]

    def _patch(self, view: View, before: Before) -> Frame | None:
        snapshot = self._loaded()
        flags = snapshot.compiled.flags
        news = []
        for key, flag in before.items():
            now = view.resolve(flags.get(key))
            if altered(view.resolve(flag), now, timed=flag is not None and flag.timed):
                news.append((key, now))
        if not news:
            return None
        identity = tuple(news)
        frame = self._patches.get(identity)
        if frame is None:
            frame = self._patches[identity] = evaluated_patch_frame(event_id_of(snapshot), news, at=self._at)
        return frame

    def _touched_since(self, position: int) -> Before | None:
        """The flags touched after a position, as they were there; None where that is no longer held."""
        if position not in self._before:
            changes = self._held.after(position)
            self._before[position] = None if changes is None else _earliest(changes)
        return self._before[position]

    def whole(self, subscriber: Subscriber) -> bytes:
        """A put of what every flag says."""
        view = _view_of(subscriber)
        frame = self._puts.get(view)
        if frame is None:
            snapshot = self._loaded()
            frame = evaluated_put_frame(event_id_of(snapshot), self._resolutions(view, snapshot))
            size = frame.size
            if self._puts_bytes + size > PUTS_BYTES:
                self._puts.clear()
                self._puts_bytes = 0
            self._puts[view] = frame
            self._puts_bytes += size
        return frame[subscriber.framing]

    def _resolutions(self, view: View, snapshot: Snapshot) -> Iterable[Resolution]:
        for flag in snapshot.compiled.flags.values():
            resolution = view.resolve(flag)
            if resolution is not None:
                yield resolution

    def _loaded(self) -> Snapshot:
        if self.snapshot is None:
            raise RuntimeError("a feed that has loaded nothing has nothing to send")
        return self.snapshot

    def goodbye(self, reason: str, retry_ms: int) -> Frame:
        """A `goodbye`, with when to come back."""
        return goodbye_frame(reason, retry_ms=retry_ms)


def _view_of(subscriber: Subscriber) -> View:
    if subscriber.view is None:
        raise RuntimeError("a stream of evaluated values has a context")
    return subscriber.view


def _touched(before: Snapshot | None, after: Snapshot, change: Change) -> Before:
    """The flags that say something else after a change, or may, as they were before it."""
    old = before.compiled.flags if before else {}
    new = after.compiled.flags
    more = change.evaluators or change.metadata is not None or change.settings is not None
    keys = old.keys() | new.keys() if more else change.flags.keys()
    return {key: old.get(key) for key in keys if old.get(key) is not new.get(key)}


def _earliest(changes: Iterable[Before]) -> Before:
    merged: dict[str, CompiledFlag | None] = {}
    for change in changes:
        for key, flag in change.items():
            merged.setdefault(key, flag)
    return merged
