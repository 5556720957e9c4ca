"""Reports to Redis which revision every stream of one environment has: soon after it has, and now and then anyway.

Nothing here is in the way of a broadcast: what hubs have delivered is noted, and a task of its own tells Redis.
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

import structlog

from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.relay.channel import heed_cancellation
from flagrelay.relay.hub import Hub
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.store.connection import Store
from flagrelay.store.reports import LIVE, MAX_KILLS, STALE, Report, drop_report, write_report

APART = 0.02
"""Seconds between two reports, at least: what happens meanwhile is said at once."""

FLUSHING = 0.005
"""Seconds that bytes have to get from a transport to the kernel, before a stream that reads is taken for one that does
not: an event loop may send only at the end of its turn."""

WITHDRAWAL = 1.0
"""Seconds that Redis may take to forget a relay that ends."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """As whom a relay reports, and how often.

    Args:
        relay: its id, which no other relay has.
        worker: which of the node's workers this process is, from 1.
        workers: how many workers the node has.
        interval: seconds between two reports while nothing happens, at most.
        node: the random identity of the node, where it has several workers.
        instance: that of this process, where somebody else must know it; empty for one of its own choice.
    """

    relay: str
    worker: int = 1
    workers: int = 1
    interval: float = 5.0
    node: str = ""
    instance: str = ""


class Reporter:
    """What reports one environment of one process.

    All hubs get the same news in the same order: what the hub has delivered that is furthest behind, all have.

    Args:
        store: where to report.
        environment: its name.
        reporting: as whom, and how often.
        hubs: those whose streams are counted.
        live: whether what is served is known to be Redis's state.
        kills: gives the kills of this relay's own that Redis does not have: why not, in a word, by flag.
        clock_offset: Redis's clock minus this machine's, in seconds.
        stats: where to count.
    """

    def __init__(
        self,
        store: Store,
        environment: str,
        reporting: Reporting,
        hubs: Mapping[str, Hub],
        *,
        live: Callable[[], bool],
        kills: Callable[[], Mapping[str, str]],
        clock_offset: Callable[[], float],
        stats: Stats,
    ) -> None:
        self._store = store
        self._environment = environment
        self._reporting = reporting
        self._hubs = hubs
        self._live = live
        self._kills = kills
        self._shown: dict[str, str] = {}
        self._clock_offset = clock_offset
        self._stats = stats
        self._instance = reporting.instance or secrets.token_hex(4)
        self._counts = dict.fromkeys(hubs, 0)
        self._everywhere: Delivery | None = None
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._sweep_at = 0.0
        self._failing = False
        self._withdrawn = False

    # -- what is reported -------------------------------------------------------------------------------------

    def delivered(self, hub: str, delivery: Delivery) -> None:
        """One hub has given something to all of its streams that read."""
        self._counts[hub] += 1
        if min(self._counts.values()) < self._counts[hub]:
            return  # another one is further behind
        if self._everywhere is None or self._everywhere.position != delivery.position:
            self._everywhere = delivery  # a kill of this relay's own changes what a revision shows, and is no other
            self._news.set()
        elif self._shown:
            self._news.set()  # one may have ended

    def changed(self) -> None:
        """There is something else to say: what is served is live again, or no longer; or a kill of this relay's own."""
        self._news.set()

    async def report(self) -> Report | None:
        """What is said at this moment; None before anything was delivered by all hubs."""
        delivery = self._everywhere
        if delivery is None:
            return None
        kills, more_kills = self._own_kills()
        unsent = [subscriber for hub in self._hubs.values() for subscriber in hub.unsent()]
        if unsent:
            await asyncio.sleep(FLUSHING)
            unsent = [subscriber for subscriber in unsent if subscriber.unsent]
        lagging = len(unsent)
        streams = sum(len(hub.subscribers) for hub in self._hubs.values())
        return Report(
            relay=self._reporting.relay,
            worker=self._reporting.worker,
            workers=self._reporting.workers,
            epoch=delivery.position.epoch,
            revision=delivery.position.revision,
            source=LIVE if self._live() else STALE,
            streams=streams,
            written=streams - lagging,
            lagging=lagging,
            ms=self._took(delivery),
            interval=self._reporting.interval,
            node=self._reporting.node,
            instance=self._instance,
            kills=kills,
            more_kills=more_kills,
        )

    def _own_kills(self) -> tuple[dict[str, str], int]:
        """The kills that streams are shown and Redis does not have, and how many more those are than can be said.

        One that has just ended is shown until every stream has been told.
        """
        kills = dict(self._kills())
        if any(hub.underway for hub in self._hubs.values()):
            kills = {**self._shown, **kills}
        else:
            self._shown = kills
        return dict(islice(kills.items(), MAX_KILLS)), max(0, len(kills) - MAX_KILLS)

    def _took(self, delivery: Delivery) -> float | None:
        """Milliseconds from a change's time in Redis until the last stream had it."""
        if not delivery.at:
            return None
        return round(max(0.0, delivery.last + self._clock_offset() - delivery.at / 1e6) * 1000, 3)

    # -- telling Redis ----------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Report until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._reporting.interval * random.uniform(0.8, 1.0)):
                    await self._news.wait()
            self._news.clear()
            await self._write()
            heed_cancellation()
            await asyncio.sleep(APART)

    async def _write(self) -> None:
        async with self._writing:
            report = await self.report()
            if report is None or self._withdrawn:
                return
            now = asyncio.get_running_loop().time()
            sweep = now >= self._sweep_at
            try:
                there = await write_report(self._store, self._environment, report, sweep=sweep)
            except (StoreUnavailable, StoreError) as error:
                self._fail(str(error))
                return
            if sweep:
                self._sweep_at = now + self._reporting.interval
            self._failing = False
            self._stats.reports["ok" if there else "failed"] += 1

    def _fail(self, reason: str) -> None:
        """Count it; say so once, since it may go on for long."""
        self._stats.reports["failed"] += 1
        if not self._failing:
            log.warning("cannot report what streams have", environment=self._environment, reason=reason)
        self._failing = True

    async def withdraw(self) -> None:
        """Report no more, and have Redis forget this process: who ends in order is not to be taken for dead."""
        before, self._withdrawn = self._withdrawn, True
        if before or self._everywhere is None:
            return
        with suppress(StoreUnavailable, StoreError, TimeoutError):
            async with asyncio.timeout(WITHDRAWAL), self._writing:
                await drop_report(self._store, self._environment, self._reporting.relay, instance=self._instance)
