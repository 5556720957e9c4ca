"""One connection of GET /v1/stream."""

from collections.abc import AsyncIterator
from http import HTTPStatus

import aiohttp
import orjson

from flagrelay.errors import StreamError
from flagrelay.wire.sse import Event, EventParser

CONNECT_TIMEOUT = 10.0
"""Seconds to connect and to be answered; after that a stream may be silent for as long as it likes."""


async def follow(
    session: aiohttp.ClientSession, url: str, key: str, *, last_event_id: str = ""
) -> AsyncIterator[Event]:
    """The events of one connection, until the relay ends it.

    Args:
        session: whose connections are used.
        url: of the relay: `http://127.0.0.1:8080`.
        key: an access key of kind `server`.
        last_event_id: the id of the last event that was received, to get only what came after it.

    Raises:
        StreamError: the relay refuses, or answers with no stream.
        aiohttp.ClientError: it cannot be reached, or the connection broke.
    """
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
    async with session.get(f"{url}/v1/stream", headers=headers, timeout=timeout) as response:
        if response.status != HTTPStatus.OK:
            raise StreamError(_refusal(response.status, await response.read()))
        if response.content_type != "text/event-stream":
            raise StreamError(f"{url} answers with {response.content_type}, and not with a stream")
        parser = EventParser()
        async for data in response.content.iter_any():
            for event in parser.feed(data):
                yield event


def _refusal(status: int, body: bytes) -> str:
    try:
        error = orjson.loads(body)
        return f"{status} {error['errorCode']}: {error['errorDetails']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}: {body[:200]!r}"
