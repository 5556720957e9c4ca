"""PUT and DELETE /v1/kills/{key}: un-release on a relay itself, with an admin key."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flagrelay.errors import StoreUnavailable
from flagrelay.flags.position import Position
from flagrelay.relay import local_kills
from flagrelay.relay.reconcile import KillState
from flagrelay.store.reading import read_flag
from support.fakes import definition
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay, wired_relay
from support.sources import Wire, until
from support.streams import Answer, Replica, connection, request, stream

ORDER = {"actor": "ada", "reason": "error rate"}


async def order(relay: RunningRelay, secret: str, key: str = "flag", method: str = "PUT", body: Any = ORDER) -> Answer:
    """Put or withdraw a kill."""
    data = b"" if body is None else json.dumps(body).encode()
    async with connection(relay.port) as opened:
        opened.send(request(f"/v1/kills/{key}", secret, method=method, content_length=str(len(data))) + data)
        return await opened.answer()


@pytest.fixture
async def cut_off(world: World, tmp_path: Path) -> AsyncIterator[tuple[RunningRelay, Wire, str]]:
    """A relay with an admin key that has lost Redis."""
    settings: dict[str, Any] = {"state_dir": str(tmp_path / "state")}
    async with wired_relay("handover", world, tmp_path, **settings) as (relay, wire):
        secret = await relay.secret("admin")
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live, "Redis is lost")
        yield relay, wire, secret


async def test_a_kill_is_on_the_streams_when_it_is_answered(cut_off: tuple[RunningRelay, Wire, str]) -> None:
    relay, _, secret = cut_off
    readers = relay.context.keyring._keys.values()
    assert [key.kind for key in readers] == ["admin"], "no server key was made; the stream below needs none new"
    answer = await order(relay, secret)
    assert answer.status == 200
    assert answer.json["kept"] is True
    assert (answer.json["environment"], answer.json["flag"], answer.json["source"]) == (ENVIRONMENT, "flag", "stale")
    [kill] = answer.json["kills"]
    assert (kill["flag"], kill["to"], kill["actor"], kill["reason"]) == ("flag", None, "ada", "error rate")
    assert kill["state"] == "local"
    assert relay.pipeline.held().flags["flag"]["state"] == "DISABLED"
    withdrawn = await order(relay, secret, method="DELETE", body=None)
    assert (withdrawn.status, withdrawn.json["kills"]) == (200, [])
    assert relay.pipeline.held().flags["flag"] == definition(0)


async def test_streams_follow_a_kill_its_change_and_its_end(world: World, tmp_path: Path) -> None:
    async with wired_relay("handover", world, tmp_path) as (relay, wire):
        secret, admin = await relay.secret(), await relay.secret("admin")
        async with stream(relay.port, secret) as opened:
            replica = Replica()
            await replica.follow(opened, 3)
            wire.refusing = True
            wire.cut()
            await until(lambda: not relay.pipeline.live, "Redis is lost")
            plain = replica.event_id
            for body, state in ((ORDER, "DISABLED"), ({**ORDER, "to": "on"}, "ENABLED")):
                answer = await order(relay, admin, body=body)
                assert answer.json["kept"] is False, "there is no state directory"
                replica.take(await opened.event("patch"))
                assert replica.event_id.startswith(plain + "~")
                assert replica.flags["flag"]["state"] == state
                assert replica.flags["flag"]["metadata"]["localKill"] is True
            async with stream(relay.port, secret, replica.event_id) as again:
                assert again.resume == "current"
                assert (await again.heartbeat())["local_kills"] == 1
            async with stream(relay.port, secret, plain) as behind:
                assert behind.resume == "delta"
                late = Replica(event_id=plain, flags={"flag": definition(0)})
                for _ in range(2):
                    late.take(await behind.event("patch"))
                assert late.flags["flag"] == replica.flags["flag"]
            await order(relay, admin, method="DELETE", body=None)
            replica.take(await opened.event("patch"))
            assert (replica.event_id, replica.flags["flag"]) == (plain, definition(0))


async def test_who_comes_from_another_relay_gets_everything(cut_off: tuple[RunningRelay, Wire, str]) -> None:
    relay, _, secret = cut_off
    hub = relay.pipeline.hub
    assert hub.feed.snapshot
    position = hub.feed.snapshot.position
    elsewhere = f"{position.epoch}.{position.revision}~abcdef"
    assert hub.feed.find(elsewhere) is None
    await order(relay, secret)
    assert hub.feed.find(elsewhere) is None
    assert hub.feed.find(f"{position.epoch}.{position.revision}") == hub.feed.head - 1


async def test_a_client_that_is_ahead_is_sent_back_rather_than_left_without_the_kill(
    world: World, tmp_path: Path
) -> None:
    async with wired_relay("handover", world, tmp_path) as (relay, wire):
        secret, admin = await relay.secret(), await relay.secret("admin")
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live, "Redis is lost")
        await world.tick(7, "other")
        ahead = await world.event_id()
        async with stream(relay.port, secret, ahead) as opened:
            assert opened.resume == "current", "it keeps what it has"
            await order(relay, admin)
            assert await opened.goodbye() == "behind"
        async with stream(relay.port, secret, ahead) as opened:
            assert opened.resume == "full"
            replica = Replica()
            replica.take(await opened.event("put"))
            assert replica.flags["flag"]["state"] == "DISABLED"


async def test_evaluated_values_and_ofrep_follow_it_too(cut_off: tuple[RunningRelay, Wire, str]) -> None:
    relay, _, secret = cut_off
    before = {name: hub.feed.head for name, hub in relay.pipeline.hubs.items()}
    await order(relay, secret)
    assert {name: hub.feed.head for name, hub in relay.pipeline.hubs.items()} == {k: v + 1 for k, v in before.items()}
    assert relay.pipeline.held().resolve("flag", {}).reason == "DISABLED"


async def test_it_is_written_to_redis_once_that_is_back(cut_off: tuple[RunningRelay, Wire, str]) -> None:
    relay, wire, secret = cut_off
    await order(relay, secret, body={**ORDER, "to": "off"})
    wire.refusing = False
    await until(lambda: relay.pipeline.live and not relay.pipeline.local_kills.held, "Redis has it")
    entry = await read_flag(relay.world.store, ENVIRONMENT, "flag")
    assert entry.killed
    assert (entry.killed.to, entry.killed.actor, entry.killed.reason) == ("off", "ada", "error rate")
    assert "~" not in str(relay.pipeline.held().mark)
    assert relay.pipeline.held().flags["flag"]["defaultVariant"] == "off"


async def test_a_redis_that_takes_no_writes_from_the_relay_is_told_and_tried_again(
    cut_off: tuple[RunningRelay, Wire, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, wire, secret = cut_off
    await order(relay, secret)

    async def refuse(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("Redis at nowhere: this user has no permission to PUBLISH")

    with monkeypatch.context() as patch:
        patch.setattr(local_kills, "kill_flag", refuse)
        wire.refusing = False
        await until(lambda: relay.pipeline.local_kills.states == {"refused": 1}, "it says so")
        [standing] = relay.pipeline.local_kills.held.values()
        assert "no permission to PUBLISH" in standing.why
        assert relay.pipeline.held().flags["flag"]["state"] == "DISABLED", "it stays killed here"
    await until(lambda: not relay.pipeline.local_kills.held, "it is tried again")


@pytest.mark.parametrize("kind", ["server", "client"])
async def test_only_an_admin_key_may(kind: str, world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret(kind)
        for method, body in (("PUT", ORDER), ("DELETE", None)):
            answer = await order(relay, secret, method=method, body=body)
            assert (answer.status, answer.json["errorCode"]) == (403, "WRONG_KEY_KIND")
        assert relay.pipeline.held().flags["flag"] == definition(0)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ([], "should be an object"),
        ({}, "`actor` should be text"),
        ({"actor": "ada"}, "`reason` should be text"),
        ({**ORDER, "reason": " "}, "`reason` should be text"),
        ({**ORDER, "actor": 3}, "`actor` should be text"),
        ({**ORDER, "reason": "x" * 1001}, "of 1 to 1000 characters"),
        ({**ORDER, "to": 3}, "`to` should be text"),
        ({**ORDER, "variant": "on"}, "should be an object with"),
    ],
)
async def test_an_order_that_is_none_changes_nothing(body: Any, why: str, world: World) -> None:
    async with running_relay("handover", world) as relay:
        answer = await order(relay, await relay.secret("admin"), body=body)
        assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_REQUEST")
        assert why in answer.json["errorDetails"]
        assert relay.pipeline.held().flags["flag"] == definition(0)


async def test_what_is_not_there_cannot_be_killed_or_withdrawn(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret("admin")
        answers = [
            await order(relay, secret, key="nosuch"),
            await order(relay, secret, body={**ORDER, "to": "nosuch"}),
            await order(relay, secret, method="DELETE", body=None),
        ]
        assert [answer.status for answer in answers] == [404, 404, 404]
        assert 'has no flag "nosuch"' in answers[0].json["errorDetails"]
        assert 'has no variant "nosuch"' in answers[1].json["errorDetails"]
        assert "holds no kill" in answers[2].json["errorDetails"]


async def test_a_key_with_slashes_is_a_key(world: World) -> None:
    async with running_relay("handover", world) as relay:
        await world.put({"team/flag": definition(1)})
        await relay.at(4)
        answer = await order(relay, await relay.secret("admin"), key="team%2Fflag")
        assert (answer.status, answer.json["flag"]) == (200, "team/flag")


async def test_streams_follow_what_a_worker_takes_over_from_the_others(world: World) -> None:
    async with running_relay("handover", world) as relay, stream(relay.port, await relay.secret()) as opened:
        replica = Replica()
        await replica.follow(opened, 3)
        drafted = relay.pipeline.draft_kill("flag", to=None, actor="ada", reason="error rate")
        held = Position(drafted.over.epoch, drafted.over.revision + 9, "")  # Redis is told nothing by this relay
        await relay.pipeline.inherit([local_kills.Standing(drafted, KillState.WRITTEN, "written", held)])
        replica.take(await opened.event("patch"))
        assert replica.flags["flag"]["metadata"]["localKill"] is True
        await relay.pipeline.inherit([])
        replica.take(await opened.event("patch"))
        assert replica.flags["flag"] == definition(0)


async def test_an_order_comes_on_top_of_what_is_on_disk(world: World) -> None:
    async with running_relay("handover", world) as relay:
        pipeline = relay.pipeline
        pipeline.recalled.clear()
        order_of_another = asyncio.create_task(
            pipeline.hold(pipeline.draft_kill("flag", to=None, actor="ada", reason="error rate"))
        )
        await asyncio.sleep(0)
        assert not pipeline.local_kills.held
        pipeline.recalled.set()
        await order_of_another
        assert pipeline.local_kills.held or (await read_flag(world.store, ENVIRONMENT, "flag")).killed
