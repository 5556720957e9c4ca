"""What a request to the control API asks for: path, query, body and preconditions, as one request of an operation."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import orjson
from starlette.requests import Request

from flagrelay.control.operation import Operation, explained
from flagrelay.errors import DefinitionError, Refusal
from flagrelay.flags.definition import parse_json
from flagrelay.server.headers import single

_ETAG = re.compile(r'"([1-9][0-9]{0,14})(?:-([0-9a-f]+)(?:-[0-9a-f]+)?)?"')
"""As we make them: the revision, what tells its history from others, and what is for If-None-Match alone."""

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
"""Where JSON may hold half a character, which cannot be written anywhere."""


def asked_for(operation: Operation[Any, Any], request: Request, body: bytes) -> Any:  # noqa: ANN401 - as it has it
    """The request of an operation.

    Raises:
        Refusal: 400 or 415, this is none.
    """
    revision = _expected_revision(operation, request)
    members = _of_query(request)
    if operation.has_body:
        _refuse_members(operation, members)
        members = _of_body(request, body)
    _refuse_members(operation, members.keys() & {*operation.path_members, "if_revision"})
    members |= request.path_params
    if revision is not None:
        members["if_revision"] = revision
    try:
        return msgspec.convert(members, operation.request, strict=operation.has_body)
    except msgspec.ValidationError as error:
        raise _invalid(explained(operation, error)) from error


def expected_history(request: Request) -> str:
    """What tells the history, in which a request wants what it changes, from others; empty where any will do."""
    found = _ETAG.fullmatch(single(request, "if-match") or "")
    return found[2] or "" if found else ""


def _invalid(details: str) -> Refusal:
    return Refusal(400, "INVALID_REQUEST", details)


def _refuse_members(operation: Operation[Any, Any], names: Iterable[str]) -> None:
    """Refuse what stands where it has no meaning, in the words of what refuses other such members."""
    for name in sorted(names):
        raise _invalid(f"{operation.name}: Object contains unknown field `{name:.100}`")


def _of_query(request: Request) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in members:
            raise _invalid(f"`{name:.100}` stands in the query twice")
        members[name] = value
    return members


def _of_body(request: Request, body: bytes) -> dict[str, Any]:
    """The members of a body; none for one that is empty."""
    if not body.strip():
        return {}
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the body should be application/json, and is {media_type:.100}")
    try:
        parsed = parse_json(body, "the body")
        if _HALF_CHARACTER.search(body):
            orjson.loads(body)
    except DefinitionError as error:
        raise _invalid(str(error)) from error
    except orjson.JSONDecodeError as error:
        raise _invalid(f"the body: not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise _invalid("the body should be a JSON object")
    return parsed


def _expected_revision(operation: Operation[Any, Any], request: Request) -> int | None:
    """The revision at which a request's preconditions want what it changes; 0: it is not there yet; None: any.

    Raises:
        Refusal: 400, they are unreadable, or say nothing to this operation.
    """
    match, none_match = single(request, "if-match"), single(request, "if-none-match")
    if operation.method == "GET" and match is None:
        return None
    if (match is not None or none_match is not None) and not operation.takes_revision:
        raise _invalid(f"If-Match and If-None-Match mean nothing to {operation.method} {operation.path}")
    if none_match is not None:
        if none_match != "*" or operation.method != "PUT" or match is not None:
            raise _invalid("If-None-Match should be `*`, alone, and is for a PUT of what is not there yet")
        return 0
    if match is None:
        return None
    found = _ETAG.fullmatch(match)
    if not found:
        raise _invalid('If-Match should be an ETag as it was given: "REVISION" or "REVISION-…", in its quotes')
    return int(found[1])
