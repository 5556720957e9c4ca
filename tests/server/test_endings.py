"""How a stream ends: gone, revoked, expired, at its lifetime; and a relay that has no room for one."""

import time

import pytest

from flagrelay.store.access_keys import revoke_access_key
from support.relays import KINDS, RunningRelay, World, running_relay
from support.streams import Replica, ask, stream

pytestmark = pytest.mark.parametrize("kind", KINDS)


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


# -- room -----------------------------------------------------------------------------------------------------


async def test_a_full_relay_says_when_to_come_back_and_has_room_once_somebody_leaves(kind: str, world: World) -> None:
    async with running_relay(kind, world, max_streams=2) as relay:
        secret = await relay.secret()
        async with stream(relay.port, secret) as first:
            await first.event("put")
            async with stream(relay.port, secret) as second:
                await second.event("put")
                answer = await ask(relay.port, "/v1/stream", secret)
                assert (answer.status, answer.json["errorCode"]) == (503, "OVERLOADED")
                assert "2 streams" in answer.json["errorDetails"]
                assert 2 <= int(answer.headers["retry-after"]) <= 10
                # Only streams are limited.
                assert (await ask(relay.port, "/v1/flags", secret)).status == 200
            await relay.streams(1)
            async with stream(relay.port, secret) as third:
                await third.event("put")


async def test_one_key_has_only_so_many_streams(kind: str, world: World) -> None:
    async with running_relay(kind, world, max_streams_per_key=1) as relay:
        (key, secret), other = await relay.key(), await relay.secret()
        async with stream(relay.port, secret) as opened:
            await opened.event("put")
            answer = await ask(relay.port, "/v1/stream", secret)
            assert (answer.status, answer.json["errorCode"]) == (503, "OVERLOADED")
            assert key.id in answer.json["errorDetails"]
            assert secret not in answer.body.decode()
            async with stream(relay.port, other) as theirs:
                await theirs.event("put")
