import asyncio

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_clock, read_position
from flagrelay.store.writing import kill_flag, revive_flag
from support.stores import ENVIRONMENT, put


async def scripts_sent(store: Store) -> int:
    return int((await store.client.info("commandstats")).get("cmdstat_eval", {"calls": 0})["calls"])


async def test_a_script_is_sent_once_and_then_named(store: Store, empty: Snapshot) -> None:
    await store.client.script_flush()
    before = await scripts_sent(store)
    for number in range(5):
        await put(store, "a", number)
    assert await scripts_sent(store) == before + 1


async def test_scripts_that_redis_forgot_are_sent_again(store: Store, empty: Snapshot) -> None:
    for number in range(3):
        await store.client.script_flush()
        await asyncio.gather(*(put(store, f"flag-{each}", number) for each in range(5)))
        await store.client.script_flush()
        await kill_flag(store, ENVIRONMENT, "flag-0")
        await store.client.script_flush()
        await revive_flag(store, ENVIRONMENT, "flag-0")
        await store.client.script_flush()
        assert await read_clock(store, ENVIRONMENT)
    assert (await read_position(store, ENVIRONMENT)).revision == 3 * 7, "nothing was written twice"


async def test_a_write_after_a_restart_of_redis_goes_through(doomed_server: PrivateRedis) -> None:
    async with open_store(RedisAddress(doomed_server.url)) as store:
        await create_environment(store, ENVIRONMENT)
        await put(store, "a")
        await store.client.save()
        await store.client.shutdown(nosave=True)
        with private_redis(folder=doomed_server.folder):
            assert (await put(store, "a")).revision == 2
