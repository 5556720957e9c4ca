"""How many people a change reaches, counted."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.flags.snapshot import Snapshot
from flagrelay.release import actions
from flagrelay.release.plan import check_plan
from flagrelay.release.sample import Count, count, telling
from support.releases import START, STEPS, Step, World, is_exposed, standing, walk, worlds


def flag(targeting: Any) -> Snapshot:
    variants = {"on": True, "off": False, "red": True}
    definition = {"state": "ENABLED", "variants": variants, "defaultVariant": "off", "targeting": targeting}
    return Snapshot(START, {"checkout": definition})


PEOPLE = [{"plan": plan} for plan in ("pro", "pro", "free", "team", None)]


def on_for(plan: str, variant: str = "on") -> Snapshot:
    return flag({"if": [{"==": [{"var": "plan"}, plan]}, variant, "off"]})


def test_who_has_it_before_and_after_and_who_gains_and_loses_is_counted() -> None:
    assert count("checkout", {"on": 1}, on_for("pro"), on_for("free"), PEOPLE) == Count(5, 2, 1, 1, 2)
    assert count("checkout", {"on": 1}, on_for("pro"), on_for("pro"), PEOPLE) == Count(5, 2, 2, 0, 0)


def test_of_several_released_variants_each_counts() -> None:
    mix = {"on": 1, "red": 1}
    assert count("checkout", mix, on_for("pro"), on_for("pro", "red"), PEOPLE) == Count(5, 2, 2, 0, 0)
    assert count("checkout", {"on": 1}, on_for("pro"), on_for("pro", "red"), PEOPLE) == Count(5, 2, 0, 0, 2)


def test_where_there_is_no_flag_nobody_has_it() -> None:
    assert count("checkout", {"on": 1}, None, on_for("pro"), PEOPLE) == Count(5, 0, 2, 2, 0)
    assert count("checkout", {"on": 1}, on_for("pro"), None, PEOPLE) == Count(5, 2, 0, 0, 2)
    assert count("checkout", {"on": 1}, None, None, PEOPLE) == Count(5, 0, 0, 0, 0)
    assert count("elsewhere", {"on": 1}, on_for("pro"), on_for("pro"), PEOPLE) == Count(5, 0, 0, 0, 0)


def test_contexts_are_taken_one_by_one() -> None:
    assert count("checkout", {"on": 1}, on_for("pro"), None, iter(PEOPLE)).contexts == 5
    assert count("checkout", {"on": 1}, on_for("pro"), None, []) == Count(0, 0, 0, 0, 0)


def test_a_count_says_whether_anybody_moves() -> None:
    assert not Count(5, 2, 2, 0, 0).moved
    assert Count(5, 2, 2, 1, 1).moved
    assert Count(5, 0, 1, 1, 0).moved
    assert Count(5, 1, 0, 0, 1).moved


@settings(max_examples=50)
@given(worlds(), STEPS)
def test_it_counts_what_a_model_counts(world: World, steps: list[Step]) -> None:
    people = world.people(100)
    contexts = [person.context for person in people]
    for _, before, after in walk(world, steps):
        had, has = ([is_exposed(each, person) for person in people] for each in (before, after))
        gain = sum(now > then for then, now in zip(had, has, strict=True))
        lose = sum(now < then for then, now in zip(had, has, strict=True))
        counted = count(world.plan.flag, world.plan.released, world.snapshot(before), world.snapshot(after), contexts)
        assert counted == Count(100, sum(had), sum(has), gain, lose)


@settings(max_examples=30)
@given(worlds(), STEPS, st.integers(0, 60))
def test_the_keys_of_a_list_are_contexts_too(world: World, steps: list[Step], size: int) -> None:
    at = standing(world, steps)
    contexts = [{"targetingKey": f"user-{number}"} for number in range(size)]
    expected = sum(is_exposed(at, world.person(context)) for context in contexts)
    counted = count(world.plan.flag, world.plan.released, None, world.snapshot(at), contexts)
    assert (counted.contexts, counted.after) == (size, expected)


@pytest.mark.parametrize(
    ("released", "baseline", "expected"),
    [
        ("on", "off", {"on": 1}),
        ({"on": 2, "red": 3}, "off", {"on": 2, "red": 3}),
        ({"on": 2, "red": 3}, {"red": 1, "off": 1}, {"on": 2}),
        ("on", {"on": 1, "off": 1}, {"on": 1}),
        ({"on": 2, "red": 3}, {"red": 2, "on": 3}, {}),
    ],
)
def test_who_has_it_is_told_by_variants_that_the_baseline_has_not_where_there_are_any(
    released: Any, baseline: Any, expected: dict[str, int]
) -> None:
    document = {"flag": "f", "released": released, "baseline": baseline, "stages": [{"percent": 1}]}
    assert telling(check_plan(document)) == expected


def test_a_variant_of_both_roles_makes_nobody_gain_who_has_it_already() -> None:
    document = {"flag": "f", "released": {"on": 1, "red": 1}, "baseline": {"red": 1}, "stages": [{"percent": 100}]}
    planned = actions.plan(None, check_plan(document), 0)
    world = World(planned.plan, {}, 0)
    contexts = [{"targetingKey": str(number)} for number in range(1_000)]
    all_of_it = actions.start(planned, None, now=0, actor="ada")
    counted = count("f", telling(planned.plan), world.snapshot(planned), world.snapshot(all_of_it), contexts)
    assert counted.before == counted.lose == 0
    assert 400 < counted.after == counted.gain < 600
