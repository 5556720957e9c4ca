"""Asking a relay once: what a flag says for a context, the whole flag set, how it stands; and kills without Redis."""

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from flagrelay.errors import StreamError
from flagrelay.sdk.stream import ANSWER_TIMEOUT, refusal_of


async def evaluate(url: str, key: str, flag_key: str, context: dict[str, Any]) -> dict[str, Any]:
    """What a flag says for a context, as OFREP has it: with `value`, or with `errorCode`.

    Args:
        url: of the relay: `http://127.0.0.1:8080`.
        key: an access key of kind `server` or `client`.
        flag_key: the flag.
        context: the evaluation context.

    Raises:
        StreamError: the relay refuses, does not answer in time, or answers with something else.
        aiohttp.ClientError: the relay cannot be reached.
    """
    path = f"/ofrep/v1/evaluate/flags/{quote(flag_key, safe='')}"
    evaluations = (HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
    return await _ask("POST", url, path, key, {"context": context}, evaluations)


async def flag_set(url: str, key: str) -> dict[str, Any]:
    """The whole flag set, as `GET /v1/flags` has it.

    Args:
        url: of the relay.
        key: an access key of kind `server`.

    Raises:
        StreamError: the relay refuses, does not answer in time, or answers with something else.
        aiohttp.ClientError: the relay cannot be reached.
    """
    return await _ask("GET", url, "/v1/flags", key, None, (HTTPStatus.OK,))


async def put_kill(url: str, key: str, flag_key: str, *, to: str | None, actor: str, reason: str) -> dict[str, Any]:
    """Take a flag back from everybody on one relay, whether Redis is there or not. Returns what the relay holds now.

    Args:
        url: of the relay.
        key: an access key of kind `admin`.
        flag_key: the flag.
        to: the variant that everybody gets; None for the callers' own defaults.
        actor: who does it.
        reason: why.

    Raises:
        StreamError: the relay refuses, does not answer in time, or answers with something else.
        aiohttp.ClientError: the relay cannot be reached.
    """
    body = {"to": to, "actor": actor, "reason": reason}
    return await _ask("PUT", url, f"/v1/kills/{quote(flag_key, safe='')}", key, body, (HTTPStatus.OK,))


async def withdraw_kill(url: str, key: str, flag_key: str) -> dict[str, Any]:
    """Take such a kill back. Returns what the relay holds now.

    Raises:
        StreamError: the relay refuses, does not answer in time, or answers with something else.
        aiohttp.ClientError: the relay cannot be reached.
    """
    return await _ask("DELETE", url, f"/v1/kills/{quote(flag_key, safe='')}", key, None, (HTTPStatus.OK,))


async def list_kills(url: str, key: str) -> dict[str, Any]:
    """The kills that a relay holds by itself.

    Raises:
        StreamError: the relay refuses, does not answer in time, or answers with something else.
        aiohttp.ClientError: the relay cannot be reached.
    """
    return await _ask("GET", url, "/v1/kills", key, None, (HTTPStatus.OK,))


async def read_status(url: str) -> dict[str, Any]:
    """How a relay and its environments stand.

    Raises:
        StreamError: the relay refuses, does not answer in time, or answers with something else.
        aiohttp.ClientError: the relay cannot be reached.
    """
    return await _ask("GET", url, "/statusz", "", None, (HTTPStatus.OK,))


async def _ask(
    method: str, url: str, path: str, key: str, body: dict[str, Any] | None, wanted: tuple[HTTPStatus, ...]
) -> dict[str, Any]:
    base = url.rstrip("/")
    headers = {"accept": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    try:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT),
            aiohttp.ClientSession() as session,
            session.request(method, base + path, headers=headers, json=body, allow_redirects=False) as response,
        ):
            data = await response.read()
            answer = _object(data)
            if response.status in wanted and answer is not None:
                return answer
            raise refusal_of(base, response, data)
    except TimeoutError:
        raise StreamError(f"{base} does not answer within {ANSWER_TIMEOUT:g} s") from None


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None
