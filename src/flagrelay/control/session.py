"""On whose behalf something is done, and where."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flagrelay.errors import StoreUnavailable
from flagrelay.store.connection import Store

Answer = TypeVar("Answer")

MAYBE_WRITTEN = "it may have been written all the same: look how things stand before you try again"
"""What is said of a write whose answer did not come."""


def no_contexts() -> Iterable[Mapping[str, Any]]:
    """The contexts of whoever holds none."""
    return ()


async def _just(store: Store, write: Callable[[Store], Awaitable[Answer]]) -> Answer:
    return await write(store)


@dataclass(frozen=True, slots=True)
class Session:
    """One who does something to an environment.

    Args:
        store: where it is.
        environment: its name.
        actor: who it is.
        contexts: gives the evaluation contexts of open streams, where there are any to hand; they are counted over, and
            never leave.
        around: runs each write, given the store; so that replicas can be waited for.
    """

    store: Store
    environment: str
    actor: str
    contexts: Callable[[], Iterable[Mapping[str, Any]]] = no_contexts
    around: Callable[[Store, Callable[[Store], Awaitable[Any]]], Awaitable[Any]] = field(default=_just)

    async def write(self, body: Callable[[Store], Awaitable[Answer]]) -> Answer:
        """Write something.

        Raises:
            StoreUnavailable: Redis does not answer; says so where it may be written all the same.
        """
        try:
            answer: Answer = await self.around(self.store, body)
        except StoreUnavailable as error:
            if not error.unsure:
                raise
            raise StoreUnavailable(f"{error}; {MAYBE_WRITTEN}", unsure=True) from error
        return answer
