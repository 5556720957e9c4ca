"""Relays in the test's own event loop, behind each of the servers that carry them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import hypercorn.asyncio
import hypercorn.config
import uvicorn
from starlette.applications import Starlette

from flagrelay.relay.pipeline import Pipeline
from flagrelay.relay.subscriber import Subscriber
from flagrelay.server.app import create_app
from flagrelay.server.context import Context
from flagrelay.server.listeners import bind
from flagrelay.server.portable import ResponseTransport
from flagrelay.server.serve import RelayServer
from flagrelay.settings import Settings
from flagrelay.store.access_keys import AccessKey, create_access_key
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_snapshot
from flagrelay.store.writing import Draft, Written, write_change
from flagrelay.wire.event_id import format_event_id
from support.fakes import definition
from support.sources import Wire, until

ENVIRONMENT = "production"

KINDS = ("handover", "uvicorn", "hypercorn")
"""`handover` is the relay's own server; the other two know nothing of it, and take the portable path."""

QUICK: dict[str, Any] = {
    "verify_interval": 0.2,
    "backoff_min": 0.01,
    "backoff_max": 0.05,
    "heartbeat_interval": 60.0,
    "drain_timeout": 2.0,
    "drain_spread": 1.0,
}
"""Settings of a relay that has little time."""


class World:
    """One environment in Redis, and whoever writes to it."""

    def __init__(self, store: Store, redis_url: str) -> None:
        self.store = store
        self.redis_url = redis_url

    async def put(self, flags: dict[str, Any], **draft: Any) -> Written:
        return await write_change(self.store, ENVIRONMENT, Draft(flags=flags, actor="ada", **draft))

    async def tick(self, number: int, key: str = "flag") -> Written:
        """One small change."""
        return await self.put({key: definition(number)})

    async def event_id(self) -> str:
        """The id of the event that brings a client to where Redis stands."""
        position = (await read_snapshot(self.store, ENVIRONMENT)).position
        return format_event_id(position.epoch, position.revision)


async def make_world(store: Store, redis_url: str) -> World:
    """An environment with two flags, a population and metadata: three changes."""
    await create_environment(store, ENVIRONMENT)
    world = World(store, redis_url)
    await world.put({"flag": definition(0)})
    await world.put({"old": definition(1)}, evaluators={"beta": {"in": ["@example.com", {"var": "email"}]}})
    await world.put({}, metadata={"team": "checkout"})
    return world


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A relay that answers on a port of this machine."""

    kind: str
    world: World
    port: int
    app: Starlette
    server: uvicorn.Server | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context

    @property
    def pipeline(self) -> Pipeline:
        return self.context.relay.pipelines[ENVIRONMENT]

    @property
    def connections(self) -> int:
        """Connections that uvicorn holds."""
        assert self.server
        return len(self.server.server_state.connections)

    async def key(
        self, kind: str = "server", *, environment: str = ENVIRONMENT, expires: int | None = None
    ) -> tuple[AccessKey, str]:
        """A new access key, which the relay has heard of, and its secret."""
        key, secret = await create_access_key(self.world.store, environment, kind, "a test's", expires)
        await until(lambda: key.digest in self.context.keyring._keys, "the relay has heard of the key")
        return key, secret

    async def secret(self, kind: str = "server") -> str:
        """The secret of a new access key, which the relay has heard of."""
        return (await self.key(kind))[1]

    async def at(self, revision: int) -> None:
        """Wait until it serves a revision."""
        await until(
            lambda: self.pipeline.snapshot and self.pipeline.snapshot.position.revision == revision,
            f"the relay is at revision {revision}",
        )

    async def streams(self, count: int) -> None:
        """Wait until it has that many streams."""
        await until(lambda: self.context.relay.streams == count, f"{count} streams are open")

    async def closed(self, reason: str, count: int = 1) -> None:
        """Wait until that many streams were closed for a reason."""
        closed = self.pipeline.stats.closed
        await until(lambda: closed[reason] == count, f"{count} streams closed as {reason}; they are {closed}")


@contextlib.asynccontextmanager
async def running_relay(kind: str, world: World, *, ready: bool = True, **settings: Any) -> AsyncIterator[RunningRelay]:
    """A relay behind a server; once it is `ready`, unless told otherwise.

    Args:
        kind: one of `KINDS`.
        world: what it serves.
        ready: whether to wait until the environment and the keys have loaded.
        settings: what differs from `QUICK`.
    """
    chosen = Settings(
        **{"redis_url": world.redis_url, "prefix": world.store.keys.prefix, "env": (ENVIRONMENT,), **QUICK, **settings}
    )
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    server: uvicorn.Server | None = None
    if kind == "hypercorn":
        app = create_app(chosen)
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = 0.5
        config.accesslog = config.errorlog = None
        run = hypercorn.asyncio.serve(cast("Any", app), config, shutdown_trigger=stop.wait)
    elif kind == "uvicorn":
        app = create_app(chosen)
        server = _Uvicorn(
            uvicorn.Config(app, http="httptools", ws="none", lifespan="on", log_config=None, access_log=False)
        )
        run = server.serve([listener])
    else:
        server = _Relay(chosen)
        app = cast("Starlette", server.config.app)
        run = server.serve([listener])
    task = asyncio.create_task(run)
    relay = RunningRelay(kind, world, port, app, server)
    try:
        await until(lambda: task.done() or _started(relay, ready=ready), "the relay has started")
        yield relay
    finally:
        stop.set()
        if server:
            server.should_exit = True
        async with asyncio.timeout(15):
            await task


def _started(relay: RunningRelay, *, ready: bool) -> bool:
    if not hasattr(relay.app.state, "context") or (relay.server and not relay.server.started):
        return False
    pipelines = relay.context.relay.pipelines
    return not ready or (relay.context.keyring.live and ENVIRONMENT in pipelines and pipelines[ENVIRONMENT].live)


class _Prompt(uvicorn.Server):
    """Ends when it is told to; uvicorn itself looks ten times a second, which hundreds of tests would wait for."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.005)


class _Relay(_Prompt, RelayServer):
    """The relay's own server."""


class _Uvicorn(_Prompt):
    """uvicorn as anybody runs it, but for the signals, which in a test are pytest's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def wired_relay(
    kind: str, world: World, folder: Path, *, ready: bool = True, **settings: Any
) -> AsyncIterator[tuple[RunningRelay, Wire]]:
    """A relay whose way to Redis a test can cut; the world's own way stays."""
    address = urlsplit(world.redis_url)
    async with Wire(folder / "redis.sock", Path(address.path)) as wire:
        url = f"unix://{wire.path}?{address.query}"
        async with running_relay(kind, world, ready=ready, redis_url=url, **settings) as relay:
            yield relay, wire


def buffered(subscriber: Subscriber) -> int:
    """The bytes that the relay holds for a stream, because its client does not read them."""
    transport = subscriber.transport
    if isinstance(transport, ResponseTransport):
        return transport._size
    return cast("asyncio.WriteTransport", transport).get_write_buffer_size()
