"""GET /v1/flags: the whole flag set, and 304 where the client has it."""

import json

from flagrelay.store.reading import read_snapshot
from support.fakes import definition
from support.relays import ENVIRONMENT, World, running_relay
from support.streams import Replica, ask, connection, request, stream


async def test_it_is_the_data_of_a_put_at_every_revision(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret, replica = await relay.secret(), Replica()
        async with stream(relay.port, secret) as opened:
            for number in range(5):
                revision = (await world.tick(number, f"flag-{number}")).revision
                await replica.follow(opened, revision)
                answer = await ask(relay.port, "/v1/flags", secret)
                assert answer.status == 200
                assert answer.headers["content-type"] == "application/json"
                assert answer.json == {
                    "flags": replica.flags,
                    "$evaluators": replica.evaluators,
                    "metadata": replica.metadata,
                }
        async with stream(relay.port, secret) as late:
            assert (await late.event("put")).data.encode() == answer.body
        assert answer.json["flags"] == (await read_snapshot(world.store, ENVIRONMENT)).flags


async def test_the_etag_names_the_revision_and_changes_with_it(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        first = await ask(relay.port, "/v1/flags", secret)
        assert first.headers["etag"] == f'W/"{await world.event_id()}"'
        assert first.headers["cache-control"] == "private, no-cache"
        again = await ask(relay.port, "/v1/flags", secret)
        assert again.headers["etag"] == first.headers["etag"]
        await relay.at((await world.tick(1)).revision)
        later = await ask(relay.port, "/v1/flags", secret)
        assert later.headers["etag"] == f'W/"{await world.event_id()}"' != first.headers["etag"]


async def test_a_client_that_has_it_gets_304_without_a_body_until_it_changes(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        etag = (await ask(relay.port, "/v1/flags", secret)).headers["etag"]
        for held in (etag, etag.removeprefix("W/"), f'"other", {etag}', f'W/"a",{etag},"b"', "*"):
            async with connection(relay.port) as opened:
                opened.send(request("/v1/flags", secret, if_none_match=held))
                answer = await opened.answer()
                assert (answer.status, answer.headers["etag"]) == (304, etag)
                assert "content-length" not in answer.headers or answer.headers["content-length"] == "0"
                opened.send(request("/livez"))
                assert (await opened.answer()).json == {"status": "alive"}, "nothing of a body came before it"
        for held in ('"other"', "", etag.strip('W/"'), 'W/"EPOCH.1"', "\xe9"):
            answer = await ask(relay.port, "/v1/flags", secret, if_none_match=held)
            assert answer.status == 200, held
        await relay.at((await world.tick(1)).revision)
        answer = await ask(relay.port, "/v1/flags", secret, if_none_match=etag)
        assert answer.status == 200
        assert answer.json["flags"]["flag"] == definition(1)


async def test_head_says_how_long_it_is(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        whole = await ask(relay.port, "/v1/flags", secret)
        head = await ask(relay.port, "/v1/flags", secret, method="HEAD")
        assert head.headers["content-length"] == str(len(whole.body)) == whole.headers["content-length"]
        assert head.headers["etag"] == whole.headers["etag"]


async def test_ten_thousand_flags_come_whole(world: World) -> None:
    flags = {f"flag-{number}": definition(number) for number in range(10_000)}
    await world.put(flags)
    async with running_relay("handover", world) as relay:
        answer = await ask(relay.port, "/v1/flags", await relay.secret())
        assert json.loads(answer.body)["flags"] == flags | {"flag": definition(0), "old": definition(1)}
