"""A release, its flag and what history says of it are one write: all of it, or nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagrelay.errors import (
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    FlagrelayError,
    PopulationMissing,
    PopulationUsed,
    Released,
    StoreCorrupt,
)
from flagrelay.flags.change import Definition
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release import actions
from flagrelay.release.compiler import compile_release
from flagrelay.release.standing import Release
from flagrelay.release.states import State
from flagrelay.store import releases
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.history import HistoryEntry, read_actions, read_history
from flagrelay.store.reading import (
    FlagEntry,
    ReleaseEntry,
    read_about,
    read_flag,
    read_flag_release,
    read_position,
    read_snapshot,
    read_state,
)
from flagrelay.store.script import WRITE
from flagrelay.store.subscription import subscribe
from flagrelay.store.writing import Draft, kill_flag, revive_flag, write_change
from flagrelay.wire.message import decode_message
from support.released import BASE, KEY, PLAN, POPULATIONS, VARIANTS, held, original, populate, served, started
from support.released import write as write_standing
from support.stores import ENVIRONMENT, everything, flag, folded, plant, put, stored

Write = Callable[[], Awaitable[object]]


async def refused(store: Store, error: type[FlagrelayError], match: str, write: Write) -> None:
    """A write that is refused, and leaves every key byte for byte as it was."""
    before = await everything(store)
    with pytest.raises(error, match=match):
        await write()
    assert await everything(store) == before


def advanced(release: Release) -> Release:
    return actions.advance(release, None, now=release.since + 1, actor="ada")


def naming(release: Release, how: str, population: str) -> Release:
    """The same, naming a population beside its plan."""
    if how == "block":
        return replace(release, blocks=(population,))
    return replace(release, only=(population,)) if how == "limit" else release


# What a write does


async def test_plan_position_flag_action_and_history_are_one_change(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    further = replace(advanced(release), approvals={"10%": ("grace",)})
    async with subscribe(store, ENVIRONMENT) as subscription:
        written = await write_standing(store, further, detail={"stage": "beta-50%"}, urgent=True)
        published = decode_message(await subscription.next(5) or b"")
        assert await subscription.next(0.05) is None
    *_, change = await read_changes(store, ENVIRONMENT, 0)
    assert change == published
    assert (change.revision, change.at, change.urgent, change.actor, change.reason) == (
        4,
        written.at,
        True,
        "ada",
        "why",
    )
    compiled = compile_release(further, BASE)
    assert (change.flags, change.evaluators) == ({KEY: compiled}, {})
    assert await held(store) == (FlagEntry(KEY, 4, compiled), ReleaseEntry(4, further))
    assert (await read_state(store, ENVIRONMENT)).releases == {KEY: ReleaseEntry(4, further)}
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)
    head: dict[str, Any] = {"revision": 4, "at": written.at, "action": "advance", "actor": "ada", "reason": "why"}
    assert await anext(read_history(store, ENVIRONMENT)) == HistoryEntry(**head, urgent=True, flags=(KEY,))
    assert await anext(read_actions(store, ENVIRONMENT)) == HistoryEntry(
        **head, flags=(KEY,), detail={"stage": "beta-50%"}
    )


async def test_numbers_and_empty_lists_of_a_plan_stay_as_they_were_written(store: Store, empty: Snapshot) -> None:
    await started(store)
    assert repr((await held(store))[0].definition["variants"]) == repr(VARIANTS)
    stored_release = await store.client.hget(store.keys.releases(ENVIRONMENT), KEY)
    assert b'"variants":{"on":{"n":1.0},"off":{"n":[]},"red":{"n":"#f00"}}' in stored_release
    assert b'"blocks":[],"only":[]' in stored_release


@pytest.mark.parametrize("end", ["finish", "abandon", "detach"])
async def test_at_its_end_a_release_is_forgotten_and_the_flag_is_plain(store: Store, empty: Snapshot, end: str) -> None:
    release = await started(store, 4)
    ends: dict[str, Callable[[Release], Release]] = {
        "finish": partial(actions.finish, actor="ada"),
        "abandon": actions.abandon,
        "detach": actions.detach,
    }
    ended = ends[end](release)
    await write_standing(store, ended, action=end)
    assert await read_flag_release(store, ENVIRONMENT, KEY) == (FlagEntry(KEY, 4, compile_release(ended, BASE)), None)
    assert not await store.client.exists(store.keys.releases(ENVIRONMENT))
    await put(store, KEY, 5)
    await write_change(store, ENVIRONMENT, Draft(evaluators=dict.fromkeys(POPULATIONS)))


async def test_the_same_write_sent_twice_writes_once(store: Store, empty: Snapshot) -> None:
    await populate(store)
    release = actions.plan(None, PLAN, 0)
    text, document = orjson.dumps(compile_release(release, BASE)), orjson.dumps(release.as_json())
    words = ("plan", '"ada"', '"why"', "false", 10, KEY, 0, 0, text, document, "{}", "beta")
    keys = store.keys.all_of(ENVIRONMENT)
    first = await WRITE.run(store, keys, "release", "n1", *words)
    before = await everything(store)
    again = await WRITE.run(store, keys, "release", "n1", *words)
    assert (again[:2], again[3]) == (first[:2], first[3])
    assert await everything(store) == before
    assert (await held(store))[1] == ReleaseEntry(2, release)


async def test_an_environment_from_before_releases_takes_one(store: Store, empty: Snapshot) -> None:
    await put(store, KEY, 1)
    await kill_flag(store, ENVIRONMENT, KEY)
    await populate(store)
    new = ("releases", "populations", "history", "actions", "relays")
    await store.client.delete(*(getattr(store.keys, name)(ENVIRONMENT) for name in new))
    state = await read_state(store, ENVIRONMENT)
    assert (state.releases, state.about) == ({}, {})
    assert [entry async for entry in read_history(store, ENVIRONMENT)] == []
    assert [entry async for entry in read_actions(store, ENVIRONMENT)] == []
    await revive_flag(store, ENVIRONMENT, KEY)
    release = actions.plan(None, replace(PLAN, variants=None), 0)
    await write_standing(store, release, action="plan")
    assert (await held(store))[1] == ReleaseEntry(5, release)
    assert [entry.action async for entry in read_history(store, ENVIRONMENT)] == ["plan", "revive"]


async def test_destroying_an_environment_leaves_nothing_of_its_releases(store: Store, empty: Snapshot) -> None:
    await started(store)
    await write_change(store, ENVIRONMENT, Draft(about={"dev": {"risk": 1}}))
    await kill_flag(store, ENVIRONMENT, KEY)
    await destroy_environment(store, ENVIRONMENT)
    assert await everything(store) == {}
    await create_environment(store, ENVIRONMENT)
    assert await read_flag_release(store, ENVIRONMENT, KEY) == (None, None)


# What refuses it


async def test_a_release_or_flag_that_was_written_since_is_a_conflict(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    for expected, sentence in (
        ((2, 3), f'flag "{KEY}" is at revision 3, but the edit was made from revision 2'),
        ((0, 3), f'flag "{KEY}" is at revision 3, but the edit was made from no such entry'),
        ((3, 2), f'release "{KEY}" is at revision 3, but the edit was made from revision 2'),
        ((3, 0), f'release "{KEY}" is at revision 3, but the edit was made from no such entry'),
    ):
        write = partial(write_standing, store, advanced(release), expected=expected)
        await refused(store, Conflict, sentence, write)
    other = replace(release, plan=replace(PLAN, flag="other"))
    await refused(store, Conflict, 'flag "other" does not exist', lambda: write_standing(store, other, expected=(3, 0)))
    await put(store, "other")
    await refused(
        store, Conflict, 'release "other" does not exist', lambda: write_standing(store, other, expected=(4, 3))
    )


async def test_a_kill_between_reading_and_writing_is_a_conflict(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    read = await held(store)
    await kill_flag(store, ENVIRONMENT, KEY)
    await refused(store, Conflict, "is at revision 4", lambda: write_standing(store, advanced(release), read))
    await revive_flag(store, ENVIRONMENT, KEY)
    await refused(store, Conflict, "is at revision 5", lambda: write_standing(store, advanced(release), read))


@pytest.mark.parametrize("named", ["plan", "block", "limit"])
async def test_a_population_that_is_not_there_is_missing(store: Store, empty: Snapshot, named: str) -> None:
    release = await started(store)
    if named == "plan":
        stage = replace(PLAN.stages[0], name="nobody", population="nobody")
        release = replace(release, plan=replace(PLAN, stages=(*PLAN.stages[:1], stage, *PLAN.stages[1:])))
    release = naming(release, named, "nobody")
    sentence = 'environment "production" has no population "nobody"'
    await refused(store, PopulationMissing, sentence, lambda: write_standing(store, release))


async def test_a_full_environment_takes_no_new_flag_but_every_action(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = await started(store)
    monkeypatch.setattr(releases, "MAX_FLAGS", 1)
    other = replace(release, plan=replace(PLAN, flag="other"))
    await refused(store, DefinitionError, "it would have 2 flags", lambda: write_standing(store, other))
    await write_standing(store, advanced(release))


async def test_a_definition_that_is_none_is_refused_before_redis_hears_of_it(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    broken = {"state": "ENABLED", "variants": {}}
    await refused(store, DefinitionError, "variants", lambda: write_standing(store, release, flag=broken))


async def test_without_an_environment_nothing_is_written(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    read = await held(store)
    await store.client.delete(store.keys.state(ENVIRONMENT))
    await refused(store, EnvironmentMissing, "does not exist", lambda: write_standing(store, release, read))


@pytest.mark.parametrize("lost", ["flags", "evaluators"])
async def test_in_a_damaged_environment_nothing_is_written(store: Store, empty: Snapshot, lost: str) -> None:
    release = await started(store)
    read = await held(store)
    await store.client.delete(getattr(store.keys, lost)(ENVIRONMENT))
    await refused(store, StoreCorrupt, f"{lost} in Redis and has 0", lambda: write_standing(store, release, read))


UNREADABLE = {
    "no JSON": b"what",
    "a list": b"[1, 2]",
    "nothing": b"",
    "cut off": b'{"revision":3,"release":{"plan":',
    "no revision": b'{"release":{"plan":{}}}',
    "no plan": b'{"revision":3,"release":{"state":"running"}}',
    "text": b'{"revision":3,"release":"on"}',
    "null": b'{"revision":3,"release":null}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_release_that_another_tool_wrote_is_named_and_never_written_over(
    store: Store, empty: Snapshot, text: bytes
) -> None:
    release = await started(store)
    read = await held(store)
    await store.client.hset(store.keys.releases(ENVIRONMENT), KEY, text)
    sentence = f'the release of flag "{KEY}" of environment "production" cannot be read'
    for reading in (read_state(store, ENVIRONMENT), read_flag_release(store, ENVIRONMENT, KEY)):
        with pytest.raises(StoreCorrupt, match=sentence):
            await reading
    before = await everything(store)
    with pytest.raises((StoreCorrupt, Conflict)):
        await write_standing(store, advanced(release), read, expected=(3, 0))
    assert await everything(store) == before
    await refused(store, Released, "has a release", lambda: put(store, KEY))
    assert (await read_snapshot(store, ENVIRONMENT)).flags[KEY] == read[0].definition, "relays serve it all the same"
    await kill_flag(store, ENVIRONMENT, KEY)
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: flag(1)}, over_releases=True))
    assert (await read_state(store, ENVIRONMENT)).releases == {}, "what ends it is said on purpose"


async def test_a_release_laid_out_by_another_tool_is_named_where_it_would_be_written_over(
    store: Store, empty: Snapshot
) -> None:
    release = await started(store)
    document = orjson.dumps(release.as_json()).decode()
    text = f'{{ "release": {document}, "revision": 3 }}'
    await store.client.hset(store.keys.releases(ENVIRONMENT), KEY, text)
    sentence = f'release of flag "{KEY}" of environment "production" cannot be read'
    await refused(store, StoreCorrupt, sentence, lambda: write_standing(store, advanced(release)))


async def test_a_release_is_not_written_over_a_flag_or_a_kill_that_cannot_be_read(
    store: Store, empty: Snapshot
) -> None:
    release = await started(store)
    await kill_flag(store, ENVIRONMENT, KEY)
    read = await held(store)
    for hash_name, text, sentence in (
        ("killed", b'{"at":1}', f'kill of flag "{KEY}" of environment "production" cannot be read'),
        ("flags", b"what", f'flag "{KEY}" of environment "production" cannot be read'),
    ):
        await store.client.hset(getattr(store.keys, hash_name)(ENVIRONMENT), KEY, text)
        await refused(store, StoreCorrupt, sentence, lambda: write_standing(store, advanced(release), read))


@pytest.mark.parametrize(
    "text", [b"what", b"[]", b'"x"', b'{"risk":"high"}', b'{"risk":1.5}', b'{"description":7}', b"\xff"]
)
async def test_what_another_tool_says_of_a_population_is_named(store: Store, empty: Snapshot, text: bytes) -> None:
    await populate(store)
    await store.client.hset(store.keys.populations(ENVIRONMENT), "beta", text)
    sentence = 'what is said of population "beta" of environment "production" cannot be read'
    for reading in (read_state, read_about):
        with pytest.raises(StoreCorrupt, match=sentence):
            await reading(store, ENVIRONMENT)
    assert (await read_snapshot(store, ENVIRONMENT)).evaluators == POPULATIONS
    await write_change(store, ENVIRONMENT, Draft(about={"beta": {"risk": 3}}))
    assert await read_about(store, ENVIRONMENT) == {"beta": {"risk": 3}}


async def test_a_name_that_is_no_text_is_named(store: Store, empty: Snapshot) -> None:
    for hash_name in ("releases", "populations"):
        await store.client.hset(getattr(store.keys, hash_name)(ENVIRONMENT), b"\xff", b"{}")
        with pytest.raises(StoreCorrupt, match='"\ufffd" of environment "production" cannot be read'):
            await read_state(store, ENVIRONMENT)
        await store.client.delete(getattr(store.keys, hash_name)(ENVIRONMENT))


async def test_of_many_who_advance_a_release_at_once_one_does(store: Store, empty: Snapshot) -> None:
    release = await started(store)
    read = await held(store)
    tries = (write_standing(store, advanced(release), read) for _ in range(20))
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(end, Conflict) for end in ends) == 19
    assert (await read_position(store, ENVIRONMENT)).revision == 4


# Over a kill


@pytest.mark.parametrize("to", [None, "red"])
async def test_a_killed_flag_stays_killed_and_revive_brings_back_what_was_written(
    store: Store, empty: Snapshot, to: str | None
) -> None:
    release = await started(store)
    await kill_flag(store, ENVIRONMENT, KEY, to=to, actor="grace", reason='"5 %" \\ {')
    kill = (await read_flag(store, ENVIRONMENT, KEY)).killed
    assert kill
    further = actions.unrelease(release, ["beta"], None, now=1)
    written = await write_standing(store, further, action="unrelease")
    compiled = compile_release(further, BASE)
    flag_entry, entry = await held(store)
    assert flag_entry == FlagEntry(KEY, written.revision, served(compiled, to), replace(kill, original=compiled))
    assert entry == ReleaseEntry(written.revision, further)
    assert (await kill_flag(store, ENVIRONMENT, KEY, to=to)).changed is False, "it is killed already"
    await revive_flag(store, ENVIRONMENT, KEY)
    assert await stored(store, KEY) == orjson.dumps(compiled).decode()
    assert (await held(store))[1] == entry, "a revive leaves the release where it stands"
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)


@pytest.mark.parametrize("end", [actions.abandon, actions.detach])
async def test_the_end_of_a_killed_flag_s_release_leaves_it_killed(
    store: Store, empty: Snapshot, end: Callable[[Release], Release]
) -> None:
    release = await started(store)
    await kill_flag(store, ENVIRONMENT, KEY, to="red")
    await write_standing(store, end(release), action="abandon")
    plain = compile_release(end(release), BASE)
    assert (await read_flag(store, ENVIRONMENT, KEY)).definition == served(plain, "red")
    await revive_flag(store, ENVIRONMENT, KEY)
    assert await read_flag_release(store, ENVIRONMENT, KEY) == (FlagEntry(KEY, 6, plain), None)


async def test_a_kill_to_a_variant_that_is_no_more_disables_and_never_serves_what_is_released(
    store: Store, empty: Snapshot
) -> None:
    release = await started(store)
    await kill_flag(store, ENVIRONMENT, KEY, to="red")
    fewer = {name: VARIANTS[name] for name in ("on", "off")}
    smaller = replace(release, plan=replace(PLAN, variants=fewer))
    compiled = compile_release(smaller, {"variants": fewer})
    await write_standing(store, smaller, flag=compiled)
    entry, _ = await held(store)
    assert entry.definition == {**compiled, "state": "DISABLED"}
    await revive_flag(store, ENVIRONMENT, KEY)
    assert await stored(store, KEY) == orjson.dumps(compiled).decode()


async def test_a_flag_of_another_tool_that_is_killed_gets_a_release_and_stays_killed(
    store: Store, empty: Snapshot
) -> None:
    await populate(store)
    await plant(store, KEY, '{ "variants" : {"on":{"n":1.0},"off":{},"red":{"n":"\\u0023"}} , "state":"ENABLED" }')
    await kill_flag(store, ENVIRONMENT, KEY, to="off")
    release = actions.start(actions.plan(None, PLAN, 0), "4", now=1, actor="ada")
    await write_standing(store, release)
    assert (await held(store))[0].definition["defaultVariant"] == "off"
    await revive_flag(store, ENVIRONMENT, KEY)
    assert (await held(store))[0].definition == compile_release(
        release, {"variants": {"on": {"n": 1.0}, "off": {}, "red": {"n": "#"}}}
    )


# Plain writes of a flag that has a release


@pytest.mark.parametrize("definition", [flag(2), None])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_plain_write_of_a_flag_with_a_release_is_refused_with_all_that_comes_with_it(
    store: Store, empty: Snapshot, definition: Definition | None, *, killed: bool
) -> None:
    await started(store)
    if killed:
        await kill_flag(store, ENVIRONMENT, KEY)
    alone: dict[str, Definition | None] = {KEY: definition}
    sentence = f'flag "{KEY}" has a release.*`flagrelay release detach {KEY} --env production --reason WHY`'
    others: dict[str, Definition | None] = {f"f{number}": flag(number) for number in range(50)}
    for draft in (
        Draft(flags=alone),
        Draft(flags=alone, expected_flags={KEY: 4 if killed else 3}),
        Draft(flags=others | alone, evaluators={"new": {"==": [1, 1]}}, metadata={"a": 1}, about={"dev": {"risk": 1}}),
    ):
        await refused(store, Released, sentence, partial(write_change, store, ENVIRONMENT, draft))


@pytest.mark.parametrize("definition", [flag(2), None])
async def test_a_write_over_releases_ends_the_release_and_the_kill_and_says_so(
    store: Store, empty: Snapshot, definition: Definition | None
) -> None:
    await started(store)
    await kill_flag(store, ENVIRONMENT, KEY)
    draft = Draft(flags={KEY: definition, "b": flag(3)}, over_releases=True, action="sync", actor="grace", reason="git")
    await write_change(store, ENVIRONMENT, draft)
    state = await read_state(store, ENVIRONMENT)
    assert state.releases == {}
    assert state.flags.get(KEY) == (FlagEntry(KEY, 5, definition) if definition else None)
    newest = await anext(read_actions(store, ENVIRONMENT))
    assert (newest.revision, newest.action, newest.actor, newest.flags) == (5, "sync", "grace", (KEY,))
    assert newest.detail == {"plan": PLAN.as_json()}, "it outlives the release"
    assert [entry.flags async for entry in read_actions(store, ENVIRONMENT, "b")] == [], "it had no release"
    await put(store, KEY, 5)


async def test_an_edit_that_was_made_from_before_another_is_a_conflict_also_over_releases(
    store: Store, empty: Snapshot
) -> None:
    await started(store)
    draft = Draft(flags={KEY: flag(1)}, expected_flags={KEY: 2}, over_releases=True)
    await refused(store, Conflict, "is at revision 3", lambda: write_change(store, ENVIRONMENT, draft))


@pytest.mark.parametrize("named", ["plan", "block", "limit"])
async def test_a_population_that_only_a_release_names_is_not_deleted(store: Store, empty: Snapshot, named: str) -> None:
    release = await started(store, 4)  # with everybody, so that the flag itself names nobody
    await write_standing(store, naming(release, named, "eu"))
    name = "beta" if named == "plan" else "eu"
    sentence = f'population "{name}" is used by the release of flag "{KEY}"; nothing was changed'
    for draft in (
        Draft(evaluators={name: None}),
        Draft(flags={"b": flag(1)}, evaluators={"new": {"==": [1, 1]}, name: None}),
    ):
        await refused(store, PopulationUsed, sentence, partial(write_change, store, ENVIRONMENT, draft))
    await write_change(store, ENVIRONMENT, Draft(evaluators={name: {"==": [1, 1]}}))
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: None}, evaluators={name: None}, over_releases=True))
    assert name not in (await read_snapshot(store, ENVIRONMENT)).evaluators


@pytest.mark.parametrize("text", [b"what", b"7", b'{"release":7}', b'{"release":{"populations":7}}'])
async def test_what_another_tool_wrote_for_a_release_keeps_no_population_from_being_deleted(
    store: Store, empty: Snapshot, text: bytes
) -> None:
    await populate(store)
    await store.client.hset(store.keys.releases(ENVIRONMENT), KEY, text)
    await write_change(store, ENVIRONMENT, Draft(evaluators={"beta": None}))


async def test_an_environment_that_was_written_since_is_a_conflict_where_that_is_asked_for(
    store: Store, empty: Snapshot
) -> None:
    await started(store)
    draft = Draft(flags={"b": flag(1)}, expected=2)
    sentence = 'environment "production" is at revision 3, but the edit was made from revision 2'
    await refused(store, Conflict, sentence, lambda: write_change(store, ENVIRONMENT, draft))
    await write_change(store, ENVIRONMENT, replace(draft, expected=3))
    await refused(
        store, Conflict, "is at revision 4", lambda: write_change(store, ENVIRONMENT, replace(draft, expected=0))
    )


async def test_what_is_said_of_a_population_goes_with_it(store: Store, empty: Snapshot) -> None:
    about: Mapping[str, Any] = {"dev": {"description": "who writes it", "risk": 1}, "eu": {"risk": 2}}
    await write_change(store, ENVIRONMENT, Draft(evaluators=POPULATIONS, about=about))
    assert (await read_state(store, ENVIRONMENT)).about == about == await read_about(store, ENVIRONMENT)
    await write_change(store, ENVIRONMENT, Draft(evaluators={"dev": None}))
    assert await read_about(store, ENVIRONMENT) == {"eu": {"risk": 2}}


# Two writers


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("read", "read", "act", "act", "act", "kill", "kill to", "revive", "put", "put over", "delete")
        ),
        st.integers(0, 1),
        st.integers(0, 9),
    ),
    min_size=4,
    max_size=30,
)

ACTS: list[Callable[[Release], Release]] = [
    lambda release: actions.start(release, None, now=1, actor="ada"),
    advanced,
    advanced,
    lambda release: actions.retreat(release, None, now=1),
    lambda release: actions.unrelease(release, ["beta"], None, now=1),
    lambda release: actions.unrelease(release, [], "eu", now=1),
    lambda release: actions.restore(release, (*release.blocks, *release.only, "beta")[0]),
    lambda release: actions.finish(release, actor="ada", force=True),
    actions.abandon,
    actions.detach,
]


class Writers:
    """Two who read and write one flag, interleaved, and what must be so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.read: list[tuple[FlagEntry | None, ReleaseEntry | None]] = [(None, None), (None, None)]
        self.plain: Definition | None = None
        """What the flag is, where it has no release."""
        self.kill: str | bool = False
        """Whether it is killed; by what variant."""

    async def step(self, what: str, who: int, number: int) -> None:
        store = self.store
        match what:
            case "read":
                self.read[who] = await read_flag_release(store, ENVIRONMENT, KEY)
            case "act":
                await self._act(self.read[who], number)
            case "kill" | "kill to":
                to = "red" if what == "kill to" else None
                await kill_flag(store, ENVIRONMENT, KEY, to=to)
                self.kill = to or True
            case "revive":
                await revive_flag(store, ENVIRONMENT, KEY)
                self.kill = False
            case _:
                definition = (
                    None if what == "delete" else {"state": "ENABLED", "variants": VARIANTS, "metadata": {"n": number}}
                )
                seen = self.read[who][0]
                draft = Draft(
                    flags={KEY: definition},
                    expected_flags={KEY: seen.revision if seen else 0},
                    over_releases=what == "put over",
                )
                await write_change(store, ENVIRONMENT, draft)
                self.plain, self.kill = definition, False

    async def _act(self, read: tuple[FlagEntry | None, ReleaseEntry | None], number: int) -> None:
        held_flag, entry = read
        release = ACTS[number](entry.release) if entry else actions.plan(None, PLAN, 0)
        await write_standing(self.store, release, read)
        self.plain = compile_release(release, original(held_flag)) if release.state in releases.ENDS else None

    async def check(self) -> None:
        held_flag, entry = await read_flag_release(self.store, ENVIRONMENT, KEY)
        if held_flag is None:
            assert (entry, self.plain) == (None, None)
            return
        assert bool(held_flag.killed) is bool(self.kill)
        said = original(held_flag)
        if entry is None:
            assert said == self.plain
        else:
            assert entry.release.state not in (State.FINISHED, State.ABANDONED, State.DETACHED)
            assert said == compile_release(entry.release, said)
            assert self.plain is None
        kill = self.kill if isinstance(self.kill, str) else None
        assert held_flag.definition == (served(said, kill) if self.kill else said)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
async def test_what_is_served_is_always_what_the_release_says_or_the_plain_flag_with_a_kill_on_top(
    store: Store, steps: list[tuple[str, int, int]]
) -> None:
    await store.client.flushall()
    empty = Snapshot(await create_environment(store, ENVIRONMENT))
    await populate(store)
    writers = Writers(store)
    for what, who, number in steps:
        before = await everything(store)
        try:
            await writers.step(what, who, number)
        except FlagrelayError:
            assert await everything(store) == before, "what is refused changes nothing"
        await writers.check()
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)
