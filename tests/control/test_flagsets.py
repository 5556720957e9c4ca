"""Whole flag sets: export, import."""

from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.flagsets import SCHEMA, Imported
from flagrelay.errors import Killed, PopulationUsed, Released
from flagrelay.store.connection import Store
from flagrelay.store.history import read_history
from flagrelay.store.reading import read_state
from support.desk import BETA, DISABLED, OFF, ON, POPULATIONS, Desk, flag_set
from support.stores import ENVIRONMENT


async def imported(desk: Desk, document: object, **members: Any) -> Imported:
    answer: Imported = await desk.do(table.IMPORT, document=document, **members)
    return answer


async def test_an_import_is_one_change_that_history_names(desk: Desk, store: Store) -> None:
    answer = await imported(desk, flag_set({"x": ON, "y": BETA}), reason="nightly")
    assert answer.change
    assert (answer.change.revision, answer.added, answer.populations) == (1, ["x", "y"], ["beta", "dev"])
    [entry] = [each async for each in read_history(store, ENVIRONMENT)]
    assert (entry.action, entry.actor, entry.reason) == ("import", "ada", "nightly")
    assert (await imported(desk, flag_set({"x": ON, "y": BETA}))).change is None


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
        assert (await imported(desk, each.document, prune=True)).change is None


async def test_a_flag_with_a_release_is_imported_only_as_it_is_compiled(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START)
    compiled = await desk.definition("x")
    older = {**compiled, "metadata": {"releaseStage": "dark", "releaseRevision": 1}}
    for force in (False, True):
        assert (await imported(desk, flag_set({"x": older}), force=force)).change is None
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
            assert (await imported(desk, flag_set({"x": file}), force=force)).change is None


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
    assert (await imported(desk, flag_set({"x": ON}), force=True)).replaced == ["x"]
    assert await desk.definition("x") == ON
