"""How long until the first stream has a change, from just before the call that publishes it, when nothing else happens.

Single changes with pauses between them, each to a server that is idle: to one stream, and to as many as the largest
size. flagrelay's way is the longer one: a writer's library, a Redis with a script, pub/sub, the relay. For nchan it is
an HTTP POST to the server itself. `by Redis's clock` leaves out what happens in the writer.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

from bench import need_descriptors, summary
from contenders.flagrelay import capture
from contenders.lanes import Lane, lanes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rig.strips import strips

from measures import Options

NAME = "first-stream"
BESIDE = ("flagrelay", "nchan")
CHANGES, QUICK_CHANGES = 40, 10
"""Changes in a contender's turn."""

PAUSE = 0.05
"""Seconds between two changes."""


def measure(options: Options, console: Console) -> dict[str, Any]:
    """One stream, then as many as the largest size."""
    need_descriptors(max(options.streams) + 100)
    event = capture()
    changes = QUICK_CHANGES if options.quick else CHANGES
    sizes = {}
    for streams in (1, max(options.streams)):
        raw: list[dict[str, dict[str, float]]] = []
        with lanes(BESIDE, event, streams, console, apart=options.apart) as (running, left_out):
            for number in range(1, options.rounds + 1):
                raw.append({name: _turn(lane, changes) for name, lane in running.items()})
                shown = ", ".join(f"{name} {each['first']:.2f}" for name, each in raw[-1].items())
                console.log(f"{streams} streams, round {number}, first stream in ms: {shown}")
        sizes[str(streams)] = {
            "rounds": raw,
            "contenders": {
                name: {figure: summary([each[name][figure] for each in raw]) for figure in raw[0][name]}
                for name in running
            },
        }
    return {"changes_per_round": changes, "left_out": left_out, "sizes": sizes}


def _turn(lane: Lane, changes: int) -> dict[str, float]:
    """Single changes; medians over them, in milliseconds."""
    each = []
    for _ in range(changes):
        each.append(lane.change())
        time.sleep(PAUSE)
    names = [name for name in ("first", "first_since_redis") if name in each[0]]
    return {name: statistics.median(one[name] for one in each) for name in names}


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table of both sizes."""
    title = f"first stream, milliseconds, medians of {result['changes_per_round']} changes in each round"
    table = Table("", "streams", "median", "lowest", "highest", "by Redis's clock", "to reach", title=title)
    for streams, size in result["sizes"].items():
        for name, figures in size["contenders"].items():
            first, redis = figures["first"], figures.get("first_since_redis")
            cells = (f"{first[each]:.2f}" for each in ("median", "lowest", "highest"))
            reach = "<= 1.0" if name == "flagrelay" else ""
            table.add_row(name, f"{int(streams):,}", *cells, f"{redis['median']:.2f}" if redis else "", reach)
    yield table


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """The median of each round."""
    rows = {
        f"{name}, {int(streams):,} stream{'s' * (streams != '1')}": [each[name]["first"] for each in size["rounds"]]
        for streams, size in result["sizes"].items()
        for name in size["contenders"]
    }
    others = frozenset(name for name in rows if not name.startswith("flagrelay"))
    yield NAME, strips("a change until the first stream has it", "milliseconds", rows, others=others)
