"""Every error is JSON with a code and a sentence, whichever server carries it, and changes nothing."""

import time
from pathlib import Path

import pytest

from flagrelay.store.access_keys import create_access_key
from flagrelay.store.environments import create_environment, destroy_environment
from support.relays import ENVIRONMENT, KINDS, RunningRelay, World, running_relay, wired_relay
from support.sources import until
from support.streams import Answer, ask, connection, request, stream

pytestmark = pytest.mark.parametrize("kind", KINDS)


def refused(answer: Answer, status: int, code: str, *said: str) -> None:
    """An answer must be a refusal, in the form that every refusal has."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json
    assert body.keys() == {"errorCode", "errorDetails"}
    assert body["errorCode"] == code
    for word in said:
        assert word in body["errorDetails"]


KEYED = ("/v1/stream", "/v1/flags")
OPEN = ("/livez", "/readyz", "/metrics")


AUTHORIZATIONS = (
    "",
    "Bearer",
    "Bearer  ",
    "Basic YWRhOnNlY3JldA==",
    "fr_server_secret",
    "Bearer fr_server_unknown",
    "Bearer \xe9\xff\xfe",
    "Bearer epoch",
    "Bearer " + "x" * 9000,
    "Bearer one two",
)


async def test_without_a_known_key_it_is_401(relay: RunningRelay) -> None:
    for path in KEYED:
        for headers in ({}, *({"authorization": authorization} for authorization in AUTHORIZATIONS)):
            answer = await ask(relay.port, path, **headers)
            refused(answer, 401, "UNAUTHORIZED", "key")
            assert answer.headers["www-authenticate"] == 'Bearer realm="flagrelay"'


async def test_an_expired_key_is_401_and_says_so(relay: RunningRelay) -> None:
    key, secret = await relay.key(expires=int(time.time()) - 1)
    for path in KEYED:
        refused(await ask(relay.port, path, secret), 401, "UNAUTHORIZED", key.id, "expired")


async def test_a_key_of_another_kind_is_403(relay: RunningRelay) -> None:
    for key_kind in ("client", "admin"):
        secret = await relay.secret(key_kind)
        for path in KEYED:
            answer = await ask(relay.port, path, secret)
            refused(answer, 403, "WRONG_KEY_KIND", "server", key_kind)


async def test_the_scheme_of_a_key_is_not_case_sensitive(relay: RunningRelay) -> None:
    secret = await relay.secret()
    answer = await ask(relay.port, "/v1/flags", authorization=f"bEARER   {secret}")
    assert answer.status == 200


async def test_a_key_of_an_environment_that_is_not_served_is_403(relay: RunningRelay, world: World) -> None:
    await create_environment(world.store, "staging")
    _, secret = await relay.key(environment="staging")
    for path in KEYED:
        refused(await ask(relay.port, path, secret), 403, "ENVIRONMENT_NOT_SERVED", "staging")


async def test_an_environment_that_has_never_loaded_is_503(kind: str, world: World) -> None:
    _, secret = await create_access_key(world.store, ENVIRONMENT, "server", "a test's", None)
    await destroy_environment(world.store, ENVIRONMENT)
    async with running_relay(kind, world, ready=False) as relay:
        await until(lambda: relay.context.keyring.live, "the keys are known")
        for path in KEYED:
            answer = await ask(relay.port, path, secret)
            refused(answer, 503, "PROVIDER_NOT_READY", ENVIRONMENT)
            assert int(answer.headers["retry-after"]) >= 1
        await create_environment(world.store, ENVIRONMENT)
        await until(lambda: relay.pipeline.hub.loaded, "it has loaded by itself")
        for path in KEYED:
            assert (await ask(relay.port, path, secret, method="HEAD")).status == 200


async def test_a_key_that_nobody_can_check_is_503_and_never_401(kind: str, world: World, tmp_path: Path) -> None:
    async with wired_relay(kind, world, tmp_path) as (relay, wire):
        known = await relay.secret()
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.context.keyring.live, "Redis is lost")
        _, new = await create_access_key(world.store, ENVIRONMENT, "server", "new", None)
        for path in KEYED:
            answer = await ask(relay.port, path, new)
            refused(answer, 503, "KEYS_UNAVAILABLE", "Redis")
            assert int(answer.headers["retry-after"]) >= 1
            assert (await ask(relay.port, path, known, method="HEAD")).status == 200
        wire.refusing = False
        await until(lambda: relay.context.keyring.live, "Redis is back")
        assert (await ask(relay.port, "/v1/flags", new)).status == 200


NOWHERE = (
    "/",
    "/v1",
    "/v1/",
    "/v1/stream/",
    "/v1/streams",
    "//v1/stream",
    "/V1/STREAM",
    "/v1/flags/checkout",
    "/livez/",
    "/%2e%2e/etc/passwd",
    "/%00",
)


async def test_what_is_not_there_is_404(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for path in NOWHERE:
        refused(await ask(relay.port, path, secret), 404, "NOT_FOUND")


async def test_another_method_is_405_and_says_which_would_do(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for path in (*KEYED, *OPEN):
        for method in ("POST", "DELETE", "OPTIONS"):
            answer = await ask(relay.port, path, secret, method=method, content_length="0")
            refused(answer, 405, "METHOD_NOT_ALLOWED", method)
            assert {word.strip() for word in answer.headers["allow"].split(",")} == {"GET", "HEAD"}


BODIES = (
    ({"content_length": "5"}, b"hello"),
    ({"transfer_encoding": "chunked"}, b"5\r\nhello\r\n0\r\n\r\n"),
    ({"transfer_encoding": "chunked"}, b"0\r\n\r\n"),
    ({"content_length": "5"}, b""),  # announced, and never sent
)


async def test_a_get_with_a_body_is_400_and_ends_the_connection(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for path in KEYED:
        for headers, body in BODIES:
            async with connection(relay.port) as opened:
                opened.send(request(path, secret, **headers) + body)
                answer = await opened.answer()
                refused(answer, 400, "INVALID_REQUEST", path, "body")
                assert answer.headers["connection"] == "close"
                assert await opened.end() == b""
    assert relay.context.relay.streams == 0


async def test_a_get_that_says_it_has_no_body_is_granted(relay: RunningRelay) -> None:
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret(), content_length="0"))
        assert (await opened.head()).status == 200


async def test_head_answers_as_get_would_and_opens_nothing(relay: RunningRelay) -> None:
    secret = await relay.secret()
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", secret, method="HEAD"))
        answer = await opened.answer("HEAD")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream"
        opened.send(request("/v1/stream", "wrong", method="HEAD"))
        assert (await opened.answer("HEAD")).status == 401
        # Nothing of a body came, or this would not be read as an answer.
        opened.send(request("/livez"))
        assert (await opened.answer()).status == 200
    assert relay.pipeline.stats.opened == 0


async def test_where_the_relay_is_at_fault_it_says_nothing_of_why(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("flagrelay.server.streams.fullness", broken)
    answer = await ask(relay.port, "/v1/stream", await relay.secret())
    refused(answer, 500, "GENERAL", "log")
    assert b"detail" not in answer.body
    assert (await ask(relay.port, "/livez")).status == 200


async def test_no_secret_is_ever_logged(relay: RunningRelay, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = [await relay.secret(), await relay.secret("client"), "fr_server_made_up"]
    for secret in secrets:
        for path in ("/v1/stream", "/v1/flags", "/nothing"):
            await ask(relay.port, path, secret, method="HEAD")
    async with stream(relay.port, secrets[0]) as opened:
        await opened.event("put")
    await relay.streams(0)
    written = "".join(capsys.readouterr())
    assert not [secret for secret in secrets if secret in written]


async def test_an_environment_made_after_the_relay_started_is_served_soon(kind: str, world: World) -> None:
    async with running_relay(kind, world, env=()) as relay:
        await create_environment(world.store, "later")
        _, secret = await relay.key(environment="later")
        await until(
            lambda: "later" in relay.context.relay.pipelines and relay.context.relay.pipelines["later"].live,
            "the new environment is followed",
            within=2,
        )
        async with stream(relay.port, secret) as opened:
            await opened.event("put")


async def test_a_key_made_while_the_relay_runs_is_good_within_moments(kind: str, world: World) -> None:
    # Comparisons are far apart: only the hint on the channel can tell so soon.
    async with running_relay(kind, world, verify_interval=60) as relay:
        started = time.perf_counter()
        secret = await relay.secret()
        assert (await ask(relay.port, "/v1/flags", secret)).status == 200
        assert time.perf_counter() - started < 1
