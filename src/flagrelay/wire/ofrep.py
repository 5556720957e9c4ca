"""OFREP 0.3 on the wire: bodies of answers, events of its streams."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from flagrelay.errors import ContextError, MessageError
from flagrelay.flags.resolution import Resolution
from flagrelay.wire.evaluated import encoded
from flagrelay.wire.frame import Frame, event_frame


def read_context(body: bytes) -> dict[str, Any]:
    """The evaluation context of a request's body. A body or context that is not there is an empty context.

    Raises:
        MessageError: it is no JSON object.
        ContextError: its context is none.
    """
    try:
        request = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise MessageError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise MessageError("the body should be an object with a context")
    return check_context(request.get("context"))


def check_context(context: object) -> dict[str, Any]:
    """An evaluation context, as it came; none is an empty one.

    Raises:
        ContextError: it is no object, or its targeting key no string.
    """
    if context is None:
        return {}
    if not isinstance(context, dict):
        raise ContextError("the context should be an object")
    if not isinstance(context.get("targetingKey", ""), str | None):
        raise ContextError("the context's targetingKey should be a string")
    return context


def evaluation_body(resolution: Resolution) -> bytes:
    """The answer to a single evaluation, success or failure."""
    return encoded(resolution).item


def bulk_body(
    resolutions: Iterable[Resolution], metadata: Mapping[str, Any], event_streams: Iterable[Mapping[str, Any]]
) -> bytes:
    """The answer to a bulk evaluation. Nothing in it changes unless a result does."""
    items = b",".join([encoded(resolution).item for resolution in resolutions])
    rest = orjson.dumps({"metadata": metadata, "eventStreams": list(event_streams)})
    return b'{"flags":[%b],%b' % (items, rest[1:])


def failure_body(key: str, code: str, details: str) -> bytes:
    """The answer where nothing could be evaluated; without a key for a bulk evaluation."""
    body = {"key": key} if key else {}
    return orjson.dumps({**body, "errorCode": code, "errorDetails": details})


def entity_tag(body: bytes) -> str:
    """The strong ETag of a body."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def refetch_frame(event_id: str, *, at: int) -> Frame:
    """That there is something new to fetch. `at` is the time of the last change, in microseconds; 0 where unknown."""
    data: dict[str, Any] = {"type": "refetchEvaluation", "etag": event_id}
    if at:
        data["lastModified"] = at // 1_000_000
    return event_frame("message", orjson.dumps(data), event_id)
