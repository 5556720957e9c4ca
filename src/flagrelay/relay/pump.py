"""Writes what is new to every stream. The innermost loop of flagrelay: what stands in `_write` runs per stream."""

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil
from time import perf_counter, time
from typing import TYPE_CHECKING

import structlog

from flagrelay.flags.position import Position
from flagrelay.relay.stats import Delivery

if TYPE_CHECKING:  # the two know each other; only one can import the other
    from flagrelay.relay.hub import Hub
    from flagrelay.relay.subscriber import Subscriber

SLICE = 0.001
"""Seconds of writing between two turns of the event loop, so that accepting, health and Redis go on."""

SHARE = 2.0
"""Writing takes this many times what everything else took since the last slice, where that is more: a change is to
reach streams that are open about as soon while a herd connects."""

LONGEST_SLICE = 0.02
"""Seconds that a slice takes at most."""

TICK = 0.01
"""Seconds between two looks at a round that is spread over time."""

BATCH = 32
"""Streams written between two looks at the clock."""

log = structlog.get_logger()


class Pump:
    """Rounds over the streams of one hub, in slices.

    A round gives each stream everything it lacks at the moment of its turn; news that comes during a round
    is therefore merged into the rest of it, and the round that follows serves those whose turn was before.
    Heartbeats have rounds of their own, which run only while there is no news.
    """

    def __init__(self, hub: "Hub", *, delivered: Callable[[Delivery], None], batch: int = 0) -> None:
        self._hub = hub
        self._batch = batch or BATCH
        self._delivered = delivered
        self._news: deque[Subscriber] = deque()
        self._beats: deque[Subscriber] = deque()
        self._goal = 0
        self._turned = 0
        self._size = 0
        self._began = 0.0
        self._within = 0.0
        self._left_at = 0.0
        self._scheduled: asyncio.Handle | None = None
        self._underway: deque[_Underway] = deque()
        self._unmarked: list[_Underway] = []

    @property
    def underway(self) -> bool:
        """Whether there is news that not every stream has yet."""
        return bool(self._underway)

    def news(self, position: Position, at: int, *, within: float = 0.0) -> None:
        """The hub has a new head.

        Args:
            position: where in its history that is.
            at: the change's time in Redis, in microseconds; 0 where it is no change, but a whole state.
            within: seconds over which the round may be spread; a round that runs already is never slowed down.
        """
        change = _Underway(self._hub.feed.head, position, at)
        self._underway.append(change)
        self._unmarked.append(change)
        if self._news and self._within and not within:
            self._hurry()
        self._wake(within=within)

    def _hurry(self) -> None:
        """What is under way was to be spread, and something urgent has come."""
        self._within = 0.0
        if self._scheduled:
            self._scheduled.cancel()
            self._scheduled = None
        self._news_slice()
        self._schedule()

    def _wake(self, *, within: float) -> None:
        """Start a round. An idle pump writes its first slice at once, in the caller's turn of the loop."""
        if not self._news:
            self._within = within
            self._begin()
            self._news_slice()
            self._schedule()

    def beat(self) -> None:
        """Start a round of heartbeats, unless the last one is still under way."""
        if not self._beats:
            self._beats.extend(self._hub.subscribers)
            self._schedule()

    def _schedule(self) -> None:
        if self._scheduled is None and (self._news or self._beats):
            loop = asyncio.get_running_loop()
            waits = self._news and self._due() <= 0
            self._scheduled = loop.call_later(TICK, self._turn) if waits else loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = None
        if self._news:
            self._news_slice()
        else:
            self._beat_slice()
        self._schedule()

    def _begin(self) -> None:
        # Rotated, so that nobody is always last.
        self._goal = self._hub.feed.head
        self._news.extend(self._hub.subscribers)
        self._size = len(self._news)
        self._began = self._left_at = perf_counter()
        if self._news:
            self._turned = (self._turned + 7919) % len(self._news)
            self._news.rotate(-self._turned)

    def _due(self) -> int:
        """How many of the round's streams may be written to by now: all, unless it is spread."""
        if not self._within:
            return len(self._news)
        elapsed = min(1.0, (perf_counter() - self._began) / self._within)
        return ceil(self._size * elapsed) - (self._size - len(self._news))

    def _news_slice(self) -> None:
        now = perf_counter()
        end = now + min(LONGEST_SLICE, max(SLICE, (now - self._left_at) * SHARE))
        if self._unmarked:
            self._write(1)
            now = time()
            for change in self._unmarked:
                change.first = now
            self._unmarked.clear()
        else:
            self._write(min(self._batch, self._due()))
        while self._news and perf_counter() < end and (due := self._due()) > 0:
            self._write(min(self._batch, due))
        self._left_at = perf_counter()
        if not self._news:
            self._finish()

    def _write(self, most: int) -> None:
        news = self._news
        hub = self._hub
        head = hub.feed.head
        sent = 0
        for _ in range(min(most, len(news))):
            subscriber = news.popleft()
            if subscriber.position < head and not subscriber.paused_at:
                try:
                    data = hub.feed.tail(subscriber)
                    subscriber.position = head
                    if data:
                        sent += len(data)
                        subscriber.transport.write(data)
                except Exception:
                    # One broken stream must not keep the change from everybody behind it.
                    log.exception("writing to a stream failed")
                    hub.drop(subscriber, "error")
        hub.stats.sent_bytes += sent

    def _finish(self) -> None:
        now = time()
        streams = len(self._hub.subscribers)
        while self._underway and self._underway[0].number <= self._goal:
            change = self._underway.popleft()
            self._delivered(
                Delivery(
                    position=change.position,
                    at=change.at,
                    first=change.first,
                    last=now,
                    streams=streams,
                )
            )
        if self._hub.feed.head > self._goal:
            self._begin()
            if not self._news:
                self._finish()

    def _beat_slice(self) -> None:
        hub = self._hub
        frame = hub.feed.heartbeat()
        end = perf_counter() + SLICE
        while self._beats and perf_counter() < end:
            for _ in range(min(self._batch, len(self._beats))):
                subscriber = self._beats.popleft()
                if subscriber.position == hub.feed.head and not subscriber.paused_at:
                    data = frame[subscriber.framing]
                    hub.stats.sent_bytes += len(data)
                    subscriber.transport.write(data)


class _Underway:
    """A change that not every stream has yet."""

    __slots__ = ("at", "first", "number", "position")

    def __init__(self, number: int, position: Position, at: int) -> None:
        self.number = number
        self.position = position
        self.at = at
        self.first = 0.0
