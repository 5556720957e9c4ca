"""Streams for those who keep no flags: evaluated values, and OFREP's events."""

import base64
import binascii
import hashlib
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.errors import ContextError, MessageError, Refusal
from flagrelay.flags.resolution import ErrorCode
from flagrelay.server.access import authenticate_viewer, pipeline_for, refuse_body
from flagrelay.server.bodies import read_body, too_large
from flagrelay.server.context import Context, context_of
from flagrelay.server.streams import begin
from flagrelay.wire.ofrep import check_context, read_context


async def evaluation_stream(request: Request) -> Response:
    """GET and POST /v1/evaluations/stream: what every flag says for a context, and what changes of it."""
    context = context_of(request)
    key, public = authenticate_viewer(context, request)
    pipeline = pipeline_for(context, key)
    identity, evaluation_context = await _evaluation_context(context, request)
    return await begin(
        request,
        pipeline,
        pipeline.evaluations,
        lambda: authenticate_viewer(context, request)[0],
        lambda: pipeline.evaluations_feed.view((public, identity), evaluation_context),
    )


async def event_stream(request: Request) -> Response:
    """GET /ofrep/v1/events: that there is something new to fetch."""
    context = context_of(request)
    key, _ = authenticate_viewer(context, request)
    refuse_body(request)
    pipeline = pipeline_for(context, key)
    return await begin(request, pipeline, pipeline.refetches, lambda: authenticate_viewer(context, request)[0])


async def _evaluation_context(context: Context, request: Request) -> tuple[bytes, dict[str, Any]]:
    """The evaluation context of a stream, and what is the same for equal ones.

    Raises:
        Refusal: 400 where it is none, 413 where it is too large to be kept as long as the stream lasts.
    """
    most = context.settings.max_context_bytes
    try:
        if request.method == "POST":
            found = read_context(await read_body(request, context.settings))
        else:
            refuse_body(request)
            found = _from_query(request.query_params.get("context", ""))
        written = orjson.dumps(found, option=orjson.OPT_SORT_KEYS)
    except MessageError as error:
        raise Refusal(400, ErrorCode.PARSE_ERROR, str(error)) from error
    except (ContextError, orjson.JSONEncodeError) as error:
        raise Refusal(400, ErrorCode.INVALID_CONTEXT, str(error)) from error
    if len(written) > most:
        raise too_large("the context", len(written), most)
    return hashlib.blake2b(written, digest_size=32).digest(), found


def _from_query(text: str) -> dict[str, Any]:
    """A context as URLs carry it: the base64url of its JSON, with padding or without; nothing for an empty one."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return check_context(orjson.loads(decoded) if decoded else None)
    except (binascii.Error, ValueError) as error:
        raise MessageError(f"?context= should be the base64url of a JSON object: {error}") from error
