"""What is measured side by side: flagrelay in each of its ways, the floor, and peers; a module for each program.

A module names its contenders in `CONTENDERS`. One that cannot run here raises `Missing` with what to do about it; it is
left out, and said so.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import GROUP
from rig.companion import Companion
from rig.event import Event

from flagrelay.cli.kept import kept


class Missing(Exception):
    """A contender cannot run here; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A contender that runs.

    Args:
        pid: its process; those that it has started belong to it.
        port: where streams are opened, on 127.0.0.1.
        request: what opens one.
        publisher: a process that is sent the number of a round, publishes that event, and answers with `Sent`.
        tls: whether the port speaks TLS.
        spread: whether several processes serve at once; these may use every core, that of the receiver too.
        at_once: how many streams may be asked for at a time.
    """

    pid: int
    port: int
    request: bytes
    publisher: Companion
    tls: bool = False
    spread: bool = False
    at_once: int = GROUP


@dataclass(frozen=True, slots=True)
class Contender:
    """One that takes part: its name, and how to run it with an event to publish."""

    name: str
    running: Callable[[Event], AbstractContextManager[Server]]


@contextmanager
def program(*command: str | Path, environment: dict[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """A server that prints a line with its port at the end: its process and port."""
    with TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "log"
        with kept([str(word) for word in command], log=log, environment=environment) as process:
            line = process.output.readline()
            port = line.strip().rstrip("/").rpartition(":")[2]
            if not port.isdigit():
                said = log.read_text(encoding="utf-8", errors="replace").strip()
                raise RuntimeError(f"{command[0]} did not start: {line} {said[-1000:]}")
            yield process.pid, int(port)


def request(path: str, *headers: str) -> bytes:
    """What opens a stream."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: bench", "accept: text/event-stream", *headers, "", ""]).encode()


def until_listening(port: int, log: Path) -> None:
    """Wait until somebody listens on a port; `log` is where they say why not."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"a contender did not start: {log.read_text(encoding='utf-8')[-1000:]}")
