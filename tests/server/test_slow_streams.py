"""Clients that do not read, over real sockets: they cost a bound of memory, and in the end they go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flagrelay.store.reading import read_snapshot
from support.fakes import definition
from support.relays import ENVIRONMENT, KINDS, RunningRelay, World, buffered, running_relay
from support.sources import until
from support.streams import PATIENCE, Replica, Stream, stream

pytestmark = pytest.mark.parametrize("kind", KINDS)

LARGE = 100_000
HIGH_WATER = 64 * 1024
MOST = HIGH_WATER + LARGE + 1000
"""What may be held for a client that does not read: up to the mark, and the frame that passed it."""


async def flood(relay: RunningRelay, world: World) -> int:
    """Write large changes until somebody lags, and ten more; the revision that they end at."""
    lagging = relay.pipeline.hub.lagging
    more = 10
    for number in range(200):
        flag = definition(number) | {"metadata": {"text": "x" * LARGE}}
        written = await world.put({f"large-{number % 8}": flag})
        await relay.at(written.revision)
        assert all(buffered(subscriber) <= MOST for subscriber in relay.pipeline.hub.subscribers)
        more = more - 1 if lagging else 10
        if not more:
            return written.revision
    raise AssertionError("20 MB were written, and nobody lags")


async def everything(opened: Stream) -> None:
    """Read a stream to its end."""
    while await opened.next():
        pass


@asynccontextmanager
async def following(opened: Stream, replica: Replica) -> AsyncIterator[None]:
    """Take what comes, at once."""

    async def follow() -> None:
        while True:
            replica.take(await opened.event())

    task = asyncio.create_task(follow())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()


async def test_a_client_that_does_not_read_costs_a_bound_and_disturbs_nobody_and_catches_up(
    kind: str, world: World
) -> None:
    async with running_relay(kind, world, high_water=HIGH_WATER) as relay:
        secret, hub, quick, slow = await relay.secret(), relay.pipeline.hub, Replica(), Replica()
        async with (
            stream(relay.port, secret) as quickly,
            stream(relay.port, secret, receive_buffer=4096) as slowly,
            following(quickly, quick),
        ):
            slow.take(await slowly.event("put"))
            last = await flood(relay, world)
            await until(lambda: quick.revision == last, "whoever reads has everything")
            assert len(hub.lagging) == 1, "whoever does not read lags"
            held = [buffered(subscriber) for subscriber in hub.lagging]
            await relay.at((await world.tick(1)).revision)
            assert [buffered(subscriber) for subscriber in hub.lagging] == held, "nothing more is held for it"
            await slow.follow(slowly, last + 1)
            await until(lambda: quick.revision == last + 1 and not hub.lagging, "nobody lags any more")
        flags = (await read_snapshot(world.store, ENVIRONMENT)).flags
        assert slow.flags == quick.flags == flags


async def test_a_client_that_comes_back_too_late_for_the_changes_gets_the_whole_flag_set(
    kind: str, world: World
) -> None:
    async with running_relay(kind, world, high_water=HIGH_WATER, changes_held=5) as relay:
        slow = Replica()
        async with stream(relay.port, await relay.secret(), receive_buffer=4096) as slowly:
            slow.take(await slowly.event("put"))
            await slow.follow(slowly, await flood(relay, world))
        assert slow.puts == 2
        assert slow.flags == (await read_snapshot(world.store, ENVIRONMENT)).flags


async def test_a_client_that_lags_for_too_long_is_told_so_and_can_resume(kind: str, world: World) -> None:
    async with running_relay(kind, world, high_water=HIGH_WATER, lagging_timeout=0.2) as relay:
        secret, slow = await relay.secret(), Replica()
        async with stream(relay.port, secret, receive_buffer=4096) as slowly:
            slow.take(await slowly.event("put"))
            last = await flood(relay, world)
            await relay.closed("lagging")
            async with asyncio.timeout(PATIENCE):
                while (event := await slowly.event()).type != "goodbye":
                    slow.take(event)
            assert event.data == '{"reason":"lagging"}'
            assert event.retry
            assert await slowly.next() is None
        assert slow.revision < last
        async with stream(relay.port, secret, slow.event_id) as again:
            await slow.follow(again, last)
        assert slow.flags == (await read_snapshot(world.store, ENVIRONMENT)).flags


async def test_a_client_that_never_reads_is_cut_off(kind: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagrelay.relay.hub.ABORT_AFTER", 0.2)
    async with running_relay(kind, world, high_water=HIGH_WATER, lagging_timeout=0.2) as relay:
        hub = relay.pipeline.hub
        async with stream(relay.port, await relay.secret(), receive_buffer=4096) as opened:
            await flood(relay, world)
            await until(lambda: not hub.subscribers and not hub._leaving, "nothing of it is left in the hub")
            assert relay.pipeline.stats.closed == {"lagging": 1}
            if kind == "handover":
                # Elsewhere the socket is the server's, and so is its end.
                with pytest.raises((EOFError, ConnectionError)):
                    await everything(opened)
