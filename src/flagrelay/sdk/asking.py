"""Asking a relay once: what a flag says for a context, or for the whole flag set."""

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


async def _ask(
    method: str, url: str, path: str, key: str, body: dict[str, Any] | None, wanted: tuple[HTTPStatus, ...]
) -> dict[str, Any]:
    base = url.rstrip("/")
    headers = {"authorization": f"Bearer {key}", "accept": "application/json"}
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
