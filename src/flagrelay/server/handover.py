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

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from flagrelay.wire.frame import error_body

EXTENSION = "flagrelay.handover"
"""The name of the ASGI extension, in a scope's `extensions`."""

LINGER = 1.0
"""Seconds that a refused client has to read why, and to stop sending."""

HEAD_TIMEOUT = 10.0
"""Seconds that a request's head may take, from the connection's or its own beginning."""

MOST_BEHIND = 4 * 1024 * 1024
"""Bytes that may follow a request's head, framing and trailers included."""

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
    """uvicorn's HTTP protocol, with the hand-over extension, and with less patience.

    Heads have a limit (uvicorn's own setting `h11_max_incomplete_event_size`, which its httptools protocol ignores) and
    a time; what is said in trailers is no header; an offer to upgrade is declined without losing what follows; and what
    is refused has no effect and is answered once.
    """

    _read = 0
    _behind = 0
    _trailers = 0
    _in_head = True
    _refused = False
    _replaying = False
    _head_timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_timeout: float = HEAD_TIMEOUT,
        most_behind: int = MOST_BEHIND,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn takes what follows a last request, and drops it; a stream must know that something does.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.app = self._unless_refused
        self._head_timeout = head_timeout
        self._most_behind = most_behind
        self._unanswered: list[RequestResponseCycle] = []

    async def _unless_refused(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless something that came with it was refused: then nothing of it may happen."""
        if not self._refused:
            await self.config.loaded_app(scope, receive, send)

    # -- a connection's life ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection: its head is due."""
        super().connection_made(transport)
        self._expect_head()

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
        if self._in_head and self._read:
            self._refuse(408, "REQUEST_TIMEOUT", f"the request's head did not come within {self._head_timeout:g} s")
        else:
            self._end()

    # -- what comes -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse; and count what has come of a head that is not complete yet, or behind one."""
        if self._refused:
            return
        if not self._in_head:
            self._read = 0  # what came last was a body, or the end of a head
            self._behind += len(data)
        self._read += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        self._watch()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]  # declined: what follows is HTTP as before
                if self._announces_body():
                    self._replay_framing()
            except httptools.HttpParserError:
                self.send_400_response("this is no HTTP request")
                return
            else:
                return

    def _replay_framing(self) -> None:
        """Have a body parsed behind an offer to upgrade: the parser takes none there, so another is told of its length.

        Java's own HTTP client makes such an offer with every request to a plain port.
        """
        head = [b"POST / HTTP/1.1"]
        head += [b"%b: %b" % each for each in self.headers if each[0] in (b"content-length", b"transfer-encoding")]
        if not self.parser.should_keep_alive():
            head.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self._replaying = True
        self.parser.feed_data(b"\r\n".join([*head, b"", b""]))
        self._replaying = False

    def on_url(self, url: bytes) -> None:
        """The target of a request, but not of one that is replayed."""
        if not self._replaying:
            super().on_url(url)

    def on_message_complete(self) -> None:
        """The end of a request, but not where its body is yet to be parsed."""
        if not (self.parser.should_upgrade() and self._announces_body()):
            super().on_message_complete()

    def _watch(self) -> None:
        """What may not go on: a head too large, a body without end; and what must not take for ever."""
        if self._refused:
            return
        if self._in_head and self._read > self._limit:
            self._refuse_large_head()
        elif not self._in_head and self._behind > self._most_behind:
            self._refuse(413, "TOO_LARGE", f"more than {self._most_behind} bytes follow the request's head")
        elif self._in_head or self.cycle.response_complete:
            self._expect_head()  # of whatever begins with what came, be it an empty line

    def on_message_begin(self) -> None:
        """A request begins: offer the hand-over."""
        if self._replaying:
            return
        super().on_message_begin()
        self._in_head = True
        self._behind = self._trailers = 0
        self._expect_head()
        self.scope["extensions"] = {EXTENSION: self.hand_over}  # type: ignore[dict-item]  # ours is a function

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer is none, and whoever checks headers has done so before it comes."""
        if self._replaying:
            return
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailers += len(name) + len(value) + 4
        if self._trailers > self._limit:
            raise ValueError("trailers too large")  # the parser turns it into its own error

    def on_headers_complete(self) -> None:
        """The head is complete: refuse it where it is too large, whatever piece it came in, or for no one host."""
        if self._replaying:
            return
        self._in_head = False
        self._forget_head()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if size > self._limit:
            self._refuse_large_head()
        elif hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._refuse(400, "INVALID_REQUEST", "a request has one Host header")
        if self._refused:
            raise ValueError("refused")  # the parser turns it into its own error
        super().on_headers_complete()
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        self._unanswered.append(self.cycle)

    def _announces_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
            for name, value in self.headers
        )

    @property
    def _limit(self) -> int:
        return self.config.h11_max_incomplete_event_size or 65536

    # -- refusing ---------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, as JSON like every other error, and close."""
        if not self._refused:
            self._refuse(400, "INVALID_REQUEST", msg)

    def _refuse_large_head(self) -> None:
        self._refuse(431, "HEAD_TOO_LARGE", f"the request's head is larger than {self._limit} bytes")

    def _refuse(self, status: int, code: str, details: str) -> None:
        """Answer what cannot be answered otherwise, and close. Requests that still wait are not answered, nor done."""
        waiting = [cycle for cycle in self._unanswered if not cycle.response_complete]
        # One answer to each request: none in the middle of another, and none to one that has been answered.
        answered = not self._in_head and not waiting and bool(self._unanswered)
        if not answered and not any(cycle.response_started for cycle in waiting):
            body = error_body(code, details)
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, HTTPStatus(status).phrase.encode(), len(body), body)
            )
        for cycle in waiting:
            cycle.disconnected = True
            cycle.message_event.set()
        self._end()

    def _end(self) -> None:
        """End the connection from our side.

        A socket that is closed with bytes unread resets its connection, and the client loses the answer that it
        has not read: only our side ends at once, and what still comes is taken and dropped for a moment.
        """
        self._refused = True
        self._forget_head()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():  # TLS has no such thing
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    # -- handing over -----------------------------------------------------------------------------------------

    def hand_over(self) -> HandedOver | None:
        """Take the connection. None where something else is on it: a body, what may be a request, its end."""
        cycle = self.cycle
        busy = self._refused or self._in_head or self.pipeline or cycle.more_body or cycle.response_started
        if busy or self.transport.is_closing():
            return None
        cycle.response_started = cycle.response_complete = True
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._forget_head()
        self.server_state.total_requests += 1
        handed = HandedOver(self.transport, self.server_state.default_headers)
        # The parser holds this protocol, and the scope does through the extension: let go of both.
        for name in ("parser", "scope", "headers", "cycle", "flow", "transport", "app", "_unanswered"):
            setattr(self, name, None)
        return handed
