"""The process: bind, run, drain, exit."""

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from flagrelay import __version__
from flagrelay.server.app import create_app
from flagrelay.server.arrival import Arrivals
from flagrelay.server.context import Context
from flagrelay.server.garbage import settle_garbage
from flagrelay.server.handover import HandoverProtocol
from flagrelay.server.identity import named
from flagrelay.server.listeners import bind, url_of
from flagrelay.server.logs import configure_logs
from flagrelay.server.node import Node
from flagrelay.server.pace import Pace
from flagrelay.server.tls import Certificate
from flagrelay.settings import Settings

BACKLOG = 4096
"""Connections that the kernel accepts for us before we take them; all are taken in one turn of the event loop."""

CONNECTIONS_PER_TURN = 32
"""New connections that are read from in one turn of the event loop; more wait, each as a socket and little else."""

SPARE_DESCRIPTORS = 64
"""Descriptors that a relay needs beside its streams: Redis, listeners, logs, requests."""

log = structlog.get_logger()


def serve(settings: Settings) -> int:
    """Run a relay until SIGTERM or SIGINT. Returns the exit status.

    Raises:
        SettingError: the address cannot be listened on.
    """
    configure_logs(settings.log_level, settings.log_format)
    listener = bind(settings.host, settings.port)
    raise_descriptor_limit(settings.max_streams)
    server = RelayServer(named(settings, listener))
    settle_garbage()
    server.run(sockets=[listener])
    return server.status


def raise_descriptor_limit(max_streams: int) -> None:
    """Take what the system gives us: each stream is a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_streams + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            log.warning(
                "the limit on open files is lower than the limit on streams: raise it (ulimit -n, LimitNOFILE=)",
                open_files=soft,
                max_streams=max_streams,
            )


class RelayServer(uvicorn.Server):
    """uvicorn, with our end: stop accepting, say goodbye to every stream, then stop."""

    def __init__(self, settings: Settings, node: Node | None = None) -> None:
        self.status = 0
        self._settings = settings
        self._hurried = asyncio.Event()
        self._app = create_app(settings, on_crash=self._crash, node=node)
        most_body = max(settings.max_body_bytes, settings.max_admin_body_bytes if settings.admin_api else 0)
        arrivals = Arrivals(
            self._app,
            pace=Pace(CONNECTIONS_PER_TURN, sys.maxsize),
            head_timeout=settings.head_timeout,
            most_head=settings.max_header_bytes,
            following=partial(HandoverProtocol, head_timeout=settings.head_timeout, most_behind=8 * most_body),
        )
        self._certificate = Certificate(Path(settings.tls_cert), Path(settings.tls_key)) if settings.tls_cert else None
        self._following: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            self._app,
            http=arrivals,  # type: ignore[arg-type]  # uvicorn calls it, as it would call a class
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=settings.max_header_bytes,
        )
        config.load()
        config.ssl = self._certificate.context if self._certificate else None
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT drain, SIGHUP does nothing, and the exit status is ours.

        uvicorn would raise the signal once more at the end, and sse-starlette, which replaces uvicorn's handler,
        would cut its streams off before we have said goodbye: neither sees these.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, log.info, "nothing to reload: certificates are read again by themselves")
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        log.info("stopping", signal=signal.Signals(number).name, again=self.should_exit)
        self.stop(hurry=self.should_exit)

    def stop(self, *, hurry: bool = False) -> None:
        """Drain and end; as fast as it goes in a `hurry`."""
        if hurry:
            self.force_exit = True
            self.cut_short()
        self.should_exit = True

    def cut_short(self) -> None:
        """Wait no longer for those who should notice that we leave."""
        self._hurried.set()

    def _crash(self, _error: BaseException) -> None:
        self.status = 1
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where; on standard output, for whoever started us on a port of the system's choice."""
        await super().startup(sockets)
        if self._certificate:
            self._following = asyncio.create_task(self._certificate.follow())
        for listener in sockets or []:
            await self.announce(listener)

    async def announce(self, listener: socket.socket) -> None:
        """Say that connections are accepted from now on."""
        url = url_of(listener, tls=self._certificate is not None)
        print(f"listening on {url}", flush=True)  # noqa: T201 - the one line of output that is no log
        log.info("started", version=__version__, url=url, environments=self._settings.env or "all")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so to balancers, stop accepting, drain, stop."""
        await self.take_leave()
        if self._following:
            self._following.cancel()
        context: Context = self._app.state.context
        streams = context.relay.streams
        settings = self._settings
        loop = asyncio.get_running_loop()
        deadline = loop.time() + settings.drain_timeout
        await context.relay.drain(spread=settings.drain_spread, timeout=settings.drain_timeout)
        log.info("drained", streams=streams)
        # What the streams left of the time is for the other requests; uvicorn waits for fractions as well.
        self.config.timeout_graceful_shutdown = max(0.1, deadline - loop.time())  # type: ignore[assignment]
        await super().shutdown(sockets)
        if self.force_exit:
            # uvicorn would leave the application running, to be torn down with the event loop.
            await self.lifespan.shutdown()
        log.info("stopped", status=self.status)

    async def take_leave(self) -> None:
        """Say so to balancers, and accept nothing more once they have noticed."""
        self._app.state.context.relay.leaving = True
        await self.unhurried(self._settings.drain_delay)
        await self.stop_accepting()

    async def unhurried(self, seconds: float) -> None:
        """Let time pass, unless there is a hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0 if self.force_exit else seconds):
                await self._hurried.wait()

    async def stop_accepting(self) -> None:
        """Close the listeners; what has connected goes on."""
        for server in self.servers:
            server.close()
