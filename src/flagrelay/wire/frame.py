"""The final bytes of one Server-Sent Event, made once and shared by every stream.

A frame holds the event twice: as it is, for servers that do their own HTTP framing, and as an HTTP/1.1 chunk,
for connections whose bytes we write ourselves. Which of the two a stream takes is its `Framing`.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from flagrelay.flags.change import Change
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.snapshot import Snapshot
from flagrelay.wire.event_id import event_id_of


class Framing(IntEnum):
    """Which bytes of a frame a stream takes; the value is the field's index in `Frame`."""

    PLAIN = 0
    CHUNKED = 1


class Frame(NamedTuple):
    """One event: `plain` is the event itself, `chunked` the same as one HTTP/1.1 chunk."""

    plain: bytes
    chunked: bytes


END = Frame(b"", b"0\r\n\r\n")
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
    return _framed(b"retry: %d\n%b" % (retry_ms, _event("goodbye", orjson.dumps({"reason": reason}))))


def retry_frame(retry_ms: int) -> Frame:
    """When to come back, should the stream break; no event, it only sets the client's reconnection time."""
    return _framed(b"retry: %d\n\n" % retry_ms)


def comment_frame(text: str, *, retry_ms: int | None = None) -> Frame:
    """What no client takes for an event; with when to come back, where that is said."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return _framed(b": %b\n%b\n" % (text.encode(), retry))


def event_frame(kind: str, data: bytes, event_id: str = "") -> Frame:
    """An event of one line of JSON."""
    return _framed(_event(kind, data, event_id))


def error_body(code: str, details: str) -> bytes:
    """The JSON body of a refusal."""
    body: Mapping[str, str] = {"errorCode": code, "errorDetails": details}
    return orjson.dumps(body)


def _event(kind: str, data: bytes, event_id: str = "") -> bytes:
    # JSON from orjson holds no raw line break, so one data line carries it whole.
    identity = f"id: {event_id}\n" if event_id else ""
    return b"%bevent: %b\ndata: %b\n\n" % (identity.encode(), kind.encode(), data)


def _framed(event: bytes) -> Frame:
    return Frame(plain=event, chunked=b"%x\r\n%b\r\n" % (len(event), event))
