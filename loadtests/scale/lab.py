"""What measures run on: a private Redis with an environment of flags, a writer in its own process, and relays."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import free_port, ready, relay_process
from rig.companion import companion, until_idle

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, write_change

ENVIRONMENT = "scale"
FLAGS = 100
ROOM = 15_000  # streams for which a usual limit of descriptors has room
PADDING = "x" * 120  # makes a change about 450 bytes, as a real flag with a rule has


@dataclass(frozen=True, slots=True)
class Lab:
    """A Redis that holds an environment, and the access key to it."""

    redis: PrivateRedis
    secret: str

    def request(self, last_event_id: bytes = b"", *, gzip: bool = False) -> bytes:
        """What an SDK sends to open a stream."""
        head = b"GET /v1/stream HTTP/1.1\r\nhost: scale\r\nauthorization: Bearer %b\r\n" % self.secret.encode()
        head += b"last-event-id: %b\r\n" % last_event_id if last_event_id else b""
        head += b"accept-encoding: gzip\r\n" if gzip else b""
        return head + b"\r\n"


@contextmanager
def lab() -> Iterator[Lab]:
    """A lab, while the block lasts."""
    with private_redis(port=free_port()) as redis:
        yield Lab(redis, asyncio.run(_environment(redis.tcp_url)))


async def _environment(url: str) -> str:
    async with open_store(RedisAddress(url)) as store:
        await create_environment(store, ENVIRONMENT)
        flags = {f"flag-{number}": flag(number) for number in range(FLAGS)}
        await write_change(store, ENVIRONMENT, Draft(flags=flags, actor="scale"))
        _, secret = await create_access_key(store, ENVIRONMENT, "server", "scale", None)
        return secret


def flag(number: int) -> dict[str, Any]:
    """A flag with a rule."""
    rule = {"if": [{"in": [{"var": "email"}, ["ada@example.com", PADDING]]}, "on", "off"]}
    return {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": rule,
        "metadata": {"n": number},
    }


@contextmanager
def relay(lab: Lab, *more: str, redis_url: str = "") -> Iterator[tuple[int, int]]:
    """A relay that serves: its process id and its port."""
    room = ("--max-streams", str(ROOM))
    with relay_process(redis_url or lab.redis.tcp_url, ENVIRONMENT, *room, *more) as (process, port):
        asyncio.run(ready(port))
        yield process.pid, port


# -- the writer -------------------------------------------------------------------------------------------------------


class Writer:
    """Writes changes when told, in a process of its own, so that writing and receiving do not wait for each other."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def write(self, number: int) -> None:
        """Write one change; `written` tells when."""
        self._pipe.send((number, 0.0))

    def begin(self, number: int, every: float) -> None:
        """Write changes, numbered from `number` on, until `written` is asked for."""
        self._pipe.send((number, every))

    def written(self) -> dict[int, float]:
        """What was written since: number to Redis's clock at the write, in seconds since 1970."""
        self._pipe.send(None)
        if not self._pipe.poll(30):
            sys.exit("the writer has not answered within 30 s")
        answer: dict[int, float] = self._pipe.recv()
        return answer


@contextmanager
def writer(lab: Lab) -> Iterator[Writer]:
    """A writer that is connected and warm."""
    with companion(_write, lab.redis.tcp_url) as process:
        writes = Writer(process.pipe)
        writes.write(0)
        writes.written()
        yield writes


def _write(pipe: Connection, url: str) -> None:
    asyncio.run(_write_as_told(pipe, url))


async def _write_as_told(pipe: Connection, url: str) -> None:
    async with open_store(RedisAddress(url)) as store:
        while True:
            try:
                number, every = pipe.recv()
            except EOFError:
                return
            written = {number: await _write_one(store, number)}
            while every and not pipe.poll(every):
                number += 1
                written[number] = await _write_one(store, number)
            pipe.recv()
            pipe.send(written)


async def _write_one(store: Store, number: int) -> float:
    draft = Draft(flags={"flag-0": flag(number)}, actor="scale", urgent=True)
    return (await write_change(store, ENVIRONMENT, draft)).at / 1e6


# -- what the machine does --------------------------------------------------------------------------------------------


def settled(pid: int) -> None:
    """Wait until a relay has nothing more to do; its own checks may go on."""
    until_idle(pid, within=15.0, share=0.03)


def kernel_bytes() -> int:
    """What the kernel holds for its own objects, sockets among them."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(text.split("Slab:")[1].split()[0]) * 1024


def busy_share(seconds: float = 1.0) -> float:
    """How much of the machine's cores is in use, by whoever it may be."""
    idle, total = _ticks()
    time.sleep(seconds)
    idle, total = (after - before for after, before in zip(_ticks(), (idle, total), strict=True))
    return 1 - idle / total


def _ticks() -> tuple[int, int]:
    """The machine's idle time, and all of it."""
    ticks = [int(each) for each in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
