"""What streams that are open notice of a herd: 10,000 clients that connect at once, and 1,000 that never read.

    python loadtests/herd.py --streams 2000 --herd 10000

A private Redis, a relay, and three more processes: one holds the open streams and notes when each has each change, one
writes a change every 50 ms, one is the herd. Propagation (Redis's clock at the write → received) is noted over all
open streams, in turns: quiet, while the same herd connects to a bare asyncio server that is none of ours (what the
machine alone makes of so many connections), and while the herd connects to the relay. The herd is of another
environment of the same relay, so that it takes its time and not its deliveries. A client of the herd that is refused
comes back after its `Retry-After`. At the end come clients that never read: what do they cost?
"""

import argparse
import asyncio
import heapq
import random
import re
import select
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench import finish, need_descriptors, options, ready, relay_process, resident
from rich.console import Console
from rich.table import Table
from rig.bare import bare_server
from rig.companion import Companion, companion

from flagrelay.cli.private_redis import private_redis
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, write_change

ENVIRONMENT = "bench"
OTHER = "other"
NUMBER = re.compile(rb'"n":(\d+)')
EVERY = 0.05
"""Seconds between two changes."""

Latencies = list[float]


def main() -> None:
    chosen = options(
        __doc__,
        rounds=3,
        streams=(2000, "streams that are open"),
        herd=(10_000, "clients that connect at once"),
        flags=(100, "flags in the environment"),
        stalled=(1000, "clients that never read"),
    )
    need_descriptors(chosen.herd + 100)
    finish(asyncio.run(_measure(chosen)), _show, as_json=chosen.json)


async def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    more = ("--env", OTHER, "--lagging-timeout", "5")
    with private_redis() as redis, relay_process(redis.url, ENVIRONMENT, *more) as (relay, port):
        async with open_store(RedisAddress(redis.url)) as store:
            request, others = [await _environment(store, name, chosen.flags) for name in (ENVIRONMENT, OTHER)]
        await ready(port)
        phases: dict[str, list[Latencies]] = {"quiet": [], "control": [], "herd": []}
        herds: list[dict[str, float]] = []
        console.log(f"opening {chosen.streams} streams")
        with (
            companion(_watch, port, request, chosen.streams) as watcher,
            companion(_write, redis.url) as writer,
            bare_server(b"HTTP/1.1 200 OK\r\n\r\nevent: put\n\n") as (_, bare_port),
        ):
            watcher.receive()
            for round_ in range(1, chosen.rounds + 1):
                phases["quiet"].append(_propagation(watcher, writer, lambda: time.sleep(3)))
                with companion(_herd, bare_port, others, chosen.herd) as control:
                    phases["control"].append(_propagation(watcher, writer, lambda: _started(control)))
                await asyncio.sleep(1)
                with companion(_herd, port, others, chosen.herd) as herd:
                    phases["herd"].append(_propagation(watcher, writer, lambda: herds.append(_started(herd))))
                await asyncio.sleep(2)
                p99 = {name: _quantile(rounds[-1], 0.99) for name, rounds in phases.items()}
                console.log(f"round {round_}: p99 {p99}, herd {herds[-1]}")
            memory = await _never_readers(relay.pid, port, request, redis.url, chosen.stalled)
    medians = {
        name: {f"p{q * 100:g}": _median([_quantile(each, q) for each in rounds]) for q in (0.5, 0.99, 1.0)}
        for name, rounds in phases.items()
    }
    p99s = {name: [_quantile(each, 0.99) for each in rounds] for name, rounds in phases.items()}
    ratios = [herd / quiet for herd, quiet in zip(p99s["herd"], p99s["quiet"], strict=True)]
    controls = [control / quiet for control, quiet in zip(p99s["control"], p99s["quiet"], strict=True)]
    return {
        "streams": chosen.streams,
        "herd": chosen.herd,
        "flags": chosen.flags,
        "propagation_ms": medians,
        "p99_herd_over_quiet": [round(each, 2) for each in ratios],
        "p99_control_over_quiet": [round(each, 2) for each in controls],
        "herds": herds,
        "never_readers": memory,
    }


async def _environment(store: Store, name: str, count: int) -> bytes:
    """An environment, and the request for a stream of it."""
    await create_environment(store, name)
    flags = {f"flag-{number}": _flag(number) for number in range(count)}
    await write_change(store, name, Draft(flags=flags, actor="bench"))
    _, secret = await create_access_key(store, name, "server", "bench", None)
    return f"GET /v1/stream HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {secret}\r\n\r\n".encode()


def _propagation(watcher: Companion, writer: Companion, meanwhile: Callable[[], object]) -> Latencies:
    """How long each change took to each stream, in milliseconds, while something goes on."""
    watcher.send("begin")
    writer.send("begin")
    time.sleep(0.2)
    meanwhile()
    writer.send("end")
    at: dict[int, float] = writer.receive()
    time.sleep(1)
    watcher.send("end")
    arrivals: list[tuple[int, float]] = watcher.receive()
    return [(when - at[number]) * 1000 for number, when in arrivals if number in at]


def _started(herd: Companion) -> dict[str, float]:
    answer: dict[str, float] = herd.ask("go", 150)
    return answer


def _quantile(values: Latencies, q: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * q))], 2)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


# -- the processes ----------------------------------------------------------------------------------------------------


def _watch(pipe: Connection, port: int, request: bytes, count: int) -> None:
    """Holds the open streams."""
    need_descriptors(count + 50)
    epoll = select.epoll()
    sockets = {}
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request)
        sock.setblocking(False)
        sockets[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)
        if len(sockets) % 100 == 0:
            time.sleep(0.03)
    time.sleep(2)
    pipe.send("open")
    arrivals: list[tuple[int, float]] = []
    while True:
        for descriptor, _ in epoll.poll(0.05, 512):
            data = sockets[descriptor].recv(262_144)
            now = time.time()
            arrivals += [(int(number), now) for number in NUMBER.findall(data)] if b"patch" in data else []
        if pipe.poll():
            if pipe.recv() == "end":
                pipe.send(arrivals)
            arrivals = []


def _write(pipe: Connection, redis_url: str) -> None:
    """Writes a change now and then, while it is told to."""

    async def run() -> None:
        number = 1000
        async with open_store(RedisAddress(redis_url)) as store:
            while pipe.recv():
                written: dict[int, float] = {}
                while not pipe.poll():
                    number += 1
                    draft = Draft(flags={"flag-0": _flag(number)}, actor="bench")
                    written[number] = (await write_change(store, ENVIRONMENT, draft)).at / 1e6
                    await asyncio.sleep(EVERY)
                pipe.recv()
                pipe.send(written)

    asyncio.run(run())


def _herd(pipe: Connection, port: int, request: bytes, count: int) -> None:
    """Connects all at once; who is refused comes back when told."""
    need_descriptors(count + 50)
    pipe.recv()
    epoll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    waits: list[float] = []
    again: list[float] = [0.0] * count
    done: list[float] = []
    refused = 0
    began = time.monotonic()
    source = 0
    while len(done) < count and time.monotonic() < began + 120:
        opened = 0
        while again and again[0] <= time.monotonic() and opened < 200:
            heapq.heappop(again)
            sock = socket.socket()
            sock.setblocking(False)
            source += 1
            sock.connect_ex(("127.0.0.1", port))
            sockets[sock.fileno()] = sock
            epoll.register(sock.fileno(), select.EPOLLOUT)
            opened += 1
        for descriptor, event in epoll.poll(0 if opened else 0.01, 512):
            sock = sockets[descriptor]
            if event & select.EPOLLOUT:
                sock.send(request)
                epoll.modify(descriptor, select.EPOLLIN)
                continue
            try:
                data = sock.recv(1_048_576)
            except OSError:
                data = b""
            if b"event: put" in data:
                done.append(time.monotonic() - began)
                epoll.modify(descriptor, 0)
            elif not data or data.startswith(b"HTTP/1.1 503"):
                refused += 1
                told = re.search(rb"retry-after: (\d+)", data)
                wait = int(told[1]) if told else random.uniform(0.5, 1.5)
                waits.append(wait)
                heapq.heappush(again, time.monotonic() + wait)
                epoll.unregister(descriptor)
                sockets.pop(descriptor).close()
    done.sort()
    pipe.send(
        {
            "current": len(done),
            "refused": refused,
            "half_after_s": round(done[len(done) // 2], 2),
            "all_after_s": round(done[-1], 2),
        }
    )
    for sock in sockets.values():
        sock.close()


async def _never_readers(pid: int, port: int, request: bytes, redis_url: str, count: int) -> dict[str, float]:
    """What clients cost that never read, while changes go on."""
    before = resident(pid)
    sockets = []
    for number in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(request)
        sockets.append(sock)
        if number % 100 == 99:
            await asyncio.sleep(0.05)
    peak = resident(pid)
    async with open_store(RedisAddress(redis_url)) as store:
        for number in range(400):
            flags = {f"flag-{each}": _flag(number) for each in range(20)}
            await write_change(store, ENVIRONMENT, Draft(flags=flags, actor="bench"))
            peak = max(peak, resident(pid))
            await asyncio.sleep(0.02)
    for sock in sockets:
        sock.close()
    await asyncio.sleep(3)
    return {"clients": count, "before_mb": before / 1e6, "peak_mb": peak / 1e6, "after_mb": resident(pid) / 1e6}


def _flag(number: int) -> dict[str, Any]:
    rule = {"if": [{"in": [{"var": "email"}, ["ada@example.com", "x" * 120]]}, "on", "off"]}
    return {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": rule,
        "metadata": {"n": number},
    }


def _show(result: dict[str, Any]) -> None:
    title = f"{result['streams']} open streams, a herd of {result['herd']}, {result['flags']} flags; medians"
    table = Table("propagation, ms", "p50", "p99", "max", title=title)
    for name, row in result["propagation_ms"].items():
        table.add_row(name, *(f"{row[column]:.1f}" for column in ("p50", "p99", "p100")))
    console = Console()
    console.print(table)
    console.print("p99 with the herd over quiet:", result["p99_herd_over_quiet"])
    console.print("p99 with the herd elsewhere on this machine over quiet:", result["p99_control_over_quiet"])
    for herd in result["herds"]:
        console.print("herd:", herd)
    console.print("never read:", {name: round(value, 1) for name, value in result["never_readers"].items()})


if __name__ == "__main__":
    main()
