"""The Starlette application, and what lives as long as it does."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from flagrelay.disk.state_dir import StateDir
from flagrelay.errors import Refusal
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.pipeline import PipelineOptions
from flagrelay.relay.relay import Relay
from flagrelay.relay.reporter import Reporting
from flagrelay.server import refusals
from flagrelay.server.admission import Admission
from flagrelay.server.context import Context
from flagrelay.server.cors import Cors
from flagrelay.server.evaluations import evaluation_stream, event_stream
from flagrelay.server.exposition import families, metrics
from flagrelay.server.flagset import flags
from flagrelay.server.health import livez, not_ready, readiness, readyz
from flagrelay.server.identity import relay_id
from flagrelay.server.keyring import Keyring
from flagrelay.server.kills import kills, put_kill, withdraw_kill
from flagrelay.server.metrics import Metrics
from flagrelay.server.node import Node
from flagrelay.server.ofrep import EVENTS, evaluate_flag, evaluate_flags
from flagrelay.server.pace import Pace
from flagrelay.server.rates import Rates
from flagrelay.server.status import status, statusz
from flagrelay.server.stores import store_of
from flagrelay.server.streams import stream
from flagrelay.settings import Settings, settings_from_environment
from flagrelay.store.access_keys import AccessKey
from flagrelay.store.connection import Store

log = structlog.get_logger()

ROUTES = (
    Route("/v1/stream", stream),
    Route("/v1/flags", flags),
    Route("/v1/evaluations/stream", evaluation_stream, methods=["GET", "POST"]),
    Route("/ofrep/v1/evaluate/flags", evaluate_flags, methods=["POST"]),
    Route("/ofrep/v1/evaluate/flags/{key:path}", evaluate_flag, methods=["POST"]),
    Route(EVENTS, event_stream),
    Route("/v1/kills", kills),
    Route("/v1/kills/{key:path}", put_kill, methods=["PUT"]),
    Route("/v1/kills/{key:path}", withdraw_kill, methods=["DELETE"]),
    Route("/livez", livez),
    Route("/statusz", statusz),
    Route("/readyz", readyz),
    Route("/metrics", metrics),
)

REPORTS = {"readiness": readiness, "status": status, "metrics": families}
"""What a worker says of itself when its node is asked."""

STREAMS = frozenset({"/v1/stream", "/v1/evaluations/stream", EVENTS})
"""What opens streams, and waits for its turn where many come at once."""

STREAMS_PER_TURN = 8
"""Streams that are opened in one turn of the event loop: less than a millisecond of it."""


def create_app(
    settings: Settings, *, on_crash: Callable[[BaseException], None] | None = None, node: Node | None = None
) -> Starlette:
    """The application of one relay process.

    Args:
        settings: all of them; those about sockets are the server's that runs this.
        on_crash: told when a task that must not end has ended, so that the process can end too.
        node: the node that the process is a worker of; None where it is alone.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with store_of(settings) as store:
            app.state.context = context = make_context(settings, store, node)
            async with (
                _running(context.relay.run(), context.keyring.run(), on_crash=on_crash),
                _joined(context, node) if node else nullcontext(),
            ):
                yield
                await context.relay.withdraw_reports()

    app = Starlette(
        routes=[*ROUTES, *(_admin_routes() if settings.admin_api else ())],
        lifespan=lifespan,
        middleware=[Middleware(Admission, paths=STREAMS), Middleware(Cors)],
        exception_handlers={
            Refusal: refusals.refused,
            HTTPException: refusals.not_routed,
            Exception: refusals.failed,
        },
    )
    # What is not there is 404, not a redirect to wherever the Host header says.
    app.router.redirect_slashes = False
    return app


def _admin_routes() -> list[Route]:
    """The control API's, which most relays do not have: they need not know what it does, nor how it is described."""
    from flagrelay.server.admin import admin_routes  # noqa: PLC0415

    return admin_routes()


def app_from_environment() -> Starlette:
    """The application with the settings that environment variables give, for other ASGI servers.

    `hypercorn 'flagrelay.server.app:app_from_environment()'`; streams then take the portable path.

    Raises:
        SettingError: a setting is out of its range.
    """
    return create_app(settings_from_environment(os.environ))


def make_context(settings: Settings, store: Store, node: Node | None = None) -> Context:
    """Relay, keyring and metrics, knowing of each other what they must."""
    exported = Metrics()
    state_dir = StateDir(Path(settings.state_dir), settings.prefix) if settings.state_dir else None
    relay = Relay(
        store,
        settings.env,
        PipelineOptions(
            verify_interval=settings.verify_interval,
            backoff_min=settings.backoff_min,
            backoff_max=settings.backoff_max,
            heartbeat_interval=settings.heartbeat_interval,
            retry=settings.retry,
            lagging_timeout=settings.lagging_timeout,
            changes_held=settings.changes_held,
            changes_held_bytes=settings.changes_held_bytes,
            refetch_spread=settings.refetch_spread,
            state_wait=settings.state_wait,
            state_interval=settings.state_interval,
        ),
        state_dir=state_dir,
        on_delivered=exported.delivered,
        reporting=_reporting(settings, node),
        discover_interval=settings.verify_interval,
    )
    exported.watch(relay, state_dir)
    endings: set[asyncio.Task[None]] = set()

    def end(key: AccessKey, reason: str) -> None:
        log.info("access key ended", id=key.id, environment=key.environment, reason=reason)
        pipeline = relay.pipelines.get(key.environment)
        if pipeline:
            task = asyncio.create_task(pipeline.dismiss_key(key.id, reason))
            endings.add(task)
            task.add_done_callback(endings.discard)

    keyring = Keyring(
        store,
        on_end=end,
        on_change=relay.look,
        interval=settings.verify_interval,
        backoff=Backoff(settings.backoff_min, settings.backoff_max),
        state_dir=state_dir,
        state_wait=settings.state_wait,
    )
    rates = Rates(settings.max_evaluations_per_second)
    pace = Pace(STREAMS_PER_TURN, settings.max_waiting)
    return Context(settings, store, relay, keyring, exported, rates, pace, state_dir, time.monotonic(), node)


def _reporting(settings: Settings, node: Node | None) -> Reporting | None:
    """As whom this process reports; None where it is not to."""
    if not settings.report_interval:
        return None
    alone = Reporting(relay=relay_id(settings), interval=settings.report_interval)
    if node is None:
        return alone
    who = node.identity
    return replace(alone, worker=who.number, workers=settings.workers, node=who.node, instance=who.instance)


def _joined(context: Context, node: Node) -> AbstractAsyncContextManager[None]:
    reports = {name: partial(report, context) for name, report in REPORTS.items()}
    return node.joined(context.relay, reports, lambda: not not_ready(context))


@asynccontextmanager
async def _running(
    *coroutines: Coroutine[Any, Any, None], on_crash: Callable[[BaseException], None] | None
) -> AsyncIterator[None]:
    """Run tasks that end only when they are cancelled here; anything else is a crash, and is told."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception() or RuntimeError("ended without being told to")
            log.critical("a task of the relay crashed", exc_info=error)
            if on_crash:
                on_crash(error)

    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
