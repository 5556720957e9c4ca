"""Writes changes in a process of its own, so that writing and receiving do not wait for each other."""

import asyncio
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection

import uvloop
from rig.companion import Companion, companion
from rig.flags import flag, flag_key

from flagrelay.cli.main import cli
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.writing import Draft, Written, kill_flag, revive_flag, write_change

IN_FLIGHT = 16
"""Writes on their way to Redis at once, at most."""

CHANGING = 20
"""Flags that steady changes take in turns."""

PATIENCE = 2.0
"""A run of steady changes takes so many times what it should, at most."""


@dataclass(slots=True)
class Run:
    """Steady changes that were written.

    Args:
        wanted: how many there should be.
        written: when each was written, in seconds since 1970 by Redis's clock, by revision.
        late: how late the last one was begun, in seconds.
    """

    wanted: int
    written: dict[int, float] = field(default_factory=dict)
    late: float = 0.0


class Writer:
    """The near end."""

    def __init__(self, process: Companion) -> None:
        self._process = process

    def begin_steady(self, rate: float, seconds: float) -> None:
        """Begin to write so many changes a second, each of one flag; `receive` has the run."""
        self._process.send(("steady", rate, seconds))

    def begin_import(self, path: str) -> None:
        """Begin what `flagrelay flags import` does; `receive` has its last change."""
        self._process.send(("import", path))

    def begin_single(self, flags: int, version: int) -> None:
        """Begin to write flags one after another, as a script would; `receive` has its last change."""
        self._process.send(("single", flags, version))

    def receive(self) -> Run:
        """What was begun, once it is done."""
        run: Run = self._process.receive()
        return run

    def steady(self, rate: float, seconds: float) -> Run:
        """Write so many changes a second, each of one flag."""
        self.begin_steady(rate, seconds)
        return self.receive()

    def kill(self, key: str) -> Run:
        """Kill a flag: the one kind of change that is urgent."""
        run: Run = self._process.ask(("kill", key))
        return run

    def revive(self, key: str) -> Run:
        """Undo it."""
        run: Run = self._process.ask(("revive", key))
        return run


@contextmanager
def writer(redis_url: str, environment: str) -> Iterator[Writer]:
    """A process that writes to an environment, while the block lasts."""
    with companion(_write, redis_url, environment) as process:
        process.receive()
        yield Writer(process)


# -- the far end ------------------------------------------------------------------------------------------------------


def _write(pipe: Connection, redis_url: str, environment: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe, redis_url, environment))


async def _serve(pipe: Connection, redis_url: str, environment: str) -> None:
    edits = count(1)
    async with open_store(RedisAddress(redis_url)) as store:
        await _steady(store, environment, edits, rate=100, seconds=0.2)  # connected, and warm
        pipe.send("ready")
        while True:
            match pipe.recv():
                case ("steady", rate, seconds):
                    pipe.send(await _steady(store, environment, edits, rate=rate, seconds=seconds))
                case ("import", path):
                    pipe.send(await asyncio.to_thread(_import, path, environment, redis_url))
                case ("single", flags, version):
                    for number in range(flags):
                        draft = Draft(flags={flag_key(number): flag(number, version)}, actor="bench")
                        last = await write_change(store, environment, draft)
                    pipe.send(_one(last))
                case ("kill", key):
                    pipe.send(_one(await kill_flag(store, environment, key, actor="bench", reason="measured")))
                case ("revive", key):
                    pipe.send(_one(await revive_flag(store, environment, key, actor="bench", reason="measured")))


def _one(written: Written) -> Run:
    return Run(1, {written.revision: written.at / 1e6})


def _import(path: str, environment: str, redis_url: str) -> Run:
    """The command itself, in a process that has imported it already: starting Python is not what is measured."""
    where = ["--env", environment, "--redis-url", redis_url]
    with redirect_stdout(io.StringIO()) as said:
        cli.main(["flags", "import", path, "--json", *where], standalone_mode=False)
    answer = json.loads(said.getvalue())
    return Run(1, {answer["revision"]: answer["at"] / 1e6})


async def _steady(store: Store, environment: str, edits: Iterator[int], *, rate: float, seconds: float) -> Run:
    """Open loop: each change has its time, however long those before it take."""
    run = Run(max(1, round(rate * seconds)))
    flags = [(flag_key(number), flag(number)) for number in range(CHANGING)]
    turns = iter(range(run.wanted))
    began = time.monotonic()

    async def work() -> None:
        for turn in turns:
            due = began + turn / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now > began + seconds * PATIENCE:
                return
            run.late = max(0.0, now - due)
            key, definition = flags[turn % CHANGING]
            edited = {**definition, "metadata": {**definition["metadata"], "edit": next(edits)}}
            written = await write_change(store, environment, Draft(flags={key: edited}, actor="bench"))
            run.written[written.revision] = written.at / 1e6

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return run
