"""Streams for those who keep no flags: evaluated values, and OFREP's events."""

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.errors import ContextError, MessageError, Refusal
from flagrelay.flags.resolution import ErrorCode
from flagrelay.server.access import authenticate_viewer, pipeline_for, refuse_body
from flagrelay.server.bodies import read_body, too_large
from flagrelay.server.context import Context, context_of
from flagrelay.server.streams import Opening, begin
from flagrelay.wire.ofrep import check_context, read_context

T = TypeVar("T")


async def evaluation_stream(request: Request) -> Response:
    """GET and POST /v1/evaluations/stream: what every flag says for a context, and what changes of it."""
    if request.method != "POST":
        return await begin(request, evaluations_of_query)
    context = context_of(request)
    key, _ = authenticate_viewer(context, request)  # who has none may send no body
    pipeline_for(context, key)
    found = _understood(context, read_context, await read_body(request, context.settings))
    return await begin(request, lambda context, request: _evaluations(context, request, lambda: found))


def evaluations_of_query(context: Context, request: Request) -> Opening:
    """A stream of evaluated values, for the context in a GET's query.

    Raises:
        Refusal: it may not be opened.
    """

    def found() -> tuple[bytes, dict[str, Any]]:
        refuse_body(request)
        return _understood(context, _from_query, request.query_params.get("context", ""))

    return _evaluations(context, request, found)


def _evaluations(context: Context, request: Request, found: Callable[[], tuple[bytes, dict[str, Any]]]) -> Opening:
    """A stream for an evaluation context, which is looked at only where the key is good."""
    key, public = authenticate_viewer(context, request)
    pipeline = pipeline_for(context, key)
    digest, evaluation_context = found()
    return Opening(
        pipeline,
        pipeline.evaluations,
        key,
        lambda: pipeline.evaluations_feed.view((public, digest), evaluation_context),
    )


async def event_stream(request: Request) -> Response:
    """GET /ofrep/v1/events: that there is something new to fetch."""
    return await begin(request, refetches)


def refetches(context: Context, request: Request) -> Opening:
    """A stream of OFREP's events.

    Raises:
        Refusal: it may not be opened.
    """
    key, _ = authenticate_viewer(context, request)
    refuse_body(request)
    pipeline = pipeline_for(context, key)
    return Opening(pipeline, pipeline.refetches, key)


def _understood(context: Context, read: Callable[[T], dict[str, Any]], written: T) -> tuple[bytes, dict[str, Any]]:
    """What is the same for equal evaluation contexts, and the evaluation context.

    Raises:
        Refusal: 400 where it is none, 413 where it is too large to be kept as long as the stream lasts.
    """
    most = context.settings.max_context_bytes
    try:
        found = read(written)
        canonical = orjson.dumps(found, option=orjson.OPT_SORT_KEYS)
    except MessageError as error:
        raise Refusal(400, ErrorCode.PARSE_ERROR, str(error)) from error
    except (ContextError, orjson.JSONEncodeError) as error:
        raise Refusal(400, ErrorCode.INVALID_CONTEXT, str(error)) from error
    if len(canonical) > most:
        raise too_large("the context", len(canonical), most)
    return hashlib.blake2b(canonical, digest_size=32).digest(), found


def _from_query(text: str) -> dict[str, Any]:
    """A context as URLs carry it: the base64url of its JSON, with padding or without; nothing for an empty one."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return check_context(orjson.loads(decoded) if decoded else None)
    except (binascii.Error, ValueError) as error:
        raise MessageError(f"?context= should be the base64url of a JSON object: {error}") from error
