"""What heartbeats cost the changes that meet them: propagation with one every second, every 15 s, and none.

Three relays, each with streams and an environment of its own; the two whose turn it is not are stopped (SIGSTOP), so
that their heartbeats disturb nobody. A change is written every 100 ms. A turn lasts 16 seconds, so that a heartbeat
comes in each that has any; three rounds at most. Propagation runs from Redis's clock at the write to the receipt, over
all changes and all streams.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import relay_process, summary
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rig.companion import cpu_seconds
from rig.relays import create_all, until_ready
from rig.streams import stream_request
from rig.strips import strips
from rig.watcher import Watcher, watcher
from rig.writer import Writer, writer

from flagrelay.cli.private_redis import private_redis
from measures import Options

NAME = "heartbeats"
STREAMS = 4000
CHANGES = 10
"""Changes a second."""

KINDS = {"never": "3600", "every 15 s": "15", "every 1 s": "1"}
"""How often heartbeats come, and the setting."""

TURN_S = 16.0
QUICK_S = 3.0
QUICK = ("never", "every 1 s")
SETTLE_S = 0.5
"""Seconds that a relay has to itself after it was stopped, before anything counts."""

MOST_ROUNDS = 3
"""A round takes most of a minute, and the figures of a turn are of 160 changes."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One relay with its streams, and its writer."""

    relay: int
    watcher: Watcher
    writer: Writer


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Write changes to each relay in turns."""
    streams = min(STREAMS, max(options.streams))
    rounds: list[dict[str, dict[str, float]]] = []
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        kinds, seconds = (QUICK, QUICK_S) if options.quick else (tuple(KINDS), TURN_S)
        scenes = {kind: stack.enter_context(_scene(redis.url, kind, streams)) for kind in kinds}
        for number in range(1, min(MOST_ROUNDS, options.rounds) + 1):
            figures = {kind: _turn(scene, seconds) for kind, scene in scenes.items()}
            rounds.append(figures)
            p99s = ", ".join(f"{kind} {each['p99']:.1f} ms" for kind, each in figures.items())
            console.log(f"heartbeats, round {number}: p99 {p99s}")
    return {
        "streams": streams,
        "changes_per_second": CHANGES,
        "turn_s": seconds,
        "rounds": rounds,
        "kinds": {
            kind: {figure: summary([each[kind][figure] for each in rounds], 2) for figure in rounds[0][kind]}
            for kind in scenes
        },
        "p99_over_never": {
            kind: summary([each[kind]["p99"] / each["never"]["p99"] for each in rounds])
            for kind in scenes
            if kind != "never"
        },
    }


@contextmanager
def _scene(redis_url: str, kind: str, streams: int) -> Iterator[Scene]:
    """A relay, stopped: `_turn` lets it run."""
    environment = kind.replace(" ", "-")
    with ExitStack() as stack:
        secret = create_all(redis_url, **{environment: 100})[environment]
        relay, port = stack.enter_context(relay_process(redis_url, environment, "--heartbeat-interval", KINDS[kind]))
        until_ready(port)
        writes = stack.enter_context(writer(redis_url, environment))
        held = stack.enter_context(watcher(port, stream_request(secret), streams))
        relay.send_signal(signal.SIGSTOP)
        yield Scene(relay.pid, held, writes)


def _turn(scene: Scene, seconds: float) -> dict[str, float]:
    os.kill(scene.relay, signal.SIGCONT)
    try:
        time.sleep(SETTLE_S)
        scene.writer.steady(CHANGES, SETTLE_S)
        cpu = cpu_seconds(scene.relay)
        scene.watcher.begin()
        run = scene.writer.steady(CHANGES, seconds)
        seen = scene.watcher.seen(run.written)
        busy = (cpu_seconds(scene.relay) - cpu) / (seen.last_at - min(run.written.values()))
    finally:
        os.kill(scene.relay, signal.SIGSTOP)
    return {**seen.delays, "missing": seen.missing, "relay_busy": busy}


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table."""
    title = (
        f"{result['streams']} streams, a change every {1000 / result['changes_per_second']:.0f} ms; "
        f"medians of {len(result['rounds'])} rounds"
    )
    heads = ("median, ms", "p99, ms", "last, ms", "relay, of a core", "p99 over never")
    table = Table("heartbeats", *heads, title=title)
    for kind in (kind for kind in KINDS if kind in result["kinds"]):
        turn, over = result["kinds"][kind], result["p99_over_never"].get(kind)
        figures = (f"{turn[figure]['median']:.1f}" for figure in ("median", "p99", "last"))
        ratio = f"{over['median']:.2f} ({over['lowest']:.2f}-{over['highest']:.2f})" if over else ""
        table.add_row(kind, *figures, f"{turn['relay_busy']['median']:.2f}", ratio)
    yield table


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """The p99 of each turn."""
    kinds = [kind for kind in KINDS if kind in result["kinds"]]
    rows = {kind: [each[kind]["p99"] for each in result["rounds"]] for kind in kinds}
    yield NAME, strips(f"p99 of propagation to {result['streams']} streams, by heartbeats", "milliseconds", rows)
