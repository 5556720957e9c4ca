"""Connections that break at any moment, under each event loop that a relay may run on.

uvloop refuses to write to a connection that was lost a moment ago, with a RuntimeError; asyncio's own loop does not.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.errors import StoreUnavailable
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_clock, read_position, read_snapshot
from flagrelay.store.subscription import subscribe
from support.stores import ENVIRONMENT, put

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]

Loop = Callable[[], asyncio.AbstractEventLoop]


async def listen(store: Store) -> None:
    async with subscribe(store, ENVIRONMENT) as subscription:
        for _ in range(20):
            await subscription.next(0.001)
            await subscription.ping()


ASKING: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: read_position(store, ENVIRONMENT),
    lambda store: read_snapshot(store, ENVIRONMENT),
    lambda store: read_clock(store, ENVIRONMENT),
    lambda store: put(store, "a"),
    listen,
]


async def ask(store: Store, times: int, seed: int) -> Counter[str]:
    """Say this and that. Returns how often it went well, and how often not; anything but unavailability is raised."""
    choose, outcomes = random.Random(seed), Counter[str]()
    for _ in range(times):
        try:
            await choose.choice(ASKING)(store)
        except StoreUnavailable as error:
            assert "object at 0x" not in str(error)
            assert "Transport" not in str(error)
            outcomes["lost"] += 1
        else:
            outcomes["well"] += 1
    return outcomes


@asynccontextmanager
async def cut_at_random(path: Path, backend: str, seed: int) -> AsyncIterator[None]:
    """A socket in front of a Redis that ends connections now and then, also in the middle of what they carry."""
    chance, writers = random.Random(seed), set[asyncio.StreamWriter]()

    def end(writer: asyncio.StreamWriter) -> None:
        if chance.random() < 0.5:
            writer.close()
        else:
            writer.transport.abort()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65536):
                if chance.random() < 0.03:
                    writer.write(data[: chance.randrange(len(data))])
                    break
                writer.write(data)
        end(writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(backend)
        both = {writer, far_writer}
        writers.update(both)
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
        writers.difference_update(both)

    async def cut() -> None:
        while True:
            await asyncio.sleep(chance.random() * 0.02)
            for writer in writers:
                end(writer)

    async with await asyncio.start_unix_server(serve, path):
        cutting = asyncio.create_task(cut())
        try:
            yield
        finally:
            cutting.cancel()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_cut_anywhere_is_unavailable_and_the_next_one_works(
    loop: Loop, doomed_server: PrivateRedis, tmp_path: Path
) -> None:
    async def main() -> Counter[str]:
        async with open_store(RedisAddress(doomed_server.url)) as store:
            await create_environment(store, ENVIRONMENT)
        path = tmp_path / "cut.sock"
        async with (
            cut_at_random(path, doomed_server.url.removeprefix("unix://"), 1),
            open_store(RedisAddress(f"unix://{path}")) as store,
        ):
            outcomes = await asyncio.gather(*(ask(store, 100, seed) for seed in range(3)))
        return sum(outcomes, Counter())

    with asyncio.Runner(loop_factory=loop) as runner:
        outcomes = runner.run(main())
    assert outcomes.keys() == {"lost", "well"}
    assert outcomes["well"] > 50
