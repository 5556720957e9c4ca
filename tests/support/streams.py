"""The far end of a connection, byte by byte: strict HTTP/1.1, Server-Sent Events, and what an SDK makes of them."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.relay.pipeline import Pipeline
from flagrelay.wire.event_id import format_event_id, parse_event_id
from flagrelay.wire.sse import Event, EventParser

PATIENCE = 10.0
"""Seconds after which something that should have come never will."""


class ProtocolError(AssertionError):
    """The server broke HTTP/1.1."""


class ChunkDecoder:
    """Decodes a chunked body as RFC 9112 has it, and forgives nothing."""

    def __init__(self) -> None:
        self.ended = False
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The content of every chunk that is complete."""
        self._held += data
        content = []
        while not self.ended:
            line, separator, rest = self._held.partition(b"\r\n")
            if not separator:
                if len(line) > 16:
                    raise ProtocolError(f"no chunk size: {line[:40]!r}")
                break
            if not re.fullmatch(rb"[0-9a-f]{1,8}", line):
                raise ProtocolError(f"no chunk size: {line[:40]!r}")
            size = int(line, 16)
            if len(rest) < size + 2:
                break
            if rest[size : size + 2] != b"\r\n":
                raise ProtocolError(f"a chunk of {size} bytes does not end where it should: {rest[size:][:40]!r}")
            content.append(rest[:size])
            self._held = rest[size + 2 :]
            self.ended = size == 0
        if self.ended and self._held:
            raise ProtocolError(f"bytes after the last chunk: {self._held[:40]!r}")
        return b"".join(content)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response; names of headers in lower case."""

    version: str
    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A TCP connection to a relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._held = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def more(self) -> bytes:
        """What comes next; empty at the end of the connection."""
        if self._held:
            held, self._held = self._held, b""
            return held
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(65536)

    async def head(self) -> Head:
        """The next response's head.

        Raises:
            EOFError: the connection ended instead.
        """
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.more()
            if not more:
                raise EOFError(f"the connection ended instead of a response: {data!r}")
            data += more
        text, _, self._held = data.partition(b"\r\n\r\n")
        return parse_head(text)

    async def answer(self, method: str = "GET") -> Answer:
        """The next response, whole."""
        head = await self.head()
        if method == "HEAD" or head.status in (204, 304):
            return Answer(head, b"")
        if head.headers.get("transfer-encoding") == "chunked":
            decoder, body = ChunkDecoder(), b""
            while not decoder.ended:
                body += decoder.feed(await self._some())
            return Answer(head, body)
        length = int(head.headers["content-length"])
        body = b""
        while len(body) < length:
            body += await self._some()
        body, self._held = body[:length], body[length:]
        return Answer(head, body)

    async def _some(self) -> bytes:
        data = await self.more()
        if not data:
            raise EOFError("the connection ended in the middle of a response")
        return data

    async def end(self) -> bytes:
        """Everything up to the end of the connection; a reset counts as one."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := await self.more():
                data += more
        return data

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Break the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def parse_head(text: bytes) -> Head:
    """The head of a response, without its empty line.

    Raises:
        ProtocolError: it is none, or a header comes twice.
    """
    status, *lines = text.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"(HTTP/1\.[01]) ([1-5][0-9][0-9]) [ -~]*", status)
    if not found:
        raise ProtocolError(f"no status line: {status!r}")
    headers: dict[str, str] = {}
    for line in lines:
        header = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([ -~]*)", line)
        if not header or header[1].lower() in headers:
            raise ProtocolError(f"not one header, or one that came before: {line!r}")
        headers[header[1].lower()] = header[2]
    return Head(found[1], int(found[2]), headers)


@contextlib.asynccontextmanager
async def connection(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[Connection]:
    """A connection to a relay on this machine, closed at the end.

    With a `receive_buffer` (bytes) the kernel takes little more than that before somebody reads.
    """
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except (OSError, asyncio.CancelledError):
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 65536)
    opened = Connection(reader, writer)
    try:
        yield opened
    finally:
        await opened.close()


def request(path: str, secret: str = "", *, method: str = "GET", version: str = "HTTP/1.1", **headers: str) -> bytes:
    """The bytes of a request; `last_event_id="…"` is the header `last-event-id`."""
    lines = [f"{method} {path} {version}", "host: relay"]
    if secret:
        lines.append(f"authorization: Bearer {secret}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def ahead_of(pipeline: Pipeline) -> str:
    """The id of an event that this relay has not heard of yet: whoever has it waits until it has."""
    position = pipeline.held().position
    return format_event_id(position.epoch, position.revision + 1)


class Stream:
    """One open stream, read strictly."""

    def __init__(self, opened: Connection, head: Head) -> None:
        self.connection = opened
        self.head = head
        self.parser = EventParser()
        self.content = b""
        self._decoder = ChunkDecoder() if head.headers.get("transfer-encoding") == "chunked" else None
        compressed = head.headers.get("content-encoding") == "gzip"
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress if compressed else bytes
        self._events: list[Event] = []
        self._closed = False

    @property
    def resume(self) -> str:
        return self.head.headers["flagrelay-resume"]

    @property
    def ended(self) -> bool:
        """Whether the response has ended, as a whole and in order."""
        return self._decoder.ended if self._decoder else self._closed

    async def next(self) -> Event | None:
        """The next event; None once the response has ended in order.

        Raises:
            EOFError: the connection ended before the response did.
        """
        while not self._events:
            if self.ended:
                return None
            self._take(await self.connection.more())
        return self._events.pop(0)

    def _take(self, data: bytes) -> None:
        if not data:
            self._closed = True
            if self._decoder:
                raise EOFError("the connection ended before the response did")
        content = self._inflate(self._decoder.feed(data) if self._decoder else data)
        self.content += content
        self._events += self.parser.feed(content)

    async def event(self, *types: str) -> Event:
        """The next event, which must be there and be of one of these types."""
        event = await self.next()
        assert event, f"the response ended; {types or 'an event'} should have come"
        assert not types or event.type in types, f"{event} came; {types} should have"
        return event

    async def until(self, wanted: str) -> Event:
        """The next event of a type; others before it are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event = await self.event()
                if event.type == wanted:
                    return event

    async def heartbeat(self, **wanted: Any) -> dict[str, Any]:
        """The next heartbeat whose data hold what is wanted."""
        async with asyncio.timeout(PATIENCE):
            while True:
                data: dict[str, Any] = json.loads((await self.until("heartbeat")).data)
                if wanted.items() <= data.items():
                    return data

    async def goodbye(self) -> str:
        """The reason of the goodbye, which is the next event but for heartbeats; the response ends after it."""
        while (event := await self.event("goodbye", "heartbeat")).type == "heartbeat":
            pass
        assert event.retry is not None, "a goodbye says when to come back"
        assert await self.next() is None, "nothing follows a goodbye"
        reason: str = json.loads(event.data)["reason"]
        return reason


@contextlib.asynccontextmanager
async def stream(
    port: int, secret: str, last_event_id: str = "", *, receive_buffer: int | None = None
) -> AsyncIterator[Stream]:
    """An open stream, which must be granted."""
    headers = {"last_event_id": last_event_id} if last_event_id else {}
    async with connection(port, receive_buffer=receive_buffer) as opened:
        opened.send(request("/v1/stream", secret, **headers))
        head = await opened.head()
        if head.status != 200:
            raise AssertionError(f"{head.status}: {await opened.more()!r}")
        yield Stream(opened, head)


async def ask(port: int, path: str, secret: str = "", *, method: str = "GET", **headers: str) -> Answer:
    """One request on a connection of its own."""
    async with connection(port) as opened:
        opened.send(request(path, secret, method=method, **headers))
        return await opened.answer(method)


@dataclass
class Replica:
    """What an SDK holds, and the rules that no stream may break."""

    flags: dict[str, Any] = field(default_factory=dict)
    evaluators: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    event_id: str = ""
    puts: int = 0
    patches: int = 0

    @property
    def revision(self) -> int:
        known = parse_event_id(self.event_id)
        return known[1] if known else -1

    def take(self, event: Event) -> None:
        """Apply an event: nothing may be missing, nothing come twice, no id go down."""
        if event.type in ("heartbeat", "goodbye"):
            return
        before, after = parse_event_id(self.event_id), parse_event_id(event.id)
        assert after, f"a {event.type} without an id: {event.id!r}"
        data = json.loads(event.data)
        if event.type == "put":
            marked = before is not None and before.mark != after.mark
            assert not before or before[0] != after[0] or after[1] >= before[1] + 1 - marked, "a put of what was before"
            self.flags, self.evaluators, self.metadata = data["flags"], data["$evaluators"], data["metadata"]
            self.puts += 1
        else:
            assert event.type == "patch", f"an unknown event: {event.type}"
            assert before, "a patch without anything to apply it to"
            # A relay's own kill, and its end, change what a revision shows: the same revision with another mark.
            follows = after[:2] == (before[0], before[1] + 1)
            assert follows or (after[:2] == before[:2] and after.mark != before.mark), f"{after} after {before}"
            _merge(self.flags, data["flags"])
            _merge(self.evaluators, data["$evaluators"])
            self.metadata = data.get("metadata", self.metadata)
            self.patches += 1
        self.event_id = event.id

    async def follow(self, opened: Stream, revision: int) -> None:
        """Take events until a revision is reached."""
        async with asyncio.timeout(PATIENCE):
            while self.revision < revision:
                self.take(await opened.event())


def _merge(entries: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for name, entry in patch.items():
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry
