"""One private Redis for the whole run; empty for each test."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import settings

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.store.connection import RedisAddress, Store, open_store

# A machine that is busy makes no property false; what a test costs is seen in pytest's own durations.
settings.register_profile("flagrelay", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("flagrelay")


@pytest.fixture(autouse=True)
def logs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test that runs a command sets up for logs ends with it, and nobody's logger outlives it.

    A logger that structlog has cached is out of reach of `capture_logs`, in whatever test comes next in the process.
    """
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


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
