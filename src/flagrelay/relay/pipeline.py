"""The path of a change through one environment of the relay.

Redis       a message on the channel                    store.subscription
source      in order? apply; else repair or reload      source, follow, states
snapshot    the next one, immutable                     flags.snapshot
frame       encoded once, HTTP framing included         feed, wire.frame
hub         the same bytes to every stream              hub, pump, subscriber

Beside the streams of definitions stand two hubs of the same make: OFREP's event streams, which say that there is
something to fetch (refetch), and the streams of evaluated values (evaluations).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.evaluations import EvaluationsFeed
from flagrelay.relay.feed import DefinitionsFeed, Feed
from flagrelay.relay.held import Held
from flagrelay.relay.hub import Hub
from flagrelay.relay.refetch import RefetchFeed
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


class Pipeline:
    """One environment, from Redis to every stream.

    Args:
        store: where it is.
        environment: its name.
        options: how it is followed and streamed.
        on_delivered: told of each change once every stream has it.
    """

    def __init__(
        self,
        store: Store,
        environment: str,
        options: PipelineOptions,
        *,
        on_delivered: Callable[["Pipeline", Delivery], None] = lambda _pipeline, _delivery: None,
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
            stats=self.stats,
        )
        definitions = DefinitionsFeed(Held(options.changes_held, options.changes_held_bytes), self._heartbeat)
        self.evaluations_feed = EvaluationsFeed(Held(options.changes_held, options.changes_held), self._heartbeat)

        def hub(feed: Feed, delivered: Callable[[Delivery], None], *, spread: float = 0.0, batch: int = 0) -> Hub:
            return Hub(
                feed,
                stats=self.stats,
                delivered=delivered,
                retry=options.retry,
                lagging_timeout=options.lagging_timeout,
                spread=spread,
                batch=batch,
            )

        self.hub = hub(definitions, lambda delivery: on_delivered(self, delivery))
        self.evaluations = hub(
            self.evaluations_feed,
            lambda delivery: on_delivered(self, delivery) if delivery.streams else None,
            batch=1,  # a whole flag set for one context may take milliseconds
        )
        # Spread over time on purpose: how long that takes says nothing of the relay.
        self.refetches = hub(RefetchFeed(), lambda _delivery: None, spread=options.refetch_spread)
        self.hubs = {"definitions": self.hub, "evaluations": self.evaluations, "events": self.refetches}
        self._store = store
        self._options = options
        self._told = self.source.reason

    def change(self, change: Change, snapshot: Snapshot) -> None:
        """The next change, in order: encoded once, the same bytes to every stream."""
        for hub in self.hubs.values():
            hub.publish(change, snapshot)

    def load(self, snapshot: Snapshot) -> None:
        """A history begins: every stream gets everything."""
        for hub in self.hubs.values():
            hub.load(snapshot)

    @property
    def snapshot(self) -> Snapshot | None:
        """The state at this moment; None until it was loaded for the first time."""
        return self.source.snapshot

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
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.source.run())
            tasks.create_task(self._keep())

    async def _keep(self) -> None:
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
        return heartbeat_frame(revision=revision, live=self.live, age_ms=max(0, round(self.age * 1000)))

    def _tell(self, state: SourceState, reason: str) -> None:
        """Log what is news: while Redis is away, or lacks the environment, it is tried again and again."""
        if reason == self._told:
            return
        self._told = reason
        quiet = state in (SourceState.LIVE, SourceState.LOADING)
        (log.info if quiet else log.warning)("source", environment=self.environment, state=state.value, reason=reason)


def _lacks(mine: Position, theirs: Position) -> bool:
    return mine.epoch != theirs.epoch or mine.revision < theirs.revision
