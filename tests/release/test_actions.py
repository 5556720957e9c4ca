"""Each action on a release: what it does, what it refuses, and whom it reaches."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.errors import ActionRefused, ActionUnfit, ApprovalMissing, DefinitionError, TooEarly
from flagrelay.release import actions
from flagrelay.release.actions import MAX_BLOCKS
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import Plan, check_plan
from flagrelay.release.standing import Release
from flagrelay.release.states import State
from support.releases import (
    FLAG,
    NARROWING,
    NEUTRAL,
    STEPS,
    WIDENING,
    Step,
    World,
    is_exposed,
    standing,
    walk,
    worlds,
)

SECOND, HOUR = 1_000_000, 3_600_000_000

STAGES: list[dict[str, Any]] = [
    {"population": "dev-team"},
    {"population": "internal", "percent": 50},
    {"population": "internal"},
    {"name": "canary", "percent": 1},
    {"percent": 100},
]


def a_plan(stages: list[dict[str, Any]] = STAGES, **members: Any) -> Plan:
    return check_plan({"flag": "checkout", "released": "on", "baseline": "off", "stages": stages, **members})


def release(at: int = 0, stages: list[dict[str, Any]] = STAGES, **members: Any) -> Release:
    planned = actions.plan(None, a_plan(stages, **members), 0)
    return actions.start(planned, str(at), now=0, actor="ada", force=True) if at else planned


def advance(at: Release, stage: str | None = None, *, now: int = 0, actor: str = "ada", force: bool = False) -> Release:
    return actions.advance(at, stage, now=now, actor=actor, force=force)


def refused(error: ActionRefused) -> tuple[str, str]:
    prefix, _, cause = str(error).partition(': release of flag "checkout": ')
    action = error.instead
    would = "" if action == prefix else f"; `flagrelay release {action} checkout` would fit"
    assert cause.endswith(f"{would}; nothing was changed")
    return f"{prefix}: {cause.removesuffix(f'{would}; nothing was changed')}", action


# -- plan ----------------------------------------------------------------------------------------------------


def test_a_plan_that_is_stored_exposes_nobody() -> None:
    planned = actions.plan(None, a_plan(), 5)
    assert planned == Release(a_plan(), State.PLANNED, 0, (), (), 1, 5, {})


def test_a_plan_that_has_not_started_may_become_any_other() -> None:
    other = a_plan([{"percent": 3}], released="red", baseline="blue", salt="x")
    assert actions.plan(release(), other, 9) == Release(other, revision=2)


def test_under_way_what_is_ahead_may_be_planned_anew() -> None:
    at = release(2)
    other = a_plan([*STAGES[:2], {"percent": 3}], owner="grace")
    assert actions.plan(at, other, 9) == Release(other, State.RUNNING, 2, revision=3)


@pytest.mark.parametrize(
    "stages",
    [
        STAGES[:1],
        [STAGES[1], STAGES[0]],
        [STAGES[0], {"population": "internal", "percent": 40}],
        [STAGES[0], {"population": "beta", "percent": 50}],
        [STAGES[0], {"population": "internal", "percent": 50, "name": "another"}],
    ],
)
def test_under_way_what_was_reached_stays_as_it_is(stages: list[dict[str, Any]]) -> None:
    with pytest.raises(ActionRefused) as raised:
        actions.plan(release(2), a_plan(stages), 9)
    cause = 'plan: the stages up to "internal-50%" are reached, and stay as they are'
    assert refused(raised.value) == (cause, "retreat")


@pytest.mark.parametrize("state", [State.RUNNING, State.WITHDRAWN])
@pytest.mark.parametrize("members", [{"released": "red"}, {"baseline": "red"}, {"salt": "x"}, {"released": {"on": 1}}])
def test_under_way_variants_and_salt_stay_as_they_are(state: State, members: dict[str, Any]) -> None:
    at = release(2)
    at = actions.unrelease(at, [], None, now=0) if state is State.WITHDRAWN else at
    if members == {"released": {"on": 1}}:  # the same, said in another way
        assert actions.plan(at, a_plan(**members), 9).state is state
        return
    with pytest.raises(ActionRefused) as raised:
        actions.plan(at, a_plan(**members), 9)
    cause = "plan: under way, its variants and its salt stay as they are: abandon it, and plan anew"
    assert refused(raised.value) == (cause, "abandon")


def test_under_way_variants_keep_their_order_by_which_people_are_among_them() -> None:
    at = release(2, released={"blue": 1, "green": 2}, baseline={"red": 1, "off": 1})
    other = a_plan(released={"green": 2, "blue": 1}, baseline={"off": 1, "red": 1}, owner="grace")
    then = actions.plan(at, other, 9)
    assert (then.plan.owner, [*then.plan.released], [*then.plan.baseline]) == (
        "grace",
        ["blue", "green"],
        ["red", "off"],
    )
    assert compile_release(then, FLAG)["targeting"] == compile_release(at, FLAG)["targeting"]


def test_the_gates_of_what_was_reached_may_change() -> None:
    gated = [STAGES[0], {**STAGES[1], "minimum": "1h", "approval": True}, *STAGES[2:]]
    at = actions.plan(release(2), a_plan(gated), 9)
    with pytest.raises(TooEarly):
        advance(at, now=HOUR - SECOND)


def test_who_agreed_to_a_stage_has_not_agreed_to_another_one_of_its_name() -> None:
    stages = [STAGES[0], {"name": "next", "percent": 1, "approval": True}, {"percent": 50, "approval": True}]
    at = actions.approve(actions.approve(release(1, stages), None, "grace"), "50%", "grace")
    other = [STAGES[0], {"name": "next", "percent": 40, "approval": True}, {"percent": 50, "approval": True}]
    assert actions.plan(at, a_plan(other), 0).approvals == {"50%": ("grace",)}
    assert actions.plan(at, a_plan(stages, owner="ada"), 0).approvals == at.approvals
    assert actions.plan(at, a_plan(stages[:2]), 0).approvals == {"next": ("grace",)}


# -- approve -------------------------------------------------------------------------------------------------

GATED: list[dict[str, Any]] = [
    {"population": "dev-team", "minimum": "1h"},
    {"population": "beta", "approval": True},
    {"name": "canary", "percent": 1, "approval": ["grace", "joan"]},
    {"percent": 100, "approval": 2},
]


def test_a_stage_that_takes_an_approval_is_entered_after_another_person_agreed() -> None:
    at = release(1, GATED)
    with pytest.raises(ApprovalMissing) as raised:
        advance(at, now=HOUR)
    assert str(raised.value) == (
        'advance: stage "beta" of flag "checkout" must be approved by another person, and was approved by nobody: '
        "`flagrelay release approve checkout --stage 'beta'`; nothing was changed"
    )
    assert raised.value.stage == "beta"
    own = actions.approve(at, None, "ada")
    assert own.approvals == {"beta": ("ada",)}
    with pytest.raises(ApprovalMissing, match="was approved by ada, who is not to be the one who enters it"):
        advance(own, now=HOUR)
    both = actions.approve(own, None, "grace")
    assert advance(both, now=HOUR).stage_name == "beta"
    assert (both.state, both.position, both.revision) == (State.RUNNING, 1, 4)


def test_force_is_for_the_minimum_time_and_not_for_approvals() -> None:
    with pytest.raises(ApprovalMissing):
        advance(release(1, GATED), now=HOUR, force=True)


def test_a_stage_is_approved_by_the_people_it_names() -> None:
    at = advance(actions.approve(release(1, GATED), None, "bob"), now=HOUR)
    with pytest.raises(ActionRefused) as raised:
        actions.approve(at, None, "bob")
    assert refused(raised.value) == ('approve: stage "canary" is approved by grace or joan', "approve")
    one = actions.approve(at, None, "joan")
    assert advance(one).stage_name == "canary"
    with pytest.raises(
        ApprovalMissing, match="must be approved by grace or joan, and was approved by joan, who is not"
    ):
        advance(one, actor="joan")
    with pytest.raises(ApprovalMissing, match=r'^finish: stage "canary"'):
        actions.finish(at, actor="grace", force=True)


def test_two_others_are_two_different_people() -> None:
    at = release(1, GATED)
    for who in ("grace", "grace"):
        at = actions.approve(at, "100%", who)
    at = actions.approve(actions.approve(at, "beta", "grace"), "canary", "grace")
    with pytest.raises(ApprovalMissing, match="by 2 others, and was approved by grace"):
        advance(at, "100%", now=HOUR)
    assert advance(actions.approve(at, "100%", "joan"), "100%", now=HOUR).position == 4


def test_every_stage_that_is_skipped_must_be_approved_too() -> None:
    at = actions.approve(release(1, GATED), "canary", "grace")
    with pytest.raises(ApprovalMissing, match='stage "beta"'):
        advance(at, "canary", now=HOUR)
    with pytest.raises(ApprovalMissing, match=r'^start: stage "beta"'):
        actions.start(release(0, GATED), "canary", now=0, actor="ada", force=True)


def test_a_retreat_uses_approvals_up() -> None:
    at = advance(actions.approve(actions.approve(release(1, GATED), None, "bob"), "canary", "joan"), now=HOUR)
    kept = advance(at)
    assert actions.retreat(kept, None, now=HOUR).approvals == {"beta": ("bob",)}
    assert actions.retreat(kept, "dev-team", now=HOUR).approvals == {}
    with pytest.raises(ApprovalMissing):
        advance(actions.retreat(at, None, now=0), now=HOUR)
    assert actions.unrelease(kept, [], "beta", now=HOUR).approvals == {"beta": ("bob",)}
    assert actions.unrelease(kept, ["beta"], None, now=HOUR).approvals == kept.approvals


@pytest.mark.parametrize(
    ("at", "stage", "cause", "instead"),
    [
        (5, None, "approve: there is no further stage", "finish"),
        (2, "dev-team", 'approve: stage "dev-team" is reached already', "advance"),
        (2, "2", 'approve: stage "2" is reached already', "advance"),
        (2, None, 'approve: stage "internal" takes no approval', "advance"),
    ],
)
def test_an_approval_that_nobody_asked_for_is_refused(at: int, stage: str | None, cause: str, instead: str) -> None:
    with pytest.raises(ActionRefused) as raised:
        actions.approve(release(at), stage, "grace")
    assert refused(raised.value) == (cause, instead)


# -- start and advance ---------------------------------------------------------------------------------------


def test_a_release_starts_at_its_first_stage_or_at_one_that_is_named() -> None:
    first = actions.start(release(), None, now=7, actor="ada")
    assert first == Release(a_plan(), State.RUNNING, 1, revision=2, since=7)
    assert actions.start(release(), "canary", now=7, actor="ada").position == 4
    assert actions.start(release(), "3", now=7, actor="ada").position == 3


def test_it_starts_once() -> None:
    with pytest.raises(ActionUnfit, match=r"start: .* is running; what fits now: plan, advance, retreat, finish"):
        actions.start(release(1), None, now=0, actor="ada")
    withdrawn = actions.unrelease(release(3), [], None, now=0)
    assert actions.start(withdrawn, None, now=0, actor="ada").position == 1
    assert advance(withdrawn, "3").position == 3


def test_it_advances_by_one_stage_or_to_a_later_one() -> None:
    assert advance(release(1), now=9) == Release(a_plan(), State.RUNNING, 2, revision=3, since=9)
    assert advance(release(1), "100%").position == 5
    with pytest.raises(ActionUnfit, match=r"advance: .* is planned; what fits now: plan, start"):
        advance(release())


@pytest.mark.parametrize(
    ("at", "stage", "cause", "instead"),
    [
        (5, None, 'advance: it is at its last stage, "100%"', "finish"),
        (
            2,
            "dev-team",
            'advance: stage "dev-team" is reached already: the release is at stage "internal-50%"',
            "retreat",
        ),
        (2, "2", 'advance: stage "2" is reached already: the release is at stage "internal-50%"', "retreat"),
    ],
)
def test_there_is_no_way_on_to_what_was_reached(at: int, stage: str | None, cause: str, instead: str) -> None:
    with pytest.raises(ActionRefused) as raised:
        advance(release(at), stage)
    assert refused(raised.value) == (cause, instead)


@pytest.mark.parametrize("name", ["nowhere", "0", "6", "-1", "", "internal-50", "²"])
def test_a_stage_that_there_is_not_is_refused_with_those_that_there_are(name: str) -> None:
    listed = "none is named .*; it has dev-team, internal-50%, internal, canary, 100%"
    with pytest.raises(DefinitionError, match=listed):
        advance(release(1), name)
    with pytest.raises(DefinitionError, match=listed):
        actions.retreat(release(3), name, now=0)
    with pytest.raises(DefinitionError, match=listed):
        actions.approve(release(1), name, "grace")


def test_a_stage_that_is_named_like_a_number_is_found_by_its_name() -> None:
    stages = [{"name": "2", "percent": 1}, {"name": "1", "percent": 2}]
    assert actions.find_stage(a_plan(stages), "2") == 1
    assert actions.find_stage(a_plan(stages), "1") == 2


def test_a_stage_lasts_its_minimum() -> None:
    at = release(1, [{"percent": 1, "minimum": "1h"}, {"percent": 2}])
    with pytest.raises(TooEarly) as raised:
        advance(at, now=HOUR - 90 * SECOND)
    assert str(raised.value) == (
        'advance: flag "checkout" has been at stage "1%" for 58m30s, and the plan says 1h at least: '
        "wait 1m30s, or say --force; nothing was changed"
    )
    assert raised.value.left == "1m30s"
    with pytest.raises(TooEarly, match="wait 1s"):
        advance(at, now=HOUR - 1)
    assert advance(at, now=HOUR).position == 2
    assert advance(at, now=0, force=True).position == 2


def test_no_stage_that_lasts_a_minimum_is_stepped_over_but_by_force() -> None:
    stages: list[dict[str, Any]] = [{"percent": 1}, {"percent": 2, "minimum": "1d"}, {"percent": 3}, {"percent": 4}]
    with pytest.raises(TooEarly) as raised:
        advance(release(1, stages), "4%", now=9 * HOUR)
    assert str(raised.value) == (
        'advance: flag "checkout" would step over stage "2%", which lasts 1d at least by the plan: '
        "enter it first, or say --force; nothing was changed"
    )
    for at in (release(0, stages), actions.unrelease(release(3, stages), [], None, now=0)):
        with pytest.raises(TooEarly, match=r'^start: flag "checkout" would step over stage "2%"'):
            actions.start(at, "3%", now=9 * HOUR, actor="ada")
        assert actions.start(at, "2%", now=0, actor="ada").position == 2
    assert advance(release(1, stages), "4%", now=0, force=True).position == 4
    assert advance(release(2, stages), "4%", now=24 * HOUR).position == 4


def test_a_clock_that_was_set_back_holds_nobody_up_where_there_is_no_minimum() -> None:
    assert advance(actions.retreat(release(3), None, now=HOUR), now=0).position == 3
    at = actions.retreat(release(2, [{"percent": 1, "minimum": "1h"}, {"percent": 2}]), None, now=9 * HOUR)
    with pytest.raises(TooEarly, match=r"for 0s, .* wait 1h,"):
        advance(at, now=0)


def test_the_time_of_a_stage_begins_anew_after_a_retreat() -> None:
    stages: list[dict[str, Any]] = [{"percent": 1, "minimum": "1h"}, {"percent": 2, "minimum": "1d"}, {"percent": 3}]
    back = actions.retreat(release(2, stages), None, now=10 * HOUR)
    with pytest.raises(TooEarly):
        advance(back, now=10 * HOUR + 1)
    assert advance(back, now=11 * HOUR).position == 2
    assert actions.unrelease(release(2, stages), ["beta"], None, now=10 * HOUR).since == 0


# -- retreat and unrelease -----------------------------------------------------------------------------------


def test_it_retreats_by_one_stage_or_to_an_earlier_one_and_from_the_first_to_nobody() -> None:
    assert actions.retreat(release(3), None, now=9) == Release(a_plan(), State.RUNNING, 2, revision=3, since=9)
    assert actions.retreat(release(5), "dev-team", now=0).position == 1
    back = actions.retreat(release(1), None, now=9)
    assert back == Release(a_plan(), State.WITHDRAWN, 0, revision=3, since=9)
    for state in (release(), back):
        with pytest.raises(ActionUnfit, match=r"retreat: .*what fits now"):
            actions.retreat(state, None, now=0)


@pytest.mark.parametrize("stage", ["internal-50%", "canary", "2"])
def test_a_retreat_leads_to_no_later_stage(stage: str) -> None:
    with pytest.raises(ActionRefused) as raised:
        actions.retreat(release(2), stage, now=0)
    cause = f'retreat: stage "{stage}" is no earlier one: the release is at stage "internal-50%"'
    assert refused(raised.value) == (cause, "advance")


def test_it_is_unreleased_from_populations_in_every_state_that_is_no_end() -> None:
    assert actions.unrelease(release(), ["beta"], None, now=9) == Release(a_plan(), blocks=("beta",), revision=2)
    at = actions.unrelease(release(2), ["eu", "beta", "eu"], None, now=9)
    assert at == Release(a_plan(), State.RUNNING, 2, ("beta", "eu"), revision=3)
    more = actions.unrelease(at, ["acme"], None, now=9)
    assert (more.blocks, more.revision) == (("acme", "beta", "eu"), 4)
    withdrawn = actions.unrelease(more, [], None, now=9)
    assert actions.unrelease(withdrawn, ["us"], None, now=9).state is State.WITHDRAWN
    with pytest.raises(ActionUnfit, match=r"unrelease: .* is abandoned; it has ended"):
        actions.unrelease(actions.abandon(at), ["beta"], None, now=9)


def test_what_takes_nothing_away_is_the_same_release() -> None:
    at = actions.unrelease(release(2), ["beta"], "eu", now=0)
    assert actions.unrelease(at, ["beta"], None, now=9) is at
    assert actions.unrelease(at, [], "eu", now=9) is at
    assert actions.unrelease(at, ["beta"], "eu", now=9) is at
    assert actions.unrelease(at, [], "canary", now=9) is at
    assert actions.unrelease(at, [], "internal-50%", now=9) is at
    assert actions.unrelease(release(), [], None, now=9) == release()
    withdrawn = actions.unrelease(at, [], None, now=9)
    assert actions.unrelease(withdrawn, [], None, now=10) is withdrawn


def test_without_a_word_more_it_is_unreleased_from_everybody() -> None:
    at = actions.unrelease(release(4), [], None, now=9)
    assert at == Release(a_plan(), State.WITHDRAWN, 0, revision=3, since=9)


def test_from_everybody_is_from_everybody_and_no_population() -> None:
    at = actions.unrelease(release(4), ["everybody"], None, now=9)
    assert at == Release(a_plan(), State.WITHDRAWN, 0, revision=3, since=9)
    assert actions.unrelease(at, ["everybody"], None, now=10) is at
    both = actions.unrelease(release(4), ["everybody", "beta"], None, now=9)
    assert both == Release(a_plan(), State.WITHDRAWN, 0, ("beta",), revision=3, since=9)
    assert actions.unrelease(release(4), ["everybody"], "dev-team", now=9).position == 1


def test_it_is_unreleased_to_a_stage_or_to_the_last_one_of_a_population() -> None:
    assert actions.unrelease(release(5), [], "internal-50%", now=9).position == 2
    assert actions.unrelease(release(5), [], "internal", now=9).position == 3
    assert actions.unrelease(release(5), [], "dev-team", now=9).position == 1
    a: dict[str, Any] = {"population": "a"}
    stages = [{**a, "percent": 5}, {"percent": 2}, {**a, "percent": 9}, {"percent": 10}]
    assert actions.unrelease(release(4, stages), [], "a", now=9).position == 3
    assert actions.unrelease(release(4, stages), [], "1", now=9).position == 1


def test_it_is_unreleased_to_a_population_that_no_stage_names() -> None:
    at = actions.unrelease(release(5), [], "acme", now=9)
    assert at == Release(a_plan(), State.RUNNING, 5, (), ("acme",), revision=3)
    assert actions.unrelease(at, [], "beta", now=9).only == ("acme", "beta")


def test_both_at_once_are_one_write() -> None:
    at = actions.unrelease(release(5), ["beta"], "dev-team", now=9)
    assert at == Release(a_plan(), State.RUNNING, 1, ("beta",), revision=3, since=9)
    at = actions.unrelease(release(5), ["beta"], "acme", now=9)
    assert at == Release(a_plan(), State.RUNNING, 5, ("beta",), ("acme",), revision=3)


def test_so_many_populations_are_unreleased_at_most() -> None:
    at = actions.unrelease(release(1), [f"p{number}" for number in range(MAX_BLOCKS)], None, now=0)
    assert actions.unrelease(at, ["p7"], None, now=0) is at
    with pytest.raises(ActionRefused) as raised:
        actions.unrelease(at, ["one more"], None, now=0)
    assert refused(raised.value) == ("unrelease: it has 50 blocks, which is the most", "retreat")


def test_what_fits_is_what_would_not_be_refused() -> None:
    def fitting(at: Release, *, killed: bool = False) -> list[str]:
        return actions.fitting(at, killed=killed)

    always = ["unrelease", "abandon", "detach"]
    assert fitting(release()) == ["plan", "start", *always]
    assert fitting(release(2)) == ["plan", "advance", "retreat", "finish", *always]
    assert fitting(release(5)) == ["plan", "retreat", "finish", *always], "there is no further stage"
    assert fitting(release(1, GATED)) == ["plan", "advance", "retreat", "finish", "approve", *always]
    withheld = actions.unrelease(release(2), ["beta"], None, now=0)
    assert fitting(withheld) == ["plan", "advance", "retreat", "unrelease", "restore", "abandon", "detach"]
    assert fitting(withheld, killed=True) == ["retreat", *always]
    assert fitting(actions.abandon(withheld)) == []


# -- restore and the ends ------------------------------------------------------------------------------------


def test_what_was_unreleased_is_restored() -> None:
    at = actions.unrelease(actions.unrelease(release(2), ["beta", "eu"], "acme", now=0), [], "eu", now=0)
    without = actions.restore(at, "beta")
    assert (without.blocks, without.only, without.revision) == (("eu",), ("acme", "eu"), at.revision + 1)
    block_first = actions.restore(without, "eu")
    assert (block_first.blocks, block_first.only) == ((), ("acme", "eu"))
    assert actions.restore(block_first, "eu").only == ("acme",)


@pytest.mark.parametrize(
    ("blocked", "to", "said"),
    [
        ([], None, "un-released are: none"),
        (["acme", "eu"], None, "un-released are: acme, eu"),
        (["acme"], "us", "un-released are: acme; it is limited to us"),
    ],
)
def test_what_was_not_unreleased_is_not_restored(blocked: list[str], to: str | None, said: str) -> None:
    at = actions.unrelease(release(2), blocked, to, now=0) if blocked or to else release(2)
    with pytest.raises(ActionRefused) as raised:
        actions.restore(at, "beta")
    assert refused(raised.value) == (f'restore: it is not un-released from population "beta"; {said}', "advance")


def test_a_release_that_everybody_has_is_finished() -> None:
    done = actions.finish(release(5), actor="finisher")
    assert (done.state, done.revision) == (State.FINISHED, 3)
    with pytest.raises(ActionUnfit, match=r"finish: .* is planned"):
        actions.finish(release(), actor="finisher", force=True)


def test_a_release_that_not_everybody_has_is_finished_by_force() -> None:
    with pytest.raises(ActionRefused) as raised:
        actions.finish(release(4), actor="finisher")
    cause = 'finish: it is at stage "canary", and not with everybody: advance first, or say --force'
    assert refused(raised.value) == (cause, "advance")
    assert actions.finish(release(4), actor="finisher", force=True).state is State.FINISHED


def test_force_finishes_over_stages_and_not_over_what_others_must_agree_to() -> None:
    at = release(1, [{"population": "beta"}, {"percent": 10, "approval": True}, {"percent": 100}])
    with pytest.raises(ApprovalMissing, match=r'stage "10%" .* must be approved by another person'):
        actions.finish(at, actor="ada", force=True)
    agreed = actions.approve(at, "10%", "grace")
    assert actions.finish(agreed, actor="ada", force=True).state is State.FINISHED
    with pytest.raises(ApprovalMissing):
        actions.finish(agreed, actor="grace", force=True)


def test_a_release_is_limited_to_so_many_populations() -> None:
    at = release(5)
    for number in range(actions.MAX_BLOCKS):
        at = actions.unrelease(at, [], f"p{number}", now=0)
    with pytest.raises(ActionRefused, match="it has 50 limits, which is the most"):
        actions.unrelease(at, [], "one more", now=0)


@pytest.mark.parametrize("force", [False, True])
def test_what_somebody_unreleased_is_not_released_by_a_finish(*, force: bool) -> None:
    at = actions.unrelease(actions.unrelease(release(5), ["beta"], None, now=0), [], "acme", now=0)
    with pytest.raises(ActionRefused) as raised:
        actions.finish(at, actor="finisher", force=force)
    cause = "finish: it is un-released from beta, all but acme: restore them first (or abandon the release)"
    assert refused(raised.value) == (cause, "restore")


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_release_is_abandoned_or_detached_wherever_it_stands(at: int) -> None:
    assert actions.abandon(release(at)).state is State.ABANDONED
    assert actions.detach(release(at)).state is State.DETACHED
    for ended in (actions.abandon(release(at)), actions.detach(release(at))):
        with pytest.raises(ActionUnfit, match="it has ended; nothing was changed"):
            actions.plan(ended, a_plan(), 0)


# -- properties ----------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(worlds(), STEPS)
def test_widening_removes_nobody_narrowing_adds_nobody_and_planning_moves_nobody(
    world: World, steps: list[Step]
) -> None:
    people = world.people(150)
    for action, before, after in walk(world, steps):
        had, has = world.having(before, people), world.having(after, people)
        if action in (*WIDENING, *NEUTRAL):
            assert all(now or not then for then, now in zip(had, has, strict=True))
        if action in (*NARROWING, *NEUTRAL):
            assert all(then or not now for then, now in zip(had, has, strict=True))


@settings(max_examples=80)
@given(worlds(apart=False), STEPS, st.integers(0, 7))
def test_a_retreat_takes_it_from_the_last_who_came_and_the_way_up_again_brings_them_back(
    world: World, steps: list[Step], down: int
) -> None:
    people = world.people(150)
    up = standing(world, [*steps, ("advance", 0, 0)])
    if not up.position:
        return
    names = [stage.name for stage in up.reached]
    earlier = down % up.position
    back = actions.retreat(up, names[earlier - 1] if earlier else None, now=0)
    assert back.position == (earlier or up.position - 1)
    left = up.plan.stages[back.position : up.position]
    before, between = world.variants(up, people), world.variants(back, people)
    for person, then, now in zip(people, before, between, strict=True):
        if is_exposed(up, person) and not is_exposed(back, person):
            assert any(stage.population is None or stage.population in person.groups for stage in left)
        else:
            assert then == now
    again = advance(back, names[-1])
    assert world.variants(again, people) == before
    for _ in left:
        back = advance(back, now=back.since)
    assert world.variants(back, people) == before


@settings(max_examples=100)
@given(worlds(apart=False), STEPS, st.sets(st.integers(0, 3), min_size=1, max_size=2))
def test_unreleasing_populations_reaches_everybody_inside_and_nobody_outside(
    world: World, steps: list[Step], chosen: set[int]
) -> None:
    people = world.people(150)
    before = standing(world, steps)
    names = tuple(world.populations)
    blocked = {names[index % len(names)] for index in chosen}
    after = actions.unrelease(before, blocked, None, now=0)
    without = actions.abandon(before)
    old, new, baseline = (world.snapshot(each) for each in (before, after, without))
    for person in people:
        then, now, plain = (each.resolve(world.plan.flag, person.context) for each in (old, new, baseline))
        expected = plain if person.groups & blocked else then
        assert (now.variant, now.value) == (expected.variant, expected.value)
    if after.position < len(after.plan.stages):  # and no way on brings it back
        enter = actions.start if after.state is State.PLANNED else actions.advance
        last = enter(after, after.plan.stages[-1].name, now=after.since, actor="ada")
        for person, variant in zip(people, world.variants(last, people), strict=True):
            if person.groups & blocked:
                assert variant == baseline.resolve(world.plan.flag, person.context).variant
    restored = after
    for name in blocked - set(before.blocks):
        restored = actions.restore(restored, name)
    assert compile_release(restored, FLAG).get("targeting") == compile_release(before, FLAG).get("targeting")


@settings(max_examples=100)
@given(worlds(), STEPS, st.integers(0, 7), st.sampled_from(("stage", "population", "")), st.sampled_from((0, 1)))
def test_unreleasing_to_somewhere_only_takes_away_and_whoever_keeps_it_is_inside(
    world: World, steps: list[Step], number: int, kind: str, also: int
) -> None:
    people = world.people(150)
    before = standing(world, steps)
    stages, names = before.plan.stages, tuple(world.populations)
    name, to = names[number % len(names)], None
    if kind:
        to = stages[number % len(stages)].name if kind == "stage" else name
    blocked = [names[0]] if also and to else []
    after = actions.unrelease(before, blocked, to, now=0)
    assert after.position <= before.position
    inside = {stage.name: index for index, stage in enumerate(stages, 1)}
    by_population = [index for index, stage in enumerate(stages, 1) if stage.population == to]
    reach = inside.get(to or "") or (by_population[-1] if by_population else 0)
    for person, had, has in zip(people, world.having(before, people), world.having(after, people), strict=True):
        assert had or not has
        if not has:
            continue
        assert to is not None
        assert not person.groups & set(blocked)
        if reach:
            assert any(stage.population in (None, *person.groups) for stage in stages[:reach])
        else:
            assert to in person.groups
        kept = Release(before.plan, before.state, min(before.position, reach or before.position), before.blocks)
        assert is_exposed(kept, person)


@settings(max_examples=40)
@given(worlds(), STEPS)
def test_each_action_that_changes_something_is_one_revision_more_and_one_that_is_refused_none(
    world: World, steps: list[Step]
) -> None:
    for action, before, after in walk(world, steps):
        assert after is before or after.revision == before.revision + 1
        assert after is not before or action in NARROWING
        assert (after.since == before.since) == (after.position == before.position)
        assert set(after.blocks) <= set(world.populations)
        assert after.plan.stages[: after.position] == after.reached
