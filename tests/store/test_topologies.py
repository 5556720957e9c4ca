"""A real Sentinel and a real Cluster, each of one node: whatever works with one Redis works with them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flagrelay.cli.kept import kept
from flagrelay.cli.private_redis import PrivateRedis, find_server, private_redis
from flagrelay.errors import Conflict, EnvironmentMissing, StoreUnavailable
from flagrelay.store import connection
from flagrelay.store.access_keys import create_access_key, list_access_keys, revoke_access_key
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, destroy_environment, list_environments
from flagrelay.store.history import read_actions, read_history
from flagrelay.store.reading import read_clock, read_flag, read_position, read_snapshot, read_state
from flagrelay.store.subscription import subscribe, subscribe_keys
from flagrelay.store.writing import Draft, kill_flag, renew_epoch, revive_flag, write_change
from flagrelay.wire.message import decode_message
from support.released import KEY, POPULATIONS, held, started
from support.stores import ENVIRONMENT, cluster_port, flag, free_ports, put, until


@contextmanager
def sentinel(folder: Path, master: PrivateRedis) -> Iterator[int]:
    """A Sentinel that watches a master as `main`. Yields its port."""
    [port] = free_ports(1)
    settings = folder / "sentinel.conf"
    settings.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {master.port} 1\n")
    with kept([find_server(), str(settings), "--sentinel"], log=folder / "sentinel.log", quiet=True):
        yield port


async def answers(port: int) -> bool:
    async with Redis(port=port) as client:
        with suppress(RedisError):
            return bool(await cast("Any", client).ping())
    return False


@pytest.fixture
async def behind_sentinel(tmp_path: Path) -> AsyncIterator[RedisAddress]:
    [port] = free_ports(1)
    with private_redis(port=port) as master, sentinel(tmp_path, master) as sentinel_port:
        await until(lambda: answers(sentinel_port))
        yield RedisAddress(
            "redis://ignored:1/3", sentinels=("127.0.0.1:1", f"127.0.0.1:{sentinel_port}"), sentinel_master="main"
        )


@pytest.fixture
async def cluster() -> AsyncIterator[RedisAddress]:
    with private_redis("--cluster-enabled", "yes", port=cluster_port()) as server:
        async with Redis.from_url(server.url) as connected:
            client = cast("Any", connected)  # redis-py leaves this untyped
            await client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))

            async def ready() -> bool:
                return bool((await client.execute_command("CLUSTER INFO"))["cluster_state"] == "ok")

            await until(ready)
        yield RedisAddress(server.tcp_url, cluster=True)


async def everything_works(store: Store) -> None:
    with pytest.raises(EnvironmentMissing):
        await put(store, "a")
    await create_environment(store, ENVIRONMENT)
    await create_environment(store, "staging")
    async with subscribe(store, ENVIRONMENT) as changes, subscribe_keys(store) as keys:
        await put(store, "a", 1)
        killed = await kill_flag(store, ENVIRONMENT, "a", to="off")
        await revive_flag(store, ENVIRONMENT, "a")
        heard = [decode_message(await changes.next(5) or b"").revision for _ in range(3)]
        assert heard == [1, 2, 3]
        assert await changes.next(0.05) is None
        await changes.ping()
        key, _ = await create_access_key(store, ENVIRONMENT, "server", "web", None)
        assert await keys.next(5)
    with pytest.raises(Conflict):
        await put(store, "a", 2, expected_flags={"a": 1})
    await a_release_works(store)
    assert (await read_snapshot(store, ENVIRONMENT)).flags == {"a": flag(1)}
    assert (await read_state(store, ENVIRONMENT)).flags["a"] == await read_flag(store, ENVIRONMENT, "a")
    assert (await read_changes(store, ENVIRONMENT, 1))[0].at == killed.at
    assert await read_clock(store, ENVIRONMENT) > killed.at
    position = await read_position(store, ENVIRONMENT)
    assert (await renew_epoch(store, ENVIRONMENT, position)).epoch != position.epoch
    assert [(each.name, each.flags) for each in await list_environments(store)] == [(ENVIRONMENT, 1), ("staging", 0)]
    assert await list_access_keys(store) == [key] == [await revoke_access_key(store, key.id)]
    await destroy_environment(store, ENVIRONMENT)


async def a_release_works(store: Store) -> None:
    """Flag, release, history and actions are in one slot; then all of it is gone again."""
    release = await started(store)
    await kill_flag(store, ENVIRONMENT, KEY)
    assert (await held(store))[1].release == release == (await read_state(store, ENVIRONMENT)).releases[KEY].release
    assert [entry.action async for entry in read_actions(store, ENVIRONMENT, KEY)] == ["kill", "start", "plan"]
    assert (await anext(read_history(store, ENVIRONMENT))).action == "kill"
    gone = dict.fromkeys((*POPULATIONS,))
    await write_change(store, ENVIRONMENT, Draft(flags={KEY: None}, evaluators=gone, over_releases=True))


async def test_everything_works_behind_a_sentinel(behind_sentinel: RedisAddress) -> None:
    async with open_store(behind_sentinel) as store:
        await everything_works(store)
        assert (await store.client.info("keyspace")).keys() == {"db3"}, "the URL's database number is heeded"


async def test_everything_works_in_a_cluster(cluster: RedisAddress) -> None:
    async with open_store(cluster) as store:
        async with subscribe(store, "first"):
            pass  # the first thing ever said, when the client knows of no node yet
        await everything_works(store)


async def test_a_master_that_should_speak_tls_is_never_spoken_to_without(
    behind_sentinel: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.2)
    address = RedisAddress(
        "rediss://:password@ignored",
        sentinels=behind_sentinel.sentinels,
        sentinel_master=behind_sentinel.sentinel_master,
    )
    async with open_store(address) as store:
        with pytest.raises(StoreUnavailable):
            await read_position(store, ENVIRONMENT)
