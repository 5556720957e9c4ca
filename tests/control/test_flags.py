"""Flags, one by one, as operations."""

import asyncio
from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.answers import Killed as KilledAnswer
from flagrelay.control.flags import FlagSummary, moment
from flagrelay.errors import (
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    FlagMissing,
    InputError,
    Killed,
    NotKilled,
    Released,
    VariantMissing,
)
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.history import read_history
from flagrelay.store.reading import read_flag
from support.released import DOCUMENT, KEY, do, populate, unchanged
from support.stores import ENVIRONMENT, everything, flag, put

pytestmark = pytest.mark.usefixtures("desk")


async def plan(store: Store) -> None:
    """A flag with a release."""
    await populate(store)
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT)


async def test_a_flag_is_put_got_and_deleted_with_who_and_why(store: Store) -> None:
    change = await do(store, table.PUT_FLAG, key="a", definition=flag(1), reason="new")
    assert (change.revision, change.changed, change.at > 0) == (1, True, True)
    got = await do(store, table.GET_FLAG, key="a")
    assert (got.key, got.revision, got.definition, got.killed, got.stage) == ("a", 1, flag(1), None, None)
    change = await do(store, table.DELETE_FLAG, "grace", key="a", reason="old")
    assert change.revision == 2
    await unchanged(store, FlagMissing, 'no flag "a"', table.GET_FLAG, key="a")
    done = [(each.action, each.actor, each.reason) async for each in read_history(store, ENVIRONMENT)]
    assert done == [("delete", "grace", "old"), ("put", "ada", "new")]


async def test_a_flag_is_written_only_at_the_revision_that_was_seen(store: Store) -> None:
    await do(store, table.PUT_FLAG, key="a", definition=flag(1), if_revision=0)
    for operation, members in ((table.PUT_FLAG, {"definition": flag(2)}), (table.DELETE_FLAG, {})):
        for revision in (0, 2):
            await unchanged(
                store, Conflict, 'flag "a" is at revision 1', operation, key="a", if_revision=revision, **members
            )
    await do(store, table.PUT_FLAG, key="a", definition=flag(2), if_revision=1)
    await do(store, table.DELETE_FLAG, key="a", if_revision=2)
    await unchanged(store, Conflict, "does not exist", table.PUT_FLAG, key="a", definition=flag(1), if_revision=2)


async def test_what_is_written_between_reading_and_writing_is_a_conflict(store: Store) -> None:
    await put(store, "a")
    puts = (do(store, table.PUT_FLAG, key="a", definition=flag(number)) for number in range(10))
    ends = await asyncio.gather(*puts, return_exceptions=True)
    assert {type(end).__name__ for end in ends} == {"Change", "Conflict"}
    done = [each async for each in read_history(store, ENVIRONMENT)]
    assert len(done) == 1 + sum(not isinstance(end, Conflict) for end in ends)


async def test_a_definition_that_is_none_is_refused(store: Store) -> None:
    await populate(store)
    for definition, why in (
        ({"state": "ON"}, "variants: missing"),
        (flag(1, targeting={"$ref": "nobody"}), "nobody"),
    ):
        await unchanged(store, DefinitionError, why, table.PUT_FLAG, key="a", definition=definition)
    await unchanged(store, InputError, "flags.put", table.PUT_FLAG, key="a", definition=[])
    await do(store, table.PUT_FLAG, key="a", definition=flag(1, targeting={"if": [{"$ref": "dev"}, "on", "off"]}))


async def test_a_killed_flag_is_edited_by_force_only(store: Store) -> None:
    await put(store, "a")
    await do(store, table.KILL, key="a", reason="5 %")
    for operation, members in ((table.PUT_FLAG, {"definition": flag(2)}), (table.DELETE_FLAG, {})):
        sentence = r'flag "a" is killed by ada since 20\d\d-.* UTC \(5 %\): an edit would end the kill'
        await unchanged(store, Killed, sentence, operation, key="a", **members)
    await do(store, table.PUT_FLAG, key="a", definition=flag(2), force=True)
    assert (await read_flag(store, ENVIRONMENT, "a")).killed is None


async def test_a_flag_with_a_release_is_not_edited_by_force_either(store: Store) -> None:
    await plan(store)
    for operation, members in ((table.PUT_FLAG, {"definition": flag(2)}), (table.DELETE_FLAG, {})):
        for force in (False, True):
            await unchanged(store, Released, "has a release", operation, key=KEY, force=force, **members)
    assert (await do(store, table.GET_FLAG, key=KEY)).stage == "dark"
    await do(store, table.START, key=KEY, reason="why")
    assert (await do(store, table.GET_FLAG, key=KEY)).stage == "dev"
    await do(store, table.KILL, key=KEY, reason="why")
    await do(store, table.REVIVE, key=KEY)


async def test_a_kill_is_urgent_wins_and_is_undone_exactly(store: Store) -> None:
    await put(store, "a", 1)
    killed = await do(store, table.KILL, key="a", to="off", reason="why")
    assert (killed.revision, killed.changed) == (2, True)
    got = await do(store, table.GET_FLAG, key="a")
    assert got.killed == KilledAnswer(at=killed.at, actor="ada", reason="why", to="off")
    assert got.definition == flag(1, defaultVariant="off")
    again = await do(store, table.KILL, "grace", key="a", to="off", reason="why")
    assert (again.revision, again.changed, again.at) == (2, False, None)
    await do(store, table.REVIVE, key="a")
    assert (await do(store, table.GET_FLAG, key="a")).definition == flag(1)
    assert [each.urgent for each in await read_changes(store, ENVIRONMENT, 1)] == [True, True]


async def test_what_cannot_be_killed_or_revived_is_refused(store: Store) -> None:
    await unchanged(store, FlagMissing, 'no flag "a"', table.KILL, key="a", reason="why")
    await unchanged(store, FlagMissing, 'no flag "a"', table.REVIVE, key="a")
    await put(store, "a")
    await unchanged(store, NotKilled, "not killed", table.REVIVE, key="a")
    await unchanged(store, VariantMissing, 'no variant "red"', table.KILL, key="a", to="red", reason="why")
    await unchanged(store, InputError, "length", table.KILL, key="a", to="", reason="why")


async def test_flags_are_listed_by_key_with_what_one_wants_to_see(store: Store) -> None:
    await plan(store)
    await put(store, "b")
    await put(store, "a", 1)
    killed = await do(store, table.KILL, key="a", reason="5 %")
    texts = {"z1": b'{"revision":7,"flag":{"state":"ENABLED"}}', "z2": b'{"revision":8,"flag":{"variants":{}}}'}
    await store.client.hset(store.keys.flags(ENVIRONMENT), mapping=texts)
    await store.client.hdel(store.keys.state(ENVIRONMENT), "flags")
    listed = await do(store, table.LIST_FLAGS)
    assert [(each.key, each.revision, each.state, each.type, each.stage) for each in listed] == [
        ("a", 5, "DISABLED", "number", None),
        ("b", 3, "ENABLED", "number", None),
        (KEY, 2, "ENABLED", "object", "dark"),
        ("z1", 7, "INVALID", "", None),
        ("z2", 8, "INVALID", "", None),
    ]
    assert listed[0] == FlagSummary(
        key="a",
        revision=5,
        state="DISABLED",
        type="number",
        variants=["on", "off"],
        defaultVariant="on",
        killed=KilledAnswer(at=killed.at, actor="ada", reason="5 %", to=None),
        stage=None,
    )


async def test_without_an_environment_nothing_is_read_or_written(store: Store) -> None:
    await store.client.flushall()
    asked: list[tuple[Any, dict[str, Any]]] = [
        (table.LIST_FLAGS, {}),
        (table.GET_FLAG, {"key": "a"}),
        (table.PUT_FLAG, {"key": "a", "definition": flag(1)}),
        (table.DELETE_FLAG, {"key": "a"}),
        (table.KILL, {"key": "a", "reason": "why"}),
        (table.REVIVE, {"key": "a"}),
    ]
    for operation, members in asked:
        await unchanged(store, EnvironmentMissing, "does not exist", operation, **members)
    assert await everything(store) == {}


@pytest.mark.parametrize("at", [0, -1, 1_764_000_000_123_456, 10**18, -(10**18), 10**30])
def test_any_moment_can_be_told(at: int) -> None:
    assert moment(at).endswith(" UTC") or moment(at) == f"@{at // 1_000_000}"
