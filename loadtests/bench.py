"""What the benchmarks share: their options, a relay to measure, and sockets in bulk that note when something comes."""

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GROUP = 200  # connections opened between two looks at what came


def options(about: str | None, *, rounds: int, **numbers: tuple[int, str]) -> argparse.Namespace:
    """The options of a benchmark: how many rounds, some numbers of its own, and --json.

    Args:
        about: the benchmark's docstring.
        rounds: how many rounds by default.
        numbers: a default and a help text for each option of its own.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def finish(result: dict[str, Any], show: Callable[[dict[str, Any]], None], *, as_json: bool) -> None:
    """Print a result, with what it was measured on."""
    result = {**result, "python": sys.version.split()[0], "cores": os.cpu_count()}
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def summary(values: list[float], digits: int = 3) -> dict[str, float]:
    """Median and spread of a figure over rounds."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def need_descriptors(needed: int) -> None:
    """Raise this process's limit of descriptors as far as it goes, and end where that is not enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if needed > hard:
        sys.exit(f"this needs {needed} descriptors in one process; the limit is {hard}")


class Receiver:
    """Many sockets in one epoll: connects them, and notes when each has what it waits for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}

    def connect(self, port: int, count: int, request: Callable[[], bytes], expected: bytes) -> None:
        """Open connections a group at a time, each group answered before the next."""
        for start in range(0, count, GROUP):
            fresh = range(start, min(start + GROUP, count))
            for _ in fresh:
                sock = socket.create_connection(("127.0.0.1", port))
                if expected:
                    sock.sendall(request())
                sock.setblocking(False)
                self._sockets[sock.fileno()] = sock
                self._epoll.register(sock.fileno(), select.EPOLLIN)
            if expected:
                self.collect(expected, len(fresh))

    def collect(self, expected: bytes, count: int | None = None) -> list[float]:
        """Wait until sockets have received `expected`; when each had, in seconds since 1970."""
        count = len(self._sockets) if count is None else count
        done: dict[int, float] = {}
        deadline = time.monotonic() + 30
        while len(done) < count:
            if time.monotonic() > deadline:
                sys.exit(f"only {len(done)} of {count} streams had the event after 30 s")
            for descriptor, _ in self._epoll.poll(1, 512):
                data = self._sockets[descriptor].recv(65536)
                if not data:
                    sys.exit("a stream was closed")
                if expected in data:
                    done[descriptor] = time.time()
        return list(done.values())

    def last_data(self) -> bytes:
        """What the next readable socket has."""
        descriptor, _ = self._epoll.poll(5, 1)[0]
        return self._sockets[descriptor].recv(65536, socket.MSG_PEEK)

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets.values():
            sock.close()


@contextmanager
def relay_process(redis_url: str, environment: str, *more: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A relay of one environment, and its port."""
    command = [sys.executable, "-m", "flagrelay", "serve", "--port", "0", "--redis-url", redis_url]
    process = subprocess.Popen(
        [*command, "--log-level", "warning", "--env", environment, "--heartbeat-interval", "3600", *more],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield process, int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.kill()
        process.wait()


async def ready(port: int) -> None:
    """Wait until a relay serves."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if answer.startswith(b"HTTP/1.1 200"):
            return
        await asyncio.sleep(0.05)
    sys.exit("the relay is not ready after 10 s")


def free_port() -> int:
    """A loopback port that nobody has, for programs that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def resident(pid: int) -> int:
    """The memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def spread(received: list[float], started: Callable[[], float]) -> dict[str, float]:
    """When the first, the median, the p99 and the last of many came, in milliseconds."""
    since = started()
    waits = sorted((moment - since) * 1000 for moment in received)
    return {
        "first": waits[0],
        "median": waits[len(waits) // 2],
        "p99": waits[int(len(waits) * 0.99)],
        "last": waits[-1],
    }


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median over rounds of each of their figures."""
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
