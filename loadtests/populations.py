"""What a population of many targeting keys costs a relay, beside flagd's own Python evaluator.

    python loadtests/populations.py --rounds 9 --keys 1000 10000 100000

Each round, for each number of keys (random UUIDs): to compile the population; to compile the plan of a release to it,
until a snapshot says what the flag says; to make a snapshot with a flag that names it; to take a change of another flag
in; and to resolve the flag for one who is in it and one who is not. Then the same flag with flagd-core, in the same
round. The population is read from JSON anew each round, as a relay reads it, and no context has a key that is the very
object of the list.
"""

import argparse
import gc
import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from bench import finish, summary
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from rich.console import Console
from rich.table import Table

from flagrelay.flags.change import Change, Rule
from flagrelay.flags.compiled_flag import compile_population
from flagrelay.flags.definition import check_population
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release import actions
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import check_plan
from flagrelay.wire.message import encode_change

FLAG = {
    "state": "ENABLED",
    "variants": {"on": True, "off": False},
    "defaultVariant": "off",
    "targeting": {"if": [{"$ref": "beta"}, "on", "off"]},
}
BESIDE = {**FLAG, "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", "off"]}}
PLAN = {
    "flag": "flag",
    "released": "on",
    "baseline": "off",
    "stages": [{"population": "beta"}, {"percent": 10}, {"percent": 100}],
}
FIGURES = {
    "check": "check on the way in, ms",
    "compile": "compile, ms",
    "plan": "plan and population, to the first resolution, ms",
    "snapshot": "parse, snapshot, first resolution, ms",
    "change_beside": "change of another flag, ms",
    "member": "member, µs",
    "other": "somebody else, µs",
    "flagd_member": "member with flagd-core, µs",
    "flagd_other": "somebody else with flagd-core, µs",
}


def main() -> None:
    chosen = _options()
    figures = {count: _measured(count, chosen.rounds, chosen.calls, chosen.flagd_calls) for count in chosen.keys}
    finish({"rounds": chosen.rounds, "keys": figures}, _show, as_json=chosen.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1000, 10_000, 100_000], help="sizes of the population")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=50_000, help="resolutions each round")
    parser.add_argument("--flagd-calls", type=int, default=100, help="the same with flagd-core, which takes its time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _measured(count: int, rounds: int, calls: int, flagd_calls: int) -> dict[str, Any]:
    chance = random.Random(count)
    keys = sorted(str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(count))
    rule = {"in": [{"var": "targetingKey"}, keys]}
    core = FlagdCore()
    core.set_flags(json.dumps({"flags": {"flag": FLAG}, "$evaluators": {"beta": rule}}))
    contexts = {
        "member": json.loads(json.dumps([{"targetingKey": key} for key in chance.choices(keys, k=64)])),
        "other": [{"targetingKey": str(uuid.UUID(int=chance.getrandbits(128)))} for _ in range(64)],
    }
    text = orjson.dumps(rule)
    every = [_round(text, core, contexts, calls, flagd_calls) for _ in range(rounds + 1)][1:]  # the first one warms up
    put = Change("e", 2, "m", "n", 0, evaluators={"beta": rule})
    return {
        "message_bytes": len(encode_change(put)),
        **{name: summary([each[name] for each in every]) for name in every[0]},
    }


def _round(
    text: bytes, core: FlagdCore, contexts: dict[str, list[dict[str, Any]]], calls: int, flagd_calls: int
) -> dict[str, float]:
    """Milliseconds of what is done once, and microseconds of one resolution."""
    fresh, rule = orjson.loads(text), orjson.loads(text)  # a text is hashed once, so each is compiled but once
    snapshot = Snapshot(Position("e", 1, "n"), {"flag": FLAG, "beside": BESIDE}, {"beta": rule})
    change = Change("e", 2, "m", "n", 0, flags={"beside": {**BESIDE, "defaultVariant": "on"}})
    figures = {
        "check": _milliseconds(lambda: check_population("beta", rule)),
        "compile": _milliseconds(lambda: compile_population("beta", fresh, generation="v3")),
        "plan": _milliseconds(lambda: _released(orjson.loads(text)).resolve("flag", {})),
        "snapshot": _milliseconds(
            lambda: Snapshot(Position("e", 1, "n"), {"flag": FLAG}, {"beta": orjson.loads(text)}).resolve("flag", {})
        ),
        "change_beside": _milliseconds(lambda: snapshot.with_change(change).resolve("beside", {})),
    }
    for name, some in contexts.items():
        assert all(snapshot.resolve("flag", context).value is (name == "member") for context in some)
        figures[name] = _microseconds(lambda context: snapshot.resolve("flag", context), some, calls)
    for name, some in contexts.items():
        theirs = [EvaluationContext(context["targetingKey"]) for context in some]
        assert core.resolve_boolean_value("flag", False, theirs[0]).value is (name == "member")
        figures[f"flagd_{name}"] = _microseconds(
            lambda context: core.resolve_boolean_value("flag", False, context), theirs, flagd_calls
        )
    return figures


def _released(rule: Rule) -> Snapshot:
    """A snapshot in which a release to the population has been started."""
    plan = check_plan(PLAN)
    release = actions.start(actions.plan(None, plan, 0), None, now=0, actor="benchmark")
    return Snapshot(Position("e", 1, "n"), {"flag": compile_release(release, FLAG)}, {"beta": rule})


def _milliseconds(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _microseconds(resolve: Callable[[Any], object], contexts: list[Any], calls: int) -> float:
    turns = [contexts[number % len(contexts)] for number in range(calls)]
    gc.collect()
    started = time.perf_counter()
    for context in turns:
        resolve(context)
    return (time.perf_counter() - started) / calls * 1e6


def _show(result: dict[str, Any]) -> None:
    table = Table("keys of the population", title=f"medians of {result['rounds']} rounds (lowest-highest)")
    for count in result["keys"]:
        table.add_column(f"{count:,}", justify="right")
    for name, label in FIGURES.items():
        cells = [figures[name] for figures in result["keys"].values()]
        shown = [f"{each['median']:,.2f} ({each['lowest']:,.2f}-{each['highest']:,.2f})" for each in cells]
        table.add_row(label, *shown)
    sizes = [f"{figures['message_bytes'] / 1e6:.2f}" for figures in result["keys"].values()]
    table.add_row("message of its change, MB", *sizes)
    Console().print(table)


if __name__ == "__main__":
    main()
