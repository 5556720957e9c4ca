"""How a stream ends: gone, revoked, expired, at its lifetime, too slow; and who does not get one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from support.fakes import definition
from support.relays import KINDS, RunningRelay, World, buffered, running_relay
from support.sources import until
from support.streams import Replica, Stream, ask, connection, request, stream

from flagrelay.store.access_keys import revoke_access_key

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
async def relay(kind: str, world: World) -> AsyncIterator[RunningRelay]:
    async with running_relay(kind, world) as running:
        yield running


# -- endings --------------------------------------------------------------------------------------------------


async def test_a_revoked_key_ends_its_streams_at_once_and_no_others(relay: RunningRelay, world: World) -> None:
    key, secret = await relay.key()
    other = await relay.secret()
    async with (
        stream(relay.port, secret) as first,
        stream(relay.port, secret) as second,
        stream(relay.port, other) as kept,
    ):
        for opened in (first, second, kept):
            await opened.event("put")
        started = time.perf_counter()
        await revoke_access_key(world.store, key.id)
        assert await first.goodbye() == await second.goodbye() == "revoked"
        assert time.perf_counter() - started < 1
        assert (await ask(relay.port, "/v1/stream", secret)).status == 401
        await world.tick(1)
        await kept.event("patch")
    assert relay.pipeline.stats.closed["revoked"] == 2


async def test_an_expired_key_ends_its_streams(relay: RunningRelay, world: World) -> None:
    _, secret = await relay.key(expires=int(time.time() + 1.2))
    async with stream(relay.port, secret) as opened:
        await opened.event("put")
        assert await opened.goodbye() == "expired"
    answer = await ask(relay.port, "/v1/stream", secret)
    assert (answer.status, answer.json["errorCode"]) == (401, "UNAUTHORIZED")
    assert "expired" in answer.json["errorDetails"]


async def test_a_stream_ends_at_its_lifetime_and_resumes_without_a_loss(kind: str, world: World) -> None:
    async with running_relay(kind, world, stream_lifetime=0.4) as relay:
        secret, replica = await relay.secret(), Replica()
        async with stream(relay.port, secret) as opened:
            replica.take(await opened.event("put"))
            assert await opened.goodbye() == "lifetime"
        await relay.at((await world.tick(1)).revision)
        async with stream(relay.port, secret, replica.event_id) as opened:
            assert opened.resume == "delta"


async def test_a_client_that_goes_is_forgotten(relay: RunningRelay, world: World) -> None:
    secret = await relay.secret()
    async with stream(relay.port, secret) as opened:
        await opened.event("put")
        assert relay.context.relay.streams == 1
    await relay.streams(0)
    async with stream(relay.port, secret) as opened:
        await opened.event("put")
        opened.connection.reset()
        await relay.streams(0)
    assert relay.pipeline.stats.closed == {"gone": 2}
