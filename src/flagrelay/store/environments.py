"""Environments: create, destroy, list."""

import secrets
from dataclasses import dataclass

from flagrelay.errors import EnvironmentExists, EnvironmentMissing, StoreCorrupt
from flagrelay.flags.definition import check_environment_name
from flagrelay.flags.position import Position
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position
from flagrelay.store.script import WRITE


@dataclass(frozen=True, slots=True)
class EnvironmentSummary:
    """An environment, for a list."""

    name: str
    position: Position
    flags: int


async def create_environment(store: Store, environment: str) -> Position:
    """Create an environment, empty, with a fresh epoch.

    Raises:
        EnvironmentExists: there is one of that name.
        DefinitionError: the name is none for an environment.
    """
    check_environment_name(environment)
    # A name without an environment is listed nowhere; an environment without its name could not be found.
    with store.talking():
        await store.client.sadd(store.keys.environments, environment)
    position = Position(secrets.token_hex(16), 0, secrets.token_hex(8))
    answer = await WRITE.run(store, store.keys.all_of(environment), "create", position.epoch, position.nonce)
    if answer[0] == b"EXISTS":
        raise EnvironmentExists(environment)
    return position


async def destroy_environment(store: Store, environment: str) -> None:
    """Delete an environment with everything in it. Relays keep serving what they hold, as stale.

    Raises:
        EnvironmentMissing: there is none of that name.
    """
    answer = await WRITE.run(store, store.keys.all_of(environment), "destroy")
    with store.talking():
        await store.client.srem(store.keys.environments, environment)
    if answer[0] == b"NO_ENVIRONMENT":
        raise EnvironmentMissing(environment)


async def list_environments(store: Store) -> list[EnvironmentSummary]:
    """Every environment, by name."""
    with store.talking():
        names = sorted(name.decode(errors="replace") for name in await store.client.smembers(store.keys.environments))
    summaries = []
    for name in names:
        try:
            position = await read_position(store, name)
        except (EnvironmentMissing, StoreCorrupt):
            continue
        with store.talking():
            flags = await store.client.hlen(store.keys.flags(name))
        summaries.append(EnvironmentSummary(name, position, flags))
    return summaries
