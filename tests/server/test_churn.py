"""Clients that come and go at random while changes flow: nothing is lost, nothing comes twice, nothing goes back."""

import asyncio
import random

import pytest

from flagrelay.relay.feed import TAILS_BYTES, DefinitionsFeed
from flagrelay.store.reading import read_snapshot
from flagrelay.wire.event_id import format_event_id
from support.fakes import definition
from support.relays import ENVIRONMENT, KINDS, RunningRelay, World, running_relay
from support.streams import Replica, connection, request, stream

CLIENTS = 20
RECONNECTS = {"handover": 3000, "uvicorn": 300, "hypercorn": 300}


async def write(world: World, rng: random.Random, done: asyncio.Event) -> int:
    """Change flags, as fast as the clients come and go; the last revision."""
    revision = 0
    while not done.is_set():
        key = f"flag-{rng.randrange(30)}"
        flag = None if rng.random() < 0.2 else definition(rng.randrange(1000))
        beta = {"==": [{"var": "n"}, rng.randrange(10)]}
        evaluators = {"beta": beta} if rng.random() < 0.1 else {}
        revision = (await world.put({key: flag}, evaluators=evaluators)).revision
        await asyncio.sleep(rng.random() * 0.004)
    return revision


async def wander(relay: RunningRelay, secret: str, rng: random.Random, reconnects: int) -> Replica:
    """Open streams one after another, each where the last broke off."""
    replica = Replica()
    for _ in range(reconnects):
        if rng.random() < 0.1:
            # Gone before the answer was read.
            async with connection(relay.port) as opened:
                opened.send(request("/v1/stream", secret, last_event_id=replica.event_id))
                await asyncio.sleep(rng.random() * 0.002)
                if rng.random() < 0.5:
                    opened.reset()
            continue
        async with stream(relay.port, secret, replica.event_id) as opened_stream:
            before = replica.puts
            for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
                replica.take(await opened_stream.event())
                assert replica.puts == before or opened_stream.resume == "full"
            if rng.random() < 0.3:
                opened_stream.connection.reset()
        if rng.random() < 0.02:
            await asyncio.sleep(0.15)  # longer than changes are held
    return replica


@pytest.mark.parametrize("kind", KINDS)
async def test_what_every_client_has_in_the_end_is_what_redis_has(kind: str, world: World) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where this fails
    rng = random.Random(seed)
    async with running_relay(kind, world, changes_held=20) as relay:
        secret, done = await relay.secret(), asyncio.Event()
        writing = asyncio.create_task(write(world, random.Random(seed), done))
        async with asyncio.TaskGroup() as tasks:
            clients = [
                tasks.create_task(wander(relay, secret, random.Random(rng.random()), RECONNECTS[kind] // CLIENTS))
                for _ in range(CLIENTS)
            ]
        done.set()
        last = await writing
        theirs = await read_snapshot(world.store, ENVIRONMENT)
        await relay.at(last)
        for client in clients:
            replica = client.result()
            async with stream(relay.port, secret, replica.event_id) as opened:
                await replica.follow(opened, last)
            assert (replica.flags, replica.evaluators) == (theirs.flags, theirs.evaluators)
            async with stream(relay.port, secret, replica.event_id) as opened:
                assert opened.resume == "current"
        await relay.streams(0)
        resumed = relay.pipeline.stats.resumed
        assert resumed["full"] > CLIENTS, "some came back too late for a delta"
        assert resumed["delta"] > CLIENTS


async def test_clients_that_resume_from_everywhere_cost_a_bound_of_memory(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret, (epoch, _, first) = await relay.secret(), (await world.event_id()).partition(".")
        changes = 100
        for number in range(changes):
            last = (await world.put({"flag": definition(number) | {"metadata": {"text": "x" * 10_000}}})).revision
        await relay.at(last)
        resumed_from = range(int(first), last)
        for revision in resumed_from:
            replica = Replica(event_id=format_event_id(epoch, revision))
            async with stream(relay.port, secret, replica.event_id) as opened:
                assert opened.resume == "delta"
                await replica.follow(opened, last)
                assert replica.patches == last - revision
        feed = relay.pipeline.hub.feed
        assert isinstance(feed, DefinitionsFeed)
        kept = sum(len(tail) for tails in feed._tails for tail in tails.values())
        together = sum(last - revision for revision in resumed_from) * 10_000
        assert kept <= TAILS_BYTES < together / 2
