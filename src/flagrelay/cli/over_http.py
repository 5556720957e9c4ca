"""Operations by a relay's control API: what `target` does where it is given a URL."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import orjson

from flagrelay.control.operation import BASE, Operation, request_of
from flagrelay.errors import FlagrelayError, InputError, StreamError
from flagrelay.sdk.stream import refusal_of

ANSWER_TIMEOUT = 90.0
"""Seconds that a relay has to answer; one that waits for a proof takes its time."""

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
    rest = msgspec.to_builtins(request_of(operation, members))
    rest = {name: value for name, value in rest.items() if name in members and members[name] is not None}
    revision = rest.pop("if_revision", None)
    headers = {} if revision is None else _precondition(revision)
    path = operation.path.format(**{name: _in_path(str(rest.pop(name))) for name in operation.path_members})
    query = {} if operation.has_body else {name: str(value) for name, value in rest.items()}
    body = orjson.dumps(rest) if operation.has_body else None
    if body is not None:
        headers["content-type"] = "application/json"
    asked = http.request(
        operation.method, url + BASE + path, params=_lowered(query), data=body, headers=headers, allow_redirects=False
    )
    try:
        async with asked as response:
            data = await response.read()
            if response.ok:
                return msgspec.json.decode(data, type=operation.answer)
            raise _error(url, response, data)
    except TimeoutError:
        raise StreamError(f"{url} does not answer within {ANSWER_TIMEOUT:g} s") from None
    except aiohttp.ClientError as error:
        raise StreamError(f"{url} cannot be reached: {error}") from error
    except msgspec.DecodeError as error:
        raise StreamError(f"{url} answers with something that is no answer of flagrelay's: {error}") from error


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


def _lowered(query: Mapping[str, str]) -> dict[str, str]:
    """Booleans as JSON writes them."""
    return {name: value.lower() if value in ("True", "False") else value for name, value in query.items()}


def _error(url: str, response: aiohttp.ClientResponse, data: bytes) -> FlagrelayError:
    """The sentence that the operation failed with, where it did; else what the relay refuses."""
    refusal = refusal_of(url, response, data)
    if response.status == HTTPStatus.NOT_FOUND and refusal.code in ("", "NOT_FOUND"):
        return StreamError(
            f"{url} has no control API: it is off there (`flagrelay serve --admin-api`, or FLAGRELAY_ADMIN_API=1, "
            "turns it on), or that is no flagrelay relay",
            status=response.status,
        )
    return FlagrelayError(refusal.details) if refusal.details and response.status in FAILED else refusal
