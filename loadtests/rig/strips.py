"""One kind of plot: a row for each thing that was measured, a dot for each round, and the median as a bar."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from plots import COLOURS, INK

OURS, OTHERS = COLOURS[:2]


def strips(
    title: str,
    unit: str,
    rows: Mapping[str, Sequence[float]],
    *,
    others: frozenset[str] = frozenset(),
) -> Figure:
    """A figure of one row for each name.

    Args:
        title: what it shows.
        unit: of the values.
        rows: a value for each round, by name; the first is at the top.
        others: names of what is none of ours, in another colour.
    """
    figure = Figure(figsize=(7.5, 0.9 + 0.35 * len(rows)))
    axes = figure.subplots()
    for place, (name, values) in enumerate(rows.items()):
        colour = OTHERS if name in others else OURS
        median = statistics.median(values)
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markeredgewidth=0)
        axes.plot([median, median], [place - 0.3, place + 0.3], color=colour)
        axes.annotate(
            short(median), (max(values), place), xytext=(8, 0), textcoords="offset points", va="center", color=colour
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set(xlabel=unit, title=title)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    return figure


def short(value: float) -> str:
    """A figure with about three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
