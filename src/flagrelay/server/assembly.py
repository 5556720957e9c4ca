"""What is asked of all workers of a node, and what is told to all of them."""

import asyncio
import os
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from flagrelay.errors import NoAnswer
from flagrelay.server.places import Patience, Place
from flagrelay.server.worker_process import WorkerProcess


class Assembly:
    """The workers of a node, asked and told as one.

    Args:
        places: a node's slots.
        processes: all of its processes, those included that have left their slot and drain.
        patience: how long a worker has for its answer.
    """

    def __init__(self, places: Sequence[Place], processes: AbstractSet[WorkerProcess], patience: Patience) -> None:
        self._places = places
        self._processes = processes
        self._patience = patience
        self._began = time.monotonic()
        self._gathering: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def join(self, process: WorkerProcess) -> dict[str, list[Any]] | None:
        """What a new worker takes over.

        It is told of every order from now on, and does them on top of what it takes over. What it was not told of has
        been done by those who are asked now: each does what it is told in the order in which it was told.
        """
        process.joined.set()
        return await self._held(process)

    async def _held(self, newcomer: WorkerProcess) -> dict[str, list[Any]] | None:
        """What any worker holds, by environment; None where there is nobody to say so, and the disk knows best."""
        held: dict[str, dict[str, Any]] = {}
        others = [process for process in self._told() if process is not newcomer]
        said = await self._ask_all(others, "report", self._patience.answer, of="kills")
        answers = [each for each in said if "error" not in each]
        for answer in answers:
            for environment, report in answer["report"].items():
                standings = held.setdefault(environment, {})
                for standing in report["held"]:
                    standings.setdefault(standing["kill"]["key"], standing)
        return {name: list(standings.values()) for name, standings in held.items()} if answers else None

    async def gather(self, message: dict[str, Any]) -> dict[str, Any]:
        """What every slot's worker reports; who asks while that goes on gets the same, but for kills just put."""
        what = message["of"]
        if what == "kills":
            return await self._gathered(what)
        gathering = self._gathering.get(what)
        if gathering is None:
            gathering = self._gathering[what] = asyncio.create_task(self._gathered(what))
            gathering.add_done_callback(lambda _: self._gathering.pop(what))
        return await asyncio.shield(gathering)

    async def _gathered(self, what: str) -> dict[str, Any]:
        workers = await asyncio.gather(*(self._report(place, what) for place in self._places))
        supervisor = {
            "pid": os.getpid(),
            "uptime_ms": round((time.monotonic() - self._began) * 1000),
            "wanted": len(self._places),
            "alive": sum(place.worker is not None for place in self._places),
        }
        return {"workers": workers, "supervisor": supervisor}

    async def _report(self, place: Place, what: str) -> dict[str, Any]:
        process = place.worker
        entry = {
            "worker": place.number,
            "pid": process.pid if process else None,
            "state": place.state.value,
            "restarts": place.restarts.total(),
            "restarts_by_reason": place.restarts,
        }
        if process is None or not process.joined.is_set():
            return {**entry, "error": place.why}
        try:
            return {**entry, "report": await process.channel.ask("report", of=what, within=self._patience.answer)}
        except NoAnswer as error:
            return {**entry, "error": str(error)}

    async def order(self, message: dict[str, Any]) -> dict[str, Any]:
        """Tell every worker what must hold on all, those that drain included.

        Nothing waits here before it is told, so that all hear of orders in the same order, and of the next one at once
        although one of them hangs.
        """
        members = {name: value for name, value in message.items() if name not in ("ask", "what", "order")}
        return {"workers": await self._ask_all(self._told(), message["order"], self._patience.order, **members)}

    def _told(self) -> list[WorkerProcess]:
        return [process for process in self._processes if process.joined.is_set() and not process.ended.is_set()]

    async def _ask_all(
        self,
        asked: Sequence[WorkerProcess],
        what: str,
        within: float,
        **members: Any,  # noqa: ANN401 - JSON
    ) -> list[dict[str, Any]]:
        """What each says; one that ends meanwhile serves nobody, and is left out."""

        async def one(process: WorkerProcess) -> dict[str, Any]:
            head = {"worker": process.number, "pid": process.pid}
            try:
                answer = await process.channel.ask(what, within=within, **members)
            except NoAnswer as error:
                return {**head, "error": str(error)}
            return {**head, "report": answer} if what == "report" else {**head, **answer}

        answers = await asyncio.gather(*map(one, asked))
        return [each for process, each in zip(asked, answers, strict=True) if not process.channel.closed.is_set()]
