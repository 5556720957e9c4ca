"""What Redis does when it fails: killed, paused, full, flushed, slow; with real servers and real relay processes."""

import asyncio
import signal
from pathlib import Path

from flagrelay.sdk.client import ClientState
from flagrelay.store.connection import RedisAddress, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_position
from support.faults import ENVIRONMENT, RUNS, Redis, World, broken_world
from support.sources import until
from support.stores import free_ports


async def reports(world: World, source: str) -> None:
    """Wait until every relay says that its source is in a state."""
    for relay in world.relays:
        async with asyncio.timeout(15):
            while (await relay.report()).get("source") != source:
                await asyncio.sleep(0.01)


async def test_redis_killed_and_started_again_with_its_data(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            async with world.writing(2):
                await world.pause()
                world.redis.kill()
                await world.pause()
                world.redis.start()
                await world.pause()
            await world.settled()


async def test_redis_killed_and_started_again_without_its_data_changes_nothing_until_somebody_fills_it(
    tmp_path: Path,
) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            flags = [dict(sdk.flags) for sdk in world.sdks]
            world.redis.kill()
            world.redis.start(with_data=False)
            await reports(world, "stale")
            await until(
                lambda: all(sdk.client.state is ClientState.STALE for sdk in world.sdks),
                "the SDKs know that it is lost",
            )
            for relay in world.relays:
                assert "does not exist in Redis" in (await relay.report())["reason"]
                assert (await relay.get("/readyz"))[0] == 200, "what is served is still good"
            assert [sdk.flags for sdk in world.sdks] == flags, "nothing was taken from anybody"
            async with world.store() as store:
                await create_environment(store, ENVIRONMENT)
            async with world.writing():
                await world.pause()
            await world.settled(lossy=True)


async def test_redis_flushed_while_changes_flow(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            async with world.writing():
                await world.pause()
                async with world.store() as store:
                    await store.client.flushall()
                await world.pause()
            assert all(sdk.flags for sdk in world.sdks)
            async with world.store() as store:
                await create_environment(store, ENVIRONMENT)
            await world.settled(lossy=True)
            for relay in world.relays:
                assert (await relay.report()).get("histories_lost", 0) == 0, "another epoch is no lost history"


async def test_redis_paused_and_resumed(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            async with world.writing():
                await world.pause()
                world.redis.server.signal(signal.SIGSTOP)
                await world.pause(0.1, 1.5)
                world.redis.server.signal(signal.SIGCONT)
                await world.pause()
            await world.settled()


async def test_redis_out_of_memory_refuses_writers_and_loses_nobody(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            world.acknowledged.unknown = 0
            async with world.writing():
                await world.pause()
                async with world.store() as store:
                    await store.client.config_set("maxmemory", "1mb")
                await until(lambda: world.acknowledged.unknown, "writers are refused")
                await world.pause()
                async with world.store() as store:
                    await store.client.config_set("maxmemory", "0")
                await world.pause()
            await world.settled()


async def test_redis_slow(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            for relay in world.relays:
                relay.to_redis.delay = world.rng.uniform(0.02, 0.2)
                relay.to_redis.throttle = world.rng.uniform(5_000, 50_000)
            async with world.writing():
                await world.pause(0.5, 1.0)
            await world.settled()


async def test_a_changelog_trimmed_during_an_outage(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            for relay in world.relays:
                relay.to_redis.refusing = True
                relay.to_redis.cut()
            async with world.writing(3):
                await world.pause(0.2, 0.4)
            async with world.store() as store:
                await store.client.xtrim(
                    store.keys.changes(ENVIRONMENT), maxlen=world.rng.randint(0, 3), approximate=False
                )
            await world.settled()


async def test_the_output_buffer_limit_of_redis_cuts_a_relay_that_does_not_read(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        async with world.store() as store:
            await store.client.config_set("client-output-buffer-limit", "pubsub 65536 32768 1")
        for _ in world.runs():
            relay.send(signal.SIGSTOP)
            relay.to_redis.stall = True
            async with world.writing(4):
                await world.pause(0.2, 0.5)
                async with world.store() as store:
                    padding = "x" * 60_000
                    for _ in range(300):  # past what sockets and the proxy hold
                        await store.client.publish(store.keys.changes(ENVIRONMENT), padding)
                    await until(lambda: "output buffer limits" in world.redis.server.log, "Redis has cut it")
            relay.send(signal.SIGCONT)
            await world.settled()


async def test_a_failover_to_a_stale_replica_takes_every_stream_back_with_it_and_says_so(tmp_path: Path) -> None:
    for run in range(RUNS):
        folder = tmp_path / f"run-{run}"
        folder.mkdir()
        async with broken_world(folder, relays=2, redis_port=free_ports(1)[0]) as world:
            replica = Redis(folder / "replica", port=free_ports(1)[0])
            try:
                await _fail_over(world, replica)
            finally:
                replica.close()


async def _fail_over(world: World, replica: Redis) -> None:
    master = world.redis
    async with open_store(RedisAddress(replica.server.url)) as copy:
        await copy.client.execute_command("REPLICAOF", "127.0.0.1", str(master.port))
        async with asyncio.timeout(15):
            while (await copy.client.info("replication")).get("master_link_status") != "up":
                await asyncio.sleep(0.01)
        async with world.writing():
            await world.pause()
            await copy.client.execute_command("REPLICAOF", "NO", "ONE")
            promoted_at = (await read_position(copy, ENVIRONMENT)).revision
            await until(lambda: world.revision_acknowledged > promoted_at + 3, "changes that the replica never had")
    lost_epoch = world.sdks[0].client.replica.id.partition(".")[0]
    master.kill()
    world.redis = replica
    for relay in world.relays:
        relay.to_redis.backend = replica.backend
        relay.to_redis.cut()
    async with world.writing():
        await world.pause(0.0, 0.3)
    await world.settled(lossy=True)
    assert all(sdk.client.replica.id.partition(".")[0] != lost_epoch for sdk in world.sdks)
    lost = [(await relay.report()).get("histories_lost", 0) for relay in world.relays]
    assert sum(lost) >= 1, "somebody says that Redis lost changes"
    assert any("Redis lost changes" in relay.raw_log for relay in world.relays)
    metrics = [(await relay.get("/metrics"))[1] for relay in world.relays]
    assert any('flagrelay_source_histories_lost_total{environment="production"} 1.0' in text for text in metrics)
