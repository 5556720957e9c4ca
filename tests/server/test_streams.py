"""GET /v1/stream, as every server must answer it: handed over, under plain uvicorn, under another ASGI server."""

import json
from pathlib import Path

import aiohttp
import pytest

from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_snapshot
from flagrelay.store.writing import Draft, kill_flag, write_change
from flagrelay.wire.event_id import format_event_id, parse_event_id
from support.fakes import definition
from support.relays import ENVIRONMENT, KINDS, RunningRelay, World, running_relay, wired_relay
from support.sources import until
from support.streams import Replica, stream

pytestmark = pytest.mark.parametrize("kind", KINDS)


# -- how a stream begins --------------------------------------------------------------------------------------


async def test_the_head_says_what_comes_and_how_it_begins(relay: RunningRelay, world: World) -> None:
    async with stream(relay.port, await relay.secret()) as opened:
        headers = opened.head.headers
        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert headers["transfer-encoding"] == "chunked"
        assert "date" in headers
        assert "content-length" not in headers
        assert opened.resume == "full"


async def test_a_stream_begins_with_a_retry_and_then_everything_with_an_id(relay: RunningRelay, world: World) -> None:
    async with stream(relay.port, await relay.secret()) as opened:
        event = await opened.event("put")
        assert opened.content.startswith(b"retry: ")
        assert opened.content.index(b"\n\n") < opened.content.index(b"event: put")
        assert event.id == await world.event_id()
        assert json.loads(event.data) == {
            "flags": {"flag": definition(0), "old": definition(1)},
            "$evaluators": {"beta": {"in": ["@example.com", {"var": "email"}]}},
            "metadata": {"team": "checkout"},
        }


async def test_reconnection_times_are_spread(relay: RunningRelay, world: World) -> None:
    secret = await relay.secret()
    retries = set()
    for _ in range(12):
        async with stream(relay.port, secret) as opened:
            await opened.event("put")
            retries.add(opened.parser.retry)
    assert len(retries) > 4
    assert all(retry and 1000 <= retry <= 3000 for retry in retries)


async def test_an_environment_without_flags_begins_with_an_empty_put(kind: str, world: World) -> None:
    await create_environment(world.store, "empty")
    async with running_relay(kind, world, env=("empty", ENVIRONMENT)) as relay:
        _, secret = await relay.key(environment="empty")
        async with stream(relay.port, secret) as opened:
            event = await opened.event("put")
            assert json.loads(event.data) == {"flags": {}, "$evaluators": {}, "metadata": {}}
            assert parse_event_id(event.id)


async def test_aiohttp_reads_a_stream_too(relay: RunningRelay, world: World) -> None:
    headers = {"authorization": f"Bearer {await relay.secret()}"}
    async with aiohttp.ClientSession() as session, session.get(f"{relay.url}/v1/stream", headers=headers) as answer:
        assert answer.status == 200
        line = await answer.content.readline()
        assert line.startswith(b"retry: ")


# -- changes --------------------------------------------------------------------------------------------------


async def test_a_change_comes_as_one_patch_with_the_time_that_redis_gave_it(relay: RunningRelay, world: World) -> None:
    async with stream(relay.port, await relay.secret()) as opened:
        await opened.event("put")
        written = await world.put(
            {"flag": definition(7), "new": definition(8), "old": None},
            evaluators={"beta": None, "staff": {"==": [{"var": "role"}, "staff"]}},
            metadata={"team": "growth"},
        )
        event = await opened.event("patch")
        assert event.id == await world.event_id()
        assert json.loads(event.data) == {
            "at": written.at,
            "flags": {"flag": definition(7), "new": definition(8), "old": None},
            "$evaluators": {"beta": None, "staff": {"==": [{"var": "role"}, "staff"]}},
            "metadata": {"team": "growth"},
        }


async def test_who_made_a_change_and_why_stays_in_the_relay(relay: RunningRelay, world: World) -> None:
    async with stream(relay.port, await relay.secret()) as opened:
        await opened.event("put")
        await kill_flag(world.store, ENVIRONMENT, "flag", actor="ada@example.com", reason="secret incident")
        event = await opened.event("patch")
        assert json.loads(event.data)["flags"]["flag"] == definition(0) | {"state": "DISABLED"}
        assert b"ada@example.com" not in opened.content
        assert b"incident" not in opened.content


async def test_definitions_arrive_as_they_were_written(relay: RunningRelay, world: World) -> None:
    values = {"float": 1.0, "big": 2**53 + 1, "empty": {}, "list": [], "text": "Zoë \u2028 \r\n\U0001f600"}
    odd = {"state": "ENABLED", "variants": {"a": values}, "defaultVariant": "a", "targeting": {"if": [True, "a", None]}}
    async with stream(relay.port, await relay.secret()) as opened:
        await opened.event("put")
        await world.put({"odd": odd})
        event = await opened.event("patch")
        assert json.dumps(json.loads(event.data)["flags"]["odd"]) == json.dumps(odd)


async def test_a_change_too_large_for_pub_sub_arrives_whole(relay: RunningRelay, world: World) -> None:
    large = definition(1) | {"metadata": {"text": "x" * 200_000}}
    async with stream(relay.port, await relay.secret()) as opened:
        replica = Replica()
        replica.take(await opened.event("put"))
        written = await world.put({"large": large})
        await replica.follow(opened, written.revision)
        assert replica.flags["large"] == large


async def test_every_stream_gets_every_change_in_order(relay: RunningRelay, world: World) -> None:
    secret = await relay.secret()
    async with stream(relay.port, secret) as first, stream(relay.port, secret) as second:
        replicas = [Replica(), Replica()]
        for number in range(40):
            await world.tick(number, f"flag-{number % 7}")
        last = (await world.put({"flag-3": None})).revision
        for replica, opened in zip(replicas, (first, second), strict=True):
            await replica.follow(opened, last)
        theirs = await read_snapshot(world.store, ENVIRONMENT)
        for replica in replicas:
            assert replica.flags == theirs.flags
            assert replica.evaluators == theirs.evaluators
            assert replica.metadata == theirs.metadata


async def test_a_stream_hears_nothing_of_another_environment(kind: str, world: World) -> None:
    await create_environment(world.store, "staging")
    async with running_relay(kind, world, env=(ENVIRONMENT, "staging")) as relay:
        secret, (_, other) = await relay.secret(), await relay.key(environment="staging")
        async with stream(relay.port, secret) as ours, stream(relay.port, other) as theirs:
            assert set(json.loads((await ours.event("put")).data)["flags"]) == {"flag", "old"}
            assert json.loads((await theirs.event("put")).data)["flags"] == {}
            await write_change(world.store, "staging", Draft(flags={"theirs": definition(1)}))
            await world.put({"ours": definition(2)})
            assert set(json.loads((await ours.event("patch")).data)["flags"]) == {"ours"}
            assert set(json.loads((await theirs.event("patch")).data)["flags"]) == {"theirs"}


async def test_a_renewed_epoch_begins_with_a_put(relay: RunningRelay, world: World) -> None:
    redis, keys = world.store.client, world.store.keys.all_of(ENVIRONMENT)
    async with stream(relay.port, await relay.secret()) as opened:
        replica = Replica()
        replica.take(await opened.event("put"))
        old = {key: await redis.dump(key) for key in keys if await redis.exists(key)}
        await replica.follow(opened, (await world.tick(4)).revision)
        # A failover to a replica that lacked the last change.
        for key, value in old.items():
            await redis.restore(key, 0, value, replace=True)
        event = await opened.event("put")
        assert event.id.partition(".")[0] != replica.event_id.partition(".")[0]
        replica.take(event)
        assert replica.flags["flag"] == definition(0)
        await replica.follow(opened, (await world.tick(5)).revision)
        assert replica.flags["flag"] == definition(5)


# -- resuming -------------------------------------------------------------------------------------------------


async def test_a_client_that_has_everything_gets_a_heartbeat_and_then_what_is_new(
    relay: RunningRelay, world: World
) -> None:
    secret, event_id = await relay.secret(), await world.event_id()
    async with stream(relay.port, secret, event_id) as opened:
        assert opened.resume == "current"
        beat = await opened.event("heartbeat")
        assert json.loads(beat.data)["source"] == "live"
        assert json.loads(beat.data)["revision"] == 3
        assert opened.parser.last_event_id == "", "a heartbeat moves nobody's Last-Event-ID"
        await world.tick(9)
        event = await opened.event("patch")
        assert event.id == await world.event_id()


async def test_a_client_that_missed_some_gets_only_those(relay: RunningRelay, world: World) -> None:
    secret, replica = await relay.secret(), Replica()
    async with stream(relay.port, secret) as opened:
        replica.take(await opened.event("put"))
    for number in range(5):
        last = (await world.tick(number, f"new-{number}")).revision
    await relay.at(last)
    async with stream(relay.port, secret, replica.event_id) as opened:
        assert opened.resume == "delta"
        await replica.follow(opened, last)
    assert (replica.puts, replica.patches) == (1, 5)
    assert replica.flags == (await read_snapshot(world.store, ENVIRONMENT)).flags


UNKNOWN_IDS = (
    "other-epoch.3",
    "EPOCH.4",  # ahead of Redis itself: a lost history
    "EPOCH.99999999999999999999",
    "EPOCH.-1",
    "EPOCH.03",
    "EPOCH.3.3",
    "EPOCH.",
    "EPOCH",
    ".3",
    "3",
    "null",
    "\xe9\xff",
    "x" * 8000,
)


async def test_a_client_that_cannot_resume_gets_everything(relay: RunningRelay, world: World) -> None:
    secret = await relay.secret()
    current = await world.event_id()
    for event_id in UNKNOWN_IDS:
        async with stream(relay.port, secret, event_id.replace("EPOCH", current.partition(".")[0])) as opened:
            assert opened.resume == "full", event_id
            assert (await opened.event("put")).id == current


async def test_a_client_that_was_away_for_longer_than_changes_are_held_gets_everything(kind: str, world: World) -> None:
    async with running_relay(kind, world, changes_held=3) as relay:
        secret, event_id = await relay.secret(), await world.event_id()
        for number in range(4):
            last = (await world.tick(number)).revision
        await relay.at(last)
        async with stream(relay.port, secret, event_id) as opened:
            assert opened.resume == "full"
            await opened.event("put")
        epoch = event_id.partition(".")[0]
        async with stream(relay.port, secret, format_event_id(epoch, last - 3)) as opened:
            assert opened.resume == "delta"


async def test_a_client_ahead_of_the_relay_is_neither_sent_back_nor_given_anything_twice(
    kind: str, world: World, tmp_path: Path
) -> None:
    async with wired_relay(kind, world, tmp_path) as (relay, wire):
        secret, replica = await relay.secret(), Replica()
        async with stream(relay.port, secret) as opened:
            replica.take(await opened.event("put"))
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live, "the relay has lost Redis")
        # The client was at a relay that has not lost it, and has heard of this:
        await world.tick(1)
        ahead = await world.event_id()
        async with stream(relay.port, secret, ahead) as opened:
            assert opened.resume == "current"
            wire.refusing = False
            last = await world.tick(2)
            replica.event_id, replica.flags = ahead, dict((await read_snapshot(world.store, ENVIRONMENT)).flags)
            await replica.follow(opened, last.revision)
            assert replica.patches == 1


# -- heartbeats, and Redis lost ---------------------------------------------------------------------------------


async def test_heartbeats_come_at_their_interval_without_an_id(kind: str, world: World) -> None:
    async with (
        running_relay(kind, world, heartbeat_interval=0.1) as relay,
        stream(relay.port, await relay.secret()) as opened,
    ):
        put = await opened.event("put")
        for _ in range(3):
            beat = json.loads((await opened.event("heartbeat")).data)
            assert beat.keys() == {"revision", "source", "age_ms"}
            assert (beat["revision"], beat["source"]) == (3, "live")
            assert 0 <= beat["age_ms"] < 5000
        assert opened.parser.last_event_id == put.id
        assert opened.content.count(b"id: ") == 1


async def test_while_redis_is_lost_streams_stay_and_say_so_and_then_go_on(
    kind: str, world: World, tmp_path: Path
) -> None:
    async with wired_relay(kind, world, tmp_path, heartbeat_interval=0.1) as (relay, wire):
        secret, replica = await relay.secret(), Replica()
        async with stream(relay.port, secret) as opened:
            replica.take(await opened.event("put"))
            wire.refusing = True
            wire.cut()
            first = await opened.heartbeat(source="stale")
            later = await opened.heartbeat(source="stale")
            assert later["age_ms"] > first["age_ms"]
            await world.tick(1)
            last = await world.tick(2)
            # Whoever comes now is served what is there.
            async with stream(relay.port, secret) as newcomer:
                assert (await newcomer.event("put")).id == replica.event_id
                assert (await newcomer.heartbeat())["source"] == "stale"
            wire.refusing = False
            await replica.follow(opened, last.revision)
            await opened.heartbeat(source="live", revision=last.revision)
            assert (replica.puts, replica.patches) == (1, 2)


async def test_a_wiped_redis_empties_nobody(kind: str, world: World) -> None:
    async with running_relay(kind, world, heartbeat_interval=0.1) as relay:
        secret = await relay.secret()
        async with stream(relay.port, secret) as opened:
            await opened.event("put")
            await world.store.client.flushdb()
            await opened.heartbeat(source="stale")
            async with stream(relay.port, secret) as newcomer:
                assert set(json.loads((await newcomer.event("put")).data)["flags"]) == {"flag", "old"}
        await relay.closed("gone", 2)
        assert relay.pipeline.stats.closed.total() == 2
