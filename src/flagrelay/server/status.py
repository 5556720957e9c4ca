"""GET /statusz: what `flagrelay status` shows, for people and for scripts."""

import time
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flagrelay import __version__
from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.context import Context, context_of
from flagrelay.server.health import not_ready
from flagrelay.server.identity import relay_id
from flagrelay.server.merging import merge_status


async def statusz(request: Request) -> Response:
    """How this relay and each of its environments stand; where it is a node of several workers, all of them as one."""
    context = context_of(request)
    document = merge_status(await context.node.gather("status")) if context.node else status(context)
    return Response(orjson.dumps(document), headers={"cache-control": "no-store"}, media_type="application/json")


def status(context: Context) -> dict[str, Any]:
    """How this process and each of its environments stand."""
    relay = context.relay
    reasons = not_ready(context)
    return {
        "version": __version__,
        "relay_id": relay_id(context.settings),
        "uptime_ms": round((time.monotonic() - context.started) * 1000),
        "ready": not reasons,
        "reason": "; ".join(reasons),
        "streams": relay.streams,
        "waiting": context.pace.waiting,
        "refused": relay.refused,
        "keys": {"live": context.keyring.live, "reason": "" if context.keyring.live else context.keyring.reason},
        "state_dir": context.state_dir.as_json() if context.state_dir else None,
        "environments": {name: _environment(pipeline) for name, pipeline in relay.pipelines.items()},
    }


def _environment(pipeline: Pipeline) -> dict[str, Any]:
    source, stats, snapshot = pipeline.source, pipeline.stats, pipeline.snapshot
    document: dict[str, Any] = {
        "source": source.state.value,
        "reason": source.reason,
        "streams": {kind: len(hub.subscribers) for kind, hub in pipeline.hubs.items()},
        "lagging": sum(len(hub.lagging) for hub in pipeline.hubs.values()),
        "histories_lost": stats.histories_lost,
        "local_kills": pipeline.local_kills.states,
        "last_change": None,
    }
    if stats.last_change:
        revision, at = stats.last_change
        document["last_change"] = {"revision": revision, "at": at}
    if snapshot:
        document |= {
            "epoch": snapshot.position.epoch,
            "revision": snapshot.position.revision,
            "flags": len(snapshot.flags),
            "age_ms": round(pipeline.age * 1000),
            "served_from": "disk" if pipeline.restored else "redis",
        }
    return document
