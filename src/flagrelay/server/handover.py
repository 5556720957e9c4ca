"""A uvicorn connection, taken out of uvicorn's hands.

uvicorn keeps a task, a cycle, a scope and a parser for as long as a response lasts. A stream lasts for an hour
and needs none of them: once the request is understood, the connection's transport gets another protocol, as
uvicorn itself does for WebSockets, and everything else is freed. This leans on the inside of uvicorn's
`HttpToolsProtocol`; `tests/server/test_handover.py` fails loudly where a release moves it.
"""

import asyncio
from collections.abc import Callable, Iterable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flagrelay.wire.frame import error_body

EXTENSION = "flagrelay.handover"
"""The name of the ASGI extension, in a scope's `extensions`."""

LINGER = 1.0
"""Seconds that a refused client has to read why, and to stop sending."""

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
    _too_large = False
    _refused = False

    def data_received(self, data: bytes) -> None:
        """Parse; and count what has come of a head that is not complete yet."""
        if self._refused:
            return
        if not self._in_head:
            self._read = 0  # what came last was a body, or the end of a head
        self._read += len(data)
        super().data_received(data)
        if self._in_head and self._read > self._limit and not self._refused:
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins: offer the hand-over."""
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {EXTENSION: self.hand_over}  # type: ignore[dict-item]  # ours is a function

    def on_headers_complete(self) -> None:
        """The head is complete: refuse it where it is too large, whatever piece it came in."""
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limit:
            self._too_large = True
            raise ValueError("request head too large")  # the parser turns it into its own error
        super().on_headers_complete()

    @property
    def _limit(self) -> int:
        return self.config.h11_max_incomplete_event_size or 65536

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, as JSON like every other error, and close.

        A socket that is closed with bytes unread resets its connection, and the client loses the answer that it
        has not read: only our side ends at once, and what still comes is taken and dropped for a moment.
        """
        if self._too_large:
            status, code = b"431 Request Header Fields Too Large", "HEAD_TOO_LARGE"
            msg = f"the request's head is larger than {self._limit} bytes"
        else:
            status, code = b"400 Bad Request", "INVALID_REQUEST"
        body = error_body(code, msg)
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, len(body), body)
        )
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True  # a request before it, still under way, has nobody to answer
            self.cycle.message_event.set()
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
