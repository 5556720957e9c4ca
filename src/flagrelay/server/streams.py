"""GET /v1/stream: the flag set and its changes, as Server-Sent Events."""

import asyncio
import random
from collections.abc import Callable, Mapping

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
from flagrelay.server.handover import EXTENSION, HandedOver, HandOver
from flagrelay.server.portable import PortableResponse, ResponseTransport
from flagrelay.store.access_keys import AccessKey
from flagrelay.wire.frame import Framing

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # or nginx in front would hold events back
}


async def stream(request: Request) -> Response:
    """Open a stream: check, then hand the connection over, or answer as any ASGI server can."""
    context = context_of(request)
    key = authenticate(context, request, "server")
    refuse_body(request)
    pipeline = pipeline_for(context, key)
    return await begin(request, pipeline, pipeline.hub, lambda: authenticate(context, request, "server"))


async def begin(
    request: Request,
    pipeline: Pipeline,
    hub: Hub,
    check: Callable[[], AccessKey],
    view: Callable[[], View | None] = lambda: None,
) -> Response:
    """Begin a stream of any kind, for a request that is understood and read to its end.

    Args:
        request: which it answers.
        pipeline: of the key's environment.
        hub: where the stream belongs.
        check: the access key, once more: it may have been revoked while the stream waited for news.
        view: the evaluation context that it is evaluated for, taken once it is certain that there will be a stream.

    Raises:
        Refusal: the key is no longer valid, or there is no room.
    """
    context = context_of(request)
    if request.method == "HEAD":
        return Response(headers=HEADERS)
    last_event_id = request.headers.get("last-event-id", "")
    trust_ahead = await pipeline.settle(last_event_id)
    key = check()
    admit(context, pipeline, key, _address(request))
    return open_stream(context, request, hub, key, last_event_id, trust_ahead=trust_ahead, view=view)


def admit(context: Context, pipeline: Pipeline, key: AccessKey, address: str) -> None:
    """Refuse a stream for which there is no room.

    Raises:
        Refusal: 503, with a jittered Retry-After.
    """
    settings = context.settings
    if context.relay.draining:
        limit, why = "draining", "this relay is shutting down"
    elif context.relay.streams >= settings.max_streams:
        limit, why = "relay", f"this relay is full: it holds {settings.max_streams} streams"
    elif pipeline.streams_of(key.id) >= settings.max_streams_per_key:
        limit = "key"
        why = f'the access key "{key.id}" has {settings.max_streams_per_key} streams open, which is its limit'
    elif context.relay.streams_from(address) >= settings.max_streams_per_address:
        limit = "address"
        why = f"your address has {settings.max_streams_per_address} streams open, which is its limit"
    else:
        return
    context.relay.refused[limit] += 1
    raise no_room(why)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def open_stream(
    context: Context,
    request: Request,
    hub: Hub,
    key: AccessKey,
    last_event_id: str,
    *,
    trust_ahead: bool,
    view: Callable[[], View | None],
) -> Response:
    """Register the stream and write its first bytes, all in this turn of the event loop."""
    settings = context.settings
    ends_at = asyncio.get_running_loop().time() + settings.stream_lifetime * random.uniform(0.8, 1.0)
    hand_over: HandOver | None = request.scope.get("extensions", {}).get(EXTENSION)

    def subscribe(transport: StreamTransport, framing: Framing) -> tuple[Subscriber, Resume, tuple[bytes, bytes]]:
        subscriber = Subscriber(
            hub,
            transport,
            framing=framing,
            key_id=key.id,
            address=_address(request),
            ends_at=ends_at,
            view=view(),
        )
        return subscriber, *hub.join(subscriber, last_event_id, trust_ahead=trust_ahead)

    if hand_over:
        handed = hand_over()
        if handed is None:
            raise Refusal(400, "INVALID_REQUEST", "a stream is the last request on its connection")
        # HTTP/1.0 has no chunks: there the end of the connection is the end of the stream.
        framing = Framing.CHUNKED if request.scope["http_version"] == "1.1" else Framing.PLAIN
        subscriber, resume, (retry, news) = subscribe(handed.transport, framing)
        handed.transport.set_write_buffer_limits(high=settings.high_water)
        handed.transport.set_protocol(subscriber)
        handed.transport.write(_head(handed, resume, framing, cors_headers(request.scope)) + retry)
        handed.transport.write(news)
        return Silence()
    response_transport = ResponseTransport(settings.high_water)
    subscriber, resume, (retry, news) = subscribe(response_transport, Framing.PLAIN)
    response_transport.subscriber = subscriber
    response_transport.write(retry)
    response_transport.write(news)
    return PortableResponse(response_transport, {**HEADERS, "flagrelay-resume": resume.value})


class Silence(Response):
    """The response of a request whose connection is no longer the server's: nothing more is said."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say nothing."""


_HEAD = b"HTTP/1.1 200 OK\r\n%b" % b"".join(
    b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in HEADERS.items()
)


def _head(handed: HandedOver, resume: Resume, framing: Framing, cors: Mapping[str, str]) -> bytes:
    server = b"".join(b"%b: %b\r\n" % header for header in handed.headers)
    server += "".join(f"{name}: {value}\r\n" for name, value in cors.items()).encode("latin-1")
    end = b"transfer-encoding: chunked" if framing is Framing.CHUNKED else b"connection: close"
    return b"%b%bflagrelay-resume: %b\r\n%b\r\n\r\n" % (_HEAD, server, resume.value.encode(), end)
