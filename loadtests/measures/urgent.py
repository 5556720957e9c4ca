"""How long a kill takes to every stream while a bulk import of 1,000 flags is under way, beside an idle relay.

In turns: a kill on an idle relay; one during `flagrelay flags import` of a file with 1,000 flags, all of them changed;
one while a script writes 1,000 flags one after another. The kills are written at moments that are spread evenly over
the import's course, from its begin until the last stream has all of it: of five rounds the first kill comes after a
tenth of it, the last after nine tenths. `under way` counts the rounds in which the last stream had the import after
the kill was written. Times run from Redis's clock at the kill to its receipt.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from bench import relay_process, summary
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rig.companion import until_idle
from rig.flags import flag_key, flags
from rig.relays import create_all, until_ready
from rig.streams import stream_request
from rig.strips import strips
from rig.watcher import Seen, Watcher, watcher
from rig.writer import Run, Writer, writer

from flagrelay.cli.private_redis import private_redis
from measures import Options

NAME = "urgent"
FLAGS = 1000
KILLED = flag_key(FLAGS)
"""A flag that no import touches: one that did would refuse to end the kill."""

WITHIN = 60.0
"""Seconds in which every stream has a change, whatever else is under way."""

Bulk = Callable[[int], None]
"""Begins to write all flags once more, given an edit that they have not had."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A relay with its streams, somebody who writes in bulk, and somebody who kills."""

    relay: int
    streams: Watcher
    importer: Writer
    killer: Writer
    path: Path

    def import_file(self, edit: int) -> None:
        """`flagrelay flags import`: one change."""
        self.path.write_text(json.dumps({"flags": flags(FLAGS, edit)}))
        self.importer.begin_import(str(self.path))

    def import_singly(self, edit: int) -> None:
        """A script that knows no better: 1,000 changes."""
        self.importer.begin_single(FLAGS, edit)

    def settle(self) -> None:
        """Wait until the last kill is undone everywhere, and nothing more is to do."""
        self.streams.seen(self.killer.revive(KILLED).written, WITHIN)
        until_idle(self.relay)


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Kill in turns: idle, during one import, during the other."""
    streams = max(options.streams)
    edits = count(1_000_000)
    rounds: list[dict[str, dict[str, float]]] = []
    with _scene(streams) as scene:
        bulks: dict[str, Bulk] = {"import": scene.import_file, "single writes": scene.import_singly}
        console.log(f"urgent: {streams} streams are open")
        lengths = {name: _length(scene, bulk, edits) for name, bulk in bulks.items()}
        for number in range(options.rounds):
            figures = {"idle": _kill(scene)}
            for name, bulk in bulks.items():
                after = lengths[name] * (number + 0.5) / options.rounds
                figures[name] = _kill_during(scene, bulk, next(edits), after)
            rounds.append(figures)
            lasts = ", ".join(f"{name} {each['last']:.1f} ms" for name, each in figures.items())
            console.log(f"urgent, round {number + 1}: last stream {lasts}")
    return {
        "streams": streams,
        "flags": FLAGS,
        "import_s": lengths,
        "rounds": rounds,
        "last_ms": {name: summary([each[name]["last"] for each in rounds]) for name in rounds[0]},
        "median_ms": {name: summary([each[name]["median"] for each in rounds]) for name in rounds[0]},
        "under_way": {name: int(sum(each[name]["under_way"] for each in rounds)) for name in bulks},
        "last_over_idle": {
            name: summary([each[name]["last"] / each["idle"]["last"] for each in rounds]) for name in bulks
        },
    }


@contextmanager
def _scene(streams: int) -> Iterator[Scene]:
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        secret = create_all(redis.url, bench=FLAGS + 1)["bench"]
        relay, port = stack.enter_context(relay_process(redis.url, "bench"))
        until_ready(port)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        importer = stack.enter_context(writer(redis.url, "bench"))
        killer = stack.enter_context(writer(redis.url, "bench"))
        held = stack.enter_context(watcher(port, stream_request(secret), streams))
        yield Scene(relay.pid, held, importer, killer, Path(folder) / "flags.json")


def _length(scene: Scene, bulk: Bulk, edits: Iterator[int]) -> float:
    """How long an import takes by itself, until the last stream has all of it, in seconds; the first warms up."""
    for edit in islice(edits, 2):
        until_idle(scene.relay)
        scene.streams.begin()
        bulk(edit)
        began = time.time()
        seen = scene.streams.seen(scene.importer.receive().written, WITHIN)
    return seen.last_at - began


def _kill(scene: Scene) -> dict[str, float]:
    """Kill on an idle relay, and see how long it took."""
    scene.streams.begin()
    seen = _everywhere(scene, scene.killer.kill(KILLED))
    scene.settle()
    return seen.delays


def _kill_during(scene: Scene, bulk: Bulk, edit: int, after: float) -> dict[str, float]:
    """Kill some time after a bulk import has begun, and see how long it took."""
    scene.streams.begin()
    bulk(edit)
    time.sleep(after)
    kill = scene.killer.kill(KILLED)
    seen = _everywhere(scene, kill)
    last = scene.importer.receive()
    imported = max(last.written.values()) + _everywhere(scene, last).lasts[-1] / 1000
    scene.settle()
    return {**seen.delays, "after_ms": after * 1000, "under_way": float(imported > max(kill.written.values()))}


def _everywhere(scene: Scene, run: Run) -> Seen:
    seen = scene.streams.seen(run.written, WITHIN)
    if seen.missing:
        sys.exit(f"{seen.missing} streams did not hear of a change within {WITHIN:g} s")
    return seen


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table."""
    rounds = len(result["rounds"])
    title = f"a kill to {result['streams']} streams, medians of {rounds} rounds"
    heads = ("median stream, ms", "last stream, ms", "lowest", "highest", "last over idle", "under way")
    table = Table("while", *heads, title=title)
    for name, last in result["last_ms"].items():
        over = result["last_over_idle"].get(name)
        shown = f"{over['median']:.2f} ({over['lowest']:.2f}-{over['highest']:.2f})" if over else ""
        figures = (result["median_ms"][name]["median"], last["median"], last["lowest"], last["highest"])
        under_way = f"{result['under_way'][name]} of {rounds}" if over else ""
        table.add_row(name, *(f"{each:.1f}" for each in figures), shown, under_way)
    yield table


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """When the last stream had the kill, in each round."""
    rows = {name: [each[name]["last"] for each in result["rounds"]] for name in result["last_ms"]}
    title = f"a kill until the last of {result['streams']} streams has it"
    yield NAME, strips(title, "milliseconds", rows)
