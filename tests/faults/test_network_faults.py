"""What a network does on either side of a relay: it loses, doubles, mixes up; connections are cut, half-open, slow."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from support.faults import ENVIRONMENT, World, broken_world
from support.proxy import Proxy
from support.sources import until


def dropped(world: World) -> Callable[[bytes], list[bytes]]:
    return lambda frame: [] if world.rng.random() < 0.5 else [frame]


def doubled(world: World) -> Callable[[bytes], list[bytes]]:
    return lambda frame: [frame] * world.rng.randint(1, 3)


def reordered(world: World) -> Callable[[bytes], list[bytes]]:
    held: list[bytes] = []

    def pass_on(frame: bytes) -> list[bytes]:
        held.append(frame)
        if world.rng.random() < 0.6:
            return []
        world.rng.shuffle(held)
        passed, held[:] = list(held), []
        return passed

    return pass_on


def all_at_once(world: World) -> Callable[[bytes], list[bytes]]:
    ways = [dropped(world), doubled(world), reordered(world)]

    def pass_on(frame: bytes) -> list[bytes]:
        return world.rng.choice(ways)(frame)

    return pass_on


@pytest.mark.parametrize("fault", [dropped, doubled, reordered, all_at_once])
async def test_pubsub_messages_lost_doubled_and_out_of_order(
    fault: Callable[[World], Callable[[bytes], list[bytes]]], tmp_path: Path
) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            for relay in world.relays:
                relay.to_redis.on_message = fault(world)
            async with world.writing(2):
                await world.pause(0.2, 0.6)
            await world.settled()


async def test_the_last_message_lost_is_found_by_comparing(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            for relay in world.relays:
                relay.to_redis.on_message = lambda _frame: []
            await world.write()
            revision = world.revision_acknowledged
            await until(
                lambda revision=revision: all(  # type: ignore[misc]  # bound on purpose
                    sdk.client.replica.id.endswith(f".{revision}") for sdk in world.sdks
                ),
                "every stream has what no message told of",
            )
            await world.settled()


async def test_the_subscribers_connection_killed_by_redis(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            async with world.writing(2):
                for _ in range(3):
                    await world.pause(0.02, 0.2)
                    async with world.store() as store:
                        await store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await world.settled()


@pytest.mark.parametrize(
    ("up", "down", "pubsub_only"), [(True, True, False), (True, False, False), (False, True, False), (True, True, True)]
)
async def test_redis_half_open(up: bool, down: bool, pubsub_only: bool, tmp_path: Path) -> None:  # noqa: FBT001 - cases
    async with broken_world(tmp_path) as world:
        async with world.writing():
            await world.pause()
            for relay in world.relays:
                relay.to_redis.blackhole(up=up, down=down, pubsub_only=pubsub_only)
            await world.pause(0.3, 2.0)
        for relay in world.relays:
            relay.to_redis.restore(drop=world.rng.random() < 0.5)
        await world.settled()


async def test_redis_cut_again_and_again(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        for _ in world.runs():
            async with world.writing(2):
                for _ in range(8):
                    await world.pause(0.01, 0.15)
                    world.rng.choice(world.relays).to_redis.cut()
            await world.settled()


def cut(proxy: Proxy, _world: World) -> None:
    proxy.cut()


def half_open(proxy: Proxy, _world: World) -> None:
    proxy.blackhole()


def stalled(proxy: Proxy, _world: World) -> None:
    proxy.stall = True


def slow(proxy: Proxy, world: World) -> None:
    proxy.throttle = world.rng.uniform(2_000, 20_000)


def refused(proxy: Proxy, _world: World) -> None:
    proxy.refusing = True
    proxy.cut()


@pytest.mark.parametrize("fault", [cut, half_open, stalled, slow, refused])
async def test_the_way_to_the_sdks_fails(fault: Callable[[Proxy, World], None], tmp_path: Path) -> None:
    async with broken_world(tmp_path, sdks=4) as world:
        [relay] = world.relays
        for _ in world.runs():
            async with world.writing(2):
                for _ in range(3):
                    await world.pause(0.02, 0.2)
                    fault(relay.to_sdks, world)
                    await world.pause(0.02, 0.4)
                    relay.to_sdks.restore(drop=world.rng.random() < 0.5)
            await world.settled()
            assert all(sdk.flags for sdk in world.sdks)


async def test_an_sdk_on_a_half_open_connection_knows_that_it_is_stale_and_finds_its_way_back(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        states = [sdk.states for sdk in world.sdks]
        for sdk_states in states:
            sdk_states.clear()
        relay.to_sdks.blackhole()
        await until(
            lambda: all(sdk_states == ["STALE"] for sdk_states in states), "every SDK is STALE, and nothing else"
        )
        relay.to_sdks.restore(drop=True)
        await world.settled()


async def test_everything_at_once(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        for _ in world.runs():
            async with world.writing(3):
                for relay in world.relays:
                    relay.to_redis.on_message = all_at_once(world)
                    relay.to_redis.delay = world.rng.uniform(0, 0.02)
                for _ in range(6):
                    await world.pause(0.02, 0.2)
                    relay = world.rng.choice(world.relays)
                    world.rng.choice([relay.to_redis, relay.to_sdks]).cut()
                async with world.store() as store:
                    await store.client.xtrim(store.keys.changes(ENVIRONMENT), maxlen=5, approximate=False)
            await asyncio.sleep(0)
            await world.settled()
