"""How long until the last of N streams has a change, beside the floor: a bare loop of `socket.send`.

    python loadtests/fanout.py --streams 8000 --rounds 15

Five processes: a private Redis, a relay, a writer, a floor server that sends the same bytes to as many sockets in a
bare loop, and this one, which holds all streams and notes when each has each change. Relay and floor take turns, so a
noisy machine is noisy for both. Times of the relay run from Redis's own clock at the write (`at`), so they
include publishing; times of the floor run from its first send.
"""

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
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flagrelay.cli.private_redis import private_redis
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, write_change

ENVIRONMENT = "bench"
FLAG = "checkout-v2"
PADDING = "x" * 120  # makes the event about 450 bytes, as a real flag with a rule has
GROUP = 200  # connections opened between two looks at what came


def main() -> None:
    options = _options()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = options.streams * 2 + 100
    if needed > hard:
        sys.exit(f"{options.streams} streams need {needed} descriptors in this process; the limit is {hard}")
    result = asyncio.run(_measure(options))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    with private_redis() as redis, relay_process(redis.url, ENVIRONMENT) as (relay, port):
        async with open_store(RedisAddress(redis.url)) as store:
            await create_environment(store, ENVIRONMENT)
            await _publish(store, 0)
            _, secret = await create_access_key(store, ENVIRONMENT, "server", "bench", None)
            await ready(port)
            console.log(f"opening {options.streams} streams")
            memory_before = resident(relay.pid)
            streams = Receiver()
            opened = time.perf_counter()
            streams.connect(port, options.streams, lambda: _request(secret), b"event: put")
            opened = time.perf_counter() - opened
            await asyncio.sleep(1)  # let the relay free what the requests used
            memory_after = resident(relay.pid)
            event = await _one_event(store, streams)
            with _floor(options.streams, event) as (bare, pipe), _publisher(redis.url) as publisher:
                streams.collect(b"event: patch")  # what the writer wrote to warm up
                relay_rounds, floor_rounds = [], []
                for round_ in range(1, options.rounds + 1):
                    publisher.send(round_)
                    relay_rounds.append(spread(streams.collect(b"event: patch"), publisher.recv))
                    await asyncio.sleep(0.2)
                    pipe.send(None)
                    floor_rounds.append(spread(bare.collect(b"event: patch"), pipe.recv))
                    await asyncio.sleep(0.2)
                    ours, floor = relay_rounds[-1]["last"], floor_rounds[-1]["last"]
                    console.log(f"round {round_}: last {ours:.1f} ms, floor {floor:.1f} ms")
            streams.close()
    ratios = [one["last"] / other["last"] for one, other in zip(relay_rounds, floor_rounds, strict=True)]
    return {
        "streams": options.streams,
        "rounds": options.rounds,
        "event_bytes": len(event),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "opened_per_second": round(options.streams / opened),
        "bytes_per_idle_stream": round((memory_after - memory_before) / options.streams),
        "relay_ms": _medians(relay_rounds),
        "floor_ms": _medians(floor_rounds),
        "last_over_floor": {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        },
    }


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


def _floor_server(port: Connection, count: int, event: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port.send(listener.getsockname()[1])
        connections = [listener.accept()[0] for _ in range(count)]
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port.send("connected")
    while True:
        try:
            port.recv()
        except EOFError:
            return
        started = time.time()
        for connection in connections:
            connection.send(event)
        port.send(started)


def _publisher_process(port: Connection, redis_url: str) -> None:
    async def serve() -> None:
        async with open_store(RedisAddress(redis_url)) as store:
            while True:
                try:
                    number = port.recv()
                except EOFError:
                    return
                port.send(await _publish(store, number))

    asyncio.run(serve())


@contextmanager
def _publisher(redis_url: str) -> Iterator[Connection]:
    """A writer in a process of its own, so that publishing and receiving do not wait for each other."""
    ours, theirs = Pipe()
    process = Process(target=_publisher_process, args=(theirs, redis_url), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.send(0)
        ours.recv()  # connected, and warm
        yield ours
    finally:
        ours.close()
        process.join(5)
        process.kill()


@contextmanager
def _floor(count: int, event: bytes) -> Iterator[tuple[Receiver, Connection]]:
    ours, theirs = Pipe()
    process = Process(target=_floor_server, args=(theirs, count, event), daemon=True)
    process.start()
    theirs.close()
    receiver = Receiver()
    try:
        receiver.connect(ours.recv(), count, bytes, b"")
        ours.recv()
        yield receiver, ours
    finally:
        receiver.close()
        ours.close()
        process.join(5)
        process.kill()


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


async def _publish(store: Store, number: int) -> float:
    variants = {"on": True, "off": False}
    rule = {"if": [{"in": [{"var": "email"}, ["ada@example.com", PADDING]]}, "on", "off"]}
    flag = {
        "state": "ENABLED",
        "variants": variants,
        "defaultVariant": "off",
        "targeting": rule,
        "metadata": {"round": number},
    }
    written = await write_change(store, ENVIRONMENT, Draft(flags={FLAG: flag}, actor="bench"))
    return written.at / 1e6


async def _one_event(store: Store, streams: Receiver) -> bytes:
    """The bytes of one change, as they come: the floor sends the same."""
    await _publish(store, -1)
    event = streams.last_data()
    streams.collect(b"event: patch")
    return event


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


def _request(secret: str) -> bytes:
    return f"GET /v1/stream HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {secret}\r\n\r\n".encode()


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


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}


def _show(result: dict[str, Any]) -> None:
    title = f"{result['streams']} streams, {result['event_bytes']} bytes, medians of {result['rounds']} rounds"
    table = Table("milliseconds", "first", "median", "p99", "last", "µs per stream", title=title)
    for name in ("relay_ms", "floor_ms"):
        row = result[name]
        per_stream = f"{row['last'] * 1000 / result['streams']:.1f}"
        table.add_row(
            name.removesuffix("_ms"),
            *(f"{row[column]:.1f}" for column in ("first", "median", "p99", "last")),
            per_stream,
        )
    console = Console()
    console.print(table)
    ratio = result["last_over_floor"]
    console.print(
        f"last stream over the floor: {ratio['median']} (from {ratio['lowest']} to {ratio['highest']})\n"
        f"memory per idle stream: {result['bytes_per_idle_stream']} bytes\n"
        f"streams opened: {result['opened_per_second']} per second"
    )


if __name__ == "__main__":
    main()
