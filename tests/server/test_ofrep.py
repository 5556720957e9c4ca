"""OFREP: every answer is checked against the protocol's own openapi.yaml (`support.ofrep`)."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.store.access_keys import create_access_key, digest, revoke_access_key, stream_token
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, kill_flag, write_change
from support.ofrep import BULK, Asker, asking, bearer, check_schema
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay
from support.sources import until

RULE = {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", None]}


def flag(variants: dict[str, Any], default: str | None = "a", **more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": variants, "defaultVariant": default, **more}


FLAGS: dict[str, Any] = {
    "boolean": flag({"on": True, "off": False}, "off", targeting=RULE, metadata={"owner": "shop"}),
    "string": flag({"a": "ä"}),
    "integer": flag({"a": 1, "b": 2}),
    "float": flag({"a": 1, "b": 0.5}),
    "object": flag({"a": {"x": [1, None]}}),
    "disabled": {**flag({"a": True}), "state": "DISABLED"},
    "no default": flag({"a": True}, None),
    "lost": flag({"a": True}, targeting={"if": [True, "nowhere"]}),
    "hidden": flag({"a": True}, metadata={"serverOnly": True}),
    "a/b c?d#e%20é": flag({"a": "odd"}),
}


@pytest.fixture
async def flags(world: World) -> World:
    """With flags of every kind, and nothing else."""
    await world.put({**FLAGS, "flag": None, "old": None}, metadata={"team": "checkout"})
    return world


@pytest.mark.parametrize("kind", ["handover", "uvicorn", "hypercorn"])
async def test_it_answers_for_values_of_every_type(flags: World, kind: str) -> None:
    async with running_relay(kind, flags) as relay, asking(relay) as asker:
        secret = await relay.secret("client")
        expected = {"string": "ä", "integer": 1, "float": 1.0, "object": {"x": [1, None]}, "a/b c?d#e%20é": "odd"}
        for key, value in expected.items():
            said = await asker.single(secret, quote(key, safe=""), {"targetingKey": "u"})
            assert said.status == 200
            assert said.json["value"] == value
            assert type(said.json["value"]) is type(value)
            assert (said.json["key"], said.json["variant"], said.json["reason"]) == (key, "a", "STATIC")
        said = await asker.single(secret, "boolean", {"targetingKey": "u", "plan": "pro"})
        assert (said.json["value"], said.json["reason"]) == (True, "TARGETING_MATCH")
        assert said.json["metadata"] == {"team": "checkout", "owner": "shop"}
        bulk = await asker.bulk(secret, {"targetingKey": "u"})
        assert [item["key"] for item in bulk.json["flags"]] == sorted(FLAGS.keys() - {"hidden"})
        assert "targeting" not in bulk.body.decode()


async def test_where_the_callers_default_is_to_be_taken_there_is_no_value(flags: World) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret = await relay.secret("client")
        for key, reason in (("disabled", "DISABLED"), ("no default", "UNKNOWN")):
            said = await asker.single(secret, key)
            assert (said.status, said.json["reason"], said.json["variant"]) == (200, reason, "")
            assert "value" not in said.json
        assert (await asker.single(secret, "boolean")).json["reason"] == "UNKNOWN", "the rule gave nothing"


async def test_errors_say_which_flag_and_why(flags: World) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret, server, admin = [await relay.secret(kind) for kind in ("client", "server", "admin")]
        said = await asker.single(secret, "nope")
        assert (said.status, said.json["errorCode"], said.json["key"]) == (404, "FLAG_NOT_FOUND", "nope")
        said = await asker.single(secret, "lost")
        assert (said.status, said.json["errorCode"]) == (400, "GENERAL")
        assert 'no variant "nowhere"' in said.json["errorDetails"]
        assert (await asker.single(secret, "hidden")).status == 404
        assert (await asker.single(server, "hidden")).json["value"] is True
        assert "hidden" in [item["key"] for item in (await asker.bulk(server)).json["flags"]]
        for who, status in (("", 401), ("fr_client_unknown", 401), (admin, 403)):
            assert (await asker.single(who, "string")).status == status
            assert (await asker.bulk(who)).status == status
        said = await asker.ask("POST", f"{BULK}/string", headers={"X-API-Key": secret})
        assert said.status == 200
        assert (await asker.ask("GET", BULK, headers=bearer(secret))).status == 405


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b'{"context": []}', "INVALID_CONTEXT"),
        (b'{"context": "u"}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": 5}}', "INVALID_CONTEXT"),
        (b'{"context": null}', None),
        (b"{}", None),
        (b"", None),
        (b'{"context": {"targetingKey": null, "x": 1e400}}', "PARSE_ERROR"),
    ],
)
async def test_what_is_no_context_is_refused_and_none_is_an_empty_one(
    flags: World, body: bytes, code: str | None
) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        headers = bearer(await relay.secret("client"))
        for path in (BULK, f"{BULK}/string"):
            said = await asker.ask("POST", path, headers=headers, data=body)
            assert said.status == (400 if code else 200), said.body
            if code:
                assert said.json["errorCode"] == code
                assert said.json.get("key", "string") == "string"
                assert said.json["errorDetails"]


async def test_what_is_too_large_is_refused_whether_it_says_so_or_not(flags: World) -> None:
    async with running_relay("handover", flags, max_body_bytes=2000) as relay, asking(relay) as asker:
        headers = bearer(await relay.secret("client"))

        async def pieces() -> Any:
            for _ in range(50):
                yield b" " * 100

        for data in (b" " * 5000, pieces()):
            said = await asker.ask("POST", BULK, headers=headers, data=data)
            assert (said.status, said.json["errorCode"]) == (413, "TOO_LARGE")
        assert (await asker.ask("POST", BULK, headers=headers, data=b" " * 1990)).status == 200


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(flags: World) -> None:
    async with running_relay("handover", flags, max_evaluations_per_second=3) as relay, asking(relay) as asker:
        secret, other = await relay.secret("client"), await relay.secret("client")
        said = [await asker.single(secret, "string") for _ in range(8)]
        refused = [each for each in said if each.status == 429]
        assert 3 <= len(refused) <= 5
        assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
        assert (await asker.single(other, "string")).status == 200, "another key has a bucket of its own"


async def test_the_etag_is_the_bodys_and_only_what_alters_it_changes_it(flags: World) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret, context = await relay.secret("client"), {"targetingKey": "u", "plan": "free"}
        first = await asker.bulk(secret, context)
        etag = first.headers["etag"]
        assert (await asker.bulk(secret, context, if_none_match=etag)).status == 304
        assert (await asker.bulk(secret, {"plan": "pro"}, if_none_match=etag)).status == 200
        unseen = flag({"on": True, "off": False}, "off", targeting={"if": [{"==": [{"var": "plan"}, "pro"]}, "on"]})
        written = await flags.put({"boolean": {**unseen, "metadata": {"owner": "shop"}}})
        await relay.at(written.revision)
        assert (await asker.bulk(secret, context, if_none_match=etag)).status == 304, "nothing of it is this context's"
        await relay.at((await flags.put({"string": flag({"a": "new"})})).revision)
        assert (await asker.bulk(secret, context, if_none_match=etag)).status == 200


async def test_relays_give_the_same_etag_whatever_came_first(flags: World) -> None:
    async with running_relay("handover", flags) as early, asking(early) as one:
        written = await flags.put({"zz": flag({"a": 1}), "aa": flag({"a": 1})})
        await early.at(written.revision)
        async with running_relay("handover", flags) as late, asking(late) as other:
            secret = await late.secret("client")
            host = {"Host": "flags.example.com"}
            tags = {(await asker.bulk(secret, {}, **host)).headers["etag"] for asker in (one, other)}
            assert len(tags) == 1


async def test_whoever_was_told_of_another_configuration_gets_an_answer(flags: World) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret, current = await relay.secret("client"), await flags.event_id()
        etag = (await asker.bulk(secret, {})).headers["etag"]
        epoch, _, revision = current.rpartition(".")
        table = {current: 304, "": 304, "unreadable": 304, f"{epoch}.{int(revision) - 1}": 200, "other.7": 200}
        for told, status in table.items():
            said = await asker.bulk(secret, {}, f"?flagConfigEtag={told}", if_none_match=etag)
            assert said.status == status, told


async def test_the_event_streams_url_is_stable_says_nothing_of_the_key_and_dies_with_it(flags: World) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        key, secret = await relay.key("client")
        [stream] = (await asker.bulk(secret, {})).json["eventStreams"]
        assert stream == (await asker.bulk(secret, {"plan": "pro"})).json["eventStreams"][0]
        url = stream["url"]
        assert url == f"{relay.url}/ofrep/v1/events?token={stream_token(key)}"
        assert secret not in url
        assert digest(secret) not in url
        path = url.removeprefix(relay.url)
        assert (await asker.ask("HEAD", path)).status == 200
        other, _ = await relay.key("client")
        forged = stream_token(key).replace(key.id, other.id)
        for token in (forged, stream_token(key)[:-1], f"{key.id}.", "x", key.id):
            assert (await asker.ask("GET", f"/ofrep/v1/events?token={token}")).status == 401
        for closed in ("/v1/stream", "/v1/flags"):
            assert (await asker.ask("GET", f"{closed}?token={stream_token(key)}")).status == 401
        assert (await asker.ask("POST", f"{BULK}?token={stream_token(key)}")).status == 401
        await revoke_access_key(flags.store, key.id)
        await until(lambda: key.id not in relay.context.keyring._by_id, "the relay has heard of it")
        assert (await asker.ask("GET", path)).status == 401


async def test_the_url_is_the_public_one_where_there_is_one_and_never_a_strange_hosts(flags: World) -> None:
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret = await relay.secret("client")
        for host in ('a.example"onload=', "user@evil.example", "a b", "evil.example/x?"):
            [stream] = (await asker.bulk(secret, {}, Host=host)).json["eventStreams"]
            assert stream["endpoint"]["requestUri"].startswith("/ofrep/v1/events?token=")
            assert "url" not in stream
    async with (
        running_relay("handover", flags, public_url="https://flags.example.com/") as relay,
        asking(relay) as asker,
    ):
        [stream] = (await asker.bulk(await relay.secret("client"), {})).json["eventStreams"]
        assert stream["url"].startswith("https://flags.example.com/ofrep/v1/events?token=")


async def test_neither_contexts_nor_keys_nor_tokens_are_logged(flags: World) -> None:
    with capture_logs() as logs:
        async with running_relay("handover", flags, log_level="debug") as relay, asking(relay) as asker:
            key, secret = await relay.key("client")
            await asker.bulk(secret, {"targetingKey": "somebody@example.com"})
            await asker.single(secret, "lost", {"targetingKey": "somebody@example.com"})
            await asker.ask("HEAD", f"/ofrep/v1/events?token={stream_token(key)}")
    written = json.dumps(logs, default=str)
    assert secret not in written
    assert stream_token(key) not in written
    assert "somebody" not in written


async def test_the_generation_of_an_environment_is_followed_at_once(flags: World) -> None:
    split = flag({"a": "a", "b": "b"}, targeting={"fractional": [["a", 1], ["b", 1]]})
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret = await relay.secret("client")
        await relay.at((await flags.put({"split": split})).revision)

        async def variants() -> list[str]:
            said = [await asker.single(secret, "split", {"targetingKey": f"u{number}"}) for number in range(30)]
            return [each.json["variant"] for each in said]

        before = await variants()
        draft = Draft(settings=EnvironmentSettings("v2"))
        await relay.at((await write_change(flags.store, ENVIRONMENT, draft)).revision)
        assert await variants() != before


# Web pages


async def origins(world: World, relay: RunningRelay, *allowed: str) -> None:
    draft = Draft(settings=EnvironmentSettings(origins=allowed))
    await relay.at((await write_change(world.store, ENVIRONMENT, draft)).revision)


def opened(headers: Any) -> str | None:
    found: str | None = headers.get("access-control-allow-origin")
    return found


async def preflight(asker: Asker, origin: str) -> Any:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    return await asker.ask("OPTIONS", BULK, headers={"Origin": origin, **asked})


async def test_no_page_may_ask_until_the_environment_names_its_origin(flags: World) -> None:
    page = "https://www.example.com"
    async with running_relay("handover", flags) as relay, asking(relay) as asker:
        secret = await relay.secret("client")
        assert opened((await preflight(asker, page)).headers) is None
        assert opened((await asker.bulk(secret, {}, Origin=page)).headers) is None
        await origins(flags, relay, page)
        said = await preflight(asker, page)
        assert (said.status, opened(said.headers)) == (204, page)
        for name in ("authorization", "content-type", "if-none-match", "x-api-key"):
            assert name in said.headers["access-control-allow-headers"].lower()
        assert "POST" in said.headers["access-control-allow-methods"]
        said = await asker.bulk(secret, {}, Origin=page)
        assert opened(said.headers) == page
        assert "etag" in said.headers["access-control-expose-headers"].lower()
        assert said.headers["vary"] == "Origin"
        assert opened((await asker.bulk("", {}, Origin=page)).headers) == page, "a page may read why it is refused"
        assert opened((await asker.single(secret, "nope", Origin=page)).headers) == page
        assert opened((await asker.bulk(secret, {}, Origin="https://evil.example")).headers) is None
        server = await relay.secret("server")
        assert opened((await asker.ask("GET", "/v1/flags", headers={**bearer(server), "Origin": page})).headers) is None
        await origins(flags, relay)
        assert opened((await asker.bulk(secret, {}, Origin=page)).headers) is None


async def test_origins_are_an_environments_own(flags: World) -> None:
    await create_environment(flags.store, "staging")
    settings = EnvironmentSettings(origins=("https://staging.example.com",))
    await write_change(flags.store, "staging", Draft(settings=settings))
    async with running_relay("handover", flags, env=(ENVIRONMENT, "staging")) as relay, asking(relay) as asker:
        await origins(flags, relay, "https://www.example.com")
        await until(lambda: relay.context.relay.pipelines["staging"].live, "staging is loaded")
        secret = await relay.secret("client")
        key, staging = await create_access_key(flags.store, "staging", "client", "a test's", None)
        await until(lambda: key.digest in relay.context.keyring._keys, "the relay has heard of the key")
        for who, origin, allowed in (
            (secret, "https://www.example.com", True),
            (secret, "https://staging.example.com", False),
            (staging, "https://staging.example.com", True),
            (staging, "https://www.example.com", False),
        ):
            assert (opened((await asker.bulk(who, {}, Origin=origin)).headers) is not None) is allowed
        await origins(flags, relay, "*")
        assert opened((await asker.bulk(secret, {}, Origin="https://any.example")).headers) == "https://any.example"


# Its event streams


@pytest.mark.parametrize("kind", ["handover", "uvicorn", "hypercorn"])
async def test_an_event_says_that_there_is_something_to_fetch_and_nothing_is_missed(flags: World, kind: str) -> None:
    async with running_relay(kind, flags, refetch_spread=0.05) as relay, asking(relay) as asker:
        key, _ = await relay.key("client")
        url = f"{relay.url}/ofrep/v1/events?token={stream_token(key)}"

        async def events(last_event_id: str, wanted: int) -> tuple[str, list[dict[str, str]]]:
            headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
            found: list[dict[str, str]] = []
            async with asyncio.timeout(10), asker.session.get(url, headers=headers) as response:
                assert response.status == 200
                assert response.content_type == "text/event-stream"
                resume, block = response.headers["Flagrelay-Resume"], {}
                if not wanted:
                    return resume, []
                async for line in response.content:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name:
                        block[name] = value
                        continue
                    if "data" in block:
                        found.append(block)
                        if len(found) == wanted:
                            break
                        await flags.put({"string": flag({"a": f"new {len(found)}"})})
                    block = {}
            return resume, found

        resume, [first, second] = await events("", 2)
        assert resume == "full"
        for event in (first, second):
            assert event["event"] == "message"
            data = json.loads(event["data"])
            check_schema("sseEventData", data)
            assert (data["type"], data["etag"]) == ("refetchEvaluation", event["id"])
        assert second["id"] == await flags.event_id() != first["id"]
        assert (await events(second["id"], 0))[0] == "current"
        resume, [again] = await events(first["id"], 1)
        assert (resume, again["id"]) == ("full", second["id"])


async def test_changes_are_spread_over_a_window_and_a_kill_is_not(flags: World) -> None:
    async with running_relay("handover", flags, refetch_spread=30.0) as relay, asking(relay) as asker:
        key, _ = await relay.key("client")
        url = f"{relay.url}/ofrep/v1/events?token={stream_token(key)}"
        responses = [await asker.session.get(url) for _ in range(20)]
        hub = relay.pipeline.refetches
        head = hub.feed.head
        await flags.put({"string": flag({"a": "later"})})
        await until(lambda: hub.feed.head == head + 1, "the change is there")
        told = sum(subscriber.position > head for subscriber in hub.subscribers)
        assert 1 <= told < 20, "half a minute is not over yet"
        await kill_flag(flags.store, ENVIRONMENT, "boolean", reason="error rate")
        everybody = "an urgent change ends the waiting of those before it too"
        await until(lambda: all(subscriber.position == head + 2 for subscriber in hub.subscribers), everybody)
        for response in responses:
            response.close()
