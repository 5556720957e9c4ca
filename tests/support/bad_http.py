"""What nobody should send to an HTTP server, and a reader who believes nothing that it answers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from flagrelay.store.access_keys import AccessKey
from flagrelay.wire.sse import EventParser
from support.relays import RunningRelay, World, running_relay
from support.sources import no_tracebacks, until
from support.streams import Answer, ChunkDecoder, Connection, ProtocolError, ask, connection, parse_head, stream

DEADLINE = 8.0
"""Seconds after which a connection that should have ended hangs."""

AT_ONCE = 40
"""Connections that are open at the same time."""

HEAD_TIMEOUT = BODY_TIMEOUT = 1.0
KEEP_ALIVE = 0.1
"""Seconds, so short that every connection ends by itself, and soon."""


# -- somebody who sends anything ------------------------------------------------------------------------------


async def talk(
    port: int,
    pieces: Sequence[bytes],
    *,
    into_a_stream: Sequence[bytes] = (b"\0",),
    gap: float = 0.0,
    answered_first: bool = False,
) -> list[Answer]:
    """Send pieces, each by itself, and read what comes until the relay ends the connection, which it must.

    A stream does not end by itself: once it is open, something is said into it, which no client may do.

    Args:
        port: of the relay.
        pieces: what is sent, whatever is answered meanwhile.
        into_a_stream: what is said into a stream, piece by piece.
        gap: seconds between two pieces.
        answered_first: what follows the first piece is sent once that is answered.

    Raises:
        ProtocolError: what came is not a sequence of responses.
        TimeoutError: the connection hangs.
    """
    data, answered, streaming = b"", asyncio.Event(), asyncio.Event()
    if not answered_first:
        answered.set()
    async with asyncio.timeout(DEADLINE), connection(port) as opened:
        sending = asyncio.create_task(_send(opened, pieces, into_a_stream, answered, streaming, gap))
        try:
            with contextlib.suppress(ConnectionError):
                while more := await opened.more():
                    data += more
                    answered.set()
                    if b"text/event-stream" in data and b"\ndata: {" in data:
                        streaming.set()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return read_answers(data)


async def _send(
    opened: Connection,
    pieces: Sequence[bytes],
    more: Sequence[bytes],
    answered: asyncio.Event,
    streaming: asyncio.Event,
    gap: float,
) -> None:
    for said, heard in ((pieces[:1], answered), (pieces[1:], streaming), (more, streaming)):
        for piece in said:
            opened.send(piece)
            await opened.writer.drain()
            await asyncio.sleep(gap)
        await heard.wait()


def read_answers(data: bytes) -> list[Answer]:
    """All responses on a connection, strictly; one that only says to go on is left out.

    Raises:
        ProtocolError: they are none, or have headers that the relay does not have.
    """
    answers: list[Answer] = []
    while data:
        if answers and answers[-1].headers.get("connection") == "close":
            raise ProtocolError(f"something behind the last response: {data[:200]!r}")
        text, end, data = data.partition(b"\r\n\r\n")
        head = parse_head(text)
        if not end or head.headers.keys() - HEADERS:
            raise ProtocolError(f"no head of the relay's: {text!r}")
        if head.status == 100:
            continue
        length = head.headers.get("content-length")
        if head.status in (204, 304):
            body = b""
        elif length is not None:
            body, data = data[: int(length)], data[int(length) :]
            if len(body) < int(length):
                raise ProtocolError(f"{len(body)} bytes came: {text!r}")
        else:
            body, data = _stream_content(text, data), b""
        answers.append(Answer(head, body))
    return answers


def _stream_content(head: bytes, data: bytes) -> bytes:
    """The content of a stream that was cut off."""
    if b"text/event-stream" not in head:
        raise ProtocolError(f"neither a length nor a stream: {head!r}")
    content = ChunkDecoder().feed(data) if b"transfer-encoding: chunked" in head else data
    if b"HTTP/1." in content:
        raise ProtocolError(f"a response in a stream: {content!r}")
    for event in EventParser().feed(content):
        if event.type not in ("put", "patch", "heartbeat", "message"):
            raise ProtocolError(f"an event of no kind: {event}")
        json.loads(event.data)
    return content


HEADERS = frozenset(
    {
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "allow",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "etag",
        "flagrelay-resume",
        "retry-after",
        "transfer-encoding",
        "vary",
        "www-authenticate",
        "x-accel-buffering",
    }
)
"""Every header that a relay ever answers with."""

MARK = b"smuggled"
"""What is in the path of a request that nobody meant to send; an answer to it would say so."""

STREAM = 0
"""In the place of a status: a stream, granted."""


def outcome(answers: Iterable[Answer]) -> tuple[int, ...]:
    """The statuses of answers, all of which must be fit for whoever sent whatever was sent.

    Raises:
        AssertionError: one of them is not.
    """
    statuses = []
    for answer in answers:
        assert answer.status < 500, answer.body
        assert MARK not in answer.body, f"an answer to what nobody asked: {answer.body!r}"
        if answer.status >= 400:
            assert answer.headers["content-type"] == "application/json", answer
            said: dict[str, Any] = answer.json
            assert said.keys() - {"key", "metadata"} == {"errorCode", "errorDetails"}, said
            assert all(isinstance(said[name], str) and said[name] for name in ("errorCode", "errorDetails")), said
        opened = answer.status == 200 and answer.headers["content-type"] == "text/event-stream"
        statuses.append(STREAM if opened else answer.status)
    return tuple(statuses)


def steady(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What is the same in every answer to the same request."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    if headers.get("content-type") != "text/event-stream":
        return answer.status, headers, answer.body
    # When to come back differs from stream to stream, and so does how many heartbeats come before its end.
    return answer.status, headers, answer.body.split(b"\n\n")[1]


# -- a relay that hears it ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A relay on which everything ends soon, and keys for it."""

    relay: RunningRelay
    key: AccessKey
    secret: str
    admin: str

    @property
    def port(self) -> int:
        return self.relay.port

    def of(self, data: bytes) -> bytes:
        """A request with secrets where it has a place for them."""
        return data.replace(b"@KEY@", self.secret.encode()).replace(b"@ADMIN@", self.admin.encode())

    async def hear(self, *pieces: bytes, **how: Any) -> list[Answer]:
        """What comes of pieces, each sent by itself; `how` is as in `talk`."""
        return await talk(self.port, [self.of(piece) for piece in pieces], **how)

    async def wrong(self, cases: Sequence["Case"]) -> list[str]:
        """What is wrong with what comes of each of a table's cases, all of them in portions at the same time."""

        async def judge(case: Case) -> str:
            try:
                came = outcome(await self.hear(case.data))
            except (AssertionError, OSError, ValueError, KeyError) as error:
                return f"{case.name}: {type(error).__name__} {error}"
            return "" if came == case.wanted else f"{case.name}: {case.wanted} should have come, {came} did"

        stats = self.relay.pipeline.stats
        opened, verdicts = stats.opened, []
        for start in range(0, len(cases), AT_ONCE):
            verdicts += await asyncio.gather(*(judge(case) for case in cases[start : start + AT_ONCE]))
        streams = sum(case.wanted.count(STREAM) for case in cases)
        if stats.opened - opened != streams:
            verdicts.append(f"{stats.opened - opened} streams were opened; {streams} were asked for")
        return [verdict for verdict in verdicts if verdict]


@contextlib.asynccontextmanager
async def abused(
    world: World, caplog: pytest.LogCaptureFixture, *, keep_alive: float = KEEP_ALIVE, **settings: Any
) -> AsyncIterator[Target]:
    """A relay to be abused; in the end it must serve as before, others must have noticed nothing, nor the log."""
    times = {"head_timeout": HEAD_TIMEOUT, "body_timeout": BODY_TIMEOUT, **settings}
    with no_tracebacks(caplog):
        async with running_relay("handover", world, **times) as relay:
            assert relay.server
            vars(relay.server.config)["timeout_keep_alive"] = keep_alive
            (key, secret), admin = await relay.key(), await relay.secret("admin")
            async with stream(relay.port, secret) as bystander:
                await bystander.event("put")
                yield Target(relay, key, secret, admin)
                await relay.streams(1)
                await until(lambda: not relay.connections, "uvicorn holds no connection")
                assert (await ask(relay.port, "/livez")).json == {"status": "alive"}
                assert (await ask(relay.port, "/v1/flags", secret)).status == 200
                await world.tick(1)
                await bystander.until("patch")
            # Or its end would wait for their end, and look ten times a second.
            await relay.streams(0)
            await until(lambda: not relay.connections, "nobody is left")


# -- what is sent ---------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What is sent in one piece, and the statuses of the answers before the connection ends."""

    name: str
    data: bytes
    wanted: tuple[int, ...]


END = b"\r\n"
HOST = b"host: relay\r\n"
KEY = b"authorization: Bearer @KEY@\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: relay\r\n\r\n"

LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST
FLAGS = b"GET /v1/flags HTTP/1.1\r\n" + HOST + KEY
EVALUATE = b"POST /ofrep/v1/evaluate/flags HTTP/1.1\r\n" + HOST + KEY
OPEN = b"GET /v1/stream HTTP/1.1\r\n" + HOST + KEY
WATCH = b"POST /v1/evaluations/stream HTTP/1.1\r\n" + HOST + KEY
KILL = b"PUT /v1/kills/old HTTP/1.1\r\n" + HOST + b"authorization: Bearer @ADMIN@\r\n"


def with_body(start: bytes, body: bytes = b"{}") -> bytes:
    """A request with a body of a length."""
    return b"%bcontent-length: %d\r\n\r\n%b" % (start, len(body), body)


def chunks(start: bytes, *content: bytes, trailers: bytes = b"") -> bytes:
    """A request with a body in chunks."""
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in content)
    return b"%b%b\r\n%b0\r\n%b\r\n" % (start, CHUNKED, pieces, trailers)


def _two_lengths() -> Iterable[Case]:
    """Whoever is in front of the relay may see the end of such a request elsewhere than it does."""
    tail = b"\r\n0\r\n\r\n" + SMUGGLED
    for name, headers in {
        "a length, and chunks": b"content-length: 4\r\n" + CHUNKED,
        "chunks, and a length": CHUNKED + b"content-length: 4\r\n",
        "chunks, and no length": CHUNKED + b"content-length: 0\r\n",
        "two equal lengths": b"content-length: 5\r\ncontent-length: 5\r\n",
        "two lengths": b"content-length: 5\r\ncontent-length: 0\r\n",
        "chunks twice": CHUNKED + CHUNKED,
        "chunks, then none": CHUNKED + b"transfer-encoding: identity\r\n",
        "a folded coding": b"transfer-encoding:\r\n chunked\r\n",
        "a coding, folded": b"transfer-encoding: x\r\n chunked\r\n",
        "a space before the colon": b"transfer-encoding : chunked\r\n",
        "a tab before the colon": b"transfer-encoding\t: chunked\r\n",
        "a space before the name": b" transfer-encoding: chunked\r\n",
        "NUL behind the name": b"transfer-encoding\0: chunked\r\n",
    }.items():
        yield Case(name, EVALUATE + headers + tail, (400,))
        yield Case(f"{name}, for a stream", OPEN + headers + tail, (400,))


def _codings() -> Iterable[Case]:
    values = (
        b"chunked, identity|xchunked|identity|chunkedx|chunked, chunked|\x0bchunked|chunked\x0b|\0chunked|chunked\0"
    )
    for value in (*values.split(b"|"), b'"chunked"', b"chunked;q=1", b"", b"chunked,", b"\xa0chunked", b"chunked\xa0"):
        yield Case(f"{value!r}", EVALUATE + b"transfer-encoding: " + value + b"\r\n\r\n0\r\n\r\n" + SMUGGLED, (400,))
    for value in (b"chunked", b"CHUNKED", b"\tchunked", b" chunked "):
        data = EVALUATE + b"transfer-encoding:" + value + b"\r\n\r\n0\r\n\r\n"
        yield Case(f"{value!r}, which is meant", data + LIVEZ + END, (200, 200))
    underscore = EVALUATE + b"transfer_encoding: chunked\r\n"
    yield Case("another header with underscores", with_body(underscore) + LIVEZ + END, (200, 200))
    yield Case("chunks in HTTP/1.0", chunks(EVALUATE.replace(b"1.1", b"1.0")), (200,))


def _lengths() -> Iterable[Case]:
    values = b"-2|+2|0x2|2 2|2,2|2, 2||2.0|1e0|99999999999999999999|18446744073709551618|2;|2\0|2\x0b|\xb2|two"
    for value in values.split(b"|"):
        data = EVALUATE + b"content-length: " + value + b"\r\n\r\n{}" + SMUGGLED
        yield Case(f"a length of {value!r}", data, (400,))
    for value in (b"2", b"02", b" 2\t"):
        data = EVALUATE + b"content-length: " + value + b"\r\n\r\n{}" + LIVEZ + END
        yield Case(f"a length of {value!r}, which is meant", data, (200, 200))
    yield Case("more than comes", EVALUATE + b"content-length: 3\r\n\r\n{}", (408,))
    yield Case("more than may come", EVALUATE + b"content-length: 1000000\r\n\r\n{}", (413,))
    yield Case("less than comes", with_body(WATCH) + b"}", (400,))


def _chunk_sizes() -> Iterable[Case]:
    head = EVALUATE + CHUNKED + END
    values = b"ffffffffffffffff2|10000000000000002|-2|+2|0x2| 2|2 |2\t||g|2\n|2\r|2\0|2,|2;a\nb|2;a\0b"
    for value in values.split(b"|"):
        data = head + value + b"\r\n{}\r\n0\r\n\r\n" + SMUGGLED
        yield Case(f"a size of {value!r}", data, (400,))
    for size in (b"2", b"02", b"000000000000000000000002", b"2;a=b", b'2;a="b c"', b"2;" + b"a" * 50_000):
        data = head + size + b"\r\n{}\r\n0\r\n\r\n" + LIVEZ + END
        yield Case(f"a size of {size[:30]!r}, which is meant", data, (200, 200))
    yield Case("a size of 2^64 - 1", head + b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n" + SMUGGLED, (408,))
    yield Case("a chunk that is longer", head + b"1\r\n{}\r\n0\r\n\r\n" + SMUGGLED, (400,))
    yield Case("a chunk without an end", head + b"2\r\n{}0\r\n\r\n" + SMUGGLED, (400,))
    yield Case("bare line feeds", head + b"2\n{}\n0\n\n" + SMUGGLED, (400,))
    yield Case("no end of chunks", head + b"2\r\n{}\r\n", (408,))
    yield Case("no chunk at all", head, (408,))


def _trailers() -> Iterable[Case]:
    stranger = EVALUATE.replace(KEY, b"")
    yield Case("a trailer", chunks(EVALUATE, b"{}", trailers=b"x: y\r\n") + LIVEZ + END, (200, 200))
    yield Case("a trailer that is none", chunks(EVALUATE, b"{}", trailers=b"xy\r\n") + SMUGGLED, (400,))
    yield Case("a key", chunks(stranger, b"{}", trailers=KEY), (401,))
    yield Case("the other kind of key", chunks(stranger, b"{}", trailers=b"x-api-key: @KEY@\r\n"), (401,))
    for name in (b"content-length: 50\r\n", CHUNKED):
        yield Case(f"{name!r}", chunks(EVALUATE, b"{}", trailers=name) + SMUGGLED, (400,))


def _lines() -> Iterable[Case]:
    yield Case("bare line feeds", b"GET /livez HTTP/1.1\nhost: relay\n\n", (400,))
    yield Case("a bare line feed at the end", LIVEZ + b"\n", (400,))
    yield Case("a bare line feed behind a header", b"GET /livez HTTP/1.1\r\nhost: relay\nx: y\r\n\r\n", (400,))
    yield Case("bare carriage returns", b"GET /livez HTTP/1.1\rhost: relay\r\r", (400,))
    yield Case("a bare carriage return in a value", LIVEZ + b"x: a\rb\r\n\r\n", (400,))
    yield Case("a bare carriage return in the request line", b"GET /livez HTTP/1.1\rX\r\n" + HOST + END, (400,))
    yield Case("a space before the colon", LIVEZ + b"x : y\r\n\r\n", (400,))
    yield Case("no colon", LIVEZ + b"xyz\r\n\r\n", (400,))
    yield Case("no name", LIVEZ + b": y\r\n\r\n", (400,))
    yield Case("a folded value", LIVEZ + b"x: a\r\n b\r\n\r\n", (400,))
    yield Case("a folded first line", b"GET /livez HTTP/1.1\r\n host: relay\r\n\r\n", (400,))
    yield Case("no end", LIVEZ, (408,))
    yield Case("nothing", b"", ())
    yield Case("an empty line before", b"\r\n" + LIVEZ + END, (200,))
    yield Case("a name that could mean the same", FLAGS.replace(b"ation:", b"\xc3\xa4tion:") + END, (400,))


def _bytes() -> Iterable[Case]:
    places = {
        "the method": b"GE@T /livez HTTP/1.1\r\n" + HOST + END,
        "the path": b"GET /li@vez HTTP/1.1\r\n" + HOST + END,
        "the query": b"GET /livez?a@b HTTP/1.1\r\n" + HOST + END,
        "the query of what is not there": b"GET /nowhere?a@b HTTP/1.1\r\n" + HOST + END,
        "the version": b"GET /livez HTTP/1@.1\r\n" + HOST + END,
        "a name": LIVEZ + b"x@y: z\r\n\r\n",
        "a value": LIVEZ + b"x: y@z\r\n\r\n",
        "the host": b"GET /livez HTTP/1.1\r\nhost: re@lay\r\n\r\n",
    }
    for byte in (b"\0", b"\1", b"\b", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f"):
        for place, data in places.items():
            yield Case(f"{byte!r} in {place}", data.replace(b"@", byte), (400,))
    for byte in (b"\t", b" ", b"\x80", b"\xff"):
        for place in ("the method", "the path", "the query", "the query of what is not there", "the version", "a name"):
            yield Case(f"{byte!r} in {place}", places[place].replace(b"@", byte), (400,))
        yield Case(f"{byte!r} in a value", places["a value"].replace(b"@", byte), (200,))


def _targets() -> Iterable[Case]:
    ends = {
        b"http://other/livez": (200,),
        b"http://other": (400,),
        b"http://": (400,),
        b"ftp://user:password@other:99999/livez": (400,),
        b"relay:80": (400,),
        b"livez": (400,),
        b"?x": (400,),
        b"*": (404,),
        b"/livez#x": (200,),
        b"/livez%": (404,),
        b"/livez%zz": (404,),
        b"/livez%00": (404,),
        b"/livez%0d%0ax: y": (400,),
        b"/livez%0d%0ax:%20y": (404,),
        b"/livez%0a": (404,),
        b"/livez%2f": (404,),
        b"/%ff%fe%ed%a0%80": (404,),
        b"/x/../livez": (404,),
        b"//livez": (404,),
        b"/livez;x": (404,),
        b"/livez\\": (404,),
        b"/" + b"x" * 20_000: (431,),
    }
    for target, wanted in ends.items():
        yield Case(f"{target[:40]!r}", b"GET " + target + b" HTTP/1.1\r\n" + HOST + END, wanted)
    for target, wanted in {
        b"http://other/v1/stream": (STREAM,),
        b"/v1%2fstream": (STREAM,),
        b"/v1/stream%0a": (404,),
    }.items():
        yield Case(f"{target!r}", OPEN.replace(b"/v1/stream", target) + END, wanted)
    yield Case("a flag and a line feed", with_body(EVALUATE.replace(b"flags ", b"flags/old%0a ")), (404,))


def _methods() -> Iterable[Case]:
    for method in (b"TRACE", b"DELETE", b"PROPFIND", b"SOURCE", b"PURGE"):
        for path in (b"/livez", b"/v1/stream"):
            start = OPEN.replace(b"GET /v1/stream", method + b" " + path)
            yield Case(f"{method!r} {path!r}", start + b"x: " + MARK + b"\r\n\r\n", (405,))
    for method in (b"CONNECT", b"BREW", b"get", b"PRI", b"G" * 5000, b"G" * 20_000, b"{}", b"GET\0", b""):
        yield Case(f"{method[:20]!r}", method + b" relay:443 HTTP/1.1\r\n" + HOST + END + SMUGGLED, (400,))
    yield Case("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + HOST + END, (404,))


def _versions() -> Iterable[Case]:
    for version in (
        b"HTTP/1.2",
        b"HTTP/1.10",
        b"HTTP/11",
        b"HTTP/3.0",
        b"http/1.1",
        b"HTTP/1,1",
        b"HTTP/ 1.1",
        b"HTTQ/1.1",
    ):
        yield Case(f"{version!r}", LIVEZ.replace(b"HTTP/1.1", version) + END, (400,))
    yield Case("HTTP/0.9 as it was", b"GET /livez\r\n", (408,))
    yield Case("HTTP/0.9 with an empty line", b"GET /livez\r\n\r\n", (200,))
    yield Case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", (400,))
    yield Case("TLS", bytes.fromhex("16030100f8010000f40303") + b"\x11" * 237, (400,))
    yield Case("SSL 2", b"\x80\x2e\x01\0\2\0\x15\0\0\0\x10" + b"\1" * 37, (400,))
    yield Case("a proxy's line", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + LIVEZ + END, (400,))
    yield Case("a proxy's bytes", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\x7f\0\0\1" * 3, (400,))
    yield Case("Redis", b"*1\r\n$4\r\nPING\r\n", (400,))
    yield Case("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", (400,))


def _sizes() -> Iterable[Case]:
    yield Case("a huge value", LIVEZ + b"x: " + b"y" * 20_000 + b"\r\n\r\n", (431,))
    yield Case("a huge name", LIVEZ + b"y" * 20_000 + b": x\r\n\r\n", (431,))
    yield Case("very many headers", LIVEZ + b"x: y\r\n" * 5000 + END, (431,))
    yield Case("as many as there is room for", LIVEZ + b"x: y\r\n" * 2500 + END, (200,))
    yield Case("a huge head of a stream", OPEN + b"last-event-id: " + b"y" * 20_000 + b"\r\n\r\n", (431,))
    yield Case(
        "a huge head behind another", LIVEZ + END + LIVEZ + b"x: " + b"y" * 20_000 + b"\r\n\r\n" + SMUGGLED, (431,)
    )


def _hosts() -> Iterable[Case]:
    start = b"GET /livez HTTP/1.1\r\n"
    yield Case("no host", start + END, (400,))
    yield Case("no host, in HTTP/1.0", b"GET /livez HTTP/1.0\r\n\r\n", (200,))
    yield Case("two hosts", start + HOST + b"host: other\r\n\r\n", (400,))
    yield Case("the same host twice", start + HOST + HOST + END, (400,))
    yield Case("no host, for a stream", OPEN.replace(HOST, b"") + END, (400,))


def _odd_hosts() -> Iterable[Case]:
    for host in (
        b"[",
        b"[::1",
        b"[::1]:x",
        b"a/b",
        b"a?b",
        b"a#b",
        b"u@h",
        b"a:b:c",
        b"a:99999",
        b"\xe9",
        b"a b",
        b"\\",
    ):
        yield Case(f"the host {host!r}", b"GET /nowhere?x HTTP/1.1\r\nhost: " + host + b"\r\n\r\n", (404,))


def _offers() -> Iterable[Case]:
    upgrade = b"connection: upgrade\r\nupgrade: "
    for protocol in (b"websocket", b"h2c", b"TLS/1.0", b"x" * 1000):
        yield Case(f"{protocol[:20]!r}", OPEN + upgrade + protocol + b"\r\n\r\n", (STREAM,))
        yield Case(f"{protocol[:20]!r} for the wrong thing", LIVEZ + upgrade + protocol + b"\r\n\r\n", (200,))
    expect = b"expect: 100-continue\r\n"
    yield Case("to wait", OPEN + expect + END, (STREAM,))
    yield Case("to wait with a body", with_body(EVALUATE + expect) + LIVEZ + END, (200, 200))
    yield Case("to wait with a stream's body", with_body(WATCH + expect), (STREAM,))
    yield Case("to wait with too large a body", EVALUATE + expect + b"content-length: 1000000\r\n\r\n", (413,))
    yield Case("to wait for whom?", EVALUATE.replace(KEY, b"") + expect + b"content-length: 2\r\n\r\n", (401,))


def _stream_bodies() -> Iterable[Case]:
    yield Case("a body", with_body(OPEN), (400,))
    yield Case("a request as its body", with_body(OPEN, SMUGGLED), (400,))
    yield Case("a body that does not come", OPEN + b"content-length: 9\r\n\r\n", (400,))
    yield Case("chunks", chunks(OPEN, b"{}"), (400,))
    yield Case("no chunks", chunks(OPEN), (400,))
    yield Case("chunks that do not come", OPEN + CHUNKED + END, (400,))
    yield Case("a request as its chunk", chunks(OPEN, SMUGGLED), (400,))
    yield Case("a request behind no chunks", chunks(OPEN) + SMUGGLED, (400,))
    yield Case("a body of nothing", OPEN + b"content-length: 0\r\n\r\n", (STREAM,))
    yield Case("a request behind a body of nothing", OPEN + b"content-length: 0\r\n\r\n" + SMUGGLED, (400,))
    yield Case("a method that takes one", with_body(OPEN.replace(b"GET", b"POST")), (405,))
    yield Case("a body where one is due", with_body(WATCH), (STREAM,))
    yield Case("chunks where a body is due", chunks(WATCH, b"{", b"}"), (STREAM,))


def _behind_answers() -> Iterable[Case]:
    yield Case("an answer for each", (LIVEZ + END) * 20, (200,) * 20)
    yield Case("all kinds", LIVEZ + END + with_body(EVALUATE) + chunks(EVALUATE, b"{}") + FLAGS + END, (200,) * 4)
    yield Case("a stream in the end", FLAGS + END + with_body(EVALUATE) + OPEN + END, (200, 200, STREAM))
    yield Case("garbage behind one", FLAGS + END + b"\0garbage\r\n\r\n", (400,))
    yield Case("an empty line behind one", LIVEZ + END + END, (200,))
    yield Case("a refused one before", FLAGS.replace(b"@KEY@", b"x") + END + LIVEZ + END, (401, 200))


TABLES: dict[str, tuple[Case, ...]] = {
    "where a body ends": (*_two_lengths(), *_codings(), *_lengths(), *_chunk_sizes()),
    "trailers": tuple(_trailers()),
    "heads": (*_lines(), *_bytes(), *_sizes(), *_odd_hosts()),
    "targets, methods and versions": (*_targets(), *_methods(), *_versions()),
    "hosts": tuple(_hosts()),
    "one request and another": (*_offers(), *_stream_bodies(), *_behind_answers()),
}
"""The corpus."""
