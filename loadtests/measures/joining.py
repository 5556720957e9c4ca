"""What 4,000 open streams notice of 1,000 others that join every second.

A change is written every 50 ms; propagation runs from Redis's clock at the write to the receipt, over all changes and
all open streams. In turns, for four seconds each: quiet; and while a process of its own opens a stream every
millisecond, whether or not those before it are open (open loop). Those that join are of another environment of the
same relay, of 100 flags, so that they take the relay's time and add no deliveries. They stay until the turn is over.
How long a stream takes to open runs from when it was due to its whole `put`.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import relay_process, summary
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rig.companion import cpu_seconds, starved_seconds, until_idle
from rig.joiner import Joiner, joiner
from rig.relays import create_all, until_ready
from rig.streams import stream_request
from rig.strips import strips
from rig.watcher import Watcher, watcher
from rig.writer import Writer, writer

from flagrelay.cli.private_redis import private_redis
from measures import Options

NAME = "joining"
STREAMS = 4000
JOINING = 1000
"""Streams a second."""

CHANGES = 20
"""Changes a second."""

TURN_S = 4.0
QUICK_S = 2.0
AROUND_S = 0.5
"""Streams join from so long before the first change on."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A relay with streams, somebody who writes, and somebody who joins."""

    relay: int
    watcher: Watcher
    writer: Writer
    joiner: Joiner


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Write changes in turns: quiet, and while streams join."""
    streams = min(STREAMS, max(options.streams))
    seconds = QUICK_S if options.quick else TURN_S
    rounds: list[dict[str, dict[str, float]]] = []
    with _scene(streams) as scene:
        _turn(scene, seconds)  # warms up
        for number in range(1, options.rounds + 1):
            figures = {"quiet": _turn(scene, seconds), "joining": _turn(scene, seconds, joining=True)}
            rounds.append(figures)
            p99s = ", ".join(f"{name} {each['p99']:.1f} ms" for name, each in figures.items())
            console.log(f"joining, round {number}: p99 {p99s}")
    return {
        "streams": streams,
        "joining_per_second": JOINING,
        "changes_per_second": CHANGES,
        "turn_s": seconds,
        "rounds": rounds,
        "turns": {
            name: {figure: summary([each[name][figure] for each in rounds], 2) for figure in rounds[0][name]}
            for name in rounds[0]
        },
        "joining_over_quiet": {
            figure: summary([each["joining"][figure] / each["quiet"][figure] for each in rounds])
            for figure in ("median", "p99", "last")
        },
    }


@contextmanager
def _scene(streams: int) -> Iterator[Scene]:
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        secrets = create_all(redis.url, bench=100, other=100)
        relay, port = stack.enter_context(relay_process(redis.url, "bench", "--env", "other", "--retry", "0"))
        until_ready(port)
        joins = stack.enter_context(joiner(port, stream_request(secrets["other"])))
        writes = stack.enter_context(writer(redis.url, "bench"))
        held = stack.enter_context(watcher(port, stream_request(secrets["bench"]), streams))
        yield Scene(relay.pid, held, writes, joins)


def _turn(scene: Scene, seconds: float, *, joining: bool = False) -> dict[str, float]:
    until_idle(scene.relay)
    if joining:
        scene.joiner.begin(JOINING, AROUND_S + seconds)
    time.sleep(AROUND_S)
    cpu, starved = cpu_seconds(scene.relay), starved_seconds(scene.relay)
    scene.watcher.begin()
    run = scene.writer.steady(CHANGES, seconds)
    seen = scene.watcher.seen(run.written)
    took = seen.last_at - min(run.written.values())
    return {
        **seen.delays,
        "missing": seen.missing,
        "relay_busy": (cpu_seconds(scene.relay) - cpu) / took,
        "relay_starved": (starved_seconds(scene.relay) - starved) / took,
        "watcher_busy": seen.busy,
        **(scene.joiner.end() if joining else {}),
    }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Propagation, and what became of those that joined."""
    title = (
        f"{result['streams']} open streams, a change every {1000 / result['changes_per_second']:.0f} ms; "
        f"medians of {len(result['rounds'])} rounds"
    )
    heads = (
        "median, ms",
        "p99, ms",
        "last, ms",
        "relay, of a core",
        "relay, without a core",
        "watcher, of a core",
        "p99 over quiet",
    )
    table = Table("", *heads, title=title)
    over = result["joining_over_quiet"]["p99"]
    for name in ("quiet", "joining"):
        turn = result["turns"][name]
        figures = (f"{turn[figure]['median']:.1f}" for figure in ("median", "p99", "last"))
        busy = (f"{turn[figure]['median']:.2f}" for figure in ("relay_busy", "relay_starved", "watcher_busy"))
        ratio = f"{over['median']:.2f} ({over['lowest']:.2f}-{over['highest']:.2f})" if name == "joining" else ""
        table.add_row(name, *figures, *busy, ratio)
    yield table
    turn = result["turns"]["joining"]
    columns = {
        "joined_per_second": "joined/s",
        "open_median": "open after, median ms",
        "open_p99": "p99, ms",
        "open_last": "last, ms",
    }
    joined = Table("wanted/s", *columns.values(), title="those that joined")
    joined.add_row(str(result["joining_per_second"]), *(f"{turn[name]['median']:.1f}" for name in columns))
    yield joined


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """The p99 of each turn."""
    rows = {
        f"{name}, {figure}": [each[name][figure] for each in result["rounds"]]
        for figure in ("median", "p99")
        for name in ("quiet", "joining")
    }
    title = f"propagation to {result['streams']} streams while {result['joining_per_second']} others join every second"
    yield NAME, strips(title, "milliseconds", rows)
