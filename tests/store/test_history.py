"""What was done, by whom and why, newest first: of every change, and of releases and kills for ever."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from flagrelay.errors import Conflict, EnvironmentMissing, StoreCorrupt, StoreUnavailable
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release import actions
from flagrelay.release.standing import Release
from flagrelay.store import history
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.history import HistoryEntry, note_agreement, read_actions, read_history
from flagrelay.store.reading import read_position
from flagrelay.store.writing import Draft, kill_flag, revive_flag, write_change
from support.released import KEY, populate, started, write
from support.stores import ENVIRONMENT, flag, put


async def listed(entries: AsyncIterator[HistoryEntry]) -> list[HistoryEntry]:
    return [entry async for entry in entries]


async def history_of(store: Store, **options: Any) -> list[HistoryEntry]:
    return await listed(read_history(store, ENVIRONMENT, **options))


async def actions_of(store: Store, key: str | None = None, **options: Any) -> list[HistoryEntry]:
    return await listed(read_actions(store, ENVIRONMENT, key, **options))


# What is noted


async def test_a_change_is_noted_with_what_it_touched_and_without_definitions(store: Store, empty: Snapshot) -> None:
    draft = Draft(
        flags={"a": flag(1), 'quo"te\\ü😀': flag(2), "gone": None},
        evaluators={"beta": {"==": [1, 1]}, "none": None},
        about={"beta": {"risk": 1}},
        action="put",
        actor='a"da',
        reason="line\nbreak",
        urgent=True,
    )
    written = await write_change(store, ENVIRONMENT, draft)
    assert await history_of(store) == [
        HistoryEntry(
            revision=1,
            at=written.at,
            action="put",
            actor='a"da',
            reason="line\nbreak",
            urgent=True,
            flags=("a", 'quo"te\\ü😀', "gone"),
            populations=("beta", "none"),
            deleted=("gone",),
        )
    ]
    [(_, fields)] = await store.client.xrange(store.keys.history(ENVIRONMENT))
    assert b"variants" not in fields[b"entry"]
    assert await actions_of(store) == [], "nothing was killed, and there is no release"


async def test_a_change_of_settings_or_metadata_alone_touches_nothing_and_is_noted(
    store: Store, empty: Snapshot
) -> None:
    written = await write_change(store, ENVIRONMENT, Draft(metadata={"a": 1}))
    assert await history_of(store) == [HistoryEntry(1, written.at, "write", "", "", detail={"metadata": True})]


async def test_a_change_is_noted_with_what_else_is_said_of_it(store: Store, empty: Snapshot) -> None:
    draft = Draft(settings=EnvironmentSettings(), metadata={"a": 1}, detail={"settings": ["origins"]}, action="env set")
    await write_change(store, ENVIRONMENT, draft)
    [entry] = await history_of(store)
    assert (entry.action, entry.detail) == ("env set", {"settings": ["origins"], "metadata": True})


async def test_an_agreement_names_all_that_it_is_about_and_changes_nothing(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    position = await read_position(store, ENVIRONMENT)
    flags, populations, deleted = [f"flag-{number}" for number in range(1500)], ["beta"], ['go"ne', "ü"]
    names: Any = {"flags": flags, "populations": populations, "deleted": deleted}
    who = {"actor": 'a"da\udcff', "reason": "why"}
    await note_agreement(store, ENVIRONMENT, "sync", **names, **who, expected=1)
    assert await read_position(store, ENVIRONMENT) == position
    second, first, _ = await history_of(store)
    assert (*first.flags, *second.flags) == (*flags, *deleted)
    assert (*first.populations, *second.populations) == ("beta",)
    assert second.deleted == tuple(deleted)
    told = {(each.revision, each.action, each.actor, each.left_out, str(each.detail)) for each in (first, second)}
    assert told == {(1, "sync", 'a"da?', 0, "{'agreed': True}")}


async def test_an_agreement_is_about_the_environment_as_it_was_read(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    names: Any = {"flags": ["a"], "populations": [], "deleted": []}
    with pytest.raises(Conflict, match="at revision 1, but the edit was made from no such entry"):
        await note_agreement(store, ENVIRONMENT, "sync", **names, expected=0, actor="", reason="")
    assert len(await history_of(store)) == 1
    await store.client.flushall()
    with pytest.raises(EnvironmentMissing):
        await note_agreement(store, ENVIRONMENT, "sync", **names, expected=0, actor="", reason="")
    assert await store.client.keys("*") == []


async def test_kills_and_revivals_are_noted_in_both(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    killed = await kill_flag(store, ENVIRONMENT, "a", actor="ada", reason="5 %")
    again = await kill_flag(store, ENVIRONMENT, "a", to="off", actor="bob", reason="off")
    revived = await revive_flag(store, ENVIRONMENT, "a", actor="eve", reason="ok")
    done = [
        HistoryEntry(4, revived.at, "revive", "eve", "ok", flags=("a",), detail={}),
        HistoryEntry(3, again.at, "kill", "bob", "off", flags=("a",), detail={"to": "off"}),
        HistoryEntry(2, killed.at, "kill", "ada", "5 %", flags=("a",), detail={"to": None}),
    ]
    assert await actions_of(store) == done == await actions_of(store, "a")
    assert await actions_of(store, "b") == []
    changes = [HistoryEntry(e.revision, e.at, e.action, e.actor, e.reason, urgent=True, flags=("a",)) for e in done]
    assert (await history_of(store))[:3] == changes


async def test_a_kill_that_changes_nothing_is_not_noted(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    for _ in range(2):
        await kill_flag(store, ENVIRONMENT, "a")
    assert len(await actions_of(store)) == 1
    assert len(await history_of(store)) == 2


async def test_what_is_done_to_a_release_is_noted_in_both_with_its_detail(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    blocked = actions.unrelease(release, ["beta"], None, now=1)
    written = await write(store, blocked, action="unrelease", detail={"blocks": ["beta"], "n": 1.0}, urgent=True)
    ended = await write(store, actions.abandon(blocked), action="abandon", detail={"plan": {}})
    assert (await actions_of(store, KEY))[:2] == [
        HistoryEntry(5, ended.at, "abandon", "ada", "why", flags=(KEY,), detail={"plan": {}}),
        HistoryEntry(4, written.at, "unrelease", "ada", "why", flags=(KEY,), detail={"blocks": ["beta"], "n": 1.0}),
    ]
    assert [entry.action for entry in await actions_of(store)] == ["abandon", "unrelease", "start", "plan"]
    assert [(entry.action, entry.urgent) for entry in await history_of(store)] == [
        ("abandon", False),
        ("unrelease", True),
        ("start", False),
        ("plan", False),
        ("write", False),
    ]


async def test_an_import_of_many_flags_names_a_thousand_and_counts_the_rest(store: Store, empty: Snapshot) -> None:
    flags = {f"flag-{number:04}": flag(number) for number in range(1500)}
    rules = {f"population-{number:04}": {"==": [1, 1]} for number in range(1010)}
    await write_change(store, ENVIRONMENT, Draft(flags=flags, evaluators=rules, action="import"))
    await write_change(store, ENVIRONMENT, Draft(flags=dict.fromkeys(flags), action="import"))
    deleted, imported = await history_of(store)
    assert (imported.flags, imported.deleted, imported.left_out) == (tuple(flags)[:1000], (), 510)
    assert imported.populations == tuple(rules)[:1000]
    assert (deleted.flags, deleted.deleted, deleted.left_out) == (tuple(flags)[:1000], tuple(flags)[:1000], 500)


async def test_words_that_are_no_unicode_are_noted_as_far_as_they_are(store: Store, empty: Snapshot) -> None:
    await put(store, "a", actor="ad\udcff", reason="\ud800")
    assert [(entry.actor, entry.reason) for entry in await history_of(store)] == [("ad?", "?")]


# Reading it


async def test_more_than_a_page_is_read_newest_first_and_nothing_twice(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    for _ in range(history.PAGE + 10):
        await kill_flag(store, ENVIRONMENT, "a")
        await revive_flag(store, ENVIRONMENT, "a")
    last = (await read_position(store, ENVIRONMENT)).revision
    assert last > 2 * history.PAGE
    assert [entry.revision for entry in await history_of(store)] == list(range(last, 0, -1))
    assert [entry.revision for entry in await actions_of(store)] == list(range(last, 1, -1))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6])
async def test_a_page_that_is_just_full_is_read_to_its_end(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(history, "PAGE", 3)
    for number in range(count):
        await put(store, "a", number)
    assert [entry.revision for entry in await history_of(store)] == list(range(count, 0, -1))


async def test_since_leaves_out_what_is_older_to_the_microsecond(store: Store, empty: Snapshot) -> None:
    for number in range(20):
        await put(store, "a", number)
        await kill_flag(store, ENVIRONMENT, "a")
    entries = await history_of(store)
    for entry in entries[::7]:
        for since in (entry.at, entry.at + 1):
            expected = [each for each in entries if each.at >= since]
            assert await history_of(store, since=since) == expected
            kills = [each.revision for each in expected if each.action == "kill"]
            assert [each.revision for each in await actions_of(store, since=since)] == kills
    assert await history_of(store, since=entries[0].at + 10**9) == []


async def test_without_an_environment_there_is_no_history(store: Store) -> None:
    for entries in (read_history(store, ENVIRONMENT), read_actions(store, ENVIRONMENT)):
        with pytest.raises(EnvironmentMissing):
            await anext(entries)


async def test_a_new_environment_of_the_same_name_has_no_history_of_the_old_one(store: Store, empty: Snapshot) -> None:
    await started(store)
    await store.client.delete(store.keys.state(ENVIRONMENT))
    await create_environment(store, ENVIRONMENT)
    assert await history_of(store) == await actions_of(store) == []


async def test_an_environment_that_was_written_before_there_was_a_history_begins_one(
    store: Store, empty: Snapshot
) -> None:
    await populate(store)
    await store.client.delete(store.keys.history(ENVIRONMENT), store.keys.actions(ENVIRONMENT))
    await put(store, "a")
    await kill_flag(store, ENVIRONMENT, "a")
    assert [entry.revision for entry in await history_of(store)] == [3, 2]
    assert [entry.revision for entry in await actions_of(store)] == [3]


# What another tool wrote

HEAD = {"revision": 1, "at": 1_700_000_000_000_000, "action": "put", "actor": "ada", "reason": ""}
CHANGE = {**HEAD, "urgent": False, "flags": [], "populations": [], "deleted": [], "left_out": 0}
ACTION = {**HEAD, "flag": "a", "detail": {}}


def broken(sound: dict[str, Any]) -> list[dict[str, bytes]]:
    entries: list[Any] = [{name: value for name, value in sound.items() if name != lost} for lost in sound]
    entries += [{**sound, name: None} for name in sound]
    entries += [{**sound, name: ["x", 1]} for name in sound if name not in ("flags", "populations", "deleted")]
    entries += [{**sound, name: value} for name, value in sound.items() if name in ("flags", "deleted")]
    entries += [[], 7, "text", None]
    texts = [orjson.dumps(entry) for entry in entries if entry != sound]
    return [{"entry": text} for text in (*texts, b"what", b"", b"\xff")] + [{"other": b"{}"}]


@pytest.mark.parametrize(
    ("name", "sound", "read"),
    [("history", CHANGE, history_of), ("actions", ACTION, actions_of)],
    ids=["history", "actions"],
)
async def test_an_entry_that_another_tool_wrote_is_named(
    store: Store, empty: Snapshot, name: str, sound: dict[str, Any], read: Any
) -> None:
    stream = getattr(store.keys, name)(ENVIRONMENT)
    for fields in broken(sound):
        await store.client.delete(stream)
        await store.client.xadd(stream, {"entry": orjson.dumps({**sound, "later": "versions"})})
        assert len(await read(store)) == 1, "what a later version adds is nothing to stumble over"
        number = (await store.client.xadd(stream, fields)).decode()
        with pytest.raises(StoreCorrupt) as caught:
            await read(store)
        assert f"entry {number} of {stream}" in str(caught.value), fields
        assert 'environment "production" cannot be read' in str(caught.value)


@pytest.mark.parametrize("name", ["history", "actions"])
async def test_a_history_of_another_type_stops_whoever_would_read_or_write_it(
    store: Store, empty: Snapshot, name: str
) -> None:
    await store.client.set(getattr(store.keys, name)(ENVIRONMENT), "x")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await (history_of if name == "history" else actions_of)(store)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await put(store, "a")
    assert (await read_position(store, ENVIRONMENT)).revision == 0


async def test_a_release_that_ended_leaves_its_actions_when_the_flag_is_deleted(store: Store, empty: Snapshot) -> None:
    release: Release = await started(store)
    await write(store, actions.abandon(release), action="abandon")
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: None}, action="delete"))
    assert [entry.action for entry in await actions_of(store, KEY)] == ["abandon", "start", "plan"]
    newest, *_ = await history_of(store)
    assert (newest.action, newest.deleted) == ("delete", (KEY,))
