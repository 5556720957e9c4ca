"""Opens streams at a steady rate from a process of its own, whether or not those before them are open."""

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from bench import need_descriptors
from rig.companion import Companion, companion
from rig.opener import Opener, first_bytes

PATIENCE_S = 10.0
"""How long streams may take to be open after the last one was due."""


class Joiner:
    """The near end."""

    def __init__(self, process: Companion) -> None:
        self._process = process

    def begin(self, rate: float, seconds: float) -> None:
        """Begin to open so many streams a second."""
        self._process.send((rate, seconds))

    def end(self) -> dict[str, float]:
        """Wait until all are open, and close them.

        Returns:
            How many a second were open (`joined_per_second`, from the first that was due to the last that was open),
            and when the median, the p99 and the last was, in milliseconds from when it was due.
        """
        joined: dict[str, float] = self._process.receive()
        return joined


@contextmanager
def joiner(port: int, request: bytes) -> Iterator[Joiner]:
    """A process that opens streams at a server, while the block lasts."""
    with companion(_join, port, request) as process:
        process.receive()
        yield Joiner(process)


# -- the far end ------------------------------------------------------------------------------------------------------


def _join(pipe: Connection, port: int, request: bytes) -> None:
    need_descriptors(15_000)
    whole = len(first_bytes(port, request))
    gc.freeze()
    pipe.send("ready")
    while True:
        rate, seconds = pipe.recv()
        opener = Opener(port, request, whole)
        try:
            pipe.send(_open(opener, rate, round(rate * seconds)))
        finally:
            opener.close()


def _open(opener: Opener, rate: float, count: int) -> dict[str, float]:
    """Open streams, each when it is due."""
    began = time.monotonic()
    deadline = began + count / rate + PATIENCE_S
    started = 0
    while len(opener.waits) < count:
        while started < count and (due := began + started / rate) <= time.monotonic():
            opener.start(due)
            started += 1
        opener.poll(max(0.0, began + started / rate - time.monotonic()) if started < count else 0.1)
        if time.monotonic() > deadline:
            sys.exit(f"{count - len(opener.waits)} of {count} streams that join are not open")
    took = time.monotonic() - began
    waits = sorted(wait * 1000 for wait in opener.waits)
    return {
        "joined_per_second": count / took,
        "open_median": waits[count // 2],
        "open_p99": waits[int(count * 0.99)],
        "open_last": waits[-1],
    }
