"""Relays to measure, and what they serve."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import ready
from rig.flags import flags

from flagrelay.settings import PREFIX
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, write_change


async def create(store: Store, environment: str, count: int) -> str:
    """An environment with flags in it. Returns the secret of an access key for its stream."""
    await create_environment(store, environment)
    await write_change(store, environment, Draft(flags=flags(count), actor="bench"))
    _, secret = await create_access_key(store, environment, "server", "bench", None)
    return secret


def create_all(redis_url: str, **counts: int) -> dict[str, str]:
    """Environments with so many flags each. Returns the secret of an access key for each."""

    async def run() -> dict[str, str]:
        async with open_store(RedisAddress(redis_url)) as store:
            return {name: await create(store, name, count) for name, count in counts.items()}

    return asyncio.run(run())


def until_ready(port: int) -> None:
    """Wait until a relay serves all its environments."""
    asyncio.run(ready(port))


@contextmanager
def portable_process(redis_url: str, *more: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The relay's application under plain uvicorn, where streams take the portable path; and its port.

    Args:
        redis_url: where Redis is.
        more: settings, as `flagrelay serve` takes them.
    """
    settings = dict(zip(more[::2], more[1::2], strict=True))
    variables = {PREFIX + name.removeprefix("--").replace("-", "_").upper(): value for name, value in settings.items()}
    application = "flagrelay.server.app:app_from_environment"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "--factory", application, "--fd", str(descriptor)]
        process = subprocess.Popen(
            [*command, "--log-level", "warning", "--backlog", "4096"],
            env={**os.environ, f"{PREFIX}REDIS_URL": redis_url, **variables},
            pass_fds=[descriptor],
        )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()
