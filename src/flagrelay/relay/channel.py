"""One Redis channel, listened to for good: connected again when lost, checked for silence, compared now and then."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NoReturn

from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.relay.backoff import Backoff
from flagrelay.store.subscription import Subscription

SILENCE = 3
"""Comparisons without a word from the subscription before its connection is taken for dead."""

YIELD_EVERY = 64
"""Messages taken in one go before others may run; a bulk import must not stop the world."""


@dataclass(frozen=True, slots=True)
class Listener:
    """What happens on a channel. Whatever raises `StoreUnavailable` or `StoreError` ends the connection.

    Args:
        connected: the subscription stands, and holds what comes from now on: load what it is about.
        received: one message, as bytes.
        compare: nothing says that we are wrong; find out whether we are.
        lost: the connection ended, with a reason for people; the next try follows by itself.
    """

    connected: Callable[[], Awaitable[None]]
    received: Callable[[bytes], Awaitable[None]]
    compare: Callable[[], Awaitable[None]]
    lost: Callable[[str], None]


async def listen(
    subscribe: Callable[[], AbstractAsyncContextManager[Subscription]],
    listener: Listener,
    *,
    interval: float,
    backoff: Backoff,
) -> NoReturn:
    """Listen until cancelled.

    Args:
        subscribe: opens a subscription, which Redis has confirmed.
        listener: what to do.
        interval: seconds between comparisons.
        backoff: how long to wait before connecting again.
    """
    while True:
        try:
            async with subscribe() as subscription:
                await listener.connected()
                backoff.reset()
                await _take(subscription, listener, interval)
        except (StoreUnavailable, StoreError) as error:
            listener.lost(str(error))
        heed_cancellation()
        await asyncio.sleep(backoff.next())


async def _take(subscription: Subscription, listener: Listener, interval: float) -> NoReturn:
    loop = asyncio.get_running_loop()
    pulse = _Pulse(subscription)
    compare_at = loop.time() + interval
    taken = 0
    while True:
        heed_cancellation()
        data = await subscription.next(max(0.0, compare_at - loop.time()))
        if data is not None:
            await listener.received(data)
            taken += 1
            if taken % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if loop.time() >= compare_at:
            await pulse.check()
            await listener.compare()
            compare_at = loop.time() + interval


class _Pulse:
    """Whether a subscription still lives.

    Silence is counted in checks, not in seconds: while we were busy loading, nobody listened.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._heard = subscription.last_heard
        self._silent = 0

    async def check(self) -> None:
        """Ask for a sign of life, having looked for the last ones.

        Raises:
            StoreUnavailable: none came for too long.
        """
        heard = self._subscription.last_heard
        self._silent = 0 if heard > self._heard else self._silent + 1
        self._heard = heard
        if self._silent >= SILENCE:
            silence = asyncio.get_running_loop().time() - heard
            raise StoreUnavailable(f"the subscription to Redis has been silent for {silence:.1f} s, pings included")
        await self._subscription.ping()


def heed_cancellation() -> None:
    """End here where this task was cancelled and did not notice.

    Before Python 3.12 `asyncio.wait_for`, through which redis-py sends, loses a cancellation that comes just as
    it ends; a loop that talks to Redis for good would then never end.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
