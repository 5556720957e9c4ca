"""The path of a change through one environment of the relay.

Redis       a message on the channel                    store.subscription
source      in order? apply; else repair or reload      source, follow, states
snapshot    the next one, immutable                     flags.snapshot
            with what this relay killed by itself       local_kills, reconcile
frame       encoded once, HTTP framing included         feed, wire.frame
hub         the same bytes to every stream              hub, pump, subscriber
report      to Redis: every stream has it               reporter, store.reports

Beside the streams of definitions stand two hubs of the same make: OFREP's event streams, which say that there is
something to fetch (refetch), and the streams of evaluated values (evaluations).
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import NoReturn

import structlog

from flagrelay.disk.documents import SavedSnapshot
from flagrelay.disk.state_dir import StateDir
from flagrelay.errors import FlagMissing, StoreError, StoreUnavailable, VariantMissing
from flagrelay.flags.change import Change
from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.evaluations import EvaluationsFeed
from flagrelay.relay.feed import DefinitionsFeed, Feed
from flagrelay.relay.held import Held
from flagrelay.relay.hub import Hub
from flagrelay.relay.keeper import Keeper
from flagrelay.relay.local_kills import LocalKills, Standing
from flagrelay.relay.refetch import RefetchFeed
from flagrelay.relay.reporter import Reporter, Reporting
from flagrelay.relay.source import Source
from flagrelay.relay.states import SourceState
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position
from flagrelay.wire.frame import Frame, heartbeat_frame

SWEEP_INTERVAL = 0.25
"""Seconds between looks at which streams are due to end."""

CATCH_UP_WAIT = 1.0
"""Seconds that a client which is ahead of this relay waits for the relay to hear the same news."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """How one environment is followed and streamed; times in seconds."""

    verify_interval: float = 3.0
    backoff_min: float = 0.05
    backoff_max: float = 5.0
    heartbeat_interval: float = 15.0
    retry: float = 2.0
    lagging_timeout: float = 30.0
    changes_held: int = 1000
    changes_held_bytes: int = 16 * 1024 * 1024
    refetch_spread: float = 1.0
    state_wait: float = 2.0
    state_interval: float = 5.0


class Pipeline:
    """One environment, from Redis to every stream.

    Args:
        store: where it is.
        environment: its name.
        options: how it is followed and streamed.
        state_dir: where its snapshot and its local kills are kept; None for nowhere.
        on_delivered: told of each change once every stream has it.
        reporting: as whom it reports to Redis what streams have; None for not at all.
    """

    def __init__(
        self,
        store: Store,
        environment: str,
        options: PipelineOptions,
        *,
        state_dir: StateDir | None = None,
        on_delivered: Callable[["Pipeline", Delivery], None] = lambda _pipeline, _delivery: None,
        reporting: Reporting | None = None,
    ) -> None:
        self.environment = environment
        self.stats = Stats()
        self.source = Source(
            store,
            environment,
            on_load=self.load,
            on_change=self.change,
            on_state=self._tell,
            verify_interval=options.verify_interval,
            backoff=Backoff(options.backoff_min, options.backoff_max),
            past=(options.changes_held, options.changes_held_bytes),
            stats=self.stats,
        )
        definitions = DefinitionsFeed(Held(options.changes_held, options.changes_held_bytes), self._heartbeat)
        self.evaluations_feed = EvaluationsFeed(Held(options.changes_held, options.changes_held), self._heartbeat)

        def hub(kind: str, feed: Feed, told: Callable[[Delivery], None], *, spread: float = 0.0, batch: int = 0) -> Hub:
            def delivered(delivery: Delivery) -> None:
                if delivery.at:  # what was loaded whole is no change, and has taken no time
                    told(delivery)
                if self.reporter:
                    self.reporter.delivered(kind, delivery)

            return Hub(
                feed,
                stats=self.stats,
                delivered=delivered,
                retry=options.retry,
                lagging_timeout=options.lagging_timeout,
                spread=spread,
                batch=batch,
            )

        self.hub = hub("definitions", definitions, lambda delivery: on_delivered(self, delivery))
        self.evaluations = hub(
            "evaluations",
            self.evaluations_feed,
            lambda delivery: on_delivered(self, delivery) if delivery.streams else None,
            batch=1,  # a whole flag set for one context may take milliseconds
        )
        # Spread over time on purpose: how long that takes says nothing of the relay.
        self.refetches = hub("events", RefetchFeed(), lambda _delivery: None, spread=options.refetch_spread)
        self.hubs = {"definitions": self.hub, "evaluations": self.evaluations, "events": self.refetches}
        self.reporter = self._make_reporter(store, reporting) if reporting else None
        self.local_kills = LocalKills(store, environment, state_dir)
        self.restored = False
        """Whether what is served comes from disk, and Redis has not been heard of it since."""
        self.recalled = asyncio.Event()
        """Whether what was kept of local kills is known."""
        self._state_dir = state_dir
        self._keeper = Keeper(state_dir, environment, options.state_interval, self._current) if state_dir else None
        self._reconcile = asyncio.Event()
        self._store = store
        self._options = options
        self._told = self.source.reason

    def _make_reporter(self, store: Store, reporting: Reporting) -> Reporter:
        return Reporter(
            store,
            self.environment,
            reporting,
            self.hubs,
            live=lambda: self.live,
            kills=lambda: self.local_kills.unsettled,
            clock_offset=lambda: self.source.clock_offset,
            stats=self.stats,
        )

    def change(self, change: Change, snapshot: Snapshot) -> None:
        """The next change, in order: encoded once, the same bytes to every stream."""
        if not self.local_kills.held.keys().isdisjoint(change.flags):
            self._reconcile.set()  # Redis may have now what this relay holds by itself
        change, snapshot = self.local_kills.over_change(change, snapshot)
        for hub in self.hubs.values():
            hub.publish(change, snapshot)
        self._note()

    def load(self, snapshot: Snapshot) -> None:
        """A history begins: every stream gets everything."""
        snapshot = self.local_kills.begin(snapshot)
        past = self.source.past
        if past:
            self.stats.last_change = past[-1].revision, past[-1].at
        for hub in self.hubs.values():
            hub.load(snapshot, past)
        self._note()

    @property
    def snapshot(self) -> Snapshot | None:
        """The state at this moment, local kills included; None until it was loaded for the first time."""
        return self.hub.feed.snapshot

    def held(self) -> Snapshot:
        """The state at this moment, where there is one.

        Raises:
            RuntimeError: nothing was loaded yet; `hub.loaded` tells.
        """
        if self.snapshot is None:
            raise RuntimeError(f'environment "{self.environment}" has not been loaded yet')
        return self.snapshot

    @property
    def streams(self) -> int:
        """Open streams, of every kind."""
        return sum(len(hub.subscribers) for hub in self.hubs.values())

    def streams_of(self, key_id: str) -> int:
        """Open streams of one access key."""
        return sum(hub.streams_by_key[key_id] for hub in self.hubs.values())

    async def dismiss_key(self, key_id: str, reason: str) -> None:
        """End every stream that a key opened: `revoked` or `expired`."""
        for hub in self.hubs.values():
            await hub.dismiss_key(key_id, reason)

    # -- kills without Redis ----------------------------------------------------------------------------------

    def draft_kill(self, key: str, *, to: str | None, actor: str, reason: str) -> LocalKill:
        """The kill of a flag as it stands here and now; nothing happens until it is held.

        Raises:
            FlagMissing: there is no such flag.
            VariantMissing: the flag has no variant `to`.
        """
        snapshot = self.source.snapshot
        if snapshot is None or key not in snapshot.flags:
            raise FlagMissing(self.environment, key)
        original = snapshot.flags[key]
        if to is not None and to not in original.get("variants", {}):
            raise VariantMissing(self.environment, key, to)
        at, over = int(time() * 1e6), snapshot.position
        return LocalKill(key=key, to=to, actor=actor, reason=reason, at=at, over=over, original=original)

    async def hold(self, kill: LocalKill) -> bool:
        """Take a flag back from everybody here, whatever Redis says, until Redis has it or it is withdrawn.

        Returns whether it is kept on disk, and outlives this process.
        """
        await self.recalled.wait()  # or what is on disk would be put on top of it
        self.local_kills.put(kill)
        return await self._show_kills([kill.key])

    async def inherit(self, standings: Iterable[Standing]) -> None:
        """Hold the kills that the other workers of this node hold, and no others."""
        await self.recalled.wait()
        news = self.local_kills.inherit(standings)
        if news:
            await self._show_kills(news)

    async def withdraw(self, key: str) -> bool:
        """Take a local kill back: the flag is again what Redis says. Returns whether that is kept on disk.

        Raises:
            LocalKillMissing: this relay holds none of that flag.
        """
        await self.recalled.wait()
        self.local_kills.withdraw(key)
        return await self._show_kills([key])

    async def _show_kills(self, keys: Iterable[str]) -> bool:
        """Send the flags whose local kill has begun or ended, as they are now; then keep what is held."""
        if self.source.snapshot:
            shown = self.local_kills.over(self.source.snapshot)
            flags = {key: shown.flags.get(key) for key in keys}
            at = round((time() + self.source.clock_offset) * 1e6)
            change = Change(*shown.position, previous="", at=at, urgent=True, flags=flags)
            for hub in self.hubs.values():
                hub.dismiss_ahead()
                hub.publish(change, shown)
        self._reconcile.set()
        if self.reporter:
            self.reporter.changed()
        return await self.local_kills.keep()

    async def _reconcile_kills(self) -> NoReturn:
        """Tell Redis of local kills whenever it can be asked."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.verify_interval):
                    await self._reconcile.wait()
            self._reconcile.clear()
            if self.live and self.local_kills.held:
                before = self.local_kills.unsettled
                await self.local_kills.reconcile()
                if self.reporter and self.local_kills.unsettled != before:
                    self.reporter.changed()
                ended = self.local_kills.end_written(self.source.held().position)
                if ended:  # seen before it was asked about
                    await self._show_kills(ended)
            if self.local_kills.unkept:
                await self.local_kills.keep()

    # -- its life ---------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether the snapshot is known to be Redis's state."""
        return self.source.state is SourceState.LIVE

    @property
    def age(self) -> float:
        """Seconds since the snapshot was last known to be Redis's state."""
        return asyncio.get_running_loop().time() - self.source.confirmed_at

    async def run(self) -> None:
        """Follow and stream until cancelled."""
        saved = await self._recall() if self._state_dir else None
        self.recalled.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.source.run())
            tasks.create_task(self._beat())
            tasks.create_task(self._reconcile_kills())
            if self._keeper:
                tasks.create_task(self._keeper.run())
            if self.reporter:
                tasks.create_task(self.reporter.run())
            if saved:
                await asyncio.sleep(self._options.state_wait)
                self._restore(saved)

    async def _recall(self) -> SavedSnapshot | None:
        """Know again where this relay stood, and what it held by itself."""
        if self._state_dir is None:
            return None
        kills = await asyncio.to_thread(self._state_dir.read_kills, self.environment)
        self.local_kills.restore(kills.values())
        saved = await asyncio.to_thread(self._state_dir.read_snapshot, self.environment)
        if saved:
            self.source.remember(saved.position)
        return saved

    def _restore(self, saved: SavedSnapshot) -> None:
        """Serve what was kept, where Redis has given us nothing in time."""
        if self.source.snapshot is None:
            self.restored = True
            self.source.restore(saved.snapshot(), max(0.0, time() - saved.confirmed))

    async def keep(self) -> None:
        """Write to disk what is not there yet: this relay is about to end."""
        if self._keeper:
            await self._keeper.keep()

    async def withdraw_report(self) -> None:
        """Have Redis forget that this relay was there: it is about to end, and nobody is to wait for it."""
        if self.reporter:
            await self.reporter.withdraw()

    def _current(self) -> tuple[Snapshot, float] | None:
        return None if self.restored or self.source.snapshot is None else (self.source.snapshot, time() - self.age)

    def _note(self) -> None:
        """There is something new to be kept."""
        if self._keeper:
            self._keeper.changed()
        if self.local_kills.unkept:
            self._reconcile.set()

    async def _beat(self) -> None:
        """Heartbeats, and the ends of streams that are due."""
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + self._options.heartbeat_interval
        while True:
            await asyncio.sleep(min(SWEEP_INTERVAL, max(0.0, beat_at - loop.time())))
            now = loop.time()
            beats = now >= beat_at
            if beats:
                beat_at = now + self._options.heartbeat_interval
            for hub in self.hubs.values():
                hub.sweep(now)
                if beats:
                    hub.beat()

    async def settle(self, last_event_id: str) -> bool:
        """Give this relay the time to hear what a client has heard before it, at another relay.

        Returns whether the client is to be trusted to be ahead of us: yes while Redis cannot be asked or has
        more than we do; no where Redis itself has less than the client, which then holds a lost history.
        """
        if not self.hub.ahead(last_event_id):
            return False
        try:
            theirs = await read_position(self._store, self.environment)
        except (StoreUnavailable, StoreError):
            return True
        deadline = asyncio.get_running_loop().time() + CATCH_UP_WAIT
        while self.snapshot and _lacks(self.snapshot.position, theirs):
            if asyncio.get_running_loop().time() > deadline:
                return True
            await asyncio.sleep(0.005)
        return False

    def _heartbeat(self) -> Frame:
        revision = self.snapshot.position.revision if self.snapshot else 0
        age_ms = max(0, round(self.age * 1000))
        return heartbeat_frame(revision=revision, live=self.live, age_ms=age_ms, local_kills=len(self.local_kills.held))

    def _tell(self, state: SourceState, reason: str) -> None:
        """Log what is news: while Redis is away, or lacks the environment, it is tried again and again."""
        if state is SourceState.LIVE:
            self.restored = False
            self._reconcile.set()
            self._note()
            if self.reporter:
                self.reporter.changed()
        # How a connection fails differs from try to try; that there is none is the news.
        told, self._told = self._told, reason.partition(": ")[0]
        if told == self._told:
            return
        quiet = state in (SourceState.LIVE, SourceState.LOADING)
        (log.info if quiet else log.warning)("source", environment=self.environment, state=state.value, reason=reason)


def _lacks(mine: Position, theirs: Position) -> bool:
    return mine.epoch != theirs.epoch or mine.revision < theirs.revision
