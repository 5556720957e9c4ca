"""One stream, read byte by byte: how many bytes each event is on the wire, whatever it is encoded with."""

import re
import socket
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from rig.streams import connect

TIMEOUT_S = 10.0
GZIP = 16 + zlib.MAX_WBITS
EVENT = re.compile(rb"^event: (\w+)$", re.MULTILINE)


@contextmanager
def tap(port: int, request: bytes) -> Iterator["Tap"]:
    """A stream, while the block lasts."""
    with connect(port, "127.0.0.1") as sock:
        yield Tap(sock, request)


class Tap:
    """A stream whose chunks are counted; flagrelay sends each event as a chunk of its own."""

    def __init__(self, sock: socket.socket, request: bytes) -> None:
        self._socket = sock
        self._socket.settimeout(TIMEOUT_S)
        self._socket.sendall(request)
        self._received = b""
        head = self._until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"a stream was refused: {head!r}")
        self.head_bytes = len(head)
        self.compressed = b"\r\ncontent-encoding: gzip\r\n" in head.lower()
        self._inflate = zlib.decompressobj(GZIP)

    def event(self, kind: str) -> int:
        """How many bytes the next event of a kind is, framing included; whatever comes before it is left out."""
        while True:
            size, text = self._chunk()
            kinds = EVENT.findall(text)
            if len(kinds) > 1:
                sys.exit(f"a chunk holds more than one event: {kinds}")
            if kinds == [kind.encode()]:
                return size

    def _chunk(self) -> tuple[int, bytes]:
        """The next chunk: how many bytes it is, and what it says."""
        line = self._until(b"\r\n")
        content = self._exactly(int(line, 16) + 2)
        text = content[:-2]
        return len(line) + len(content), self._inflate.decompress(text) if self.compressed else text

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._receive()
        taken, found, self._received = self._received.partition(end)
        return taken + found

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            sys.exit("the relay has closed a stream")
        self._received += data
