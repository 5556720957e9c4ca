"""An environment to write to, and servers of their own for tests that hurt them.

Relays subscribe on uvloop, `flagrelay watch` on asyncio's own loop: what is about subscriptions runs on both.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from support.stores import ENVIRONMENT, debuggable


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name == "test_subscription.py":
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
    return {"asyncio": asyncio.SelectorEventLoop}


@pytest.fixture
async def empty(store: Store) -> Snapshot:
    """The environment `production` in `store`, just created."""
    return Snapshot(await create_environment(store, ENVIRONMENT))


@pytest.fixture
def doomed_server() -> Iterator[PrivateRedis]:
    """A server that a test may pause, fill or kill."""
    with private_redis(*debuggable()) as server:
        yield server


@pytest.fixture
async def doomed(doomed_server: PrivateRedis) -> AsyncIterator[Store]:
    """A store in such a server, with the environment `production`."""
    async with open_store(RedisAddress(doomed_server.url)) as store:
        await create_environment(store, ENVIRONMENT)
        yield store
