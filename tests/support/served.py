"""`flagrelay serve` as a process, and the workers that it has."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no type information
import pytest

from support.streams import PATIENCE, Answer, ask

DRAIN = 1.5
SPREAD = 2.0
GRACE = 1.0
"""Seconds that a busy machine may need beside what a relay waits for."""


@dataclass(slots=True)
class Served:
    """A relay in a process of its own."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    @property
    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers that run; none where it serves by itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return []

    async def ask(self, path: str, secret: str = "") -> Answer:
        """An answer from whichever worker gives one, though others may be stopped."""
        return await first(lambda: ask(self.port, path, secret))

    async def until(self, path: str, condition: Callable[[Any], Any], what: str) -> Any:
        """Wait until what it says of itself meets a condition; what it says."""
        said: Any = None
        try:
            async with asyncio.timeout(2 * PATIENCE):
                while not condition(said := (await self.ask(path)).json):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"not in time: {what}; it says {said}")
        return said

    async def ended(self, within: float) -> int:
        """Its exit status."""
        async with asyncio.timeout(within):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def served(
    redis_url: str, folder: Path, *options: str, ready: bool = True, scheme: str = "http"
) -> AsyncIterator[Served]:
    """`flagrelay serve`, killed at the end if it has not ended by then; its log holds no traceback."""
    log = folder / "relay.log"
    command = [sys.executable, "-m", "flagrelay", "serve", "--port", "0", "--redis-url", redis_url]
    quick = ["--drain-timeout", str(DRAIN), "--drain-spread", str(SPREAD), "--backoff-max", "0.1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGRELAY_")}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            *quick,
            *options,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
    assert process.stdout
    try:
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        assert line.startswith(f"listening on {scheme}://127.0.0.1:"), f"{line!r}\n{log.read_text(encoding='utf-8')}"
        relay = Served(process, int(line.rsplit(":", 1)[1]), log)
        if ready:
            await becomes_ready(relay)
        yield relay
    finally:
        workers = Served(process, 0, log).workers
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        rest = await process.stdout.read()
        await process.wait()
        await gone(workers)
    assert rest == b"", "standard output has one line"
    assert "Traceback" not in relay.logged, relay.logged


async def becomes_ready(relay: Served) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await ask(relay.port, "/readyz")).status != 200:
            await asyncio.sleep(0.02)


async def gone(pids: Iterable[int]) -> None:
    """Wait until these processes are no more; what still is is killed, so that it hurts no other test."""
    left = set(pids)
    try:
        async with asyncio.timeout(PATIENCE):
            while left := {pid for pid in left if psutil.pid_exists(pid)}:
                await asyncio.sleep(0.02)
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def first(attempt: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """What the first of several attempts gives, each on a connection of its own: not every worker may answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            tries = [asyncio.create_task(attempt()) for _ in range(6)]
            try:
                await asyncio.wait(tries, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in tries:
                    each.cancel()
                outcomes = await asyncio.gather(*tries, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Answer):
                    return outcome
            await asyncio.sleep(0.02)
