"""Whom a standing exposes, and who gains and loses between two."""

from typing import Any

import pytest
from hypothesis import given, settings

from flagrelay.release import actions
from flagrelay.release.exposure import exposures, shifts
from flagrelay.release.plan import EVERYBODY, WHOLE, check_plan
from flagrelay.release.sample import count
from flagrelay.release.standing import Release
from support.releases import STEPS, Step, World, is_exposed, walk, worlds

STAGES: list[dict[str, Any]] = [
    {"population": "dev-team"},
    {"population": "beta", "percent": 50},
    {"percent": 12.5},
    {"population": "beta"},
    {"percent": 100},
]


def release(at: int) -> Release:
    plan = check_plan({"flag": "checkout", "released": "on", "baseline": "off", "stages": STAGES})
    planned = actions.plan(None, plan, 0)
    return actions.start(planned, str(at), now=0, actor="ada") if at else planned


def back(at: Release, *populations: str, to: str | None = None) -> Release:
    return actions.unrelease(at, populations, to, now=0)


def shown(at: Release) -> dict[str, str]:
    return {scope: str(exposure) for scope, exposure in exposures(at).items()}


def changes(before: Release | None, after: Release) -> list[str]:
    signs = {(True, False): "+", (False, True): "-", (True, True): "±", (False, False): " "}
    return [f"{signs[shift.gains, shift.loses]} {shift}" for shift in shifts(before, after)]


@pytest.mark.parametrize(
    ("at", "dev_team", "beta", "everybody"),
    [
        (0, "none", "none", "none"),
        (1, "all", "none", "none"),
        (2, "all", "50 %", "none"),
        (3, "all", "50 %", "12.5 %"),
        (4, "all", "all", "12.5 %"),
        (5, "all", "all", "all"),
    ],
)
def test_each_stage_says_what_each_population_has(at: int, dev_team: str, beta: str, everybody: str) -> None:
    assert shown(release(at)) == {"dev-team": dev_team, "beta": beta, EVERYBODY: everybody}


def test_everybody_else_comes_last_and_has_at_least_what_everybody_has() -> None:
    at = back(release(3), "acme")
    assert [*exposures(at)] == ["dev-team", "beta", "acme", EVERYBODY]
    assert exposures(actions.restore(at, "acme"))[EVERYBODY].share == 12_500
    assert exposures(at)["acme"].share == 12_500
    assert exposures(at)["acme"].effective == 0


def test_what_is_withheld_says_why() -> None:
    at = back(release(3), "dev-team", to="acme")
    assert shown(at) == {
        "dev-team": "un-released",
        "beta": "50 % of those in acme",
        "acme": "12.5 %",
        EVERYBODY: "limited to acme",
    }
    both = back(at, to="eu")
    assert shown(both)["beta"] == "50 % of those in acme and eu"
    assert shown(both)["eu"] == "12.5 % of those in acme"
    assert exposures(both)[EVERYBODY].effective == 0


def test_an_end_exposes_everybody_or_nobody_or_the_same() -> None:
    assert set(shown(actions.finish(release(2), actor="finisher", force=True)).values()) == {"all"}
    assert set(shown(actions.abandon(release(2))).values()) == {"none"}
    assert shown(actions.detach(release(2))) == shown(release(2))


def test_a_shift_says_who_gains_and_who_loses() -> None:
    assert changes(None, release(0)) == []
    assert changes(None, release(1)) == ["+ dev-team: none → all"]
    assert changes(release(1), release(3)) == ["+ beta: none → 50 %", "+ everybody: none → 12.5 %"]
    assert changes(release(3), release(2)) == ["- everybody: 12.5 % → none"]
    assert changes(release(2), release(2)) == []
    assert changes(release(5), actions.finish(release(5), actor="finisher")) == []
    assert changes(release(2), actions.abandon(release(2))) == ["- dev-team: all → none", "- beta: 50 % → none"]


def test_who_is_of_an_unreleased_population_loses_what_others_give() -> None:
    """`acme` has nothing by itself, and those of it who are in `dev-team` too have it by that."""
    at = back(release(1), "acme")
    assert changes(release(1), at) == ["- acme: none → un-released"]
    assert changes(at, actions.restore(at, "acme")) == ["+ acme: un-released → none"]
    assert changes(at, actions.abandon(at)) == ["- dev-team: all → none"]


def test_who_is_within_a_limit_gains_and_loses_by_other_populations() -> None:
    limited = back(release(1), to="acme")
    assert changes(release(1), limited) == [
        "- dev-team: all → all of those in acme",
        "  everybody: none → limited to acme",
    ]
    more = actions.advance(limited, "beta", now=0, actor="ada")
    assert changes(limited, more) == ["+ beta: none → all of those in acme", "+ acme: none → 12.5 %"]
    assert changes(limited, actions.restore(limited, "acme")) == [
        "+ dev-team: all of those in acme → all",
        "  everybody: limited to acme → none",
    ]


def test_one_action_may_be_seen_as_taking_from_one_and_leaving_another() -> None:
    assert changes(release(5), back(release(5), "acme")) == ["- acme: all → un-released"]
    assert changes(release(5), back(release(5), "acme", to="dev-team")) == [
        "- beta: all → none",
        "- acme: all → un-released",
        "- everybody: all → none",
    ]


@settings(max_examples=80)
@given(worlds(), STEPS)
def test_nobody_gains_or_loses_where_no_shift_says_so(world: World, steps: list[Step]) -> None:
    people = world.people(150)
    for action, before, after in walk(world, steps):
        found = shifts(before, after)
        contexts = [person.context for person in people]
        counted = count(world.plan.flag, world.plan.released, world.snapshot(before), world.snapshot(after), contexts)
        assert any(shift.gains for shift in found) or not counted.gain, action
        assert any(shift.loses for shift in found) or not counted.lose, action
        assert counted.after - counted.before == counted.gain - counted.lose
        for person in people:  # and each is of a scope that says it
            had, has = is_exposed(before, person), is_exposed(after, person)
            mine = [shift for shift in found if shift.scope in person.groups or shift.scope == EVERYBODY]
            assert had >= has or any(shift.gains for shift in mine)
            assert had <= has or any(shift.loses for shift in mine)


@settings(max_examples=50)
@given(worlds(), STEPS)
def test_an_exposure_of_all_or_nothing_is_true_of_everybody_of_the_scope(world: World, steps: list[Step]) -> None:
    people = world.people(100)
    for _, _, after in walk(world, steps):
        found = exposures(after)
        for person in people:
            exposed = is_exposed(after, person)
            mine = [found[name] for name in person.groups if name in found] or [found[EVERYBODY]]
            if any(each.withheld for each in mine):
                assert not exposed
            elif any(each.effective == WHOLE and not each.within for each in mine):
                assert exposed
            elif not any(each.effective for each in mine):
                assert not exposed
