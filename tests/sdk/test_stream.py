"""One connection of GET /v1/stream: to a relay, and to what is none."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from flagrelay.errors import FlagrelayError, MessageError, StreamError
from flagrelay.sdk import stream as sdk_stream
from flagrelay.sdk.replica import Replica
from flagrelay.sdk.stream import follow
from flagrelay.store.access_keys import revoke_access_key
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_snapshot
from flagrelay.wire.sse import Event, EventParser
from support.relays import World, make_world, running_relay


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store, store.address.url)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_stream_makes_a_replica_of_the_environment_and_goes_on_where_it_ended(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with running_relay("handover", world) as relay:
        url, key = f"http://127.0.0.1:{relay.port}/", await relay.secret()
        replica = Replica()
        async with aclosing(follow(session, url, key)) as events:
            assert replica.apply(await anext(events))
            await world.tick(7)
            event = await anext(events)
            assert (event.type, replica.apply(event)) == ("patch", True)
        await world.tick(8, "new")
        async with aclosing(follow(session, url, key, last_event_id=replica.id)) as events:
            event = await anext(events)
            assert (event.type, replica.apply(event)) == ("patch", True)
        snapshot = await read_snapshot(world.store, "production")
        assert (replica.flags, replica.evaluators) == (snapshot.flags, snapshot.evaluators)
        assert replica.metadata == snapshot.metadata
        assert replica.id == await world.event_id()


async def test_the_end_of_a_stream_is_a_goodbye_and_then_nothing(world: World, session: aiohttp.ClientSession) -> None:
    async with running_relay("handover", world) as relay:
        access_key, secret = await relay.key()
        received = []
        async for event in follow(session, f"http://127.0.0.1:{relay.port}", secret):
            received.append(event.type)
            if event.type == "put":
                await revoke_access_key(world.store, access_key.id)
        assert received == ["put", "goodbye"]
        with pytest.raises(StreamError) as refused:
            await anext(follow(session, f"http://127.0.0.1:{relay.port}", secret))
        assert (refused.value.status, refused.value.code) == (401, "UNAUTHORIZED")
        assert refused.value.details
        assert refused.value.details in str(refused.value)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """A server that answers as a test wants it."""
    app = web.Application()
    app.router.add_get("/v1/stream", handler)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def sending(*pieces: bytes, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **headers})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    return handler


async def events_of(session: aiohttp.ClientSession, url: str, key: str = "k", last: str = "") -> list[Event]:
    return [event async for event in follow(session, url, key, last_event_id=last)]


async def test_it_says_who_it_is_and_what_it_has(session: aiohttp.ClientSession) -> None:
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers)
        return await sending()(request)

    async with server(handler) as url:
        assert await events_of(session, url, "secret") == []
        assert await events_of(session, url + "/", "secret", "e.3") == []
    first, second = seen
    assert first["Authorization"] == "Bearer secret"
    assert first["Accept"] == "text/event-stream"
    assert "Last-Event-ID" not in first
    assert second["Last-Event-ID"] == "e.3"


async def test_events_come_whole_however_the_bytes_come(session: aiohttp.ClientSession) -> None:
    text = (
        b"retry: 5\n\nid: e.1\nevent: put\ndata: {}\n\n: comment\n\n"
        b"id: e.2\nevent: patch\ndata: \xc3\xa4\n\nid: e.3\nevent: patch\n"
    )
    expected = [Event("put", "{}", "e.1"), Event("patch", "ä", "e.2")]
    async with server(sending(*(text[n : n + 1] for n in range(len(text))))) as url:
        assert await events_of(session, url) == expected, "what was cut off at the end is no event"
    async with server(sending(gzip.compress(text), **{"Content-Encoding": "gzip"})) as url:
        assert await events_of(session, url) == expected


async def test_ids_that_go_back_within_an_epoch_are_refused(session: aiohttp.ClientSession) -> None:
    def stream(*ids: str) -> Handler:
        return sending(*(f"id: {each}\nevent: put\ndata: {{}}\n\n".encode() for each in ids))

    async with server(stream("e.5", "e.6", "f.1", "f.1", "e.0")) as url:
        assert len(await events_of(session, url, last="e.9")) == 5, "another stream, or epoch, begins where it must"
    async with server(stream("e.5", "e.4")) as url:
        events = follow(session, url, "k")
        assert (await anext(events)).id == "e.5"
        with pytest.raises(StreamError, match=r"'e\.4' comes after 'e\.5'") as refused:
            await anext(events)
        assert refused.value.status == 0


async def test_an_event_without_end_is_refused(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventParser.__init__, "__defaults__", (1000,))
    async with server(sending(b"data: " + b"x" * 2000)) as url:
        with pytest.raises(MessageError, match="more than 1000 bytes"):
            await events_of(session, url)


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (403, '{"errorCode": "WRONG_KEY_KIND", "errorDetails": "a server key"}', "WRONG_KEY_KIND", "a server key"),
        (503, "<html>gateway</html>", "", "gateway"),
        (500, "", "", "500"),
        (404, '{"errorCode": 7}', "", "404"),
        (400, "[]", "", "400"),
        (502, "x" * 1_000_000, "", "502"),
        (301, "", "", "301"),
        (204, "", "", "204"),
    ],
)
async def test_a_refusal_says_what_the_relay_said(
    session: aiohttp.ClientSession, status: int, body: str, code: str, words: str
) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"})

    async with server(handler) as url:
        with pytest.raises(StreamError) as refused:
            await events_of(session, url)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 400


async def test_an_answer_that_is_no_stream_is_refused(session: aiohttp.ClientSession) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async with server(handler) as url:
        with pytest.raises(StreamError, match="application/json, and not with what was asked for"):
            await events_of(session, url)


async def test_a_server_that_does_not_answer_is_not_waited_for(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    monkeypatch.setattr(sdk_stream, "ANSWER_TIMEOUT", 0.1)
    async with server(handler) as url:
        with pytest.raises(StreamError, match=r"does not answer within 0\.1 s"):
            await events_of(session, url)


async def test_nobody_there_is_an_error_of_aiohttps(session: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        await events_of(session, "http://127.0.0.1:1")


async def test_a_connection_that_breaks_is_an_error_and_not_an_end(session: aiohttp.ClientSession) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: e.1\nevent: put\ndata: {}\n\n")
        await received.wait()
        assert request.transport
        request.transport.abort()
        return response

    received = asyncio.Event()
    async with server(handler) as url:
        events = follow(session, url, "k")
        assert (await anext(events)).id == "e.1"
        received.set()
        with pytest.raises(aiohttp.ClientError):
            await anext(events)


def test_its_errors_are_of_the_one_tree() -> None:
    assert issubclass(StreamError, FlagrelayError)
    assert StreamError("x").status == 0
