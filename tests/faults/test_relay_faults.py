"""What becomes of relays: killed in the middle, restarted, started without Redis, with a disk that fails."""

import asyncio
import signal
from pathlib import Path

import pytest

from flagrelay.sdk.client import ClientState
from support.faults import QUICK, World, broken_world
from support.sources import until


async def test_a_relay_killed_in_the_middle_of_broadcasts_and_started_again(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        for _ in world.runs():
            relay = world.rng.choice(world.relays)
            async with world.writing(3):
                await world.pause(0.02, 0.2)
                await relay.end(signal.SIGKILL)
                await world.pause(0.0, 0.2)
                await relay.start()
                await world.pause(0.0, 0.1)
            await world.settled()


async def test_two_writers_and_a_relay_that_restarts_in_between(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        for _ in world.runs():
            await asyncio.gather(world.write("one"), world.write("two"))
            relay = world.rng.choice(world.relays)
            await relay.end(world.rng.choice([signal.SIGTERM, signal.SIGKILL]))
            await asyncio.gather(world.write("one"), world.write("two"))
            await relay.start()
            await asyncio.gather(world.write("one"), world.write("two"))
            await world.settled()


async def test_a_relay_paused_and_resumed(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        for _ in world.runs():
            relay = world.rng.choice(world.relays)
            async with world.writing(2):
                relay.send(signal.SIGSTOP)
                await world.pause(0.1, 1.0)
                relay.send(signal.SIGCONT)
                await world.pause()
            await world.settled()


async def test_a_relay_starts_without_redis_from_what_it_kept_and_says_how_old_that_is(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        for _ in world.runs():
            await world.write()
            await world.settled()
            revision = world.revision_acknowledged
            kept = relay.folder / "state" / "production.snapshot"
            await until(lambda kept=kept, known=f",{revision},": known in kept.read_text(), "the last change is kept")  # type: ignore[misc]  # bound on purpose
            relay.to_redis.refusing = True
            relay.to_redis.cut()
            await relay.end(world.rng.choice([signal.SIGTERM, signal.SIGKILL]))
            before = [dict(sdk.flags) for sdk in world.sdks]
            await relay.start()
            async with asyncio.timeout(10):
                while (await relay.report()).get("served_from") != "disk":
                    await asyncio.sleep(0.01)
            report = await relay.report()
            assert report["source"] == "stale"
            assert report["revision"] == revision
            assert 0 < report["age_ms"] < 60_000
            assert (await relay.get("/readyz"))[0] == 200
            await until(
                lambda: all(sdk.client.state is ClientState.STALE for sdk in world.sdks),
                "every SDK is connected, and knows that its flags are not fresh",
            )
            assert [sdk.flags for sdk in world.sdks] == before
            metrics = (await relay.get("/metrics"))[1]
            assert 'flagrelay_source_state{environment="production",state="stale"} 1.0' in metrics
            async with world.writing():
                await world.pause()
            await world.settled()
            assert (await relay.report()).get("served_from") is None


@pytest.mark.parametrize("grown", [0, 8])
async def test_a_relay_that_finds_less_in_redis_than_it_kept_or_something_else_begins_another_history(
    grown: int, tmp_path: Path
) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        async with world.store() as store:
            names = await store.client.keys("*")
            older = {name: await store.client.dump(name) for name in names}
        for _ in range(3):
            await world.write()
        await world.settled()
        await relay.end(signal.SIGTERM)  # in order, so that it has kept the last revision
        async with world.store() as store:
            await store.client.flushall()
            for name, value in older.items():
                await store.client.restore(name, 0, value)
        for _ in range(grown):  # past where the relay stood, so that counting alone shows nothing
            await world.write()
        await relay.start()
        await world.settled(lossy=True)
        assert (await relay.report())["histories_lost"] == 1


@pytest.mark.parametrize(
    "damage", [b"", b"garbage", b"flagrelay-state 1 snapshot 00 5\nwrong", b"flagrelay-state 9 snapshot "]
)
async def test_damaged_and_foreign_files_are_set_aside_and_never_fatal(damage: bytes, tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        await relay.end(signal.SIGTERM)
        state = relay.folder / "state"
        for path in state.iterdir():
            path.write_bytes(damage)
        await relay.start()
        await world.settled()
        assert (state / "production.snapshot.damaged").read_bytes() == damage
        assert "is damaged or foreign, and is not used" in relay.raw_log


async def test_a_state_directory_that_cannot_be_written_stops_nothing_and_is_told(tmp_path: Path) -> None:
    in_the_way = tmp_path / "in-the-way"
    in_the_way.write_text("a file where the directory should be")
    async with broken_world(tmp_path, settings={"state-dir": str(in_the_way)}) as world:
        async with world.writing():
            await world.pause()
        await world.settled()
        [relay] = world.relays
        async with asyncio.timeout(5):
            while "flagrelay_state_files_failing 2.0" not in (await relay.get("/metrics"))[1]:
                await asyncio.sleep(0.02)
        assert relay.raw_log.count("the state directory cannot be written") == 2, "once for each file"


async def test_a_disk_that_is_full_stops_nothing_and_is_written_again_once_there_is_room(tmp_path: Path) -> None:
    async with broken_world(tmp_path) as world:
        [relay] = world.relays
        state = relay.folder / "state"
        await until((state / "production.snapshot").exists, "something is kept")
        held = tmp_path / "away"
        state.rename(held)
        state.write_text("as full as a disk can be: no file can be made")
        async with world.writing():
            await world.pause()
        await world.settled()
        await until(lambda: "cannot be written" in relay.raw_log, "it says so")
        state.unlink()
        held.rename(state)
        async with world.writing():
            await world.pause()
        await world.settled()
        await until(lambda: "can be written again" in relay.raw_log, "and that it is over")


async def drained(world: World, number: int) -> None:
    """Roll one relay: it says goodbye, and another takes its place."""
    relay = world.relays[number]
    await relay.end(signal.SIGTERM)
    await relay.start()


async def test_relays_rolled_one_after_the_other_while_changes_flow(tmp_path: Path) -> None:
    async with broken_world(tmp_path, relays=2) as world:
        async with world.writing(2):
            for number in range(len(world.relays)):
                await drained(world, number)
        await world.settled()
        assert QUICK["drain-spread"]
