"""How the benchmark's plots look: the same from run to run, and readable on a light page and on a dark one."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#7d8590"
"""Text and axes: a grey with enough contrast to white and to black."""

OURS, OTHERS, FLOOR = "#2f81c7", "#d9730d", "#8a8f98"
"""flagrelay, its peers, and the floor below all."""

COLOURS = ("#2f81c7", "#d9730d", "#1f9e77", "#c2569b", "#8a8f98", "#a58a00", "#5b6ee1", "#b3502f")
"""For series, in this order: told apart with any kind of colour vision, and seen on white and on black."""

_STYLE: dict[Any, Any] = {  # its keys have a type of matplotlib's stubs alone
    "svg.hashsalt": "flagrelay",  # ids of elements are the same in every run
    "svg.fonttype": "path",  # looks the same without the font
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Figures that are made and saved in the block look like the others."""
    with mpl.rc_context(_STYLE):
        yield


def svg(figure: Figure) -> bytes:
    """A figure as SVG: the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def label_ends(axes: Axes, least: float = 11.0) -> None:
    """Name each line at its right end, in its colour, instead of a legend.

    Args:
        axes: lines with labels, their points in the order of x; the limits of y are set.
        least: points between two names: those that would lie on one another are moved apart.
    """
    per_point = axes.figure.dpi / 72
    ends = []
    for line in axes.get_lines():
        x, y = (float(np.asarray(values)[-1]) for values in line.get_data())
        ends.append((float(axes.transData.transform((x, y))[1]) / per_point, x, y, line))
    above = float("-inf")
    for place, x, y, line in sorted(ends, key=lambda end: end[0]):
        lifted = max(place, above + least)
        above = lifted
        axes.annotate(
            str(line.get_label()),
            (x, y),
            xytext=(6, lifted - place),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            annotation_clip=False,
        )
