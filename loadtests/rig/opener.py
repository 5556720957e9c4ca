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

PATIENCE_S = 60.0
"""How long streams may take to be open, all together."""

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

    Args:
        port: of the server.
        request: for a stream.
        whole: how many bytes it begins with. All must begin with the same: give a relay the setting `--retry 0`.
    """

    def __init__(self, port: int, request: bytes, whole: int) -> None:
        self.waits: list[float] = []
        """How long each stream took to be open, from when it was due, in seconds."""
        self._port = port
        self._request = request
        self._whole = whole
        self._buffer = bytearray(1 << 20)
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._lacking: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._sources = source_addresses()

    def open(self, count: int) -> Opened:
        """Open streams as fast as the server takes them; returns once each has its whole `put`."""
        cpu, began = own_cpu_seconds(), time.monotonic()
        started = 0
        while len(self.waits) < count:
            while started < count and len(self._lacking) < IN_FLIGHT:
                self.start(time.monotonic())
                started += 1
            self.poll(1)
            if time.monotonic() > began + PATIENCE_S:
                sys.exit(f"{count - len(self.waits)} of {count} streams are not open after {PATIENCE_S:g} s")
        return Opened(time.monotonic() - began, own_cpu_seconds() - cpu)

    def start(self, due: float) -> None:
        """Connect, and ask for a stream."""
        sock = connect(self._port, next(self._sources))
        sock.send(self._request)
        self._epoll.register(sock, select.EPOLLIN)
        self._sockets[sock.fileno()] = sock
        self._lacking[sock.fileno()] = self._whole
        self._due[sock.fileno()] = due

    def poll(self, timeout: float) -> None:
        """Take what has come."""
        for descriptor, _ in self._epoll.poll(timeout, IN_FLIGHT):
            received = self._sockets[descriptor].recv_into(self._buffer, 0, socket.MSG_TRUNC)
            if not received:
                sys.exit("the server has closed a stream that was being opened")
            if descriptor in self._lacking:
                self._lacking[descriptor] -= received
                if self._lacking[descriptor] <= 0:
                    del self._lacking[descriptor]
                    self.waits.append(time.monotonic() - self._due[descriptor])

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
