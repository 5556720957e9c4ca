"""Plans, stages and un-release as operations: what each answers, what each refuses, and what it leaves alone."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flagrelay.control import releases, stepping, table
from flagrelay.control.operation import Operation
from flagrelay.control.planning import ROOM
from flagrelay.control.standing import Acted, ReleaseAnswer
from flagrelay.errors import (
    ActionRefused,
    ActionUnfit,
    ApprovalMissing,
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    FlagMissing,
    InputError,
    Killed,
    PopulationMissing,
    Released,
    ReleaseMissing,
    TooEarly,
)
from flagrelay.flags.definition import MAX_DEFINITION_BYTES
from flagrelay.release.actions import MAX_BLOCKS
from flagrelay.release.compiler import compile_release
from flagrelay.release.sample import Count
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.history import read_actions
from flagrelay.store.reading import read_flag_release, read_position, read_snapshot
from flagrelay.store.releases import write_release
from flagrelay.store.writing import Draft, write_change
from support.released import BASE, DOCUMENT, KEY, POPULATIONS, VARIANTS, aged, do, held, populate, unchanged
from support.stores import ENVIRONMENT, everything, flag, put, until

pytestmark = pytest.mark.usefixtures("desk")

STAGES = ("dev", "beta-50%", "10%", "100%")
SAMPLE = [{"targetingKey": f"u{number}", "plan": "beta" if number % 2 else "free"} for number in range(1000)]


@pytest.fixture
async def planned(store: Store) -> Acted:
    """A plan, stored."""
    await populate(store)
    acted: Acted = await do(store, table.PLAN, key=KEY, plan=DOCUMENT, reason="new")
    return acted


async def step(
    store: Store, operation: Operation[Any, Any], actor: str = "ada", *, from_: list[str] | None = None, **members: Any
) -> Acted:
    """An action on the release."""
    given = {"key": KEY, "reason": "why", "from": from_, **members}
    acted: Acted = await do(store, operation, actor, **given)
    return acted


async def start(store: Store, to: str | None = None) -> Acted:
    return await step(store, table.START, to=to)


async def variants(store: Store, *contexts: dict[str, Any]) -> list[str | None]:
    snapshot = await read_snapshot(store, ENVIRONMENT)
    return [snapshot.resolve(KEY, context).variant for context in contexts]


async def rewritten(store: Store, **changes: Any) -> Acted:
    """The plan with other members, stored."""
    return await step(store, table.PLAN, plan=DOCUMENT | changes)


# -- plans --------------------------------------------------------------------------------------------------------


async def test_a_plan_makes_a_flag_that_serves_its_baseline_to_everybody(store: Store, planned: Acted) -> None:
    release = planned.release
    assert (release.state, release.stage, release.position, release.revision) == ("planned", "dark", 0, 2)
    assert release.fitting == ["plan", "start", "unrelease", "abandon", "detach"]
    assert [(stage.name, stage.whom, stage.percent, stage.reached) for stage in release.stages] == [
        ("dev", "dev", 100.0, False),
        ("beta-50%", "50 % of beta", 50.0, False),
        ("10%", "10 % of everybody", 10.0, False),
        ("100%", "everybody", 100.0, False),
    ]
    assert [(each.scope, each.percent, each.shown) for each in release.exposures] == [
        ("dev", 0.0, "none"),
        ("beta", 0.0, "none"),
        ("everybody", 0.0, "none"),
    ]
    assert planned.change
    assert (planned.change.revision, planned.change.changed) == (2, True)
    assert (planned.effect.shifts, planned.effect.counted, planned.notes) == ([], None, [])
    assert planned.definition == (await held(store))[0].definition
    assert planned.definition == {
        "state": "ENABLED",
        "variants": VARIANTS,
        "defaultVariant": "off",
        "metadata": {"releaseStage": "dark", "releaseRevision": 1},
    }
    assert await do(store, table.GET_RELEASE, key=KEY) == release
    assert await do(store, table.LIST_RELEASES) == [release]


async def test_a_plan_takes_the_variants_and_metadata_of_a_flag_that_is_there(store: Store) -> None:
    await populate(store)
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: flag(1, metadata={"owner": "ada"})}))
    plan = {name: value for name, value in DOCUMENT.items() if name != "variants"}
    acted = await do(store, table.PLAN, key=KEY, plan=plan)
    assert acted.definition["variants"] == {"on": 1, "off": -1}
    assert acted.definition["metadata"] == {"owner": "ada", "releaseStage": "dark", "releaseRevision": 1}


async def test_a_plan_is_not_stored_where_something_is_missing_or_in_its_way(store: Store) -> None:
    await populate(store)
    plan = {name: value for name, value in DOCUMENT.items() if name != "variants"}
    refuse = unchanged
    await refuse(store, FlagMissing, f'no flag "{KEY}"', table.PLAN, key=KEY, plan=plan)
    await refuse(store, ActionRefused, f'the plan is for flag "{KEY}"', table.PLAN, key="other", plan=DOCUMENT)
    await refuse(
        store,
        DefinitionError,
        "at stages: missing",
        table.PLAN,
        key=KEY,
        plan={"flag": KEY, "released": "on", "baseline": "off"},
    )
    nobody = {**DOCUMENT, "stages": [{"population": "nobody"}]}
    await refuse(store, PopulationMissing, 'no population "nobody"', table.PLAN, key=KEY, plan=nobody)
    await refuse(store, Conflict, "does not exist", table.PLAN, key=KEY, plan=DOCUMENT, if_revision=7)
    await put(store, KEY)
    red = {**plan, "released": "red"}
    await refuse(store, DefinitionError, 'released: "red" is none of on, off', table.PLAN, key=KEY, plan=red)
    targeted = flag(1, targeting={"if": [{"$ref": "dev"}, "on", "off"]})
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: targeted}))
    await refuse(store, ActionRefused, "say --replace-targeting", table.PLAN, key=KEY, plan=plan)
    await do(store, table.KILL, key=KEY, reason="why")
    killed: dict[str, Any] = {"key": KEY, "plan": plan, "replace_targeting": True}
    await refuse(store, Killed, f"is killed by ada since .* before `flagrelay revive {KEY}`", table.PLAN, **killed)
    await do(store, table.REVIVE, key=KEY)
    acted = await do(store, table.PLAN, **killed)
    assert "targeting" not in acted.definition


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"state":"ENABLED"}', "variants: missing"),
        ('{"variants":7}', "variants"),
        ('{"variants":{"on":1,"off":2},"metadata":7}', "metadata"),
    ],
)
async def test_a_flag_that_another_tool_wrote_is_refused_where_a_release_could_not_keep_what_it_has(
    store: Store, text: str, why: str
) -> None:
    await populate(store)
    await store.client.hset(store.keys.flags(ENVIRONMENT), KEY, f'{{"revision":7,"flag":{text}}}')
    await store.client.hdel(store.keys.state(ENVIRONMENT), "flags")
    await unchanged(store, DefinitionError, why, table.PLAN, key=KEY, plan=DOCUMENT)
    await store.client.hdel(store.keys.flags(ENVIRONMENT), KEY)
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT)
    await store.client.hset(store.keys.flags(ENVIRONMENT), KEY, f'{{"revision":7,"flag":{text}}}')
    await unchanged(store, DefinitionError, why, table.START, key=KEY, reason="why")


async def test_a_plan_may_be_another_while_it_has_not_started(store: Store, planned: Acted) -> None:
    again = await rewritten(store, released="red", stages=[{"population": "eu"}], salt="s")
    assert again.release.plan["released"] == "red"
    assert [stage.name for stage in again.release.stages] == ["eu"]
    assert again.release.revision == 3
    assert await variants(store, {"targetingKey": "d1"}) == ["off"]


async def test_under_way_only_what_is_ahead_may_be_planned_anew(store: Store, planned: Acted) -> None:
    await start(store, "beta-50%")
    ahead = [*DOCUMENT["stages"][:2], {"population": "eu"}, {"percent": 100}]
    acted = await rewritten(store, stages=ahead, owner="grace")
    assert (acted.release.stage, acted.release.position, acted.release.plan["owner"]) == ("beta-50%", 2, "grace")
    assert acted.effect.shifts == []
    for changes, why in (
        ({"released": "red"}, "its variants and its salt stay as they are"),
        ({"salt": "other"}, "its variants and its salt stay as they are"),
        ({"stages": ahead[1:]}, 'the stages up to "beta-50%" are reached'),
        ({"stages": ahead[:1]}, 'the stages up to "beta-50%" are reached'),
        ({"stages": [ahead[0], {"population": "beta", "percent": 60}, *ahead[2:]]}, "are reached, and stay"),
    ):
        await unchanged(store, ActionRefused, why, table.PLAN, key=KEY, plan=DOCUMENT | changes)
    await step(store, table.ADVANCE)
    assert await variants(store, {"region": "eu"}) == ["on"]


async def test_under_way_a_variant_keeps_its_value(store: Store, planned: Acted) -> None:
    swapped = {**VARIANTS, "on": VARIANTS["off"], "off": VARIANTS["on"]}
    shown = await step(store, table.PLAN, plan=DOCUMENT | {"variants": swapped}, preview=True)
    assert shown.notes == [
        'variant "on" gets another value: whoever has it has that at once',
        'variant "off" gets another value: whoever has it has that at once',
    ]
    await start(store)
    why = 'under way, variant "on" keeps its value'
    await unchanged(store, ActionRefused, why, table.PLAN, key=KEY, plan=DOCUMENT | {"variants": swapped})
    more = await rewritten(store, variants={**VARIANTS, "blue": {}}, owner="grace")
    assert (more.notes, more.definition["variants"]) == ([], {**VARIANTS, "blue": {}})
    await step(store, table.UNRELEASE)
    await unchanged(store, ActionRefused, why, table.PLAN, key=KEY, plan=DOCUMENT | {"variants": swapped})


async def test_a_plan_says_from_whom_it_stays_taken(store: Store, planned: Acted) -> None:
    await step(store, table.UNRELEASE, from_=["beta", "dev"], to="eu")
    assert (await rewritten(store, owner="grace")).notes == [
        "it stays un-released from beta and un-released from dev and limited to eu, whatever its stages give"
    ]


async def test_a_first_plan_is_over_the_flag_that_was_seen(store: Store) -> None:
    await populate(store)
    shown: Acted = await do(store, table.PLAN, key=KEY, plan=DOCUMENT, preview=True)
    assert shown.flag_revision == 0
    await put(store, KEY)
    given: dict[str, Any] = {"key": KEY, "plan": DOCUMENT}
    await unchanged(store, Conflict, f'flag "{KEY}"', table.PLAN, **given, if_flag_revision=shown.flag_revision)
    shown = await do(store, table.PLAN, **given, preview=True)
    assert shown.flag_revision == 2
    stored: Acted = await do(store, table.PLAN, **given, if_flag_revision=2)
    assert stored.flag_revision == 3


async def test_whatever_could_be_planned_can_be_un_released_from_as_many_as_may_be(store: Store) -> None:
    wide = "\U0001f600" * 254
    names = [f"{number:02}{wide}" for number in range(2 * MAX_BLOCKS)]
    await populate(store, **dict.fromkeys(names, POPULATIONS["beta"]))
    large = {**VARIANTS, "blue": {"text": "x" * (MAX_DEFINITION_BYTES - ROOM)}}
    await unchanged(
        store, DefinitionError, "can be un-released", table.PLAN, key=KEY, plan=DOCUMENT | {"variants": large}
    )
    large["blue"] = {"text": "x" * (MAX_DEFINITION_BYTES - ROOM - 1000)}
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT | {"variants": large})
    await start(store, "100%")
    await step(store, table.UNRELEASE, from_=names[:MAX_BLOCKS])
    for name in names[MAX_BLOCKS:]:
        acted = await step(store, table.UNRELEASE, to=name)
    assert (len(acted.release.blocks), len(acted.release.only)) == (MAX_BLOCKS, MAX_BLOCKS)


async def test_stages_out_of_the_order_of_their_risks_are_noted_and_stored_all_the_same(store: Store) -> None:
    await populate(store)
    for name, risk in (("dev", 30), ("beta", 20), ("eu", 10)):
        await do(store, table.PUT_POPULATION, name=name, risk=risk)
    acted = await do(store, table.PLAN, key=KEY, plan=DOCUMENT)
    assert acted.notes == [
        'stage "dev" (risk 30) comes before stage "beta-50%" (risk 20): less risk is released to first'
    ]
    assert acted.change
    between = [{"population": "dev"}, {"percent": 1}, {"population": "eu"}]
    noted = await do(store, table.PLAN, key=KEY, plan=DOCUMENT | {"stages": between}, preview=True)
    assert len(noted.notes) == 1, "a stage of unknown risk between them hides nothing"
    in_order = [{"population": "eu"}, {"population": "beta"}, {"population": "dev"}]
    assert (await do(store, table.PLAN, key=KEY, plan=DOCUMENT | {"stages": in_order}, preview=True)).notes == []
    assert (await step(store, table.START)).notes == []


# -- stages -------------------------------------------------------------------------------------------------------


async def test_it_goes_from_stage_to_stage_and_back_and_says_who_gains_and_who_loses(
    store: Store, planned: Acted
) -> None:
    dev, beta, other = {"targetingKey": "d1"}, {"targetingKey": "b", "plan": "beta"}, {"targetingKey": "nobody"}
    acted = await start(store)
    assert [(each.scope, each.before, each.after, each.gains, each.loses) for each in acted.effect.shifts] == [
        ("dev", "none", "all", True, False)
    ]
    assert (acted.release.state, acted.release.stage) == ("running", "dev")
    assert await variants(store, dev, beta, other) == ["on", "off", "off"]
    acted = await step(store, table.ADVANCE)
    assert [(each.scope, each.after) for each in acted.effect.shifts] == [("beta", "50 %")]
    acted = await step(store, table.ADVANCE, to="4")
    assert acted.release.stage == "100%"
    assert await variants(store, dev, beta, other) == ["on", "on", "on"]
    acted = await step(store, table.RETREAT, to="dev")
    assert [(each.scope, each.after, each.loses) for each in acted.effect.shifts] == [
        ("beta", "none", True),
        ("everybody", "none", True),
    ]
    acted = await step(store, table.RETREAT)
    assert (acted.release.state, acted.release.stage, acted.release.position) == ("withdrawn", "dark", 0)
    assert await variants(store, dev, beta, other) == ["off", "off", "off"]
    assert (await step(store, table.ADVANCE)).release.stage == "dev"
    urgent = {change.revision: change.urgent for change in await read_changes(store, ENVIRONMENT, 2)}
    assert urgent == {3: False, 4: False, 5: False, 6: True, 7: True, 8: False}


async def test_what_does_not_fit_says_what_would(store: Store, planned: Acted) -> None:
    for operation in (table.ADVANCE, table.RETREAT, table.FINISH):
        name = operation.name.removeprefix("releases.")
        sentence = (
            rf'{name}: the release of flag "{KEY}" is planned; what fits now: plan, start, .*; nothing was changed'
        )
        await unchanged(store, ActionUnfit, sentence, operation, key=KEY, reason="why")
    await start(store)
    await unchanged(store, ActionUnfit, "is running; what fits now: plan, advance", table.START, key=KEY, reason="why")
    refused: list[tuple[Operation[Any, Any], dict[str, Any], str]] = [
        (table.ADVANCE, {"to": "dev"}, 'stage "dev" is reached already'),
        (table.RETREAT, {"to": "10%"}, 'stage "10%" is no earlier one'),
        (table.RESTORE, {"population": "beta"}, 'not un-released from population "beta"; un-released are: none'),
        (table.FINISH, {}, "not with everybody: advance first, or say --force"),
        (table.APPROVE, {"stage": "10%"}, 'stage "10%" takes no approval'),
    ]
    for operation, members, sentence in refused:
        await unchanged(store, ActionRefused, sentence, operation, key=KEY, reason="why", **members)
    for operation in (table.ADVANCE, table.RETREAT):
        sentence = f'none is named "11"; it has {", ".join(STAGES)}'
        await unchanged(store, DefinitionError, sentence, operation, key=KEY, reason="why", to="11")
    await step(store, table.ADVANCE, to="100%")
    await unchanged(store, ActionRefused, "it is at its last stage", table.ADVANCE, key=KEY, reason="why")


ACTIONS: list[tuple[Operation[Any, Any], dict[str, Any]]] = [
    (table.START, {}),
    (table.ADVANCE, {}),
    (table.RETREAT, {}),
    (table.UNRELEASE, {}),
    (table.UNRELEASE, {"to": "dev"}),
    (table.RESTORE, {"population": "beta"}),
    (table.APPROVE, {}),
    (table.FINISH, {}),
    (table.ABANDON, {}),
    (table.DETACH, {}),
]


@pytest.mark.parametrize(("operation", "members"), ACTIONS, ids=lambda value: getattr(value, "name", ""))
async def test_without_a_release_a_flag_or_an_environment_nothing_is_done(
    store: Store, operation: Operation[Any, Any], members: dict[str, Any]
) -> None:
    given = {"key": KEY, "reason": "why", **members}
    await unchanged(store, FlagMissing, f'has no flag "{KEY}"', operation, **given)
    await put(store, KEY)
    await unchanged(
        store, ReleaseMissing, f"or take the flag back from everybody with `flagrelay kill {KEY}`", operation, **given
    )
    await store.client.flushall()
    await unchanged(store, EnvironmentMissing, "does not exist", operation, **given)


@pytest.mark.parametrize(("operation", "members"), ACTIONS, ids=lambda value: getattr(value, "name", ""))
async def test_an_action_may_be_bound_to_the_revision_that_somebody_has_seen(
    store: Store, planned: Acted, operation: Operation[Any, Any], members: dict[str, Any]
) -> None:
    await start(store)
    given = {"key": KEY, "reason": "why", **members, "if_revision": 2}
    sentence = f'release "{KEY}" is at revision 3, but the edit was made from revision 2'
    await unchanged(store, Conflict, sentence, operation, **given)


async def test_a_preview_writes_nothing_and_says_what_the_action_then_does(store: Store, planned: Acted) -> None:
    actions: list[tuple[Operation[Any, Any], dict[str, Any]]] = [
        (table.START, {"to": "beta-50%"}),
        (table.UNRELEASE, {"from_": ["beta"]}),
        (table.RESTORE, {"population": "beta"}),
        (table.RETREAT, {}),
        (table.UNRELEASE, {"to": "eu"}),
        (table.PLAN, {"plan": DOCUMENT | {"owner": "grace"}}),
        (table.UNRELEASE, {}),
        (table.ABANDON, {}),
    ]
    for operation, members in actions:
        before = await everything(store)
        shown = await step(store, operation, preview=True, **members)
        assert await everything(store) == before
        assert shown.change is None
        assert shown.release.revision == (await held(store))[1].revision, "to be acted on with if_revision"
        acted = await step(store, operation, if_revision=shown.release.revision, **members)
        assert acted.change
        assert acted.definition == shown.definition
        assert [(each.scope, each.after) for each in shown.effect.shifts] == [
            (each.scope, each.after) for each in acted.effect.shifts
        ]
        known = ("revision", "since")  # what the writing tells
        told = [replace_all(each.release, known) for each in (shown, acted)]
        assert told[0] == told[1]


def replace_all(release: ReleaseAnswer, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(release, name) for name in release.__struct_fields__ if name not in names}


async def test_somebody_s_action_between_a_preview_and_its_confirmation_is_a_conflict(
    store: Store, planned: Acted
) -> None:
    shown = await step(store, table.START, preview=True)
    await step(store, table.UNRELEASE, from_=["beta"])
    revision = shown.release.revision
    await unchanged(store, Conflict, "is at revision 3", table.START, key=KEY, reason="why", if_revision=revision)


async def test_a_minimum_time_is_kept_unless_it_is_forced(store: Store) -> None:
    await populate(store)
    stages = [{"population": "dev", "minimum": "1h"}, {"population": "beta", "minimum": "1d"}, {"percent": 100}]
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT | {"stages": stages})
    await start(store)
    sentence = f'flag "{KEY}" has been at stage "dev" for .*s, and the plan says 1h at least: wait 1h, or say --force'
    await unchanged(store, TooEarly, sentence, table.ADVANCE, key=KEY, reason="why")
    await aged(store, 3590)
    await unchanged(store, TooEarly, r"for 59m5\ds, .*: wait (10|9)s", table.ADVANCE, key=KEY, reason="why")
    await aged(store, 10)
    assert (await step(store, table.ADVANCE)).release.stage == "beta"
    await unchanged(store, TooEarly, "the plan says 1d at least", table.ADVANCE, key=KEY, reason="why")
    acted = await step(store, table.ADVANCE, force=True)
    assert acted.release.stage == "100%"
    newest = await anext(read_actions(store, ENVIRONMENT, KEY))
    assert newest.detail
    assert newest.detail["force"] is True
    await step(store, table.RETREAT)
    assert (await step(store, table.UNRELEASE)).release.stage == "dark", "going back waits for nothing"


async def test_four_eyes_are_those_of_two_people(store: Store) -> None:
    await populate(store)
    stages = [{"population": "dev"}, {"population": "beta", "approval": True}, {"percent": 100, "approval": ["eve"]}]
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT | {"stages": stages})
    await start(store)
    sentence = f'stage "beta" of flag "{KEY}" must be approved by another person, and was approved by '
    await unchanged(store, ApprovalMissing, f"{sentence}nobody", table.ADVANCE, key=KEY, reason="why")
    acted = await step(store, table.APPROVE)
    assert acted.release.stages[1].approved_by == ["ada"]
    assert (acted.release.stage, acted.effect.shifts) == ("dev", [])
    forced: dict[str, Any] = {"key": KEY, "reason": "why", "force": True}
    await unchanged(store, ApprovalMissing, f"{sentence}ada, who is not to", table.ADVANCE, **forced)
    await step(store, table.APPROVE, "grace")
    await step(store, table.APPROVE, "grace")
    acted = await step(store, table.ADVANCE)
    assert (acted.release.stage, acted.release.stages[1].approved_by) == ("beta", ["ada", "grace"])
    await unchanged(store, ActionRefused, "is approved by eve", table.APPROVE, key=KEY, reason="why")
    await step(store, table.APPROVE, "eve", stage="3")
    assert (await step(store, table.ADVANCE)).release.stage == "100%"
    await unchanged(store, ActionRefused, "there is no further stage", table.APPROVE, key=KEY)
    await step(store, table.UNRELEASE, to="dev")
    await unchanged(store, ApprovalMissing, "by nobody", table.ADVANCE, key=KEY, reason="why")


async def test_a_stage_that_is_another_must_be_agreed_to_anew(store: Store) -> None:
    await populate(store)
    dev: dict[str, Any] = {"population": "dev"}
    further: dict[str, Any] = {"name": "next", "population": "beta", "percent": 10, "approval": True}
    stages = [dev, further]
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT | {"stages": stages})
    await start(store)
    await step(store, table.APPROVE, "grace")
    await rewritten(store, stages=[dev, {**further, "percent": 90}])
    await unchanged(store, ApprovalMissing, "by nobody", table.ADVANCE, key=KEY, reason="why")


# -- un-release ---------------------------------------------------------------------------------------------------


async def test_an_un_release_reaches_whoever_is_in_the_population_and_restore_undoes_it(
    store: Store, planned: Acted
) -> None:
    await start(store, "100%")
    both = {"targetingKey": "d1", "plan": "beta"}
    acted = await step(store, table.UNRELEASE, from_=["beta"])
    assert [(each.scope, each.before, each.after, each.loses) for each in acted.effect.shifts] == [
        ("beta", "all", "un-released", True)
    ]
    assert acted.release.blocks == ["beta"]
    assert await variants(store, both, {"targetingKey": "d2"}, {}) == ["off", "on", "on"]
    await unchanged(store, ActionRefused, "restore them first", table.FINISH, key=KEY)
    acted = await step(store, table.RESTORE, population="beta")
    assert (acted.release.blocks, acted.release.stage) == ([], "100%")
    assert await variants(store, both) == ["on"]


async def test_an_un_release_to_a_stage_or_to_a_population_takes_it_from_all_others(
    store: Store, planned: Acted
) -> None:
    await start(store, "100%")
    acted = await step(store, table.UNRELEASE, to="dev")
    assert (acted.release.stage, acted.release.only) == ("dev", [])
    assert await variants(store, {"targetingKey": "d1"}, {"plan": "beta"}, {}) == ["on", "off", "off"]
    await step(store, table.ADVANCE, to="100%")
    acted = await step(store, table.UNRELEASE, to="eu", from_=["beta"])
    assert (acted.release.only, acted.release.blocks, acted.release.stage) == (["eu"], ["beta"], "100%")
    eu = {"region": "eu"}
    assert await variants(store, eu, {**eu, "plan": "beta"}, {"targetingKey": "d1"}) == ["on", "off", "off"]
    acted = await step(store, table.UNRELEASE)
    assert (acted.release.state, acted.release.stage) == ("withdrawn", "dark")
    assert await variants(store, eu) == ["off"]


@pytest.mark.parametrize(
    "members",
    [{"from": ["nobody"]}, {"from": ["beta", "nobody"]}, {"to": "nobody"}, {"to": "0"}, {"to": "5"}],
    ids=str,
)
async def test_an_un_release_from_what_there_is_not_is_refused_since_it_would_take_it_from_nobody(
    store: Store, planned: Acted, members: dict[str, Any]
) -> None:
    await start(store, "100%")
    await unchanged(store, PopulationMissing, "has no population", table.UNRELEASE, key=KEY, reason="why", **members)


async def test_an_un_release_to_what_is_so_already_is_no_error_and_writes_nothing(store: Store, planned: Acted) -> None:
    before = await everything(store)
    acted = await step(store, table.UNRELEASE)
    assert acted.change
    assert (acted.change.changed, acted.change.revision, acted.change.at) == (False, 2, None)
    assert acted.change.epoch == (await read_position(store, ENVIRONMENT)).epoch
    assert await everything(store) == before
    await start(store, "beta-50%")
    ways: list[dict[str, Any]] = [{"from_": ["beta"]}, {"to": "eu"}, {"to": "dev"}]
    for members in ways:
        acted = await step(store, table.UNRELEASE, **members)
        assert acted.change
        assert acted.change.changed
        before = await everything(store)
        for again in (members, {**members, "if_revision": (await held(store))[1].revision}):
            acted = await step(store, table.UNRELEASE, **again)
            assert acted.change
            assert acted.change.changed is False
            assert acted.effect.shifts == []
        assert await everything(store) == before


async def test_a_killed_flag_is_un_released_and_stays_killed(store: Store, planned: Acted) -> None:
    await start(store, "100%")
    await do(store, table.KILL, key=KEY, to="red", reason="why")
    await step(store, table.RETREAT)
    await step(store, table.UNRELEASE, from_=["beta"])
    wider: list[tuple[Operation[Any, Any], dict[str, Any]]] = [
        (table.ADVANCE, {}),
        (table.RESTORE, {"population": "beta"}),
        (table.PLAN, {"plan": DOCUMENT}),
    ]
    for operation, members in wider:
        sentence = rf'flag "{KEY}" is killed by ada .*it goes nowhere before `flagrelay revive {KEY}`'
        await unchanged(store, Killed, sentence, operation, key=KEY, reason="why", **members)
    assert await variants(store, {}, {"plan": "beta"}) == ["red", "red"]
    acted = await step(store, table.UNRELEASE, to="dev", sample=[{"targetingKey": "d1"}])
    assert acted.release.killed
    assert acted.release.killed.to == "red"
    assert acted.effect.counted
    assert (acted.effect.counted.gain, acted.effect.counted.lose) == (0, 0), "a kill withholds it from all anyway"
    assert (await do(store, table.GET_RELEASE, key=KEY)).killed == acted.release.killed
    await do(store, table.REVIVE, key=KEY)
    assert await variants(store, {"targetingKey": "d1"}, {"plan": "beta"}) == ["on", "off"]


async def test_an_un_release_wins_against_those_who_edit_without_end(store: Store, planned: Acted) -> None:
    await start(store, "100%")
    stop = asyncio.Event()
    edits = conflicts = 0

    async def edit(owner: str) -> None:
        nonlocal edits, conflicts
        while not stop.is_set():
            try:
                await rewritten(store, owner=owner)
                edits += 1
            except Conflict:
                conflicts += 1

    async def enough() -> bool:
        return edits > 5

    editors = [asyncio.create_task(edit(f"p{number}")) for number in range(3)]
    try:
        await until(enough)
        acted = await step(store, table.UNRELEASE, from_=["beta"])
        seen = edits
        await until(lambda: asyncio.sleep(0, edits > seen + 5))
    finally:
        stop.set()
        await asyncio.gather(*editors)
    assert acted.release.blocks == ["beta"]
    assert conflicts > 0
    assert (await held(store))[1].release.blocks == ("beta",), "whoever edits afterwards does it over the un-release"
    assert await variants(store, {"plan": "beta"}) == ["off"]


class Meddler:
    """Writes the release anew, each time before somebody else would, as often as it is told."""

    def __init__(self, store: Store, times: int) -> None:
        self.store = store
        self.left = times
        self.write = write_release

    async def __call__(self, *args: Any, **options: Any) -> Any:
        if self.left:
            self.left -= 1
            flag_entry, entry = await held(self.store)
            other = replace(entry.release, revision=entry.release.revision + 1)
            expected = (flag_entry.revision, entry.revision)
            definition = compile_release(other, BASE)
            await self.write(
                self.store,
                ENVIRONMENT,
                other,
                definition,
                expected=expected,
                action="plan",
                detail={},
                actor="eve",
                reason="",
                urgent=False,
            )
        return await self.write(*args, **options)


async def test_an_un_release_is_done_anew_after_each_conflict_and_gives_up_some_day(
    store: Store, planned: Acted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(store, "100%")
    meddler = Meddler(store, releases.UNRELEASE_TRIES)
    monkeypatch.setattr(stepping, "write_release", meddler)
    assert (await step(store, table.UNRELEASE, to="dev")).release.stage == "dev"
    assert meddler.left == 0
    meddler.left = releases.UNRELEASE_TRIES + 1
    with pytest.raises(Conflict):
        await step(store, table.UNRELEASE)
    meddler.left = 1
    with pytest.raises(Conflict):
        await step(store, table.UNRELEASE, if_revision=(await held(store))[1].revision)
    meddler.left = 1
    with pytest.raises(Conflict):
        await step(store, table.ADVANCE)


# -- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "served"),
    [(table.FINISH, "on"), (table.ABANDON, "off")],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_an_end_leaves_a_plain_flag_and_keeps_the_plan_in_the_history(
    store: Store, planned: Acted, operation: Operation[Any, Any], served: str
) -> None:
    await start(store, "100%")
    acted = await step(store, operation)
    plain = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": served}
    assert acted.definition == plain
    assert acted.release.fitting == []
    assert (await read_flag_release(store, ENVIRONMENT, KEY))[1] is None
    assert await do(store, table.LIST_RELEASES) == []
    newest = await anext(read_actions(store, ENVIRONMENT, KEY))
    assert newest.detail
    assert newest.detail["plan"] == acted.release.plan
    assert (newest.detail["state"], newest.detail["from_stage"]) == (f"{newest.action}ed", "100%")
    await put(store, KEY)
    assert (await do(store, table.RELEASE_HISTORY, key=KEY))[0].detail["plan"] == acted.release.plan
    await unchanged(store, ReleaseMissing, "has no release", table.ADVANCE, key=KEY, reason="why")


async def test_a_detached_flag_stays_as_it_is_and_can_be_edited(store: Store, planned: Acted) -> None:
    await start(store, "beta-50%")
    contexts = [{"targetingKey": f"u{number}", "plan": "beta"} for number in range(100)]
    before = await variants(store, *contexts)
    assert set(before) == {"on", "off"}
    await unchanged(store, Released, "detach it", table.PUT_FLAG, key=KEY, definition=flag(1))
    acted = await step(store, table.DETACH)
    assert await variants(store, *contexts) == before
    assert "metadata" not in acted.definition
    newest = await anext(read_actions(store, ENVIRONMENT, KEY))
    assert newest.detail
    assert newest.detail["plan"] == acted.release.plan
    await do(store, table.PUT_FLAG, key=KEY, definition=flag(1))
    targeted = acted.definition
    await do(store, table.PUT_FLAG, key=KEY, definition=targeted)
    await unchanged(store, ActionRefused, "--replace-targeting", table.PLAN, key=KEY, plan=DOCUMENT)


async def test_a_release_that_has_not_reached_everybody_is_finished_by_force(store: Store, planned: Acted) -> None:
    await start(store)
    acted = await step(store, table.FINISH, force=True)
    assert [(each.scope, each.after) for each in acted.effect.shifts] == [("beta", "all"), ("everybody", "all")]
    assert await variants(store, {}) == ["on"]


async def test_a_plan_may_be_stored_anew_after_an_end(store: Store, planned: Acted) -> None:
    await start(store)
    await step(store, table.ABANDON)
    acted = await rewritten(store)
    assert (acted.release.state, acted.release.position) == ("planned", 0)


# -- who gains and who loses, counted -----------------------------------------------------------------------------


def counts(counted: Any) -> Count:
    return Count(counted.contexts, counted.before, counted.after, counted.gain, counted.lose)


async def test_gains_and_losses_are_counted_over_a_sample(store: Store, planned: Acted) -> None:
    shown = await step(store, table.START, preview=True, to="beta-50%", sample=SAMPLE)
    assert shown.effect.counted
    assert shown.effect.counted.over == "sample"
    gain = shown.effect.counted.gain
    assert 150 < gain < 350, "half of the half that is beta"
    assert counts(shown.effect.counted) == Count(1000, 0, gain, gain, 0)
    acted = await step(store, table.START, to="beta-50%", sample=SAMPLE)
    assert acted.effect == shown.effect, "counted the same where it is done"
    shown = await step(store, table.UNRELEASE, preview=True, sample=SAMPLE, from_=["beta"])
    assert shown.effect.counted
    assert counts(shown.effect.counted) == Count(1000, gain, 0, 0, gain)
    served = await variants(store, *SAMPLE)
    assert served.count("on") == gain


async def test_those_of_a_list_of_keys_are_counted_all(store: Store, planned: Acted) -> None:
    shown = await step(store, table.START, preview=True)
    [shift] = shown.effect.shifts
    assert shift.counted
    assert shift.counted.over == "keys"
    assert counts(shift.counted) == Count(2, 0, 2, 2, 0)
    assert shown.effect.counted is None, "there is no sample, and no stream"


async def test_without_a_sample_the_contexts_of_open_streams_are_counted(store: Store, planned: Acted) -> None:
    streams = [{"targetingKey": "d1"}, {"targetingKey": "x"}, {"targetingKey": "d2"}]
    shown = await do(store, table.START, contexts=streams, key=KEY, reason="why", preview=True)
    assert shown.effect.counted.over == "streams"
    assert counts(shown.effect.counted) == Count(3, 0, 2, 2, 0)
    shown = await do(store, table.START, contexts=streams, key=KEY, reason="why", preview=True, sample=SAMPLE[:5])
    assert (shown.effect.counted.over, shown.effect.counted.contexts) == ("sample", 5)
    acted = await do(store, table.START, contexts=streams, key=KEY, reason="why")
    assert acted.effect.counted is None, "an action that is only to be done counts nobody"


async def test_a_plan_over_a_flag_that_serves_somebody_says_who_loses_it(store: Store) -> None:
    await populate(store)
    targeted = {
        "state": "ENABLED",
        "variants": VARIANTS,
        "defaultVariant": "off",
        "targeting": {"if": [{"$ref": "dev"}, "on", "off"]},
    }
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: targeted}))
    sample = [{"targetingKey": "d1"}, {"targetingKey": "x"}]
    given: dict[str, Any] = {"key": KEY, "plan": DOCUMENT, "replace_targeting": True, "preview": True, "sample": sample}
    shown = await do(store, table.PLAN, **given)
    assert counts(shown.effect.counted) == Count(2, 1, 0, 0, 1)


@pytest.mark.parametrize(
    ("flag", "before", "notes"),
    [
        ({"defaultVariant": "on"}, "all", []),
        ({"defaultVariant": "off"}, None, []),
        (
            {"state": "DISABLED", "defaultVariant": "on"},
            None,
            ["the flag is switched off now, so that callers take their own default"],
        ),
        ({"defaultVariant": "off", "targeting": {"if": [True, "on"]}}, "whom its own targeting says", []),
        ({"defaultVariant": "red"}, None, ['the flag serves "red" now, which the plan does not']),
    ],
)
async def test_a_plan_over_a_plain_flag_says_what_it_takes_without_a_sample(
    store: Store, flag: dict[str, Any], before: str | None, notes: list[str]
) -> None:
    await populate(store)
    plain = {"state": "ENABLED", "variants": {"on": True, "off": False, "red": False}, **flag}
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: plain}))
    document = {name: value for name, value in DOCUMENT.items() if name != "variants"}
    planned: dict[str, Any] = {"key": KEY, "plan": document, "replace_targeting": True}
    shown: Acted = await do(store, table.PLAN, preview=True, **planned)
    lost = [(shift.scope, shift.before, shift.after, shift.gains, shift.loses) for shift in shown.effect.shifts]
    assert lost == ([("everybody", before, "none", False, True)] if before else [])
    assert [note.partition(":")[0] for note in shown.notes] == notes
    stored: Acted = await do(store, table.PLAN, **planned)
    assert stored.effect.shifts == shown.effect.shifts


async def test_a_sample_that_is_none_is_refused(store: Store, planned: Acted) -> None:
    wrong: list[Any] = [[1], ["x"], {"a": 1}, [[]]]
    for sample in wrong:
        await unchanged(store, InputError, "sample", table.START, key=KEY, reason="why", sample=sample)


# -- history ------------------------------------------------------------------------------------------------------


async def test_every_action_is_kept_with_what_it_did(store: Store, planned: Acted) -> None:
    await start(store)
    await step(store, table.ADVANCE, "grace", reason="flat")
    await step(store, table.UNRELEASE, to="eu", reason="error rate", from_=["beta"])
    await step(store, table.RESTORE, population="beta")
    await do(store, table.KILL, key=KEY, reason="all")
    entries = await do(store, table.RELEASE_HISTORY, key=KEY)
    assert [(each.action, each.actor, each.reason) for each in entries] == [
        ("kill", "ada", "all"),
        ("restore", "ada", "why"),
        ("unrelease", "ada", "error rate"),
        ("advance", "grace", "flat"),
        ("start", "ada", "why"),
        ("plan", "ada", "new"),
    ]
    _, restore, unrelease, advance, *_, plan = [each.detail for each in entries]
    assert restore["population"] == "beta"
    assert (unrelease["from"], unrelease["to"]) == (["beta"], "eu")
    assert (unrelease["blocks"], unrelease["only"], unrelease["state"]) == (["beta"], ["eu"], "running")
    assert (advance["from_stage"], advance["stage"], advance["release"]) == ("dev", "beta-50%", 3)
    assert "force" not in advance
    assert plan["plan"]["stages"][0] == {"name": "dev", "population": "dev"}
    assert await do(store, table.RELEASE_HISTORY, key=KEY, limit=2) == entries[:2]
    assert await do(store, table.RELEASE_HISTORY, key="other") == []


async def test_a_population_that_was_deleted_between_is_missing_and_nothing_is_written(
    store: Store, planned: Acted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(store)

    async def late(*args: Any, **options: Any) -> Any:
        await write_change(store, ENVIRONMENT, Draft(evaluators={"eu": None}))
        return await write_release(*args, **options)

    monkeypatch.setattr(stepping, "write_release", late)
    with pytest.raises(PopulationMissing, match='no population "eu"'):
        await step(store, table.UNRELEASE, from_=["eu"])
    assert (await held(store))[1].revision == 3
    assert (await read_snapshot(store, ENVIRONMENT)).evaluators.keys() == POPULATIONS.keys() - {"eu"}
