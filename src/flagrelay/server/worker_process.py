"""A worker as its supervisor has it: a process of its own, and the channel to it."""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flagrelay.server.control import Channel, Handler, tell
from flagrelay.settings import Settings

SUPERVISORS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that are the supervisor's. A worker is started with them blocked, and takes orders over its channel alone:
whoever signals the whole group of processes means the node, and the node's own order is one signal, not two."""

TELLING = 1.0
"""Seconds in which the settings fit into the channel, or never will."""

SIGNALLED = 128
"""What shells add to the number of the signal that a process died of."""


class WorkerProcess:
    """One process, from its start to its end.

    Args:
        number: its place in the node.
        listener: the socket on which it will listen; it gets a copy.
        settings: its settings.
        node: the random identity of the node.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, number: int, listener: socket.socket, settings: Settings, node: str) -> None:
        self.number = number
        self.instance = secrets.token_hex(4)
        """Its random identity, under which it reports to Redis."""
        self.joined = asyncio.Event()
        """It takes over what the others hold, and is told everything from then on."""
        self.patience: float | None = None
        """Seconds that it has to be ready once it has joined; None for as long as that takes."""
        self.accepts = asyncio.Event()
        self.leaving = False
        """Whether it was told to drain."""
        self.ended = asyncio.Event()
        self.error = ""
        """Why it could not start, in its own words."""
        self.killed_for = ""
        """Why the supervisor has killed it."""
        self.accepting_since: float | None = None
        """When it began to accept, in the event loop's time."""
        self._channel: Channel | None = None
        self._end, theirs = socket.socketpair()
        with theirs:
            try:
                # First, since it may end before it has read anything; and within a limit, since nobody reads it yet.
                self._end.settimeout(TELLING)
                who = {"number": number, "node": node, "instance": self.instance}
                tell(self._end, "serve", **who, settings=asdict(settings))
                self._popen = _started(theirs, listener)
            except OSError:
                self._end.close()
                raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def how(self) -> str:
        """How it ended, for people."""
        status = self._popen.returncode or 0
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    @property
    def reason(self) -> str:
        """How it ended, as it is counted."""
        return "hung" if self.killed_for else "killed" if (self._popen.returncode or 0) < 0 else "exited"

    @property
    def status(self) -> int:
        """Its exit status, as a shell has it."""
        status = self._popen.returncode or 0
        return SIGNALLED - status if status < 0 else status

    @property
    def channel(self) -> Channel:
        """The channel to it, once that is open."""
        if self._channel is None:
            raise RuntimeError("the channel is not open yet")
        return self._channel

    async def open(self, handlers: Mapping[str, Handler]) -> None:
        """Open the channel."""
        self._channel = await Channel.open(self._end, handlers)

    def reap(self) -> None:
        """Note whether it has ended."""
        if self._popen.poll() is not None:
            self.ended.set()

    def kill(self, why: str = "") -> None:
        """End it at once; `why` where that is its own fault."""
        self.killed_for = self.killed_for or why
        self._popen.kill()


def _started(theirs: socket.socket, listener: socket.socket) -> "subprocess.Popen[bytes]":
    descriptors = (theirs.fileno(), listener.fileno())
    # What we import it imports too, from the same places, whatever lies in the folder that somebody stands in.
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS)
    try:
        return subprocess.Popen(  # noqa: S603 - what it runs is ours
            [sys.executable, "-P", "-m", "flagrelay.server.worker", *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=descriptors,
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
