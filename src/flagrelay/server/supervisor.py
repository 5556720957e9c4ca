"""Several workers behind one address: a node's supervisor.

It serves nothing itself. It keeps a worker in each slot (`slots` says what may happen to one), and is where they meet
(`assembly`): what is asked of the node is gathered from all of them here, and a kill that must hold on all is told to
all from here.

Each slot has a socket of its own, which shares the address with the others (SO_REUSEPORT: the kernel spreads
connections over them) and stays open here while one worker follows another: what has connected meanwhile waits for the
successor. Only where nobody follows soon it is closed, so that the kernel gives its share to the others.
"""

import asyncio
import math
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from flagrelay import __version__
from flagrelay.errors import FlagrelayError, NoAnswer, SettingError
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.reporter import WITHDRAWAL
from flagrelay.server.assembly import Assembly
from flagrelay.server.departed import forget
from flagrelay.server.identity import named
from flagrelay.server.listeners import beside, reserve, url_of
from flagrelay.server.logs import configure_logs
from flagrelay.server.places import Patience, Place
from flagrelay.server.slots import SlotState
from flagrelay.server.worker_process import WorkerProcess
from flagrelay.settings import Settings

SHARED_LIMITS = (
    "max_streams",
    "max_streams_per_key",
    "max_streams_per_address",
    "max_evaluations_per_second",
    "max_waiting",
)
"""Settings of which each worker gets its share."""

MOST_FAILURES = 5
"""How often in a row a worker may end before it accepts, until that is the end of a node that could not start."""

STEADY = 30.0
"""Seconds after which a worker that ends is no longer taken for one that cannot live."""

SOON = 1.0
"""Seconds that connections wait for a successor before they are left to the other workers."""

MISSED = 3
"""How many questions in a row a worker leaves unanswered that is hung."""

log = structlog.get_logger()


def supervise(settings: Settings) -> int:
    """Run a node of several workers until SIGTERM or SIGINT. Returns the exit status: the worst of any worker.

    Raises:
        FlagrelayError: the address cannot be listened on, or the workers cannot start.
    """
    if sys.platform != "linux":
        raise SettingError(
            f"FLAGRELAY_WORKERS (--workers) is {settings.workers}; it should be 1 on this system, "
            "whose SO_REUSEPORT does not spread connections over processes as Linux's does"
        )
    configure_logs(settings.log_level, settings.log_format)
    with reserve(settings.host, settings.port) as address:
        return asyncio.run(Supervisor(named(settings, address), address).run())


class Supervisor:
    """One node.

    Args:
        settings: the node's.
        address: the socket that reserves where to listen.
        patience: how long to wait for what.
    """

    def __init__(self, settings: Settings, address: socket.socket, patience: Patience | None = None) -> None:
        self._settings = settings
        self._shared = shares(settings)
        self._identity = secrets.token_hex(4)
        self._address = address
        self._patience = patience or Patience()
        self._places = [
            Place(number, backoff=Backoff(*self._patience.again)) for number in range(1, settings.workers + 1)
        ]
        self._processes: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgetting: set[asyncio.Task[None]] = set()
        """What has Redis forget workers that could not take their leave."""
        self._assembly = Assembly(self._places, self._processes, self._patience)
        self._announced = False
        self._stopping = False
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._moved = asyncio.Event()
        """Set whenever a slot's state may be another one."""
        self._done = asyncio.Event()
        self._status = 0
        self._failure: FlagrelayError | None = None

    async def run(self) -> int:
        """Run until stopped. Returns the exit status.

        Raises:
            FlagrelayError: the workers cannot start.
        """
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGCHLD: self._reap,
            signal.SIGTERM: partial(self._signalled, signal.SIGTERM),
            signal.SIGINT: partial(self._signalled, signal.SIGINT),
            signal.SIGHUP: self.reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            for place in self._places:
                self._fill(place)
            await self._done.wait()
        finally:
            for process in self._processes:
                process.kill()
            for number in handlers:
                loop.remove_signal_handler(number)
            for place in self._places:
                place.close()
        if self._forgetting:
            await asyncio.wait(self._forgetting, timeout=WITHDRAWAL)
        if self._failure:
            raise self._failure
        log.info("node stopped", status=self._status)
        return self._status

    # -- signals ----------------------------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        log.info("stopping the node", signal=number.name, again=self._stopping)
        if self._stopping:
            self._hurry()
        else:
            self._stop(delay=True)

    def _stop(self, *, delay: bool) -> None:
        """Have all workers drain at the same time."""
        self._stopping = True
        if self._reloading:
            self._reloading.cancel()
        for place in self._places:
            place.stop()
        for process in list(self._processes):
            if not process.accepts.is_set():
                process.kill()  # it serves nobody yet
            elif not process.leaving:
                self._drain(process, delay=delay)
        self._settle()

    def _hurry(self) -> None:
        for process in self._processes:
            if process.accepts.is_set():
                self._do(self._tell(process, "hurry"))
            asyncio.get_running_loop().call_later(self._patience.end, process.kill)

    def _fail(self, failure: FlagrelayError) -> None:
        """A node that cannot start, or whose last worker cannot, ends."""
        self._failure = self._failure or failure
        if not self._stopping:
            self._stop(delay=False)

    # -- starting ---------------------------------------------------------------------------------------------

    def _fill(self, place: Place) -> None:
        """Start a worker where there is none."""
        if self._stopping:
            return
        awaited = place.listener is not None
        try:
            process = self._started(place)
        except OSError as error:
            self._failed(place, f"cannot be started: {error.strerror or error}", "")
            return
        process.patience = self._patience.ready if awaited else None
        if not place.failures:
            place.why = "it starts"
        place.due(process)
        self._attend(place, process)

    def _started(self, place: Place) -> WorkerProcess:
        if place.listener is None:
            place.listener = beside(self._address)
        return WorkerProcess(place.number, place.listener, self._shared, self._identity)

    def _attend(self, place: Place, process: WorkerProcess) -> None:
        self._processes.add(process)
        self._do(self._live(place, process))
        process.reap()  # it may have ended before anybody listened

    def _reap(self) -> None:
        for process in self._processes:
            process.reap()

    async def _live(self, place: Place, process: WorkerProcess) -> None:
        """One process, from its start to its end."""
        await process.open(
            {
                "failed": partial(self._note_failure, process),
                "join": partial(self._join, process),
                "accepting": partial(self._accepting, place, process),
                "closing": partial(self._closing, place, process),
                "gather": self._assembly.gather,
                "order": self._assembly.order,
            }
        )
        watching = [asyncio.create_task(self._watch_start(process)), asyncio.create_task(self._watch_pulse(process))]
        await process.ended.wait()
        for task in watching:
            task.cancel()
        try:
            async with asyncio.timeout(self._patience.answer):
                await process.channel.closed.wait()  # what it has said at last is heard
        except TimeoutError:
            await process.channel.close()
        self._processes.discard(process)
        if process.joined.is_set() and (process.status or not self._stopping):
            self._forgetting.add(self._do(forget(self._settings, process.instance)))
        self._judge(place, process)
        self._settle()

    async def _watch_start(self, process: WorkerProcess) -> None:
        """Kill a worker that does not come up."""
        for begun, limit, why in (
            (process.joined, self._patience.start, "it did not come up"),
            (process.accepts, process.patience, "others serve, and it was not ready"),
        ):
            try:
                async with asyncio.timeout(limit):
                    await begun.wait()
            except TimeoutError:
                process.kill(f"{why} within {limit:g} s")
                return

    async def _watch_pulse(self, process: WorkerProcess) -> None:
        """Kill a worker that hangs."""
        await process.joined.wait()
        interval = self._settings.worker_timeout / MISSED / 2
        missed = 0
        while missed < MISSED:
            await asyncio.sleep(interval)
            try:
                await process.channel.ask("ping", within=interval)
                missed = 0
            except NoAnswer:
                missed += 1
        process.kill(f"it did not answer for {self._settings.worker_timeout:g} s")

    async def _note_failure(self, process: WorkerProcess, message: dict[str, Any]) -> dict[str, Any]:
        process.error = message["error"]
        return {}

    async def _join(self, process: WorkerProcess, _message: dict[str, Any]) -> dict[str, Any]:
        """Give a worker the kills that the others hold. It is told of every order from then on."""
        kills = await self._assembly.join(process)
        return {"kills": kills, "anyway": not self._announced or not self._served}

    @property
    def _served(self) -> bool:
        """Whether anybody accepts."""
        return any(process.accepts.is_set() and not process.leaving for process in self._processes)

    async def _accepting(self, place: Place, process: WorkerProcess, _message: dict[str, Any]) -> dict[str, Any]:
        """A worker accepts; if it is a successor, who was there before goes."""
        if process not in (place.worker, place.successor):
            return {}
        process.accepts.set()
        process.accepting_since = asyncio.get_running_loop().time()
        place.accepting(process)
        place.failures = 0
        if place.state is SlotState.RETIRING and place.predecessor:
            place.restarts["reload"] += 1
            self._drain(place.predecessor, delay=False)
        self._moved.set()
        if not self._announced and all(each.state is SlotState.SERVING for each in self._places):
            self._announced = True
            url = url_of(self._address, tls=bool(self._settings.tls_cert))
            print(f"listening on {url}", flush=True)  # noqa: T201 - the one line of output that is no log
            log.info("node started", version=__version__, url=url, workers=len(self._places))
        return {}

    # -- ending -----------------------------------------------------------------------------------------------

    async def _closing(self, place: Place, process: WorkerProcess, _message: dict[str, Any]) -> dict[str, Any]:
        """A worker accepts no more. Where nobody follows at once, nothing may wait for who does."""
        if self._stopping or not process.leaving:
            place.close()
        return {}

    def _drain(self, process: WorkerProcess, *, delay: bool) -> None:
        process.leaving = True
        self._do(self._tell(process, "drain", delay=delay))
        bound = self._settings.drain_timeout + self._patience.end + (self._settings.drain_delay if delay else 0)
        asyncio.get_running_loop().call_later(bound, process.kill, "it did not drain in time")

    def _judge(self, place: Place, process: WorkerProcess) -> None:
        """What follows from the end of a process."""
        expected = process.leaving and not process.status
        about = {"worker": process.number, "pid": process.pid, "how": process.killed_for or process.how}
        about |= {"error": process.error} if process.error else {}
        (log.info if expected else log.warning)("worker ended", **about)
        if self._stopping:
            self._status = max(self._status, process.status if process.accepts.is_set() else 0)
        before = place.state
        if not place.ended(process) or self._stopping:
            return
        if not self._served:
            for waiting in self._processes:
                if waiting.joined.is_set():
                    self._do(self._tell(waiting, "accept"))
        if before is SlotState.STARTING:
            self._failed(place, f"ended before it accepted: {process.killed_for or process.how}", process.error)
        elif place.state is SlotState.WAITING:
            place.restarts[process.reason] += 1
            if asyncio.get_running_loop().time() - (process.accepting_since or 0) > STEADY:
                place.backoff.reset()
            self._wait(place, f"ended: {process.how}")

    def _failed(self, place: Place, how: str, error: str) -> None:
        """A worker has not come up."""
        place.failures += 1
        place.close()
        hopeless = [each for each in self._places if each.failures >= MOST_FAILURES]
        if error and not self._announced:
            self._fail(SettingError(error))
        elif len(hopeless) == len(self._places) or (hopeless and not self._announced):
            times = f"{place.failures} times in a row"
            self._fail(FlagrelayError(f"worker {place.number} {error or how}; {times}, so the node ends"))
        else:
            self._wait(place, error or how)

    def _wait(self, place: Place, why: str) -> None:
        wait = place.backoff.next()
        if wait > SOON:
            place.close()
        place.why = f"{why}; it is replaced"
        log.info("worker is replaced", worker=place.number, after=round(wait, 3), why=why)
        asyncio.get_running_loop().call_later(wait, self._fill, place)

    def _settle(self) -> None:
        """Note where nobody is left."""
        self._moved.set()
        if self._stopping:
            there = {process.number for process in self._processes}
            for place in self._places:
                if place.state is SlotState.STOPPING and place.number not in there:
                    place.emptied()
            if all(place.state is SlotState.STOPPED for place in self._places):
                self._done.set()

    # -- reloading --------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Replace every worker, one after another; once more afterwards where that is asked for meanwhile."""
        if self._stopping:
            return
        self._reload_again = True
        if self._reloading is None or self._reloading.done():
            self._reloading = self._do(self._reload())

    async def _reload(self) -> None:
        while self._reload_again:
            self._reload_again = False
            log.info("reloading")
            for place in self._places:
                if not await self._renewed(place):
                    log.error("the reload stops: a successor did not become ready; who runs goes on")
                    break
            else:
                log.info("reloaded")

    async def _renewed(self, place: Place) -> bool:
        """Replace the worker of one slot by a successor that is ready. Returns whether it was."""
        if place.state is not SlotState.SERVING:
            return True  # its worker is new, or will be
        old = place.worker
        try:
            successor = self._started(place)
        except OSError as error:
            log.warning("a successor cannot be started", worker=place.number, error=str(error))
            return False
        successor.patience = self._patience.start
        place.renew(successor)
        self._attend(place, successor)
        await self._until_renewed(place)
        return place.worker not in (old, None)

    async def _until_renewed(self, place: Place) -> None:
        while place.state in (SlotState.RENEWING, SlotState.RETIRING):
            self._moved.clear()
            await self._moved.wait()

    # -- telling and doing --------------------------------------------------------------------------------------

    async def _tell(self, process: WorkerProcess, what: str, **members: Any) -> None:  # noqa: ANN401 - JSON
        try:
            await process.channel.ask(what, within=self._patience.answer, **members)
        except NoAnswer as error:
            if not process.channel.closed.is_set():
                log.warning("a worker cannot be told", worker=process.number, what=what, error=str(error))

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._did)
        return task

    def _did(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._forgetting.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.critical("the supervisor crashed", exc_info=error)
            self._failure = FlagrelayError(f"the supervisor crashed, and its workers with it: {error!r}")
            self._done.set()


def shares(settings: Settings) -> Settings:
    """The settings of each worker: those of the node, with its share of the limits, rounded up."""
    limits = {name: math.ceil(getattr(settings, name) / settings.workers) for name in SHARED_LIMITS}
    return replace(settings, **limits)
