"""How long until the last of N streams of evaluated values has its patch, beside the plain broadcast of definitions.

    python loadtests/evaluated_streams.py --streams 10000 --rounds 9

Two relays, each with an environment of its own and N streams: one sends definitions, the same bytes to everybody; the
other evaluates for N contexts that all differ. They take turns: the same change goes to one, then to the other, and
alters what every context gets. Times run from Redis's own clock at the write, so they include publishing.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

KINDS = ("definitions", "evaluated")
FLAG = "checkout-v2"


def main() -> None:
    chosen = options(
        __doc__,
        rounds=9,
        streams=(10_000, "streams of each kind"),
        flags=(20, "flags in the environment; one of them changes"),
    )
    need_descriptors(chosen.streams + 100)
    finish(asyncio.run(_measure(chosen)), _show, as_json=chosen.json)


async def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    memory: dict[str, int] = {}
    with private_redis() as redis, ExitStack() as stack:
        receivers: dict[str, Connection] = {}
        async with open_store(RedisAddress(redis.url)) as store:
            for kind in KINDS:
                await create_environment(store, kind)
                await _publish(store, kind, chosen.flags, 0)
                _, secret = await create_access_key(store, kind, "server", "bench", None)
                relay, port = stack.enter_context(relay_process(redis.url, kind))
                await ready(port)
                before = resident(relay.pid)
                receivers[kind] = stack.enter_context(_receiving(kind, port, secret, chosen.streams))
                receivers[kind].recv()
                await asyncio.sleep(1)  # let the relay free what the requests used
                memory[kind] = round((resident(relay.pid) - before) / chosen.streams)
                console.log(f"{chosen.streams} streams of {kind}")
            for number in range(chosen.rounds + 1):
                for kind in KINDS:
                    receivers[kind].send("collect")
                    written = await _publish(store, kind, 1, number + 1)
                    times = spread(receivers[kind].recv(), _known(written))
                    if number:  # the first one warms up
                        rounds[kind].append(times)
                    await asyncio.sleep(0.2)
                console.log(f"round {number}")
    ratios = [
        evaluated["last"] / plain["last"]
        for evaluated, plain in zip(rounds["evaluated"], rounds["definitions"], strict=True)
    ]
    return {
        "streams": chosen.streams,
        "rounds": chosen.rounds,
        "flags": chosen.flags,
        "bytes_per_idle_stream": memory,
        "milliseconds": {kind: medians(rounds[kind]) for kind in KINDS},
        "last_over_definitions": summary(ratios, 2),
    }


def _known(moment: float) -> Callable[[], float]:
    return lambda: moment


def _request(kind: str, secret: str, number: int) -> bytes:
    head = f"host: bench\r\nauthorization: Bearer {secret}\r\n"
    if kind == "definitions":
        return f"GET /v1/stream HTTP/1.1\r\n{head}\r\n".encode()
    context = {"targetingKey": f"user-{number}", "email": f"user-{number}@example.com", "plan": "free", "country": "CH"}
    body = json.dumps({"context": context})
    return f"POST /v1/evaluations/stream HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n{body}".encode()


def _receiver_process(pipe: Connection, kind: str, port: int, secret: str, count: int) -> None:
    streams = Receiver()
    numbers = iter(range(count))
    streams.connect(port, count, lambda: _request(kind, secret, next(numbers)), b"event: put")
    pipe.send("open")
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(streams.collect(b"event: patch"))


@contextmanager
def _receiving(kind: str, port: int, secret: str, count: int) -> Iterator[Connection]:
    """N streams in a process of their own: one process may not have descriptors enough for both kinds."""
    ours, theirs = Pipe()
    process = Process(target=_receiver_process, args=(theirs, kind, port, secret, count), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.join(5)


async def _publish(store: Store, environment: str, flags: int, number: int) -> float:
    rule = {
        "if": [
            {"in": [{"var": "email"}, ["ada@example.com", "bob@example.com"]]},
            "on",
            {"==": [{"var": "plan"}, "pro"]},
            "on",
            {"fractional": [["on", 10], ["off", 90]]},
        ]
    }
    definition = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": rule,
        "metadata": {"round": number},  # what everybody gets is another, whatever the variant
    }
    keys = [FLAG, *(f"flag-{index}" for index in range(1, flags))]
    written = await write_change(store, environment, Draft(flags=dict.fromkeys(keys, definition), actor="bench"))
    return written.at / 1e6


def _show(result: dict[str, Any]) -> None:
    title = f"{result['streams']} streams of each kind, medians of {result['rounds']} rounds"
    table = Table("milliseconds", "first", "median", "p99", "last", "µs per stream", "bytes per stream", title=title)
    for kind in KINDS:
        row = result["milliseconds"][kind]
        table.add_row(
            kind,
            *(f"{row[column]:.1f}" for column in ("first", "median", "p99", "last")),
            f"{row['last'] * 1000 / result['streams']:.1f}",
            str(result["bytes_per_idle_stream"][kind]),
        )
    console = Console()
    console.print(table)
    ratio = result["last_over_definitions"]
    console.print(f"last patch over the plain broadcast: {ratio['median']} ({ratio['lowest']} to {ratio['highest']})")


if __name__ == "__main__":
    main()
