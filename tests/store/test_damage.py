"""A Redis that was wiped, half-written, filled or made read-only: whatever was there before is all there is after."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.errors import EnvironmentMissing, FlagrelayError, StoreCorrupt, StoreUnavailable
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release.actions import plan
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import check_plan
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, destroy_environment, list_environments
from flagrelay.store.reading import read_position, read_snapshot, read_state
from flagrelay.store.script import WRITE
from flagrelay.store.writing import Draft, Written, kill_flag, renew_epoch, revive_flag, write_change
from support.released import write as write_standing
from support.stores import ENVIRONMENT, everything, flag, put

RULE = {"==": [1, 1]}

Write = Callable[[Store], Awaitable[object]]


WRITES: dict[str, Write] = {
    "change": lambda store: put(store, "new"),
    "big change": lambda store: write_change(
        store,
        ENVIRONMENT,
        Draft(flags={f"f{n}": flag(n) for n in range(200)}, evaluators={"b": RULE}, metadata={"a": 1}),
    ),
    "kill": lambda store: kill_flag(store, ENVIRONMENT, "a"),
    "kill to": lambda store: kill_flag(store, ENVIRONMENT, "a", to="off"),
    "release of a killed flag": lambda store: release_flag(store, "killed", (2, 0)),
    "revive": lambda store: revive_flag(store, ENVIRONMENT, "killed"),
    "release": lambda store: release_flag(store, "released", (0, 0)),
}


async def release_flag(store: Store, key: str, expected: tuple[int, int]) -> Written:
    """Write a release; where the flag is known, over what it was read as."""
    document = {"flag": key, "released": "on", "baseline": "off", "stages": [{"population": "beta"}]}
    release = plan(None, check_plan(document), 0)
    definition = compile_release(release, {"variants": {"on": 1, "off": 0}})
    return await write_standing(store, release, (None, None), flag=definition, expected=expected)


async def furnish(store: Store) -> None:
    """Flags, one of them killed, a population, metadata."""
    draft = Draft(flags={"a": flag(1), "killed": flag(2)}, evaluators={"beta": RULE}, metadata={"team": "shop"})
    await write_change(store, ENVIRONMENT, draft)
    await kill_flag(store, ENVIRONMENT, "killed")


@pytest.fixture
async def furnished(store: Store, empty: Snapshot) -> Store:
    await furnish(store)
    return store


async def refused(store: Store, writes: dict[str, Write], *errors: type[FlagrelayError]) -> list[str]:
    """Try writes, none of which may change anything. Returns what was said."""
    before = await everything(store)
    said = []
    for name, write in writes.items():
        with pytest.raises(errors) as caught:
            await write(store)
        said.append(str(caught.value))
        assert await everything(store) == before, name
    return said


# Wiped and half-written


async def test_after_a_wipe_nothing_is_written_and_nothing_is_read(furnished: Store) -> None:
    await furnished.client.flushall()
    await refused(furnished, WRITES, EnvironmentMissing)
    for read in (read_snapshot, read_state, read_position):
        with pytest.raises(EnvironmentMissing):
            await read(furnished, ENVIRONMENT)
    assert await list_environments(furnished) == []


async def test_without_its_state_nothing_of_what_is_left_is_touched(furnished: Store) -> None:
    await furnished.client.delete(furnished.keys.state(ENVIRONMENT))
    await refused(furnished, WRITES, EnvironmentMissing)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("flags", "should have 2 flags in Redis and has 0: a key was lost or evicted"),
        ("evaluators", "should have 1 evaluators in Redis and has 0"),
    ],
)
async def test_a_lost_hash_is_not_taken_for_an_empty_one(furnished: Store, lost: str, sentence: str) -> None:
    await furnished.client.delete(getattr(furnished.keys, lost)(ENVIRONMENT))
    for said in await refused(furnished, WRITES, StoreCorrupt):
        assert sentence in said
    for read in (read_snapshot, read_state):
        with pytest.raises(StoreCorrupt, match=sentence):
            await read(furnished, ENVIRONMENT)


@pytest.mark.parametrize("field", ["epoch", "revision", "nonce"])
@pytest.mark.parametrize("value", [None, b"", b"\xff"])
async def test_a_state_that_does_not_say_where_it_stands_is_neither_read_nor_written(
    furnished: Store, field: str, value: bytes | None
) -> None:
    state = furnished.keys.state(ENVIRONMENT)
    if value is None:
        await furnished.client.hdel(state, field)
    else:
        await furnished.client.hset(state, field, value)
    for read in (read_snapshot, read_state, read_position):
        with pytest.raises(StoreCorrupt, match="lacks its epoch, revision or nonce"):
            await read(furnished, ENVIRONMENT)
    if field != "nonce" or value != b"\xff":  # the script takes any text for a nonce
        for said in await refused(furnished, WRITES, StoreCorrupt):
            assert "lacks its epoch, revision or nonce" in said


@pytest.mark.parametrize("revision", [b"-1", b"1.5", b"1e3", b"0x1", b" 1", b"9" * 400, b"x"])
async def test_a_revision_that_is_no_count_is_neither_read_nor_written(furnished: Store, revision: bytes) -> None:
    await furnished.client.hset(furnished.keys.state(ENVIRONMENT), "revision", revision)
    await refused(furnished, WRITES, StoreCorrupt)
    with pytest.raises(StoreCorrupt):
        await read_position(furnished, ENVIRONMENT)


@pytest.mark.parametrize("epoch", [b"one\ntwo", b"a b", b"x" * 65, "ü".encode(), b"a.b", b"\0"])
async def test_an_epoch_that_fits_no_event_id_is_neither_read_nor_written(furnished: Store, epoch: bytes) -> None:
    await furnished.client.hset(furnished.keys.state(ENVIRONMENT), "epoch", epoch)
    await refused(furnished, WRITES, StoreCorrupt)
    with pytest.raises(StoreCorrupt):
        await read_position(furnished, ENVIRONMENT)


@pytest.mark.parametrize("count", [b"x", b"", b"1", b"\xff"])
async def test_a_count_that_is_wrong_is_damage(furnished: Store, count: bytes) -> None:
    await furnished.client.hset(furnished.keys.state(ENVIRONMENT), "flags", count)
    await refused(furnished, WRITES, StoreCorrupt)
    with pytest.raises(StoreCorrupt, match="should have"):
        await read_snapshot(furnished, ENVIRONMENT)


async def test_a_state_of_another_tool_has_no_counts_and_is_believed(furnished: Store) -> None:
    await furnished.client.hdel(furnished.keys.state(ENVIRONMENT), "flags", "evaluators", "metadata")
    assert set((await read_snapshot(furnished, ENVIRONMENT)).flags) == {"a", "killed"}
    await put(furnished, "b")
    assert (await furnished.client.hget(furnished.keys.state(ENVIRONMENT), "flags")) == b"3"


@pytest.mark.parametrize(
    "key", ["state", "flags", "evaluators", "killed", "changes", "releases", "populations", "history", "actions"]
)
@pytest.mark.parametrize("kind", ["string", "list", "stream", "hash"])
async def test_a_key_of_another_type_stops_every_write_before_it_begins(furnished: Store, key: str, kind: str) -> None:
    name = getattr(furnished.keys, key)(ENVIRONMENT)
    if kind.encode() == await furnished.client.type(name) or (key in ("releases", "populations") and kind == "hash"):
        return
    await furnished.client.delete(name)
    await {
        "string": lambda: furnished.client.set(name, "x"),
        "list": lambda: furnished.client.lpush(name, "x"),
        "stream": lambda: furnished.client.xadd(name, {"x": "x"}),
        "hash": lambda: furnished.client.hset(name, "x", "x"),
    }[kind]()
    await refused(furnished, WRITES, StoreUnavailable)
    await destroy_environment(furnished, ENVIRONMENT)
    assert (await create_environment(furnished, ENVIRONMENT)).revision == 0
    await put(furnished, "a")
    assert set((await read_snapshot(furnished, ENVIRONMENT)).flags) == {"a"}


UNREADABLE = {
    "no JSON": b"what",
    "cut off": b'{"revision":1,"flag":{"state":"ENABLED","variants":{"on":1}}',
    "an open string": b'{"revision":1,"flag":{"state":"ENA',
    "a list": b"[1, 2]",
    "nothing": b"",
    "no revision": b'{"flag":{"state":"ENABLED"}}',
    "a revision in quotes": b'{"revision":"1","flag":{"state":"ENABLED"}}',
    "no definition": b'{"revision":1}',
    "a definition that is text": b'{"revision":1,"flag":"on"}',
    "a definition that is null": b'{"revision":1,"flag":null}',
    "an escape that is none": b'{"revision":1,"flag":{"state":"\\x"}}',
    "no colon": b'{"revision":1,"flag":{"state" "ENABLED"}}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_entry_that_cannot_be_read_is_named_and_can_be_replaced(furnished: Store, text: bytes) -> None:
    await furnished.client.hset(furnished.keys.flags(ENVIRONMENT), "a", text)
    for read in (read_snapshot, read_state):
        with pytest.raises(StoreCorrupt, match='flag "a" of environment "production" cannot be read'):
            await read(furnished, ENVIRONMENT)
    writes: dict[str, Write] = {
        "kill": WRITES["kill"],
        "kill to": WRITES["kill to"],
        "edit": lambda store: put(store, "a", 5, expected_flags={"a": 1}),
        "create": lambda store: put(store, "a", 5, expected_flags={"a": 0}),
    }
    for said in await refused(furnished, writes, StoreCorrupt):
        assert 'flag "a" of environment "production" cannot be read' in said
    await put(furnished, "b")
    await put(furnished, "a", 5)
    assert (await read_snapshot(furnished, ENVIRONMENT)).flags["a"] == flag(5)


async def test_a_population_that_cannot_be_read_is_named_and_can_be_deleted(furnished: Store) -> None:
    await furnished.client.hset(furnished.keys.evaluators(ENVIRONMENT), "beta", b'{"revision":1,"rule":')
    with pytest.raises(StoreCorrupt, match='population "beta" of environment "production" cannot be read'):
        await read_snapshot(furnished, ENVIRONMENT)
    edit = Draft(evaluators={"beta": RULE}, expected_evaluators={"beta": 1})
    writes: dict[str, Write] = {"edit": lambda store: write_change(store, ENVIRONMENT, edit)}
    await refused(furnished, writes, StoreCorrupt)
    await write_change(furnished, ENVIRONMENT, Draft(evaluators={"beta": None}))
    assert (await read_snapshot(furnished, ENVIRONMENT)).evaluators == {}


@pytest.mark.parametrize("metadata", [b"{", b"[]", b"null", b"\xff"])
async def test_metadata_that_cannot_be_read_is_named_and_can_be_replaced(furnished: Store, metadata: bytes) -> None:
    await furnished.client.hset(furnished.keys.state(ENVIRONMENT), "metadata", metadata)
    for read in (read_snapshot, read_state):
        with pytest.raises(StoreCorrupt, match='metadata of environment "production" cannot be read'):
            await read(furnished, ENVIRONMENT)
    await write_change(furnished, ENVIRONMENT, Draft(metadata={}))
    assert (await read_snapshot(furnished, ENVIRONMENT)).metadata == {}


async def test_a_key_that_is_no_text_is_damage(furnished: Store) -> None:
    await furnished.client.hset(furnished.keys.flags(ENVIRONMENT), b"\xff", b'{"revision":1,"flag":{}}')
    await furnished.client.hset(furnished.keys.evaluators(ENVIRONMENT), b"\xff", b'{"revision":1,"rule":{}}')
    await furnished.client.hdel(furnished.keys.state(ENVIRONMENT), "flags", "evaluators")
    with pytest.raises(StoreCorrupt, match='flag "\ufffd" of'):
        await read_snapshot(furnished, ENVIRONMENT)
    await furnished.client.hdel(furnished.keys.flags(ENVIRONMENT), b"\xff")
    with pytest.raises(StoreCorrupt, match='population "\ufffd" of'):
        await read_snapshot(furnished, ENVIRONMENT)


@pytest.mark.parametrize("kept", [b"what", b"{}", b"[]", b'{"at":1,"original":{"state":"ENA'])
async def test_a_kept_original_that_cannot_be_read_stops_the_revive_but_no_kill(furnished: Store, kept: bytes) -> None:
    await furnished.client.hset(furnished.keys.killed(ENVIRONMENT), "killed", kept)
    with pytest.raises(StoreCorrupt, match='flag "killed"'):
        await read_state(furnished, ENVIRONMENT)
    [said] = await refused(furnished, {"revive": WRITES["revive"]}, StoreCorrupt)
    assert 'kill of flag "killed" of environment "production" cannot be read' in said
    await kill_flag(furnished, ENVIRONMENT, "killed", to="off")
    assert (await read_snapshot(furnished, ENVIRONMENT)).flags["killed"]["defaultVariant"] == "off"


async def test_a_changelog_that_is_ahead_stops_every_write_before_it_begins(furnished: Store) -> None:
    await furnished.client.xadd(furnished.keys.changes(ENVIRONMENT), {"change": "{}"}, id="90-0")
    await refused(furnished, WRITES, StoreUnavailable)


async def test_the_epoch_of_what_is_damaged_is_not_renewed(furnished: Store) -> None:
    seen = await read_position(furnished, ENVIRONMENT)
    await furnished.client.delete(furnished.keys.flags(ENVIRONMENT))
    await refused(furnished, {"renew": lambda store: renew_epoch(store, ENVIRONMENT, seen)}, StoreCorrupt)


async def test_what_is_damaged_can_be_destroyed_and_created_anew(furnished: Store) -> None:
    await furnished.client.delete(furnished.keys.flags(ENVIRONMENT))
    await furnished.client.hdel(furnished.keys.state(ENVIRONMENT), "epoch")
    await destroy_environment(furnished, ENVIRONMENT)
    await create_environment(furnished, ENVIRONMENT)
    assert (await read_snapshot(furnished, ENVIRONMENT)).flags == {}


# Out of memory


@asynccontextmanager
async def full(store: Store) -> AsyncIterator[None]:
    """While the block lasts, Redis has less memory than it uses, and may evict nothing."""
    await store.client.config_set("maxmemory-policy", "noeviction")
    await store.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="maxmemory"), store.talking():
            await store.client.set("x", "x" * 1000)
        yield
    finally:
        await store.client.config_set("maxmemory", "0")


async def test_a_full_redis_refuses_every_write_and_changes_nothing(doomed: Store) -> None:
    await furnish(doomed)
    before = await read_state(doomed, ENVIRONMENT)
    seen = before.position
    writes = WRITES | {
        "create": lambda store: create_environment(store, "staging"),
        "renew": lambda store: renew_epoch(store, ENVIRONMENT, seen),
    }
    async with full(doomed):
        for said in await refused(doomed, writes, StoreUnavailable):
            assert "Redis at unix://" in said
            assert "used memory > 'maxmemory'" in said
        assert await read_state(doomed, ENVIRONMENT) == before
    for write in (*WRITES.values(), writes["create"]):
        await write(doomed)
    assert [each.name for each in await list_environments(doomed)] == [ENVIRONMENT, "staging"]


async def test_a_create_over_leftovers_in_a_full_redis_changes_nothing(doomed: Store) -> None:
    await furnish(doomed)
    await doomed.client.delete(doomed.keys.state(ENVIRONMENT))
    keys = doomed.keys.all_of(ENVIRONMENT)
    writes: dict[str, Write] = {
        "create": lambda store: create_environment(store, ENVIRONMENT),
        "the script of it": lambda store: WRITE.run(store, keys, "create", "e" * 32, "n"),
    }
    async with full(doomed):
        await refused(doomed, writes, StoreUnavailable)
    await create_environment(doomed, ENVIRONMENT)
    assert (await read_snapshot(doomed, ENVIRONMENT)).flags == {}


async def test_an_environment_can_be_destroyed_to_make_room(doomed: Store) -> None:
    await furnish(doomed)
    async with full(doomed):
        await destroy_environment(doomed, ENVIRONMENT)
    assert await doomed.client.keys("*") == []


# Read-only


async def test_a_replica_refuses_every_write_and_changes_nothing(doomed: Store, doomed_server: PrivateRedis) -> None:
    await furnish(doomed)
    # A replica of nobody that answers: it keeps what it has, as after a failover that went the other way.
    await doomed.client.replicaof("127.0.0.1", "1")
    writes = WRITES | {"create": lambda store: create_environment(store, "staging")}
    async with open_store(RedisAddress(doomed_server.url)) as other:
        for said in await refused(other, writes, StoreUnavailable):
            assert "Redis at unix://" in said
            assert "read only replica" in said
        assert set((await read_snapshot(other, ENVIRONMENT)).flags) == {"a", "killed"}
