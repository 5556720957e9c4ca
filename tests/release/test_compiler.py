"""What releases compile to, held to a model, and to flagd's own evaluator."""

import copy
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from flagrelay.flags.definition import check_flag
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release import actions
from flagrelay.release.compiler import REVISION, STAGE, compile_release
from flagrelay.release.plan import WHOLE, check_plan
from flagrelay.release.standing import Release
from flagrelay.release.states import State
from support.releases import (
    FLAG,
    START,
    STEPS,
    VARIANTS,
    Population,
    Step,
    World,
    at_domains,
    contexts,
    due,
    equals,
    is_exposed,
    one_of,
    standing,
    walk,
    worlds,
)

STAGES: list[dict[str, Any]] = [
    {"population": "dev-team"},
    {"population": "internal"},
    {"population": "beta", "percent": 50},
    {"percent": 10},
    {"percent": 100},
]


def release(*, at: int, stages: list[dict[str, Any]] = STAGES, **members: Any) -> Release:
    document = {"flag": "checkout-v2", "released": "on", "baseline": "off", "stages": stages, **members}
    planned = actions.plan(None, check_plan(document), 0)
    return actions.start(planned, str(at), now=0, actor="ada") if at else planned


def targeting(standing: Release) -> Any:
    return compile_release(standing, FLAG).get("targeting")


def share(percent: int) -> dict[str, Any]:
    return {"fractional": [["on", percent * 1000], ["off", WHOLE - percent * 1000]]}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": name}


# -- what it looks like --------------------------------------------------------------------------------------


def test_each_stage_is_as_short_as_it_can_be() -> None:
    assert targeting(release(at=0)) is None
    assert targeting(release(at=1)) == {"if": [ref("dev-team"), "on", "off"]}
    assert targeting(release(at=2)) == {"if": [{"or": [ref("dev-team"), ref("internal")]}, "on", "off"]}
    whole = {"or": [ref("dev-team"), ref("internal")]}
    assert targeting(release(at=3)) == {"if": [whole, "on", ref("beta"), share(50), "off"]}
    assert targeting(release(at=4)) == {"if": [whole, "on", ref("beta"), share(50), share(10)]}
    assert targeting(release(at=5)) is None


def test_where_everybody_has_the_same_the_flag_has_no_targeting_and_that_as_its_default() -> None:
    assert compile_release(release(at=0), FLAG)["defaultVariant"] == "off"
    assert compile_release(release(at=5), FLAG)["defaultVariant"] == "on"
    assert targeting(actions.unrelease(release(at=0), ["beta"], None, now=0)) is None


def test_a_block_stands_in_front_of_everything() -> None:
    blocked = actions.unrelease(release(at=5), ["beta", "acme"], None, now=0)
    assert targeting(blocked) == {"if": [{"or": [ref("acme"), ref("beta")]}, "off", "on"]}
    limited = actions.unrelease(release(at=1), ["beta"], "acme", now=0)
    front = {"or": [{"!": [ref("acme")]}, ref("beta")]}
    assert targeting(limited) == {"if": [front, "off", ref("dev-team"), "on", "off"]}


def test_whoever_is_not_of_each_population_it_is_limited_to_has_the_baseline() -> None:
    limited = actions.unrelease(actions.unrelease(release(at=5), [], "eu", now=0), [], "acme", now=0)
    assert targeting(limited) == {"if": [{"or": [{"!": [ref("acme")]}, {"!": [ref("eu")]}]}, "off", "on"]}


def test_what_a_larger_share_covers_is_left_out() -> None:
    beta: dict[str, Any] = {"population": "beta"}
    stages = [{**beta, "percent": 5}, {**beta, "percent": 20}, {"percent": 10}]
    assert targeting(release(at=2, stages=stages)) == {"if": [ref("beta"), share(20), "off"]}
    assert targeting(release(at=3, stages=stages)) == {"if": [ref("beta"), share(20), share(10)]}
    assert targeting(release(at=4, stages=[*stages, {"percent": 20}])) == share(20)


def test_of_several_populations_with_a_share_the_largest_comes_first() -> None:
    stages = [{"population": "a", "percent": 5}, {"population": "b", "percent": 50}]
    assert targeting(release(at=2, stages=stages)) == {"if": [ref("b"), share(50), ref("a"), share(5), "off"]}


def test_a_salt_stands_for_the_flags_key() -> None:
    key = {"var": "targetingKey"}
    decides = {"if": [key, {"cat": ["2026", key]}]}
    salted = release(at=1, stages=[{"percent": 10}], salt="2026")
    assert targeting(salted) == {"fractional": [decides, ["on", 10_000], ["off", 90_000]]}


def test_a_mix_is_shared_out_by_a_hash_of_its_own() -> None:
    mixed = release(at=1, stages=[{"percent": 10}], released={"red": 1, "blue": 3})
    decides = {"cat": ["checkout-v2/variants:", {"var": ["targetingKey", ""]}]}
    among = {"==": [{"fractional": [["in", 10_000], ["out", 90_000]]}, "in"]}
    assert targeting(mixed) == {"if": [among, {"fractional": [decides, ["red", 1], ["blue", 3]]}, "off"]}


def test_the_default_is_what_most_would_have_anyway() -> None:
    mix = {"red": 1, "blue": 3}
    assert compile_release(release(at=1, baseline=mix), FLAG)["defaultVariant"] == "blue"
    running = release(at=5, released=mix)
    assert compile_release(running, FLAG)["defaultVariant"] == "off"
    assert compile_release(actions.finish(running, actor="finisher"), FLAG)["defaultVariant"] == "blue"


def test_metadata_says_where_a_release_stands_and_keeps_what_else_there_is() -> None:
    metadata = {"owner": "ada", STAGE: "internal", REVISION: 2}
    assert compile_release(release(at=2), FLAG)["metadata"] == metadata
    assert compile_release(release(at=0), FLAG)["metadata"] == {"owner": "ada", STAGE: "dark", REVISION: 1}
    before = compile_release(release(at=2), FLAG)
    assert compile_release(release(at=3), before)["metadata"] == {"owner": "ada", STAGE: "beta-50%", REVISION: 2}
    bare = {name: value for name, value in FLAG.items() if name != "metadata"}
    assert "metadata" not in compile_release(actions.abandon(release(at=2)), bare)


def test_what_the_flag_was_before_changes_only_its_variants_and_metadata() -> None:
    before = {**FLAG, "state": "DISABLED", "defaultVariant": "red", "targeting": {"if": [True, "blue"]}}
    kept = copy.deepcopy(before)
    assert compile_release(release(at=3), before) == compile_release(release(at=3), FLAG)
    assert before == kept


# -- properties ----------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(worlds(apart=False), STEPS)
def test_everybody_has_after_each_action_what_a_model_says(world: World, steps: list[Step]) -> None:
    people = world.people(150)
    for action, _, after in walk(world, steps):
        expected = [due(after, person) for person in people]
        assert world.variants(after, people) == expected, action


@settings(max_examples=60)
@given(worlds(apart=False), STEPS, st.sampled_from(("finish", "abandon", "detach", "")))
def test_what_is_compiled_is_a_flag_the_same_each_time_and_as_short_as_that_goes(
    world: World, steps: list[Step], end: str
) -> None:
    definition = FLAG
    for _, before, after in walk(world, steps):
        assert after is before or after.revision == before.revision + 1
        definition = compile_release(after, definition)
        assert check_flag(after.flag, definition, world.evaluators) is definition
        assert orjson.dumps(definition) == orjson.dumps(compile_release(after, FLAG))
        assert definition["metadata"] == {"owner": "ada", STAGE: after.stage_name, REVISION: after.revision}
        reached = after.plan.stages[: after.position]
        nobody, mixes = not reached, (after.plan.released, after.plan.baseline)
        everybody = not (after.blocks or after.only) and any(
            stage.population is None and stage.share == WHOLE for stage in reached
        )
        plain = (everybody and len(mixes[0]) == 1) or (nobody and len(mixes[1]) == 1)
        assert ("targeting" in definition) is not plain
    last = standing(world, steps)
    if end == "finish" and last.state is State.RUNNING and not (last.blocks or last.only):
        last = actions.finish(last, actor="finisher", force=True)
    elif end in ("abandon", "detach"):
        last = getattr(actions, end)(last)
    ended = compile_release(last, definition)
    assert check_flag(last.flag, ended, world.evaluators) is ended
    assert ended["variants"] == VARIANTS


@settings(max_examples=40)
@given(worlds(apart=False), STEPS)
def test_finish_abandon_and_detach_leave_plain_flags(world: World, steps: list[Step]) -> None:
    people = world.people(100)
    last = standing(world, steps)
    before = compile_release(last, FLAG)
    ends = [actions.abandon(last), actions.detach(last)]
    if last.state is State.RUNNING and not (last.blocks or last.only):
        ends.append(actions.finish(last, actor="finisher", force=True))
    for ended in ends:
        definition = compile_release(ended, before)
        assert definition["metadata"] == {"owner": "ada"}
        assert ended.revision == last.revision + 1
        if ended.state is State.DETACHED:
            assert {**definition, "metadata": 0} == {**before, "metadata": 0}
        else:
            assert "$ref" not in str(definition)
            mix = last.plan.released if ended.state is State.FINISHED else last.plan.baseline
            assert ("targeting" in definition) == (len(mix) > 1)
            assert definition["defaultVariant"] in mix
        assert world.variants(ended, people) == [due(ended, person) for person in people]


@settings(max_examples=40)
@given(worlds(apart=False), st.integers(1, 8))
def test_a_finished_release_moves_nobody_who_had_it_to_another_variant(world: World, stage: int) -> None:
    people = world.people(100)
    number = min(stage, len(world.plan.stages))
    last = actions.start(actions.plan(None, world.plan, 0), str(number), now=0, actor="ada")
    had, has = world.variants(last, people), world.variants(actions.finish(last, actor="finisher", force=True), people)
    for person, before, after in zip(people, had, has, strict=True):
        assert before == after or not is_exposed(last, person)


FIXED = {
    "dev-team": one_of("dev-team", "targetingKey", [f"user-{number}" for number in range(0, 400, 40)]),
    "internal": at_domains("internal", ["example.com"]),
    "beta": equals("beta", "plan", "pro"),
    "eu_west": one_of("eu_west", "country", ["DE", "FR"]),
}


def fixed_world(**members: Any) -> World:
    document = {"flag": "checkout-v2", "released": "on", "baseline": "off", "stages": STAGES, **members}
    return World(check_plan(document), FIXED, seed=len(members))


@pytest.mark.parametrize(
    "world",
    [
        fixed_world(),
        fixed_world(salt="2026"),
        fixed_world(released={"red": 1, "blue": 3}, stages=[{"population": "eu_west", "percent": 0.5}, *STAGES]),
        fixed_world(salt="x", released={"red": 1, "on": 1}, baseline={"off": 9, "green": 1}),
    ],
    ids=["plain", "salted", "mixed", "all at once"],
)
def test_each_of_a_hundred_thousand_people_has_at_some_stage_what_a_model_says(world: World) -> None:
    """25,000 in each world, at a stage of each kind, with somebody un-released."""
    people = world.people(25_000)
    at = actions.start(actions.plan(None, world.plan, 0), "4", now=0, actor="ada")
    at = actions.unrelease(at, ["dev-team"], None, now=0)
    expected = [due(at, person) for person in people]
    assert world.variants(at, people) == expected
    assert len(set(expected)) == len(world.plan.released) + len(world.plan.baseline)


@pytest.mark.parametrize("salt", ["", "2026"])
@pytest.mark.parametrize("generation", ["v3", "v2"])
def test_a_percentage_reaches_that_share_of_people(salt: str, generation: str) -> None:
    """100,000 targeting keys, within five standard deviations; and whoever is among the fewer is among the more."""
    chance, count = random.Random(7), 100_000
    people = [{"targetingKey": f"{chance.getrandbits(64):x}"} for _ in range(count)]
    among: set[int] = set()
    for percent in (0.1, 12.5, 50):
        at = release(at=1, stages=[{"percent": percent}], salt=salt)
        snapshot = Snapshot(START, {"checkout-v2": compile_release(at, FLAG)}, settings=EnvironmentSettings(generation))
        now = {index for index, who in enumerate(people) if snapshot.resolve("checkout-v2", who).variant == "on"}
        expected = count * percent / 100
        assert abs(len(now) - expected) <= 5 * (expected * (1 - percent / 100)) ** 0.5
        assert among <= now
        among = now


def test_shares_and_mixes_do_not_depend_on_each_other() -> None:
    """Among 10 % of people the released variants have their weights: were it one hash, the first would have all."""
    at = release(at=1, stages=[{"percent": 10}], released={"red": 1, "blue": 1})
    snapshot = Snapshot(START, {"checkout-v2": compile_release(at, FLAG)})
    found = [snapshot.resolve("checkout-v2", {"targetingKey": str(number)}).variant for number in range(20_000)]
    red, blue = found.count("red"), found.count("blue")
    assert 1_800 < red + blue < 2_200
    assert 0.85 < red / blue < 1.18


# -- next to flagd's own -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """It logs each context without a targeting key."""
    with mock.patch.object(logging.getLogger("openfeature.contrib"), "disabled", new=True):
        yield


def theirs(core: FlagdCore, key: str, context: dict[str, Any]) -> Any:
    attributes = {name: value for name, value in context.items() if name != "targetingKey"}
    try:
        details = core._resolve(key, None, EvaluationContext(context.get("targetingKey"), attributes))
    except OpenFeatureError as error:
        return None, None, "ERROR", error.error_code.value
    return details.value, details.variant, str(details.reason), details.error_code


@settings(max_examples=100)
@given(worlds(apart=False), STEPS, st.sampled_from(("abandon", "detach")))
def test_flagds_own_evaluator_resolves_it_the_same(world: World, steps: list[Step], last: str) -> None:
    world = replace(world, generation="v3")  # it knows one generation of `fractional`
    taken = [after for _, _, after in walk(world, steps)]
    taken.append(getattr(actions, last)(taken[-1]))
    people = contexts(world.seed, 40)
    for after in taken:
        definition = compile_release(after, FLAG)
        document = {"flags": {after.flag: definition}, "$evaluators": world.evaluators}
        snapshot = Snapshot(START, document["flags"], document["$evaluators"])
        core = FlagdCore()
        core.set_flags(copy.deepcopy(document))
        for context in people:
            found = snapshot.resolve(after.flag, context)
            ours = (found.value, found.variant, found.reason.value, found.error_code)
            assert ours == theirs(core, after.flag, context), context


def test_whoever_has_no_targeting_key_is_in_no_share_and_in_every_population_that_takes_them() -> None:
    populations: dict[str, Population] = {"beta": equals("beta", "plan", "pro")}
    for salt in ("", "2026"):
        stages = [{"percent": 99.999}, {"population": "beta"}]
        document = {"flag": "f", "released": {"on": 1, "red": 1}, "baseline": "off", "salt": salt, "stages": stages}
        world = World(check_plan(document), populations, 0)
        at = actions.start(actions.plan(None, world.plan, 0), "2", now=0, actor="ada")
        keyless: list[dict[str, Any]] = [{}, {"targetingKey": ""}, {"targetingKey": None}]
        people = [world.person(context) for each in keyless for context in (each, {**each, "plan": "pro"})]
        assert world.having(at, people) == [False, True] * 3
