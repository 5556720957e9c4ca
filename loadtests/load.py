"""`make load`: Locust against a private relay that it starts, or against one that runs somewhere.

    python loadtests/load.py                                    # a private Redis and relay: 200 streams, 30 s
    python loadtests/load.py --users 2201 --run-time 1m         # and any other option of locust's
    python loadtests/load.py --host https://relay.example --access-key …
    python loadtests/load.py --web                              # started and watched at http://127.0.0.1:8089

Its exit status is Locust's: 1 where anything failed.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from rich.console import Console

from flagrelay.cli.private_redis import private_redis
from flagrelay.cli.private_relay import load_demo_flags, private_relay
from flagrelay.errors import StreamError
from flagrelay.sdk.asking import flag_set
from flagrelay.store.connection import RedisAddress, open_store
from flagrelay.store.environments import create_environment

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
ENVIRONMENT = "load"
READY = 20.0
"""Seconds in which the relay must be ready."""

USERS = ("--users", "221", "--spawn-rate", "100")
"""200 streams, 20 users of OFREP, and the one who makes changes."""

HEADLESS = ("--headless", "--run-time", "30s", "--only-summary")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every other option is locust's or the locustfile's: `python loadtests/locustfile.py` lists them.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", help="a relay that runs somewhere; by default one is started")
    parser.add_argument("--web", action="store_true", help="show Locust's web page, and start from there")
    chosen, more = parser.parse_known_args()
    options = [*USERS, *(("--web-host", "127.0.0.1") if chosen.web else HEADLESS)]
    if chosen.host:
        sys.exit(_locust([*options, "--host", chosen.host, *more], {}))
    with _private_relay() as (host, variables):
        status = _locust([*options, "--host", host, *more], variables)
    sys.exit(status)


@contextmanager
def _private_relay() -> Iterator[tuple[str, Mapping[str, str]]]:
    """A relay with a Redis of its own: its URL, and what Locust has to know, as environment variables."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with private_redis() as redis:
        key = asyncio.run(_prepare(redis.url))
        with private_relay(redis, ENVIRONMENT) as host:
            asyncio.run(_ready(host, key))
            console.print(f"Redis: a private server at {redis.url}\nrelay: {host}")
            yield host, {"LOCUST_ACCESS_KEY": key, "LOCUST_REDIS_URL": redis.url, "LOCUST_REDIS_ENV": ENVIRONMENT}


async def _prepare(redis_url: str) -> str:
    """The demo's flags, and an access key."""
    async with open_store(RedisAddress(redis_url)) as store:
        await create_environment(store, ENVIRONMENT)
        return await load_demo_flags(store, ENVIRONMENT, "load")


async def _ready(host: str, key: str) -> None:
    """Wait until the relay has the flags and knows the key."""
    deadline = time.monotonic() + READY
    while True:
        try:
            await flag_set(host, key)
        except (StreamError, aiohttp.ClientError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"the relay is not ready after {READY:g} s: {error}")
            await asyncio.sleep(0.05)
        else:
            return


def _locust(options: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run Locust to its end, which Ctrl-C and SIGTERM bring about in order. Returns its exit status."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), *options]
    # Ctrl-C at a terminal reaches Locust by itself; we wait for what it still has to say.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    with subprocess.Popen(command, env={**os.environ, **variables}) as locust:
        signal.signal(signal.SIGTERM, lambda _number, _frame: locust.terminate())
        status = locust.wait()
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return status


if __name__ == "__main__":
    main()
