"""Whole flag sets: export, import."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.flagsets import SCHEMA, Imported
from flagrelay.control.operation import perform
from flagrelay.control.session import Session
from flagrelay.errors import Conflict, Killed, PopulationMissing, PopulationUsed, PopulationWithheld, Released
from flagrelay.store.connection import Store
from flagrelay.store.history import read_history
from flagrelay.store.reading import read_snapshot, read_state
from support.desk import BETA, DISABLED, OFF, ON, POPULATIONS, Desk, flag_set, wrote
from support.stores import ENVIRONMENT


async def imported(desk: Desk, document: object, **members: Any) -> Imported:
    answer: Imported = await desk.do(table.IMPORT, document=document, **members)
    return answer


async def test_an_import_gives_no_flag_back_by_an_edit_of_the_population_from_which_it_was_taken(desk: Desk) -> None:
    await imported(desk, flag_set({"x": OFF}))
    await desk.release(table.START, table.ADVANCE)
    taken: dict[str, Any] = {"key": "x", "from": ["beta"], "reason": "errors"}
    await desk.do(table.UNRELEASE, **taken)
    others = flag_set(populations={**POPULATIONS, "beta": {"==": [{"var": "plan"}, "pro"]}})
    for dry_run in (True, False):
        with pytest.raises(PopulationWithheld, match='flag "x" is un-released from it'):
            await imported(desk, others, dry_run=dry_run)
    assert wrote(await imported(desk, others, force=True))


async def test_an_import_is_one_change_that_history_names(desk: Desk, store: Store) -> None:
    answer = await imported(desk, flag_set({"x": ON, "y": BETA}), reason="nightly")
    assert answer.change
    assert (answer.change.revision, answer.added, answer.populations) == (1, ["x", "y"], ["beta", "dev"])
    [entry] = [each async for each in read_history(store, ENVIRONMENT)]
    assert (entry.action, entry.actor, entry.reason) == ("import", "ada", "nightly")
    assert not wrote(await imported(desk, flag_set({"x": ON, "y": BETA})))


async def test_an_export_is_taken_back_without_a_change(desk: Desk) -> None:
    await desk.sync({"x": OFF, "y": BETA}, more={"metadata": {"team": "shop"}})
    await desk.release(table.START)
    await desk.do(table.KILL, key="y", reason="errors")
    exported = await desk.do(table.EXPORT)
    assert list(exported.document) == ["$schema", "flags", "$evaluators", "metadata"]
    assert (exported.document["$schema"], exported.killed["y"].reason) == (SCHEMA, "errors")
    assert exported.document["flags"]["y"] == {**BETA, "state": "DISABLED"}
    originals = await desk.do(table.EXPORT, originals=True)
    assert originals.document["flags"]["y"] == BETA
    for each in (exported, originals):
        assert not wrote(await imported(desk, each.document, prune=True))


async def test_a_flag_with_a_release_is_imported_only_as_it_is_compiled(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START)
    compiled = await desk.definition("x")
    older = {**compiled, "metadata": {"releaseStage": "dark", "releaseRevision": 1}}
    for force in (False, True):
        assert not wrote(await imported(desk, flag_set({"x": older}), force=force))
        for dry_run in (False, True):
            with pytest.raises(Released, match="release detach x"):
                await imported(desk, flag_set({"x": ON, "y": ON}), force=force, dry_run=dry_run)
            with pytest.raises(Released):
                await imported(desk, flag_set({}), force=force, dry_run=dry_run, prune=True)
    assert await desk.definition("y") is None, "all or nothing"
    assert (await read_state(desk.store, ENVIRONMENT)).releases


async def test_a_killed_flag_with_a_release_stays_both(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START)
    compiled = await desk.definition("x")
    await desk.do(table.KILL, key="x", reason="errors")
    served = await desk.definition("x")
    for file in (compiled, served):
        for force in (False, True):
            assert not wrote(await imported(desk, flag_set({"x": file}), force=force))


async def test_a_population_that_a_release_needs_is_not_pruned(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release()
    with pytest.raises(PopulationUsed):
        await imported(desk, flag_set({"x": OFF}, {"dev": POPULATIONS["dev"]}), prune=True)


async def test_only_force_ends_a_kill(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    assert (await imported(desk, flag_set({"x": ON}))).unchanged == 1
    with pytest.raises(Killed, match="killed by ada since"):
        await imported(desk, flag_set({"x": OFF}))
    assert await desk.definition("x") == DISABLED
    assert (await imported(desk, flag_set({"x": OFF}), force=True)).replaced == ["x"]
    assert await desk.definition("x") == OFF


async def test_not_even_force_ends_a_kill_of_which_the_file_has_the_original(desk: Desk) -> None:
    await desk.sync({"x": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    assert not wrote(await imported(desk, flag_set({"x": ON}), force=True))
    assert await desk.definition("x") == DISABLED


async def test_a_population_that_a_flag_names_is_not_pruned_not_even_one_that_is_killed(desk: Desk) -> None:
    await desk.sync({"x": BETA})
    await desk.do(table.KILL, key="x", to="off", reason="errors")
    served = await desk.definition("x")
    for dry_run in (True, False):
        with pytest.raises(PopulationUsed, match='"beta" is used by flag "x"; nothing was changed'):
            await imported(desk, {"flags": {"x": served}}, prune=True, dry_run=dry_run)
    assert (await imported(desk, {"flags": {"x": OFF}}, prune=True, force=True)).populations == ["beta", "dev"]


def meddling(desk: Desk, meddle: Callable[[], Awaitable[object]], *, times: int = 1) -> Session:
    """Ada's session, in which something else is written before the first so many of her writes."""
    left = [meddle] * times

    async def around(store: Store, write: Callable[[Store], Awaitable[Any]]) -> Any:
        if left:
            await left.pop()()
        return await write(store)

    return Session(desk.store, ENVIRONMENT, "ada", around=around)


async def test_a_population_that_somebody_comes_to_name_meanwhile_is_not_pruned(desk: Desk) -> None:
    await desk.sync({"y": OFF})
    session = meddling(desk, lambda: desk.put("x", BETA))
    with pytest.raises(PopulationUsed, match='"beta" is used by flag "x"'):
        await perform(session, table.IMPORT, document={"flags": {"y": OFF}}, prune=True)
    assert (await read_snapshot(desk.store, ENVIRONMENT)).resolve("x", {"plan": "beta"}).value is True


async def test_populations_are_pruned_though_somebody_writes_something_else_meanwhile(desk: Desk) -> None:
    await desk.sync({"y": OFF})
    session = meddling(desk, lambda: desk.put("x", ON), times=2)
    answer = await perform(session, table.IMPORT, document={"flags": {"y": OFF}}, prune=True)
    assert (answer.populations, answer.deleted) == (["beta", "dev"], [])
    assert await desk.definition("x") == ON, "it was not there when the file was compared"


async def test_an_import_that_prunes_does_not_overwrite_what_somebody_writes_meanwhile(desk: Desk) -> None:
    await desk.sync({"y": OFF})
    session = meddling(desk, lambda: desk.put("y", BETA))
    with pytest.raises(Conflict, match='flag "y" is at revision 2'):
        await perform(session, table.IMPORT, document={"flags": {"y": ON}}, prune=True)
    assert await desk.definition("y") == BETA


async def test_a_flag_that_names_a_population_which_somebody_deletes_meanwhile_is_not_written(desk: Desk) -> None:
    await desk.sync({"y": OFF})
    session = meddling(desk, lambda: desk.do(table.DELETE_POPULATION, name="beta"))
    with pytest.raises(PopulationMissing, match='no population "beta"'):
        await perform(session, table.PUT_FLAG, key="y", definition=BETA)
    assert await desk.definition("y") == OFF
