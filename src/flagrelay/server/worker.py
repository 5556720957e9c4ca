"""One of several workers: `python -m flagrelay.server.worker CHANNEL LISTENER`, as its supervisor starts it.

The two are descriptors that it inherits: its end of the control channel, over which the settings come, and the socket
to listen on, which stays open in the supervisor. So connections that the kernel has taken for a worker that is being
replaced are there for its successor.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from flagrelay.errors import FlagrelayError, NoAnswer
from flagrelay.server.control import hear, tell
from flagrelay.server.garbage import settle_garbage
from flagrelay.server.logs import configure_logs
from flagrelay.server.node import Identity, Node
from flagrelay.server.serve import RelayServer, raise_descriptor_limit
from flagrelay.settings import Settings, settings_from_json

SETTLING = 0.25
"""Seconds in which a worker that is replaced still answers, as if nothing were, who has just connected to it."""


def main() -> int:
    """Serve until the supervisor says otherwise. Returns the exit status."""
    end, listener = (socket.socket(fileno=int(each)) for each in sys.argv[1:3])
    told = hear(end)
    if told is None:
        return 1  # the supervisor is gone already
    settings = settings_from_json(told["settings"])
    try:
        configure_logs(settings.log_level, settings.log_format)
        structlog.contextvars.bind_contextvars(worker=told["number"])
        raise_descriptor_limit(settings.max_streams)
        server = WorkerServer(settings, end, Identity(told["number"], told["node"], told["instance"]))
    except FlagrelayError as error:
        tell(end, "failed", error=str(error))
        return 1
    settle_garbage()
    server.run(sockets=[listener])
    return server.status


class WorkerServer(RelayServer):
    """A relay's server that takes its orders from a supervisor, and no signals."""

    def __init__(self, settings: Settings, end: socket.socket, identity: Identity) -> None:
        self._delayed = True
        self._node = Node(end, identity, self.stop)
        super().__init__(settings, node=self._node)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are the supervisor's, and blocked here."""
        yield

    def stop(self, *, delay: bool = True, hurry: bool = False) -> None:
        """Drain; without a `delay` nobody must be told to go elsewhere, since there is a successor."""
        if self.should_exit and not delay:
            self.cut_short()
        self._delayed = self._delayed and delay
        super().stop(hurry=hurry)

    async def announce(self, _listener: socket.socket) -> None:
        """Tell the supervisor, which tells everybody once all accept."""
        await self._node.accepting()

    async def take_leave(self) -> None:
        """Accept nothing more: once balancers have noticed; at once where there is a successor."""
        if self._delayed:
            await super().take_leave()
        else:
            await self.stop_accepting()
            await self.unhurried(SETTLING)

    async def stop_accepting(self) -> None:
        """Close the listener here; and there, where the whole node stops."""
        with suppress(NoAnswer):
            await self._node.closing()
        await super().stop_accepting()


if __name__ == "__main__":
    sys.exit(main())
