"""GET /livez and GET /readyz, for whoever routes traffic."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.context import Context, context_of
from flagrelay.server.merging import merge_readiness


async def livez(_request: Request) -> Response:
    """The process answers."""
    return _json(200, {"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether clients should be sent here: everything loaded, and nothing staler than `max_stale`, on every worker."""
    context = context_of(request)
    document = merge_readiness(await context.node.gather("readiness")) if context.node else readiness(context)
    reasons = document.pop("reasons")
    if reasons:
        return _json(503, {"status": "not ready", "reason": "; ".join(reasons), **document})
    return _json(200, {"status": "ready", **document})


def readiness(context: Context) -> dict[str, Any]:
    """Why clients should not be sent to this process, and how each environment stands."""
    environments = {name: _report(pipeline) for name, pipeline in context.relay.pipelines.items()}
    return {"reasons": not_ready(context), "environments": environments}


def not_ready(context: Context) -> list[str]:
    """Why clients should not be sent here; empty where they should."""
    reasons = []
    if context.relay.leaving:
        reasons.append("shutting down")
    if not context.keyring.loaded:
        reasons.append(f"access keys: not loaded yet: {context.keyring.reason}")
    elif not context.relay.pipelines:
        reasons.append("no environment yet: create one with `flagrelay env create NAME`")
    for name, pipeline in context.relay.pipelines.items():
        if not pipeline.hub.loaded:
            reasons.append(f"{name}: not loaded yet: {pipeline.source.reason}")
        elif not pipeline.live and pipeline.age > context.settings.max_stale:
            reasons.append(f"{name}: stale for {pipeline.age:.0f} s: {pipeline.source.reason}")
    return reasons


def _report(pipeline: Pipeline) -> dict[str, Any]:
    report: dict[str, Any] = {"source": pipeline.source.state.value}
    if pipeline.snapshot:
        position = pipeline.snapshot.position
        report |= {
            "epoch": position.epoch,
            "revision": position.revision,
            "age_ms": round(pipeline.age * 1000),
        }
    if not pipeline.live:
        report["reason"] = pipeline.source.reason
    if pipeline.restored:
        report["served_from"] = "disk"
    if pipeline.stats.histories_lost:
        report["histories_lost"] = pipeline.stats.histories_lost
    if pipeline.local_kills.held:
        report["local_kills"] = pipeline.local_kills.states
    return report


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), status, {"cache-control": "no-store"}, media_type="application/json")
