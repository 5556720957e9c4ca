"""One connection that holds a stream, for `locustfile.py`: bytes in, events out, each with when it arrived.

A plain blocking socket, so that gevent can hold thousands of them in a process. The time of an arrival is the kernel's
own time stamp where it gives one (Linux): a process with thousands of streams takes its time to look at the last, and
that time is not the relay's. Elsewhere it is the time of the read.
"""

import socket
import ssl
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import httptools

from flagrelay.wire.event_id import EventId, parse_event_id
from flagrelay.wire.sse import Event, EventParser

ANSWER = 30.0
"""Seconds to connect, and to be answered."""

SILENCE = 60.0
"""Seconds without a word, heartbeats included, after which a stream is taken for dead: four of their intervals."""

AT_ONCE = 65_536
"""Bytes that are read at once."""

SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
"""Asks for the kernel's time stamps; the socket module does not name it."""

_TIMESPEC = struct.Struct("@qq")


class Broken(Exception):
    """A stream did not begin, or ended otherwise than it should.

    `final` says that trying again will not help; `wait` is after how many seconds to try again, where that was said.
    """

    def __init__(self, what: str, *, final: bool = False, wait: float | None = None) -> None:
        super().__init__(what)
        self.final = final
        self.wait = wait


class Arrival(NamedTuple):
    """An event, when it arrived in seconds since 1970, and the bytes that came since the last one."""

    event: Event
    at: float
    size: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a stream is, and how it is asked for.

    Args:
        url: of the stream.
        headers: of the request, without those that follow from the URL and the body.
        body: of a POST; a GET where it is empty.
        verify: whether a certificate is looked at.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    verify: bool = True

    def request(self, last_event_id: str) -> bytes:
        """The bytes of a request."""
        url = urlsplit(self.url)
        headers = {"host": url.netloc.rpartition("@")[2], "accept": "text/event-stream", **self.headers}
        if last_event_id:
            headers["last-event-id"] = last_event_id
        if self.body:
            headers |= {"content-type": "application/json", "content-length": str(len(self.body))}
        lines = [f"{'POST' if self.body else 'GET'} {url.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Wire:
    """A connection's bytes, in clear, each with when it arrived. A context manager, which closes it."""

    def __init__(self, target: Target) -> None:
        url = urlsplit(target.url)
        secure = url.scheme == "https"
        host = url.hostname or ""
        self._socket = socket.create_connection((host, url.port or (443 if secure else 80)), ANSWER)
        self._tls: ssl.SSLObject | None = None
        try:
            if SO_TIMESTAMPNS is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            if secure:
                self._secure(host, verify=target.verify)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def patience(self, seconds: float) -> None:
        """For how long a read may wait from now on."""
        self._socket.settimeout(seconds)

    def send(self, data: bytes) -> None:
        """Send a request."""
        if self._tls:
            self._tls.write(data)
            data = self._outgoing.read()
        self._socket.sendall(data)

    def receive(self) -> tuple[bytes, float]:
        """What comes next, empty at the end; and when it arrived: the last of it, where several pieces were waiting."""
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(AT_ONCE, 64)
            at = _stamp(ancillary) or time.time()
            if not self._tls or not data:
                return data, at
            self._incoming.write(data)
            clear = self._decrypted(self._tls)
            if clear:
                return clear, at

    def _secure(self, host: str, *, verify: bool) -> None:
        # Not a wrapped socket: OpenSSL would do the reading, and drop the time stamps.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context(verify=verify).wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                data = self._socket.recv(AT_ONCE)
                if not data:
                    raise Broken("the connection ended within the TLS handshake") from None
                self._incoming.write(data)
            else:
                self._socket.sendall(self._outgoing.read())
                return

    def _decrypted(self, tls: ssl.SSLObject) -> bytes:
        pieces = []
        try:
            while piece := tls.read(AT_ONCE):
                pieces.append(piece)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return b"".join(pieces)


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> float | None:
    """The kernel's time stamp of what was read, where there is one."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return float(seconds + nanoseconds / 1e9)
    return None


@cache
def _context(*, verify: bool) -> ssl.SSLContext:
    """One for all streams: it holds every certificate that is trusted."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Stream:
    """The answer to a request for a stream. `retry` is after how many seconds it asked to be opened again."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._answer = _Answer()
        self._parser = httptools.HttpResponseParser(self._answer)
        self._events = EventParser()

    @property
    def retry(self) -> float | None:
        """Where it said so."""
        return None if self._events.retry is None else self._events.retry / 1000

    def arrivals(self) -> Iterator[Arrival]:
        """Every event, until the answer ends in order.

        Raises:
            Broken: it is a refusal, or no stream, or is cut off.
            OSError: the connection is lost, or silent.
            MessageError: an event is larger than any can be.
        """
        size = 0
        while not self._answer.complete:
            data, at = self._wire.receive()
            self._answer.feed(self._parser, data)
            size += len(data)
            for event in self._events.feed(self._answer.content()):
                yield Arrival(event, at, size)
                size = 0
            if self._answer.begun:
                self._wire.patience(SILENCE)


class _Answer:
    """What httptools tells of a response."""

    def __init__(self) -> None:
        self.begun = False
        self.complete = False
        self._status = 0
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def feed(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        """Take what was read; nothing is the end of the connection.

        Raises:
            Broken: it is no HTTP, or a refusal, or cut off.
        """
        if not data and self._refused:
            raise self._refusal()
        if not data:
            raise Broken("the connection was cut" if self.begun else "the connection was closed without an answer")
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise Broken(f"what came is no HTTP: {error}") from error
        self._status = parser.get_status_code()
        if self._refused and self.complete:
            raise self._refusal()

    def content(self) -> bytes:
        """What has come of the body since the last call, uncompressed.

        Raises:
            Broken: it is no gzip, though it says so.
        """
        if self._refused:
            return b""
        data, self._pieces = b"".join(self._pieces), []
        if self._headers.get("content-encoding") != "gzip":
            return data
        try:
            return self._gzip.decompress(data)
        except zlib.error as error:
            raise Broken(f"what came is no gzip: {error}") from error

    @property
    def _refused(self) -> bool:
        return self.begun and self._status != 200

    def _refusal(self) -> Broken:
        body = b"".join(self._pieces)
        wait = self._headers.get("retry-after", "")
        return Broken(
            f"{self._status}: {body.decode(errors='replace')[:200]}",
            final=self._status in {401, 403, 404},
            wait=float(wait) if wait.isdecimal() else None,
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body is next."""
        self.begun = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The answer has ended in order."""
        self.complete = True


class Order:
    """Whether the events of a stream follow each other, over however many connections.

    Args:
        holes: whether revisions may be left out, as on streams of evaluated values.
    """

    def __init__(self, *, holes: bool) -> None:
        self._holes = holes
        self._at: EventId | None = None

    def problem(self, event: Event) -> str:
        """What is wrong with the next `put` or `patch`; empty where nothing is."""
        last, self._at = self._at, parse_event_id(event.id)
        if self._at is None:
            return f"a {event.type} without a valid id"
        if last is None or self._at.epoch != last.epoch:
            return "" if event.type == "put" else "another history began without a put"
        step = self._at.revision - last.revision
        if step < 0:
            return "revision went back"
        if event.type == "put" or step == 1 or (step == 0 and self._at.mark != last.mark):
            return ""
        if step == 0:
            return "revision repeated"
        return "" if self._holes else "revision skipped"
