import asyncio

import pytest

from flagrelay.errors import ChangelogTrimmed, StoreCorrupt
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store import changelog
from flagrelay.store.changelog import read_changes, read_recent_changes
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_snapshot
from support.stores import ENVIRONMENT, folded, put


async def write(store: Store, count: int) -> None:
    for number in range(count):
        await put(store, f"flag-{number % 7}", number)


async def revisions(store: Store, after: int) -> list[int]:
    return [change.revision for change in await read_changes(store, ENVIRONMENT, after)]


async def test_the_changes_after_a_revision_come_in_order(store: Store, empty: Snapshot) -> None:
    await write(store, 5)
    assert await revisions(store, 0) == [1, 2, 3, 4, 5]
    assert await revisions(store, 3) == [4, 5]
    assert await revisions(store, 5) == []
    assert await revisions(store, 9) == []


@pytest.mark.parametrize("count", [9, 10, 11, 20, 35])
async def test_more_than_a_page_comes_whole(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(changelog, "PAGE", 10)
    await write(store, count)
    assert await revisions(store, 0) == list(range(1, count + 1))
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)


async def test_what_is_written_between_two_pages_has_no_hole(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "PAGE", 5)
    await write(store, 20)
    _, read = await asyncio.gather(write(store, 50), revisions(store, 0))
    assert read == list(range(1, len(read) + 1))
    assert len(read) >= 20


async def test_a_trimmed_changelog_says_so_to_whoever_needs_what_is_gone(store: Store, empty: Snapshot) -> None:
    await write(store, 10)
    await store.client.xtrim(store.keys.changes(ENVIRONMENT), minid="6-0", approximate=False)
    for after in (0, 4):
        with pytest.raises(
            ChangelogTrimmed, match=f'changelog of environment "production" has no revision {after + 1}'
        ):
            await read_changes(store, ENVIRONMENT, after)
    assert await revisions(store, 5) == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("page", [2, 500])
async def test_a_hole_is_no_history(store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(changelog, "PAGE", page)
    await write(store, 6)
    await store.client.xdel(store.keys.changes(ENVIRONMENT), "3-0")
    with pytest.raises(ChangelogTrimmed, match="has no revision 3"):
        await read_changes(store, ENVIRONMENT, 0)
    assert await revisions(store, 3) == [4, 5, 6]


async def test_a_changelog_that_is_gone_has_nothing(store: Store, empty: Snapshot) -> None:
    await write(store, 3)
    await store.client.delete(store.keys.changes(ENVIRONMENT))
    assert await revisions(store, 0) == []
    await put(store, "a")
    with pytest.raises(ChangelogTrimmed):
        await read_changes(store, ENVIRONMENT, 0)
    assert await revisions(store, 3) == [4]


@pytest.mark.parametrize(
    "fields", [{"other": "x"}, {"change": "what"}, {"change": "[]"}, {"change": '{"revision": 2}'}]
)
async def test_an_entry_that_is_no_change_is_named(store: Store, empty: Snapshot, fields: dict[str, str]) -> None:
    await put(store, "a")
    await store.client.xadd(store.keys.changes(ENVIRONMENT), fields, id="2-0")
    with pytest.raises(StoreCorrupt, match='entry 2-0 in the changelog of environment "production" is no change'):
        await read_changes(store, ENVIRONMENT, 0)


async def test_the_changelog_is_trimmed_by_those_who_write(store: Store, empty: Snapshot) -> None:
    changes = store.keys.changes(ENVIRONMENT)
    async with store.client.pipeline(transaction=False) as pipeline:
        for revision in range(1, 12_001):
            pipeline.xadd(changes, {"change": "x"}, id=f"{revision}-0")
        await pipeline.execute()
    await store.client.hset(store.keys.state(ENVIRONMENT), "revision", 12_000)
    await put(store, "a")
    assert 10_000 <= await store.client.xlen(changes) < 10_500
    assert await revisions(store, 12_000) == [12_001]


@pytest.mark.parametrize("most", [0, 1, 4, 7, 100])
async def test_the_last_changes_are_those_that_led_to_a_position(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(changelog, "RECENT_PAGE", 3)
    await write(store, 7)
    for revision in (7, 4):
        position = (await read_changes(store, ENVIRONMENT, revision - 1))[0].position
        recent = await read_recent_changes(store, ENVIRONMENT, position, most=most, most_bytes=1_000_000)
        assert [change.revision for change in recent] == list(range(1, revision + 1))[-most:] * bool(most)


async def test_the_last_changes_end_where_they_do_not_fit_together(store: Store, empty: Snapshot) -> None:
    await write(store, 6)
    position = (await read_snapshot(store, ENVIRONMENT)).position

    async def recent(most_bytes: int = 1_000_000) -> list[int]:
        changes = await read_recent_changes(store, ENVIRONMENT, position, most=10, most_bytes=most_bytes)
        return [change.revision for change in changes]

    assert await recent() == [1, 2, 3, 4, 5, 6]
    assert 0 < len(await recent(most_bytes=900)) < 6
    await store.client.xdel(store.keys.changes(ENVIRONMENT), "3-0")
    assert await recent() == [4, 5, 6]
    await store.client.xtrim(store.keys.changes(ENVIRONMENT), maxlen=2, approximate=False)
    assert await recent() == [5, 6]
    position = position._replace(nonce="another")
    assert await recent() == []
