"""What a sync holds back, and why; each in front of a real environment."""

from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.answers import Change
from flagrelay.control.sync import Synced
from flagrelay.flags.definition import check_flag
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_state
from support.desk import BETA, DISABLED, OFF, ON, POPULATIONS, Desk, only, wrote
from support.stores import ENVIRONMENT

WIDER = {**POPULATIONS, "beta": {"in": [{"var": "plan"}, ["beta", "pro"]]}}


async def held(desk: Desk, why: str, *files: Any, **members: Any) -> None:
    """A sync holds back the one difference that there is, says why, and writes nothing."""
    before = await read_state(desk.store, ENVIRONMENT)
    synced = await desk.sync(*files, **members)
    difference = only(synced)
    assert difference.held
    assert why in difference.note
    assert (synced.held, wrote(synced)) == (1, False)
    assert await read_state(desk.store, ENVIRONMENT) == before


async def forced(desk: Desk, *files: Any, **members: Any) -> Synced:
    """The same with force writes it, and then there is no difference any more."""
    synced = await desk.sync(*files, force=True, **members)
    assert isinstance(synced.change, Change)
    assert only(synced).note.startswith("forced, though ")
    assert (await desk.sync(*files, **members)).differences == []
    return synced


async def agreed(desk: Desk, *files: Any, **members: Any) -> None:
    """A sync of what is so already writes nothing but that the files say so from now on, and that only once."""
    before = await read_state(desk.store, ENVIRONMENT)
    for expected in (1, 0):
        synced = await desk.sync(*files, **members)
        assert (synced.differences, wrote(synced), synced.agreed) == ([], False, expected)
    assert await read_state(desk.store, ENVIRONMENT) == before


# -- kills --------------------------------------------------------------------------------------------------------


async def test_a_killed_flag_that_the_file_has_as_it_was_stays_killed_and_is_no_difference(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    synced = await desk.sync({"x": ON, "y": OFF})
    kept, added = synced.differences
    assert (kept.what, kept.held, added.what, synced.held) == ("keep", False, "add", 0)
    assert kept.note.startswith("it stays killed by ada since 2")
    assert kept.note.endswith("UTC (errors)")
    assert await desk.definition("x") == DISABLED
    assert not wrote(await desk.sync({"x": ON, "y": OFF}))


async def test_a_killed_flag_that_the_file_has_as_it_is_served_is_no_difference_and_stays_killed(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    assert (await desk.sync({"x": DISABLED})).differences == []
    await desk.do(table.REVIVE, key="x")
    assert await desk.definition("x") == ON


async def test_a_killed_flag_is_held_back_where_the_file_has_another_or_none(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    await held(desk, "it is killed by ada", {"x": OFF})
    await held(desk, "it is killed by ada", {}, prune=True)
    await forced(desk, {"x": OFF})
    assert await desk.definition("x") == OFF


async def test_force_ends_no_kill_of_which_the_file_has_the_original_only_revive_does(desk: Desk) -> None:
    await desk.sync({"x": ON, "y": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    await desk.put("y", OFF, reason="for a demo")
    synced = await desk.sync({"x": ON, "y": ON}, force=True)
    assert [(each.name, each.what, each.held) for each in synced.differences] == [
        ("x", "keep", False),
        ("y", "replace", False),
    ]
    assert await desk.definition("x") == DISABLED
    await desk.do(table.REVIVE, key="x")
    assert await desk.definition("x") == ON


async def test_a_flag_that_was_revived_is_nobodys_to_hold_back(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.do(table.KILL, key="x", reason="errors")
    await desk.do(table.REVIVE, key="x")
    assert (await desk.sync({"x": ON})).change


# -- releases -----------------------------------------------------------------------------------------------------


async def test_a_flag_with_a_release_is_held_back_unless_the_file_has_it_as_it_is_compiled(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ADVANCE)
    await held(desk, 'it has a release, at stage "beta"', {"x": ON})
    await held(desk, 'it has a release, at stage "beta"', {"x": {**ON, "state": "DISABLED"}})
    await held(desk, 'it has a release, at stage "beta"', {}, prune=True)
    compiled = await desk.definition("x")
    assert compiled["metadata"]
    without = {name: value for name, value in compiled.items() if name != "metadata"}
    for same in (compiled, {**compiled, "metadata": {"releaseStage": "dev", "releaseRevision": 1}}, without):
        assert (await desk.sync({"x": same})).differences == []
    await held(desk, "it has a release", {"x": {**compiled, "metadata": {"owner": "ada"}}})


async def test_who_took_a_release_back_and_why_is_said(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ADVANCE)
    taken: dict[str, Any] = {"key": "x", "from": ["beta", "dev"], "reason": "3am: payments fail"}
    await desk.do(table.UNRELEASE, actor="grace", **taken)
    await held(desk, 'at stage "beta", un-released from beta, dev; it was un-released by grace at 2', {"x": ON})
    await held(desk, "UTC (3am: payments fail)", {"x": ON})


async def test_force_ends_a_release(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START)
    await forced(desk, {"x": ON})
    assert await desk.definition("x") == ON
    assert (await read_state(desk.store, ENVIRONMENT)).releases == {}


async def test_a_killed_flag_with_a_release_stays_both_where_the_file_has_what_it_compiles_to(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START)
    compiled = await desk.definition("x")
    await desk.do(table.KILL, key="x", reason="errors")
    for force in (False, True):
        synced = await desk.sync({"x": compiled}, force=force)
        assert (only(synced).what, wrote(synced)) == ("keep", False)


# -- what was done to a flag that is plain again ------------------------------------------------------------------

ENDED: dict[str, tuple[list[Any], str]] = {
    "abandoned": ([table.START, table.ABANDON], "its release was abandoned by ada"),
    "detached with a block": (
        [table.START, (table.UNRELEASE, {"from": ["beta"]}), table.ADVANCE, table.DETACH],
        "its release was detached as it was taken back by ada",
    ),
    "detached with a limit": (
        [table.START, table.ADVANCE, (table.UNRELEASE, {"to": "dev"}), table.DETACH],
        "it was un-released by ada",
    ),
    "detached after it was withdrawn": (
        [table.START, table.RETREAT, table.DETACH],
        "its release was detached as it was taken back by ada",
    ),
    "detached after a retreat": ([table.START, table.ADVANCE, table.RETREAT, table.DETACH], "was taken back a stage"),
    "killed and revived after that": (
        [table.START, table.ABANDON, table.KILL, table.REVIVE],
        "its release was abandoned by ada",
    ),
}


@pytest.mark.parametrize("name", ENDED)
async def test_a_flag_that_was_taken_away_is_held_back_though_its_release_has_ended(desk: Desk, name: str) -> None:
    steps, why = ENDED[name]
    await desk.sync({"x": OFF})
    await desk.release(*steps)
    await held(desk, why, {"x": ON})
    await forced(desk, {"x": ON})


@pytest.mark.parametrize("name", ENDED)
async def test_a_flag_that_was_taken_away_is_the_files_again_once_they_have_it_so(desk: Desk, name: str) -> None:
    steps, why = ENDED[name]
    await desk.sync({"x": OFF})
    await desk.release(*steps)
    await held(desk, why, {"x": {**ON, "metadata": {"owner": "ada"}}})
    await agreed(desk, {"x": await desk.definition("x")})
    assert only(await desk.sync({"x": ON})).held is False


@pytest.mark.parametrize(
    "steps",
    [
        [table.START, table.DETACH],
        [table.START, (table.UNRELEASE, {"from": ["dev"]}), (table.RESTORE, {"population": "dev"}), table.DETACH],
        [table.START, table.ADVANCE, table.RETREAT, table.ADVANCE, table.DETACH],
        [table.START, table.ADVANCE, table.ADVANCE, table.FINISH],
    ],
)
async def test_a_flag_whose_release_has_ended_otherwise_is_the_files_again(desk: Desk, steps: list[Any]) -> None:
    await desk.sync({"x": OFF})
    await desk.release(*steps)
    assert (await desk.sync({"x": ON if steps[-1] is table.DETACH else OFF})).held == 0


async def test_a_flag_that_was_taken_away_may_be_switched_off_by_the_file(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ABANDON)
    assert only(await desk.sync({"x": DISABLED})).held is False
    assert await desk.definition("x") == DISABLED


async def test_whoever_writes_a_flag_by_hand_afterwards_has_decided_anew_and_is_not_overruled_either(
    desk: Desk,
) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ABANDON)
    await desk.put("x", BETA, reason="once more")
    await held(desk, "it was edited by ada at 2", {"x": ON})
    assert (await desk.sync({"x": BETA})).differences == []


# -- edits by hand ------------------------------------------------------------------------------------------------


async def test_a_flag_that_somebody_switched_off_is_held_back(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.put("x", {**ON, "state": "DISABLED"}, reason="errors")
    await held(desk, "it was switched off by ada at 2", {"x": ON})
    await held(desk, "(errors)", {"x": BETA})
    await forced(desk, {"x": ON})


async def test_a_flag_that_a_file_switched_off_is_the_files(desk: Desk) -> None:
    for how in (table.SYNC, table.IMPORT):
        members = {"apply": True} if how is table.SYNC else {}
        await desk.do(how, document={"flags": {"x": DISABLED}}, actor="ci", **members)
        assert only(await desk.sync({"x": ON}, {})).held is False


async def test_a_flag_that_is_off_since_before_history_is_held_back(desk: Desk, store: Store) -> None:
    await desk.put("x", DISABLED)
    await store.client.delete(store.keys.history(ENVIRONMENT))
    await held(desk, "history does not reach back", {"x": ON}, {})


async def test_a_flag_that_somebody_deleted_is_held_back_unless_the_file_has_it_off(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.do(table.DELETE_FLAG, key="x", reason="errors")
    await held(desk, "it was deleted by ada at 2", {"x": ON})
    await forced(desk, {"x": ON})
    await desk.do(table.DELETE_FLAG, key="x", reason="errors")
    assert (await desk.sync({"x": DISABLED})).held == 0


async def test_a_flag_that_a_file_deleted_is_the_files(desk: Desk) -> None:
    await desk.sync({"x": ON})
    assert only(await desk.sync(prune=True)).what == "delete"
    assert only(await desk.sync({"x": ON})).held is False


async def test_an_edit_by_hand_after_files_were_applied_is_held_back_since_it_may_have_taken_something_away(
    desk: Desk,
) -> None:
    await desk.sync({"x": ON, "y": ON})
    await desk.put("x", OFF, reason="errors")
    await held(desk, "(errors), after files had been applied", {"x": ON, "y": ON})
    await desk.sync({"x": ON, "y": OFF})
    await desk.do(table.KILL, key="x", reason="errors")
    await desk.do(table.REVIVE, key="x")
    await held(desk, "it was edited by ada at 2", {"x": ON, "y": OFF})
    await forced(desk, {"x": ON, "y": OFF})
    assert (await desk.sync({"x": OFF, "y": OFF})).held == 0


async def test_what_was_made_by_hand_before_there_were_files_is_theirs_once_they_say_otherwise(desk: Desk) -> None:
    await desk.do(table.PUT_POPULATION, name="beta", rule=POPULATIONS["beta"])
    await desk.do(table.PUT_POPULATION, name="dev", rule=POPULATIONS["beta"])
    await desk.put("x", OFF, reason="new")
    synced = await desk.sync({"x": ON})
    assert [(each.name, each.held) for each in synced.differences] == [("x", False), ("dev", False)]
    assert synced.differences[0].note.startswith("it was last changed by ada at 2")


async def test_a_population_edited_by_hand_after_files_were_applied_is_held_back(desk: Desk) -> None:
    await desk.sync({"x": BETA})
    await desk.do(table.PUT_POPULATION, name="beta", rule={"==": [{"var": "plan"}, "nobody"]}, reason="errors")
    await held(desk, "it was edited by ada at 2", {"x": BETA})
    await forced(desk, {"x": BETA})


async def test_what_people_did_is_the_files_once_they_have_it_so(desk: Desk) -> None:
    await desk.sync({"x": ON, "y": ON})
    for change in (OFF, DISABLED, BETA):
        await desk.put("x", change, reason="errors")
        await agreed(desk, {"x": change, "y": ON})
        assert only(await desk.sync({"x": ON, "y": ON})).held is False


async def test_what_was_agreed_to_is_held_back_where_somebody_edits_it_again(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.put("x", OFF, reason="errors")
    await agreed(desk, {"x": OFF})
    await desk.put("x", BETA, reason="once more")
    await held(desk, "(once more), after files", {"x": ON})


async def test_a_kill_that_was_revived_hides_nothing_of_who_decided(desk: Desk) -> None:
    await desk.sync({"x": DISABLED, "y": ON})
    await desk.put("y", DISABLED, reason="errors")
    for key in "xy":
        await desk.do(table.KILL, key=key, to="off", reason="errors")
        await desk.do(table.REVIVE, key=key)
    await held(desk, "it was switched off by ada", {"x": DISABLED, "y": ON})
    assert only(await desk.sync({"x": ON, "y": DISABLED})).held is False
    assert only(await desk.sync({"x": ON, "y": ON})).held is False


async def test_a_population_that_the_files_have_as_somebody_made_it_is_theirs(desk: Desk) -> None:
    await desk.sync({"x": BETA})
    await desk.do(table.PUT_POPULATION, name="beta", rule=WIDER["beta"])
    await agreed(desk, {"x": BETA}, WIDER)
    assert only(await desk.sync({"x": BETA})).held is False


async def test_a_deletion_is_the_files_once_they_lack_it_and_say_all_that_is_wanted(desk: Desk) -> None:
    await desk.sync({"x": ON, "y": ON})
    await desk.do(table.DELETE_FLAG, key="x", reason="errors")
    assert (await desk.sync({"y": ON})).agreed == 0, "of what is nothing of theirs, other files say nothing"
    await held(desk, "it was deleted by ada", {"x": ON, "y": ON})
    await agreed(desk, {"y": ON}, prune=True)
    assert only(await desk.sync({"x": ON, "y": ON})).held is False


async def test_files_that_are_adopted_as_they_were_exported_are_files_that_were_applied(desk: Desk) -> None:
    await desk.put("x", ON)
    await agreed(desk, {"x": ON}, {})
    await desk.put("x", OFF, reason="errors")
    await held(desk, "(errors), after files had been applied", {"x": ON}, {})


async def test_an_edit_is_held_back_where_history_does_not_tell_whether_it_was_after_files(
    desk: Desk, store: Store
) -> None:
    await desk.sync({"x": BETA, "y": ON})
    await desk.put("x", OFF, reason="errors")
    await desk.do(table.PUT_POPULATION, name="dev", rule=POPULATIONS["beta"])
    await store.client.xtrim(store.keys.history(ENVIRONMENT), maxlen=2, approximate=False)
    synced = await desk.sync({"x": ON, "y": ON})
    assert [(each.name, each.held) for each in synced.differences] == [("x", True), ("dev", True)]
    assert all("(errors)" in each.note or "(no reason)" in each.note for each in synced.differences)
    assert all(each.note.endswith("whether files had been applied before") for each in synced.differences)


async def test_what_is_forced_among_more_than_history_names_is_the_files_again(desk: Desk) -> None:
    many = [f"f{number:04}" for number in range(1000)]
    await desk.sync({**dict.fromkeys(many, ON), "x": ON})
    await desk.put("x", OFF, reason="errors")
    forced = await desk.sync({**dict.fromkeys(many, OFF), "x": ON}, force=True)
    assert forced.change
    assert only(await desk.sync({"x": BETA})).held is False


async def test_what_was_edited_or_made_by_hand_after_files_is_not_pruned(desk: Desk) -> None:
    await desk.sync({"x": ON, "y": ON, "z": ON})
    await desk.put("x", OFF, reason="errors")
    await desk.put("new", ON, reason="for tonight")
    synced = await desk.sync({"z": ON}, prune=True)
    notes = {each.name: each.note for each in synced.differences if each.held}
    assert {"x", "new"} == notes.keys()
    assert all(note.endswith(", after files had been applied") for note in notes.values())
    assert await desk.definition("y") is None
    assert (await desk.sync({"z": ON}, prune=True, force=True)).held == 0
    assert await desk.definition("new") is None


# -- populations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "why"), [({"from": ["beta"]}, "un-released from it"), ({"to": "beta"}, "limited to")])
async def test_a_population_that_a_release_is_withheld_by_is_held_back(desk: Desk, step: Any, why: str) -> None:
    plan = {"flag": "x", "released": "on", "baseline": "off", "stages": [{"percent": 50}, {"percent": 100}]}
    await desk.sync({"x": OFF})
    await desk.do(table.PLAN, key="x", plan=plan)
    await desk.act(table.START)
    await desk.act(table.UNRELEASE, step)
    await desk.act(table.ADVANCE)
    await held(desk, why, {}, WIDER)
    await forced(desk, {}, WIDER)


async def test_a_population_of_a_stage_is_held_back_while_the_release_was_taken_back_last(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ADVANCE, table.ADVANCE, table.RETREAT)
    await held(desk, 'flag "x" names it, and its release was taken back a stage by ada', {}, WIDER)
    await desk.act(table.ADVANCE)
    await desk.act(table.RETREAT, {"to": "dev"})
    assert (await desk.sync({}, WIDER)).held == 0, "nobody in it has anything"


async def test_a_population_of_a_stage_is_the_files_while_the_release_goes_on(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ADVANCE)
    assert only(await desk.sync({}, WIDER)).held is False


async def test_a_population_that_a_detached_flag_names_is_held_back_with_it(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, (table.UNRELEASE, {"from": ["beta"]}), table.DETACH)
    await held(desk, 'flag "x" names it, and its release was detached as it was taken back', {}, WIDER)


async def test_a_flag_is_held_back_with_the_population_that_it_would_name(desk: Desk) -> None:
    await desk.sync({"y": OFF, "z": OFF})
    await desk.do(table.PUT_POPULATION, name="beta", rule={"!!": [True]}, reason="for a demo")
    synced = await desk.sync({"y": BETA, "z": {**BETA, "state": "DISABLED"}})
    assert [(each.name, each.held) for each in synced.differences] == [("y", True), ("z", False), ("beta", True)]
    assert synced.differences[0].note == 'it names population "beta", which is held back'
    assert await desk.definition("y") == OFF
    forced = await desk.sync({"y": BETA}, force=True)
    assert [each.note.partition(" by ")[0] for each in forced.differences] == ["", "forced, though it was edited"]


async def test_a_flag_that_is_held_back_with_a_population_holds_others_back_that_it_names(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.put("x", {**OFF, "targeting": {"if": [{"$ref": "dev"}, "on", "off"]}}, reason="the team alone")
    await desk.do(table.PUT_POPULATION, name="beta", rule={"!!": [True]}, reason="for a demo")
    dev = {"in": [{"var": "plan"}, ["dev", "pro"]]}
    synced = await desk.sync({"x": BETA}, {**POPULATIONS, "dev": dev})
    assert all(each.held for each in synced.differences)
    assert [each.name for each in synced.differences] == ["x", "beta", "dev"]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_population_to_which_somebody_narrowed_a_flag_by_hand_is_held_back(desk: Desk, *, killed: bool) -> None:
    await desk.sync({"x": ON})
    await desk.put("x", BETA, reason="errors")
    if killed:
        await desk.do(table.KILL, key="x", reason="more of them")
    await held(desk, 'flag "x" names it, and it was edited by ada', {}, WIDER)
    assert (await desk.sync({"x": BETA}, WIDER)).held == 0, "the file has both so"


async def test_a_kill_hides_no_release_that_was_taken_back(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START, table.ADVANCE, table.ADVANCE, table.RETREAT, table.KILL)
    await held(desk, 'flag "x" names it, and its release was taken back a stage', {}, WIDER)


async def test_who_is_restored_to_one_population_gives_no_other_its_stage_back(desk: Desk) -> None:
    unreleased, restored = (table.UNRELEASE, {"from": ["dev"]}), (table.RESTORE, {"population": "dev"})
    await desk.sync({"x": OFF})
    await desk.release(table.START, unreleased, table.ADVANCE, table.RETREAT, restored, table.DETACH)
    await held(desk, "its release was taken back a stage by ada", {"x": ON})


async def test_what_was_taken_from_several_is_given_back_once_all_of_them_have_it(desk: Desk) -> None:
    steps = [(table.UNRELEASE, {"from": ["dev"]}), (table.UNRELEASE, {"from": ["beta"], "to": "debug"})]
    back = [(table.RESTORE, {"population": name}) for name in ("dev", "debug", "beta")]
    await desk.sync({"x": OFF}, {**POPULATIONS, "debug": {"==": [{"var": "debug"}, True]}})
    await desk.release(table.START, *steps, *back, table.DETACH)
    assert only(await desk.sync({"x": ON})).held is False


async def test_a_population_that_is_used_is_not_pruned_not_even_with_force(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release()
    compiled = await desk.definition("x")
    for force in (False, True):
        synced = await desk.sync({"x": compiled}, {}, prune=True, force=force)
        notes = {each.name: each.note for each in synced.differences if each.held}
        assert notes == dict.fromkeys(("beta", "dev"), 'it is used by the release of flag "x"')


async def test_a_population_that_a_flag_needs_which_is_held_back_is_not_pruned(desk: Desk) -> None:
    await desk.sync({"x": BETA, "y": BETA})
    await desk.do(table.KILL, key="x", reason="errors")
    synced = await desk.sync({}, {"dev": POPULATIONS["dev"]}, prune=True)
    assert {(each.name, each.held) for each in synced.differences} == {("x", True), ("y", False), ("beta", True)}
    assert synced.differences[-1].note == 'it is used by flag "x"'
    assert await desk.definition("y") is None
    state = await read_state(desk.store, ENVIRONMENT)
    assert check_flag("x", state.flags["x"].definition, state.evaluators)


async def test_a_population_is_replaced_and_pruned_where_nobody_minds(desk: Desk) -> None:
    await desk.sync({"x": BETA})
    synced = await desk.sync({"x": OFF}, {"dev": WIDER["beta"]}, prune=True)
    assert [(each.kind, each.name, each.what) for each in synced.differences] == [
        ("flag", "x", "replace"),
        ("population", "beta", "delete"),
        ("population", "dev", "replace"),
    ]
    assert synced.held == 0
