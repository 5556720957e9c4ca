"""GET /v1/flags: the whole flag set, for those who would rather ask than listen."""

from starlette.requests import Request
from starlette.responses import Response

from flagrelay.server.access import authenticate, pipeline_for, refuse_body
from flagrelay.server.conditional import matches
from flagrelay.server.context import context_of
from flagrelay.wire.event_id import event_id_of
from flagrelay.wire.frame import flag_set


async def flags(request: Request) -> Response:
    """The flag set, or 304 where the client has it."""
    context = context_of(request)
    key = authenticate(context, request, "server")
    refuse_body(request)
    pipeline = pipeline_for(context, key)
    snapshot = pipeline.held()
    # Weak: two relays may write the same flags in another order.
    etag = f'W/"{event_id_of(snapshot)}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(flag_set(snapshot), headers=headers, media_type="application/json")
