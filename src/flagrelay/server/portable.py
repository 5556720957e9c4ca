"""The same stream as a response of any ASGI server: slower, same events."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import anyio
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from flagrelay.relay.subscriber import Subscriber


class ResponseTransport:
    """Stands in for an asyncio transport: what is written is the body of a response.

    It keeps the same promises to its subscriber: `pause_writing` above the high-water mark, `resume_writing`
    once the server has taken everything, `connection_lost` at the end.
    """

    def __init__(self, high_water: int) -> None:
        self.subscriber: Subscriber | None = None
        self.aborted = anyio.CancelScope()
        self._chunks: list[bytes] = []
        self._size = 0
        self._high_water = high_water
        self._paused = False
        self._closing = False
        self._wake = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Queue bytes for the response."""
        if self._closing or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._wake.set()
        if self._size > self._high_water and not self._paused and self.subscriber:
            self._paused = True
            self.subscriber.pause_writing()

    def get_write_buffer_size(self) -> int:
        """How many bytes the server has not taken yet."""
        return self._size

    def close(self) -> None:
        """End the response once everything is sent."""
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        """End the response now."""
        self._closing = True
        self.aborted.cancel()

    async def body(self) -> AsyncIterator[bytes]:
        """The response's body."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._chunks:
                data = b"".join(self._chunks)
                self._chunks.clear()
                # `_size` counts what the server has not taken yet, the piece on its way included.
                yield data
                self._size -= len(data)
            if self._closing:
                return
            if self._paused and self.subscriber:
                self._paused = False
                self.subscriber.resume_writing()

    def lost(self) -> None:
        """The response is over, whoever ended it."""
        self._closing = True
        if self.subscriber:
            self.subscriber.connection_lost(None)


class PortableResponse(EventSourceResponse):
    """sse-starlette's response, fed from a subscriber."""

    def __init__(self, transport: ResponseTransport, headers: Mapping[str, str]) -> None:
        super().__init__(transport.body(), headers=headers, ping=0)
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until either side has had enough."""
        try:
            with self._transport.aborted:
                await super().__call__(scope, receive, send)
        finally:
            self._transport.lost()
