"""Many streams in a process of its own, which notes when each has an event. Knows nothing of who serves them.

One epoll, and for each stream that has something one read, one look at its last bytes and one look at the clock. How a
server ends an event is learnt from the first one. Streams in TLS are not decrypted, since that would be what is
measured: their records are counted. A sample of all streams keeps what it has got, and is read at the end.
"""

import gc
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench import GROUP, need_descriptors
from rig.companion import Companion, companion, own_cpu_seconds
from rig.cores import keep_receiver_apart
from rig.event import rounds_in
from rig.links import Link, TlsLink, tls_context, whole_records
from rig.streams import connect, source_addresses

QUIET = 0.3
"""Seconds without a byte after which nothing more is on its way."""

SAMPLE = 16
"""Streams that are read at the end."""

OPENING = 120.0
"""Seconds in which all streams are to be open."""

PIECE = 16_384
END_LENGTH = 4
"""Bytes at the end of an event by which it is known that it is whole; each server's framing is in them."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One event, at all streams.

    Args:
        began: when the process began to look, in seconds since 1970.
        times: when each stream had it, in order.
        bytes_each: what each stream got.
        cpu: what the process used of the CPU, in seconds.
    """

    began: float
    times: list[float]
    bytes_each: float
    cpu: float


class Crowd:
    """The near end.

    Args:
        process: the far end.
        asked_again: how many streams the server has refused or closed while they were opened; others stand for them.
    """

    def __init__(self, process: Companion, asked_again: int) -> None:
        self.asked_again = asked_again
        self._process = process

    def learn(self) -> None:
        """Let the first event come, which tells how events end."""
        self._process.ask("learn")

    def begin(self) -> None:
        """Look for one event from here on; `arrivals` has it."""
        self._process.ask("collect")

    def arrivals(self) -> Arrivals:
        """The event that was looked for, once all streams have it."""
        arrivals: Arrivals = self._process.receive()
        return arrivals

    def verify(self, expected: Sequence[int]) -> None:
        """Read the sample: each must have got all events of these rounds, once and in order."""
        for got in self._process.ask("sample"):
            if got != list(expected):
                sys.exit(f"a stream was to get the events {expected}, and got {got}")


@contextmanager
def crowd(
    port: int, request: bytes, streams: int, *, tls: bool = False, at_once: int = GROUP, apart: bool = True
) -> Iterator[Crowd]:
    """Open streams, so many at once, and hold them while the block lasts."""
    with companion(_hold, port, request, streams, tls, at_once, apart) as process:
        yield Crowd(process, process.receive(OPENING + 30))


# -- the far end ------------------------------------------------------------------------------------------------------


def _hold(
    pipe: Connection,
    port: int,
    request: bytes,
    streams: int,
    tls: bool,  # noqa: FBT001 - a companion's arguments have no names
    at_once: int,
    apart: bool,  # noqa: FBT001 - as above
) -> None:
    need_descriptors(streams + 100)
    if apart:
        keep_receiver_apart()
    held = _Tls() if tls else _Plain()
    again = held.open(port, request, streams, at_once)
    gc.freeze()
    gc.disable()  # a collection here would be taken for the server's delay
    pipe.send(again)
    while True:
        match pipe.recv():
            case "learn":
                pipe.send(held.learn())
            case "collect":
                pipe.send(held.collect(lambda: pipe.send("looking")))
            case "sample":
                pipe.send(held.sample())


class _Plain:
    """The streams."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._links: dict[int, Link] = {}
        self._samples: dict[int, bytearray] = {}
        self._unopened: set[int] = set()
        self._ends = b""

    def link(self, request: bytes) -> Link:
        """How a stream is opened."""
        return Link(request)

    def open(self, port: int, request: bytes, count: int, at_once: int) -> int:
        """Open streams a few at a time, each few with their heads before the next, until all are open and silent.

        Returns how many had to be asked for again, because the server had refused or closed them.
        """
        sources = source_addresses()
        deadline = time.monotonic() + OPENING
        asked = 0
        while lacking := count - len(self._sockets):
            for _ in range(min(at_once, lacking)):
                self._start(connect(port, next(sources)), self.link(request))
                asked += 1
            while self._unopened or (len(self._sockets) == count and self._feed(QUIET)):
                self._feed(0.1)
                if time.monotonic() > deadline:
                    sys.exit(f"only {len(self._sockets) - len(self._unopened)} of {count} streams are open")
        every = max(1, count // SAMPLE)
        self._links = dict(list(self._links.items())[::every])
        self._samples = {descriptor: bytearray() for descriptor in self._links}
        return asked - count

    def _start(self, sock: socket.socket, link: Link) -> None:
        sock.send(link.begin())
        self._epoll.register(sock, select.EPOLLIN)
        self._sockets[sock.fileno()], self._links[sock.fileno()] = sock, link
        self._unopened.add(sock.fileno())

    def _feed(self, timeout: float) -> bool:
        """Let links have what has come; whether anything has. A stream that is refused will be asked for again."""
        ready = self._epoll.poll(timeout, 1024)
        for descriptor, _ in ready:
            data = os.read(descriptor, PIECE)
            link, sock = self._links[descriptor], self._sockets[descriptor]
            if answer := link.feed(data):
                sock.send(answer)
            if not data or link.refused:
                self._unopened.discard(descriptor)
                del self._links[descriptor], self._sockets[descriptor]
                sock.close()
            elif link.opened:
                self._unopened.discard(descriptor)
        return bool(ready)

    def _read(self, descriptor: int) -> bytes:
        data = os.read(descriptor, PIECE)
        if not data:
            sys.exit("the server has closed a stream")
        if descriptor in self._samples:
            self._samples[descriptor] += data
        return data

    def learn(self) -> int:
        """Take the first event, until nothing more comes. Returns how many streams have it."""
        got: dict[int, bytes] = {}
        deadline = time.monotonic() + 60
        while len(got) < len(self._sockets) and time.monotonic() < deadline:
            while ready := self._epoll.poll(QUIET, 1024):
                for descriptor, _ in ready:
                    got[descriptor] = got.get(descriptor, b"") + self._read(descriptor)
        if len(got) < len(self._sockets):
            sys.exit(f"only {len(got)} of {len(self._sockets)} streams had the first event after 60 s")
        self.note_end(next(iter(got.values())))
        return len(got)

    def note_end(self, event: bytes) -> None:
        """Remember how an event ends."""
        self._ends = event[-END_LENGTH:]

    def collect(self, looking: Callable[[], None]) -> Arrivals:
        """Take one event at every stream; says when it begins to look."""
        poll, whole, read, now = self._epoll.poll, self.whole, self._read, time.time
        count = len(self._sockets)
        got = dict.fromkeys(self._sockets, 0)
        times: list[float] = []
        cpu, began = own_cpu_seconds(), now()
        looking()
        deadline = began + 30
        while len(times) < count:
            for descriptor, _ in poll(1, 1024):
                data = read(descriptor)
                got[descriptor] += len(data)
                if whole(descriptor, data):
                    times.append(now())
            if now() > deadline:
                sys.exit(f"only {len(times)} of {count} streams had the event after 30 s")
        if len(set(got.values())) != 1:
            sys.exit(f"streams got different numbers of bytes: {sorted(set(got.values()))}")
        return Arrivals(began, times, got.popitem()[1], own_cpu_seconds() - cpu)

    def whole(self, descriptor: int, data: bytes) -> bool:  # noqa: ARG002 - streams in TLS have a memory for each
        """Whether a stream has all of the event now."""
        return data.endswith(self._ends)

    def sample(self) -> list[list[int]]:
        """The rounds whose events each stream of the sample has got."""
        for descriptor, link in self._links.items():
            link.feed(bytes(self._samples[descriptor]))
            self._samples[descriptor].clear()
        return [rounds_in(link.body()) for link in self._links.values()]


class _Tls(_Plain):
    """Streams in TLS: an event is so many records."""

    def __init__(self) -> None:
        super().__init__()
        self._context = tls_context()
        self._begun: dict[int, bytes] = {}
        self._records = 0

    def link(self, request: bytes) -> Link:
        """How a stream is opened."""
        return TlsLink(request, self._context)

    def note_end(self, event: bytes) -> None:
        """Remember how many records an event is."""
        self._records = whole_records(event)

    def whole(self, descriptor: int, data: bytes) -> bool:
        """Whether a stream has all records of the event."""
        data = self._begun.pop(descriptor, b"") + data
        if whole_records(data) >= self._records:
            return True
        self._begun[descriptor] = data
        return False
