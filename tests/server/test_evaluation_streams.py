"""GET and POST /v1/evaluations/stream, over real sockets, behind each of the servers that carry the relay."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from flagrelay.store.access_keys import revoke_access_key, stream_token
from flagrelay.wire.sse import Event, EventParser
from support.ofrep import bearer
from support.relays import KINDS, RunningRelay, World, running_relay

PATH = "/v1/evaluations/stream"
PRO = {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", None]}


def flag(targeting: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    variants = {"on": True, "off": False}
    return {
        "state": "ENABLED",
        "variants": variants,
        "defaultVariant": "off",
        "targeting": targeting,
        "metadata": metadata,
    }


@pytest.fixture
async def world(world: World) -> World:
    """With one flag whose value is the context's, one for servers alone, and nothing else."""
    await world.put({"pro": flag(PRO), "hidden": flag({}, serverOnly=True), "flag": None, "old": None}, metadata={})
    return world


class Reader:
    """The far end of one stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._parser = EventParser()
        self._events: list[Event] = []

    @property
    def resume(self) -> str:
        return self.response.headers["Flagrelay-Resume"]

    async def event(self, kind: str = "") -> Event:
        """The next event, or the next of a kind."""
        async with asyncio.timeout(10):
            while True:
                while self._events:
                    event = self._events.pop(0)
                    if kind in ("", event.type):
                        return event
                self._events += self._parser.feed(await self.response.content.readany())
                assert self._events or not self.response.content.at_eof(), "the stream has ended"

    async def data(self, kind: str) -> Any:
        return json.loads((await self.event(kind)).data)


@contextlib.asynccontextmanager
async def posted(relay: RunningRelay, secret: str, context: Any, **headers: str) -> AsyncIterator[Reader]:
    given = {**bearer(secret), **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(relay.url + PATH, json={"context": context}, headers=given) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Reader(response)


def query(context: Any, *, padded: bool = True) -> str:
    text = base64.urlsafe_b64encode(json.dumps(context).encode()).decode()
    return text if padded else text.rstrip("=")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_begins_with_everything_and_goes_on_with_what_concerns_it(world: World, kind: str) -> None:
    async with running_relay(kind, world) as relay:
        secret = await relay.secret("client")
        async with posted(relay, secret, {"plan": "pro"}) as pro, posted(relay, secret, {"plan": "free"}) as free:
            says = {"value": True, "variant": "on", "reason": "TARGETING_MATCH", "metadata": {}}
            assert await pro.data("put") == {"flags": {"pro": says}}
            assert (await free.data("put"))["flags"]["pro"]["reason"] == "DEFAULT"
            await world.put({"pro": flag({"if": [{"==": [{"var": "plan"}, "pro"]}, "off", None]})})
            await world.put({"new": flag({})})
            event = await pro.event("patch")
            assert json.loads(event.data)["flags"]["pro"]["value"] is False
            assert (await free.data("patch"))["flags"].keys() == {"new"}, "the first change was not its own"
            assert (await pro.data("patch"))["flags"].keys() == {"new"}
            await world.put({"pro": None})
            assert (await pro.data("patch"))["flags"] == {"pro": None}
            assert (await free.event("patch")).id == await world.event_id()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_browser_brings_its_context_and_a_token_in_the_url(world: World, kind: str) -> None:
    async with running_relay(kind, world) as relay, aiohttp.ClientSession() as session:
        key, _ = await relay.key("server")
        for padded in (True, False):
            context = query({"plan": "pro", "name": "ä?>"}, padded=padded)
            url = f"{relay.url}{PATH}?context={context}&token={stream_token(key)}"
            async with session.get(url) as response:
                put = await Reader(response).data("put")
                assert put["flags"].keys() == {"pro"}, "a token sees what a client sees, whatever key it stands for"
                assert put["flags"]["pro"]["value"] is True
        async with session.get(f"{relay.url}{PATH}?token={stream_token(key)}") as response:
            assert (await Reader(response).data("put"))["flags"]["pro"]["value"] is False, "an empty context"
        async with session.head(f"{relay.url}{PATH}?token={stream_token(key)}") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_a_server_key_sees_what_clients_do_not(world: World) -> None:
    async with running_relay("handover", world) as relay, posted(relay, await relay.secret("server"), {}) as reader:
        assert (await reader.data("put"))["flags"].keys() == {"pro", "hidden"}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_resumes_where_it_was(world: World, kind: str) -> None:
    async with running_relay(kind, world, changes_held=2) as relay:
        secret, context = await relay.secret("client"), {"plan": "pro"}
        start = await world.event_id()
        async with posted(relay, secret, context, last_event_id=start) as reader:
            assert reader.resume == "current"
            assert (await reader.event()).type == "heartbeat"
        await relay.at((await world.put({"pro": flag({})})).revision)
        async with posted(relay, secret, context, last_event_id=start) as reader:
            assert reader.resume == "delta"
            assert (await reader.data("patch"))["flags"]["pro"]["value"] is False
        for number in range(3):
            written = await world.put({"other": flag({}, n=number)})
        await relay.at(written.revision)
        for held in (start, "other.1", "nonsense"):
            async with posted(relay, secret, context, last_event_id=held) as reader:
                assert reader.resume == "full"
                assert (await reader.data("put"))["flags"].keys() == {"pro", "other"}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_ends_as_every_stream_does(world: World, kind: str) -> None:
    async with running_relay(kind, world, heartbeat_interval=0.05) as relay:
        key, secret = await relay.key("client")
        async with posted(relay, secret, {}) as reader:
            assert (await reader.data("heartbeat"))["source"] == "live"
            await revoke_access_key(world.store, key.id)
            assert await reader.data("goodbye") == {"reason": "revoked"}
            async with asyncio.timeout(10):
                while not reader.response.content.at_eof():
                    await reader.response.content.readany()
        assert not relay.pipeline.evaluations_feed._views


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"data": b"{"}, 400, "PARSE_ERROR"),
        ({"json": {"context": []}}, 400, "INVALID_CONTEXT"),
        ({"json": {"context": {"targetingKey": 1}}}, 400, "INVALID_CONTEXT"),
        ({"json": {"context": {"text": "x" * 300}}}, 413, "TOO_LARGE"),
        ({"data": b" " * 3000}, 413, "TOO_LARGE"),
    ],
)
async def test_what_is_no_context_or_too_large_is_refused(
    world: World, request_: dict[str, Any], status: int, code: str
) -> None:
    async with (
        running_relay("handover", world, max_context_bytes=300, max_body_bytes=2000) as relay,
        aiohttp.ClientSession(headers=bearer(await relay.secret("client"))) as session,
        session.post(relay.url + PATH, **request_) as response,
    ):
        assert response.status == status
        assert (await response.json())["errorCode"] == code
        assert relay.pipeline.streams == 0


@pytest.mark.parametrize("context", ["%", "e30=x", "W10", query([]), query({"targetingKey": 1}), query("x")])
async def test_what_is_no_context_in_a_url_is_refused(world: World, context: str) -> None:
    async with running_relay("handover", world) as relay, aiohttp.ClientSession() as session:
        key, _ = await relay.key("client")
        params = {"context": context, "token": stream_token(key)}
        async with session.get(relay.url + PATH, params=params) as response:
            assert response.status == 400
            assert (await response.json())["errorCode"] in ("PARSE_ERROR", "INVALID_CONTEXT")


async def test_who_may_not_ask_is_refused_and_streams_of_all_kinds_count(world: World) -> None:
    async with running_relay("handover", world, max_streams_per_key=2) as relay, aiohttp.ClientSession() as session:
        for secret, status in (("", 401), ("unknown", 401), (await relay.secret("admin"), 403)):
            async with session.post(relay.url + PATH, headers=bearer(secret)) as response:
                assert response.status == status
        secret = await relay.secret("server")
        async with posted(relay, secret, {}), session.get(f"{relay.url}/v1/stream", headers=bearer(secret)) as second:
            assert second.status == 200
            async with session.post(relay.url + PATH, headers=bearer(secret)) as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0


async def test_contexts_and_tokens_are_never_logged(world: World) -> None:
    with capture_logs() as logs:
        async with running_relay("handover", world, log_level="debug") as relay, aiohttp.ClientSession() as session:
            key, secret = await relay.key("client")
            async with posted(relay, secret, {"email": "somebody@example.com"}) as reader:
                await reader.event("put")
            async with session.get(f"{relay.url}{PATH}?context=!&token={stream_token(key)}") as response:
                assert response.status == 400
    written = json.dumps(logs, default=str)
    assert "somebody" not in written
    assert stream_token(key) not in written


async def test_many_contexts_each_get_their_own(world: World) -> None:
    split = flag({"fractional": [["on", 50], ["off", 50]]})
    async with running_relay("handover", world) as relay, contextlib.AsyncExitStack() as stack:
        secret = await relay.secret("client")
        readers = [
            await stack.enter_async_context(posted(relay, secret, {"targetingKey": f"user-{number}"}))
            for number in range(100)
        ]
        for reader in readers:
            await reader.event("put")
        written = await world.put({"split": split})
        await relay.at(written.revision)
        for number, reader in enumerate(readers):
            says = (await reader.data("patch"))["flags"]["split"]
            assert says["variant"] == relay.pipeline.held().resolve("split", {"targetingKey": f"user-{number}"}).variant


async def test_who_says_more_after_the_body_is_cut_off(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret("client")
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\ncontent-length: 2\r\n\r\n{{}}"
        writer.write(head.encode())
        async with asyncio.timeout(10):
            await reader.readuntil(b"event: put")
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read()
        await relay.closed("garbage")
        writer.close()


async def test_a_body_in_chunks_or_after_100_continue_is_a_body(world: World) -> None:
    async with running_relay("handover", world) as relay, aiohttp.ClientSession() as session:
        headers = bearer(await relay.secret("client"))

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b'{"context": ', b'{"plan": ', b'"pro"}}'):
                yield piece

        for more in ({"data": pieces()}, {"json": {"context": {"plan": "pro"}}, "expect100": True}):
            async with session.post(relay.url + PATH, headers=headers, **more) as response:
                assert (await Reader(response).data("put"))["flags"]["pro"]["value"] is True
