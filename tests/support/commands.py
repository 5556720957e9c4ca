"""The command line, run in this process, in one of its own, or at a pseudo-terminal."""

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import psutil

from flagrelay.cli.main import main

PROGRAM = [sys.executable, "-m", "flagrelay"]

PATIENCE = 15.0
"""Seconds after which something that should have happened never will."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def error(self, status: int = 1) -> str:
        """The one line on standard error of a command that failed."""
        assert self.status == status, self
        assert self.out == "", self
        *usage, line = self.err.strip().splitlines()
        assert status == 2 or not usage, f"more than one line: {self.err}"
        assert "Traceback" not in self.err
        return line

    def ok(self) -> "Outcome":
        assert self.status == 0, self
        return self


class _Terminal(io.BytesIO):
    """Standard input that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(*arguments: str, stdin: str | bytes = b"", terminal: bool = False) -> Outcome:
    """Run a command in this process, as its entry point does."""
    sent = stdin.encode() if isinstance(stdin, str) else stdin
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(_Terminal(sent) if terminal else io.BytesIO(sent), "utf-8")
    status: Any = None
    with (
        mock.patch.multiple(sys, argv=["flagrelay", *arguments], stdin=given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int), "a command ends with a status"
    texts = [each.buffer.getvalue().decode() for each in (out, err)]  # type: ignore[attr-defined]  # a BytesIO
    return Outcome(status, *texts)


def program(*arguments: str, stdin: bytes = b"", **variables: str) -> Outcome:
    """Run a command as a process."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        env=os.environ | variables,
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def wait(condition: Callable[[], Any], what: str, *, within: float = PATIENCE) -> None:
    """Wait for something to hold, and say what it was where it does not."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.01)


class Process:
    """A command that runs beside the test, and what it has said so far."""

    def __init__(self, popen: "subprocess.Popen[bytes]", *outputs: int) -> None:
        self.popen = popen
        self._outputs = dict.fromkeys(outputs, b"")

    def text(self, output: int = 0) -> str:
        """What an output (by its order) has said so far."""
        ready, _, _ = select.select([*self._outputs], [], [], 0)
        for descriptor in ready:
            with contextlib.suppress(OSError):  # a pseudo-terminal whose process has ended
                self._outputs[descriptor] += os.read(descriptor, 65536)
        return list(self._outputs.values())[output].decode(errors="replace")

    def until(self, pattern: str, output: int = 0) -> "re.Match[str]":
        """Wait until an output has said something."""
        found: list[re.Match[str]] = []

        def said() -> bool:
            found.extend(re.finditer(pattern, self.text(output), re.MULTILINE))
            assert found or self.popen.poll() is None or self._drained(), f"it ended, without {pattern!r}: {self}"
            return bool(found)

        wait(said, f"it says {pattern!r}; it says {self}")
        return found[0]

    def _drained(self) -> bool:
        """Whether there is more to read of a process that has ended."""
        before = dict(self._outputs)
        self.text()
        return before != self._outputs

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if one is given, and wait for the end. Gives the status."""
        if number is not None:
            self.popen.send_signal(number)

        def ended() -> bool:
            self.text()  # or a full pipe would keep it from ending
            return self.popen.poll() is not None

        wait(ended, f"it ends; it says {self}")
        while self._drained():
            pass
        return self.popen.returncode

    def __str__(self) -> str:
        return "\n---\n".join(each.decode(errors="replace") for each in self._outputs.values())


@contextlib.contextmanager
def running(*arguments: str, **variables: str) -> Iterator[Process]:
    """A command as a process, its outputs piped to the test. It does not outlive the block."""
    popen = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | variables,
    )
    with popen:
        assert popen.stdout
        assert popen.stderr
        try:
            yield Process(popen, popen.stdout.fileno(), popen.stderr.fileno())
        finally:
            popen.kill()


@contextlib.contextmanager
def at_terminal(*arguments: str, typed: bytes = b"", **variables: str) -> Iterator[Process]:
    """A command as a process at a pseudo-terminal of 120 columns."""
    ours, theirs = pty.openpty()
    surroundings = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"} | variables
    surroundings.pop("NO_COLOR", None)
    popen = subprocess.Popen(
        [*PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, typed)
    try:
        with popen:
            try:
                yield Process(popen, ours)
            finally:
                popen.kill()
    finally:
        os.close(ours)


def descendants(pid: int) -> list[psutil.Process]:
    """Every process that a process has started, and those that they have."""
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether not one of them still runs."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)
