import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagrelay.errors import (
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    FlagMissing,
    InputError,
    NotKilled,
    PopulationMissing,
    StoreUnavailable,
    VariantMissing,
)
from flagrelay.flags.change import Hint
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store import writing
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.reading import read_flag, read_position, read_snapshot, read_state
from flagrelay.store.script import WRITE
from flagrelay.store.subscription import subscribe
from flagrelay.store.writing import Draft, kill_flag, renew_epoch, revive_flag, write_change
from flagrelay.wire.message import decode_message
from support.stores import ENVIRONMENT, everything, flag, folded, put

RULE = {"==": [{"var": "team"}, "dev"]}
BETA = flag(1, targeting={"if": [{"$ref": "beta"}, "on", "off"]})


# What a change does


async def test_a_change_is_in_the_state_the_changelog_and_on_the_channel_alike(store: Store, empty: Snapshot) -> None:
    draft = Draft(
        flags={"a": flag(1), "gone": None},
        evaluators={"beta": RULE},
        metadata={"team": "shop"},
        actor="ada",
        reason='error "rate" ü',
        urgent=True,
    )
    async with subscribe(store, ENVIRONMENT) as subscription:
        written = await write_change(store, ENVIRONMENT, draft)
        published = decode_message(await subscription.next(5) or b"")
    [change] = await read_changes(store, ENVIRONMENT, 0)
    assert change == published
    assert (change.epoch, change.revision, change.previous) == (empty.position.epoch, 1, empty.position.nonce)
    assert (change.actor, change.reason, change.urgent, change.at) == ("ada", 'error "rate" ü', True, written.at)
    assert (written.revision, written.changed) == (1, True)
    assert await read_snapshot(store, ENVIRONMENT) == Snapshot(
        change.position, {"a": flag(1)}, {"beta": RULE}, {"team": "shop"}
    )


@pytest.mark.parametrize("key", ["a/b", 'quo"te', "back\\slash", "{brace}", "ü 😀", "\u2028", " ", "x" * 256, "flag"])
async def test_any_key_comes_back_as_it_went(store: Store, empty: Snapshot, key: str) -> None:
    await write_change(store, ENVIRONMENT, Draft(flags={key: flag(1)}, evaluators={key: RULE}))
    await kill_flag(store, ENVIRONMENT, key)
    await write_change(store, ENVIRONMENT, Draft(evaluators={key: None}, expected_evaluators={key: 1}))
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)
    assert (await read_flag(store, ENVIRONMENT, key)).killed


async def test_a_change_without_metadata_leaves_the_metadata(store: Store, empty: Snapshot) -> None:
    await write_change(store, ENVIRONMENT, Draft(metadata={"a": 1}))
    await put(store, "a")
    assert (await read_state(store, ENVIRONMENT)).metadata == {"a": 1}
    await write_change(store, ENVIRONMENT, Draft(metadata={}))
    assert (await read_state(store, ENVIRONMENT)).metadata == {}


async def test_at_is_redis_s_own_clock_in_microseconds(store: Store, empty: Snapshot) -> None:
    seconds, micros = await store.client.time()
    written = await put(store, "a")
    after_seconds, after_micros = await store.client.time()
    assert seconds * 1_000_000 + micros <= written.at <= after_seconds * 1_000_000 + after_micros


async def test_what_was_written_is_what_is_stored(store: Store, empty: Snapshot) -> None:
    numbers = {"one": 1.0, "huge": 1e300, "big": 2**63 - 1, "tiny": 5e-324, "minus": -0.0}
    definition = {"state": "ENABLED", "variants": numbers, "targeting": {"if": [[], {}, [{}], None]}}
    await write_change(store, ENVIRONMENT, Draft(flags={"a": definition}, evaluators={"beta": {"in": [1.0, []]}}))
    read = await read_snapshot(store, ENVIRONMENT)
    assert repr(read.flags["a"]) == repr(definition)
    assert repr(read.evaluators["beta"]) == "{'in': [1.0, []]}"
    assert repr((await folded(store, empty)).flags["a"]) == repr(definition)


@pytest.mark.parametrize(
    "draft",
    [
        Draft(flags={"a": {"state": "ON", "variants": {"on": True}}}),
        Draft(flags={"a": flag(1), "b": {}}),
        Draft(flags={"x" * 257: flag(1)}),
        Draft(evaluators={"beta": 5}),
        Draft(metadata={"a": {}}),
    ],
)
async def test_a_broken_definition_is_refused_before_redis_hears_of_it(
    store: Store, empty: Snapshot, draft: Draft
) -> None:
    before = await everything(store)
    with pytest.raises(DefinitionError):
        await write_change(store, ENVIRONMENT, draft)
    assert await everything(store) == before


async def test_words_that_are_no_unicode_are_written_as_far_as_they_are(store: Store, empty: Snapshot) -> None:
    await put(store, "a", actor="ad\udcff", reason="\ud800")
    await kill_flag(store, ENVIRONMENT, "a", actor="\udcff", reason="\udcff")
    changes = await read_changes(store, ENVIRONMENT, 0)
    assert [(change.actor, change.reason) for change in changes] == [("ad?", "?"), ("?", "?")]


async def test_a_key_that_is_no_unicode_is_refused(store: Store, empty: Snapshot) -> None:
    before = await everything(store)
    for write in (
        kill_flag(store, ENVIRONMENT, "\udcff"),
        revive_flag(store, "\udcff", "a"),
        write_change(store, ENVIRONMENT, Draft(flags={"\udcff": None})),
    ):
        with pytest.raises(InputError, match="no Unicode text"):
            await write
    assert await everything(store) == before


async def test_a_write_never_creates_an_environment(store: Store) -> None:
    for write in (
        put(store, "a"),
        kill_flag(store, ENVIRONMENT, "a"),
        revive_flag(store, ENVIRONMENT, "a"),
        renew_epoch(store, ENVIRONMENT, Position("e", 0, "n")),
        destroy_environment(store, ENVIRONMENT),
    ):
        with pytest.raises(EnvironmentMissing, match='environment "production" does not exist'):
            await write
    assert await store.client.keys("*") == []


# Conflicts


async def test_a_conflict_names_the_flag_and_both_revisions_and_changes_nothing(store: Store, empty: Snapshot) -> None:
    await put(store, "other")
    await put(store, "a", 1)
    await put(store, "a", 2)
    before = await everything(store)
    with pytest.raises(Conflict, match='flag "a" is at revision 3, but the edit was made from revision 2') as caught:
        await put(store, "a", 9, expected_flags={"a": 2})
    assert (caught.value.subject, caught.value.expected, caught.value.found) == ('flag "a"', 2, 3)
    assert await everything(store) == before


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (
            Draft(flags={"a": flag(9)}, expected_flags={"a": 0}),
            'flag "a" is at revision 1, but the edit was made from no such entry',
        ),
        (Draft(flags={"new": flag(9)}, expected_flags={"new": 4}), 'flag "new" does not exist, but .* from revision 4'),
        (Draft(flags={"new": None}, expected_flags={"new": 4}), 'flag "new" does not exist'),
        (
            Draft(evaluators={"beta": RULE}, expected_evaluators={"beta": 7}),
            'population "beta" is at revision 1, but the edit was made from revision 7',
        ),
        (Draft(evaluators={"beta": None}, expected_evaluators={"beta": 0}), 'population "beta" is at revision 1'),
        (Draft(evaluators={"ü": RULE}, expected_evaluators={"ü": 1}), 'population "ü" does not exist'),
    ],
)
async def test_every_kind_of_conflict_changes_nothing(
    store: Store, empty: Snapshot, draft: Draft, message: str
) -> None:
    await write_change(store, ENVIRONMENT, Draft(flags={"a": flag(1)}, evaluators={"beta": RULE}))
    before = await everything(store)
    with pytest.raises(Conflict, match=message):
        await write_change(store, ENVIRONMENT, draft)
    assert await everything(store) == before


async def test_one_conflict_in_the_middle_of_a_big_change_stops_all_of_it(store: Store, empty: Snapshot) -> None:
    keys = [f"flag-{number}" for number in range(1000)]
    await write_change(store, ENVIRONMENT, Draft(flags={key: flag(1) for key in keys}))
    await put(store, "flag-500", 2)
    before = await everything(store)
    draft = Draft(
        flags={key: flag(3) if index % 2 else None for index, key in enumerate(keys)},
        evaluators={"beta": RULE},
        metadata={"a": 1},
        expected_flags=dict.fromkeys(keys, 1),
    )
    with pytest.raises(Conflict) as caught:
        await write_change(store, ENVIRONMENT, draft)
    assert (caught.value.subject, caught.value.expected, caught.value.found) == ('flag "flag-500"', 1, 2)
    assert await everything(store) == before


async def test_zero_means_that_it_must_not_exist(store: Store, empty: Snapshot) -> None:
    draft = Draft(flags={"a": flag(1)}, expected_flags={"a": 0}, evaluators={"b": RULE}, expected_evaluators={"b": 0})
    assert (await write_change(store, ENVIRONMENT, draft)).revision == 1


async def test_an_entry_that_another_tool_wrote_is_compared_all_the_same(store: Store, empty: Snapshot) -> None:
    entry = json.dumps({"flag": flag(1), "revision": 3}, indent=2)
    await store.client.hset(store.keys.flags(ENVIRONMENT), "a", entry)
    await store.client.hdel(store.keys.state(ENVIRONMENT), "flags")
    with pytest.raises(Conflict, match="is at revision 3"):
        await put(store, "a", expected_flags={"a": 1})
    await put(store, "a", 2, expected_flags={"a": 3})
    assert (await read_flag(store, ENVIRONMENT, "a")).definition == flag(2)


@pytest.mark.parametrize("flags", [{"a": BETA}, {"a": BETA, "b": flag(1)}])
async def test_a_flag_that_names_a_population_that_there_is_not_is_refused(
    store: Store, empty: Snapshot, flags: dict[str, Any]
) -> None:
    await write_change(store, ENVIRONMENT, Draft(evaluators={"beta": RULE, "dev": RULE}))
    for evaluators, fits in (({"beta": None}, False), ({"beta": RULE}, True), ({"dev": None}, True), ({}, True)):
        before = await everything(store)
        if fits:
            await write_change(store, ENVIRONMENT, Draft(flags=flags, evaluators=evaluators))
            continue
        with pytest.raises(PopulationMissing, match='no population "beta"'):
            await write_change(store, ENVIRONMENT, Draft(flags=flags, evaluators=evaluators))
        assert await everything(store) == before


async def test_a_flag_whose_population_is_gone_already_keeps_nothing_else_from_being_written(
    store: Store, empty: Snapshot
) -> None:
    await write_change(store, ENVIRONMENT, Draft(flags={"a": BETA}, evaluators={"beta": RULE}))
    await write_change(store, ENVIRONMENT, Draft(evaluators={"beta": None}))
    await put(store, "b")
    await kill_flag(store, ENVIRONMENT, "a")
    await revive_flag(store, ENVIRONMENT, "a")
    await write_change(store, ENVIRONMENT, Draft(flags={"a": None}))


# Many writers


async def test_concurrent_writers_lose_no_update_and_leave_no_hole(store: Store, empty: Snapshot) -> None:
    keys, writers, rounds = ["a", "b", "c"], 8, 25
    conflicts = 0

    async def count_up(seed: int) -> None:
        """Adds one to a flag, as a careful writer does: read, edit, write, and again where somebody was faster."""
        nonlocal conflicts
        choose = random.Random(seed)
        for _ in range(rounds):
            key = choose.choice(keys)
            while True:
                entry = await read_flag(store, ENVIRONMENT, key)
                number = entry.definition["variants"]["on"] + 1
                try:
                    await put(store, key, number, expected_flags={key: entry.revision})
                except Conflict:
                    conflicts += 1
                else:
                    break

    await write_change(store, ENVIRONMENT, Draft(flags={key: flag(0) for key in keys}))
    await asyncio.gather(*(count_up(seed) for seed in range(writers)))
    changes = await read_changes(store, ENVIRONMENT, 0)
    assert [change.revision for change in changes] == list(range(1, 2 + writers * rounds))
    snapshot = await read_snapshot(store, ENVIRONMENT)
    assert sum(definition["variants"]["on"] for definition in snapshot.flags.values()) == writers * rounds
    assert await folded(store, empty) == snapshot
    assert conflicts, "the writers never met, and this test shows nothing"


KEYS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 3)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.dictionaries(KEYS, st.none() | NUMBERS, max_size=3)),
    st.tuples(st.just("put if"), st.dictionaries(KEYS, NUMBERS, min_size=1, max_size=3)),
    st.tuples(st.just("population"), st.dictionaries(KEYS, st.none() | NUMBERS, min_size=1, max_size=2)),
    st.tuples(st.just("metadata"), st.dictionaries(KEYS, NUMBERS, max_size=2)),
    st.tuples(st.just("kill"), KEYS, st.sampled_from([None, "on", "off"])),
    st.tuples(st.just("revive"), KEYS),
    st.tuples(st.just("renew")),
)


async def perform(store: Store, operation: tuple[object, ...]) -> None:
    match operation:
        case "put", dict(flags):
            draft = Draft(flags={key: None if number is None else flag(number) for key, number in flags.items()})
            await write_change(store, ENVIRONMENT, draft)
        case "put if", dict(flags):
            draft = Draft(flags={key: flag(number) for key, number in flags.items()}, expected_flags=flags)
            await write_change(store, ENVIRONMENT, draft)
        case "population", dict(rules):
            draft = Draft(evaluators={key: None if rule is None else {"==": [rule, 1]} for key, rule in rules.items()})
            await write_change(store, ENVIRONMENT, draft)
        case "metadata", dict(metadata):
            await write_change(store, ENVIRONMENT, Draft(metadata=metadata))
        case "kill", str(key), None:
            await kill_flag(store, ENVIRONMENT, key)
        case "kill", str(key), str(to):
            await kill_flag(store, ENVIRONMENT, key, to=to)
        case "revive", str(key):
            await revive_flag(store, ENVIRONMENT, key)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, max_size=15), st.integers(1, 4))
async def test_the_snapshot_is_the_fold_of_the_changelog_whoever_wrote_what(
    store: Store, operations: list[tuple[object, ...]], writers: int
) -> None:
    await store.client.flushall()
    empty = Snapshot(await create_environment(store, ENVIRONMENT))

    async def write(mine: list[tuple[object, ...]]) -> int:
        refused = 0
        for operation in mine:
            try:
                await perform(store, operation)
            except (Conflict, FlagMissing, NotKilled):
                refused += 1
        return refused

    await asyncio.gather(*(write(operations[start::writers]) for start in range(writers)))
    state = await read_state(store, ENVIRONMENT)
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)
    assert [change.revision for change in await read_changes(store, ENVIRONMENT, 0)] == list(
        range(1, state.position.revision + 1)
    )
    counts = await store.client.hmget(store.keys.state(ENVIRONMENT), ["flags", "evaluators"])
    assert [int(count) for count in counts] == [len(state.flags), len(state.evaluators)]
    killed = await store.client.hkeys(store.keys.killed(ENVIRONMENT))
    assert {name.decode() for name in killed} == {key for key, entry in state.flags.items() if entry.killed}


# Large things


async def test_a_message_over_64_kib_is_published_as_a_hint_and_the_changelog_has_the_whole(
    store: Store, empty: Snapshot
) -> None:
    large = flag(1, metadata={"text": "x" * 70_000})
    async with subscribe(store, ENVIRONMENT) as subscription:
        await write_change(store, ENVIRONMENT, Draft(flags={"a": large}))
        hint = decode_message(await subscription.next(5) or b"")
    [change] = await read_changes(store, ENVIRONMENT, 0)
    assert hint == Hint(change.epoch, 1, change.nonce, empty.position.nonce)
    assert change.flags == {"a": large}


async def test_a_message_has_its_body_up_to_64_kib_exactly(store: Store, empty: Snapshot) -> None:
    async with subscribe(store, ENVIRONMENT) as subscription:
        await put(store, "a", reason="")
        room = 65_536 - len(await subscription.next(5) or b"")
        for length, whole in ((room, True), (room + 1, False)):
            await put(store, "a", reason="x" * length)
            message = await subscription.next(5) or b""
            assert (len(message) == 65_536) is whole
            assert isinstance(decode_message(message), Hint) is not whole


async def test_an_environment_is_full_at_its_limit_and_what_is_there_can_still_be_changed(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_FLAGS", 3)
    await write_change(store, ENVIRONMENT, Draft(flags={key: flag() for key in "abc"}))
    before = await everything(store)
    with pytest.raises(DefinitionError, match='environment "production": it would have 4 flags; the most is 3'):
        await put(store, "d")
    assert await everything(store) == before
    await put(store, "a", 2)
    await write_change(store, ENVIRONMENT, Draft(flags={"d": flag(), "a": None}))
    await kill_flag(store, ENVIRONMENT, "d")
    assert set((await read_snapshot(store, ENVIRONMENT)).flags) == {"b", "c", "d"}


async def test_an_environment_over_its_limit_can_shrink(
    store: Store, empty: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_change(store, ENVIRONMENT, Draft(flags={key: flag() for key in "abcde"}))
    monkeypatch.setattr(writing, "MAX_FLAGS", 3)
    await put(store, "a", 2)
    await write_change(store, ENVIRONMENT, Draft(flags={"a": None}))
    assert len((await read_snapshot(store, ENVIRONMENT)).flags) == 4


# Sent twice


async def test_the_same_nonce_sent_twice_writes_once(store: Store, empty: Snapshot) -> None:
    keys = store.keys.all_of(ENVIRONMENT)
    change = (
        "change",
        "n1",
        "put",
        '"ada"',
        '"why"',
        "false",
        "",
        "",
        10,
        "",
        "",
        "flag",
        "a",
        "0",
        json.dumps(flag(1)),
    )
    assert (await WRITE.run(store, keys, *change))[:2] == [b"WRITTEN", 1]
    before = await everything(store)
    async with subscribe(store, ENVIRONMENT) as subscription:
        assert (await WRITE.run(store, keys, *change))[:2] == [b"WRITTEN", 1], "and no conflict with itself"
        assert await everything(store) == before
        kill = ("kill", "n2", '"ada"', '"why"', "a", "")
        assert [(await WRITE.run(store, keys, *kill))[1] for _ in range(2)] == [2, 2]
        revive = ("revive", "n3", '"ada"', '"why"', "a")
        assert [(await WRITE.run(store, keys, *revive))[1] for _ in range(2)] == [3, 3], "not 'is not killed'"
        published = [decode_message(await subscription.next(5) or b"").revision for _ in range(2)]
        assert published == [2, 3]
        assert await subscription.next(0.05) is None


# Epochs


async def test_an_epoch_is_renewed_by_the_first_who_asks_and_the_others_are_told(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    seen = await read_position(store, ENVIRONMENT)
    async with subscribe(store, ENVIRONMENT) as subscription:
        renewed = await asyncio.gather(*(renew_epoch(store, ENVIRONMENT, seen) for _ in range(20)))
        [position] = set(renewed)
        assert position.epoch != seen.epoch
        assert len(position.epoch) == 32
        assert position[1:] == seen[1:]
        hint = decode_message(await subscription.next(5) or b"")
        assert isinstance(hint, Hint)
        assert (hint.epoch, hint.revision, hint.nonce) == position
        assert await subscription.next(0.05) is None, "one epoch, one hint"
    assert await read_position(store, ENVIRONMENT) == position


async def test_an_epoch_is_not_renewed_once_the_environment_has_moved(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    now = await read_position(store, ENVIRONMENT)
    for seen in (empty.position, now._replace(nonce="x"), now._replace(epoch="x"), now._replace(revision=9)):
        assert await renew_epoch(store, ENVIRONMENT, seen) == now
    assert await read_position(store, ENVIRONMENT) == now


async def test_a_write_after_a_new_epoch_belongs_to_it(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    renewed = await renew_epoch(store, ENVIRONMENT, await read_position(store, ENVIRONMENT))
    await put(store, "a", 2)
    old, new = await read_changes(store, ENVIRONMENT, 0)
    assert (old.epoch, new.epoch) == (empty.position.epoch, renewed.epoch)
    assert (new.revision, new.previous) == (2, old.nonce)


# Deletes


async def test_a_deleted_flag_is_gone_and_may_come_back(store: Store, empty: Snapshot) -> None:
    await put(store, "a", 1)
    await write_change(store, ENVIRONMENT, Draft(flags={"a": None}, expected_flags={"a": 1}))
    with pytest.raises(FlagMissing, match='has no flag "a"'):
        await kill_flag(store, ENVIRONMENT, "a")
    with pytest.raises(FlagMissing):
        await revive_flag(store, ENVIRONMENT, "a")
    await put(store, "a", 2, expected_flags={"a": 0})
    assert (await read_flag(store, ENVIRONMENT, "a")).revision == 3


# A variant that is none


@pytest.mark.parametrize("variant", ["", "On", "on ", "state", '"on"', "on\udcff"])
async def test_a_kill_to_what_is_no_variant_changes_nothing(store: Store, empty: Snapshot, variant: str) -> None:
    await put(store, "a")
    before = await everything(store)
    with pytest.raises((VariantMissing, InputError)):
        await kill_flag(store, ENVIRONMENT, "a", to=variant)
    assert await everything(store) == before


async def test_a_lost_redis_is_unavailable(doomed: Store) -> None:
    await doomed.client.shutdown(nosave=True)
    for write in (put(doomed, "a"), kill_flag(doomed, ENVIRONMENT, "a"), revive_flag(doomed, ENVIRONMENT, "a")):
        with pytest.raises(StoreUnavailable, match="Redis at unix://"):
            await write
