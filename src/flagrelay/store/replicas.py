"""Waiting until replicas have a write, for writers who want more than Redis promises."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from flagrelay.errors import ReplicasMissing, SettingError
from flagrelay.store.connection import Store

Answer = TypeVar("Answer")

PATIENCE = 4.0
"""Seconds that replicas have; less than Redis's own time to answer."""


def _raised(error: ReplicasMissing) -> None:
    raise error


def replicated(
    replicas: int,
    write: Callable[[Store], Awaitable[Answer]],
    missed: Callable[[ReplicasMissing], None] = _raised,
) -> Callable[[Store], Awaitable[Answer]]:
    """The same write, done once that many replicas have it; 0 for not waiting.

    Args:
        replicas: how many.
        write: the write.
        missed: told where fewer had it in time, with what would else be raised: it is written all the same.

    Raises:
        ReplicasMissing: fewer had it in time. It is written all the same.
        SettingError: this Redis is a Cluster, where a connection of one's own to the right node cannot be had.
    """

    async def run(store: Store) -> Answer:
        if not replicas:
            return await write(store)
        if store.address.cluster:
            raise SettingError("--replicas does not work with a Redis Cluster: a write cannot be waited for there")
        # WAIT is about what its own connection has written.
        async with store.client.client() as connection:
            answer = await write(Store(connection, store.keys, store.address))
            with store.talking():
                have = int(await connection.execute_command("WAIT", replicas, int(PATIENCE * 1000)))
        if have < replicas:
            missed(ReplicasMissing(replicas, have, PATIENCE))
        return answer

    return run
