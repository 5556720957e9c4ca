"""Many SDKs in one epoll: each connects when it is due, and comes back when its relay has gone."""

import heapq
import itertools
import random
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

EVENT = re.compile(rb"event: (?:put|patch|heartbeat)")
ID = re.compile(rb"\nid: ([^\n]+)\n")
NUMBER = re.compile(rb'"n":(\d+)')
AT_ONCE = 200
"""Connections begun between two looks at what came."""


@dataclass(slots=True)
class Sdk:
    """One SDK: where it connects, and what it remembers between connections."""

    ports: list[int]
    """Where it connects; where that has gone, to the next of them from then on."""
    last_id: bytes = b""
    retry: float = 0.0
    open: bool = False
    was_open: bool = False


@dataclass
class Sdks:
    """A number of them.

    Args:
        request: what an SDK sends, given the last event id that it has.
    """

    request: Callable[[bytes], bytes]
    opened: list[float] = field(default_factory=list)
    """When each stream had its first event, in seconds since 1970."""
    lost: list[float] = field(default_factory=list)
    """When each connection was seen to have gone."""
    arrivals: list[tuple[int, float, bool]] = field(default_factory=list)
    """Of each change: its number, when it came, and whether to a stream that was open all along."""
    refused: int = 0

    def __post_init__(self) -> None:
        """Nobody has come yet."""
        self._epoll = select.epoll()
        self._connected: dict[int, tuple[socket.socket, Sdk]] = {}
        self._due: list[tuple[float, int, Sdk]] = []
        self._ticket = itertools.count()

    def come(self, count: int, ports: Sequence[int], *, last_id: bytes = b"") -> None:
        """Have more of them connect at once; each goes to the first port, and when that is gone to the next."""
        for _ in range(count):
            self._later(time.monotonic(), Sdk(list(ports), last_id))

    def _later(self, when: float, sdk: Sdk) -> None:
        heapq.heappush(self._due, (when, next(self._ticket), sdk))

    def until(self, condition: Callable[[], bool], *, within: float = 60.0) -> None:
        """Let them act until a condition holds; ends this process where it does not in time."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                sys.exit(f"{len(self.opened)} streams opened and {len(self.lost)} lost after {within:g} s: not all")
            self._connect_due()
            for descriptor, event in self._epoll.poll(0.005, 512):
                self._serve(descriptor, event)

    def during(self, seconds: float) -> None:
        """Let them act for some time."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, within=seconds + 1)

    def close(self) -> None:
        """Close every connection."""
        for sock, _ in self._connected.values():
            sock.close()
        self._connected.clear()
        self._epoll.close()

    def _connect_due(self) -> None:
        now = time.monotonic()
        for _ in range(AT_ONCE):
            if not self._due or self._due[0][0] > now:
                return
            _, _, sdk = heapq.heappop(self._due)
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", sdk.ports[0]))
            self._connected[sock.fileno()] = sock, sdk
            self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _serve(self, descriptor: int, event: int) -> None:
        sock, sdk = self._connected[descriptor]
        try:
            if event & select.EPOLLOUT:
                sock.send(self.request(sdk.last_id))
                self._epoll.modify(descriptor, select.EPOLLIN)
                return
            data = sock.recv(262_144)
        except OSError:
            data = b""
        if not data or data.startswith(b"HTTP/1.1 503"):
            self._leave(descriptor, data)
        elif not sdk.open:
            self._begin(sdk, data)
        elif b"event: patch" in data:
            now = time.time()
            sdk.last_id = ID.findall(data)[-1]
            self.arrivals += [(int(number), now, not sdk.was_open) for number in NUMBER.findall(data)]

    def _begin(self, sdk: Sdk, data: bytes) -> None:
        """The first bytes of a stream; they may come in several pieces."""
        if told := re.search(rb"retry: (\d+)\n", data):
            sdk.retry = int(told[1]) / 1000
        if named := ID.findall(data):
            sdk.last_id = named[-1]
        if EVENT.search(data):
            sdk.open = True
            self.opened.append(time.time())

    def _leave(self, descriptor: int, data: bytes) -> None:
        sock, sdk = self._connected.pop(descriptor)
        self._epoll.unregister(descriptor)
        sock.close()
        wait = sdk.retry or random.uniform(0.5, 1.5)
        if sdk.open:
            self.lost.append(time.time())
            sdk.open, sdk.was_open = False, True
            sdk.ports.append(sdk.ports.pop(0))
        else:
            self.refused += 1
            told = re.search(rb"retry-after: (\d+)", data)
            wait = int(told[1]) if told else wait
        self._later(time.monotonic() + wait, sdk)
