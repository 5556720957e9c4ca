"""How long until the last of N streams has a change, beside the floor: a bare loop of `socket.send`.

    python loadtests/fanout.py --streams 8000 --rounds 15

Five processes: a private Redis, a relay, a writer, a floor server that sends the same bytes to as many sockets in a
bare loop, and this one, which holds all streams and notes when each has each change. Relay and floor take turns, so a
noisy machine is noisy for both. Times of the relay run from Redis's own clock at the write (`at`), so they
include publishing; times of the floor run from its first send.
"""

import argparse
import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from typing import Any

from bench import (
    Receiver,
    finish,
    medians,
    need_descriptors,
    options,
    ready,
    relay_process,
    resident,
    spread,
    summary,
)
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


def main() -> None:
    chosen = options(__doc__, rounds=15, streams=(8000, "streams of the relay, and sockets of the floor"))
    need_descriptors(chosen.streams * 2 + 100)
    finish(asyncio.run(_measure(chosen)), _show, as_json=chosen.json)


async def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    with private_redis() as redis, relay_process(redis.url, ENVIRONMENT) as (relay, port):
        async with open_store(RedisAddress(redis.url)) as store:
            await create_environment(store, ENVIRONMENT)
            await _publish(store, 0)
            _, secret = await create_access_key(store, ENVIRONMENT, "server", "bench", None)
            await ready(port)
            console.log(f"opening {chosen.streams} streams")
            memory_before = resident(relay.pid)
            streams = Receiver()
            opened = time.perf_counter()
            streams.connect(port, chosen.streams, lambda: _request(secret), b"event: put")
            opened = time.perf_counter() - opened
            await asyncio.sleep(1)  # let the relay free what the requests used
            memory_after = resident(relay.pid)
            event = await _one_event(store, streams)
            with _floor(chosen.streams, event) as (bare, pipe), _publisher(redis.url) as publisher:
                streams.collect(b"event: patch")  # what the writer wrote to warm up
                relay_rounds, floor_rounds = [], []
                for round_ in range(1, chosen.rounds + 1):
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
        "streams": chosen.streams,
        "rounds": chosen.rounds,
        "event_bytes": len(event),
        "opened_per_second": round(chosen.streams / opened),
        "bytes_per_idle_stream": round((memory_after - memory_before) / chosen.streams),
        "relay_ms": medians(relay_rounds),
        "floor_ms": medians(floor_rounds),
        "last_over_floor": summary(ratios),
    }


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


def _request(secret: str) -> bytes:
    return f"GET /v1/stream HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {secret}\r\n\r\n".encode()


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
