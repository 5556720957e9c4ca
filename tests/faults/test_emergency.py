"""Un-release without Redis: a kill on relays themselves, what it outlives, and how it ends."""

import asyncio
import signal
from pathlib import Path
from typing import Any

from flagrelay.errors import StreamError
from flagrelay.flags.local_kill import MARKER
from flagrelay.sdk.asking import list_kills, put_kill, withdraw_kill
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.reading import read_flag
from flagrelay.store.writing import kill_flag, revive_flag
from support.faults import ENVIRONMENT, RelayProcess, World, broken_world
from support.sources import until

FLAG = "flag-0"


async def admin(world: World) -> str:
    """An admin key that every relay has heard of."""
    async with world.store() as store:
        _, secret = await create_access_key(store, ENVIRONMENT, "admin", "ada", None)
    for relay in world.relays:
        async with asyncio.timeout(10):
            while True:
                try:
                    await list_kills(url(relay), secret)
                    break
                except StreamError:
                    await asyncio.sleep(0.01)
    return secret


def url(relay: RelayProcess) -> str:
    return f"http://127.0.0.1:{relay.port}"


def cut_off(world: World) -> None:
    for relay in world.relays:
        relay.to_redis.refusing = True
        relay.to_redis.cut()


async def everywhere(world: World, secret: str, **kill: Any) -> None:
    for relay in world.relays:
        await put_kill(url(relay), secret, FLAG, **{"to": None, "actor": "ada", "reason": "errors", **kill})


def killed(world: World) -> list[bool]:
    return [sdk.flags[FLAG].get("metadata", {}).get(MARKER, False) for sdk in world.sdks]


async def test_a_kill_reaches_every_stream_without_redis_and_is_written_once_redis_is_back(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        secret = await admin(world)
        for _ in world.runs():
            await world.write(FLAG)
            await world.settled()
            cut_off(world)
            await everywhere(world, secret)
            await until(lambda: all(killed(world)), "every stream has it")
            assert all(sdk.flags[FLAG]["state"] == "DISABLED" for sdk in world.sdks)
            assert all("~" in sdk.client.replica.id for sdk in world.sdks)
            for relay in world.relays:
                report = await relay.report()
                assert report["local_kills"] == {"local": 1}
                metrics = (await relay.get("/metrics"))[1]
                assert 'flagrelay_local_kills{environment="production",state="local"} 1.0' in metrics
            await world.settled()
            async with world.store() as store:
                entry = await read_flag(store, ENVIRONMENT, FLAG)
                assert entry.killed
                assert (entry.killed.actor, entry.killed.reason) == ("ada", "errors")
                await revive_flag(store, ENVIRONMENT, FLAG)
            for relay in world.relays:
                assert (await list_kills(url(relay), secret))["kills"] == []
            assert not any(killed(world))


async def test_a_kill_outlives_the_relay_that_holds_it(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        secret = await admin(world)
        await world.write(FLAG)
        await world.settled()
        kept = relay.folder / "state" / "production.snapshot"
        await until(lambda: FLAG in kept.read_text(), "the flag is kept")
        cut_off(world)
        answer = await put_kill(url(relay), secret, FLAG, to="on", actor="ada", reason="errors")
        assert answer["kept"] is True
        await relay.end(signal.SIGKILL)
        await relay.start()
        await until(lambda: all(killed(world)), "every stream still has it")
        assert all(sdk.flags[FLAG]["defaultVariant"] == "on" for sdk in world.sdks)
        await world.settled()
        async with world.store() as store:
            entry = await read_flag(store, ENVIRONMENT, FLAG)
        assert entry.killed
        assert entry.killed.to == "on"


async def test_a_newer_change_in_redis_is_not_overwritten_and_the_kill_is_not_dropped(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        secret = await admin(world)
        for _ in world.runs():
            await world.write(FLAG)
            await world.settled()
            cut_off(world)
            await everywhere(world, secret)
            await world.write(FLAG)  # by somebody who has a way to Redis
            relay.to_redis.restore()
            async with asyncio.timeout(10):
                while (await relay.report()).get("local_kills") != {"conflict": 1}:
                    await asyncio.sleep(0.01)
            async with world.store() as store:
                entry = await read_flag(store, ENVIRONMENT, FLAG)
            assert entry.killed is None, "the newer change is untouched"
            number = entry.definition["metadata"]["n"]
            await until(lambda: all(killed(world)), "and the flag stays killed here")
            await until(
                lambda number=number: all(sdk.flags[FLAG]["metadata"]["n"] == number for sdk in world.sdks),  # type: ignore[misc]  # bound on purpose
                "as it is now",
            )
            [standing] = (await list_kills(url(relay), secret))["kills"]
            assert "was changed in Redis since" in standing["why"]
            if world.rng.random() < 0.5:
                await withdraw_kill(url(relay), secret, FLAG)
                await world.settled()
                assert not any(killed(world))
            else:
                await everywhere(world, secret)  # again, by somebody who has seen the change
                await world.settled()
                async with world.store() as store:
                    assert (await read_flag(store, ENVIRONMENT, FLAG)).killed
                    await revive_flag(store, ENVIRONMENT, FLAG)


async def test_a_kill_that_somebody_has_put_in_redis_meanwhile_is_the_same_kill(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        secret = await admin(world)
        for _ in world.runs():
            await world.write(FLAG)
            await world.settled()
            cut_off(world)
            await everywhere(world, secret)
            async with world.store() as store:
                await kill_flag(store, ENVIRONMENT, FLAG, actor="bob", reason="the same")
            await world.settled()
            async with world.store() as store:
                entry = await read_flag(store, ENVIRONMENT, FLAG)
                assert entry.killed
                assert entry.killed.actor == "bob", "nobody has written over it"
                await revive_flag(store, ENVIRONMENT, FLAG)
            for relay in world.relays:
                assert (await list_kills(url(relay), secret))["kills"] == []


async def test_a_kill_while_redis_is_there_is_written_at_once(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        secret = await admin(world)
        await world.write(FLAG)
        await world.settled()
        await put_kill(url(world.relays[0]), secret, FLAG, to=None, actor="ada", reason="errors")
        await until(
            lambda: all(sdk.flags[FLAG]["state"] == "DISABLED" for sdk in world.sdks),
            "every stream of every relay has it, through Redis",
        )
        await world.settled()


async def test_kills_come_and_go_while_redis_does_and_changes_flow(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        secret = await admin(world)
        await world.write(FLAG)
        await world.settled()
        for _ in world.runs():
            async with world.writing(2):
                for _ in range(4):
                    relay = world.rng.choice(world.relays)
                    relay.to_redis.refusing = True
                    relay.to_redis.cut()
                    await put_kill(url(relay), secret, FLAG, to=world.rng.choice([None, "on"]), actor="a", reason="r")
                    await world.pause(0.0, 0.2)
                    relay.to_redis.restore()
                    await world.pause(0.0, 0.3)
            for relay in world.relays:
                for standing in (await list_kills(url(relay), secret))["kills"]:
                    await withdraw_kill(url(relay), secret, standing["flag"])
            async with world.store() as store:
                if (await read_flag(store, ENVIRONMENT, FLAG)).killed:
                    await revive_flag(store, ENVIRONMENT, FLAG)
            await world.settled()
            assert not any(killed(world))
