"""How many changes a second a relay keeps up with, and how many deliveries that is.

A writer in a process of its own writes changes in an open loop, each of one flag, and raises their rate step by step,
by half of it each time. A step lasts two seconds, and is done once more where it is not sustained. It is sustained
unless

- the lag grows: in the last third of the step the last stream had a change later than twice what it was in the first
  third, and later than 50 ms (medians); or
- the lag is large: 250 ms or more in the last third; or
- the writer falls behind its rate by a tenth of the step. What is limited then is not the relay, but writing (a
  process of Python, one Redis, two cores for all of it), and the table says so.

A delivery is a change that has reached a stream. A relay that is late joins what a stream lacks into one write: how
many deliveries came with each read is shown as well. `Without a core` is for how much of the time the relay could have
run and was not let: where that is much, the machine is what limits. There are three rounds at most.
"""

import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import relay_process, summary
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from plots import COLOURS, INK, label_ends
from rich.console import Console
from rich.table import Table
from rig.companion import cpu_seconds, starved_seconds, until_idle
from rig.relays import create_all, until_ready
from rig.streams import stream_request
from rig.watcher import Seen, Watcher, watcher
from rig.writer import Run, Writer, writer

from flagrelay.cli.private_redis import private_redis
from measures import Options

NAME = "throughput"
SIZES = (100, 1000, 4000)
FIRST_DELIVERIES = 1_000_000
"""A first search begins at a rate that makes so many deliveries a second."""

MOST_CHANGES = 1000
"""Changes a second at which a first search begins, at most."""

STEP_S = 2.0
QUICK_S = 1.0
FACTOR = 1.5
MOST_ROUNDS = 3
"""A round takes most of a minute."""

STEPS = 12
"""Steps of a search, at most."""

SUSTAINED = "sustained"
GROWTH, SETTLED_MS, TOO_LATE_MS = 2.0, 50.0, 250.0
BEHIND = 0.1
"""What of a step the writer may be late at its end."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A relay with streams, and a writer."""

    relay: int
    watcher: Watcher
    writer: Writer
    step: float
    """Seconds."""


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Search for the highest rate, for each number of streams."""
    sizes = {}
    step, most = (QUICK_S, 1) if options.quick else (STEP_S, MOST_ROUNDS)
    for streams in SIZES:
        if streams > max(options.streams):
            break
        rounds: list[list[dict[str, Any]]] = []
        with _scene(streams, step) as scene:
            rate = min(float(MOST_CHANGES), FIRST_DELIVERIES / streams)
            for number in range(1, min(most, options.rounds) + 1):
                rounds.append(_search(scene, rate))
                best = _best(rounds[-1])
                rate = best["rate"] / FACTOR  # the next search begins a little below
                console.log(
                    f"throughput, {streams} streams, round {number}: {best['changes_per_second']:.0f} changes/s, "
                    f"{best['deliveries_per_second']:.0f} deliveries/s; then: {rounds[-1][-1]['verdict']}"
                )
        sizes[str(streams)] = {"rounds": rounds, **_summary([_best(steps) for steps in rounds])}
    return {"step_s": step, "factor": FACTOR, "sizes": sizes}


def _summary(bests: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name, value in bests[0].items() if isinstance(value, float)]
    return {name: summary([each[name] for each in bests], 2) for name in names}


@contextmanager
def _scene(streams: int, step: float) -> Iterator[Scene]:
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        secret = create_all(redis.url, bench=100)["bench"]
        relay, port = stack.enter_context(relay_process(redis.url, "bench"))
        until_ready(port)
        writes = stack.enter_context(writer(redis.url, "bench"))
        held = stack.enter_context(watcher(port, stream_request(secret), streams))
        yield Scene(relay.pid, held, writes, step)


def _search(scene: Scene, rate: float) -> list[dict[str, Any]]:
    """Raise the rate until a step is not sustained; or lower it until one is, where the first is not."""
    steps = _steps(scene, rate)
    upwards = _sustained(steps[0])
    while len(steps) < STEPS and _sustained(steps[-1]) == upwards:
        rate = rate * FACTOR if upwards else rate / FACTOR
        steps += _steps(scene, rate)
    return steps


def _steps(scene: Scene, rate: float) -> list[dict[str, Any]]:
    """A step; and where it is not sustained the same once more, since one hiccup is no limit."""
    step = _step(scene, rate)
    return [step] if _sustained(step) else [step, _step(scene, rate)]


def _step(scene: Scene, rate: float) -> dict[str, Any]:
    """Write at a rate for a while, and see what became of it."""
    until_idle(scene.relay)
    cpu, starved = cpu_seconds(scene.relay), starved_seconds(scene.relay)
    scene.watcher.begin()
    run = scene.writer.steady(rate, scene.step)
    seen = scene.watcher.seen(run.written, within=20)
    cpu, starved = cpu_seconds(scene.relay) - cpu, starved_seconds(scene.relay) - starved
    took = max(scene.step, seen.last_at - min(run.written.values()))
    third = max(1, len(seen.lasts) // 3)
    early, late = statistics.median(seen.lasts[:third]), statistics.median(seen.lasts[-third:])
    return {
        "rate": rate,
        "verdict": _verdict(scene, seen, run, early, late),
        "changes_per_second": len(run.written) / took,
        "deliveries_per_second": seen.revisions / took,
        "deliveries_per_read": seen.revisions / max(1, seen.reads),
        "early_last_ms": early,
        "late_last_ms": late,
        "relay_busy": cpu / took,
        "relay_starved": starved / took,
        "relay_us_per_delivery": cpu / max(1, seen.revisions) * 1e6,
        "watcher_busy": seen.busy,
    }


def _verdict(scene: Scene, seen: Seen, run: Run, early: float, late: float) -> str:
    if len(run.written) < run.wanted or run.late > scene.step * BEHIND:
        return "the writer falls behind"
    if seen.missing or late > TOO_LATE_MS:
        return "the lag is large"
    if late > max(SETTLED_MS, early * GROWTH):
        return "the lag grows"
    return SUSTAINED


def _sustained(step: dict[str, Any]) -> bool:
    return bool(step["verdict"] == SUSTAINED)


def _best(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The highest rate that was sustained."""
    sustained = [step for step in steps if _sustained(step)]
    if not sustained:
        sys.exit(f"not even {steps[-1]['rate']:.1f} changes a second are sustained")
    return max(sustained, key=lambda step: float(step["rate"]))


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """What was sustained, and why no more."""
    columns = {
        "deliveries_per_second": ("deliveries/s", 0),
        "deliveries_per_read": ("per read", 1),
        "late_last_ms": ("last, ms", 1),
        "relay_us_per_delivery": ("relay µs each", 2),
        "relay_busy": ("relay", 2),
        "relay_starved": ("without a core", 2),
        "watcher_busy": ("watcher", 2),
    }
    heads = [head for head, _ in columns.values()]
    table = Table("streams", "changes/s", *heads, title="what a relay keeps up with; relay and watcher: of a core")
    beyond = Table("streams", "steps that were not sustained, and why", title="beyond that")
    for streams, size in _by_number(result):
        cells = [f"{size[name]['median']:,.{digits}f}" for name, (_, digits) in columns.items()]
        changes = size["changes_per_second"]
        ranged = f"{changes['median']:,.0f} ({changes['lowest']:,.0f}-{changes['highest']:,.0f})"
        table.add_row(str(streams), ranged, *cells)
        verdicts = Counter(step["verdict"] for steps in size["rounds"] for step in steps if not _sustained(step))
        beyond.add_row(str(streams), ", ".join(f"{verdict} ({times})" for verdict, times in verdicts.most_common()))
    yield table
    yield beyond


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """How late the last stream is at each rate: flat, and then not."""
    figure = Figure(figsize=(7.5, 3.6))
    axes = figure.subplots()
    for colour, (streams, size) in zip(COLOURS, _by_number(result), strict=False):
        by_rate: dict[float, list[float]] = {}
        for step in (step for steps in size["rounds"] for step in steps):
            by_rate.setdefault(round(step["rate"], 3), []).append(step["late_last_ms"])
        rates = sorted(by_rate)
        lates = [statistics.median(by_rate[rate]) for rate in rates]
        axes.plot(rates, lates, "o-", color=colour, label=f"{streams} streams")
    axes.set(xscale="log", yscale="log", xlabel="changes written per second", ylabel="last stream, milliseconds")
    axes.set_title("how late the last stream has a change, at the end of a step")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:,g}")
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    label_ends(axes)
    axes.axhline(TOO_LATE_MS, color=INK, linestyle=":", linewidth=1)
    yield NAME, figure


def _by_number(result: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return sorted((int(streams), size) for streams, size in result["sizes"].items())
