"""Holds many streams in a process of its own, and notes when each has which revision."""

import gc
import select
import socket
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench import GROUP, need_descriptors
from rig.companion import Companion, companion, own_cpu_seconds
from rig.streams import connect, source_addresses

END = b"\n\n\r\n"
"""What an event ends with, as the last of its HTTP chunk."""

STATE = b"\nevent: p"
"""What stands behind the id of a `put` and of a `patch`, and of nothing else."""

KEPT = 160
"""Bytes kept of an event that has not ended: an id that came in two pieces is among them."""

BUFFER = 262_144


@dataclass(frozen=True, slots=True)
class Seen:
    """What streams got of some changes.

    Args:
        delays: how long a change took to a stream, in milliseconds: first, median, p99 and last of all pairs.
        lasts: how long each change took to the last stream that got it, in milliseconds, in the order of changes.
        missing: how many deliveries did not come: pairs of a change and a stream.
        revisions: how many revisions all streams went on by, whether one by one or several at once.
        reads: how many times something was read from a stream.
        last_at: when the last of it came, in seconds since 1970.
        busy: the watcher's own share of a core.
    """

    delays: dict[str, float]
    lasts: list[float]
    missing: int
    revisions: int
    reads: int
    last_at: float
    busy: float


class Watcher:
    """The near end: tells the process what to note, and asks what it has."""

    def __init__(self, process: Companion) -> None:
        self._process = process

    def begin(self) -> None:
        """Forget what was noted so far, and note what comes."""
        self._process.ask(("begin",))

    def seen(self, written: Mapping[int, float], within: float = 30.0) -> Seen:
        """What came of the changes since `begin`, once every stream has the last of them, or the time is over.

        Args:
            written: when each change was written, in seconds since 1970, by revision.
            within: seconds.
        """
        seen: Seen = self._process.ask(("seen", dict(written), within), within + 60)
        return seen


@contextmanager
def watcher(port: int, request: bytes, streams: int) -> Iterator[Watcher]:
    """Open streams, and hold them while the block lasts."""
    with companion(_watch, port, request, streams) as process:
        process.receive()
        yield Watcher(process)


# -- the far end ------------------------------------------------------------------------------------------------------


def _watch(pipe: Connection, port: int, request: bytes, streams: int) -> None:
    need_descriptors(streams + 100)
    held = _Held()
    held.open(port, request, streams)
    held.forget()
    gc.freeze()
    gc.disable()  # what is noted has no cycles, and a collection would be taken for the relay's delay
    pipe.send("open")
    while True:
        held.read(0.01)
        if pipe.poll():
            match pipe.recv():
                case ("begin",):
                    held.forget()
                    pipe.send("noting")
                case ("seen", written, within):
                    held.read_until(max(written, default=0), within)
                    pipe.send(held.seen(written))


class _Held:
    """The streams, each with the revision that it has."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._revisions: dict[int, int] = {}
        self._unended: dict[int, tuple[int, int, bytes]] = {}
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._goal = 0
        self._behind = 0
        self.forget()

    def open(self, port: int, request: bytes, count: int) -> None:
        """Open streams a group at a time, each group with its `put` before the next."""
        sources = source_addresses()
        for start in range(0, count, GROUP):
            for _ in range(min(GROUP, count - start)):
                sock = connect(port, next(sources))
                sock.send(request)
                self._epoll.register(sock, select.EPOLLIN)
                self._sockets[sock.fileno()] = sock
                self._revisions[sock.fileno()] = -1
            self.read_until(0, 30)

    def forget(self) -> None:
        """Note from here on."""
        self._began = dict(self._revisions)
        self._notes: list[tuple[float, int, int]] = []
        self._reads = 0
        self._since = time.monotonic(), own_cpu_seconds()

    def read_until(self, revision: int, within: float) -> None:
        """Read until every stream has a revision, or the time is over."""
        self._goal = revision
        self._behind = sum(has < revision for has in self._revisions.values())
        deadline = time.monotonic() + within
        while self._behind and time.monotonic() < deadline:
            self.read(0.01)

    def read(self, timeout: float) -> None:
        """Read what there is."""
        for descriptor, _ in self._epoll.poll(timeout, 1024):
            self._take(descriptor)

    def _take(self, descriptor: int) -> None:
        buffer = self._buffer
        pending, before, kept = self._unended.pop(descriptor, (-1, -1, b""))
        begin = len(kept)
        buffer[:begin] = kept
        received = self._sockets[descriptor].recv_into(self._view[begin:])
        now = time.time()
        if not received:
            sys.exit("the relay has closed a stream")
        self._reads += 1
        end = begin + received
        found = buffer.rfind(STATE, max(0, begin - len(STATE)), end)
        if found >= 0:
            pending = int(buffer[buffer.rfind(b".", 0, found) + 1 : found])
            # Of patches that come in one piece all but the last have ended; what a `put` replaces is unknown.
            before = pending - 1 if buffer[found + len(STATE) : found + len(STATE) + 1] == b"a" else -1
        if buffer[end - len(END) : end] == END:
            has = pending
        else:
            has = before
            self._unended[descriptor] = pending, before, bytes(buffer[max(0, end - KEPT) : end])
        if has > (had := self._revisions[descriptor]):
            self._behind -= had < self._goal <= has
            self._revisions[descriptor] = has
            self._notes.append((now, descriptor, has))

    def seen(self, written: dict[int, float]) -> Seen:
        """What is noted, of the changes that were written."""
        began, cpu = self._since
        busy = (own_cpu_seconds() - cpu) / (time.monotonic() - began)
        had = dict(self._began)
        order = sorted(written)
        delays: list[float] = []
        lasts: dict[int, float] = {}
        for when, descriptor, has in self._notes:
            for revision in order[bisect_right(order, had[descriptor]) : bisect_right(order, has)]:
                lasts[revision] = (when - written[revision]) * 1000
                delays.append(lasts[revision])
            had[descriptor] = has
        return Seen(
            delays=_spread(delays),
            lasts=[lasts[revision] for revision in order if revision in lasts],
            missing=len(order) * len(had) - len(delays),
            revisions=sum(had.values()) - sum(self._began.values()),
            reads=self._reads,
            last_at=self._notes[-1][0] if self._notes else 0.0,
            busy=busy,
        )


def _spread(delays: list[float]) -> dict[str, float]:
    if not delays:
        return {}
    delays.sort()
    median, p99 = (delays[int(len(delays) * q)] for q in (0.5, 0.99))
    return {"first": delays[0], "median": median, "p99": p99, "last": delays[-1]}
