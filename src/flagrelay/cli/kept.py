"""A process that ends when we do, however we end, and whose folder goes with it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flagrelay.errors import FlagrelayError

# Stands between us and the process. When our end of its standard input closes, which even SIGKILL cannot
# prevent, it ends the process and removes the folder.
_KEEPER = """
import json, os, shutil, signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
what = json.loads(sys.argv[1])
try:
    try:
        with open(what["log"], "ab") as log:
            process = subprocess.Popen(
                what["command"], stdin=subprocess.DEVNULL, stderr=log, stdout=log if what["quiet"] else None,
                restore_signals=True, preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 15)],
            )
    except OSError as error:
        sys.exit(print(error.strerror))
    try:
        print(process.pid, flush=True)  # fails where we are gone already
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the process alone holds the pipe, and its end shows
        sys.stdin.read()
    finally:
        process.terminate()
        try:
            process.wait(what["patience"])
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
finally:
    if what["remove"]:
        shutil.rmtree(what["remove"], ignore_errors=True)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept process: its id, and its standard output unless that goes to the log."""

    pid: int
    output: IO[str]


@contextmanager
def kept(
    command: Sequence[str],
    *,
    log: Path,
    remove: Path | None = None,
    quiet: bool = False,
    patience: float = 5.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Kept]:
    """Run a process while the block lasts.

    Args:
        command: what to run.
        log: where its standard error goes; its standard output too where it is `quiet`.
        remove: a folder to remove once it has ended.
        quiet: whether nobody reads its standard output.
        patience: seconds between asking it to end and killing it.
        environment: its environment variables; ours where left out.

    Raises:
        FlagrelayError: it cannot be run.
    """
    what = {
        "command": list(command),
        "log": str(log),
        "remove": str(remove or ""),
        "quiet": quiet,
        "patience": patience,
    }
    # A session of its own, so that Ctrl-C at the terminal reaches us alone, and we end it in order.
    with subprocess.Popen(  # noqa: S603 - what it runs is ours
        # Isolated, or a json.py in the folder that somebody stands in would be imported.
        [sys.executable, "-I", "-c", _KEEPER, json.dumps(what)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    ) as keeper:
        if keeper.stdin is None or keeper.stdout is None:
            raise RuntimeError("Popen was asked for pipes and gave none")
        try:
            pid = keeper.stdout.readline().strip()
            if not pid.isdigit():
                raise FlagrelayError(f"cannot run {command[0]}: {pid or 'it ended at once'}")
            yield Kept(int(pid), keeper.stdout)
        finally:
            keeper.stdin.close()
            keeper.stdout.close()
            keeper.wait()
