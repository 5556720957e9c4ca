"""A bare asyncio server: accepts, reads a request to its blank line, and writes bytes that it was given. No relay."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

import uvloop
from bench import need_descriptors
from rig.companion import Companion, companion

BACKLOG = 4096


class Bare(asyncio.Protocol):
    """One connection: answered once, and kept open."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some of the request."""
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._transport.write(self._answer)  # type: ignore[attr-defined]  # asyncio hands over a BaseTransport


@contextmanager
def bare_server(answer: bytes) -> Iterator[tuple[Companion, int]]:
    """A server that gives everybody the same bytes, and its port."""
    with companion(_serve, answer) as server:
        yield server, server.receive()


def _serve(pipe: Connection, answer: bytes) -> None:
    need_descriptors(1000)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(partial(Bare, answer), "127.0.0.1", 0, backlog=BACKLOG)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
