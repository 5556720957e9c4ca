"""What the store's tests share: an environment to write to, its history, and everything that a Redis holds."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson

from flagrelay.cli.private_redis import find_server
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.writing import Draft, Written, write_change

ENVIRONMENT = "production"


def debuggable() -> list[str]:
    """What a server must be told so that DEBUG works: since Redis 7 it is off, before that it always was on."""
    version = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    major = re.search(r"v=(\d+)", version)
    return ["--enable-debug-command", "yes"] if major and int(major[1]) >= 7 else []


def flag(number: int = 0, **members: Any) -> dict[str, Any]:
    """A definition that differs by a number."""
    return {"state": "ENABLED", "variants": {"on": number, "off": -1}, "defaultVariant": "on", **members}


async def put(store: Store, key: str, number: int = 0, **options: Any) -> Written:
    """Write one flag."""
    return await write_change(store, ENVIRONMENT, Draft(flags={key: flag(number)}, **options))


async def stored(store: Store, key: str) -> str:
    """The text of a definition as it stands in Redis, in an entry that the script wrote."""
    text: bytes = await store.client.hget(store.keys.flags(ENVIRONMENT), key)
    revision, _, rest = text.decode().partition(',"flag":')
    assert revision == f'{{"revision":{orjson.loads(text)["revision"]}'
    assert rest.endswith("}")
    return rest[:-1]


async def plant(store: Store, key: str, text: str, revision: int = 7) -> None:
    """A definition in an entry of another tool: other whitespace, other order, no count of flags."""
    entry = f' {{ "flag" :\t{text} ,\n "by": "a tool",  "revision": {revision} }} '
    await store.client.hset(store.keys.flags(ENVIRONMENT), key, entry)
    await store.client.hdel(store.keys.state(ENVIRONMENT), "flags")


async def everything(store: Store) -> dict[bytes, Any]:
    """All that a Redis holds, to compare with later."""
    read: dict[bytes, Callable[[bytes], Awaitable[Any]]] = {
        b"string": store.client.get,
        b"hash": store.client.hgetall,
        b"set": store.client.smembers,
        b"list": lambda name: store.client.lrange(name, 0, -1),
        b"stream": store.client.xrange,
    }
    return {name: await read[await store.client.type(name)](name) for name in await store.client.keys("*")}


async def folded(store: Store, empty: Snapshot) -> Snapshot:
    """The snapshot that an environment's whole history makes."""
    for change in await read_changes(store, ENVIRONMENT, empty.position.revision):
        empty = empty.with_change(change)
    return empty


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses, as the system chose them."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def cluster_port() -> int:
    """A free port whose port for the cluster's own bus is free, too: that is 10,000 above it."""
    for _ in range(100):
        [port] = free_ports(1)
        if port <= 55_535:
            with suppress(OSError), socket.create_server(("127.0.0.1", port + 10_000)):
                return port
    raise RuntimeError("no port for a cluster")
