"""OFREP, the OpenFeature Remote Evaluation Protocol 0.3: evaluated values for clients that keep no flags."""

import re
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from flagrelay.errors import ContextError, MessageError
from flagrelay.flags.resolution import ErrorCode, Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.access import authenticate_viewer, pipeline_for
from flagrelay.server.bodies import read_body
from flagrelay.server.conditional import matches
from flagrelay.server.context import Context, context_of
from flagrelay.store.access_keys import AccessKey, stream_token
from flagrelay.wire.event_id import event_id_of, parse_event_id
from flagrelay.wire.ofrep import bulk_body, entity_tag, evaluation_body, failure_body, read_context

EVENTS = "/ofrep/v1/events"
"""The path of the event streams."""

JSON = "application/json"
HEADERS = {"cache-control": "no-store"}

_HOST = re.compile(r"(?:[A-Za-z0-9.\-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?")


async def evaluate_flag(request: Request) -> Response:
    """POST /ofrep/v1/evaluate/flags/{key}: what one flag says for the context in the body."""
    context, _, pipeline, public = _admitted(request)
    flag_key = request.path_params["key"]
    try:
        evaluation_context = read_context(await read_body(request, context.settings))
    except (MessageError, ContextError) as error:
        return _failure(error, flag_key)
    pipeline.stats.evaluations["single"] += 1
    snapshot = pipeline.held()
    flag = snapshot.compiled.flags.get(flag_key)
    if flag is None or (public and flag.server_only):
        return Response(evaluation_body(snapshot.not_found(flag_key)), 404, HEADERS, media_type=JSON)
    resolution = flag.resolve(evaluation_context)
    status = 400 if resolution.error_code else 200
    return Response(evaluation_body(resolution), status, HEADERS, media_type=JSON)


async def evaluate_flags(request: Request) -> Response:
    """POST /ofrep/v1/evaluate/flags: what every flag says for the context in the body; 304 where the client has it."""
    context, key, pipeline, public = _admitted(request)
    try:
        evaluation_context = read_context(await read_body(request, context.settings))
    except (MessageError, ContextError) as error:
        return _failure(error)
    told = request.query_params.get("flagConfigEtag", "")
    await pipeline.settle(told)
    authenticate_viewer(context, request)  # it may have been revoked while we waited
    snapshot = pipeline.held()
    resolutions = _resolutions(snapshot, evaluation_context, public=public)
    body = bulk_body(resolutions, snapshot.metadata, [_event_stream(context, request, key)])
    etag = entity_tag(body)
    # A client that was told of another configuration than this one wants an answer, whatever it has.
    current = event_id_of(snapshot)
    must_answer = parse_event_id(told) is not None and told != current
    if not must_answer and matches(request.headers.get("if-none-match", ""), etag):
        pipeline.stats.evaluations["bulk not modified"] += 1
        return Response(status_code=304, headers={**HEADERS, "etag": etag})
    pipeline.stats.evaluations["bulk"] += 1
    return Response(body, headers={**HEADERS, "etag": etag}, media_type=JSON)


def _resolutions(snapshot: Snapshot, evaluation_context: dict[str, Any], *, public: bool) -> Iterator[Resolution]:
    for flag in snapshot.compiled.flags.values():
        if not (public and flag.server_only):
            yield flag.resolve(evaluation_context)


def _admitted(request: Request) -> tuple[Context, AccessKey, Pipeline, bool]:
    """Who asks, of what, and whether they see only what may leave to clients."""
    context = context_of(request)
    key, public = authenticate_viewer(context, request)
    context.rates.admit(key.id)
    return context, key, pipeline_for(context, key), public


def _failure(error: Exception, flag_key: str = "") -> Response:
    code = ErrorCode.INVALID_CONTEXT if isinstance(error, ContextError) else ErrorCode.PARSE_ERROR
    return Response(failure_body(flag_key, code, str(error)), 400, HEADERS, media_type=JSON)


def _event_stream(context: Context, request: Request, key: AccessKey) -> dict[str, Any]:
    """Where changes are announced. It is the same in every answer to a key, or each would have another ETag."""
    target = f"{EVENTS}?token={stream_token(key)}"
    if context.settings.public_url:
        return {"type": "sse", "url": context.settings.public_url.rstrip("/") + target}
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host):
        return {"type": "sse", "url": f"{request.url.scheme}://{host}{target}"}
    return {"type": "sse", "endpoint": {"requestUri": target}}
