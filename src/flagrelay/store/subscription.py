"""The messages of a channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flagrelay.errors import StoreUnavailable
from flagrelay.store.connection import ANSWER_TIMEOUT, Store
from flagrelay.store.script import CLOCK


class Subscription:
    """A channel that is subscribed to, on a connection of its own."""

    def __init__(self, store: Store, pubsub: Any) -> None:  # noqa: ANN401 - see Store.client
        self._store = store
        self._pubsub = pubsub
        self.last_heard = asyncio.get_running_loop().time()
        """When anything was last received, in the event loop's time; answers to pings included."""

    async def next(self, timeout: float) -> bytes | None:  # noqa: ASYNC109 - reading is cut off between messages, not within one
        """The next message; None where none came in `timeout` seconds.

        Raises:
            StoreUnavailable: the connection is lost.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            message = await self._take(max(0.0, until - loop.time()))
            if message is not None and message["type"] == "message":
                data: bytes = message["data"]
                return data
            if loop.time() >= until:
                return None

    async def ping(self) -> None:
        """Ask for a sign of life; it shows in `last_heard`."""
        with self._store.talking():
            await self._pubsub.ping()

    async def confirmed(self) -> None:
        """Wait until Redis has confirmed the subscription.

        Raises:
            StoreUnavailable: it has not in time.
        """
        message = await self._take(ANSWER_TIMEOUT)
        if message is None or message["type"] != "subscribe":
            raise StoreUnavailable(f"Redis at {self._store.address}: the subscription was not confirmed")

    async def _take(self, timeout: float) -> dict[str, Any] | None:  # noqa: ASYNC109 - see next
        with self._store.talking():
            message: dict[str, Any] | None = await self._pubsub.get_message(timeout=timeout)
        if message is not None:
            self.last_heard = asyncio.get_running_loop().time()
        return message


@asynccontextmanager
async def subscribe(store: Store, environment: str) -> AsyncIterator[Subscription]:
    """The changes of an environment, from the moment that this is entered.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    async with _subscribe(store, store.keys.changes(environment)) as subscription:
        yield subscription


@asynccontextmanager
async def subscribe_keys(store: Store) -> AsyncIterator[Subscription]:
    """The hints that access keys have changed."""
    async with _subscribe(store, store.keys.keys) as subscription:
        yield subscription


@asynccontextmanager
async def _subscribe(store: Store, channel: str) -> AsyncIterator[Subscription]:
    pubsub = store.client.pubsub()
    try:
        with store.talking():
            if store.address.cluster:
                # A cluster's client chooses the node by what it last learned of the slots, which is nothing at first,
                # and after a failover a dead node for good. A command on the key of the same name teaches it.
                await CLOCK.run(store, [channel])
            await pubsub.subscribe(channel)
        subscription = Subscription(store, pubsub)
        await subscription.confirmed()
        yield subscription
    finally:
        with store.talking():
            await pubsub.aclose()
