"""What leaves the relay for one stream: bytes of each event, with and without compression.

One stream says nothing of encodings, the other `accept-encoding: gzip`; where the relay answers that as it is, because
it does not compress, there is nothing to compare. Counted are the bytes of HTTP, heads and framing of chunks included;
those of TCP and IP are not. Patches are of one flag each. How well flags compress depends on what is in them: these are
made of words, rules, addresses and versions (`loadtests/rig/flags.py`).
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from bench import relay_process
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rig.relays import create_all, until_ready
from rig.streams import stream_request
from rig.strips import strips
from rig.tap import Tap, tap
from rig.writer import Writer, writer

from flagrelay.cli.private_redis import private_redis
from measures import Options

NAME = "egress"
SIZES = {"small": 100, "large": 2000}
"""Environments, and how many flags they have."""

ENCODINGS: dict[str, tuple[str, ...]] = {"plain": (), "gzip": ("accept-encoding: gzip",)}


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Count the bytes of a `put` of either size, of patches and of heartbeats."""
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        secrets = create_all(redis.url, **SIZES)
        settings = ("--env", "large", "--heartbeat-interval", "1", "--retry", "0")
        _, port = stack.enter_context(relay_process(redis.url, "small", *settings))
        until_ready(port)
        writes = stack.enter_context(writer(redis.url, "small"))
        rounds = {}
        for encoding, headers in ENCODINGS.items():
            console.log(f"egress: {encoding}")
            requests = {name: stream_request(secrets[name], *headers) for name in SIZES}
            with tap(port, requests["small"]) as small, tap(port, requests["large"]) as large:
                if small.compressed == bool(headers):
                    rounds[encoding] = _sizes(small, large, writes, options.rounds)
    medians = {
        encoding: {event: statistics.median(sizes) for event, sizes in events.items()}
        for encoding, events in rounds.items()
    }
    left = {event: size / medians["plain"][event] for event, size in medians.get("gzip", {}).items()}
    return {"rounds": rounds, "bytes": medians, "gzip_over_plain": left}


def _sizes(small: Tap, large: Tap, writes: Writer, rounds: int) -> dict[str, list[int]]:
    return {
        "response head": [small.head_bytes],
        f"put, {SIZES['small']} flags": [small.event("put")],
        f"put, {SIZES['large']} flags": [large.event("put")],
        "patch": _patches(small, writes, rounds),
        "heartbeat": [small.event("heartbeat") for _ in range(2)],
    }


def _patches(tap: Tap, writes: Writer, count: int) -> list[int]:
    writes.steady(rate=20, seconds=count / 20)
    return [tap.event("patch") for _ in range(count)]


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table; without compression only one column."""
    encodings = [encoding for encoding in ENCODINGS if encoding in result["bytes"]]
    left = result["gzip_over_plain"]
    table = Table("event", *encodings, *(("gzip over plain",) if left else ()), title="bytes on the wire")
    for event in _order(result):
        sizes = (f"{result['bytes'][encoding][event]:,.0f}" for encoding in encodings)
        table.add_row(event, *sizes, *((f"{left[event]:.3f}",) if left else ()))
    yield table


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """What compression leaves of each event."""
    left = result["gzip_over_plain"]
    if left:
        rows = {event: [left[event]] for event in _order(result)}
        yield NAME, strips("bytes on the wire with gzip, over those without", "gzip over plain", rows)


def _order(result: dict[str, Any]) -> list[str]:
    """Events, the largest first."""
    sizes: dict[str, float] = result["bytes"]["plain"]
    return sorted(sizes, key=lambda event: -sizes[event])
