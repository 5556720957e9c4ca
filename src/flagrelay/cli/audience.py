"""Many open streams, and when each of them heard of a change."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time

import aiohttp

from flagrelay.errors import StreamError
from flagrelay.sdk.stream import follow
from flagrelay.wire.event_id import parse_event_id


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How long a change took to each stream, in milliseconds, ascending."""

    milliseconds: list[float]
    streams: int

    @property
    def first(self) -> float:
        """The first stream."""
        return self.milliseconds[0]

    @property
    def median(self) -> float:
        """Half of the streams."""
        return self.milliseconds[len(self.milliseconds) // 2]

    @property
    def p99(self) -> float:
        """All but one in a hundred."""
        return self.milliseconds[int(len(self.milliseconds) * 0.99)]

    @property
    def last(self) -> float:
        """The last stream."""
        return self.milliseconds[-1]


class Audience:
    """Streams that note when they hear of each revision."""

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self._heard: dict[int, list[float]] = defaultdict(list)
        self._news = asyncio.Condition()
        self._opened = 0

    async def opened(self, count: int) -> None:
        """Wait until so many streams have their flags."""
        async with self._news:
            await self._news.wait_for(lambda: self._opened >= count)

    async def arrivals(self, revision: int, at: int, *, patience: float = 5.0) -> Arrivals:
        """Wait until every stream has a revision; what is missing after `patience` seconds is missing.

        Args:
            revision: of the change.
            at: when it was made, by Redis's clock, in microseconds.
            patience: seconds.

        Raises:
            StreamError: not one stream has it.
        """
        try:
            async with asyncio.timeout(patience), self._news:
                await self._news.wait_for(lambda: len(self._heard[revision]) >= self.streams)
        except TimeoutError:
            if not self._heard[revision]:
                raise StreamError(f"no stream has revision {revision} after {patience:g} s") from None
        return Arrivals(sorted((moment - at / 1e6) * 1000 for moment in self._heard.pop(revision)), self.streams)

    async def _listen(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        async for event in follow(session, url, key):
            position = parse_event_id(event.id)
            if event.type == "patch" and position:
                self._heard[position[1]].append(time())
            elif event.type == "put":
                self._opened += 1
            async with self._news:
                self._news.notify_all()


@asynccontextmanager
async def audience(url: str, key: str, streams: int, progress: Callable[[int], None]) -> AsyncIterator[Audience]:
    """Open streams and keep them open while the block lasts. `progress` is told how many are open."""
    heard = Audience(streams)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        listeners = [tasks.create_task(heard._listen(session, url, key)) for _ in range(streams)]  # noqa: SLF001 - this module's
        for count in range(1, streams + 1):
            await heard.opened(count)
            progress(count)
        yield heard
        for listener in listeners:
            listener.cancel()
