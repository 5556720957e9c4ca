"""A release as it is stored."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from flagrelay.errors import DefinitionError
from flagrelay.release import actions
from flagrelay.release.plan import check_plan
from flagrelay.release.standing import DARK, Release, read_release
from flagrelay.release.states import State
from support.releases import STEPS, Step, World, standing, walk, worlds

STAGES: list[dict[str, Any]] = [
    {"population": "dev-team"},
    {"population": "beta", "percent": 50, "approval": ["grace"]},
    {"percent": 100, "approval": 2},
]


def running() -> Release:
    plan = check_plan({"flag": "checkout", "released": "on", "baseline": "off", "stages": STAGES})
    started = actions.start(actions.plan(None, plan, 5), None, now=7, actor="ada")
    approved = actions.approve(actions.approve(started, None, "grace"), "100%", "joan")
    return actions.unrelease(approved, ["acme", "beta"], "eu", now=8)


@settings(max_examples=40)
@given(worlds(apart=False), STEPS)
def test_a_release_is_read_back_as_it_was(world: World, steps: list[Step]) -> None:
    for _, _, after in walk(world, steps):
        assert read_release(orjson.loads(orjson.dumps(after.as_json()))) == after
        assert after.populations == tuple(sorted(set(after.populations)))
        named = {stage.population for stage in after.plan.stages if stage.population}
        assert set(after.populations) == named | set(after.blocks) | set(after.only)


def test_approvals_are_read_back_too() -> None:
    assert running().approvals == {"beta-50%": ("grace",), "100%": ("joan",)}
    assert read_release(running().as_json()) == running()


def test_what_a_later_version_adds_is_nothing_to_stumble_over() -> None:
    assert read_release({**running().as_json(), "mood": {"of": "the team"}}) == running()


def test_a_release_says_where_it_is() -> None:
    release = running()
    assert (release.flag, release.stage_name, len(release.reached)) == ("checkout", "dev-team", 1)
    assert release.populations == ("acme", "beta", "dev-team", "eu")
    back = actions.retreat(release, None, now=9)
    assert (back.state, back.stage, back.stage_name, back.reached) == (State.WITHDRAWN, None, DARK, ())


@settings(max_examples=30)
@given(worlds(), STEPS)
def test_only_what_is_running_is_at_a_stage(world: World, steps: list[Step]) -> None:
    last = standing(world, steps)
    assert (last.position > 0) == (last.state is State.RUNNING)


@pytest.mark.parametrize("name", ["plan", "state", "position", "blocks", "only", "revision", "since", "approvals"])
def test_a_release_without_one_of_its_members_is_refused(name: str) -> None:
    document = running().as_json()
    del document[name]
    with pytest.raises(DefinitionError, match=rf"^release: not as it was stored: KeyError\('{name}'\)"):
        read_release(document)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"state": "asleep"}, "not as it was stored: ValueError.*asleep"),
        ({"state": None}, "not as it was stored: ValueError"),
        ({"position": "one"}, "not as it was stored: ValueError"),
        ({"position": None}, "not as it was stored: TypeError"),
        ({"position": -1}, "at position: beyond the stages of its plan"),
        ({"position": 4}, "at position: beyond the stages of its plan"),
        ({"position": 0}, "at position: a release that is running is at a stage"),
        ({"state": "planned"}, "at position: a release that is planned is at no stage"),
        ({"state": "withdrawn"}, "at position: a release that is withdrawn is at no stage"),
        ({"blocks": "acme"}, "not as it was stored: TypeError.*'acme' is no list of texts"),
        ({"only": [1]}, "not as it was stored: TypeError"),
        ({"approvals": {"beta-50%": "grace"}}, "not as it was stored: TypeError"),
        ({"approvals": []}, "not as it was stored: AttributeError"),
        ({"plan": {}}, "plan: at flag: should be the key of a flag"),
        ({"plan": None}, "plan: should be an object"),
    ],
)
def test_a_damaged_release_is_refused(damage: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        read_release({**running().as_json(), **damage})
