"""An environment kept fresh in a process: what the client does when the relay goes, is silent, or says goodbye."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from flagrelay.errors import StreamError
from flagrelay.sdk.client import Client, ClientState
from flagrelay.store.access_keys import revoke_access_key
from flagrelay.store.connection import Store
from support.proxy import Proxy
from support.relays import World, make_world, running_relay
from support.sources import until


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store, store.address.url)


@contextlib.asynccontextmanager
async def running(
    url: str, key: str, **options: Any
) -> AsyncIterator[tuple[Client, list[ClientState], "asyncio.Task[Any]"]]:
    states: list[ClientState] = []
    client = Client(url, key, retry=0.02, on_state=states.append, **options)
    task = asyncio.create_task(client.run())
    try:
        yield client, states, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_is_ready_with_flags_and_follows_changes(world: World) -> None:
    async with (
        running_relay("handover", world) as relay,
        running(relay.url, await relay.secret()) as (client, states, _),
    ):
        assert client.state is ClientState.NOT_READY
        await until(lambda: client.state is ClientState.READY, "it is ready")
        await world.tick(7)
        await until(lambda: client.replica.flags["flag"]["metadata"]["n"] == 7, "it follows")
        assert states == [ClientState.READY]


async def test_a_relay_that_goes_leaves_it_stale_with_its_flags_until_one_is_back(world: World) -> None:
    async with Proxy("127.0.0.1:1") as proxy, running_relay("handover", world, drain_spread=0.0) as relay:
        proxy.backend = f"127.0.0.1:{relay.port}"
        secret = await relay.secret()
        async with running(f"http://127.0.0.1:{proxy.port}", secret) as (client, states, _):
            await until(lambda: client.state is ClientState.READY, "it is ready")
            proxy.refusing = True
            proxy.cut()
            await until(lambda: client.state is ClientState.STALE, "it knows that it is stale")
            assert client.replica.flags
            await world.tick(8)
            proxy.restore()
            await until(lambda: client.replica.flags["flag"]["metadata"]["n"] == 8, "it has caught up")
            assert states == [ClientState.READY, ClientState.STALE, ClientState.READY]


async def test_silence_is_a_loss(world: World) -> None:
    async with (
        running_relay("handover", world, heartbeat_interval=0.05) as relay,
        Proxy(f"127.0.0.1:{relay.port}") as proxy,
    ):
        options = {"silence": 0.3}
        async with running(f"http://127.0.0.1:{proxy.port}", await relay.secret(), **options) as (client, states, _):
            await until(lambda: client.state is ClientState.READY, "it is ready")
            proxy.blackhole()
            await until(lambda: client.state is ClientState.STALE, "silence is noticed")
            proxy.restore(drop=True)
            await until(lambda: client.state is ClientState.READY, "it is ready again")
            assert states[0] is ClientState.READY


async def test_a_relay_that_has_lost_redis_makes_it_stale_on_an_open_stream(world: World) -> None:
    async with (
        running_relay("handover", world, heartbeat_interval=0.05) as relay,
        running(relay.url, await relay.secret()) as (client, _, _),
    ):
        await until(lambda: client.state is ClientState.READY, "it is ready")
        await world.store.client.delete(world.store.keys.state("production"))
        await until(lambda: client.state is ClientState.STALE, "the heartbeats say so")
        assert relay.context.relay.streams == 1


async def test_a_revoked_key_is_the_end_and_the_flags_stay(world: World) -> None:
    async with running_relay("handover", world) as relay:
        key, secret = await relay.key()
        async with running(relay.url, secret) as (client, _, task):
            await until(lambda: client.state is ClientState.READY, "it is ready")
            await revoke_access_key(world.store, key.id)
            await until(task.done, "it ends", within=15)
            with pytest.raises(StreamError, match="UNAUTHORIZED"):
                task.result()
            assert client.state is ClientState.STALE
            assert client.replica.flags
