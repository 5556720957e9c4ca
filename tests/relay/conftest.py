"""What talks to Redis runs on uvloop, as the relay does; what is about the ends of tasks on asyncio's own loop too."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from flagrelay.relay import source as source_module
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from support.sources import ENVIRONMENT, Hands, no_tracebacks

ON_UVLOOP = {"test_source.py", "test_pipeline.py", "test_relay.py"}
ON_BOTH = {
    "test_channel.py",
    "test_it_ends_when_it_is_cancelled_whatever_it_is_doing",
    "test_connections_that_break_at_any_moment_end_nothing",
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    names = {item.path.name, getattr(item, "originalname", None)}
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}
    if names & (ON_UVLOOP | ON_BOTH):
        loops["uvloop"] = uvloop.new_event_loop
    if names & ON_BOTH or not loops:
        loops["asyncio"] = asyncio.SelectorEventLoop
    return loops


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What was logged; a traceback fails the test."""
    with no_tracebacks(caplog) as entries:
        yield entries


@pytest.fixture
async def redis(store: Store) -> Store:
    """A Redis with an environment."""
    await create_environment(store, ENVIRONMENT)
    return store


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    """What every source's messages pass through."""
    hands = Hands()
    monkeypatch.setattr(source_module, "subscribe", hands.subscribe)
    return hands
