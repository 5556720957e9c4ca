"""What is under load: an environment with flags."""

import pytest

from flagrelay.store.connection import Store
from support.relays import World, make_world


@pytest.fixture
async def world(store: Store) -> World:
    """An environment with flags, and nobody who serves it yet."""
    return await make_world(store, store.address.url)
