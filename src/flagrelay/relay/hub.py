"""All streams of one environment: who is connected, what each lacks, and how each ends."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from itertools import islice

from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.held import Held
from flagrelay.relay.pump import BATCH, Pump
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.relay.subscriber import GONE, Subscriber
from flagrelay.wire.event_id import parse_event_id
from flagrelay.wire.frame import END, Frame, Framing, goodbye_frame, put_frame, retry_frame

JITTERS = 64
"""How many differently jittered frames are made where every stream should get a time of its own."""

TAILS_BYTES = 16 * 1024 * 1024
"""The most that is kept of what streams still lack, joined, for others who lack the same."""

ABORT_AFTER = 2.0
"""Seconds that a stream which was told goodbye has to take its last bytes."""


class Resume(StrEnum):
    """How a stream begins: the value of the `Flagrelay-Resume` header."""

    FULL = "full"
    DELTA = "delta"
    CURRENT = "current"


class Hub:
    """The streams of one environment, and the frames they may still need.

    Everything here is synchronous: reading the state and registering a stream happen in one turn of the
    event loop, so nothing is missed and nothing comes twice.

    Args:
        held: the frames for catching up.
        stats: where to count.
        heartbeat: makes the heartbeat of this moment.
        delivered: told of each change once every stream has it.
        retry: the reconnection time that streams are given, in seconds; each gets 0.5-1.5 times it.
        lagging_timeout: seconds that a stream may stay paused.
    """

    def __init__(
        self,
        held: Held,
        *,
        stats: Stats,
        heartbeat: Callable[[], Frame],
        delivered: Callable[[Delivery], None],
        retry: float,
        lagging_timeout: float,
    ) -> None:
        self.held = held
        self.stats = stats
        self.subscribers: dict[Subscriber, None] = {}
        self.streams_by_key: Counter[str] = Counter()
        self.lagging: dict[Subscriber, None] = {}
        self._leaving: dict[Subscriber, float] = {}
        self._lagging_timeout = lagging_timeout
        self._heartbeat = heartbeat
        self._snapshot: Snapshot | None = None
        self._put: Frame | None = None
        self._tails: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})
        self._tails_bytes = 0
        self._retries = [retry_frame(ms) for ms in _jittered_ms(retry * 0.5, retry * 1.5)]
        self._retry = retry
        self._pump = Pump(self, heartbeat=heartbeat, delivered=delivered)

    @property
    def loaded(self) -> bool:
        """Whether there is anything to stream yet."""
        return self._snapshot is not None

    # -- news -----------------------------------------------------------------------------------------

    def load(self, snapshot: Snapshot) -> None:
        """Another history, or the first: everybody gets the whole flag set."""
        for subscriber in self.subscribers:
            subscriber.position = min(subscriber.position, self.held.head)
        self._renew(snapshot)
        self.held.reset()
        self._pump.wake()

    def publish(self, frame: Frame, snapshot: Snapshot, *, at: int) -> None:
        """One change later: everybody gets what they lack up to it."""
        self._renew(snapshot)
        self.held.append(frame)
        self._pump.news(at)

    def beat(self) -> None:
        """A heartbeat to everybody, behind whatever is news."""
        self._pump.beat()

    def _renew(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._put = None
        self._forget_tails()

    def tail(self, position: int, framing: Framing) -> bytes:
        """Everything after a position: the frames where they are held, else the whole flag set."""
        tails = self._tails[framing]
        tail = tails.get(position)
        if tail is None:
            tail = self.held.after(position, framing)
            if tail is None:
                tail = self._whole()[framing]
            # Clients that resume from a thousand revisions would otherwise make us keep a thousand tails.
            if self._tails_bytes + len(tail) > TAILS_BYTES:
                self._forget_tails()
            tails[position] = tail
            self._tails_bytes += len(tail)
        return tail

    def _forget_tails(self) -> None:
        for tails in self._tails:
            tails.clear()
        self._tails_bytes = 0

    def _whole(self) -> Frame:
        if self._put is None:
            if self._snapshot is None:
                raise RuntimeError("a hub that has loaded nothing has nothing to send")
            self._put = put_frame(self._snapshot)
        return self._put

    # -- a stream's life ------------------------------------------------------------------------------

    def join(self, subscriber: Subscriber, last_event_id: str, *, trust_ahead: bool = False) -> tuple[Resume, bytes]:
        """Register a stream. Returns how it resumes, and its first bytes, which the caller writes at once.

        A client may be ahead of this relay, having come from one that heard the last change first. With
        `trust_ahead` it keeps what it has, and is written to from the first change that it lacks; otherwise it
        gets the whole flag set.
        """
        framing = subscriber.framing
        ahead = self.ahead(last_event_id) if trust_ahead else 0
        if ahead:
            resume, news = Resume.CURRENT, self._heartbeat()[framing]
        else:
            resume, news = self._resume(last_event_id, framing)
        subscriber.position = self.held.head + ahead
        self.subscribers[subscriber] = None
        self.streams_by_key[subscriber.key_id] += 1
        self.stats.opened += 1
        self.stats.resumed[resume] += 1
        start = random.choice(self._retries)[framing] + news
        self.stats.sent_bytes += len(start)
        return resume, start

    def ahead(self, last_event_id: str) -> int:
        """How many revisions a client is ahead of this relay in the same epoch; 0 where it is not."""
        known = parse_event_id(last_event_id)
        current = self._snapshot.position if self._snapshot else None
        return max(0, known[1] - current.revision) if known and current and known[0] == current.epoch else 0

    def _resume(self, last_event_id: str, framing: Framing) -> tuple[Resume, bytes]:
        known = parse_event_id(last_event_id)
        current = self._snapshot.position if self._snapshot else None
        if known and current and known[0] == current.epoch and known[1] <= current.revision:
            behind = current.revision - known[1]
            if behind == 0:
                return Resume.CURRENT, self._heartbeat()[framing]
            if self.held.head - behind >= self.held.start:
                return Resume.DELTA, self.tail(self.held.head - behind, framing)
        return Resume.FULL, self._whole()[framing]

    def lag(self, subscriber: Subscriber) -> None:
        """Its transport is full."""
        subscriber.paused_at = asyncio.get_running_loop().time()
        if subscriber in self.subscribers:
            self.lagging[subscriber] = None

    def catch_up(self, subscriber: Subscriber) -> None:
        """Its transport has room again."""
        subscriber.paused_at = 0.0
        self.lagging.pop(subscriber, None)
        if subscriber.position < self.held.head:
            data = self.tail(subscriber.position, subscriber.framing)
            subscriber.position = self.held.head
            self.stats.sent_bytes += len(data)
            subscriber.transport.write(data)

    def leave(self, subscriber: Subscriber, reason: str) -> bool:
        """Forget a stream; False where it was forgotten before."""
        self._leaving.pop(subscriber, None)
        if subscriber not in self.subscribers:
            return False
        del self.subscribers[subscriber]
        self.lagging.pop(subscriber, None)
        subscriber.position = GONE
        self.streams_by_key[subscriber.key_id] -= 1
        if not self.streams_by_key[subscriber.key_id]:
            del self.streams_by_key[subscriber.key_id]
        self.stats.closed[reason] += 1
        return True

    def drop(self, subscriber: Subscriber, reason: str) -> None:
        """Close a stream at once, without a word."""
        self.leave(subscriber, reason)
        subscriber.transport.abort()

    def dismiss(self, subscriber: Subscriber, goodbyes: list[Frame], reason: str) -> None:
        """Say goodbye and close; what does not leave in time is aborted by `sweep`."""
        if self.leave(subscriber, reason):
            self._leaving[subscriber] = asyncio.get_running_loop().time() + ABORT_AFTER
            framing = subscriber.framing
            subscriber.transport.write(random.choice(goodbyes)[framing] + END[framing])
            subscriber.transport.close()

    # -- endings --------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End what is due: lifetimes, streams that lag for too long, and goodbyes that are not being read."""
        for subscriber in [s for s in self.subscribers if s.ends_at <= now]:
            self.dismiss(subscriber, self._goodbyes("lifetime"), "lifetime")
        overdue = now - self._lagging_timeout
        for subscriber in [s for s in self.lagging if s.paused_at <= overdue]:
            self.dismiss(subscriber, self._goodbyes("lagging"), "lagging")
        for subscriber in [s for s, deadline in self._leaving.items() if deadline <= now]:
            del self._leaving[subscriber]
            subscriber.transport.abort()

    async def dismiss_key(self, key_id: str, reason: str) -> None:
        """End every stream that a key opened: `revoked` or `expired`."""
        goodbyes = self._goodbyes(reason)
        await self._in_slices([s for s in self.subscribers if s.key_id == key_id], goodbyes, reason)

    async def drain(self, *, spread: float, deadline: float) -> None:
        """End every stream, with reconnection times spread over `spread` seconds, by `deadline` (loop time)."""
        goodbyes = [goodbye_frame("drain", retry_ms=ms) for ms in _jittered_ms(0.1, max(0.1, spread))]
        await self._in_slices(list(self.subscribers), goodbyes, "drain")
        loop = asyncio.get_running_loop()
        while self._leaving and loop.time() < deadline:
            self.sweep(loop.time())
            await asyncio.sleep(0.02)
        self.sweep(float("inf"))

    async def _in_slices(self, leaving: Iterable[Subscriber], goodbyes: list[Frame], reason: str) -> None:
        remaining = iter(leaving)
        while batch := list(islice(remaining, BATCH)):
            for subscriber in batch:
                self.dismiss(subscriber, goodbyes, reason)
            await asyncio.sleep(0)

    def _goodbyes(self, reason: str) -> list[Frame]:
        return [goodbye_frame(reason, retry_ms=ms) for ms in _jittered_ms(self._retry * 0.5, self._retry * 1.5)]


def _jittered_ms(shortest: float, longest: float) -> list[int]:
    """`JITTERS` times between two bounds (seconds), evenly spread, in milliseconds."""
    step = (longest - shortest) / (JITTERS - 1)
    return [round((shortest + step * index) * 1000) for index in range(JITTERS)]
