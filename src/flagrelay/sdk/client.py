"""An environment's flags in this process, kept as fresh as the relay can: connected again when lost, never emptied."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from enum import StrEnum
from http import HTTPStatus
from typing import NoReturn

import aiohttp
import orjson

from flagrelay.errors import MessageError, StreamError
from flagrelay.sdk.replica import Replica
from flagrelay.sdk.stream import follow
from flagrelay.wire.sse import Event

LONGEST_WAIT = 30.0
"""Seconds between two tries to connect, at most."""

FINAL = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
"""What will not be answered differently if it is asked again."""


class ClientState(StrEnum):
    """How far the flags can be relied on; OpenFeature's words."""

    NOT_READY = "NOT_READY"
    """There are none yet."""
    READY = "READY"
    """They are what the relay has, and the relay has what Redis has."""
    STALE = "STALE"
    """They are the last ones known: the relay is out of reach or silent, or has itself lost Redis."""


class Client:
    """Follows one environment of a relay.

    Args:
        url: of the relay: `http://127.0.0.1:8080`.
        key: an access key of kind `server`.
        silence: seconds without a word, heartbeats included, after which the connection is taken for dead.
        retry: seconds before the first try to connect again; it doubles up to half a minute, and a relay's `retry` is
            heeded.
        on_event: told of each event once it is applied, and of heartbeats and goodbyes.
        on_state: told of each move to another state.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        silence: float = 45.0,
        retry: float = 1.0,
        on_event: Callable[[Event], None] = lambda _event: None,
        on_state: Callable[[ClientState], None] = lambda _state: None,
    ) -> None:
        self.url = url
        self.replica = Replica()
        self.state = ClientState.NOT_READY
        self._key = key
        self._silence = silence
        self._retry = retry
        self._wait = 0.0
        self._told: float | None = None
        self._on_event = on_event
        self._on_state = on_state

    async def run(self) -> NoReturn:
        """Follow until cancelled. Whatever becomes of the relay, the last flags stay.

        Raises:
            StreamError: the key is refused for good; the flags stay even then.
        """
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    await self._follow(session)
                except StreamError as error:
                    if error.status in FINAL:
                        self._move(ClientState.STALE)
                        raise
                except (aiohttp.ClientError, MessageError, OSError, TimeoutError):
                    pass
                self._move(ClientState.STALE)
                await asyncio.sleep(self._next_wait())

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        """One connection, to its end or its silence."""
        events = follow(session, self.url, self._key, last_event_id=self.replica.id)
        async with aclosing(events):
            async with asyncio.timeout(self._silence) as patience:
                async for event in events:
                    patience.reschedule(asyncio.get_running_loop().time() + self._silence)
                    self._take(event)

    def _take(self, event: Event) -> None:
        self._wait = 0.0
        if event.type == "goodbye":
            self._told = (event.retry or 0) / 1000
        elif event.type == "heartbeat":
            self._move(ClientState.READY if _is_live(event) else ClientState.STALE)
        elif self.replica.apply(event):
            self._move(ClientState.READY)
        self._on_event(event)

    def _next_wait(self) -> float:
        """Seconds until the next try: what a goodbye said, else longer each time."""
        told, self._told = self._told, None
        if told is not None:
            return told
        self._wait = min(LONGEST_WAIT, max(self._retry, self._wait * 2))
        return self._wait * random.uniform(0.5, 1.0)

    def _move(self, state: ClientState) -> None:
        if self.state is ClientState.NOT_READY and state is ClientState.STALE:
            return  # there is nothing that could be stale
        if state is not self.state:
            self.state = state
            self._on_state(state)


def _is_live(heartbeat: Event) -> bool:
    with suppress(ValueError, AttributeError):
        return bool(orjson.loads(heartbeat.data).get("source") == "live")
    return False
