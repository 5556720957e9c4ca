"""A write that is done once replicas have it."""

from pathlib import Path

import pytest

from flagrelay.cli.private_redis import private_redis
from flagrelay.errors import ReplicasMissing, SettingError
from flagrelay.store import replicas as replicas_module
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_position
from flagrelay.store.replicas import replicated
from flagrelay.store.writing import Draft, Written, write_change
from support.fakes import definition
from support.stores import ENVIRONMENT, free_ports, until


async def write(store: Store) -> Written:
    return await write_change(store, ENVIRONMENT, Draft(flags={"flag": definition(1)}, actor="ada"))


async def test_without_replicas_wanted_nothing_is_waited_for(store: Store) -> None:
    await create_environment(store, ENVIRONMENT)
    assert (await replicated(0, write)(store)).revision == 1


async def test_too_few_replicas_are_an_error_although_it_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas_module, "PATIENCE", 0.05)
    await create_environment(store, ENVIRONMENT)
    with pytest.raises(ReplicasMissing, match=r"written, but only 0 of 1 replicas had it within 0.05 s"):
        await replicated(1, write)(store)
    assert (await read_position(store, ENVIRONMENT)).revision == 1


async def test_a_write_that_a_replica_has_is_done(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with private_redis(port=port) as master, private_redis(folder=tmp_path) as replica:
        async with (
            open_store(RedisAddress(master.url)) as store,
            open_store(RedisAddress(replica.url)) as copy,
        ):
            await create_environment(store, ENVIRONMENT)
            await copy.client.execute_command("REPLICAOF", "127.0.0.1", str(port))

            async def follows() -> bool:
                return bool((await copy.client.info("replication")).get("master_link_status") == "up")

            await until(follows)
            written = await replicated(1, write)(store)
            assert (await read_position(copy, ENVIRONMENT)).revision == written.revision == 1


async def test_a_cluster_is_told_that_it_cannot_be_waited_for(store: Store) -> None:
    clustered = Store(store.client, store.keys, RedisAddress("redis://127.0.0.1:1", cluster=True))
    with pytest.raises(SettingError, match="does not work with a Redis Cluster"):
        await replicated(1, write)(clustered)
