import asyncio

import pytest

from flagrelay.errors import DefinitionError, EnvironmentExists, EnvironmentMissing
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import (
    EnvironmentSummary,
    create_environment,
    destroy_environment,
    list_environments,
)
from flagrelay.store.history import read_history
from flagrelay.store.reading import read_position, read_snapshot
from flagrelay.store.subscription import subscribe
from flagrelay.store.writing import Draft, kill_flag, write_change
from support.stores import ENVIRONMENT, everything, flag, put


async def test_an_environment_begins_empty_at_revision_zero_of_a_history_of_its_own(store: Store) -> None:
    position = await create_environment(store, ENVIRONMENT)
    assert position.revision == 0
    assert await read_snapshot(store, ENVIRONMENT) == Snapshot(position)
    assert await read_changes(store, ENVIRONMENT, 0) == []
    other = await create_environment(store, "staging")
    assert other.epoch != position.epoch
    assert other.nonce != position.nonce


async def test_an_environment_that_exists_is_left_alone(store: Store) -> None:
    await create_environment(store, ENVIRONMENT)
    await put(store, "a")
    before = await everything(store)
    with pytest.raises(EnvironmentExists, match='environment "production" exists already; nothing was changed'):
        await create_environment(store, ENVIRONMENT)
    assert await everything(store) == before


async def test_of_many_who_create_it_at_once_one_does(store: Store) -> None:
    async def create() -> Position | None:
        try:
            return await create_environment(store, ENVIRONMENT)
        except EnvironmentExists:
            return None

    created = [position for position in await asyncio.gather(*(create() for _ in range(20))) if position]
    assert created == [await read_position(store, ENVIRONMENT)]


@pytest.mark.parametrize("name", ["", "a b", "{a}", "a:b", "-a", "x" * 65, "ü", "a\n", "\udcff"])
async def test_a_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(DefinitionError, match="a name has 1 to 64"):
        await create_environment(store, name)
    assert await store.client.keys("*") == []


async def test_what_a_lost_state_left_behind_is_no_part_of_the_new_history(store: Store) -> None:
    await create_environment(store, ENVIRONMENT)
    await write_change(store, ENVIRONMENT, Draft(flags={"a": flag()}, evaluators={"b": {}}, metadata={"c": 1}))
    await kill_flag(store, ENVIRONMENT, "a")
    await store.client.delete(store.keys.state(ENVIRONMENT))
    position = await create_environment(store, ENVIRONMENT)
    assert await read_snapshot(store, ENVIRONMENT) == Snapshot(position)
    await put(store, "z")
    assert [change.revision for change in await read_changes(store, ENVIRONMENT, 0)] == [1]
    left = [entry async for entry in read_history(store, ENVIRONMENT)]
    assert [entry.flags for entry in left] == [("z",)]
    of = (store.keys.state, store.keys.flags, store.keys.changes, store.keys.history)
    assert set(await store.client.keys("*{production}*")) == {name(ENVIRONMENT).encode() for name in of}


async def test_a_destroyed_environment_leaves_nothing_and_says_nothing_on_the_channel(store: Store) -> None:
    await create_environment(store, ENVIRONMENT)
    await create_environment(store, "staging")
    before = {name for name in await everything(store) if b"staging" in name}
    await write_change(store, ENVIRONMENT, Draft(flags={"a": flag()}, evaluators={"b": {}}))
    await kill_flag(store, ENVIRONMENT, "a")
    async with subscribe(store, ENVIRONMENT) as subscription:
        await destroy_environment(store, ENVIRONMENT)
        assert await subscription.next(0.05) is None
    assert set(await store.client.keys("*")) == before | {store.keys.environments.encode()}
    with pytest.raises(EnvironmentMissing):
        await destroy_environment(store, ENVIRONMENT)


async def test_the_list_has_every_environment_by_name(store: Store) -> None:
    assert await list_environments(store) == []
    positions = {name: await create_environment(store, name) for name in ("staging", ENVIRONMENT, "Dev.1")}
    await write_change(store, ENVIRONMENT, Draft(flags={"a": flag(), "b": flag()}))
    assert await list_environments(store) == [
        EnvironmentSummary("Dev.1", positions["Dev.1"], 0),
        EnvironmentSummary(ENVIRONMENT, await read_position(store, ENVIRONMENT), 2),
        EnvironmentSummary("staging", positions["staging"], 0),
    ]
    await destroy_environment(store, "staging")
    await store.client.sadd(store.keys.environments, "never created", b"\xff")
    assert [each.name for each in await list_environments(store)] == ["Dev.1", ENVIRONMENT]


async def test_prefixes_keep_apart_what_shares_a_redis(store: Store) -> None:
    async with open_store(RedisAddress(store.address.url), prefix="other") as other:
        await create_environment(other, ENVIRONMENT)
        assert await list_environments(store) == []
        with pytest.raises(EnvironmentMissing):
            await put(store, "a")
        async with subscribe(store, ENVIRONMENT) as subscription:
            await put(other, "a")
            assert await subscription.next(0.05) is None
    assert all(name.startswith(b"other:") for name in await store.client.keys("*"))
