"""What nobody should send: a corpus and a fuzzer against a relay's own server, over real sockets.

Whatever comes, a strict reader sees one answer for each request that was understood, a refusal in JSON or the end of
the connection; never a 5xx, never silence, never an answer to bytes that were something else; and the relay goes on.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.server.handover import HandoverProtocol
from flagrelay.store.access_keys import stream_token
from flagrelay.store.writing import Draft, write_change
from support.bad_http import (
    AT_ONCE,
    BODY_TIMEOUT,
    CHUNKED,
    END,
    EVALUATE,
    FLAGS,
    HEAD_TIMEOUT,
    HOST,
    KEY,
    KILL,
    LIVEZ,
    OPEN,
    SMUGGLED,
    STREAM,
    TABLES,
    WATCH,
    Case,
    Target,
    abused,
    chunks,
    outcome,
    steady,
    talk,
    with_body,
)
from support.fakes import definition
from support.relays import ENVIRONMENT, World
from support.sources import no_tracebacks, until
from support.streams import Stream, ahead_of, ask, connection, stream


@pytest.fixture
async def target(world: World, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Target]:
    async with abused(world, caplog) as target:
        yield target
    logged_well(caplog)


def logged_well(caplog: pytest.LogCaptureFixture) -> None:
    """What a test has logged; in a fixture, `no_tracebacks` sees no more than the time after it."""
    assert not [record for record in caplog.get_records("call") if record.exc_info or record.levelname == "ERROR"]


# -- the corpus -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
async def test_bad_requests_are_answered_once_or_refused(target: Target, table: str) -> None:
    wrong = await target.wrong(TABLES[table])
    assert not wrong, "\n".join(wrong)


async def test_a_length_of_many_digits_is_no_fault_of_ours(target: Target) -> None:
    digits = b"0" * 5000 + b"2"
    for start in (EVALUATE, WATCH, KILL):
        answers = await target.hear(start + b"content-length: " + digits + b"\r\n\r\n{}")
        assert outcome(answers) in ((200,), (STREAM,), (400,))


async def test_trailers_have_a_limit_too(target: Target) -> None:
    for trailers in (b"x: " + b"y" * 100_000 + b"\r\n", b"x: y\r\n" * 20_000):
        [answer] = await target.hear(chunks(EVALUATE, b"{}", trailers=trailers))
        assert answer.status in (400, 413, 431)


async def test_what_is_said_in_a_trailer_is_no_header(target: Target, world: World) -> None:
    page = "https://page.example"
    written = await write_change(world.store, ENVIRONMENT, Draft(settings=EnvironmentSettings(origins=(page,))))
    await target.relay.at(written.revision)
    said = f"origin: {page}\r\nlast-event-id: {await world.event_id()}\r\n".encode()
    [answer] = await target.hear(chunks(WATCH, b"{}", trailers=said))
    assert outcome([answer]) == (STREAM,)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["flagrelay-resume"] == "full"


async def test_what_follows_the_last_request_is_not_answered(target: Target) -> None:
    closing = LIVEZ + b"connection: close\r\n\r\n"
    for last in (closing, closing.replace(b"1.1", b"1.0"), chunks(EVALUATE.replace(b"1.1", b"1.0"))):
        for behind in (SMUGGLED, SMUGGLED[:9], OPEN + END, b"\0"):
            # Refused as a whole, or answered without what the client has said would not come.
            assert outcome(await target.hear(last + behind)) in ((200,), (400,))


async def test_garbage_behind_requests_that_wait_is_refused_once(target: Target) -> None:
    for pieces in (
        [LIVEZ + END + LIVEZ + END + b"\0garbage"],
        [(FLAGS + END) * 5 + b"\0garbage"],
        [FLAGS + END + FLAGS + END, b"\0garbage"],
        [with_body(EVALUATE) + b"\0garbage"],
        [with_body(EVALUATE) * 3 + b"\0garbage"],
        [with_body(WATCH) + b"\0garbage"],
        [EVALUATE + CHUNKED + END + b"2\r\n{}\r\ngarbage"],
        [EVALUATE + CHUNKED + END + b"2\r\n{}\r\n", b"garbage\r\n"],
    ):
        statuses = outcome(await target.hear(*pieces))
        assert statuses[-1] == 400, pieces
        assert all(status == 200 for status in statuses[:-1]), pieces


async def test_what_is_refused_together_with_garbage_changes_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = []

    async def noted(*_: object, **__: object) -> bool:
        changed.append("a kill")
        return True

    for name in ("hold", "withdraw"):
        monkeypatch.setattr(target.relay.pipeline, name, noted)
    order = with_body(KILL, b'{"actor": "ada", "reason": "a test"}')
    withdrawal = KILL.replace(b"PUT", b"DELETE") + END
    for data in (order, withdrawal):
        assert outcome(await target.hear(data + b"\0garbage")) == (400,)
        assert not changed, data
    for data in (order, withdrawal):
        assert outcome(await target.hear(data)) == (200,)
    assert len(changed) == 2


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_error(target: Target) -> None:
    for start in (EVALUATE, WATCH, KILL):
        for data in (start + END[:1], start + b"content-length: 9\r\n\r\n{}", start + CHUNKED + END + b"2\r\n{}\r\n"):
            for leave in ("end", "reset"):
                async with connection(target.port) as opened:
                    opened.send(target.of(data))
                    await opened.writer.drain()
                    await until(lambda: target.relay.connections == 1, "the relay has taken the connection")
                    await asyncio.sleep(0.005)
                    if leave == "end":
                        opened.writer.write_eof()
                        assert await opened.end() == b""
                    else:
                        opened.reset()
                await until(lambda: not target.relay.connections, "it is gone")


async def test_a_request_that_was_answered_is_not_answered_again_for_its_body(target: Target) -> None:
    stranger = EVALUATE.replace(KEY, b"")
    cases = [
        (stranger + CHUNKED + END, b"garbage\r\n"),
        (stranger + CHUNKED + END, b"5\r\n{"),
        (stranger + b"content-length: 9\r\n\r\n", b"{"),
        (stranger + b"content-length: 9\r\n\r\n", b""),
    ]
    heard = await asyncio.gather(*(target.hear(*case, answered_first=True) for case in cases))
    assert [outcome(answers) for answers in heard] == [(401,)] * len(cases)


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
"""What some clients offer with every request to a plain port."""


@pytest.fixture
async def patient(world: World, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Target]:
    """A relay that takes its time between two requests, so that the second can come by itself."""
    async with abused(world, caplog, keep_alive=0.4, head_timeout=1.2) as target:
        yield target
    logged_well(caplog)


async def test_a_request_behind_an_offer_to_upgrade_is_not_lost(patient: Target) -> None:
    firsts = (LIVEZ + UPGRADE + END, with_body(EVALUATE + UPGRADE), chunks(EVALUATE + UPGRADE, b"{}"))
    second = LIVEZ + END
    cases = [(first + second[:size], second[size:]) for first in firsts for size in (0, 1, 20, len(second))]
    heard = await asyncio.gather(*(patient.hear(*case, gap=0.05) for case in cases))
    assert [outcome(answers) for answers in heard] == [(200, 200)] * len(cases)


async def test_bytes_behind_an_offer_to_upgrade_keep_their_place(patient: Target) -> None:
    kill = b"POST /v1/kills/x HTTP/1.1\r\nx: "
    [first, second] = await patient.hear(LIVEZ + UPGRADE + END + kill, LIVEZ + END, gap=0.05)
    assert (first.status, second.status) == (200, 405), "the rest of a header was taken for a request"


async def test_a_body_with_an_offer_to_upgrade_stays_a_body(patient: Target) -> None:
    cases = []
    for whole in (with_body(EVALUATE + UPGRADE, SMUGGLED), chunks(EVALUATE + UPGRADE, SMUGGLED)):
        head = whole.index(b"\r\n\r\n") + 4
        cases += [(whole[:at], whole[at:]) for at in (0, head, head + 9)]
    heard = await asyncio.gather(*(patient.hear(*case, gap=0.05) for case in cases))
    for case, answers in zip(cases, heard, strict=True):
        assert outcome(answers) == (400,), case
        assert answers[0].json["errorCode"] == "PARSE_ERROR", case


# -- a hand-over leaves nothing half-parsed behind ------------------------------------------------------------


STREAMS = {
    "GET": OPEN + END,
    "GET, HTTP/1.0": OPEN.replace(b"1.1", b"1.0") + END,
    "GET, then close": OPEN + b"connection: close\r\n\r\n",
    "GET, upgrade": OPEN + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "GET, upgrade to h2c": OPEN + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n",
    "GET, expect": OPEN + b"expect: 100-continue\r\n\r\n",
    "POST": with_body(WATCH),
    "POST, chunks": chunks(WATCH, b"{", b"}"),
    "POST, upgrade": with_body(WATCH + UPGRADE),
    "POST, chunks, upgrade": chunks(WATCH + UPGRADE, b"{", b"}"),
    "events": OPEN.replace(b"/v1/stream", b"/ofrep/v1/events") + END,
    "contexts": OPEN.replace(b"/v1/stream", b"/v1/evaluations/stream") + END,
}
"""Every way to ask for a stream."""

BEHIND = {
    "one byte": b"G",
    "a line": b"GET /smuggled HTTP/1.1\r\n",
    "half a head": SMUGGLED[:-2],
    "a request": SMUGGLED,
    "two requests": SMUGGLED * 2,
    "a stream's request": OPEN + END,
    "an empty line and a byte": b"\r\nG",
    "garbage": b"\0",
    "a request with half a body": b"POST /smuggled HTTP/1.1\r\nhost: relay\r\ncontent-length: 9\r\n\r\n{}",
}


async def test_a_stream_with_anything_behind_its_request_is_refused(target: Target) -> None:
    cases = [
        Case(f"{way}, {what}", STREAMS[way] + BEHIND[what], (400,)) for way, what in itertools.product(STREAMS, BEHIND)
    ]
    wrong = await target.wrong(cases)
    assert not wrong, "\n".join(wrong)


async def test_bytes_that_come_later_end_a_stream_and_are_never_answered(target: Target) -> None:
    later = ((SMUGGLED,), (b"G", SMUGGLED[1:]), (b"\r\n",), (b"\0",))
    cases = list(itertools.product(STREAMS, later))
    heard = await asyncio.gather(*(target.hear(STREAMS[way], into_a_stream=said) for way, said in cases))
    for case, answers in zip(cases, heard, strict=True):
        assert outcome(answers) == (STREAM,), case
    assert target.relay.pipeline.stats.closed["garbage"] == len(cases)


def _began(protocol: Any) -> bool:
    """Whether a request has begun behind the one that is being answered."""
    return protocol.cycle is not None and protocol.scope is not protocol.cycle.scope


async def test_half_a_request_that_comes_while_a_stream_waits_opens_none(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def settle(_last_event_id: str) -> bool:
        waiting.set()
        await go_on.wait()
        return False

    opened = target.relay.pipeline.stats.opened
    ahead = OPEN + b"last-event-id: %b\r\n" % ahead_of(target.relay.pipeline).encode()
    assert target.relay.server
    state = target.relay.server.server_state
    for half in (b"G", SMUGGLED[:20], SMUGGLED[:-2]):
        waiting.clear()
        go_on.clear()
        with monkeypatch.context() as patch:
            patch.setattr(target.relay.pipeline, "settle", settle)
            async with connection(target.port) as asking:
                asking.send(target.of(ahead + END))
                await waiting.wait()
                asking.send(half)
                await until(lambda: any(_began(each) for each in state.connections), "it is there")
                go_on.set()
                answer = await asking.answer()
                assert outcome([answer]) == (400,)
                assert await asking.end() == b""
    assert target.relay.pipeline.stats.opened == opened


async def test_a_hand_over_frees_the_protocol_whatever_came_before_it(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[HandoverProtocol]] = []
    connection_made = HandoverProtocol.connection_made

    def noted(self: HandoverProtocol, transport: asyncio.Transport) -> None:
        connection_made(self, transport)
        kept.append(weakref.ref(self))

    # Nothing of a request may be left to its timers, which are far away here.
    async with abused(world, caplog, head_timeout=600, body_timeout=600) as target:
        monkeypatch.setattr(HandoverProtocol, "connection_made", noted)
        gc.collect()
        gc.disable()
        try:
            for way, data in STREAMS.items():
                for pieces in ([data], [b"\r\n" + data], [data[:9], data[9:]], [LIVEZ + END + data], [data + b"\r\n"]):
                    async with connection(target.port) as opened:
                        for piece in pieces:
                            opened.send(target.of(piece))
                            await opened.writer.drain()
                            await asyncio.sleep(0.002)
                        head = await opened.head()
                        while "content-length" in head.headers or head.status == 100:
                            await opened.reader.readexactly(0)
                            opened._held = opened._held[int(head.headers.get("content-length", 0)) :]
                            head = await opened.head()
                        taken = Stream(opened, head)
                        await taken.event("put", "message")
                        await until(lambda: not any(ref() for ref in kept), f"{way} is freed: {pieces}", within=2)
        finally:
            gc.enable()


async def test_no_timer_of_a_request_outlives_its_hand_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def outlasts(target: Target, behind: bytes) -> None:
        async with connection(target.port) as opened:
            opened.send(target.of(OPEN + END + behind))
            head = await opened.head()
            if head.status == 200:
                taken = Stream(opened, head)
                ends = time.perf_counter() + HEAD_TIMEOUT + 0.2
                while time.perf_counter() < ends:
                    await taken.event("put", "heartbeat")

    async with abused(world, caplog, heartbeat_interval=0.1) as target:
        # Whether these are granted or refused is not for this test to say; what is left behind is.
        await asyncio.gather(*(outlasts(target, behind) for behind in (b"", b"\r\n", b"G", SMUGGLED[:20])))


# -- what is echoed -------------------------------------------------------------------------------------------


HOSTILE = (
    b"x\r\nx-injected: 1",
    b"x\nx-injected: 1",
    b"x\rx-injected: 1",
    b"x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"x\r\n x-injected: 1",
    b"x\0x-injected: 1",
    b"x\x0bx-injected: 1",
    b"x\x85x-injected: 1",
    b'x"x',
    b"x'\\x",
    b'x","injected":"1',
    b"</script>",
    b"\xe9\xff\x80",
    "\u2028\u2029\U0001f600".encode(),
    b"\xed\xa0\x80",
    b"%0d%0ax-injected:%201",
    b"%00%22%5c%ff",
    b"${x}{0}%s%n",
    b"data: x\ndata: y",
)
"""Values that would be something else in a head, in JSON, or in an event."""


def quoted(value: bytes) -> bytes:
    """As URLs carry it."""
    return b"".join(b"%%%02X" % byte for byte in value)


async def echoed(target: Target, requests: Sequence[bytes]) -> list[Any]:
    """The answers to requests, one each, in portions; `talk` lets no line pass that is not the relay's own."""
    found = []
    for start in range(0, len(requests), AT_ONCE):
        for request, answers in zip(
            requests[start : start + AT_ONCE],
            await asyncio.gather(*(target.hear(request) for request in requests[start : start + AT_ONCE])),
            strict=True,
        ):
            outcome(answers)
            # A value that ends the head early makes two requests of one, as whoever sent it must know.
            assert len(answers) == 1 or b"\r\n\r\nHTTP" in request, request
            found.append(answers[0])
    return found


async def test_a_path_is_echoed_as_a_string(target: Target) -> None:
    paths = [b"GET /" + value + b" HTTP/1.1\r\n" + HOST + END for value in HOSTILE]
    paths += [b"GET /" + quoted(value) + b" HTTP/1.1\r\n" + HOST + END for value in HOSTILE]
    paths += [OPEN.replace(b"stream", b"stream?x=" + quoted(value)) + b"content-length: 1\r\n\r\n" for value in HOSTILE]
    assert {answer.status for answer in await echoed(target, paths)} == {400, 404}


async def test_the_key_of_a_flag_is_echoed_as_a_string(target: Target) -> None:
    def one(value: bytes) -> bytes:
        return with_body(EVALUATE.replace(b"flags ", b"flags/" + quoted(value) + b" "))

    for value, answer in zip(HOSTILE, await echoed(target, [one(value) for value in HOSTILE]), strict=True):
        assert answer.status == 404
        said = answer.json
        # Routes know no line breaks: such a path is not there at all.
        if "key" in said:
            assert said["key"] == value.decode(errors="replace")


async def test_flags_with_hostile_keys_and_values_are_told_apart(target: Target, world: World) -> None:
    keys = ['"quoted"', "back\\slash", "a,b:{}[]", "\u2028\u2029", "\U0001f600", "</script>", "x" * 256]
    text: dict[str, Any] = {
        "variants": {"a": 'x"\r\n\r\n\0\u2028data: y', "b": "b"},
        "defaultVariant": "a",
        "state": "ENABLED",
    }
    written = await world.put(dict.fromkeys(keys, text))
    await target.relay.at(written.revision)
    [bulk] = await echoed(target, [with_body(EVALUATE)])
    values = {each["key"]: each["value"] for each in bulk.json["flags"] if each["key"] in keys}
    assert values == dict.fromkeys(keys, text["variants"]["a"])
    for data in (OPEN + END, with_body(WATCH)):
        [streamed] = await echoed(target, [data])
        assert all(json.dumps(key, ensure_ascii=False).encode() in streamed.body for key in keys)


async def test_a_host_becomes_a_url_or_nothing(target: Target) -> None:
    start = EVALUATE.replace(HOST, b"")
    for value, answer in zip(
        HOSTILE,
        await echoed(target, [with_body(start + b"host: " + value + b"\r\n") for value in HOSTILE]),
        strict=True,
    ):
        if answer.status == 200:
            [announced] = answer.json["eventStreams"]
            events = f"/ofrep/v1/events?token={stream_token(target.key)}"
            if "url" in announced:
                # What was a line of its own in the request was no part of the host.
                assert announced["url"] == f"http://{value.decode().splitlines()[0]}{events}"
                assert value.startswith(b"x\r\n")
            else:
                assert announced["endpoint"]["requestUri"] == events


async def test_an_origin_is_echoed_as_it_came_or_not_at_all(target: Target, world: World) -> None:
    open_to_all = Draft(settings=EnvironmentSettings(origins=("*",)))
    await target.relay.at((await write_change(world.store, ENVIRONMENT, open_to_all)).revision)
    preflight = b"OPTIONS /ofrep/v1/evaluate/flags HTTP/1.1\r\n" + HOST + b"access-control-request-method: POST\r\n"
    for start, end in (
        (EVALUATE, b"content-length: 2\r\n\r\n{}"),
        (WATCH, b"content-length: 2\r\n\r\n{}"),
        (preflight, END),
    ):
        values = [value for value in HOSTILE if not any(byte > 126 for byte in value)]
        requests = [start + b"origin: " + value + b"\r\n" + end for value in values]
        for value, answer in zip(values, await echoed(target, requests), strict=True):
            if answer.status in (200, 204):
                allowed = answer.headers["access-control-allow-origin"]
                # What was a line of its own in the request was no part of the origin.
                assert allowed == "*" or allowed.encode("latin-1") == value.splitlines()[0]


async def test_an_origin_opens_no_definitions(target: Target, world: World) -> None:
    open_to_all = Draft(settings=EnvironmentSettings(origins=("*",)))
    await target.relay.at((await write_change(world.store, ENVIRONMENT, open_to_all)).revision)
    for start in (OPEN, FLAGS):
        [answer] = await target.hear(start + b"origin: https://page.example\r\n\r\n")
        assert "access-control-allow-origin" not in answer.headers


async def test_what_a_client_resumes_with_is_never_echoed(target: Target) -> None:
    for name in (b"last-event-id", b"flagrelay-resume", b"if-none-match", b"x-request-id"):
        requests = [OPEN + name + b": " + value + b"\r\n\r\n" for value in HOSTILE]
        for answer in await echoed(target, requests):
            assert b"injected" not in answer.body
            if answer.status == 200:
                assert answer.headers["flagrelay-resume"] == "full"
    etags = [b"POST /ofrep/v1/evaluate/flags?flagConfigEtag=" + quoted(value) + b" HTTP/1.1\r\n" for value in HOSTILE]
    for answer in await echoed(target, [with_body(start + HOST + KEY) for start in etags]):
        assert answer.status == 200
        assert b"injected" not in answer.body


async def test_keys_tokens_and_contexts_are_never_echoed(target: Target) -> None:
    requests = [FLAGS.replace(b"@KEY@", value) + END for value in HOSTILE]
    requests += [b"GET /v1/flags HTTP/1.1\r\n" + HOST + b"x-api-key: " + value + b"\r\n\r\n" for value in HOSTILE]
    for path in (b"/ofrep/v1/events?token=", b"/v1/evaluations/stream?token="):
        requests += [b"GET " + path + quoted(value) + b" HTTP/1.1\r\n" + HOST + END for value in HOSTILE]
    requests += [OPEN.replace(b"stream", b"evaluations/stream?context=" + quoted(value)) + END for value in HOSTILE]
    requests += [with_body(start, value) for start in (EVALUATE, WATCH, KILL) for value in HOSTILE]
    for answer in await echoed(target, requests):
        assert answer.status in (400, 401)
        assert b"injected" not in answer.body


async def test_who_killed_and_why_stays_text(target: Target) -> None:
    start = KILL + b"connection: close\r\n"
    for value in HOSTILE:
        text = value.decode("latin-1")
        order = json.dumps({"actor": text, "reason": text}).encode()
        [answer] = await target.hear(with_body(start, order))
        assert outcome([answer]) == (200,)
        [kill] = answer.json["kills"]
        assert (kill["actor"], kill["reason"]) == (text, text)
        [answer] = await target.hear(with_body(start, json.dumps({"actor": "a", "reason": "r", "to": text}).encode()))
        assert outcome([answer]) == (404,)


# -- those who take their time ----------------------------------------------------------------------------------


async def trickle(target: Target, first: bytes, data: bytes) -> tuple[list[int], float]:
    """Send one byte after another for as long as the connection is there: what was answered, and after how long."""
    began = time.perf_counter()
    data = target.of(data)
    answers = await talk(target.port, [target.of(first), *(data[at : at + 1] for at in range(len(data)))], gap=0.02)
    outcome(answers)
    for answer in answers[-1:]:
        if answer.status == 408:
            assert answer.json["errorCode"] == "REQUEST_TIMEOUT"
            assert answer.headers["connection"] == "close"
    return [answer.status for answer in answers], time.perf_counter() - began


async def test_a_head_that_trickles_in_is_ended_at_its_time(target: Target) -> None:
    padding = b"x: " + b"y" * 500
    heads = [LIVEZ + padding, OPEN + padding, b"\r\n" * 300, b"GET /" + b"x" * 500, EVALUATE + padding]
    for statuses, took in await asyncio.gather(*(trickle(target, b"", head) for head in heads)):
        assert statuses == [408]
        assert HEAD_TIMEOUT * 0.9 < took < HEAD_TIMEOUT + 3


async def test_a_head_that_trickles_in_behind_an_answer_is_ended_too(target: Target) -> None:
    for statuses, took in await asyncio.gather(
        trickle(target, LIVEZ + END, LIVEZ + b"x" * 500),
        trickle(target, with_body(EVALUATE), OPEN + b"x" * 500),
        trickle(target, LIVEZ + END + LIVEZ[:8], b"x" * 500),
    ):
        assert statuses == [200, 408]
        assert HEAD_TIMEOUT * 0.9 < took < HEAD_TIMEOUT + 3


async def test_a_connection_that_says_nothing_is_closed(target: Target) -> None:
    began = time.perf_counter()
    assert await target.hear(b"") == []
    assert HEAD_TIMEOUT * 0.9 < time.perf_counter() - began < HEAD_TIMEOUT + 3


async def test_a_body_that_trickles_in_is_refused_at_its_time(target: Target) -> None:
    cases = [
        (start + announced, body)
        for start in (EVALUATE, WATCH, KILL)
        for announced, body in (
            (b"content-length: 500\r\n\r\n", b" " * 500),
            (CHUNKED + END, b"1\r\n \r\n" * 100),
            (CHUNKED + END, b"1;" + b"x" * 500),
            (chunks(b"", b"{}", trailers=b"x: ")[:-2], b"y" * 500),
        )
    ]
    for case, (statuses, took) in zip(
        cases, await asyncio.gather(*(trickle(target, *case) for case in cases)), strict=True
    ):
        assert statuses == [408], case
        assert BODY_TIMEOUT * 0.9 < took < BODY_TIMEOUT + 1, case


async def test_streams_that_are_open_have_all_the_time(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with abused(world, caplog, heartbeat_interval=0.1) as target:
        streams = []
        async with contextlib.AsyncExitStack() as stack:
            for data in STREAMS.values():
                opened = await stack.enter_async_context(connection(target.port))
                for piece in (data[:30], data[30:]):
                    opened.send(target.of(piece))
                    await opened.writer.drain()
                    await asyncio.sleep(0.01)
                head = await opened.head()
                streams.append(Stream(opened, await opened.head() if head.status == 100 else head))
            ends = time.perf_counter() + 2 * max(HEAD_TIMEOUT, BODY_TIMEOUT)
            while time.perf_counter() < ends:
                await streams[0].until("heartbeat")
            await world.tick(7)
            await world.put({"flag": definition(8)})
            for each in streams:
                # A first event, and then one more: whatever it was asked to show, `flag` is in it.
                while (await each.event()).type not in ("patch", "message"):
                    pass
            assert target.relay.context.relay.streams == len(streams) + 1


async def test_a_request_that_waits_for_its_answer_is_not_late(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    async def settle(_last_event_id: str) -> bool:
        await asyncio.sleep(HEAD_TIMEOUT + 0.3)
        return False

    monkeypatch.setattr(target.relay.pipeline, "settle", settle)
    ahead = b"last-event-id: %b\r\n" % ahead_of(target.relay.pipeline).encode()
    opens, watches = OPEN + ahead, WATCH + ahead
    asked = [opens + END, with_body(watches), with_body(EVALUATE), chunks(EVALUATE, b"{}"), b"\r\n" + opens + END]
    answers = await asyncio.gather(*(target.hear(data) for data in asked))
    assert [outcome(each) for each in answers] == [(STREAM,), (STREAM,), (200,), (200,), (STREAM,)]


async def test_many_who_take_their_time_keep_nobody_else_waiting(target: Target) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(120):
            opened = await stack.enter_async_context(connection(target.port))
            opened.send(target.of((LIVEZ, OPEN, with_body(EVALUATE)[:-1])[number % 3]))
        began = time.perf_counter()
        assert (await ask(target.port, "/livez")).status == 200
        async with stream(target.port, target.secret) as other:
            await other.event("put")
        assert time.perf_counter() - began < HEAD_TIMEOUT
        await until(lambda: not target.relay.connections, "all of them are gone", within=HEAD_TIMEOUT + 3)


# -- the fuzzer -----------------------------------------------------------------------------------------------


GOOD = (
    LIVEZ + END,
    FLAGS + END,
    LIVEZ + END + FLAGS + END,
    OPEN + END,
    OPEN + b"last-event-id: epoch.3\r\naccept: text/event-stream\r\n\r\n",
    with_body(EVALUATE, b'{"context": {"targetingKey": "ada"}}'),
    chunks(EVALUATE, b'{"context": ', b"{}}", trailers=b"x: y\r\n"),
    with_body(WATCH, b'{"context": {"targetingKey": "ada"}}'),
    chunks(WATCH, b'{"context": ', b"{}}"),
    with_body(EVALUATE + b"expect: 100-continue\r\n"),
    with_body(EVALUATE.replace(KEY, b"")),
    b"GET /nowhere%20at%20all?x=y HTTP/1.0\r\n" + END,
    with_body(EVALUATE) + LIVEZ + END + OPEN + END,
)
"""Requests that are answered: what is to be mutated, and split."""

ODD = (b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"%", b"/", b"?", b"0", b"-1", b"\xff")
WORDS = (
    CHUNKED,
    HOST,
    KEY,
    b"content-length: 9\r\n",
    b"connection: close\r\n",
    b"upgrade: h2c\r\n",
    b"HTTP/1.1",
    SMUGGLED,
)

POSITIONS = st.floats(0, 1, exclude_max=True)
PIECES = st.sampled_from(ODD) | st.sampled_from(WORDS) | st.binary(min_size=1, max_size=4)
MUTATIONS = st.one_of(
    st.tuples(st.just("insert"), POSITIONS, PIECES),
    st.tuples(st.just("replace"), POSITIONS, PIECES),
    st.tuples(st.just("delete"), POSITIONS, st.integers(1, 40)),
    st.tuples(st.just("repeat"), POSITIONS, st.integers(1, 60)),
    st.tuples(st.just("flip"), POSITIONS, st.integers(0, 7)),
)
CUTS = st.lists(POSITIONS, max_size=4)
FUZZ = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutated(data: bytes, kind: str, where: float, what: Any) -> bytes:
    """Bytes, and one thing done to them."""
    at = int(where * len(data))
    match kind:
        case "insert":
            return b"%b%b%b" % (data[:at], what, data[at:])
        case "replace":
            return b"%b%b%b" % (data[:at], what, data[at + len(what) :])
        case "delete":
            return data[:at] + data[at + what :]
        case "repeat":
            return data[: at + what] + data[at:]
        case _:
            return data[:at] + bytes([data[at] ^ 1 << what]) + data[at + 1 :] if data else data


def cut(data: bytes, cuts: Sequence[float]) -> list[bytes]:
    """Bytes, in pieces."""
    bounds = sorted({0, len(data), *(int(where * len(data)) for where in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


async def heard_out(target: Target, caplog: pytest.LogCaptureFixture, conversations: Sequence[Sequence[bytes]]) -> None:
    """Whatever it was, it is answered as it should, and no more often than there can have been requests."""
    caplog.clear()
    with no_tracebacks(caplog):
        heard = await asyncio.gather(*(target.hear(*pieces, gap=0.002) for pieces in conversations))
    for pieces, answers in zip(conversations, heard, strict=True):
        # What is smuggled here is a request like any other, wherever a mutation has put it at the end of one.
        statuses = outcome([answer for answer in answers if answer.status != 404])
        understood = sum(status not in (400, 408, 431) for status in statuses)
        assert understood <= b"".join(pieces).count(b"\n\r\n"), (pieces, statuses)


@FUZZ
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(GOOD), st.lists(MUTATIONS, min_size=1, max_size=4), CUTS), min_size=1, max_size=24
    )
)
async def test_requests_that_were_tampered_with_are_answered_or_refused(
    target: Target, caplog: pytest.LogCaptureFixture, asked: list[Any]
) -> None:
    conversations = []
    for template, mutations, cuts in asked:
        data = target.of(template)
        for mutation in mutations:
            data = mutated(data, *mutation)
        conversations.append(cut(data, cuts))
    await heard_out(target, caplog, conversations)


@FUZZ
@given(asked=st.lists(st.tuples(st.binary(min_size=1, max_size=200), CUTS), min_size=1, max_size=24))
async def test_any_bytes_at_all_are_refused(target: Target, caplog: pytest.LogCaptureFixture, asked: list[Any]) -> None:
    await heard_out(target, caplog, [cut(data, cuts) for data, cuts in asked])


@FUZZ
@given(asked=st.lists(st.tuples(st.sampled_from(GOOD), CUTS), min_size=1, max_size=24))
async def test_pieces_that_a_request_comes_in_change_nothing_of_its_answer(target: Target, asked: list[Any]) -> None:
    async def same(data: bytes, cuts: Sequence[float]) -> None:
        whole, split = await asyncio.gather(target.hear(data), target.hear(*cut(data, cuts), gap=0.002))
        assert [steady(answer) for answer in split] == [steady(answer) for answer in whole]

    await asyncio.gather(*(same(target.of(data), cuts) for data, cuts in asked))


async def test_no_place_in_a_request_is_special_to_be_split_at(target: Target) -> None:
    for template in (OPEN + END, chunks(WATCH, b"{", b"}"), with_body(EVALUATE + b"connection: close\r\n")):
        data = target.of(template)
        whole = [steady(answer) for answer in await target.hear(data)]
        found: list[Any] = []
        for start in range(1, len(data), AT_ONCE):
            places = range(start, min(start + AT_ONCE, len(data)))
            found += await asyncio.gather(*(target.hear(data[:at], data[at:], gap=0.002) for at in places))
        assert all([steady(answer) for answer in answers] == whole for answers in found)
