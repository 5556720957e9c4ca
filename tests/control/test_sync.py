"""Making an environment what files say: as one change, in spite of others who write, and never over an un-release."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flagrelay.control import table
from flagrelay.control.session import Session
from flagrelay.control.sync import SYNC_TRIES, Synced, SyncFlagSet, sync_flag_set
from flagrelay.errors import Conflict, FlagrelayError
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.history import read_history
from flagrelay.store.reading import read_flag_release, read_snapshot, read_state
from support.desk import BETA, DISABLED, OFF, ON, PLAN, POPULATIONS, Desk, flag_set, only, wrote
from support.stores import ENVIRONMENT


def told(synced: Synced) -> list[tuple[str, str, str, bool]]:
    return [(each.kind, each.name, each.what, each.held) for each in synced.differences]


# -- one change ---------------------------------------------------------------------------------------------------


async def test_it_is_shown_first_and_written_as_one_change_with_who_and_why(desk: Desk, store: Store) -> None:
    shown = await desk.sync({"x": ON, "y": BETA}, apply=False, more={"metadata": {"team": "shop"}})
    assert (shown.change, shown.held) == (None, 0)
    assert told(shown) == [
        ("flag", "x", "add", False),
        ("flag", "y", "add", False),
        ("population", "beta", "add", False),
        ("population", "dev", "add", False),
        ("metadata", "", "replace", False),
    ]
    assert (await read_state(store, ENVIRONMENT)).position.revision == 0
    done = await desk.sync({"x": ON, "y": BETA}, more={"metadata": {"team": "shop"}}, reason="commit 1f2e3d")
    assert told(done) == told(shown)
    assert done.change
    assert done.change.revision == 1
    [entry] = [each async for each in read_history(store, ENVIRONMENT)]
    assert (entry.action, entry.actor, entry.reason) == ("sync", "ci", "commit 1f2e3d")


async def test_what_is_in_sync_is_not_written(desk: Desk) -> None:
    await desk.sync({"x": ON})
    again = await desk.sync({"x": ON})
    assert (wrote(again), again.differences, again.held) == (False, [], 0)


async def test_what_is_held_back_holds_nothing_else_back(desk: Desk) -> None:
    await desk.sync({"x": ON, "y": ON, "z": ON})
    await desk.do(table.KILL, key="x", reason="errors")
    synced = await desk.sync({"x": OFF, "y": OFF}, prune=True)
    assert told(synced) == [
        ("flag", "x", "replace", True),
        ("flag", "y", "replace", False),
        ("flag", "z", "delete", False),
    ]
    assert (synced.held, synced.change and synced.change.revision) == (1, 3)
    assert [await desk.definition(key) for key in "xyz"] == [DISABLED, OFF, None]


async def test_by_force_a_release_ends_and_takes_its_populations_along_in_the_same_change(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    await desk.release(table.START)
    synced = await desk.sync({"x": ON}, {}, prune=True)
    assert [(each.name, each.held) for each in synced.differences] == [("x", True), ("beta", True), ("dev", True)]
    forced = await desk.sync({"x": ON}, {}, prune=True, force=True)
    assert [(each.name, each.what, each.held) for each in forced.differences] == [
        ("x", "replace", False),
        ("beta", "delete", False),
        ("dev", "delete", False),
    ]
    assert forced.change
    assert await desk.definition("x") == ON
    assert (await desk.sync({"x": ON}, {}, prune=True)).differences == []


async def test_only_prune_deletes(desk: Desk) -> None:
    await desk.sync({"x": ON}, more={"metadata": {"team": "shop"}})
    assert (await desk.sync({}, {})).differences == []
    assert told(await desk.sync({}, {}, prune=True)) == [
        ("flag", "x", "delete", False),
        ("population", "beta", "delete", False),
        ("population", "dev", "delete", False),
        ("metadata", "", "replace", False),
    ]


# -- others who write meanwhile -----------------------------------------------------------------------------------


def interrupted(desk: Desk, before_write: Callable[[], Awaitable[None]]) -> Session:
    """A pipeline's session in which something happens between what it has read and what it writes."""

    async def around(store: Store, write: Callable[[Store], Awaitable[Any]]) -> Any:
        await before_write()
        return await write(store)

    return Session(desk.store, ENVIRONMENT, "ci", around=around)


def wanted(flags: Any) -> SyncFlagSet:
    return msgspec.convert({"document": flag_set(flags), "apply": True}, SyncFlagSet)


async def kill(desk: Desk) -> None:
    await desk.do(table.KILL, key="x", reason="errors")


async def unrelease(desk: Desk) -> None:
    await desk.release(table.START, (table.UNRELEASE, {"from": ["dev"]}))


async def switch_off(desk: Desk) -> None:
    await desk.put("x", {**OFF, "state": "DISABLED"})


async def delete(desk: Desk) -> None:
    await desk.do(table.DELETE_FLAG, key="x")


@pytest.mark.parametrize("take", [kill, unrelease, switch_off, delete])
async def test_an_un_release_between_reading_and_writing_is_never_overwritten(
    desk: Desk, take: Callable[[Desk], Awaitable[None]]
) -> None:
    await desk.sync({"x": OFF})
    left: list[Any] = []

    async def once() -> None:
        if not left:
            left.append(None)
            await take(desk)
            left.append(await desk.definition("x"))

    synced = await sync_flag_set(interrupted(desk, once), wanted({"x": ON, "y": ON}))
    assert await desk.definition("x") == left[1]
    assert {each.name: each.held for each in synced.differences} == {"x": True, "y": False}
    assert await desk.definition("y") == ON, "the rest is written, at the next try"


async def test_it_gives_up_where_somebody_always_comes_first(desk: Desk) -> None:
    await desk.sync({"x": OFF})
    tries: list[None] = []

    async def always() -> None:
        tries.append(None)
        await desk.put("other", {**OFF, "variants": {"on": len(tries), "off": 0}})

    with pytest.raises(Conflict, match="environment"):
        await sync_flag_set(interrupted(desk, always), wanted({"x": ON}))
    assert len(tries) == SYNC_TRIES
    assert await desk.definition("x") == OFF


async def test_a_kill_at_the_same_time_wins_whoever_comes_first(desk: Desk, store: Store) -> None:
    await desk.sync({"x": OFF, "y": OFF})
    for number in range(40):
        wants = (ON, OFF)[number % 2]
        synced, _ = await asyncio.gather(desk.sync({"x": wants, "y": wants}), kill(desk))
        entry, _ = await read_flag_release(store, ENVIRONMENT, "x")
        assert entry
        assert entry.killed
        assert entry.definition["state"] == "DISABLED"
        assert await desk.definition("y") == wants
        assert synced.change
        await desk.do(table.REVIVE, key="x")
        await desk.sync({"x": wants})


# -- whatever was done before -------------------------------------------------------------------------------------

KEYS = ("x", "y")
HALF = {**OFF, "targeting": {"fractional": [["on", 50], ["off", 50]]}}
BOTH = {**OFF, "targeting": {"if": [{"or": [{"$ref": "beta"}, {"$ref": "dev"}]}, "on", "off"]}}
DEFINITIONS = (ON, OFF, DISABLED, BETA, BOTH, HALF)
RULES = (POPULATIONS["dev"], POPULATIONS["beta"], {"in": [{"var": "plan"}, ["beta", "pro"]]}, {"!!": [True]})
CONTEXTS = [{"targetingKey": f"u{number}", "plan": plan} for plan in ("dev", "beta", "pro", "") for number in range(3)]

OF_A_RELEASE: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "start": (table.START, [{}]),
    "advance": (table.ADVANCE, [{}]),
    "retreat": (table.RETREAT, [{}]),
    "unrelease": (table.UNRELEASE, [{"from": ["dev"]}, {"from": ["beta"]}, {"to": "dev"}, {"to": "beta"}, {}]),
    "restore": (table.RESTORE, [{"population": "dev"}, {"population": "beta"}]),
    "abandon": (table.ABANDON, [{}]),
    "detach": (table.DETACH, [{}]),
    "finish": (table.FINISH, [{"force": True}]),
}
TAKES = ("retreat", "abandon")
GIVES = ("start", "advance", "finish")
ALL = "all of it"
"""What is taken where it is not from a population, which can be restored."""

Step = tuple[Any, ...]

FILES = st.tuples(
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(DEFINITIONS)),
    st.fixed_dictionaries({name: st.sampled_from(RULES) for name in POPULATIONS}),
    st.booleans(),
)
STEPS = st.one_of(
    st.tuples(st.just("sync"), FILES),
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(DEFINITIONS)),
    st.tuples(st.sampled_from(("kill", "revive", "delete", "plan")), st.sampled_from(KEYS)),
    st.tuples(st.just("population"), st.sampled_from(tuple(POPULATIONS)), st.sampled_from(RULES)),
    *(st.tuples(st.just(name), st.just("x"), st.sampled_from(members)) for name, (_, members) in OF_A_RELEASE.items()),
)
UNDER_WAY: list[Step] = [("plan", "x"), ("start", "x", {}), ("advance", "x", {})]
BEGINNINGS = st.sampled_from([[], UNDER_WAY[:1], UNDER_WAY[:2], UNDER_WAY])


@dataclass
class Model:
    """From whom flags were taken last, as a person tells who has watched; files have been applied before."""

    desk: Desk
    taken: dict[str, set[str]] = field(default_factory=dict)
    """Flags, with the populations that they were taken from, or `ALL`."""
    killed: set[str] = field(default_factory=set)

    async def do(self, step: Step) -> None:
        """A step of somebody's, which may be refused."""
        action, key, *more = step
        _, held = await read_flag_release(self.desk.store, ENVIRONMENT, key)
        before = await read_snapshot(self.desk.store, ENVIRONMENT)
        try:
            answer = await self._ask(action, key, *more)
        except FlagrelayError:
            return
        if not getattr(answer, "change", answer).changed:  # nobody had it any more
            return
        if action == "kill":
            self.killed.add(key)
        if action in ("revive", "put", "delete"):
            self.killed.discard(key)
        withheld = held is not None and bool(held.release.blocks or held.release.only)
        after = await read_snapshot(self.desk.store, ENVIRONMENT)
        narrowed = action == "put" and bool(having(before, key) - having(after, key))
        if action in TAKES or action == "delete" or more == [DISABLED] or (action == "detach" and withheld) or narrowed:
            self.taken.setdefault(key, set()).add(ALL)
        elif action == "unrelease":
            self._unreleased(key, held, **more[0])
        elif action == "restore":
            self._restored(key, more[0]["population"])
        elif action in (*GIVES, "put"):
            self.taken.pop(key, None)

    def _unreleased(self, key: str, before: Any, **members: Any) -> None:
        to, stages = members.get("to"), [each.name for each in before.release.plan.stages]
        names = {*members.get("from", ()), *([] if to is None or to in stages else [to])}
        self.taken.setdefault(key, set()).update(names or {ALL})

    def _restored(self, key: str, population: str) -> None:
        left = self.taken.get(key, set()) - {population}
        if left:
            self.taken[key] = left
        else:
            self.taken.pop(key, None)

    async def _ask(self, action: str, key: str, more: Any = None) -> Any:
        if action == "put":
            return await self.desk.do(table.PUT_FLAG, key=key, definition=more, force=True)
        if action == "population":
            return await self.desk.do(table.PUT_POPULATION, name=key, rule=more)
        if action == "plan":
            return await self.desk.do(table.PLAN, key=key, plan={**PLAN, "flag": key}, replace_targeting=True)
        if action in OF_A_RELEASE:
            operation, _ = OF_A_RELEASE[action]
            return await self.desk.do(operation, key=key, reason="because", **more)
        operations: Any = {"kill": table.KILL, "revive": table.REVIVE, "delete": table.DELETE_FLAG}
        return await self.desk.do(operations[action], key=key, reason="because")

    async def sync(self, flags: Any, populations: Any, prune: bool) -> None:  # noqa: FBT001 - a step is a tuple
        """What must hold of every sync."""
        before = await read_snapshot(self.desk.store, ENVIRONMENT)
        synced = await self.desk.sync(flags, populations, prune=prune)
        after = await read_snapshot(self.desk.store, ENVIRONMENT)
        state = await read_state(self.desk.store, ENVIRONMENT)
        named = {each.name: each.held for each in synced.differences if each.kind == "flag"}
        plain = flags.keys() - self.killed - state.releases.keys()
        agreed = plain - named.keys()  # the file has them so, and says who is in its populations
        for key in (self.taken.keys() - agreed) | self.killed:
            assert not having(after, key) - having(before, key), f"{key} is given back"
        again = await self.desk.sync(flags, populations, prune=prune)
        assert (wrote(again), again.agreed) == (False, 0), "it has done all that it would do"
        assert {(each.name, each.held) for each in again.differences} <= {
            (each.name, each.held) for each in synced.differences if each.held or each.what == "keep"
        }
        gone = self.taken.keys() - state.flags.keys() if prune else set()
        for key in plain | gone:
            if not named.get(key):
                self.taken.pop(key, None)  # the files say so themselves from now on


def having(snapshot: Snapshot, key: str) -> set[str]:
    """Who has what is released."""
    return {repr(context) for context in CONTEXTS if snapshot.resolve(key, context).variant == "on"}


ABANDONED = [("put", "x", OFF), ("plan", "x"), ("start", "x", {}), ("abandon", "x", {})]
GIVEN_BACK = ("sync", ({"x": ON}, POPULATIONS, False))
BLOCKED = [("put", "x", OFF), ("plan", "x"), ("unrelease", "x", {"from": ["dev"]}), ("start", "x", {})]
MOVED: Step = ("sync", ({}, {"dev": RULES[1], "beta": RULES[3]}, False))


@example([*ABANDONED, GIVEN_BACK])
@example([GIVEN_BACK, ("put", "x", OFF), GIVEN_BACK])
@example([*ABANDONED, ("kill", "x"), ("revive", "x"), GIVEN_BACK])
@example([*BLOCKED, ("advance", "x", {}), ("detach", "x", {}), MOVED])
@example([*BLOCKED, ("advance", "x", {}), ("unrelease", "x", {"to": "dev"}), MOVED])
@example([("put", "x", DISABLED), ("kill", "x"), ("revive", "x"), GIVEN_BACK])
@example([("put", "x", ON), ("delete", "x"), GIVEN_BACK])
@example([GIVEN_BACK, ("put", "x", BETA), MOVED])
@example([GIVEN_BACK, ("put", "x", BETA), ("kill", "x"), MOVED, ("revive", "x")])
@example([*BLOCKED, ("advance", "x", {}), ("retreat", "x", {}), ("restore", "x", {"population": "dev"}), MOVED])
@example([GIVEN_BACK, ("put", "x", OFF), ("sync", ({"x": OFF}, POPULATIONS, False)), GIVEN_BACK])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.builds(lambda begun, steps: [*begun, *steps], BEGINNINGS, st.lists(STEPS, min_size=3, max_size=14)))
async def test_no_sync_gives_anybody_what_a_person_took_away_last(store: Store, steps: list[Step]) -> None:
    await store.client.flushall()
    await create_environment(store, ENVIRONMENT)
    model = Model(Desk(store))
    await model.desk.sync({"x": OFF, "y": HALF})
    for action, *more in steps:
        if action == "sync":
            await model.sync(*more[0])
        else:
            await model.do((action, *more))


async def test_the_changelog_says_what_a_sync_did(desk: Desk, store: Store) -> None:
    await desk.sync({"x": ON}, {})
    await desk.sync({}, {}, prune=True)
    assert [dict(each.flags) for each in await read_changes(store, ENVIRONMENT, 0)] == [{"x": ON}, {"x": None}]


async def test_a_file_that_is_wrong_changes_nothing(desk: Desk) -> None:
    with pytest.raises(FlagrelayError, match='"elsewhere"'):
        await desk.sync({"x": {**OFF, "targeting": {"$ref": "elsewhere"}}})
    await desk.sync({"x": ON})
    assert only(await desk.sync({"x": OFF})).what == "replace"
