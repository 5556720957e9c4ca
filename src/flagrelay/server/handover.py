"""A uvicorn connection, taken out of uvicorn's hands.

uvicorn keeps a task, a cycle, a scope and a parser for as long as a response lasts. A stream lasts for an hour
and needs none of them: once the request is understood, the connection's transport gets another protocol, as
uvicorn itself does for WebSockets, and everything else is freed. This leans on the inside of uvicorn's
`HttpToolsProtocol`; `tests/server/test_handover.py` fails loudly where a release moves it.
"""

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from flagrelay.server.pace import Pace, Turn
from flagrelay.wire.frame import error_body

EXTENSION = "flagrelay.handover"
"""The name of the ASGI extension, in a scope's `extensions`."""

LINGER = 1.0
"""Seconds that a refused client has to read why, and to stop sending."""

HEAD_TIMEOUT = 10.0
"""Seconds that a request's head may take, from the connection's or its own beginning."""

Header = tuple[bytes, bytes]


class HandedOver:
    """A connection that is no longer the server's.

    Args:
        transport: the connection; its protocol is yet to be set.
        headers: what the server adds to every response (`date`, `server`).
    """

    __slots__ = ("headers", "transport")

    def __init__(self, transport: asyncio.Transport, headers: Iterable[Header]) -> None:
        self.transport = transport
        self.headers = tuple(headers)


HandOver = Callable[[], HandedOver | None]
"""The extension: takes the connection, or gives None where there is none to take."""


class HandoverProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with the hand-over extension and a limit on request heads.

    The limit is uvicorn's own setting `h11_max_incomplete_event_size`, which its httptools protocol ignores.
    """

    _read = 0
    _in_head = True
    _refused = False
    _head_timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        pace: Pace | None = None,
        head_timeout: float = HEAD_TIMEOUT,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._pace = pace
        self._head_timeout = head_timeout

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection: its head is due, and where many come at once it waits to be read until its turn."""
        super().connection_made(transport)
        self._expect_head()
        if self._pace and self._pace.enter(self._begin_reading) is Turn.LATER:
            transport.pause_reading()

    def _begin_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_timeout, self._head_overdue)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._read:
            self._refuse(408, "REQUEST_TIMEOUT", f"the request's head did not come within {self._head_timeout:g} s")
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse; and count what has come of a head that is not complete yet."""
        if self._refused:
            return
        if not self._in_head:
            self._read = 0  # what came last was a body, or the end of a head
        self._read += len(data)
        super().data_received(data)
        self._watch_head()

    def _watch_head(self) -> None:
        if self._refused:
            return
        if self._in_head and self._read > self._limit:
            self._refuse_large_head()
        elif self._in_head or self.cycle.response_complete:
            self._expect_head()  # of whatever begins with what came, be it an empty line

    def on_message_begin(self) -> None:
        """A request begins: offer the hand-over."""
        super().on_message_begin()
        self._in_head = True
        self._expect_head()
        self.scope["extensions"] = {EXTENSION: self.hand_over}  # type: ignore[dict-item]  # ours is a function

    def on_headers_complete(self) -> None:
        """The head is complete: refuse it where it is too large, whatever piece it came in."""
        self._in_head = False
        self._forget_head()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limit:
            self._refuse_large_head()
            raise ValueError("request head too large")  # the parser turns it into its own error
        super().on_headers_complete()

    @property
    def _limit(self) -> int:
        return self.config.h11_max_incomplete_event_size or 65536

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, as JSON like every other error, and close."""
        if not self._refused:
            self._refuse(400, "INVALID_REQUEST", msg)

    def _refuse_large_head(self) -> None:
        self._refuse(431, "HEAD_TOO_LARGE", f"the request's head is larger than {self._limit} bytes")

    def _refuse(self, status: int, code: str, details: str) -> None:
        """Answer, and close.

        A socket that is closed with bytes unread resets its connection, and the client loses the answer that it
        has not read: only our side ends at once, and what still comes is taken and dropped for a moment.
        """
        self._forget_head()
        body = error_body(code, details)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, HTTPStatus(status).phrase.encode(), len(body), body)
        )
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True  # a request before it, still under way, has nobody to answer
            self.cycle.message_event.set()
        if self.transport.can_write_eof():  # TLS has no such thing
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def hand_over(self) -> HandedOver | None:
        """Take the connection. None where something else is on it: a body, a pipelined request, its end."""
        cycle = self.cycle
        busy = self._refused or self.pipeline or cycle.more_body or cycle.response_started
        if busy or self.transport.is_closing():
            return None
        cycle.response_started = cycle.response_complete = True
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self.server_state.total_requests += 1
        handed = HandedOver(self.transport, self.server_state.default_headers)
        # The parser holds this protocol, and the scope does through the extension: let go of both.
        for name in ("parser", "scope", "headers", "cycle", "flow", "transport"):
            setattr(self, name, None)
        return handed
