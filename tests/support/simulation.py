"""Virtual time, and a Redis that a test holds in its hand, where a model must rule both.

The Redis here does what the store's functions promise to a source, and is held to the same contract tests as the real
one (tests/store/test_contract.py).
"""

import asyncio
import contextlib
import random
import selectors
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from flagrelay.errors import ChangelogTrimmed, EnvironmentMissing, StoreUnavailable
from flagrelay.flags.change import Change, Definition
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay import pipeline as pipeline_module
from flagrelay.relay import source as source_module
from flagrelay.wire.message import encode_change

ANSWER_TIMEOUT = 5.0
"""Seconds after which a question that nobody answers has failed."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.now


class _Jump(selectors.SelectSelector):
    """Waits for nothing: it takes time forward instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self._loop.now += max(0.0, timeout)
        return []


@dataclass(frozen=True, slots=True)
class Stored:
    """An environment as Redis has it at one moment."""

    position: Position
    flags: Mapping[str, Definition] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()


class ModelRedis:
    """One server. `stored` is None where it has no environment; `past` is what it had after each write."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.up = True
        self.stored: Stored | None = None
        self.past: list[Stored] = []
        self.subscriptions: list[ModelSubscription] = []
        self.lost_acknowledged = False

    # -- what writers do --------------------------------------------------------------------------------------

    def create(self) -> None:
        self.stored = Stored(Position(self._nonce(), 0, self._nonce()))
        self.past = [self.stored]

    def write(self, key: str, definition: Definition | None) -> Change:
        """One change, acknowledged when this returns.

        Raises:
            StoreUnavailable: it is down.
            EnvironmentMissing: there is no environment.
        """
        stored = self.answer()
        epoch, revision, nonce = stored.position
        now = round(asyncio.get_running_loop().time() * 1e6)
        change = Change(epoch, revision + 1, self._nonce(), nonce, now, flags={key: definition})
        flags = {**stored.flags, key: definition}
        kept = {name: flag for name, flag in flags.items() if flag is not None}
        self.stored = Stored(change.position, kept, (*stored.changes, change))
        self.past.append(self.stored)
        self.publish(encode_change(change))
        return change

    # -- what happens to it -----------------------------------------------------------------------------------

    def publish(self, data: bytes) -> None:
        for subscription in list(self.subscriptions):
            subscription.way.deliver(subscription, data)

    def stop(self) -> None:
        self.up = False
        for subscription in list(self.subscriptions):
            subscription.cut()

    def start(self, *, lost: int = 0) -> None:
        """Start again, as it was, or without its last writes."""
        self.up = True
        if lost and self.stored and len(self.past) > 1:
            del self.past[-min(lost, len(self.past) - 1) :]
            self.stored = self.past[-1]
            self.lost_acknowledged = True

    def flush(self) -> None:
        self.stored, self.past = None, []
        self.lost_acknowledged = True

    def trim(self, most: int) -> None:
        if self.stored:
            self.stored = replace(
                self.stored, changes=self.stored.changes[len(self.stored.changes) - most :] if most else ()
            )

    # -- what it answers --------------------------------------------------------------------------------------

    def answer(self) -> Stored:
        if not self.up:
            raise StoreUnavailable("Redis at nowhere: connection refused")
        if self.stored is None:
            raise EnvironmentMissing("production")
        return self.stored

    def _nonce(self) -> str:
        return f"{self.rng.getrandbits(64):016x}"


class Way:
    """One relay's way to Redis, and what a network does to it. It stands for the relay's `Store`."""

    def __init__(self, redis: ModelRedis) -> None:
        self.redis = redis
        self.latency = 0.001
        self.dead = False
        """Nothing passes in either direction, and nobody is told."""
        self.lose = self.double = self.late = 0.0
        """How likely a message is lost, doubled, or late."""

    def well(self) -> None:
        self.latency, self.dead, self.lose, self.double, self.late = 0.001, False, 0.0, 0.0, 0.0

    async def ask(self) -> Stored:
        """What Redis answers; it is read in the middle of the way."""
        await self._travel()
        stored = self.redis.answer()
        await self._travel()
        return stored

    async def _travel(self) -> None:
        if self.dead:
            await asyncio.sleep(ANSWER_TIMEOUT)
            raise StoreUnavailable("Redis at nowhere: no answer")
        await asyncio.sleep(self.latency * self.redis.rng.uniform(0.1, 1.0))

    def deliver(self, subscription: "ModelSubscription", data: bytes) -> None:
        rng = self.redis.rng
        if self.dead or rng.random() < self.lose:
            return
        for _ in range(2 if rng.random() < self.double else 1):
            wait = self.latency if rng.random() >= self.late else rng.uniform(0, 3)
            asyncio.get_running_loop().call_later(wait, subscription.hear, data)

    def cut(self) -> None:
        for subscription in [each for each in self.redis.subscriptions if each.way is self]:
            subscription.cut()


class ModelSubscription:
    """What the store's `Subscription` is to a source."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.last_heard = asyncio.get_running_loop().time()
        self._heard: asyncio.Queue[bytes | None] = asyncio.Queue()

    def hear(self, data: bytes) -> None:
        if self in self.way.redis.subscriptions:
            self._heard.put_nowait(data)

    def cut(self) -> None:
        self.way.redis.subscriptions.remove(self)
        self._heard.put_nowait(None)

    async def next(self, timeout: float) -> bytes | None:  # noqa: ASYNC109 - the store's signature
        try:
            async with asyncio.timeout(timeout):
                data = await self._heard.get()
        except TimeoutError:
            return None
        if data is None:
            raise StoreUnavailable("Redis at nowhere: the connection was lost")
        self.last_heard = asyncio.get_running_loop().time()
        return data

    async def ping(self) -> None:
        if not self.way.dead:
            self.last_heard = asyncio.get_running_loop().time()


# -- the store's functions --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def subscribe(way: Way, _environment: str) -> AsyncIterator[ModelSubscription]:
    await way._travel()
    if not way.redis.up:
        raise StoreUnavailable("Redis at nowhere: connection refused")
    subscription = ModelSubscription(way)
    way.redis.subscriptions.append(subscription)
    try:
        await way._travel()
        yield subscription
    finally:
        if subscription in way.redis.subscriptions:
            way.redis.subscriptions.remove(subscription)


async def read_position(way: Way, _environment: str) -> Position:
    return (await way.ask()).position


async def read_snapshot(way: Way, _environment: str, _known: Snapshot | None = None) -> Snapshot:
    stored = await way.ask()
    return Snapshot(stored.position, stored.flags)


async def read_changes(way: Way, environment: str, after: int) -> list[Change]:
    stored = await way.ask()
    changes = [change for change in stored.changes if change.revision > after]
    if changes and changes[0].revision != after + 1:
        raise ChangelogTrimmed(f'the changelog of environment "{environment}" has no revision {after + 1}')
    return changes


async def read_recent_changes(
    way: Way,
    _environment: str,
    position: Position,
    *,
    most: int,
    most_bytes: int,
) -> list[Change]:
    stored = await way.ask()
    changes = [change for change in stored.changes if change.revision <= position.revision]
    fits = bool(changes) and changes[-1].position == position
    return changes[-most:] if fits and most else []


async def read_clock(way: Way, _environment: str) -> int:
    await way.ask()
    return round(asyncio.get_running_loop().time() * 1e6)


async def renew_epoch(way: Way, _environment: str, seen: Position) -> Position:
    stored = await way.ask()
    if stored.position == seen and way.redis.stored is stored:
        position = seen._replace(epoch=way.redis._nonce())
        way.redis.stored = replace(stored, position=position, changes=())
        way.redis.past = [way.redis.stored]
    return way.redis.answer().position


FUNCTIONS: dict[str, Any] = {
    "subscribe": subscribe,
    "read_position": read_position,
    "read_snapshot": read_snapshot,
    "read_changes": read_changes,
    "read_recent_changes": read_recent_changes,
    "read_clock": read_clock,
    "renew_epoch": renew_epoch,
}


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Sources ask the model, while the block lasts."""
    with (
        patch.multiple(source_module, **FUNCTIONS),
        patch.object(pipeline_module, "read_position", read_position),
    ):
        yield
