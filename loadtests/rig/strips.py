"""One kind of plot: a row for each thing that was measured, a dot for each round, and the median in words."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

INK = "#7d8590"
"""Text and lines: to be read on white and on black."""

OURS, OTHERS = "#0072b2", "#e69f00"
"""Okabe and Ito's blue and orange, which colour-blind people tell apart."""


def strips(
    title: str,
    unit: str,
    rows: Mapping[str, Sequence[float]],
    *,
    others: frozenset[str] = frozenset(),
    log: bool = False,
) -> Figure:
    """A figure of one row for each name.

    Args:
        title: what it shows.
        unit: of the values.
        rows: a value for each round, by name; the first is at the top.
        others: names of what is none of ours, in the other colour.
        log: whether the axis is logarithmic.
    """
    figure = Figure(figsize=(8, 0.9 + 0.45 * len(rows)), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    for place, (name, values) in enumerate(rows.items()):
        colour = OTHERS if name in others else OURS
        median = statistics.median(values)
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=6, markeredgewidth=0)
        axes.plot([median, median], [place - 0.3, place + 0.3], color=colour, linewidth=2)
        axes.annotate(
            _short(median), (max(values), place), xytext=(8, 0), textcoords="offset points", va="center", color=INK
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if log:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.set_xlabel(unit, color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.5)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
