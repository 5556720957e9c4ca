"""An environment, and who works on it."""

import pytest

from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from support.desk import Desk
from support.stores import ENVIRONMENT


@pytest.fixture
async def desk(store: Store) -> Desk:
    """The environment `production`, just created."""
    await create_environment(store, ENVIRONMENT)
    return Desk(store)
