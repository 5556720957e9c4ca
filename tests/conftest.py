"""One private Redis for the whole run; empty for each test."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.store.connection import RedisAddress, Store, open_store

# A machine that is busy makes no property false; what a test costs is seen in pytest's own durations.
settings.register_profile("flagrelay", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("flagrelay")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    """The run's own Redis. A test that hurts its server starts another."""
    with private_redis() as server:
        yield server


@pytest.fixture
async def store(redis_server: PrivateRedis) -> AsyncIterator[Store]:
    """A store in an empty Redis."""
    async with open_store(RedisAddress(redis_server.url)) as store:
        await store.client.flushall()
        yield store
