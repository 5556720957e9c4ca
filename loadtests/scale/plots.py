"""Plots of what the model says, as SVG: for light pages and dark ones, and the same bytes for the same data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Document = Mapping[str, Any]

INK = "#7d8590"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""Okabe and Ito's: told apart by everybody."""

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "flagrelay",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.transparent": True,
}

NETWORKS = {"none": "no network", "zone": "zone", "region": "region", "world": "world"}


def save(figure: Figure, path: Path) -> None:
    """Write a figure, without a date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None})


def propagation(scenarios: Sequence[Document]) -> Figure:
    """How long a change takes to which share of the SDKs: a panel for each number of them, a line for each network."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        panels = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
        for panel, scenario in zip(panels, scenarios, strict=True):
            _propagation_panel(panel, scenario)
        panels[0].set_ylabel("SDKs that have the change, %")
        panels[0].legend(loc="upper left", frameon=False)
    return figure


def _propagation_panel(panel: Axes, scenario: Document) -> None:
    for colour, (name, times) in zip(COLOURS, scenario["propagation_ms"].items(), strict=False):
        shares, milliseconds = zip(*times["curve"], strict=True)
        panel.plot(milliseconds, [share * 100 for share in shares], color=colour, label=NETWORKS.get(name, name))
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_title(f"{scenario['sdks']:,} SDKs, {scenario['fleet']['relays']:,} relays")
    panel.set_xlabel("ms after the write (logarithmic)")
    panel.grid(visible=True, color=INK, alpha=0.25, linewidth=0.5)


def herds(scenarios: Sequence[Document]) -> Figure:
    """How many are back after which time: a panel for each way of losing relays, a line for each number of SDKs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        names = list(scenarios[0]["herds"])
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for panel, name in zip(panels, names, strict=True):
            for colour, scenario in zip(COLOURS, scenarios, strict=False):
                _herd_line(panel, scenario, name, colour)
            panel.set_title(name)
            panel.set_xlabel("seconds after the loss")
            panel.grid(visible=True, color=INK, alpha=0.25, linewidth=0.5)
        panels[0].set_ylabel("SDKs of the lost relays that are back, %")
        panels[0].legend(loc="upper left", frameon=False)
    return figure


def _herd_line(panel: Axes, scenario: Document, name: str, colour: str) -> None:
    moments, counts = zip(*scenario["herds"][name]["back"], strict=True)
    most = max(counts)
    panel.plot(moments, [count / most * 100 for count in counts], color=colour, label=f"{scenario['sdks']:,} SDKs")
