"""Keeps the last snapshot of one environment on disk: soon after it changed, and not too often."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from flagrelay.disk.state_dir import StateDir
from flagrelay.errors import StateError
from flagrelay.flags.snapshot import Snapshot

REFRESH = 60.0
"""Seconds after which what is kept is written anew although it is the same: its age is counted from when it was last
known to be Redis's state."""

Kept = tuple[Snapshot, float]


class Keeper:
    """What keeps one environment.

    Args:
        state_dir: where.
        environment: its name.
        interval: seconds between two writes, at least.
        current: the snapshot, and when it was last known to be Redis's (seconds since 1970); None where there is none.
    """

    def __init__(
        self, state_dir: StateDir, environment: str, interval: float, current: Callable[[], Kept | None]
    ) -> None:
        self._state_dir = state_dir
        self._environment = environment
        self._interval = interval
        self._current = current
        self._changed = asyncio.Event()
        self._kept: Kept | None = None

    def changed(self) -> None:
        """There is something new to keep."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Keep what changes, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH):
                    await self._changed.wait()
            self._changed.clear()
            await self.keep()
            await asyncio.sleep(self._interval)

    async def keep(self) -> None:
        """Write what there is now, where it is not what was written last."""
        current = self._current()
        if current is None or not self._differs(current):
            return
        snapshot, confirmed = current
        with suppress(StateError):
            await asyncio.to_thread(self._state_dir.write_snapshot, self._environment, snapshot, confirmed)
            self._kept = current

    def _differs(self, current: Kept) -> bool:
        if self._kept is None:
            return True
        return current[0].position != self._kept[0].position or current[1] >= self._kept[1] + REFRESH / 2
