import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.server.arrival import plain_request
from support.relays import World, running_relay
from support.sources import until
from support.streams import ahead_of, ask, connection, request, stream

PLAIN = b"GET /v1/stream HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer  key \r\n\r\n"


def test_a_plain_request_is_taken_apart() -> None:
    headers = [(b"host", b"relay"), (b"authorization", b"Bearer  key")]
    assert plain_request(PLAIN) == (b"/v1/stream", b"", headers)
    assert plain_request(PLAIN.replace(b"stream", b"stream?a=b%20c")) == (b"/v1/stream", b"a=b%20c", headers)


@pytest.mark.parametrize(
    "line",
    [
        b"content-length: 0",
        b"Transfer-Encoding: chunked",
        b"upgrade: h2c",
        b"expect: 100-continue",
        b"connection: close",
        b"connection: keep-alive, upgrade",
        b"host: another",
        b"folded:\r\n line",
        b"na me: value",
        b": value",
        b"no-colon",
        b"control: \x01",
        b"latin: \xe4",
        b"bare: a\rb",
        b"bare: a\nb",
    ],
)
def test_anything_that_is_not_quite_plain_is_passed_on(line: bytes) -> None:
    assert plain_request(PLAIN.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")) is None


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.replace(b"GET", b"HEAD"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"Host: relay\r\n", b""),
        PLAIN.replace(b"/v1/stream", b"/v1/str%65am"),
        PLAIN.replace(b"/v1/stream", b"//relay/v1/stream#a"),
        PLAIN.replace(b"/v1", b"http://relay/v1"),
        PLAIN.replace(b"\r\n", b"\n"),
        b"\r\n" + PLAIN,
        PLAIN + b"\r\n",
        PLAIN * 2,
    ],
)
def test_so_is_every_other_kind_of_request(data: bytes) -> None:
    assert plain_request(data) is None


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)), st.integers(0, 4))
def test_what_is_taken_for_plain_has_one_host_one_end_and_nothing_in_it_that_is_hidden(
    hostile: bytes, at: int, over: int
) -> None:
    taken = plain_request(PLAIN[:at] + hostile + PLAIN[at + over :])
    if taken:
        path, query, headers = taken
        assert path.isascii()
        assert b"?" not in path
        assert not any(c <= 32 or c >= 127 for c in path + query)
        assert [name for name, _ in headers].count(b"host") == 1
        for name, value in headers:
            assert name.replace(b"-", b"").isalnum()
            assert not any((c < 32 and c != 9) or c >= 127 for c in value)


async def test_a_connection_that_says_nothing_is_closed_in_time_and_others_are_not(world: World) -> None:
    async with (
        running_relay("handover", world, head_timeout=0.3) as relay,
        connection(relay.port) as first,
        connection(relay.port) as second,
        stream(relay.port, await relay.secret()) as opened,
    ):
        await opened.event("put")
        assert await first.end() == b""
        assert await second.end() == b""
        await world.tick(1)
        await opened.event("patch")


async def test_a_relay_that_stops_does_not_wait_for_connections_that_said_nothing(world: World) -> None:
    async with running_relay("handover", world) as relay, connection(relay.port) as silent:
        assert relay.server
        state = relay.server.server_state
        await until(lambda: len(state.connections) == 1, "it has come in")
        relay.server.should_exit = True
        async with asyncio.timeout(5):
            assert await silent.end() == b""


async def test_a_refused_stream_is_answered_by_the_application_and_counted_once(world: World) -> None:
    async with running_relay("handover", world, max_streams=1) as relay:
        secret = await relay.secret()
        async with stream(relay.port, secret) as opened:
            await opened.event("put")
            answer = await ask(relay.port, "/v1/stream", secret)
            assert (answer.status, answer.json["errorCode"]) == (503, "OVERLOADED")
            assert relay.context.relay.refused == {"relay": 1}
            assert (await ask(relay.port, "/v1/stream", "fr_nobody")).status == 401


async def test_a_client_that_is_ahead_goes_the_way_on_which_one_can_wait(world: World) -> None:
    async with running_relay("handover", world) as relay, connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret(), last_event_id=ahead_of(relay.pipeline)))
        head = await opened.head()
        assert head.headers["flagrelay-resume"] == "full", "Redis says that nobody can be there yet"
