"""Operations by a relay's control API: what `target` does where it is given a URL."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import UUID

import aiohttp
import msgspec

from flagrelay.control.operation import BASE, Operation, request_of
from flagrelay.control.session import MAYBE_WRITTEN
from flagrelay.errors import FlagrelayError, InputError, StreamError
from flagrelay.sdk.stream import refusal_of

ANSWER_TIMEOUT = 90.0
"""Seconds that a relay has to answer; one that waits for a proof takes its time."""

NO_JSON = (bytes, datetime, date, time, timedelta, Decimal, UUID)
"""What YAML and Python know, and JSON does not. It is refused: a flag would get text that nobody wrote."""

FAILED = (400, 404, 409, 412, 500, 503)
"""What an operation that failed is answered with; anything else is about the request."""


@asynccontextmanager
async def over_http(url: str, admin_key: str, environment: str | None) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """What does operations on a relay: `await perform(OPERATION, member=value, …)`.

    Args:
        url: of the relay.
        admin_key: an access key of kind admin; what it is named is the actor.
        environment: the one that is meant; a key of another one is then refused.
    """
    headers = {"authorization": f"Bearer {admin_key}", "accept": "application/json"}
    if environment is not None:
        headers["flagrelay-environment"] = environment
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        yield partial(_ask, http, url.rstrip("/"))


async def _ask(http: aiohttp.ClientSession, url: str, operation: Operation[Any, Any], **members: Any) -> Any:
    """Do an operation.

    Raises:
        FlagrelayError: what went wrong there, or on the way.
    """
    rest = msgspec.to_builtins(request_of(operation, members), builtin_types=NO_JSON)
    rest = {name: value for name, value in rest.items() if name in members and members[name] is not None}
    revision = rest.pop("if_revision", None)
    headers = {} if revision is None else _precondition(revision)
    path = operation.path.format(**{name: _in_path(str(rest.pop(name))) for name in operation.path_members})
    query = {} if operation.has_body else {name: _in_query(value) for name, value in rest.items()}
    body = _as_json(operation, rest) if operation.has_body else None
    if body is not None:
        headers["content-type"] = "application/json"
    unsure = f"; {MAYBE_WRITTEN}" if operation.writes else ""
    asked = http.request(
        operation.method, url + BASE + path, params=query, data=body, headers=headers, allow_redirects=False
    )
    try:
        async with asked as response:
            data = await response.read()
            if response.ok:
                return msgspec.json.decode(data, type=operation.answer)
            raise _error(url, response, data, unsure)
    except TimeoutError:
        raise StreamError(f"{url} does not answer within {ANSWER_TIMEOUT:g} s{unsure}") from None
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL, UnicodeError) as error:
        raise StreamError(f"{url} cannot be reached: {error}") from error
    except aiohttp.ClientError as error:
        raise StreamError(f"{url} cannot be reached: {error}{unsure}") from error
    except msgspec.DecodeError as error:
        raise StreamError(f"{url} answers with something that is no answer of flagrelay's: {error}{unsure}") from error


def _in_path(name: str) -> str:
    """A name as a part of a path.

    Raises:
        InputError: it cannot be one: whoever passes a URL on takes it for a step within the path.
    """
    if name in (".", ".."):
        raise InputError(f'"{name}" cannot be said in a URL: ask Redis, without --url')
    return quote(name, safe="")


def _precondition(revision: int) -> dict[str, str]:
    return {"if-match": f'"{revision}"'} if revision else {"if-none-match": "*"}


def _in_query(value: Any) -> str:
    """A value as a part of a query: booleans as JSON writes them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_json(operation: Operation[Any, Any], members: Mapping[str, Any]) -> bytes:
    """The body of a request. What the relay is to judge it gets as it is, and nothing in its place.

    Raises:
        InputError: there is something in it that JSON has no word for.
    """
    rest: list[tuple[str, Any]] = [(operation.name, members)]
    while rest:
        path, value = rest.pop()
        if isinstance(value, dict):
            for name, each in value.items():
                if not isinstance(name, str):
                    raise InputError(f"{path}: a member's name is a string in JSON, and not {name!r:.80}")
                rest.append((f"{path}.{name:.80}", each))
        elif isinstance(value, list | tuple):
            rest += [(path, each) for each in value if each.__class__ is not str]
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{path}: {value} is no JSON number")
        elif isinstance(value, NO_JSON):
            kind = type(value).__name__
            raise InputError(f"{path}: {value!s:.80} is a {kind}, which JSON does not have; write it as a string")
    # Python's own writes integers of any size, and half characters, so that the relay can say what is wrong with them.
    return json.dumps(members).encode()


def _error(url: str, response: aiohttp.ClientResponse, data: bytes, unsure: str) -> FlagrelayError:
    """The sentence that the operation failed with, where it did; else what the relay refuses, or who is in front of it.

    `unsure` is what is said of a request that somebody in front may have passed on.
    """
    refusal = refusal_of(url, response, data)
    if response.status == HTTPStatus.NOT_FOUND and refusal.code in ("", "NOT_FOUND"):
        return StreamError(
            f"{url} has no control API: it is off there (`flagrelay serve --admin-api`, or FLAGRELAY_ADMIN_API=1, "
            "turns it on), or that is no flagrelay relay",
            status=response.status,
        )
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not refusal.code:
        return StreamError(f"{refusal}{unsure}")
    return FlagrelayError(refusal.details) if refusal.details and response.status in FAILED else refusal
