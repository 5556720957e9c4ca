"""GET /v1/stream: the flag set and its changes, as Server-Sent Events."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flagrelay.errors import Refusal
from flagrelay.relay.evaluations import View
from flagrelay.relay.hub import Hub, Resume
from flagrelay.relay.pipeline import Pipeline
from flagrelay.relay.subscriber import StreamTransport, Subscriber
from flagrelay.server.access import authenticate, pipeline_for, refuse_body
from flagrelay.server.admission import no_room
from flagrelay.server.context import Context, context_of
from flagrelay.server.cors import cors_headers
from flagrelay.server.encodings import accepts_gzip
from flagrelay.server.handover import EXTENSION, HandOver, Header
from flagrelay.server.portable import PortableResponse, ResponseTransport
from flagrelay.store.access_keys import AccessKey
from flagrelay.wire.frame import BEGIN, Framing, framing_of

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # or nginx in front would hold events back
}
COMPRESSED = {"content-encoding": "gzip"}


class Opening(NamedTuple):
    """A stream that may be opened, as far as its request says.

    Args:
        pipeline: of the key's environment.
        hub: where the stream belongs.
        key: with which it was asked for.
        view: the evaluation context that it is evaluated for, taken once it is certain that there will be a stream.
    """

    pipeline: Pipeline
    hub: Hub
    key: AccessKey
    view: Callable[[], View | None] = lambda: None


Ask = Callable[[Context, Request], Opening]
"""Reads a request for a stream. Raises `Refusal`."""


async def stream(request: Request) -> Response:
    """Open a stream: check, then hand the connection over, or answer as any ASGI server can."""
    return await begin(request, definitions)


def definitions(context: Context, request: Request) -> Opening:
    """A stream of definitions.

    Raises:
        Refusal: it may not be opened.
    """
    key = authenticate(context, request, "server")
    refuse_body(request)
    pipeline = pipeline_for(context, key)
    return Opening(pipeline, pipeline.hub, key)


async def begin(request: Request, ask: Ask) -> Response:
    """Begin a stream of any kind, for a request that has been read to its end.

    Raises:
        Refusal: it may not be opened, or there is no room.
    """
    context = context_of(request)
    opening = ask(context, request)
    if request.method == "HEAD":
        return Response(headers=HEADERS)
    last_event_id = request.headers.get("last-event-id", "")
    trust_ahead = False
    if opening.pipeline.hub.ahead(last_event_id):
        trust_ahead = await opening.pipeline.settle(last_event_id)
        opening = ask(context, request)  # the key may have been revoked meanwhile
    full = fullness(context, opening, _address(request))
    if full:
        limit, why = full
        context.relay.refused[limit] += 1
        raise no_room(why)
    return open_stream(context, request, opening, last_event_id, trust_ahead=trust_ahead)


def begin_at_once(context: Context, request: Request, ask: Ask) -> bool:
    """Begin a stream where nothing is to be waited for and nothing speaks against it; else nothing has happened."""
    try:
        opening = ask(context, request)
        last_event_id = request.headers.get("last-event-id", "")
        if opening.pipeline.hub.ahead(last_event_id) or fullness(context, opening, _address(request)):
            return False
        open_stream(context, request, opening, last_event_id, trust_ahead=False)
    except Refusal:
        return False
    return True


def fullness(context: Context, opening: Opening, address: str) -> tuple[str, str] | None:
    """Which limit leaves no room for a stream, and how to say so; None where there is room."""
    settings, relay, key = context.settings, context.relay, opening.key
    if relay.draining:
        return "draining", "this relay is shutting down"
    if relay.streams >= settings.max_streams:
        return "relay", f"this relay is full: it holds {settings.max_streams} streams"
    if opening.pipeline.streams_of(key.id) >= settings.max_streams_per_key:
        return "key", f'the access key "{key.id}" has {settings.max_streams_per_key} streams open, which is its limit'
    if relay.streams_from(address) >= settings.max_streams_per_address:
        return "address", f"your address has {settings.max_streams_per_address} streams open, which is its limit"
    return None


def _address(request: Request) -> str:
    return (request.scope["client"] or ("",))[0]


def open_stream(
    context: Context, request: Request, opening: Opening, last_event_id: str, *, trust_ahead: bool
) -> Response:
    """Register the stream and write its first bytes, all in this turn of the event loop.

    Raises:
        Refusal: 400, where something else is on the connection.
    """
    settings = context.settings
    scope = request.scope
    hub = opening.hub
    compressed = settings.compression and accepts_gzip(request.headers.get("accept-encoding", ""))
    ends_at = asyncio.get_running_loop().time() + settings.stream_lifetime * random.uniform(0.8, 1.0)

    def subscriber_of(transport: StreamTransport, framing: Framing) -> Subscriber:
        return Subscriber(
            hub,
            transport,
            framing=framing,
            key_id=opening.key.id,
            address=_address(request),
            ends_at=ends_at,
            view=opening.view(),
        )

    hand_over: HandOver | None = scope.get("extensions", {}).get(EXTENSION)
    if hand_over:
        handed = hand_over()
        if handed is None:
            raise Refusal(400, "INVALID_REQUEST", "a stream is the last request on its connection")
        transport = handed.transport
        # HTTP/1.0 has no chunks: there the end of the connection is the end of the stream.
        framing = framing_of(compressed=compressed, chunked=scope["http_version"] == "1.1")
        subscriber = subscriber_of(transport, framing)
        resume, (retry, news) = hub.join(subscriber, last_event_id, trust_ahead=trust_ahead)
        transport.set_write_buffer_limits(high=settings.high_water)
        transport.set_protocol(subscriber)
        transport.writelines((_head(framing, resume, handed.headers, cors_headers(scope)), retry, news))
        return Silence()
    response_transport = ResponseTransport(settings.high_water)
    framing = framing_of(compressed=compressed, chunked=False)
    subscriber = response_transport.subscriber = subscriber_of(response_transport, framing)
    resume, (retry, news) = hub.join(subscriber, last_event_id, trust_ahead=trust_ahead)
    response_transport.write(BEGIN[framing] + retry)
    response_transport.write(news)
    more = COMPRESSED if compressed else {}
    return PortableResponse(response_transport, {**HEADERS, **more, "flagrelay-resume": resume.value})


class Silence(Response):
    """The response of a request whose connection is no longer the server's: nothing more is said."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say nothing."""


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def _heads() -> dict[tuple[Framing, Resume], tuple[bytes, bytes]]:
    """What a response begins with, before and after the headers that differ, for each way to begin one."""
    heads = {}
    for framing in Framing:
        more = COMPRESSED if framing.compressed else {}
        end = {"transfer-encoding": "chunked"} if framing.chunked else {"connection": "close"}
        for resume in Resume:
            always = {**HEADERS, **more, "flagrelay-resume": resume.value, **end}
            heads[framing, resume] = (b"HTTP/1.1 200 OK\r\n" + _lines(always), b"\r\n" + BEGIN[framing])
    return heads


_HEADS = _heads()


def _head(framing: Framing, resume: Resume, server: Iterable[Header], cors: Mapping[str, str]) -> bytes:
    begin, end = _HEADS[framing, resume]
    return b"%b%b%b%b" % (begin, b"".join([b"%b: %b\r\n" % header for header in server]), _lines(cors), end)
