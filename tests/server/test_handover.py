"""Connections taken out of uvicorn's hands: what is leaned on, what is freed, and every way to abuse one.

On both event loops: uvloop, on which the relay runs, and asyncio's own.
"""

import asyncio
import contextlib
import gc
import re
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from flagrelay.relay.subscriber import Subscriber
from flagrelay.server.handover import EXTENSION, HandoverProtocol
from flagrelay.store.access_keys import revoke_access_key
from support.fakes import FakeTransport
from support.relays import RunningRelay, World, running_relay
from support.sources import until
from support.streams import PATIENCE, Connection, ProtocolError, Stream, ahead_of, connection, request, stream


@pytest.fixture
async def relay(world: World) -> AsyncIterator[RunningRelay]:
    async with running_relay("handover", world) as running:
        yield running


# -- what is leaned on ----------------------------------------------------------------------------------------


class Wire(FakeTransport):
    """A transport as uvicorn's protocol takes one."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - asyncio's signature
        return default

    def is_closing(self) -> bool:
        return self.closed


async def test_uvicorn_is_inside_what_the_hand_over_takes_it_for() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    state = ServerState()
    config = Config(app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None)
    protocol = HttpToolsProtocol(config, state, {})
    transport: Any = Wire()
    try:
        protocol.connection_made(transport)
        protocol.data_received(b"GET /path?query HTTP/1.1\r\nHost: relay\r\n\r\n")
        expected: dict[str, Callable[[], bool]] = {
            "HttpToolsProtocol.config.h11_max_incomplete_event_size": lambda: (
                config.h11_max_incomplete_event_size is None and protocol.config is config
            ),
            "HttpToolsProtocol.transport": lambda: protocol.transport is transport,
            "HttpToolsProtocol.flow": lambda: protocol.flow._transport is transport,
            "HttpToolsProtocol.parser, with feed_data": lambda: callable(protocol.parser.feed_data),
            "HttpToolsProtocol.url, as bytes": lambda: protocol.url == b"/path?query",
            "HttpToolsProtocol.headers, a list of pairs": lambda: protocol.headers == [(b"host", b"relay")],
            "HttpToolsProtocol.scope, with http_version": lambda: protocol.scope["http_version"] == "1.1",
            "HttpToolsProtocol.pipeline, empty": lambda: len(protocol.pipeline) == 0,
            "HttpToolsProtocol.connections, the server's": lambda: (
                protocol.connections is state.connections and protocol in state.connections
            ),
            "HttpToolsProtocol.server_state": lambda: protocol.server_state is state,
            "ServerState.total_requests": lambda: state.total_requests == 0,
            "ServerState.default_headers": lambda: state.default_headers == [],
            "HttpToolsProtocol._unset_keepalive_if_required": lambda: callable(protocol._unset_keepalive_if_required),
            "HttpToolsProtocol.send_400_response": lambda: callable(protocol.send_400_response),
            "RequestResponseCycle.more_body, false for a GET": lambda: protocol.cycle.more_body is False,
            "RequestResponseCycle.response_started": lambda: protocol.cycle.response_started is False,
            "RequestResponseCycle.response_complete": lambda: protocol.cycle.response_complete is False,
        }
        for what, holds in expected.items():
            try:
                held = holds()
            except AttributeError:
                held = False
            assert held, (
                f"uvicorn {uvicorn.__version__} has moved {what}: src/flagrelay/server/handover.py leans on it. "
                "Read its httptools_impl.py, then adapt hand_over(), or hold uvicorn back in pyproject.toml."
            )
    finally:
        for task in state.tasks:
            task.cancel()
        protocol.connection_lost(None)


async def test_uvicorn_calls_what_the_hand_over_overrides(relay: RunningRelay) -> None:
    calls = ("data_received", "on_message_begin", "on_headers_complete", "send_400_response")
    for name in calls:
        assert callable(getattr(HttpToolsProtocol, name, None)), (
            f"uvicorn {uvicorn.__version__} has no HttpToolsProtocol.{name} any more: HandoverProtocol overrides it"
        )
    async with connection(relay.port) as opened:
        opened.send(b"\x00\r\n\r\n")
        answer = await opened.answer()
        assert answer.json["errorCode"] == "INVALID_REQUEST", "uvicorn answers bad requests itself again"


async def test_the_extension_is_offered_to_applications(relay: RunningRelay) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    assert relay.server
    relay.server.config.loaded_app = app
    async with connection(relay.port) as opened:
        opened.send(request("/livez"))
        await opened.answer()
    assert callable(seen[0]["extensions"][EXTENSION])


# -- what is freed --------------------------------------------------------------------------------------------


class Sentinel:
    """Lives for as long as the scope that it is put into."""


async def test_protocol_cycle_and_scope_are_freed_without_the_garbage_collector(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Any]] = []
    on_headers_complete = HandoverProtocol.on_headers_complete

    def noted(self: HandoverProtocol) -> None:
        on_headers_complete(self)
        sentinel = Sentinel()
        self.scope["state"]["sentinel"] = sentinel
        kept.extend((weakref.ref(self), weakref.ref(self.cycle), weakref.ref(sentinel)))

    monkeypatch.setattr(HandoverProtocol, "on_headers_complete", noted)
    secret = await relay.secret()
    gc.collect()
    gc.disable()
    try:
        async with connection(relay.port) as opened:
            for path in ("/livez", "/v1/flags"):  # kept alive, with a timer
                opened.send(request(path, secret))
                assert (await opened.answer()).status == 200
            opened.send(request("/v1/stream", secret))
            taken = Stream(opened, await opened.head())
            await taken.event("put")
            assert len(kept) == 9
            await until(lambda: not any(ref() for ref in kept), "all of it is freed", within=1)
            await relay.world.tick(1)
            await taken.event("patch")
    finally:
        gc.enable()


async def test_nothing_of_a_stream_is_left_in_uvicorn(relay: RunningRelay) -> None:
    assert relay.server
    state, secret = relay.server.server_state, await relay.secret()
    async with stream(relay.port, secret) as first, stream(relay.port, secret) as second:
        await first.event("put")
        await second.event("put")
        await until(lambda: not state.tasks, "the requests' tasks are done", within=1)
        assert state.connections == set()
        assert state.total_requests == 2
        assert relay.context.relay.streams == 2


async def test_an_ended_stream_is_freed_too(relay: RunningRelay) -> None:
    async with stream(relay.port, await relay.secret()) as opened:
        await opened.event("put")
        [(kept, transport)] = [(weakref.ref(s.transport), s.transport) for s in relay.pipeline.hub.subscribers]
        del transport
    await relay.streams(0)
    gc.collect()
    await until(lambda: kept() is None, "the transport is freed", within=1)


def test_a_subscriber_is_one_small_object() -> None:
    assert not hasattr(Subscriber, "__dict__") or "__dict__" not in dir(Subscriber), "its attributes are slots"


# -- what goes over the wire ----------------------------------------------------------------------------------


async def test_the_head_is_as_exact_as_can_be(relay: RunningRelay) -> None:
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret()))
        data = b""
        while b"event: put" not in data:
            data += await opened.more()
        head, _, body = data.partition(b"\r\n\r\n")
        assert re.fullmatch(
            rb"HTTP/1\.1 200 OK\r\n"
            rb"content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"
            rb"flagrelay-resume: full\r\ntransfer-encoding: chunked\r\n"
            rb"date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
            head,
        )
        assert re.match(rb"[0-9a-f]+\r\nretry: \d+\n\n\r\n[0-9a-f]+\r\nid: ", body)


async def test_the_connection_closes_behind_a_stream_that_ended_in_order(world: World) -> None:
    async with (
        running_relay("handover", world, stream_lifetime=0.1) as relay,
        stream(relay.port, await relay.secret()) as opened,
    ):
        await opened.event("put")
        assert await opened.goodbye() == "lifetime"
        assert await opened.connection.end() == b""


async def test_requests_before_the_stream_on_the_same_connection_do_no_harm(relay: RunningRelay) -> None:
    secret = await relay.secret()
    async with connection(relay.port) as opened:
        for path, status in (("/livez", 200), ("/nothing", 404), ("/v1/stream", 401), ("/v1/flags", 401)):
            opened.send(request(path))
            assert (await opened.answer()).status == status
        opened.send(request("/v1/flags", secret))
        assert (await opened.answer()).status == 200
        opened.send(request("/v1/stream", secret))
        taken = Stream(opened, await opened.head())
        await taken.event("put")
        await relay.world.tick(1)
        await taken.event("patch")


async def test_a_stream_outlives_the_keep_alive_time_of_the_requests_before_it(world: World) -> None:
    async with running_relay("handover", world, heartbeat_interval=0.05) as relay:
        assert relay.server
        vars(relay.server.config)["timeout_keep_alive"] = 0.1
        secret = await relay.secret()
        async with connection(relay.port) as opened:
            opened.send(request("/livez"))
            await opened.answer()
            opened.send(request("/v1/stream", secret))
            taken = Stream(opened, await opened.head())
            await taken.event("put")
            for _ in range(5):
                await taken.event("heartbeat")


async def test_names_of_headers_are_not_case_sensitive(relay: RunningRelay) -> None:
    secret, event_id = await relay.secret(), await relay.world.event_id()
    for names in (("Authorization", "Last-Event-ID"), ("AUTHORIZATION", "LAST-EVENT-ID")):
        async with connection(relay.port) as opened:
            lines = [
                "GET /v1/stream HTTP/1.1",
                "HOST: relay",
                f"{names[0]}: Bearer {secret}",
                f"{names[1]}: {event_id}",
            ]
            opened.send("\r\n".join([*lines, "", ""]).encode())
            assert (await opened.head()).headers["flagrelay-resume"] == "current"


async def test_a_request_that_comes_byte_by_byte_is_granted(relay: RunningRelay) -> None:
    async with connection(relay.port) as opened:
        for byte in request("/v1/stream", await relay.secret()):
            opened.send(bytes([byte]))
            await opened.writer.drain()
            await asyncio.sleep(0)
        await Stream(opened, await opened.head()).event("put")


OFFERS = (
    {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAoAAAAAIAAAAA"},
    {"connection": "upgrade", "upgrade": "websocket", "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ=="},
    {"expect": "100-continue"},
    {"connection": "close"},
    {"accept_encoding": "gzip, br", "accept": "text/event-stream", "cache_control": "no-cache"},
    {"te": "trailers"},
)


async def test_what_clients_offer_beside_is_left_where_it_is(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for headers in OFFERS:
        async with connection(relay.port) as opened:
            opened.send(request("/v1/stream", secret, **headers))
            head = await opened.head()
            assert head.status == 200, headers
            await Stream(opened, head).event("put")


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks(relay: RunningRelay) -> None:
    key, secret = await relay.key()
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", secret, version="HTTP/1.0"))
        head = await opened.head()
        assert head.status == 200
        assert head.headers["flagrelay-resume"] == "full"
        assert head.headers["content-type"] == "text/event-stream"
        assert "transfer-encoding" not in head.headers, "HTTP/1.0 has none"
        taken = Stream(opened, head)
        await taken.event("put")
        assert taken.content.startswith(b"retry: ")
        await relay.world.tick(1)
        await taken.event("patch")
        await revoke_access_key(relay.world.store, key.id)
        assert await taken.goodbye() == "revoked"
    await relay.streams(0)


# -- abuse ----------------------------------------------------------------------------------------------------


async def still_well(relay: RunningRelay) -> None:
    """Whatever was done to it, the relay serves others as before, and holds nothing of it."""
    await relay.streams(0)
    async with stream(relay.port, await relay.secret()) as opened:
        await opened.event("put")
    await until(lambda: not relay.connections, "uvicorn holds no connection")


def big_head(secret: str, size: int) -> bytes:
    """A stream's request whose head is that many bytes."""
    plain = request("/v1/stream", secret, x_padding="")
    return request("/v1/stream", secret, x_padding="x" * (size - len(plain)))


async def too_large(opened: Connection) -> None:
    answer = await opened.answer()
    assert answer.status == 431
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert answer.json["errorCode"] == "HEAD_TOO_LARGE"
    assert "16384" in answer.json["errorDetails"]
    assert await opened.end() == b""


async def test_a_head_of_64_kib_is_431_in_one_piece_and_in_many(relay: RunningRelay) -> None:
    head = big_head(await relay.secret(), 65536)
    for piece in (len(head), 5000, 1400):
        async with connection(relay.port) as opened:
            for start in range(0, len(head), piece):
                opened.send(head[start : start + piece])
                await asyncio.sleep(0)
            await too_large(opened)
    await still_well(relay)


async def test_a_head_that_never_ends_is_431_without_waiting_for_its_end(relay: RunningRelay) -> None:
    for start in (b"GET /v1/stream HTTP/1.1\r\n", b"GET /v1/stream HTTP/1.1\r\nx-padding: ", b"GET /"):
        async with connection(relay.port) as opened:
            opened.send(start + b"x" * 30_000)
            await too_large(opened)
    async with connection(relay.port) as opened:
        opened.send(b"GET /v1/stream HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % number for number in range(5000)))
        await too_large(opened)
    await still_well(relay)


async def test_a_refused_client_that_neither_leaves_nor_stops_sending_is_cut_off(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagrelay.server.handover.LINGER", 0.1)
    async with connection(relay.port) as silent, connection(relay.port) as noisy:
        for opened in (silent, noisy):
            opened.send(b"GET /" + b"x" * 20_000)
            assert (await opened.answer()).status == 431
        assert relay.connections == 2
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while relay.connections:
                    noisy.send(b"x" * 1000)
                    await noisy.writer.drain()
                    await asyncio.sleep(0.01)
        await until(lambda: not relay.connections, "both are gone", within=2)


async def test_a_head_just_within_the_limit_is_granted(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for piece in (16_000, 1000):
        head = big_head(secret, 16_000)
        async with connection(relay.port) as opened:
            for start in range(0, len(head), piece):
                opened.send(head[start : start + piece])
                await asyncio.sleep(0.001)
            assert (await opened.head()).status == 200


async def test_a_url_that_is_too_long_is_431(relay: RunningRelay) -> None:
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream?" + "x" * 17_000, await relay.secret()))
        await too_large(opened)
    await still_well(relay)


async def test_the_limit_is_for_each_request_of_a_connection_anew(relay: RunningRelay) -> None:
    secret = await relay.secret()
    async with connection(relay.port) as opened:
        for _ in range(5):
            opened.send(request("/livez", x_padding="x" * 9000))
            assert (await opened.answer()).status == 200
        # A body counts for nothing; the next head comes in two pieces.
        opened.send(request("/livez", method="POST", content_length="60000") + b"x" * 20_000)
        await opened.writer.drain()
        await asyncio.sleep(0.01)
        opened.send(b"x" * 40_000)
        assert (await opened.answer()).status == 405
        await asyncio.sleep(0.01)
        head = request("/v1/stream", secret)
        opened.send(head[:30])
        await asyncio.sleep(0.01)
        opened.send(head[30:])
        assert (await opened.head()).status == 200


GARBAGE = (b"\x00\x01\x02\r\n\r\n", b"hello relay\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"}{\r\n" * 1000)


async def test_garbage_instead_of_a_request_is_400_in_json(relay: RunningRelay) -> None:
    for garbage in GARBAGE:
        async with connection(relay.port) as opened:
            opened.send(garbage)
            answer = await opened.answer()
            assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_REQUEST")
            assert answer.json["errorDetails"]
            assert await opened.end() == b""
    await still_well(relay)


async def test_garbage_right_behind_a_stream_request_opens_none(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for garbage in GARBAGE:
        async with connection(relay.port) as opened:
            opened.send(request("/v1/stream", secret) + garbage)
            answer = await opened.answer()
            assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_REQUEST")
            assert await opened.end() == b"", "one answer, and the end"
    assert relay.pipeline.stats.opened == 0
    await still_well(relay)


async def test_a_second_request_behind_a_stream_request_opens_none(relay: RunningRelay) -> None:
    secret = await relay.secret()
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", secret) + request("/v1/flags", secret))
        answer = await opened.answer()
        assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_REQUEST")
        assert "last" in answer.json["errorDetails"]
        assert await opened.end() == b""
    assert relay.pipeline.stats.opened == 0
    await still_well(relay)


async def test_a_stream_request_behind_another_request_is_answered_after_it(relay: RunningRelay) -> None:
    secret = await relay.secret()
    async with connection(relay.port) as opened:
        opened.send(request("/livez") + request("/v1/flags", secret) + request("/v1/stream", secret))
        assert (await opened.answer()).json == {"status": "alive"}
        assert "flags" in (await opened.answer()).json
        taken = Stream(opened, await opened.head())
        await taken.event("put")
        await relay.world.tick(1)
        await taken.event("patch")


async def test_whoever_sends_anything_into_a_stream_is_cut_off(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for later in (request("/livez"), b"\x00", b"x" * 200_000):
        async with stream(relay.port, secret) as opened:
            await opened.event("put")
            opened.connection.send(later)
            assert await opened.connection.end() == b"", "not a word more"
    await relay.closed("garbage", 3)
    await still_well(relay)


async def test_the_start_of_a_second_request_is_no_more_than_garbage(relay: RunningRelay) -> None:
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret()) + b"GET /v1/fl")
        # It may be refused at once, or granted and cut off with the next byte; never answered, never mixed in.
        head = await opened.head()
        if head.status == 200:
            taken = Stream(opened, head)
            await taken.event("put")
            opened.send(b"ags HTTP/1.1\r\nhost: relay\r\n\r\n")
            assert await opened.end() == b""
            await relay.closed("garbage")
    await still_well(relay)


async def test_a_client_that_half_closes_gets_a_clean_end(relay: RunningRelay) -> None:
    async with stream(relay.port, await relay.secret()) as opened:
        await opened.event("put")
        opened.connection.writer.write_eof()
        assert await opened.connection.end() == b""
    await relay.closed("gone")
    await still_well(relay)


async def test_a_client_that_half_closes_with_its_request_leaves_nothing_behind(relay: RunningRelay) -> None:
    for _ in range(5):
        async with connection(relay.port) as opened:
            opened.send(request("/v1/stream", await relay.secret()))
            opened.writer.write_eof()
            await opened.end()
    await still_well(relay)


async def test_a_reset_in_the_middle_of_a_stream_leaves_nothing_behind(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for number in range(5):
        async with stream(relay.port, secret) as opened:
            await opened.event("put")
            opened.connection.reset()
            await relay.world.tick(number)
    await relay.closed("gone", 5)
    await still_well(relay)


async def test_no_line_of_a_request_finds_its_way_into_the_response(relay: RunningRelay) -> None:
    secret = await relay.secret()
    for value in (
        b"x\r\nx-injected: 1",
        b"x\rx-injected: 1",
        b"x\nx-injected: 1",
        b"x\r\n x-injected: 1",
        b"x\x00x-injected: 1",
        b"x%0d%0ax-injected: 1",
        "x\u2028x-injected: 1".encode(),
    ):
        async with connection(relay.port) as opened:
            lines = [b"GET /v1/stream HTTP/1.1", b"host: relay", b"authorization: Bearer " + secret.encode()]
            opened.send(b"\r\n".join([*lines, b"last-event-id: " + value, b"", b""]))
            try:
                head = await opened.head()
            except ProtocolError as error:
                pytest.fail(f"{value!r}: {error}")
            assert head.status in (200, 400)
            assert "x-injected" not in head.headers
            if head.status == 200:
                taken = Stream(opened, head)
                assert taken.resume == "full"
                await taken.event("put")
                assert b"injected" not in taken.content


async def test_a_client_that_leaves_before_it_is_answered_is_never_counted(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def settle(_last_event_id: str) -> bool:
        waiting.set()
        await go_on.wait()
        return False

    monkeypatch.setattr(relay.pipeline, "settle", settle)
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret(), last_event_id=ahead_of(relay.pipeline)))
        await waiting.wait()
        opened.reset()
        await until(lambda: not relay.connections, "uvicorn has seen it go")
    go_on.set()
    assert relay.server
    state = relay.server.server_state
    await until(lambda: not state.tasks, "its request has ended")
    assert relay.pipeline.stats.opened == 0


async def test_a_second_request_while_the_first_is_checked_opens_no_stream(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def settle(_last_event_id: str) -> bool:
        waiting.set()
        await go_on.wait()
        return False

    monkeypatch.setattr(relay.pipeline, "settle", settle)
    async with connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret(), last_event_id=ahead_of(relay.pipeline)))
        await waiting.wait()
        opened.send(request("/livez"))
        assert relay.server
        state = relay.server.server_state
        await until(lambda: any(vars(each)["pipeline"] for each in state.connections), "it is there")
        go_on.set()
        answer = await opened.answer()
        assert (answer.status, answer.json["errorCode"]) == (400, "INVALID_REQUEST")
        assert await opened.end() == b""
    assert relay.pipeline.stats.opened == 0
