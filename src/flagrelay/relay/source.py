"""Follows one environment in Redis: subscribe first, then load, then follow; and never believe a message alone."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter, time
from typing import NoReturn

import structlog

from flagrelay.errors import ChangelogTrimmed, MessageError, StoreCorrupt, StoreUnavailable
from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.channel import Listener, listen
from flagrelay.relay.follow import Repair, Step, compare, judge
from flagrelay.relay.states import SourceEvent, SourceState, transition
from flagrelay.relay.stats import Stats
from flagrelay.store.changelog import read_changes, read_recent_changes
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_clock, read_position, read_snapshot
from flagrelay.store.subscription import subscribe
from flagrelay.store.writing import renew_epoch
from flagrelay.wire.message import decode_message

WHY_RELOAD = {
    "trimmed": "Redis's changelog no longer has all the changes that are missing here",
    "epoch": "Redis holds another epoch: the environment was created anew, or is another one",
    "fork": "Redis lost changes that it had acknowledged, as in a failover",
}
"""What the reasons for a whole read, as they are counted, mean to people."""

RENEWALS = 10
"""Tries to renew an epoch, between each two of which somebody else has written."""

log = structlog.get_logger()


class Source:
    """One environment in Redis, followed.

    Args:
        store: where it is.
        environment: its name.
        on_load: told of each snapshot that starts a history (the first, another epoch, a reload).
        on_change: told of each change in order, without holes, with the snapshot that it makes.
        on_state: told of each move to another state, with a reason for people.
        verify_interval: seconds between comparisons with Redis; a lost last message shows nowhere else.
        backoff: how long to wait between tries to connect.
        past: how many changes, and bytes of them, to read beside the first snapshot, for who has an older one.
        stats: where to count.
    """

    def __init__(
        self,
        store: Store,
        environment: str,
        *,
        on_load: Callable[[Snapshot], None],
        on_change: Callable[[Change, Snapshot], None],
        on_state: Callable[[SourceState, str], None] = lambda _state, _reason: None,
        verify_interval: float = 3.0,
        backoff: Backoff | None = None,
        past: tuple[int, int] = (0, 0),
        stats: Stats | None = None,
    ) -> None:
        self.environment = environment
        self.state = SourceState.CONNECTING
        self.reason = "not connected to Redis yet"
        self.snapshot: Snapshot | None = None
        self.confirmed_at = 0.0
        self.past: list[Change] = []
        """While `on_load` runs: the changes that led to the snapshot, as many as were asked for."""
        self.stats = stats or Stats()
        self._store = store
        self._on_load = on_load
        self._on_change = on_change
        self._on_state = on_state
        self._verify_interval = verify_interval
        self._backoff = backoff or Backoff(0.05, 5.0)
        self._clock_samples: deque[tuple[float, float]] = deque(maxlen=8)
        self._past = past
        self._standing = False
        self._left: set[str] = set()
        self._remembered: Position | None = None

    @property
    def clock_offset(self) -> float:
        """Redis's clock minus this machine's, in seconds, from the quickest of the last answers."""
        return min(self._clock_samples)[1] if self._clock_samples else 0.0

    def remember(self, position: Position) -> None:
        """Tell where this relay stood when it ended: a Redis that has less of that history has lost changes since."""
        self._remembered = position

    def restore(self, snapshot: Snapshot, age: float) -> None:
        """Serve a snapshot that was kept, since nothing else is there to be served yet.

        Args:
            snapshot: what was kept.
            age: seconds since it was last known to be Redis's state.
        """
        self.snapshot = snapshot
        self.confirmed_at = asyncio.get_running_loop().time() - age
        self._move(SourceEvent.RESTORED, f"served from disk: {self.reason}")
        self._on_load(snapshot)

    async def run(self) -> NoReturn:
        """Follow until cancelled. Whatever Redis does, the last snapshot stays."""
        listener = Listener(self._settle, self._receive, self._verify, self._lose)
        await listen(
            lambda: subscribe(self._store, self.environment),
            listener,
            interval=self._verify_interval,
            backoff=self._backoff,
        )

    async def _settle(self) -> None:
        """From LOADING to LIVE: by the changes that we lack, or whole."""
        self._move(SourceEvent.SUBSCRIBED, self.reason)  # until it is loaded, what was wrong last still is
        why = await self._repair() if self.snapshot else "start"
        if why:
            await self._load(why)
        await self._read_clock()
        self._confirm()
        self._standing = True
        self._move(SourceEvent.LOADED, "the same as Redis")

    async def _receive(self, data: bytes) -> None:
        try:
            message = decode_message(data)
        except MessageError as error:
            self._blame(str(error))
            await self._correct()
            return
        mine = self.held().position
        match judge(mine, message):
            case Step.APPLY if isinstance(message, Change):
                self._confirm()
                self._apply(message)
            case Step.DROP:
                pass
            case _:
                await self._correct()
                if self.held().position == mine:
                    self._blame(f"it tells of revision {message.revision}, of which Redis knows nothing")

    def _blame(self, error: str) -> None:
        """Count a message that nobody should have sent; say so once, since whoever sends one sends many."""
        self.stats.bad_messages += 1
        if self.stats.bad_messages == 1:
            log.warning("bad message on the channel", environment=self.environment, error=error)

    def _apply(self, change: Change) -> None:
        self.snapshot = self.held().with_change(change)
        self.stats.changes += 1
        self.stats.last_change = change.revision, change.at
        self._on_change(change, self.snapshot)

    async def _verify(self) -> None:
        await self._correct()
        await self._read_clock()

    async def _correct(self) -> None:
        """Stand where Redis stands, whatever made us doubt it."""
        why = await self._repair()
        if why:
            self._move(SourceEvent.DIVERGED, WHY_RELOAD[why])
            await self._load(why)
            self._move(SourceEvent.LOADED, "the same as Redis")
        self._confirm()

    async def _repair(self) -> str | None:
        """Apply the changes that we lack. Returns why changes cannot help, or None where all is well."""
        mine = self.held().position
        theirs = await read_position(self._store, self.environment)
        match compare(mine, theirs):
            case Repair.NONE:
                return None
            case Repair.RELOAD:
                return "fork" if theirs.epoch == mine.epoch else "epoch"
        self.stats.gaps += 1
        try:
            changes = await read_changes(self._store, self.environment, mine.revision)
        except (ChangelogTrimmed, StoreCorrupt):
            return "trimmed"
        for change in changes:
            match judge(self.held().position, change):
                case Step.APPLY:
                    self._apply(change)
                case Step.REPAIR:
                    return "fork" if change.epoch == mine.epoch else "epoch"
        return None if self.held().position.revision >= theirs.revision else "trimmed"

    async def _load(self, why: str) -> None:
        snapshot = await read_snapshot(self._store, self.environment, self.snapshot)
        mine = self.snapshot.position if self.snapshot else self._remembered
        past = [] if self.snapshot else await self._read_past(snapshot.position)
        if mine and (why == "fork" or _parted(mine, snapshot.position, past)):
            self._left.add(mine.epoch)
        if snapshot.position.epoch in self._left:
            snapshot, past = await self._start_history(mine, snapshot.position), []
        self.stats.reloads[why] += 1
        if self.snapshot is None or snapshot.position != self.snapshot.position:
            self.snapshot, self.past = snapshot, past
            self._confirm()  # before anybody asks how old it is
            self._on_load(snapshot)
            self.past = []

    async def _read_past(self, position: Position) -> list[Change]:
        most, most_bytes = self._past
        return await read_recent_changes(self._store, self.environment, position, most=most, most_bytes=most_bytes)

    async def _start_history(self, mine: Position | None, found: Position) -> Snapshot:
        """Redis went back to an older state of an epoch: give what it has now an epoch of its own.

        Event ids may only grow within an epoch, and a client must never resume one history in another.
        """
        self.stats.histories_lost += 1
        log.warning(
            "Redis lost changes that it had acknowledged, as in a failover: its history gets a new epoch",
            environment=self.environment,
            held=mine.revision if mine else None,
            found=found.revision,
        )
        for _ in range(RENEWALS):
            found = await renew_epoch(self._store, self.environment, found)
            if found.epoch not in self._left:
                return await read_snapshot(self._store, self.environment, self.snapshot)
        raise StoreUnavailable(f'environment "{self.environment}" changes faster than its epoch can be renewed')

    async def _read_clock(self) -> None:
        asked = perf_counter()
        redis_us = await read_clock(self._store, self.environment)
        took = perf_counter() - asked
        self._clock_samples.append((took, redis_us / 1e6 - (time() - took / 2)))

    def held(self) -> Snapshot:
        """The snapshot, where there is one.

        Raises:
            RuntimeError: nothing was loaded yet.
        """
        if self.snapshot is None:
            raise RuntimeError("nothing is followed before it is loaded")
        return self.snapshot

    def _confirm(self) -> None:
        self.confirmed_at = asyncio.get_running_loop().time()

    def _lose(self, reason: str) -> None:
        self.stats.connection_losses += self._standing
        self._standing = False
        self._move(SourceEvent.LOST if self.snapshot else SourceEvent.FAILED, reason)

    def _move(self, event: SourceEvent, reason: str) -> None:
        state = transition(self.state, event)
        if (state, reason) != (self.state, self.reason):
            self.state = state
            self.reason = reason
            self._on_state(state, reason)


def _parted(mine: Position, theirs: Position, past: Sequence[Change]) -> bool:
    """Whether Redis's history is not the one that we stood in, as far as can be told from its last changes."""
    if mine.epoch != theirs.epoch or (theirs != mine and theirs.revision <= mine.revision):
        return True
    return any(change.revision == mine.revision + 1 and change.previous != mine.nonce for change in past)
