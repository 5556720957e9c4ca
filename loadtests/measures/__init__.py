"""What `loadtests/benchmark.py` measures, a module each.

A measure starts everything that it needs, and stops it. It has:

    NAME                        its key in results.json
    measure(options, console)   runs it; the result is JSON, with the rounds as they were beside medians and spread
    tables(result)              rich tables, for the terminal and for docs/performance/README.md
    plots(result)               (name of the file without .svg, matplotlib figure)

Its docstring stands over its tables in the documentation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be like.

    Args:
        rounds: how many rounds each figure is the median of.
        quick: a first look: few streams, short rounds.
        streams: how many streams to measure with, one after another, where a measure does so.
        apart: whether receiver and servers are kept on cores of their own, where a measure does so.
        contenders: names of those that are measured side by side, where a measure does so; none: all.
    """

    rounds: int = 5
    quick: bool = False
    streams: tuple[int, ...] = (100, 1000, 4000, 8000)
    contenders: tuple[str, ...] = ()
    apart: bool = True


class Measure(Protocol):
    """What a module of this package has."""

    NAME: str

    def measure(self, options: Options, console: Console) -> dict[str, Any]:
        """Run it. What comes back is JSON."""

    def tables(self, result: dict[str, Any]) -> Iterator[Table]:
        """What a result says, for people."""

    def plots(self, result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
        """What a result looks like: names of files, without their ending, and figures."""
