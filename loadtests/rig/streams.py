"""Requests for streams, and the many loopback addresses that they come from."""

import socket
from collections.abc import Iterator
from itertools import cycle

ADDRESSES = 8
"""Source addresses, so that none runs out of ports, whatever the last rounds have left behind."""

NO_PORT_YET = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
"""Linux's IP_BIND_ADDRESS_NO_PORT, which Python names from 3.12 on."""


def stream_request(secret: str, *headers: str) -> bytes:
    """A request for the stream of an access key's environment."""
    lines = ["GET /v1/stream HTTP/1.1", "host: bench", f"authorization: Bearer {secret}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def source_addresses() -> Iterator[str]:
    """Loopback addresses to connect from, in turns."""
    return cycle([f"127.0.0.{last}" for last in range(1, ADDRESSES + 1)])


def connect(port: int, source: str) -> socket.socket:
    """A connection to a port of this machine. Blocks only where the server's backlog is full."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_IP, NO_PORT_YET, 1)
        sock.bind((source, 0))
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
