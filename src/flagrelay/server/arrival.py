"""New connections: what asks for a stream gets it here; anything else becomes uvicorn's connection.

Most connections of a relay ask for one thing, once, in one piece: a stream. Opening it takes no waiting, so it takes no
task, no cycle, no middleware and no route either, which are most of what a new stream costs. Only what is certain to
become a stream is answered here. Everything else, a request that is refused included, is passed on as it came, with
nothing done: to `HandoverProtocol`, and through it to the application.
"""

import asyncio
import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from uvicorn.config import Config
from uvicorn.server import ServerState

from flagrelay.server.context import Context
from flagrelay.server.evaluations import evaluations_of_query, refetches
from flagrelay.server.handover import EXTENSION, HandedOver, HandoverProtocol
from flagrelay.server.ofrep import EVENTS
from flagrelay.server.pace import Pace, Turn
from flagrelay.server.streams import Ask, begin_at_once, definitions

STREAMS: dict[bytes, Ask] = {
    b"/v1/stream": definitions,
    b"/v1/evaluations/stream": evaluations_of_query,
    EVENTS.encode(): refetches,
}
"""What opens streams by GET, and how."""

_HEAD = re.compile(
    rb"GET (/[a-z0-9/]+)(?:\?([\w.~%=&+/-]*))? HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n", re.ASCII
)
"""A head with nothing in it that is seldom, ambiguous, or an attempt at something."""

_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"connection"})
"""Headers that make more of a request than a request for a stream."""

Headers = list[tuple[bytes, bytes]]


def plain_request(data: bytes) -> tuple[bytes, bytes, Headers] | None:
    """The path, the query and the headers of bytes that are one plain GET, complete; None for anything else."""
    match = _HEAD.fullmatch(data)
    if match is None:
        return None
    headers = []
    hosts = 0
    for line in match[3].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name in _UNUSUAL and (name, value.lower()) != (b"connection", b"keep-alive"):
            return None
        hosts += name == b"host"
        headers.append((name, value))
    return (match[1], match[2] or b"", headers) if hosts == 1 else None


class Arrivals:
    """Where uvicorn's server gets a protocol for each new connection.

    Args:
        app: which answers what is no stream.
        pace: of reading from new connections.
        head_timeout: seconds that a connection may say nothing.
        most_head: bytes that a head may have.
        following: makes the protocol of a connection that is passed on.
    """

    def __init__(
        self,
        app: Starlette,
        *,
        pace: Pace,
        head_timeout: float,
        most_head: int,
        following: Callable[..., HandoverProtocol],
    ) -> None:
        self.app = app
        self.pace = pace
        self.most_head = most_head
        self.following = following
        self._head_timeout = head_timeout
        self.silent: dict[Arrival, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **_: object) -> "Arrival":
        """A protocol for a new connection, as uvicorn asks for one."""
        return Arrival(self, config, server_state, app_state)

    def expect(self, arrival: "Arrival") -> None:
        """Have a connection say something in time. One timer serves all: they are overdue in the order they came."""
        loop = asyncio.get_running_loop()
        self.silent[arrival] = loop.time() + self._head_timeout
        if self._timer is None:
            self._timer = loop.call_later(self._head_timeout, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for arrival in list(takewhile(lambda each: self.silent[each] <= now, self.silent)):
            del self.silent[arrival]
            arrival.shutdown()
        first = next(iter(self.silent), None)
        self._timer = loop.call_at(self.silent[first], self._look) if first else None


class Arrival(asyncio.Protocol):
    """A connection of which nothing is known yet.

    Args:
        arrivals: where it came in.
        config: uvicorn's.
        server_state: uvicorn's: `connections` are what its shutdown ends.
        app_state: uvicorn's.
    """

    __slots__ = ("_app_state", "_arrivals", "_config", "_data", "_server_state", "_transport")

    def __init__(
        self, arrivals: Arrivals, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._arrivals = arrivals
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._data = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection; where many come at once it waits to be read until its turn."""
        self._transport = transport
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # it asks them only for `shutdown`
        self._arrivals.expect(self)
        if self._arrivals.pace.enter(self._begin_reading) is Turn.LATER:
            transport.pause_reading()

    def _begin_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """Close: the server stops, or nothing has come in time."""
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is no more."""
        self._let_go()

    def _let_go(self) -> None:
        self._arrivals.silent.pop(self, None)
        self._server_state.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """A request for a stream, or anything else."""
        if self._data:  # what is behind a request makes it another's business
            self._pass_on(self._data + data)
            return
        request = plain_request(data) if len(data) <= self._arrivals.most_head else None
        ask = STREAMS.get(request[0]) if request else None
        if request is None or ask is None:
            self._pass_on(data)
            return
        self._data = data
        self._arrivals.silent.pop(self, None)
        context: Context = self._arrivals.app.state.context

        def open_it() -> None:
            if not self._data or self._transport.is_closing():
                return  # passed on meanwhile, or lost
            try:
                opened = begin_at_once(context, self._request(*request), ask)
            except Exception:  # noqa: BLE001 - the application meets it as well, which logs it and answers
                opened = False
            if not opened:
                self._pass_on(self._data)

        match context.pace.enter(open_it):
            case Turn.NOW:
                open_it()
            case Turn.NEVER:
                self._pass_on(data)

    def _request(self, path: bytes, query: bytes, headers: Headers) -> Request:
        return Request(
            {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "path": path.decode(),
                "query_string": query,
                "headers": headers,
                "client": self._transport.get_extra_info("peername"),
                "app": self._arrivals.app,
                "extensions": {EXTENSION: self._hand_over},
            }
        )

    def _hand_over(self) -> HandedOver:
        self._let_go()
        self._data = b""
        self._server_state.total_requests += 1
        return HandedOver(self._transport, self._server_state.default_headers)

    def _pass_on(self, data: bytes) -> None:
        """Let uvicorn have the connection, and what has come on it so far."""
        self._let_go()
        self._data = b""
        if not data:  # it failed half-way through being a stream
            self._transport.abort()
            return
        protocol = self._arrivals.following(self._config, self._server_state, self._app_state)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)
