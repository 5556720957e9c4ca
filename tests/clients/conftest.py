"""Clients that nobody here wrote, against relays that run as they do in earnest."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from flagrelay.store.connection import Store
from support.relays import RunningRelay, World, make_world, running_relay


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def world(store: Store) -> World:
    """An environment with flags, and nobody who serves it yet."""
    return await make_world(store, store.address.url)


@pytest.fixture
async def relay(world: World) -> AsyncIterator[RunningRelay]:
    """The relay's own server with that environment; changes are told of at once."""
    async with running_relay("handover", world, refetch_spread=0.0) as running:
        yield running
