import asyncio
from time import time

import orjson
import pytest

from flagrelay.errors import EnvironmentMissing, FlagMissing, InputError
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.connection import Store
from flagrelay.store.reading import (
    FlagEntry,
    read_clock,
    read_flag,
    read_position,
    read_snapshot,
    read_state,
)
from flagrelay.store.writing import Draft, kill_flag, write_change
from support.stores import ENVIRONMENT, flag, plant, put

MANY = 10_000


async def test_ten_thousand_flags_are_read_at_one_revision_while_somebody_writes(store: Store, empty: Snapshot) -> None:
    keys = [f"flag-{number}" for number in range(MANY)]
    await write_change(store, ENVIRONMENT, Draft(flags=dict.fromkeys(keys, flag(0)), metadata={"round": 0}))
    edges = (keys[0], keys[MANY // 2], keys[-1])
    done = False

    async def write() -> int:
        rounds = 0
        while not done:
            rounds += 1
            await write_change(
                store,
                ENVIRONMENT,
                Draft(
                    flags={key: flag(rounds) for key in edges} | {f"extra-{rounds}": flag(rounds)},
                    evaluators={"beta": {"==": [rounds, 1]}},
                    metadata={"round": rounds},
                ),
            )
        return rounds

    async def read() -> set[int]:
        nonlocal done
        seen: set[int] = set()
        async with asyncio.timeout(60):
            while len(seen) < 5:
                snapshot = await read_snapshot(store, ENVIRONMENT)
                state = await read_state(store, ENVIRONMENT)
                for read in (snapshot, state):
                    rounds = read.position.revision - 1
                    seen.add(rounds)
                    assert read.metadata == {"round": rounds}
                    assert len(read.flags) == MANY + rounds
                assert [snapshot.flags[key] for key in edges] == [flag(snapshot.position.revision - 1)] * 3
                assert [state.flags[key].revision for key in edges] == [state.position.revision] * 3
                assert state.evaluators.get("beta", (1, None))[0] == state.position.revision
        done = True
        return seen

    rounds, seen = await asyncio.gather(write(), read())
    assert max(seen) <= rounds


async def test_the_state_says_what_writers_need(store: Store, empty: Snapshot) -> None:
    await write_change(
        store, ENVIRONMENT, Draft(flags={"a": flag(1), "b": flag(2)}, evaluators={"beta": {"in": ["a", []]}})
    )
    written = await kill_flag(store, ENVIRONMENT, "a", to="off", actor="ada", reason="errors")
    state = await read_state(store, ENVIRONMENT)
    assert state.position == await read_position(store, ENVIRONMENT)
    assert state.evaluators == {"beta": (1, {"in": ["a", []]})}
    assert state.flags["b"] == FlagEntry("b", 1, flag(2)) == await read_flag(store, ENVIRONMENT, "b")
    killed = await read_flag(store, ENVIRONMENT, "a")
    assert killed == state.flags["a"]
    assert killed.killed
    assert (killed.revision, killed.definition["defaultVariant"]) == (2, "off")
    assert (killed.killed.at, killed.killed.to, killed.killed.original) == (written.at, "off", flag(1))


async def test_an_entry_that_another_tool_wrote_is_read(store: Store, empty: Snapshot) -> None:
    await plant(store, "a", orjson.dumps(flag(1)).decode(), revision=9)
    assert await read_flag(store, ENVIRONMENT, "a") == FlagEntry("a", 9, flag(1))
    assert (await read_snapshot(store, ENVIRONMENT)).flags == {"a": flag(1)}


async def test_what_is_missing_is_named(store: Store, empty: Snapshot) -> None:
    with pytest.raises(FlagMissing, match='environment "production" has no flag "a"'):
        await read_flag(store, ENVIRONMENT, "a")
    for missing in (
        read_flag(store, "staging", "a"),
        read_state(store, "staging"),
        read_position(store, "staging"),
        read_snapshot(store, "staging"),
    ):
        with pytest.raises(EnvironmentMissing, match='environment "staging" does not exist'):
            await missing
    with pytest.raises(InputError, match="no Unicode text"):
        await read_flag(store, ENVIRONMENT, "\udcff")


async def test_the_clock_is_redis_s_in_microseconds(store: Store) -> None:
    earlier = await read_clock(store, "no environment is needed")
    assert abs(earlier / 1e6 - time()) < 60
    assert await read_clock(store, ENVIRONMENT) >= earlier


async def test_reading_works_while_redis_is_full(doomed: Store) -> None:
    """A relay that starts then must load: MULTI is refused by a full Redis even for reads."""
    await put(doomed, "a", 1)
    await doomed.client.config_set("maxmemory", "1")
    assert (await read_snapshot(doomed, ENVIRONMENT)).flags == {"a": flag(1)}
    assert (await read_flag(doomed, ENVIRONMENT, "a")).definition == flag(1)
    assert (await read_position(doomed, ENVIRONMENT)).revision == 1
    assert await read_clock(doomed, ENVIRONMENT)


async def test_a_kill_of_a_later_version_with_more_to_it_is_read(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    await kill_flag(store, ENVIRONMENT, "a", actor="ada", reason="test")
    before = await read_flag(store, ENVIRONMENT, "a")
    text = await store.client.hget(store.keys.killed(ENVIRONMENT), "a")
    await store.client.hset(store.keys.killed(ENVIRONMENT), "a", orjson.dumps({"ticket": 7, **orjson.loads(text)}))
    assert await read_flag(store, ENVIRONMENT, "a") == before
