"""The settings of an environment in Redis: written as a change, read by everybody, broken by nobody else's writes."""

import pytest

from flagrelay.errors import StoreCorrupt
from flagrelay.flags.change import Change
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_flag_snapshot, read_populations, read_snapshot, read_state
from flagrelay.store.subscription import subscribe
from flagrelay.store.writing import Draft, kill_flag, revive_flag, write_change
from flagrelay.wire.message import decode_message
from support.fakes import definition

ENVIRONMENT = "production"
CHOSEN = EnvironmentSettings("v2", ("https://a.example", "*"))


@pytest.fixture
async def redis(store: Store) -> Store:
    """With an environment that has a flag and a population."""
    await create_environment(store, ENVIRONMENT)
    rule = {"in": ["x", {"var": "email"}]}
    await write_change(store, ENVIRONMENT, Draft(flags={"a": definition(1)}, evaluators={"team": rule}))
    return store


async def test_an_environment_has_the_defaults_until_it_has_its_own(redis: Store) -> None:
    assert (await read_snapshot(redis, ENVIRONMENT)).settings == EnvironmentSettings()
    await write_change(redis, ENVIRONMENT, Draft(settings=CHOSEN))
    for read in (read_snapshot, read_state):
        assert (await read(redis, ENVIRONMENT)).settings == CHOSEN
    assert (await read_flag_snapshot(redis, ENVIRONMENT, "a")).settings == CHOSEN


async def test_they_come_as_a_change_like_any_other(redis: Store) -> None:
    async with subscribe(redis, ENVIRONMENT) as subscription:
        written = await write_change(redis, ENVIRONMENT, Draft(settings=CHOSEN, actor="ada", reason="why"))
        change = decode_message(await subscription.next(5) or b"")
    assert isinstance(change, Change)
    assert (change.revision, change.settings, change.actor, dict(change.flags)) == (written.revision, CHOSEN, "ada", {})
    [logged] = await read_changes(redis, ENVIRONMENT, written.revision - 1)
    assert logged == change
    assert (await read_snapshot(redis, ENVIRONMENT)).flags == {"a": definition(1)}


async def test_whatever_else_is_written_leaves_them_alone(redis: Store) -> None:
    await write_change(redis, ENVIRONMENT, Draft(settings=CHOSEN))
    await kill_flag(redis, ENVIRONMENT, "a")
    await revive_flag(redis, ENVIRONMENT, "a")
    await write_change(redis, ENVIRONMENT, Draft(flags={"b": definition(2)}, metadata={"team": "x"}))
    assert (await read_state(redis, ENVIRONMENT)).settings == CHOSEN


async def test_what_a_later_version_adds_is_left_alone_and_what_is_broken_is_said(redis: Store) -> None:
    state = redis.keys.state(ENVIRONMENT)
    await redis.client.hset(state, "settings", '{"fractional": "v2", "later": {"x": 1}}')
    assert (await read_snapshot(redis, ENVIRONMENT)).settings == EnvironmentSettings("v2")
    for broken in ("", "[]", "5", '{"fractional": "v9"}', '{"origins": "x"}', '{"origins": [1]}'):
        await redis.client.hset(state, "settings", broken)
        with pytest.raises(StoreCorrupt, match="settings of environment"):
            await read_snapshot(redis, ENVIRONMENT)


async def test_a_snapshot_of_one_flag_has_what_it_may_refer_to_and_nothing_else(redis: Store) -> None:
    await write_change(redis, ENVIRONMENT, Draft(flags={"b": definition(2)}, metadata={"team": "x"}))
    snapshot = await read_flag_snapshot(redis, ENVIRONMENT, "a")
    assert snapshot.flags.keys() == {"a"}
    assert snapshot.evaluators.keys() == {"team"}
    assert snapshot.metadata == {"team": "x"}
    assert not (await read_flag_snapshot(redis, ENVIRONMENT, "nope")).flags
    assert await read_populations(redis, ENVIRONMENT) == {"team"}
