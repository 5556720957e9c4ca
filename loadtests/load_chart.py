"""A page beside Locust's own: propagation over time. In Locust's charts it is a part of everything together."""

import time
from collections import deque
from html import escape

import gevent
from locust.env import Environment

PATH = "/propagation"
KEPT = 900
"""Points that are kept: half an hour."""

EVERY = 2.0
"""Seconds between two points, and between two looks of the page."""

LINES = {0.5: "#2a9d8f", 0.95: "#e9a23b", 0.99: "#d1495b"}
"""Percentiles, of the last ten seconds, as Locust has it; and their colours."""

WIDTH, HEIGHT, LEFT = 960, 320, 60


class Chart:
    """Percentiles of one of Locust's requests over time, kept and drawn.

    Args:
        environment: whose requests.
        kind: the request's type.
        name: its name.
    """

    def __init__(self, environment: Environment, kind: str, name: str) -> None:
        self._environment = environment
        self._key = (name, kind)
        self._points: deque[tuple[float, list[float]]] = deque(maxlen=KEPT)

    def keep(self) -> None:
        """Add a point every now and then, for good."""
        while True:
            entry = self._environment.stats.entries.get(self._key)
            if entry and self._environment.runner and self._environment.runner.state in {"spawning", "running"}:
                now = [entry.get_current_response_time_percentile(percentile) or 0.0 for percentile in LINES]
                self._points.append((time.time(), now))
            gevent.sleep(EVERY)

    def page(self) -> str:
        """The page, which looks again by itself."""
        title = escape(" ".join(reversed(self._key)))
        legend = "".join(
            f'<span style="color:{colour}">&#9632; {percentile * 100:g}%: {last:g} ms</span> '
            for (percentile, colour), last in zip(LINES.items(), self._last(), strict=True)
        )
        return (
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="{EVERY:g}">'
            f'<title>{title}</title><body style="font-family:sans-serif"><h1>{title}, ms</h1>'
            f"<p>{legend}</p>{self.drawing()}"
        )

    def drawing(self) -> str:
        """The chart, as SVG."""
        points = list(self._points)
        top = max((max(values) for _, values in points), default=0) * 1.1 or 1.0
        since, until = (points[0][0], points[-1][0]) if points else (0.0, 1.0)
        wide = (WIDTH - LEFT) / max(until - since, EVERY)
        lines = []
        for index, colour in enumerate(LINES.values()):
            at = " ".join(
                f"{LEFT + (moment - since) * wide:.1f},{HEIGHT * (1 - values[index] / top):.1f}"
                for moment, values in points
            )
            lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{at}"/>')
        grid = "".join(
            f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}" stroke="#8886"/>'
            f'<text x="0" y="{y + 14}" font-size="13">{top * (1 - y / HEIGHT):.2g}</text>'
            for y in range(0, HEIGHT, HEIGHT // 4)
        )
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">{grid}{"".join(lines)}</svg>'

    def _last(self) -> list[float]:
        return self._points[-1][1] if self._points else [0.0] * len(LINES)
