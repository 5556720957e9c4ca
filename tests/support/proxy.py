"""A TCP proxy that a test holds in its hand: what a network can do to a connection, it does when told.

It stands between a relay and its Redis, or between SDKs and a relay, and knows nothing of what passes, but for one
thing: on a connection that subscribes in Redis it can tell the messages apart, and let a test drop, double or hold
them.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PIECE = 65536
"""The most that is read at once; so much, and what the kernel holds, is on its way in each direction."""

ACCEPTING = 5
"""Turns of the event loop from a connection in the kernel's queue to its task. A server that closes in between leaves
a transport half made, in Python 3.11."""

_SUBSCRIBE = re.compile(rb"\$\d+\r\n[PS]?SUBSCRIBE\r\n", re.IGNORECASE)
_SUBSCRIBE_BYTES = len(b"$10\r\nPSUBSCRIBE\r\n")
_MESSAGE = b"*3\r\n$7\r\nmessage\r\n"
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """A proxy on a loopback port of the system's choice.

    Nothing is buffered without limit: what one side does not take is not read from the other. A connection whose one
    side ends, or breaks, ends or breaks on the other.

    Args:
        backend: where it leads: `unix:/path/redis.sock` or `127.0.0.1:6379`. Assign another for a failover; connections
            that are open stay where they are.
        receive_buffer: bytes that the kernel takes from the backend before we read; None for the system's choice.
    """

    def __init__(self, backend: str, *, receive_buffer: int | None = None) -> None:
        self.backend = backend
        self.port = 0
        self.refusing = False
        """Whether new connections are reset at once."""
        self.delay = 0.0
        """Seconds for which each piece is held back, per direction; what comes meanwhile is the next piece."""
        self.throttle: float | None = None
        """Bytes per second from backend to client, on each connection; None for no limit."""
        self.on_message: Callable[[bytes], list[bytes]] | None = None
        """Gets each RESP2 `message` frame from Redis to a subscriber; returns what is delivered instead of it."""
        self._receive_buffer = receive_buffer
        self._stall = False
        self._up = self._down = self._pubsub_only = False
        self._links: set[_Link] = set()
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        self._server.close()
        tasks = [link.task for link in self._links]
        self.cut()
        if tasks:
            await asyncio.wait(tasks, timeout=10)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # transports that were aborted close in the next turn

    @property
    def connections(self) -> int:
        """Open connections, those included that a blackhole keeps from ending."""
        return len(self._links)

    @property
    def stall(self) -> bool:
        """Whether nothing goes from backend to client, as to a client that does not read."""
        return self._stall

    @stall.setter
    def stall(self, stalled: bool) -> None:
        self._stall = stalled
        self._wake()

    # -- faults -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Every connection is reset, on both sides."""
        for link in list(self._links):
            link.reset()

    def blackhole(self, *, up: bool = True, down: bool = True, pubsub_only: bool = False) -> None:
        """Nothing passes any more, not even the end of a connection, and nobody is told.

        New connections are accepted, and stay silent.

        Args:
            up: from client to backend.
            down: from backend to client.
            pubsub_only: only on connections that subscribe in Redis.
        """
        self._up, self._down, self._pubsub_only = up, down, pubsub_only
        self._wake()

    def restore(self, *, drop: bool = False) -> None:
        """All faults end. What a blackhole held back is delivered; or, with `drop`, those connections are reset."""
        if drop:
            for link in [link for link in self._links if link.held]:
                link.reset()
        self._up = self._down = self._pubsub_only = self._stall = self.refusing = False
        self.delay, self.throttle, self.on_message = 0.0, None, None
        self._wake()

    # -- what passes ------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        link = _Link(task, [writer])
        self._links.add(link)
        try:
            if self.refusing or self._closed:
                link.abort()
            else:
                await self._pass(link, reader, writer)
        except (OSError, asyncio.CancelledError):
            link.abort()  # what broke on one side, or was cut, breaks on the other
        finally:
            # Cut once more while it closes: asyncio's streams complain of tasks that end as cancelled.
            with contextlib.suppress(asyncio.CancelledError):
                await link.close()
            self._links.discard(link)

    async def _pass(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flow(link, up=True)
        far_reader, far_writer = await self._connect()
        link.writers.append(far_writer)
        ways = [
            asyncio.create_task(self._carry_up(link, reader, far_writer)),
            asyncio.create_task(self._carry_down(link, far_reader, writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.backend.startswith("unix:"):
            path = self.backend.removeprefix("unix:")
            return await asyncio.open_unix_connection(path.removeprefix("//"), limit=PIECE)
        host, _, port = self.backend.rpartition(":")
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if self._receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, limit=PIECE)

    async def _carry_up(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = b""
        while data := await self._piece(link, reader, up=True):
            if not link.subscribed and _SUBSCRIBE.search(before + data):
                link.subscribed = True
                await self._flow(link, up=True)  # a blackhole for subscriptions begins with this piece
            before = (before + data)[-_SUBSCRIBE_BYTES:]
            await self._write(link, data, writer, up=True)
        _end(writer)

    async def _carry_down(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        values = RespSplitter()
        while data := await self._piece(link, reader, up=False):
            pieces = values.feed(data) if link.subscribed else [data]
            await self._write(link, b"".join(self._heard(piece) for piece in pieces), writer, up=False)
        await self._write(link, values.rest, writer, up=False)
        _end(writer)

    async def _piece(self, link: "_Link", reader: asyncio.StreamReader, *, up: bool) -> bytes:
        """What comes next, once it may pass; empty at the end, which must be let pass as well.

        Raises:
            OSError: the connection was broken instead.
        """
        broken = None
        try:
            data = await reader.read(PIECE)
        except OSError as error:
            data, broken = b"", error
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flow(link, up=up)
        if broken:
            raise broken
        return data

    async def _flow(self, link: "_Link", *, up: bool) -> None:
        """Wait until things pass in a direction."""
        way = "up" if up else "down"
        while self._swallows(link, up=up) or (self._stall and not up):
            if self._swallows(link, up=up):
                link.held.add(way)
            await self._changed.wait()
        link.held.discard(way)

    def _swallows(self, link: "_Link", *, up: bool) -> bool:
        return (self._up if up else self._down) and (link.subscribed or not self._pubsub_only)

    def _heard(self, value: bytes) -> bytes:
        if self.on_message and value.startswith(_MESSAGE):
            return b"".join(self.on_message(value))
        return value

    async def _write(self, link: "_Link", data: bytes, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Write what may pass; to the client no faster than allowed.

        Raises:
            OSError: the connection is broken there, and the way back is open, by which that is told.
        """
        try:
            while self.throttle and data and not up:
                most = max(1, int(self.throttle / 20))
                await _send(data[:most], writer)
                await asyncio.sleep(len(data[:most]) / self.throttle)
                data = data[most:]
            await _send(data, writer)
        except OSError:
            await self._flow(link, up=not up)
            raise

    def _wake(self) -> None:
        """Let everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the proxy: what carries it, its two sides, and what is known of it."""

    task: "asyncio.Task[None]"
    writers: list[asyncio.StreamWriter]
    subscribed: bool = False
    held: set[str] = field(default_factory=set)

    def reset(self) -> None:
        """Cut it."""
        self.abort()
        self.task.cancel()

    def abort(self) -> None:
        """Break it with a RST on both sides, at once."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            # One that is gone already has none, or a closed one, of which uvloop says that its number is negative.
            with contextlib.suppress(OSError, ValueError):
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def close(self) -> None:
        """Close both sides, once they have taken what was written."""
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _send(data: bytes, writer: asyncio.StreamWriter) -> None:
    if writer.transport.is_closing():  # of which each event loop says another thing
        raise ConnectionResetError("the connection is closed")
    writer.write(data)
    await writer.drain()


def _end(writer: asyncio.StreamWriter) -> None:
    """Tell one side that the other has ended; it may still have something to say."""
    if not writer.transport.is_closing() and writer.can_write_eof():
        writer.write_eof()


class RespSplitter:
    """Bytes in any pieces go in, whole RESP values come out, each as the bytes that it is."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The values that are complete now."""
        self.rest += data
        values, start = [], 0
        while (end := _end_of_value(self.rest, start)) is not None:
            values.append(self.rest[start:end])
            start = end
        self.rest = self.rest[start:]
        return values


def _end_of_value(data: bytes, start: int) -> int | None:
    """Where the value that begins at `start` ends; None where it is not complete."""
    open_values = 1
    while open_values:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        kind, head = data[start : start + 1], data[start + 1 : line_end]
        start = line_end + 2
        open_values -= 1
        if kind == b"*":
            open_values += max(0, int(head))
        elif kind == b"$" and int(head) >= 0:
            start += int(head) + 2
            if start > len(data):
                return None
    return start
