"""All environments of one process."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from flagrelay.disk.state_dir import StateDir
from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.relay.channel import heed_cancellation
from flagrelay.relay.pipeline import Pipeline, PipelineOptions
from flagrelay.relay.reporter import Reporting
from flagrelay.relay.stats import Delivery
from flagrelay.store.connection import Store
from flagrelay.store.environments import list_environments

log = structlog.get_logger()


class Relay:
    """The pipelines of one process, by environment.

    Args:
        store: where the environments are.
        environments: which to follow; none for every one that Redis has, new ones included.
        options: how each is followed and streamed.
        state_dir: where snapshots and local kills are kept; None for nowhere.
        on_delivered: told of each change once every stream has it.
        reporting: as whom to report to Redis what streams have; None for not at all.
        discover_interval: seconds between looks for new environments.
    """

    def __init__(
        self,
        store: Store,
        environments: Iterable[str],
        options: PipelineOptions,
        *,
        state_dir: StateDir | None = None,
        on_delivered: Callable[[Pipeline, Delivery], None] = lambda _pipeline, _delivery: None,
        reporting: Reporting | None = None,
        discover_interval: float = 3.0,
    ) -> None:
        self.pipelines: dict[str, Pipeline] = {}
        self.leaving = False
        """Whether balancers are told to go elsewhere."""
        self.draining = False
        """Whether streams are ended, and no more are opened."""
        self.refused: Counter[str] = Counter()
        """Streams refused since the process started, by reason."""
        self._store = store
        self._named = tuple(environments)
        self._options = options
        self._state_dir = state_dir
        self._on_delivered = on_delivered
        self._reporting = reporting
        self._discover_interval = discover_interval
        self._tasks: asyncio.TaskGroup | None = None
        self._look = asyncio.Event()

    @property
    def discovers(self) -> bool:
        """Whether environments are found rather than named."""
        return not self._named

    async def run(self) -> None:
        """Follow and stream until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for environment in self._named:
                self.follow(environment)
            if self._state_dir:
                tasks.create_task(asyncio.to_thread(self._state_dir.sweep))
            if self.discovers:
                tasks.create_task(self._recall())
                await self._discover()

    def follow(self, environment: str) -> None:
        """Follow one more environment, unless it is followed already."""
        if environment not in self.pipelines and self._tasks is not None:
            pipeline = Pipeline(
                self._store,
                environment,
                self._options,
                state_dir=self._state_dir,
                on_delivered=self._on_delivered,
                reporting=self._reporting,
            )
            self.pipelines[environment] = pipeline
            self._tasks.create_task(pipeline.run(), name=f"pipeline {environment}")

    def look(self) -> None:
        """Look for new environments now: something says that there may be one."""
        self._look.set()

    async def _recall(self) -> None:
        """Follow what was kept on disk, where Redis names nothing in time: it is away, or was wiped."""
        if self._state_dir is not None:
            await asyncio.sleep(self._options.state_wait)
            kept = await asyncio.to_thread(self._state_dir.environments)
            for environment in kept if not self.pipelines else ():
                self.follow(environment)

    async def _discover(self) -> None:
        failing = False
        while True:
            try:
                for summary in await list_environments(self._store):
                    self.follow(summary.name)
                failing = False
            except (StoreUnavailable, StoreError) as error:
                if not failing:
                    log.warning("cannot look for environments", reason=str(error))
                failing = True
            heed_cancellation()
            try:
                async with asyncio.timeout(self._discover_interval if not failing else 0.5):
                    await self._look.wait()
            except TimeoutError:
                continue
            self._look.clear()

    @property
    def streams(self) -> int:
        """Open streams, over all environments."""
        return sum(pipeline.streams for pipeline in self.pipelines.values())

    def streams_from(self, address: str) -> int:
        """Open streams from one IP address."""
        return sum(hub.streams_by_address[address] for p in self.pipelines.values() for hub in p.hubs.values())

    async def drain(self, *, spread: float, timeout: float) -> None:  # noqa: ASYNC109 - a limit told to streams, too
        """End every stream with a goodbye; new ones are refused from now on.

        Args:
            spread: seconds over which the clients' reconnections are spread.
            timeout: seconds until what is still open is aborted.
        """
        self.leaving = self.draining = True
        deadline = asyncio.get_running_loop().time() + timeout
        async with asyncio.TaskGroup() as tasks:
            for pipeline in self.pipelines.values():
                tasks.create_task(pipeline.keep())
                tasks.create_task(pipeline.withdraw_report())
                for hub in pipeline.hubs.values():
                    tasks.create_task(hub.drain(spread=spread, deadline=deadline))

    async def withdraw_reports(self) -> None:
        """Have Redis forget that this process was there, in every environment; for an end that is no drain."""
        async with asyncio.TaskGroup() as tasks:
            for pipeline in self.pipelines.values():
                tasks.create_task(pipeline.withdraw_report())
