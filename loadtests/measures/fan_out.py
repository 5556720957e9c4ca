"""How long until the last of N streams has a change, what a delivery costs, and what an idle stream costs.

Side by side, in rounds that visit each contender once, every round in another order: the floor (a bare loop of
`socket.send`), flagrelay in each of its ways, and peers. All send one and the same event. Times run from just before
the call that publishes, in a process of its own, to the moment in which the receiver's process has read the event: for
flagrelay that is a write to Redis and what comes of it, for peers an HTTP POST, for the floor its first send.
The CPU is that of the server's processes per delivery, as the kernel counts it in nanoseconds; what the loopback
interface does while they send is in it, for all of them. "Waited" is how long they were ready to run and had no core.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench import need_descriptors, summary
from contenders.flagrelay import capture
from contenders.lanes import Lane, lanes
from contenders.roster import CONTENDERS
from matplotlib.figure import Figure
from plots import FLOOR, OTHERS, OURS, label_ends
from rich.console import Console
from rich.table import Table
from rig.event import FIRST

from measures import Options

NAME = "fan-out"
DELIVERIES = 8000
"""What a contender's turn has at least, as far as `MOST_CHANGES` allow."""

LEAST_CHANGES, MOST_CHANGES = 2, 10
"""Changes in a contender's turn."""

PLAIN = frozenset({"floor", "flagrelay", "nchan", "aiohttp"})
"""Drawn as whole lines; the others' are broken."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of one contender over that of another, in each round; and what is to be reached."""

    one: str
    other: str
    figure: str = "last"
    reach: str = ""


RATIOS = {
    "last stream, over the floor": Ratio("flagrelay", "floor", reach="<= 1.15"),
    "last stream, over nchan": Ratio("flagrelay", "nchan", reach="<= 1.0"),
    "last stream, over sse-starlette": Ratio("flagrelay", "sse-starlette", reach="<= 0.25"),
    "last stream, over aiohttp": Ratio("flagrelay", "aiohttp"),
    "last stream, over pushpin": Ratio("flagrelay", "pushpin"),
    "last stream, portable path over hand-over": Ratio("flagrelay-portable", "flagrelay"),
    "last stream, two workers over one": Ratio("flagrelay-workers", "flagrelay"),
    "last stream, gzip over plain": Ratio("flagrelay-gzip", "flagrelay"),
    "last stream, TLS over nchan with TLS": Ratio("flagrelay-tls", "nchan-tls", reach="<= 1.0"),
    "CPU of a delivery, over the floor": Ratio("flagrelay", "floor", "server_us"),
    "CPU of a delivery, over nchan": Ratio("flagrelay", "nchan", "server_us"),
    "CPU of a delivery, gzip over plain": Ratio("flagrelay-gzip", "flagrelay", "server_us", "<= 1.1"),
    "CPU of a delivery, TLS over nchan with TLS": Ratio("flagrelay-tls", "nchan-tls", "server_us", "<= 1.0"),
}

Round = dict[str, dict[str, float]]


def measure(options: Options, console: Console) -> dict[str, Any]:
    """All contenders, for each number of streams."""
    need_descriptors(max(options.streams) + 100)
    event = capture()
    sizes: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for streams in options.streams:
        with lanes(options.contenders or CONTENDERS, event, streams, console, apart=options.apart) as (
            running,
            missing,
        ):
            sizes[str(streams)] = _rounds(running, streams, options.rounds, console)
            left_out |= missing
    return {
        "apart": options.apart,
        "event_bytes": len(event.frame),
        "data_bytes": len(event.data(FIRST)),
        "left_out": left_out,
        "sizes": sizes,
    }


def _rounds(running: Mapping[str, Lane], streams: int, rounds: int, console: Console) -> dict[str, Any]:
    changes = max(LEAST_CHANGES, min(MOST_CHANGES, DELIVERIES // streams))
    raw: list[Round] = []
    ceilings: list[float] = []
    order = list(running)
    for number in range(1, rounds + 1):
        order = order[1:] + order[:1]
        figures = {name: running[name].turn(changes) for name in order}
        raw.append({name: figures[name] for name in running})
        if "floor" in running:
            ceilings.append(running["floor"].ceiling())
        lasts = ", ".join(f"{name} {figures[name]['last']:.1f}" for name in running)
        console.log(f"{streams} streams, round {number}, last stream in ms: {lasts}")
    return {
        "changes_per_round": changes,
        "rounds": raw,
        "ceilings": ceilings,
        "ceiling": summary(ceilings, 0) if ceilings else None,
        "memory": {name: round(lane.memory) for name, lane in running.items()},
        "contenders": {
            name: {figure: summary([each[name][figure] for each in raw]) for figure in raw[0][name]} for name in running
        },
        "ratios": {
            title: summary([each[ratio.one][ratio.figure] / each[ratio.other][ratio.figure] for each in raw])
            for title, ratio in RATIOS.items()
            if ratio.one in running and ratio.other in running
        },
    }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """The ratios, then one table for each size."""
    sizes = result["sizes"]
    ratios = Table("ratio", "to reach", *(f"{int(each):,} streams" for each in sizes), title="ratios within rounds")
    for title, ratio in RATIOS.items():
        cells = [_ranged(size["ratios"].get(title)) for size in sizes.values()]
        if any(cells):
            ratios.add_row(title, ratio.reach, *cells)
    yield ratios
    if result["left_out"]:
        missing = Table("left out", "why", title="not measured")
        for name, why in result["left_out"].items():
            missing.add_row(name, why)
        yield missing
    for streams, size in sizes.items():
        yield _table(int(streams), size, result["data_bytes"])


def _table(streams: int, size: Mapping[str, Any], data_bytes: int) -> Table:
    title = f"{streams:,} streams, {data_bytes} bytes of data, medians of {len(size['rounds'])} rounds"
    columns = ("first, ms", "median, ms", "p99, ms", "last, ms", "last by Redis's clock, ms", "µs per stream")
    costs = ("CPU µs", "waited µs", "wire bytes", "memory, bytes")
    table = Table("", *columns, *costs, title=title)
    for name, figures in size["contenders"].items():
        last, redis = figures["last"], figures.get("last_since_redis")
        table.add_row(
            name,
            *(f"{figures[column]['median']:.2f}" for column in ("first", "median", "p99")),
            f"{last['median']:.1f} ({last['lowest']:.1f}-{last['highest']:.1f})",
            f"{redis['median']:.1f}" if redis else "",
            *(f"{figures[column]['median']:.1f}" for column in ("us_per_stream", "server_us", "waited_us")),
            f"{figures['bytes']['median']:.0f}",
            "" if name == "floor" else f"{size['memory'][name]:,}",
        )
    if ceiling := size["ceiling"]:
        each = f"{1e6 / ceiling['median']:.1f}"
        table.add_row("(receiver alone)", "", "", "", "", "", each, "", "", "", "")
    return table


def _ranged(figure: Mapping[str, float] | None) -> str:
    return f"{figure['median']:.2f} ({figure['lowest']:.2f}-{figure['highest']:.2f})" if figure else ""


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """When streams had the change; how that grows with their number; what it costs."""
    streams, size = max(result["sizes"].items(), key=lambda each: int(each[0]))
    yield NAME, _spans(int(streams), size)
    if len(result["sizes"]) > 1:
        yield f"{NAME}-by-size", _by_size(result["sizes"])
    yield f"{NAME}-cost", _costs(int(streams), size)


def _spans(streams: int, size: Mapping[str, Any]) -> Figure:
    """A bar from the first stream to the last for each contender, and a dot for the last of each round."""
    contenders = sorted(size["contenders"].items(), key=lambda each: -float(each[1]["last"]["median"]))
    figure = Figure(figsize=(8, 0.9 + 0.36 * len(contenders)))
    axes = figure.subplots()
    for place, (name, figures) in enumerate(contenders):
        first, median, last = (figures[column]["median"] for column in ("first", "median", "last"))
        rounds = [each[name]["last"] for each in size["rounds"]]
        axes.barh(place, last - first, left=first, height=0.5, color=_colour(name), alpha=0.55, linewidth=0)
        axes.plot([median, median], [place - 0.25, place + 0.25], color=_colour(name), linewidth=2)
        axes.plot(rounds, [place] * len(rounds), "o", color=_colour(name), markersize=4, markeredgewidth=0)
        axes.annotate(f"{last:.0f}", (max(rounds), place), xytext=(7, 0), textcoords="offset points", va="center")
    if "floor" in size["contenders"]:
        axes.axvline(size["contenders"]["floor"]["last"]["median"], color=FLOOR, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(contenders)), [name for name, _ in contenders])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds since publishing")
    axes.set_title(
        f"one change to {streams:,} streams: from the first (left) over the median (line) to the last (dots)"
    )
    return figure


def _by_size(sizes: Mapping[str, Any]) -> Figure:
    """The last stream's time by the number of streams, a line for each contender."""
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    for name in sizes[max(sizes, key=int)]["contenders"]:
        there = [
            (int(streams), size["contenders"][name]) for streams, size in sizes.items() if name in size["contenders"]
        ]
        xs, ys = zip(*((streams, figures["us_per_stream"]["median"]) for streams, figures in there), strict=True)
        axes.plot(xs, ys, marker="o", label=name, color=_colour(name), linestyle="-" if name in PLAIN else (0, (4, 2)))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xticks([int(each) for each in sizes], [f"{int(each):,}" for each in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("streams")
    axes.set_title("microseconds per stream until the last has the change")
    label_ends(axes)
    return figure


def _costs(streams: int, size: Mapping[str, Any]) -> Figure:
    """CPU of a delivery, and memory of an idle stream."""
    names = sorted(size["contenders"], key=lambda name: -float(size["contenders"][name]["server_us"]["median"]))
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    cpu = [size["contenders"][name]["server_us"]["median"] for name in names]
    memory = [0 if name == "floor" else size["memory"][name] / 1000 for name in names]
    for axes, values, title in (
        (left, cpu, f"server's CPU per delivery, µs ({streams:,} streams)"),
        (right, memory, "memory per idle stream, kB"),
    ):
        axes.barh(range(len(names)), values, height=0.6, color=[_colour(name) for name in names], alpha=0.75)
        for place, value in enumerate(values):
            if value:
                axes.annotate(f"{value:.1f}", (value, place), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_title(title)
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.12)
    left.set_yticks(range(len(names)), names)
    return figure


def _colour(name: str) -> str:
    if name == "floor":
        return FLOOR
    return OURS if name.startswith("flagrelay") else OTHERS
