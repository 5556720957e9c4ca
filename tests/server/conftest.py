"""Server tests run on uvloop, as the relay does; those that lean on the inside of transports on asyncio's loop too."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from flagrelay.store.connection import Store
from support.relays import World, make_world

BOTH_LOOPS = {"test_handover.py"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in BOTH_LOOPS:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def world(store: Store) -> World:
    """An environment with flags, and nobody who serves it yet."""
    return await make_world(store, store.address.url)
