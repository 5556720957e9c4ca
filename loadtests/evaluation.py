"""What one evaluation costs, beside flagd's own Python evaluator and the same rule written by hand.

    python loadtests/evaluation.py --rounds 9

All engines have the same three flags (one without a rule, one for a population, one of three branches that ends in a
percentage) and the same contexts, and take turns, round by round. Engines that are not installed are left out:

    pip install launchdarkly-server-sdk growthbook yggdrasil-engine

Then: how long a flag set of 10,000 flags takes to compile, and how much memory it holds.
"""

import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import mmh3
from bench import finish, options, resident, summary
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from rich.console import Console
from rich.table import Table

from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot

VARIANTS = {"on": True, "off": False}
TEAM = [f"dev-{number}@example.com" for number in range(20)]
POPULATIONS = {"dev-team": {"in": [{"var": "email"}, TEAM]}}
CASES = {
    "static": {},
    "population": {"if": [{"$ref": "dev-team"}, "on", "off"]},
    "three branches": {
        "if": [
            {"$ref": "dev-team"},
            "on",
            {"==": [{"var": "plan"}, "pro"]},
            "on",
            {"fractional": [["on", 10], ["off", 90]]},
        ]
    },
}
CONTEXTS = [
    {"email": f"user-{number}@example.com", "plan": "free", "country": "CH", "targetingKey": f"user-{number}"}
    for number in range(64)
]

Engine = Callable[[str, int], object]


def main() -> None:
    chosen = options(
        __doc__,
        rounds=9,
        calls=(20_000, "evaluations of each engine, flag and round"),
        flags=(10_000, "flags of the set that is loaded"),
    )
    engines = {
        name: make() for name, make in ENGINES.items() if name not in NEEDS or find_spec(NEEDS[name]) is not None
    }
    rounds = [_round(engines, chosen.calls) for _ in range(chosen.rounds + 1)][1:]  # the first one warms up
    result = {
        "rounds": chosen.rounds,
        "calls": chosen.calls,
        "microseconds": _summary(rounds),
        "load": _load(chosen.flags),
    }
    finish(result, _show, as_json=chosen.json)


def _definition(targeting: dict[str, Any]) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", "targeting": targeting}


def _flagrelay() -> Engine:
    flags = {name: _definition(targeting) for name, targeting in CASES.items()}
    resolve = Snapshot(Position("bench", 1, "n"), flags, POPULATIONS).resolve
    return lambda case, number: resolve(case, CONTEXTS[number])


def _flagd_core() -> Engine:
    core = FlagdCore()
    flags = {name: _definition(targeting) for name, targeting in CASES.items()}
    core.set_flags(json.dumps({"flags": flags, "$evaluators": POPULATIONS}))
    contexts = [
        EvaluationContext(context["targetingKey"], {k: v for k, v in context.items() if k != "targetingKey"})
        for context in CONTEXTS
    ]
    return lambda case, number: core.resolve_boolean_value(case, False, contexts[number])


def _by_hand() -> Engine:
    """What somebody would write who has only these flags: no errors, no reasons, no types."""
    team = frozenset(TEAM)

    def static(_context: dict[str, Any]) -> bool:
        return False

    def population(context: dict[str, Any]) -> bool:
        return context.get("email") in team

    def branches(context: dict[str, Any]) -> bool:
        if context.get("email") in team or context.get("plan") == "pro":
            return True
        hashed = mmh3.hash(f"three branches{context['targetingKey']}", 0, signed=False)
        return (hashed * 100) >> 32 < 10

    rules = dict(zip(CASES, (static, population, branches), strict=True))
    return lambda case, number: rules[case](CONTEXTS[number])


def _launchdarkly() -> Engine:
    import ldclient  # noqa: PLC0415 - an engine that is installed
    from ldclient.config import Config  # noqa: PLC0415
    from ldclient.integrations.test_data import TestData  # noqa: PLC0415

    data = TestData.data_source()
    for case in CASES:
        flag = data.flag(case).variations(True, False).fallthrough_variation(1)
        if case != "static":
            flag = flag.if_match("email", *TEAM).then_return(0)
        if case == "three branches":
            flag = flag.if_match("plan", "pro").then_return(0)
        data.update(flag)
    client = ldclient.LDClient(Config("bench", update_processor_class=data, send_events=False))
    contexts = [
        ldclient.Context.builder(context["targetingKey"]).set("email", context["email"]).set("plan", "free").build()
        for context in CONTEXTS
    ]
    return lambda case, number: client.variation_detail(case, contexts[number], False)


def _growthbook() -> Engine:
    from growthbook import GrowthBook  # noqa: PLC0415 - an engine that is installed

    team = {"condition": {"email": {"$in": TEAM}}, "force": True}
    rules = {
        "static": [],
        "population": [team],
        "three branches": [
            team,
            {"condition": {"plan": "pro"}, "force": True},
            {"force": True, "coverage": 0.1, "hashAttribute": "targetingKey"},
        ],
    }
    features = {case: {"defaultValue": False, "rules": rules[case]} for case in CASES}
    book = GrowthBook(features=features)

    def run(case: str, number: int) -> object:
        book.set_attributes(CONTEXTS[number])
        return book.eval_feature(case)

    return run


def _unleash() -> Engine:
    from yggdrasil_engine.engine import UnleashEngine  # noqa: PLC0415 - an engine that is installed

    team = {"contextName": "email", "operator": "IN", "values": TEAM}
    pro = {"contextName": "plan", "operator": "IN", "values": ["pro"]}
    everybody = {"name": "default"}
    rollout = {"name": "flexibleRollout", "parameters": {"rollout": "10", "stickiness": "default", "groupId": "x"}}
    strategies: dict[str, list[dict[str, Any]]] = {
        "static": [everybody],
        "population": [{**everybody, "constraints": [team]}],
        "three branches": [{**everybody, "constraints": [team]}, {**everybody, "constraints": [pro]}, rollout],
    }
    features = [{"name": case, "enabled": True, "strategies": strategies[case]} for case in CASES]
    engine = UnleashEngine()
    engine.take_state(json.dumps({"version": 1, "features": features}))
    contexts = [
        {"userId": context["targetingKey"], "properties": {"email": context["email"], "plan": "free"}}
        for context in CONTEXTS
    ]
    return lambda case, number: engine.is_enabled(case, contexts[number])


ENGINES: dict[str, Callable[[], Engine]] = {
    "flagrelay": _flagrelay,
    "by hand": _by_hand,
    "flagd-core": _flagd_core,
    "LaunchDarkly": _launchdarkly,
    "GrowthBook": _growthbook,
    "Unleash": _unleash,
}
NEEDS = {"LaunchDarkly": "ldclient", "GrowthBook": "growthbook", "Unleash": "yggdrasil_engine"}


def _round(engines: dict[str, Engine], calls: int) -> dict[str, dict[str, float]]:
    """Microseconds of one evaluation, by flag and engine."""
    times: dict[str, dict[str, float]] = {}
    for case in CASES:
        times[case] = {}
        for name, engine in engines.items():
            numbers = [number % len(CONTEXTS) for number in range(calls)]
            gc.collect()
            started = time.perf_counter()
            for number in numbers:
                engine(case, number)
            times[case][name] = (time.perf_counter() - started) / calls * 1e6
        empty = _loop_alone(calls)
        times[case] = {name: max(0.001, each - empty) for name, each in times[case].items()}
    return times


def _loop_alone(calls: int) -> float:
    """Microseconds that the loop and the call of an engine's wrapper take by themselves."""
    numbers = [number % len(CONTEXTS) for number in range(calls)]
    nothing: Engine = lambda _case, number: CONTEXTS[number]  # noqa: E731 - as the engines are
    started = time.perf_counter()
    for number in numbers:
        nothing("case", number)
    return (time.perf_counter() - started) / calls * 1e6


def _summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for case in CASES:
        figures[case] = {}
        for name in rounds[0][case]:
            ratios = [each[case][name] / each[case]["flagrelay"] for each in rounds]
            figures[case][name] = {
                **summary([each[case][name] for each in rounds]),
                "times_flagrelay": round(statistics.median(ratios), 2),
            }
    return figures


def _load(count: int) -> dict[str, Any]:
    """Compiling a whole flag set: a quarter static, the rest with rules of one to four branches."""
    rules = [
        {},
        CASES["population"],
        CASES["three branches"],
        {
            "if": [
                {"and": [{"in": [{"var": "country"}, ["DE", "CH", "AT"]]}, {">=": [{"var": "age"}, 18]}]},
                "on",
                {"sem_ver": [{"var": "version"}, ">=", "2.1.0"]},
                "on",
                None,
            ]
        },
    ]
    flags = {f"flag-{number}": _definition(json.loads(json.dumps(rules[number % 4]))) for number in range(count)}
    gc.collect()
    before, started = resident(os.getpid()), time.perf_counter()
    snapshot = Snapshot(Position("bench", 1, "n"), flags, POPULATIONS)
    took = time.perf_counter() - started
    gc.collect()
    after = resident(os.getpid())
    return {
        "flags": len(snapshot.flags),
        "seconds": round(took, 3),
        "microseconds_per_flag": round(took / count * 1e6, 1),
        "megabytes": round((after - before) / 1e6, 1),
    }


def _show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table("engine", title=f"microseconds per evaluation, medians of {result['rounds']} rounds")
    for case in CASES:
        table.add_column(case, justify="right")
        table.add_column("times ours", justify="right")
    for name in result["microseconds"]["static"]:
        row = [name]
        for case in CASES:
            one = result["microseconds"][case][name]
            row += [f"{one['median']:.2f} ({one['lowest']:.2f}-{one['highest']:.2f})", f"{one['times_flagrelay']:.1f}"]
        table.add_row(*row)
    console.print(table)
    load = result["load"]
    console.print(
        f"{load['flags']} flags compiled in {load['seconds']} s ({load['microseconds_per_flag']} µs each), "
        f"{load['megabytes']} MB beside the definitions"
    )


if __name__ == "__main__":
    main()
