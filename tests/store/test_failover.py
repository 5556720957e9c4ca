"""A master dies, its replica takes over, and whoever was connected goes on by trying again, as relays do."""

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from flagrelay.cli.kept import kept
from flagrelay.cli.private_redis import PrivateRedis, find_server, private_redis
from flagrelay.errors import EnvironmentExists, StoreUnavailable
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_position
from flagrelay.store.subscription import subscribe
from support.stores import ENVIRONMENT, cluster_port, free_ports, put, until

SLOTS = [range(5461), range(5461, 10923), range(10923, 16384)]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Node:
    """A server of its own, and a client to speak to it alone."""

    def __init__(self, server: PrivateRedis, client: Redis) -> None:
        self.server = server
        self.client = cast("Any", client)  # redis-py leaves commands untyped

    async def replicates(self) -> bool:
        info = await self.client.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")

    async def leads(self) -> bool:
        return bool((await self.client.info("replication"))["role"] == "master")


async def node(stack: AsyncExitStack, port: int, *arguments: str) -> Node:
    server = stack.enter_context(private_redis("--repl-diskless-sync-delay", "0", *arguments, port=port))
    return Node(server, await stack.enter_async_context(Redis(port=port)))


async def goes_on(store: Store, master: Node, replica: Node) -> None:
    """Lose the master while subscribed, and subscribe again, with nothing said in between."""

    async def created() -> bool:
        try:
            await create_environment(store, ENVIRONMENT)
        except EnvironmentExists:
            return True
        except StoreUnavailable:  # several servers that have just started keep a busy machine from answering in time
            return False
        return True

    await until(created, seconds=20)
    await put(store, "a")
    await until(replica.replicates)
    assert await master.client.execute_command("WAIT", 1, 5000) == 1
    async with subscribe(store, ENVIRONMENT) as subscription:
        master.server.signal(signal.SIGKILL)
        with pytest.raises(StoreUnavailable):
            await subscription.next(5)

    async def subscribed() -> bool:
        try:
            async with subscribe(store, ENVIRONMENT) as subscription:
                await put(store, "a")
                return await subscription.next(5) is not None
        except StoreUnavailable:
            return False

    await until(subscribed, seconds=20)
    assert await replica.leads()
    assert (await read_position(store, ENVIRONMENT)).revision >= 2


async def test_a_subscription_is_had_again_after_a_failover_in_a_cluster(stack: AsyncExitStack) -> None:
    nodes = [
        await node(stack, cluster_port(), "--cluster-enabled", "yes", "--cluster-node-timeout", "500") for _ in range(4)
    ]
    for number, (each, slots) in enumerate(zip(nodes, SLOTS, strict=False), 1):
        await each.client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        await each.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
    for each in nodes[1:]:
        await nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", each.server.port)
    for each in nodes:

        async def whole(each: Node = each) -> bool:
            info = await each.client.execute_command("CLUSTER INFO")
            return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "4")

        await until(whole)
    slot = key_slot(f"{{{ENVIRONMENT}}}".encode())
    [master] = [each for each, slots in zip(nodes, SLOTS, strict=False) if slot in slots]
    other = nodes[nodes.index(master) - 1] if master is not nodes[0] else nodes[1]
    await nodes[3].client.execute_command(
        "CLUSTER", "REPLICATE", await master.client.execute_command("CLUSTER", "MYID")
    )
    async with open_store(RedisAddress(other.server.tcp_url, cluster=True)) as store:
        await goes_on(store, master, nodes[3])


async def test_a_subscription_is_had_again_after_a_failover_behind_a_sentinel(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    ports = free_ports(3)
    master = await node(stack, ports[0])
    replica = await node(stack, ports[1], "--replicaof", "127.0.0.1", str(ports[0]))
    await until(replica.replicates)
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"port {ports[2]}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
    )
    stack.enter_context(kept([find_server(), str(settings), "--sentinel"], log=tmp_path / "sentinel.log", quiet=True))
    sentinel = cast("Any", await stack.enter_async_context(Redis(port=ports[2])))

    async def knows_the_replica() -> bool:
        try:
            return bool(await sentinel.sentinel_slaves("main"))
        except ConnectionError:
            return False

    await until(knows_the_replica)
    address = RedisAddress("redis://ignored", sentinels=(f"127.0.0.1:{ports[2]}",), sentinel_master="main")
    async with open_store(address) as store:
        await goes_on(store, master, replica)
