"""Who did what and why: of one flag, by one person, since some time, as much as is asked for."""

from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.operation import perform
from flagrelay.control.session import Session
from flagrelay.errors import DefinitionError, EnvironmentMissing, InputError
from flagrelay.store.connection import Store
from flagrelay.store.history import HistoryEntry
from flagrelay.store.reading import read_clock
from flagrelay.store.writing import Draft, write_change
from support.released import DOCUMENT, KEY, POPULATIONS, do
from support.stores import ENVIRONMENT, flag

pytestmark = pytest.mark.usefixtures("desk")


@pytest.fixture
async def busy(store: Store) -> Store:
    """An environment where something was done, by two people."""
    draft = Draft(flags={"a": flag(1), "b": flag(2)}, evaluators=POPULATIONS, action="import", actor="ada")
    await write_change(store, ENVIRONMENT, draft)
    await do(store, table.PLAN, "grace", key=KEY, plan=DOCUMENT, reason="new")
    await do(store, table.START, "grace", key=KEY, reason="go")
    await do(store, table.KILL, key="a", reason="5 %")
    await do(store, table.DELETE_FLAG, "grace", key="b", reason="old")
    return store


async def test_every_change_is_listed_newest_first_with_what_it_touched(busy: Store) -> None:
    entries = await do(busy, table.HISTORY)
    assert [(each.revision, each.action, each.actor, each.reason) for each in entries] == [
        (5, "delete", "grace", "old"),
        (4, "kill", "ada", "5 %"),
        (3, "start", "grace", "go"),
        (2, "plan", "grace", "new"),
        (1, "import", "ada", ""),
    ]
    assert [(each.flags, each.populations, each.deleted) for each in entries[::4]] == [
        (("b",), (), ("b",)),
        (("a", "b"), tuple(POPULATIONS), ()),
    ]
    assert [each.urgent for each in entries] == [False, True, False, False, False]
    assert all(each.at and each.left_out == 0 for each in entries)


async def test_what_was_done_to_a_release_or_killed_is_told_beside_every_change(busy: Store) -> None:
    taken: dict[str, Any] = {"from": ["dev"]}
    await do(busy, table.UNRELEASE, key=KEY, reason="bad", **taken)
    await do(busy, table.RESTORE, key=KEY, population="dev", reason="good")
    await do(busy, table.SYNC, document={"flags": {KEY: flag(1)}}, apply=True, force=True)
    entries = await do(busy, table.HISTORY)
    assert [each.action for each in entries[:4]] == ["sync", "restore", "unrelease", "delete"]
    assert [each.detail for each in entries if each.action in ("sync", "delete", "import")] == [None] * 3
    own = await do(busy, table.RELEASE_HISTORY, key=KEY)
    assert [each.detail for each in entries if each.flags == (KEY,)][1:] == [each.detail for each in own[1:]]
    assert (entries[1].detail["population"], entries[2].detail["from"]) == ("dev", ["dev"])
    assert [each.detail for each in await do(busy, table.HISTORY, flag="a")] == [{"to": None}, None]
    assert await do(busy, table.HISTORY, flag=KEY) == [each for each in entries if KEY in each.flags]


async def test_it_can_be_asked_for_page_by_page_with_all_that_is_known(busy: Store) -> None:
    for _ in range(3):
        await do(busy, table.RETREAT, key=KEY, reason="back")
        await do(busy, table.START, key=KEY, reason="on")
    entries = await do(busy, table.HISTORY)
    assert len({each.id for each in entries}) == len(entries)
    paged: list[HistoryEntry] = []
    while page := await do(busy, table.HISTORY, "ada", (), limit=2, before=paged[-1].id if paged else None):
        paged += page
    assert paged == entries
    assert [each.id for each in paged] == [each.id for each in entries]


@pytest.mark.parametrize("before", ["", "0-0", "1", "1-", "x-1", "(1-1", "1-1\n", "9" * 21 + "-1"])
async def test_a_place_that_is_none_is_refused(busy: Store, before: str) -> None:
    with pytest.raises(InputError, match="before"):
        await do(busy, table.HISTORY, before=before)


async def test_it_can_be_asked_for_one_flag_or_one_person_or_the_newest(busy: Store) -> None:
    async def revisions(**members: Any) -> list[int]:
        found: list[HistoryEntry] = await do(busy, table.HISTORY, "ada", (), **members)
        return [each.revision for each in found]

    assert await revisions(flag="a") == [4, 1]
    assert await revisions(flag="b") == [5, 1]
    assert await revisions(flag="none") == []
    assert await revisions(limit=2) == [5, 4]
    assert await revisions(limit=1, flag="a") == [4]
    assert await revisions(since="1h") == [5, 4, 3, 2, 1]
    assert await revisions(since="0s") == []


async def test_it_can_be_asked_for_what_one_person_did(busy: Store) -> None:
    session = Session(busy, ENVIRONMENT, "ada")
    assert [each.revision for each in await perform(session, table.HISTORY, actor="grace")] == [5, 3, 2]
    assert [each.revision for each in await perform(session, table.HISTORY, actor="grace", flag=KEY, limit=1)] == [3]
    assert await perform(session, table.HISTORY, actor="nobody") == []


async def test_since_is_by_the_clock_of_redis(busy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    [newest, *_, oldest] = await do(busy, table.HISTORY)
    now = await read_clock(busy, ENVIRONMENT)
    middle: int = oldest.at + (newest.at - oldest.at) // 2

    async def later(*_: object) -> int:
        return middle + 3_600_000_000

    monkeypatch.setattr("flagrelay.control.history.read_clock", later)
    assert now - newest.at < 60_000_000
    found = await do(busy, table.HISTORY, since="1h")
    assert found
    assert {each.revision for each in found} < {1, 2, 3, 4, 5}
    assert all(each.at >= middle for each in found)
    assert await do(busy, table.HISTORY, since="1h1m") == await do(busy, table.HISTORY)


@pytest.mark.parametrize("since", ["yesterday", "1y", "-1h", "1.5h", "", "9999d"])
async def test_a_time_that_is_none_is_refused(busy: Store, since: str) -> None:
    with pytest.raises(DefinitionError, match=r"history: at since: .*such as 90s, 30m, 1h"):
        await do(busy, table.HISTORY, since=since)


@pytest.mark.parametrize("limit", [0, -1, 100_001, "all"])
async def test_a_limit_that_is_none_is_refused(busy: Store, limit: object) -> None:
    for operation, key in ((table.HISTORY, None), (table.RELEASE_HISTORY, KEY)):
        with pytest.raises(InputError, match="limit"):
            await do(busy, operation, "ada", (), limit=limit, key=key)


async def test_releases_and_kills_have_their_own_with_details(busy: Store) -> None:
    [start, plan] = await do(busy, table.RELEASE_HISTORY, key=KEY)
    assert (plan.action, plan.flags, plan.detail["stage"]) == ("plan", (KEY,), "dark")
    assert (start.action, start.actor, start.detail["stage"]) == ("start", "grace", "dev")
    [kill] = await do(busy, table.RELEASE_HISTORY, key="a")
    assert (kill.action, kill.detail) == ("kill", {"to": None})
    assert await do(busy, table.RELEASE_HISTORY, key="b") == []


async def test_without_an_environment_there_is_none(store: Store) -> None:
    await store.client.flushall()
    for operation, key in ((table.HISTORY, None), (table.RELEASE_HISTORY, KEY)):
        with pytest.raises(EnvironmentMissing):
            await do(store, operation, key=key)
