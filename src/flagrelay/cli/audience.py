"""Many open streams, and when each of them heard of a change."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from time import time

import aiohttp

from flagrelay.errors import FlagrelayError, StreamError
from flagrelay.sdk.replica import Replica
from flagrelay.sdk.stream import follow

OPEN_TIMEOUT = 30.0
"""Seconds in which all streams must be open."""

RECONNECT = (0.5, 1.5)
"""Seconds to wait, between these two, before a stream that ended is opened again."""

SPARE_DESCRIPTORS = 64
"""Descriptors that a process needs beside its streams."""

MAX_REVISIONS = 1000
"""Revisions whose arrivals are kept, for whoever asks late."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How long a change took to each stream that has it, in milliseconds, ascending; and how many streams there are."""

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
    """Streams that note when they hear of each change."""

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self._opened = 0
        self._heard: dict[str, list[float]] = {}
        self._news = asyncio.Event()
        self._trouble = ""

    async def opened(self, progress: Callable[[int], None]) -> None:
        """Wait until every stream has its flags. `progress` is told how many have.

        Raises:
            FlagrelayError: not all have, within `OPEN_TIMEOUT`; says what was the matter with one of the others.
        """
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                while self._opened < self.streams:
                    await self._something_new()
                    progress(self._opened)
        except TimeoutError:
            counts = f"{self._opened} of {self.streams} streams are open after {OPEN_TIMEOUT:g} s"
            raise FlagrelayError(f"only {counts}: {self._trouble or 'the others were not answered'}") from None

    async def arrivals(self, event_id: str, at: int, *, patience: float = 5.0) -> Arrivals:
        """Wait until every stream has a change; what is missing after `patience` seconds is missing.

        Args:
            event_id: of the change.
            at: when it was made, by Redis's clock, in microseconds.
            patience: seconds.
        """
        try:
            async with asyncio.timeout(patience):
                while len(self._heard.get(event_id, ())) < self.streams:
                    await self._something_new()
        except TimeoutError:
            pass
        heard = self._heard.pop(event_id, [])
        return Arrivals(sorted((moment - at / 1e6) * 1000 for moment in heard), self.streams)

    async def listen(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        """One stream, opened again for as long as the relay lets us in."""
        replica = Replica()
        counted = False
        while True:
            try:
                async with aclosing(follow(session, url, key, last_event_id=replica.id)) as events:
                    async for event in events:
                        moment = time()
                        if replica.apply(event):
                            self._note(event.id, moment)
                            self._opened += not counted
                            counted = True
            except StreamError as error:
                self._trouble = str(error)
                if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    return
                if not error.status:  # what it sent makes no sense: begin anew
                    replica = Replica()
            except aiohttp.ClientError as error:
                self._trouble = str(error)
            await asyncio.sleep(random.uniform(*RECONNECT))

    def _note(self, event_id: str, moment: float) -> None:
        if event_id not in self._heard and len(self._heard) == MAX_REVISIONS:
            del self._heard[next(iter(self._heard))]
        self._heard.setdefault(event_id, []).append(moment)
        self._news.set()

    async def _something_new(self) -> None:
        self._news.clear()
        await self._news.wait()


@asynccontextmanager
async def audience(url: str, key: str, streams: int, progress: Callable[[int], None]) -> AsyncIterator[Audience]:
    """Open streams and keep them open while the block lasts. `progress` is told how many are open.

    Raises:
        FlagrelayError: this process may not have so many connections, or not all streams open.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < streams + SPARE_DESCRIPTORS:
        raise FlagrelayError(
            f"{streams} streams need {streams + SPARE_DESCRIPTORS} open files, and the limit is {allowed}: "
            "raise it with `ulimit -n`, or open fewer"
        )
    heard = Audience(streams)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        listeners = [asyncio.create_task(heard.listen(session, url, key)) for _ in range(streams)]
        try:
            await heard.opened(progress)
            yield heard
        finally:
            for listener in listeners:
                listener.cancel()
            ends = await asyncio.gather(*listeners, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
