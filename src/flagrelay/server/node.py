"""The node that a worker belongs to, as the worker sees it: its supervisor, and through it the other workers.

A worker joins before it accepts anything: it takes over the kills that the others hold, and waits until it is ready, so
that no client meets a worker that has nothing to serve while others have. Where nobody else accepts it does not wait:
somebody must say why there is nothing.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from flagrelay.disk.documents import kill_as_json, kill_from_json
from flagrelay.errors import LocalKillMissing, NoAnswer
from flagrelay.flags.local_kill import LocalKill
from flagrelay.relay.local_kills import Standing
from flagrelay.relay.pipeline import Pipeline
from flagrelay.relay.relay import Relay
from flagrelay.server.control import Channel

PATIENCE = 5.0
"""Seconds that the supervisor may take, which asks all workers meanwhile and waits a second for those that are hung."""

ORDER_PATIENCE = 6.0
"""Seconds that an order may take, which waits for every worker's disk."""

LOOK_INTERVAL = 0.02
"""Seconds between two looks at whether this worker is ready."""

Report = Callable[[], dict[str, Any]]
Gathered = dict[str, Any]
"""What a node was asked for: `workers`, with each one's `report` or `error`, and `supervisor`."""

log = structlog.get_logger()


class Stop(Protocol):
    """How a worker is stopped."""

    def __call__(self, *, delay: bool = True, hurry: bool = False) -> None:
        """Drain; not before balancers have noticed, where there is a `delay`; as fast as it goes in a `hurry`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is: its number in the node, from 1, and the random identities of the node and of this process."""

    number: int
    node: str
    instance: str


class Node:
    """This worker's end of it.

    Args:
        end: this worker's end of the control channel.
        identity: who this worker is.
        stop: stops this worker.
    """

    def __init__(self, end: socket.socket, identity: Identity, stop: Stop) -> None:
        self.identity = identity
        self.number = identity.number
        self._end = end
        self._stop = stop
        self._channel: Channel | None = None
        self._relay: Relay | None = None
        self._reports: Mapping[str, Report] = {}
        self._accepting = False
        self._orderly = asyncio.Event()
        """What the others held is held here: orders come on top of it, and wait for it."""
        self._anyway = asyncio.Event()
        """Nobody else accepts, so that this worker should, ready or not."""

    @asynccontextmanager
    async def joined(
        self, relay: Relay, reports: Mapping[str, Report], ready: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """Be one of the node's workers while the block lasts, which begins when this one should accept.

        Args:
            relay: where kills are held.
            reports: what this worker says of itself, by what is asked for.
            ready: whether there is something to serve.

        Raises:
            NoAnswer: the supervisor is gone.
        """
        self._relay = relay
        self._reports = {**reports, "kills": self._held}
        self._channel = await Channel.open(
            self._end,
            {
                "ping": self._ping,
                "report": self._report,
                "hold": self._hold,
                "withdraw": self._withdraw,
                "accept": self._accept,
                "drain": self._drain,
                "hurry": self._hurry,
            },
            self._lost,
        )
        try:
            await self._join(ready)
            yield
        finally:
            await self._channel.close()

    async def _join(self, ready: Callable[[], bool]) -> None:
        welcome = await self._ask("join")
        for environment, held in (welcome["kills"] or {}).items():
            await self._pipeline(environment).inherit(map(Standing.from_json, held))
        self._orderly.set()
        if welcome["anyway"]:
            self._anyway.set()
        while not (ready() or self._anyway.is_set()):  # noqa: ASYNC110 - it depends on all that a relay does
            await asyncio.sleep(LOOK_INTERVAL)

    async def accepting(self) -> None:
        """Tell the supervisor that this worker accepts connections from now on."""
        await self._ask("accepting")
        self._accepting = True

    async def closing(self) -> None:
        """Have the supervisor close what it holds of the socket on which this worker is about to accept no more."""
        await self._ask("closing")

    # -- what all workers say ---------------------------------------------------------------------------------

    async def gather(self, what: str) -> Gathered:
        """What every worker reports; where the supervisor says nothing, what this one does."""
        try:
            return await self._ask("gather", of=what)
        except NoAnswer as error:
            head = {"worker": self.number, "pid": os.getpid(), "state": "unknown", "restarts": 0}
            workers = [{**head, "report": self._reports[what]()}]
            return {"workers": workers, "supervisor": None, "error": f"the supervisor: {error}"}

    # -- kills that must hold on all --------------------------------------------------------------------------

    async def hold(self, environment: str, kill: LocalKill) -> list[dict[str, Any]]:
        """Put a kill on every worker. Returns what each says: `kept`, or an `error`."""
        return await self._order("hold", environment, kill=kill_as_json(kill))

    async def withdraw(self, environment: str, key: str) -> list[dict[str, Any]]:
        """Withdraw a kill from every worker. Returns what each says: `held` and `kept`, or an `error`."""
        return await self._order("withdraw", environment, flag=key)

    async def _order(self, order: str, environment: str, **members: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
        try:
            answer = await self._ask("order", within=ORDER_PATIENCE, order=order, environment=environment, **members)
        except NoAnswer as error:
            # Better here alone than nowhere; who asked for it is told that it is no more than that.
            done = await (self._hold if order == "hold" else self._withdraw)({"environment": environment, **members})
            return [{"worker": self.number, **done}, {"worker": "others", "error": f"the supervisor: {error}"}]
        workers: list[dict[str, Any]] = answer["workers"]
        return workers

    # -- what the supervisor asks for -------------------------------------------------------------------------

    async def _ping(self, _message: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    async def _report(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self._reports[message["of"]]()

    def _held(self) -> dict[str, Any]:
        """Every kill that is held here, by environment; none of an environment whose files have not been read yet."""
        return {
            name: {
                "held": [standing.as_json() for standing in pipeline.local_kills.held.values()],
                "streams": pipeline.streams,
            }
            for name, pipeline in self._followed.pipelines.items()
            if pipeline.recalled.is_set()
        }

    async def _hold(self, message: Mapping[str, Any]) -> dict[str, Any]:
        await self._orderly.wait()
        return {"kept": await self._pipeline(message["environment"]).hold(kill_from_json(message["kill"]))}

    async def _withdraw(self, message: Mapping[str, Any]) -> dict[str, Any]:
        await self._orderly.wait()
        try:
            return {"held": True, "kept": await self._pipeline(message["environment"]).withdraw(message["flag"])}
        except LocalKillMissing:
            return {"held": False, "kept": True}

    async def _accept(self, _message: Mapping[str, Any]) -> dict[str, Any]:
        self._anyway.set()
        return {}

    async def _drain(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self._stop(delay=message["delay"])
        return {}

    async def _hurry(self, _message: Mapping[str, Any]) -> dict[str, Any]:
        self._stop(hurry=True)
        return {}

    def _lost(self) -> None:
        log.error("the supervisor is gone: stopping")
        if not self._accepting:
            os._exit(1)  # it serves nobody, and has nothing to finish
        self._stop(delay=False)

    async def _ask(
        self,
        what: str,
        *,
        within: float = PATIENCE,
        **members: Any,  # noqa: ANN401 - JSON
    ) -> dict[str, Any]:
        if self._channel is None:
            raise NoAnswer("this worker has not joined")
        return await self._channel.ask(what, within=within, **members)

    @property
    def _followed(self) -> Relay:
        if self._relay is None:
            raise NoAnswer("this worker has not joined")
        return self._relay

    def _pipeline(self, environment: str) -> Pipeline:
        """An environment, which others may have found before us."""
        self._followed.follow(environment)
        return self._followed.pipelines[environment]
