"""What more streams need than fit on one machine: measured constants, a simulation, and how far it is right.

    python loadtests/scaling.py measure               # 1. what a core, a stream and Redis cost here: about a minute
    python loadtests/scaling.py simulate              # 2. 10,000 to 10 million SDKs, from that: about a minute
    python loadtests/scaling.py check                 # 3. the model beside measured runs of what fits here: two minutes

    python loadtests/scaling.py simulate --sdks 300000 --relays 12 --workers 8 --network world=90:400:0.01

`measure` writes docs/performance/constants.json; the others read it. With --keep, `simulate` and `check` write what
they found to docs/performance/scaling.json, and docs/scaling.md with it; `simulate` draws its plots, too.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import need_descriptors
from rich.console import Console
from scale import document, plots, report
from scale.assumptions import NETWORKS, Assumptions, Network
from scale.capacity import fleet_for
from scale.check import check
from scale.constants import Constants
from scale.measure import measure
from scale.scenarios import scenario

from flagrelay.errors import SettingError
from flagrelay.settings import Settings

Document = dict[str, Any]

DOCS = Path(__file__).parent.parent / "docs"
SDKS = (10_000, 100_000, 1_000_000, 10_000_000)
TARGETS = ((0.99, 50.0), (1.0, 50.0), (0.99, 100.0), (1.0, 100.0), (0.99, 250.0), (1.0, 250.0))


def main() -> None:
    chosen = _options()
    console = Console(stderr=True)
    match chosen.command:
        case "measure":
            need_descriptors(8200)
            result = measure(console)
            _write(chosen.constants, result)
            _finish(chosen, result, _show_measured)
        case "simulate":
            result = _simulate(chosen, console)
            _keep(chosen, "simulation", result, console)
            _finish(chosen, result, _show_simulated)
        case "check":
            need_descriptors(8200)
            result = check(_constants(chosen), console, rounds=chosen.rounds, runs=chosen.runs)
            result = {"constants": _digest(chosen.constants), **result}
            _keep(chosen, "check", result, console)
            _finish(chosen, result, _show_checked)


# -- the simulation ---------------------------------------------------------------------------------------------------


def _simulate(chosen: argparse.Namespace, console: Console) -> Document:
    constants, assumptions = _constants(chosen), _assumptions(chosen)
    scenarios, targets = [], []
    for sdks in chosen.sdks:
        with console.status(f"{sdks:,} SDKs"):
            scenarios.append(scenario(sdks, constants, assumptions, relays=chosen.relays, seed=chosen.seed))
            for share, target in TARGETS:
                fleet = fleet_for(sdks, constants, replace(assumptions, target_ms=target), share=share)
                targets.append({"sdks": sdks, "share": share, "target_ms": target, "relays": fleet.relays})
        console.log(f"{sdks:,} SDKs: {scenarios[-1]['fleet']['relays']:,} relays")
    settings = assumptions.settings
    shown = {name: value for name, value in asdict(assumptions).items() if name != "settings"}
    shown["times"] = [settings.retry, settings.heartbeat_interval, settings.stream_lifetime]
    return {
        "constants": _digest(chosen.constants),
        "assumptions": shown,
        "scenarios": scenarios,
        "targets": targets,
    }


def _assumptions(chosen: argparse.Namespace) -> Assumptions:
    try:
        settings = Settings(retry=chosen.retry, heartbeat_interval=chosen.heartbeat, max_waiting=chosen.max_waiting)
    except SettingError as error:
        sys.exit(str(error))
    return Assumptions(
        networks={**NETWORKS, **dict(chosen.network)},
        redis_network=chosen.redis_network,
        workers=chosen.workers,
        target_ms=chosen.target,
        changes_per_day=chosen.changes_per_day,
        settings=settings,
    )


# -- files ------------------------------------------------------------------------------------------------------------


def _constants(chosen: argparse.Namespace) -> Constants:
    try:
        return Constants.of(json.loads(chosen.constants.read_text(encoding="utf-8")))
    except FileNotFoundError:
        sys.exit(f"{chosen.constants} is not there: measure first")


def _digest(constants: Path) -> str:
    """Which constants a result comes from."""
    return hashlib.sha256(constants.read_bytes()).hexdigest()[:16]


def _keep(chosen: argparse.Namespace, name: str, result: Document, console: Console) -> None:
    if not chosen.keep:
        return
    path = DOCS / "performance" / "scaling.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[name] = result
    _write(path, results)
    if name == "simulation":
        big = [each for each in result["scenarios"] if each["sdks"] > SDKS[0]] or result["scenarios"]
        plots.save(plots.propagation(big), path.with_name("scaling-propagation.svg"))
        plots.save(plots.herds(result["scenarios"]), path.with_name("scaling-herds.svg"))
    if {"simulation", "check"} <= results.keys():
        page = DOCS / "scaling.md"
        constants = json.loads(chosen.constants.read_text(encoding="utf-8"))
        filled = document.filled(page.read_text(encoding="utf-8"), document.parts(constants, results))
        page.write_text(filled, encoding="utf-8")
    console.log(f"kept in {path.parent}")


def _write(path: Path, result: Document) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


# -- what is shown ----------------------------------------------------------------------------------------------------


def _finish(chosen: argparse.Namespace, result: Document, show: Callable[[Document], None]) -> None:
    if chosen.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def _show_measured(result: Document) -> None:
    Console().print(report.measured(result).rich(report.machine_line(result)))


def _show_simulated(result: Document) -> None:
    console, scenarios = Console(), result["scenarios"]
    console.print(report.fleets(scenarios).rich("fleets"))
    console.print(report.targets(result["targets"]).rich("relays for a target"))
    console.print(report.propagation(scenarios).rich("propagation, milliseconds after the write"))
    console.print(report.traffic(scenarios).rich("egress"))
    console.print(report.servers(scenarios).rich("Redis"))
    console.print(report.herds(scenarios).rich("relays lost"))
    console.print(report.assumed(result["assumptions"]).rich("assumed"))


def _show_checked(result: Document) -> None:
    console = Console()
    console.print(report.checked_fan_outs(result).rich("a change, ms: predicted / measured = ratio"))
    console.print(report.checked_herds(result).rich("a relay killed: predicted / measured = ratio"))


# -- options ----------------------------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="measure | simulate | check")
    for name in ("measure", "simulate", "check"):
        command = commands.add_parser(name, description=__doc__, formatter_class=parser.formatter_class)
        command.add_argument("--constants", type=Path, default=DOCS / "performance" / "constants.json", metavar="FILE")
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if name != "measure":
            command.add_argument("--keep", action="store_true", help="write docs/performance and docs/scaling.md")
        if name == "simulate":
            _simulation_options(command)
        if name == "check":
            command.add_argument("--rounds", type=int, default=15, help="changes of each fan-out")
            command.add_argument("--runs", type=int, default=3, help="relays killed for each herd")
    return parser.parse_args()


def _simulation_options(command: argparse.ArgumentParser) -> None:
    given, settings = Assumptions(), Settings()
    command.add_argument("--sdks", type=int, nargs="+", default=SDKS, help="how many SDKs, one scenario for each")
    command.add_argument("--relays", type=int, default=0, help="how many relays; 0: the fewest that meet the target")
    command.add_argument("--workers", type=int, default=given.workers, help="processes of a relay")
    command.add_argument(
        "--target", type=float, default=given.target_ms, help="ms until the last SDK, network excluded"
    )
    command.add_argument("--retry", type=float, default=settings.retry, help="the relays' setting, in seconds")
    command.add_argument(
        "--heartbeat", type=float, default=settings.heartbeat_interval, help="the relays' heartbeat_interval"
    )
    command.add_argument("--max-waiting", type=int, default=settings.max_waiting, help="the relays' setting")
    command.add_argument("--changes-per-day", type=int, default=given.changes_per_day, help="for the egress of a day")
    command.add_argument(
        "--network",
        type=_named_network,
        action="append",
        default=[],
        metavar="NAME=MEDIAN:P99[:LOSS]",
        help="relay to SDK, in ms: another zone, region or world, or one more",
    )
    command.add_argument(
        "--redis-network",
        type=_network,
        default=given.redis_network,
        metavar="MEDIAN:P99[:LOSS]",
        help="Redis to relay",
    )
    command.add_argument("--seed", type=int, default=1, help="of chance")


def _named_network(text: str) -> tuple[str, Network]:
    name, _, figures = text.partition("=")
    return name, _network(figures)


def _network(text: str) -> Network:
    return Network(*map(float, text.split(":")))


if __name__ == "__main__":
    main()
