"""A small world that can be broken: a real Redis, real relay processes, SDKs and writers, and proxies in between.

Whatever a scenario does to it, it ends with the same check: every stream's state is Redis's, no stream went back within
an epoch, nothing came twice, and no change that a writer was told of is missing, from the changelog or from any stream.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from flagrelay.cli.kept import Kept, kept
from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.sdk.client import Client, ClientState
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_position, read_snapshot
from flagrelay.store.writing import Draft, write_change
from flagrelay.wire.event_id import EventId, format_event_id, parse_event_id
from flagrelay.wire.sse import Event
from support.fakes import definition
from support.proxy import Proxy
from support.sources import until

ENVIRONMENT = "production"

log = structlog.get_logger()

RUNS = int(os.environ.get("FLAGRELAY_FAULT_RUNS", "2"))
"""How many times each scenario runs, each with another timing."""

SETTLING = 20.0
"""Seconds in which everything must be well once the faults have ended."""

QUICK: Mapping[str, str] = {
    "verify-interval": "0.25",
    "backoff-min": "0.01",
    "backoff-max": "0.2",
    "heartbeat-interval": "0.3",
    "retry": "0.1",
    "drain-timeout": "3",
    "drain-spread": "0.5",
    "state-wait": "0.3",
    "state-interval": "0.1",
    "log-level": "info",
    "log-format": "json",
}


class Redis:
    """A real Redis server that can be killed and started again with what it had on disk."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.folder.mkdir(exist_ok=True)
        self._arguments = ("--appendonly", "yes", "--appendfsync", "always", *arguments)
        self._stack = ExitStack()
        self.server: PrivateRedis = self._start()

    @property
    def backend(self) -> str:
        return f"unix:{self.folder / 'redis.sock'}"

    def _start(self) -> PrivateRedis:
        return self._stack.enter_context(private_redis(*self._arguments, port=self.port, folder=self.folder))

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.server.signal(signal.SIGKILL)
        self._stack.close()

    def start(self, *, with_data: bool = True) -> None:
        """Start it again."""
        if not with_data:
            for path in self.folder.rglob("*.aof*"):  # in a folder of its own since Redis 7
                path.unlink()
        self.server = self._start()

    def close(self) -> None:
        self._stack.close()


class RelayProcess:
    """A relay in a process of its own, and the proxies on either side of it."""

    def __init__(self, folder: Path, to_redis: Proxy, to_sdks: Proxy, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.to_redis = to_redis
        self.to_sdks = to_sdks
        self.settings = {**QUICK, "state-dir": str(folder / "state"), **settings}
        self.port = 0
        self._stack = ExitStack()
        self._process: Kept | None = None

    @property
    def url(self) -> str:
        """Where SDKs reach it, whichever port it has."""
        return f"http://127.0.0.1:{self.to_sdks.port}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged, over all its lives."""
        lines = (self.folder / "relay.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def raw_log(self) -> str:
        return (self.folder / "relay.log").read_text(encoding="utf-8", errors="replace")

    async def start(self, **settings: str) -> None:
        """Start it, and lead the SDKs to it."""
        redis_url = f"redis://127.0.0.1:{self.to_redis.port}/0"
        given = {"redis-url": redis_url, "port": "0", **self.settings, **settings}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "flagrelay", "serve", *words]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLAGRELAY_")}
        self._process = await asyncio.to_thread(
            self._stack.enter_context, kept(command, log=self.folder / "relay.log", environment=clean)
        )
        line = await asyncio.to_thread(self._process.output.readline)
        assert line.startswith("listening on"), self.raw_log
        self.port = int(line.rsplit(":", 1)[1])
        self.to_sdks.backend = f"127.0.0.1:{self.port}"

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process
        os.kill(self._process.pid, number)

    async def end(self, number: signal.Signals) -> None:
        """End it, and wait until it has."""
        with contextlib.suppress(ProcessLookupError):
            self.send(number)
        assert self._process
        await asyncio.to_thread(self._process.output.read)  # it ends when the process does
        await asyncio.to_thread(self._stack.close)
        self._process = None

    def close(self) -> None:
        self._stack.close()

    async def get(self, path: str) -> tuple[int, str]:
        """An answer from the relay itself, past the proxies."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()

    async def report(self) -> dict[str, Any]:
        """What /readyz says of the environment; empty where it says nothing."""
        try:
            _, text = await self.get("/readyz")
        except (aiohttp.ClientError, OSError):
            return {}
        found: dict[str, Any] = json.loads(text)["environments"].get(ENVIRONMENT, {})
        return found


class Sdk:
    """An SDK that follows for good, and notes every rule that a relay breaks towards it."""

    def __init__(self, url: str, key: str) -> None:
        self.broken: list[str] = []
        self.covered: dict[str, set[int]] = {}
        """By epoch, the revisions that have reached it, alone or within a put."""
        self.states: list[ClientState] = []
        self.ready_at: list[float] = []
        """When it became READY, each time, in the event loop's time."""
        self.puts = 0
        self._last: EventId | None = None
        self.client = Client(url, key, silence=1.5, retry=0.05, on_event=self._note, on_state=self._moved)
        self._task = asyncio.create_task(self.client.run())

    def _moved(self, state: ClientState) -> None:
        self.states.append(state)
        if state is ClientState.READY:
            self.ready_at.append(asyncio.get_running_loop().time())

    def _note(self, event: Event) -> None:
        if event.type not in ("put", "patch"):
            return
        now = parse_event_id(event.id)
        if now is None:
            self.broken.append(f"a {event.type} with the id {event.id!r}")
            return
        last, self._last = self._last, now
        if last and last.epoch == now.epoch and (now.revision < last.revision or now == last):
            self.broken.append(f"a {event.type} of {event.id} after {format_event_id(*last)}")
        self.covered.setdefault(now.epoch, set()).add(now.revision)
        self.puts += event.type == "put"

    @property
    def flags(self) -> dict[str, Any]:
        return self.client.replica.flags

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@dataclass
class Acknowledged:
    """The changes that a writer was told of: revision and what each wrote, by epoch."""

    changes: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)
    count: int = 0
    unknown: int = 0
    """Writes that may have happened: nobody said."""


class World:
    """Everything that a scenario breaks."""

    def __init__(self, folder: Path, redis: Redis, relays: list[RelayProcess], rng: random.Random) -> None:
        self.folder = folder
        self.redis = redis
        self.relays = relays
        self.rng = rng
        self.sdks: list[Sdk] = []
        self.acknowledged = Acknowledged()
        self.secret = ""
        self.number = 0

    def runs(self, count: int = RUNS) -> Iterator[int]:
        """The runs of a scenario, each with another timing."""
        yield from range(count)

    # -- writing ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The writers' own way to Redis, past every proxy."""
        async with open_store(RedisAddress(self.redis.server.url)) as store:
            yield store

    async def write(self, key: str | None = None) -> None:
        """One change; what becomes of it is remembered."""
        self.number += 1
        key = key or f"flag-{self.rng.randrange(5)}"
        number = self.number
        try:
            async with asyncio.timeout(3), self.store() as store:
                epoch = (await read_position(store, ENVIRONMENT)).epoch
                written = await write_change(store, ENVIRONMENT, Draft(flags={key: definition(number)}, actor="ada"))
                self.acknowledged.changes.setdefault(epoch, {})[written.revision] = (key, number)
                self.acknowledged.count += 1
        except (StoreUnavailable, StoreError, TimeoutError, OSError):
            self.acknowledged.unknown += 1

    @contextlib.asynccontextmanager
    async def writing(self, writers: int = 1) -> AsyncIterator[None]:
        """Changes, one after another, while the block lasts."""

        done = asyncio.Event()  # not cancelled: redis-py loses cancellations before Python 3.12

        async def write_on() -> None:
            while not done.is_set():
                await self.write()
                await asyncio.sleep(self.rng.uniform(0.001, 0.02))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(writers):
                tasks.create_task(write_on())
            try:
                yield
            finally:
                done.set()

    async def pause(self, shortest: float = 0.02, longest: float = 0.3) -> None:
        """A random while, in which things happen."""
        await asyncio.sleep(self.rng.uniform(shortest, longest))

    @property
    def revision_acknowledged(self) -> int:
        """The highest revision that a writer was told of."""
        return max(max(changes) for changes in self.acknowledged.changes.values())

    # -- the check --------------------------------------------------------------------------------------------

    async def settled(self, *, lossy: bool = False) -> None:
        """The faults end; then everything must be as it should, within the time to settle.

        Args:
            lossy: whether Redis itself lost changes that it had acknowledged.
        """
        for relay in self.relays:
            relay.to_redis.restore()
            relay.to_sdks.restore()
        told = self.acknowledged.count
        while self.acknowledged.count == told:
            await self.write("last")  # a loss at the very end would otherwise show nowhere
        async with self.store() as store:
            truth = await self._agreed(store)
            held = await read_changes(store, ENVIRONMENT, await self._oldest_held(store))
        for sdk in self.sdks:
            assert sdk.flags == truth.flags
            assert not sdk.broken, sdk.broken
        for relay in self.relays:
            assert (await relay.get("/readyz"))[0] == 200
            assert "Traceback" not in relay.raw_log
        self._nothing_missing(truth.position, {change.revision for change in held}, lossy=lossy)

    async def _agreed(self, store: Store) -> Snapshot:
        """Wait until every relay and every SDK stands where Redis stands; what Redis has there."""
        deadline = asyncio.get_running_loop().time() + SETTLING
        while True:
            truth = await read_snapshot(store, ENVIRONMENT)
            wanted = format_event_id(truth.position.epoch, truth.position.revision)
            sdks = [(sdk.client.replica.id, sdk.client.state) for sdk in self.sdks]
            reports = [await relay.report() for relay in self.relays]
            if all(sdk == (wanted, ClientState.READY) for sdk in sdks) and all(
                (report.get("source"), report.get("revision")) == ("live", truth.position.revision)
                for report in reports
            ):
                return truth
            assert asyncio.get_running_loop().time() < deadline, f"Redis: {wanted}, SDKs: {sdks}, relays: {reports}"
            await asyncio.sleep(0.02)

    async def _oldest_held(self, store: Store) -> int:
        entries = await store.client.xrange(store.keys.changes(ENVIRONMENT), count=1)
        return int(entries[0][0].split(b"-")[0]) - 1 if entries else 0

    def _nothing_missing(self, position: Position, held: set[int], *, lossy: bool) -> None:
        acknowledged = self.acknowledged.changes.get(position.epoch, {})
        if not lossy:
            assert set(self.acknowledged.changes) <= {position.epoch}, "no history was lost, and so none began"
            trimmed = min(held, default=0)
            assert {revision for revision in acknowledged if revision >= trimmed} <= held, "the changelog lacks some"
        for sdk in self.sdks:
            newest: dict[str, int] = {}
            for _, (key, number) in sorted(acknowledged.items()):
                newest[key] = number
            for key, number in newest.items():
                assert sdk.flags[key]["metadata"]["n"] >= number, "an acknowledged change is missing from a stream"


@contextlib.asynccontextmanager
async def broken_world(
    folder: Path, *, relays: int = 1, sdks: int = 2, redis_port: int = 0, settings: Mapping[str, str] | None = None
) -> AsyncIterator[World]:
    """A world with everything running, and every SDK current.

    Args:
        folder: for data and logs.
        relays: how many relay processes.
        sdks: how many SDKs on each.
        redis_port: a loopback port on which Redis listens, for a replica; 0 for none.
        settings: of the relays, over `QUICK`.
    """
    redis = Redis(folder / "redis", port=redis_port)
    async with AsyncExitStack() as stack:
        stack.callback(redis.close)
        processes = []
        for number in range(relays):
            place = folder / f"relay-{number}"
            place.mkdir()
            to_redis = await stack.enter_async_context(Proxy(redis.backend))
            to_sdks = await stack.enter_async_context(Proxy("127.0.0.1:1"))
            process = RelayProcess(place, to_redis, to_sdks, settings or {})
            stack.callback(process.close)
            processes.append(process)
        seed = 1 if "CI" in os.environ else random.randrange(10**6)
        log.info("a world", seed=seed)  # pytest shows it where the test fails
        world = World(folder, redis, processes, random.Random(seed))
        async with world.store() as store:
            await create_environment(store, ENVIRONMENT)
            _, world.secret = await create_access_key(store, ENVIRONMENT, "server", "sdk", None)
        await world.write()
        await asyncio.gather(*(relay.start() for relay in processes))
        for relay in processes:
            for _ in range(sdks):
                sdk = Sdk(relay.url, world.secret)
                stack.push_async_callback(sdk.close)
                world.sdks.append(sdk)
        await until(lambda: all(sdk.flags for sdk in world.sdks), "every SDK has flags")
        yield world
