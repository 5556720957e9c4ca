"""What a worker said of its streams, once it is no more: its supervisor knows that, and has Redis forget it.

A worker that takes its leave does so itself. One that was killed, or crashed, cannot; its streams are gone with it, and
nobody who waits for a proof is to wait for them.
"""

import asyncio

import structlog

from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.relay.backoff import Backoff
from flagrelay.server.stores import store_of
from flagrelay.settings import Settings
from flagrelay.store.environments import list_environments
from flagrelay.store.reports import drop_report

log = structlog.get_logger()


async def forget(settings: Settings, instance: str) -> None:
    """Have Redis forget what a process said that is no more; until Redis can be told.

    Args:
        settings: the node's.
        instance: the process.
    """
    if not settings.report_interval:
        return
    backoff = Backoff(settings.backoff_min, settings.backoff_max)
    failing = False
    async with store_of(settings) as store:
        while True:
            try:
                names = settings.env or [each.name for each in await list_environments(store)]
                for environment in names:
                    await drop_report(store, environment, settings.relay_id, instance=instance)
            except (StoreUnavailable, StoreError) as error:
                if not failing:
                    log.warning("Redis cannot be told that a worker is no more", reason=str(error))
                failing = True
                await asyncio.sleep(backoff.next())
            else:
                return
