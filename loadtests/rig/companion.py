"""A process beside ours that is told what to do, and answers: what measures must not wait for what is measured."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PARENT_DEATH_SIGNAL = 1
"""Linux's PR_SET_PDEATHSIG."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A running companion: its process id, and the pipe to it."""

    pid: int
    pipe: Connection

    def send(self, message: object) -> None:
        """Tell it something."""
        self.pipe.send(message)

    def receive(self, within: float = 60.0) -> Any:  # noqa: ANN401 - an answer is whatever the companion says
        """Its next answer; ends this process where none comes."""
        try:
            if self.pipe.poll(within):
                return self.pipe.recv()
        except EOFError:
            sys.exit("a process of the benchmark has ended; what it wrote above says why")
        sys.exit(f"a process of the benchmark has said nothing for {within:g} s")

    def ask(self, message: object, within: float = 60.0) -> Any:  # noqa: ANN401 - as receive
        """Tell it something, and wait for its answer."""
        self.send(message)
        return self.receive(within)


@contextmanager
def companion(target: Callable[..., None], *arguments: object) -> Iterator[Companion]:
    """Run `target(pipe, *arguments)` in a process, while the block lasts."""
    ours, theirs = Pipe()
    process = Process(target=_run, args=(target, theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Companion(process.pid or 0, ours)
    finally:
        ours.close()
        process.kill()
        process.join()


def _run(target: Callable[..., None], *arguments: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us, and who ends us then
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)  # also where it cannot
    target(*arguments)


def cpu_seconds(pid: int) -> float:
    """What a process has used of the CPU so far, all its threads together."""
    return _scheduled(pid, 0)


def starved_seconds(pid: int) -> float:
    """For how long a process could have run so far, and had no core: the machine is too small, or busy elsewhere."""
    return _scheduled(pid, 1)


def _scheduled(pid: int, column: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[column]) for task in tasks) / 1e9


def until_idle(pid: int, within: float = 10.0, share: float = 0.02) -> None:
    """Wait until a process has nothing more to do: less than a share of a core over a tenth of a second."""
    deadline = time.monotonic() + within
    used = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        before, used = used, cpu_seconds(pid)
        if used - before < share / 10:
            return
    sys.exit(f"process {pid} is not idle after {within:g} s")


def own_cpu_seconds() -> float:
    """What this process has used of the CPU so far."""
    return cpu_seconds(os.getpid())
