"""Server tests run on uvloop, as the relay does; those that lean on the inside of transports on asyncio's loop too."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from flagrelay.store.connection import Store
from support.relays import RunningRelay, World, make_world, running_relay

BOTH_LOOPS = {"test_handover.py"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in BOTH_LOOPS:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def world(store: Store) -> World:
    """An environment with flags, and nobody who serves it yet."""
    return await make_world(store, store.address.url)


@pytest.fixture
async def relay(kind: str, world: World) -> AsyncIterator[RunningRelay]:
    """A relay of the kind that a module asks for, with such an environment."""
    async with running_relay(kind, world) as running:
        yield running
