"""The client's side of one stream: opens it, and can read what comes. Plain, or in TLS."""

import ssl
import zlib

OK = b"HTTP/1.1 200"


class Link:
    """A plain connection. What it has got so far is in `text`."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.text = bytearray()

    def begin(self) -> bytes:
        """What to send first."""
        return self._request

    def feed(self, data: bytes) -> bytes:
        """Take what has come; gives what is to be sent."""
        self.text += data
        return b""

    @property
    def opened(self) -> bool:
        """Whether the stream's head is here."""
        return b"\r\n\r\n" in self.text and not self.refused

    @property
    def refused(self) -> bool:
        """Whether the answer is no stream."""
        return not self.text.startswith(OK[: len(self.text)])

    def body(self) -> bytes:
        """The events so far, without framing and compression."""
        head, _, body = bytes(self.text).partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            body = _unchunked(body)
        return zlib.decompressobj(31).decompress(body) if b"content-encoding: gzip" in head.lower() else body


class TlsLink(Link):
    """A connection in TLS, by hand: what comes and goes are bytes, so that not every stream must be decrypted."""

    def __init__(self, request: bytes, context: ssl.SSLContext) -> None:
        super().__init__(request)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._shaken = False

    def begin(self) -> bytes:
        """The client's hello."""
        return self.feed(b"")

    def feed(self, data: bytes) -> bytes:
        """Shake hands, send the request, decrypt."""
        self._incoming.write(data)
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
                self._tls.write(self._request)
            while more := self._tls.read(65536):
                self.text += more
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()


def tls_context() -> ssl.SSLContext:
    """What clients bring: TLS 1.3. Whose certificate it is has no part in what is measured."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def whole_records(data: bytes) -> int:
    """How many TLS records it is; 0 where the last one has not ended."""
    place = count = 0
    while place + 5 <= len(data):
        place += 5 + int.from_bytes(data[place + 3 : place + 5], "big")
        count += 1
    return count if place == len(data) else 0


def _unchunked(data: bytes) -> bytes:
    parts, place = [], 0
    while (line := data.find(b"\r\n", place)) >= 0:
        length = int(data[place:line].partition(b";")[0], 16)
        parts.append(data[line + 2 : line + 2 + length])
        place = line + 2 + length + 2
    return b"".join(parts)
