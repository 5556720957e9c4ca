"""Opens streams as fast as a server lets it: one epoll, a few connections on their way at any time."""

import select
import socket
import sys
import time
from dataclasses import dataclass

from rig.companion import own_cpu_seconds
from rig.streams import connect, source_addresses

IN_FLIGHT = 64
"""Connections that are on their way at once."""

QUIET = 0.3
"""Seconds after which a stream that has begun says nothing more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """How long it took, from the first connection to the last whole `put`, and what it took of the client's CPU."""

    seconds: float
    client_cpu: float


class Opener:
    """Opens streams, and holds them.

    A stream is open once it has as many bytes as one has that was opened alone (`first_bytes`), so nothing is parsed,
    and the kernel drops them without copying (MSG_TRUNC): what is measured is the server.
    """

    def __init__(self, port: int, request: bytes, whole: int) -> None:
        self._port = port
        self._request = request
        self._whole = whole
        self._buffer = bytearray(1 << 20)
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._lacking: dict[int, int] = {}
        self._sources = source_addresses()

    def open(self, count: int) -> Opened:
        """Open streams; returns once each has its whole `put`."""
        cpu, began = own_cpu_seconds(), time.perf_counter()
        deadline = time.monotonic() + 60
        to_start = count
        while to_start or self._lacking:
            for _ in range(min(to_start, IN_FLIGHT - len(self._lacking))):
                self._start()
                to_start -= 1
            for descriptor, _ in self._epoll.poll(1, IN_FLIGHT):
                self._take(descriptor)
            if time.monotonic() > deadline:
                sys.exit(f"{to_start + len(self._lacking)} of {count} streams are not open after 60 s")
        return Opened(time.perf_counter() - began, own_cpu_seconds() - cpu)

    def _start(self) -> None:
        sock = connect(self._port, next(self._sources))
        sock.send(self._request)
        self._epoll.register(sock, select.EPOLLIN)
        self._sockets[sock.fileno()] = sock
        self._lacking[sock.fileno()] = self._whole

    def _take(self, descriptor: int) -> None:
        received = self._sockets[descriptor].recv_into(self._buffer, 0, socket.MSG_TRUNC)
        if not received:
            sys.exit("the server has closed a stream that was being opened")
        if descriptor in self._lacking:
            self._lacking[descriptor] -= received
            if self._lacking[descriptor] <= 0:
                del self._lacking[descriptor]

    def close(self) -> None:
        """Close every stream."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._epoll.close()


def first_bytes(port: int, request: bytes) -> bytes:
    """What a new stream begins with: the response's head, and all events until it falls silent."""
    with connect(port, "127.0.0.1") as sock:
        sock.send(request)
        sock.settimeout(10)
        received = sock.recv(1 << 20)
        sock.settimeout(QUIET)
        while True:
            try:
                more = sock.recv(1 << 20)
            except TimeoutError:
                break
            if not more:
                sys.exit(f"a stream was closed: {received[:200]!r}")
            received += more
    if not received.startswith(b"HTTP/1.1 200"):
        sys.exit(f"a stream was refused: {received[:200]!r}")
    return received
