"""One connection of GET /v1/stream."""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus

import aiohttp
import orjson

from flagrelay.errors import StreamError
from flagrelay.wire.event_id import parse_event_id
from flagrelay.wire.sse import Event, EventParser

ANSWER_TIMEOUT = 10.0
"""Seconds to connect and to be answered; after that a stream may be silent for as long as it likes."""

LARGEST_REFUSAL = 64 * 1024
"""Bytes of a refusal's body that are looked at."""


async def follow(
    session: aiohttp.ClientSession, url: str, key: str, *, last_event_id: str = ""
) -> AsyncGenerator[Event, None]:
    """The events of one connection, until the relay ends it. Close it (`contextlib.aclosing`) to leave earlier.

    Args:
        session: whose connections are used.
        url: of the relay: `http://127.0.0.1:8080`.
        key: an access key of kind `server`.
        last_event_id: the id of the last event that was received, to get only what came after it.

    Raises:
        StreamError: the relay refuses (with its status, code and details), does not answer in time, answers with
            no stream, or sends an id that goes back within an epoch.
        MessageError: an event is larger than any can be.
        aiohttp.ClientError: the relay cannot be reached, or the connection broke.
    """
    response = await _connect(session, url.rstrip("/"), key, last_event_id)
    async with response:
        parser = EventParser()
        last_id = ""
        async for data in response.content.iter_any():
            for event in parser.feed(data):
                _check_grows(last_id, event.id)
                last_id = event.id
                yield event


async def _connect(session: aiohttp.ClientSession, url: str, key: str, last_event_id: str) -> aiohttp.ClientResponse:
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            response = await session.get(
                f"{url}/v1/stream", headers=headers, timeout=aiohttp.ClientTimeout(total=None), allow_redirects=False
            )
            if response.status == HTTPStatus.OK and response.content_type == "text/event-stream":
                return response
            async with response:
                raise refusal_of(url, response, await response.content.read(LARGEST_REFUSAL))
    except TimeoutError:
        raise StreamError(f"{url} does not answer within {ANSWER_TIMEOUT:g} s") from None


def refusal_of(url: str, response: aiohttp.ClientResponse, body: bytes) -> StreamError:
    """The error that an answer is which is not the one that was asked for."""
    if response.status == HTTPStatus.OK:
        return StreamError(f"{url} answers with {response.content_type}, and not with what was asked for")
    try:
        error = orjson.loads(body)
        code, details = str(error["errorCode"]), str(error["errorDetails"])
    except (ValueError, KeyError, TypeError):
        return StreamError(f"{url} refuses: {response.status}: {body[:200]!r}", status=response.status)
    return StreamError(
        f"{url} refuses: {response.status} {code}: {details}", status=response.status, code=code, details=details
    )


def _check_grows(before: str, event_id: str) -> None:
    """The ids of one stream only grow, within an epoch. Another stream may begin where it must."""
    mine, theirs = parse_event_id(before), parse_event_id(event_id)
    if mine and theirs and mine.epoch == theirs.epoch and theirs.revision < mine.revision:
        raise StreamError(f"the id {event_id!r} comes after {before!r}: ids only grow within an epoch")
