"""flagrelay's benchmark: itself beside the kernel's floor and beside peers, in one run.

    make bench                                    # everything; writes docs/performance
    make bench ARGS="--quick"                     # a first look in two minutes; writes nothing
    make bench ARGS="--only fan-out --streams 8000 --rounds 15 --contenders floor flagrelay"

What is measured is in `loadtests/measures/`, a module each, and what is measured beside flagrelay in
`loadtests/contenders/`. Results of measures that are left out stay as they are, each with its own date and machine.
"""

import argparse
import json
import pkgutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import machine
import measures
import report
from contenders.roster import CONTENDERS
from measures import Measure, Options
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
DOCS = Path("docs", "performance")
RESULTS = "results.json"
FIRST = "fan_out"
QUICK_STREAMS = (1000,)


def main() -> None:
    """Measure, print, write."""
    known = {measure.NAME: measure for measure in _measures()}
    chosen = _arguments(sorted(known))
    options = Options(
        rounds=chosen.rounds or (3 if chosen.quick else 5),
        quick=chosen.quick,
        streams=tuple(chosen.streams or (QUICK_STREAMS if chosen.quick else Options().streams)),
        contenders=tuple(chosen.contenders or ()),
        apart=not chosen.unpinned,
    )
    console = Console(stderr=True, highlight=False)
    whole = not (chosen.quick or chosen.contenders or chosen.unpinned)
    out = chosen.out or (ROOT / DOCS if whole else None)
    results: dict[str, Any] = {}
    for name in chosen.only or known:
        console.rule(name)
        results[name] = {**_circumstances(options), "result": known[name].measure(options, console)}
        if out:  # after each one: what was measured is kept, whatever becomes of the next
            _write(out, {name: results[name]}, known)
    if chosen.json:
        print(json.dumps(results, indent=1))
        return
    for name, entry in results.items():
        for table in known[name].tables(entry["result"]):
            Console().print(table)
    if out:
        console.print(f"written to {out}")


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="rounds per figure (5; 3 with --quick)")
    parser.add_argument("--streams", type=int, nargs="+", help="sizes, one after another (100 1000 4000 8000)")
    parser.add_argument(
        "--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME", help=f"of: {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--quick", action="store_true", help="few streams, few rounds")
    parser.add_argument("--unpinned", action="store_true", help="let the kernel choose cores for servers and receivers")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where results and plots go ({DOCS}; a part, or what is quick or unpinned, is only written with this)",
    )
    return parser.parse_args()


def _measures() -> list[Measure]:
    """Every module of `measures/`, the main one first."""
    names = sorted((module.name for module in pkgutil.iter_modules(measures.__path__)), key=lambda n: (n != FIRST, n))
    return [cast(Measure, import_module(f"measures.{name}")) for name in names]


def _circumstances(options: Options) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "rounds": options.rounds,
        "machine": machine.describe(),
    }


def _commit() -> str:
    """What of flagrelay was measured; with a plus where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    return said.stdout.strip() or "unknown"


def _write(out: Path, fresh: dict[str, Any], known: dict[str, Measure]) -> None:
    """Put new results beside the old ones, and make plots and tables of all of them."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / RESULTS
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results = {name: entry for name, entry in (old | fresh).items() if name in known}
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    report.write(out, results, known)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; measures that had ended are written")
