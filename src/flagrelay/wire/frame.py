"""The final bytes of one Server-Sent Event, made once and shared by every stream.

A frame is one event, for each way in which streams take it: as it is, for servers that do their own HTTP framing; as an
HTTP/1.1 chunk, for connections whose bytes we write ourselves; and either of the two compressed. Which one a stream
takes is its `Framing`.

Compressed bytes are shared like any others: each event is a segment of deflate that refers to nothing before it and
ends on a byte (`Z_FULL_FLUSH`), so it continues any stream of gzip. What such a stream cannot have is gzip's trailer, a
checksum of everything that this one stream was sent: it ends without, as a stream does that is cut off.
"""

import zlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import orjson

from flagrelay.flags.change import Change
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.snapshot import Snapshot
from flagrelay.wire.event_id import event_id_of

LEVEL = 3
"""Of compression. Higher ones take twice the time, in which nothing else is done, for a tenth less."""

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""No name, no time, no particular system (RFC 1952)."""


class Framing(IntEnum):
    """Which bytes of a frame a stream takes."""

    PLAIN = 0
    CHUNKED = 1
    GZIP = 2
    GZIP_CHUNKED = 3

    @property
    def compressed(self) -> bool:
        """Whether it is gzip."""
        return self >= Framing.GZIP

    @property
    def chunked(self) -> bool:
        """Whether it is HTTP/1.1 chunks."""
        return self in {Framing.CHUNKED, Framing.GZIP_CHUNKED}


def framing_of(*, compressed: bool, chunked: bool) -> Framing:
    """The framing of a stream."""
    return Framing(2 * compressed + chunked)


class Frame:
    """One event: `frame[framing]` is its bytes, made when they are first asked for.

    Args:
        plain: the event as it is.
    """

    __slots__ = ("_framed", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._framed: list[bytes | None] = [plain, None, None, None]

    def __getitem__(self, framing: Framing) -> bytes:
        """The bytes that a stream of this framing takes."""
        framed = self._framed[framing]
        if framed is None:
            framed = self._framed[framing] = _FRAMED[framing](self.plain)
        return framed

    @property
    def size(self) -> int:
        """The memory that it takes, in bytes: as it is, and as a chunk. What is compressed is little beside it."""
        return 2 * len(self.plain)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)


_FRAMED: dict[Framing, Callable[[bytes], bytes]] = {
    Framing.CHUNKED: _chunk,
    Framing.GZIP: _deflated,
    Framing.GZIP_CHUNKED: lambda data: _chunk(_deflated(data)),
}

BEGIN: dict[Framing, bytes] = {
    Framing.PLAIN: b"",
    Framing.CHUNKED: b"",
    Framing.GZIP: GZIP_HEADER,
    Framing.GZIP_CHUNKED: _chunk(GZIP_HEADER),
}
"""What a response begins with, before any frame."""

END: dict[Framing, bytes] = {framing: b"0\r\n\r\n" if framing.chunked else b"" for framing in Framing}
"""What ends a response that ends in order."""


def flag_set(snapshot: Snapshot) -> bytes:
    """The whole flag set as JSON: the data of a `put`, and the body of `GET /v1/flags`."""
    data: dict[str, Any] = {"flags": snapshot.flags, "$evaluators": snapshot.evaluators, "metadata": snapshot.metadata}
    if snapshot.settings.fractional != EnvironmentSettings().fractional:
        data["fractional"] = snapshot.settings.fractional
    return orjson.dumps(data)


def put_frame(snapshot: Snapshot) -> Frame:
    """The whole flag set, as an event."""
    return event_frame("put", flag_set(snapshot), event_id_of(snapshot))


def patch_frame(change: Change, event_id: str) -> Frame:
    """One change. Who made it and why stay in the relay: they are not the SDKs' to know."""
    data: dict[str, Any] = {"at": change.at, "flags": change.flags, "$evaluators": change.evaluators}
    if change.metadata is not None:
        data["metadata"] = change.metadata
    if change.settings is not None:
        data["fractional"] = change.settings.fractional
    return event_frame("patch", orjson.dumps(data), event_id)


def heartbeat_frame(*, revision: int, live: bool, age_ms: int, local_kills: int = 0) -> Frame:
    """How fresh the stream's state is; without an id, so that it moves nobody's Last-Event-ID."""
    data = {"revision": revision, "source": "live" if live else "stale", "age_ms": age_ms}
    if local_kills:
        data["local_kills"] = local_kills
    return event_frame("heartbeat", orjson.dumps(data))


def goodbye_frame(reason: str, *, retry_ms: int) -> Frame:
    """The last event of a stream that the relay ends, with when to come back."""
    return Frame(b"retry: %d\n%b" % (retry_ms, _event("goodbye", orjson.dumps({"reason": reason}))))


def retry_frame(retry_ms: int) -> Frame:
    """When to come back, should the stream break; no event, it only sets the client's reconnection time."""
    return Frame(b"retry: %d\n\n" % retry_ms)


def comment_frame(text: str, *, retry_ms: int | None = None) -> Frame:
    """What no client takes for an event; with when to come back, where that is said."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return Frame(b": %b\n%b\n" % (text.encode(), retry))


def event_frame(kind: str, data: bytes, event_id: str = "") -> Frame:
    """An event of one line of JSON."""
    return Frame(_event(kind, data, event_id))


def error_body(code: str, details: str) -> bytes:
    """The JSON body of a refusal."""
    body: Mapping[str, str] = {"errorCode": code, "errorDetails": details}
    return orjson.dumps(body)


def _event(kind: str, data: bytes, event_id: str = "") -> bytes:
    # JSON from orjson holds no raw line break, so one data line carries it whole.
    identity = f"id: {event_id}\n" if event_id else ""
    return b"%bevent: %b\ndata: %b\n\n" % (identity.encode(), kind.encode(), data)
