"""Streams of one environment: who is connected, what each lacks, and how each ends."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import islice

from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.feed import Feed
from flagrelay.relay.pump import BATCH, Pump
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.relay.subscriber import GONE, Subscriber
from flagrelay.wire.event_id import parse_event_id
from flagrelay.wire.frame import END, Frame, retry_frame

JITTERS = 64
"""How many differently jittered frames are made where every stream should get a time of its own."""

ABORT_AFTER = 2.0
"""Seconds that a stream which was told goodbye has to take its last bytes."""


class Resume(StrEnum):
    """How a stream begins: the value of the `Flagrelay-Resume` header."""

    FULL = "full"
    DELTA = "delta"
    CURRENT = "current"


class Hub:
    """The streams of one environment that are fed with the same.

    Everything here is synchronous: reading the state and registering a stream happen in one turn of the
    event loop, so nothing is missed and nothing comes twice.

    Args:
        feed: what they are fed with.
        stats: where to count.
        delivered: told of each change, and of each whole state, once every stream has it that reads.
        retry: the reconnection time that streams are given, in seconds; each gets 0.5-1.5 times it.
        lagging_timeout: seconds that a stream may stay paused.
        spread: seconds over which a change goes out that is not urgent.
        batch: streams between two looks at the clock, where writing to one may take long; 0 for the usual.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        stats: Stats,
        delivered: Callable[[Delivery], None],
        retry: float,
        lagging_timeout: float,
        spread: float = 0.0,
        batch: int = 0,
    ) -> None:
        self.feed = feed
        self.stats = stats
        self.subscribers: dict[Subscriber, None] = {}
        self.streams_by_key: Counter[str] = Counter()
        self.streams_by_address: Counter[str] = Counter()
        self.lagging: dict[Subscriber, None] = {}
        self._leaving: dict[Subscriber, float] = {}
        self._lagging_timeout = lagging_timeout
        self._retries = [retry_frame(ms) for ms in _jittered_ms(retry * 0.5, retry * 1.5)]
        self._retry = retry
        self._spread = spread
        self._pump = Pump(self, delivered=delivered, batch=batch)

    @property
    def loaded(self) -> bool:
        """Whether there is anything to stream yet."""
        return self.feed.snapshot is not None

    # -- news -----------------------------------------------------------------------------------------

    def load(self, snapshot: Snapshot, past: Sequence[Change] = ()) -> None:
        """Another history, or the first: everybody gets everything."""
        for subscriber in self.subscribers:
            subscriber.position = min(subscriber.position, self.feed.head)
        self.feed.restart(snapshot, past)
        self._pump.news(snapshot.position, 0, within=self._spread)

    def publish(self, change: Change, snapshot: Snapshot) -> None:
        """One change later: everybody gets what they lack up to it."""
        self.feed.publish(change, snapshot)
        self._pump.news(snapshot.position, change.at, within=0.0 if change.urgent else self._spread)

    def beat(self) -> None:
        """A heartbeat to everybody, behind whatever is news."""
        self._pump.beat()

    @property
    def underway(self) -> bool:
        """Whether there is news that not every stream has yet which reads."""
        return self._pump.underway

    def unsent(self) -> list[Subscriber]:
        """The streams for which there is something that is not with the kernel yet: their clients do not read."""
        # What `Subscriber.unsent` says, of all of them, without a call for each: this goes before every proof.
        return [s for s in self.subscribers if s.paused_at or s.transport.get_write_buffer_size()]

    # -- a stream's life ------------------------------------------------------------------------------

    def join(
        self, subscriber: Subscriber, last_event_id: str, *, trust_ahead: bool = False
    ) -> tuple[Resume, tuple[bytes, bytes]]:
        """Register a stream. Returns how it resumes, and its first bytes, which the caller writes at once.

        They come in two pieces, since the second may be megabytes that thousands of streams share.

        A client may be ahead of this relay, having come from one that heard the last change first. With
        `trust_ahead` it keeps what it has, and is written to from the first change that it lacks; otherwise it
        gets the whole flag set.
        """
        framing = subscriber.framing
        snapshot = self.feed.snapshot
        # A kill that this relay holds by itself must reach whoever comes, wherever they stand.
        ahead = self.ahead(last_event_id) if trust_ahead and snapshot and not snapshot.mark else 0
        if ahead:
            resume, news = Resume.CURRENT, b""
        else:
            resume, news = self._resume(last_event_id, subscriber)
        subscriber.position = self.feed.head + ahead
        self.subscribers[subscriber] = None
        self.streams_by_key[subscriber.key_id] += 1
        self.streams_by_address[subscriber.address] += 1
        self.stats.opened += 1
        self.stats.resumed[resume] += 1
        start = random.choice(self._retries)[framing], news or self.feed.heartbeat()[framing]
        self.stats.sent_bytes += sum(map(len, start))
        return resume, start

    def ahead(self, last_event_id: str) -> int:
        """How many revisions a client is ahead of this relay in the same epoch; 0 where it is not."""
        known = parse_event_id(last_event_id)
        current = self.feed.snapshot.position if self.feed.snapshot else None
        return max(0, known.revision - current.revision) if known and current and known.epoch == current.epoch else 0

    def _resume(self, last_event_id: str, subscriber: Subscriber) -> tuple[Resume, bytes]:
        """How a stream begins, and with what; nothing where it has everything."""
        position = self.feed.find(last_event_id)
        if position is None:
            return Resume.FULL, self.feed.whole(subscriber)
        if position == self.feed.head:
            return Resume.CURRENT, b""
        subscriber.position = position
        return Resume.DELTA, self.feed.tail(subscriber)

    def lag(self, subscriber: Subscriber) -> None:
        """Its transport is full."""
        subscriber.paused_at = asyncio.get_running_loop().time()
        if subscriber in self.subscribers:
            self.lagging[subscriber] = None

    def catch_up(self, subscriber: Subscriber) -> None:
        """Its transport has room again."""
        subscriber.paused_at = 0.0
        self.lagging.pop(subscriber, None)
        if subscriber.position < self.feed.head:
            data = self.feed.tail(subscriber)
            subscriber.position = self.feed.head
            self.stats.sent_bytes += len(data)
            if data:
                subscriber.transport.write(data)

    def leave(self, subscriber: Subscriber, reason: str) -> bool:
        """Forget a stream; False where it was forgotten before."""
        self._leaving.pop(subscriber, None)
        if subscriber not in self.subscribers:
            return False
        del self.subscribers[subscriber]
        self.lagging.pop(subscriber, None)
        subscriber.position = GONE
        _subtract(self.streams_by_key, subscriber.key_id)
        _subtract(self.streams_by_address, subscriber.address)
        self.feed.left(subscriber)
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

    def dismiss_ahead(self) -> None:
        """End the streams that are ahead of this relay: what comes now may not wait until it has caught up."""
        ahead = [s for s in self.subscribers if s.position > self.feed.head]
        for subscriber in ahead:
            self.dismiss(subscriber, self._goodbyes("behind"), "behind")

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
        goodbyes = [self.feed.goodbye("drain", ms) for ms in _jittered_ms(0.1, max(0.1, spread))]
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
        return [self.feed.goodbye(reason, ms) for ms in _jittered_ms(self._retry * 0.5, self._retry * 1.5)]


def _subtract(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


def _jittered_ms(shortest: float, longest: float) -> list[int]:
    """`JITTERS` times between two bounds (seconds), evenly spread, in milliseconds."""
    step = (longest - shortest) / (JITTERS - 1)
    return [round((shortest + step * index) * 1000) for index in range(JITTERS)]
