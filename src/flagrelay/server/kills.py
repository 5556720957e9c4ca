"""GET /v1/kills, PUT and DELETE /v1/kills/{key}: un-release without Redis, with an admin key."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.errors import FlagMissing, LocalKillMissing, Refusal, VariantMissing
from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.access import authenticate, pipeline_for, refuse_body
from flagrelay.server.bodies import read_body
from flagrelay.server.context import Context, context_of
from flagrelay.server.merging import faults, merge_kills
from flagrelay.server.node import Node

RETRY_AFTER = 1
"""Seconds after which a worker that did not answer is worth another try."""

MAX_TEXT = 1000
"""Characters of a reason, an actor, or a variant."""


async def kills(request: Request) -> Response:
    """The kills that this relay holds by itself, on all of its workers."""
    return await _answer(context_of(request), _admitted(request))


async def put_kill(request: Request) -> Response:
    """Take a flag back from everybody on this relay; applied on every worker when this is answered."""
    context, pipeline = context_of(request), _admitted(request)
    key = request.path_params["key"]
    to, actor, reason = _order(await read_body(request, context.settings))
    _admitted(request)  # the key may have been revoked while the body was on its way
    try:
        kill = pipeline.draft_kill(key, to=to, actor=actor, reason=reason)
    except (FlagMissing, VariantMissing) as error:
        raise Refusal(404, "FLAG_NOT_FOUND" if isinstance(error, FlagMissing) else "NOT_FOUND", str(error)) from error
    if context.node is None:
        kept = await pipeline.hold(kill)
    else:
        done = _by_all(await context.node.hold(pipeline.environment, kill))
        kept = all(each["kept"] for each in done)
    return await _answer(context, pipeline, flag=key, kept=kept)


async def withdraw_kill(request: Request) -> Response:
    """Take such a kill back, from every worker: the flag is again what Redis says."""
    context, pipeline = context_of(request), _admitted(request)
    refuse_body(request)
    key = request.path_params["key"]
    try:
        kept = await _withdrawn(context.node, pipeline, key)
    except LocalKillMissing as error:
        raise Refusal(404, "NOT_FOUND", str(error)) from error
    return await _answer(context, pipeline, flag=key, kept=kept)


async def _withdrawn(node: Node | None, pipeline: Pipeline, key: str) -> bool:
    if node is None:
        return await pipeline.withdraw(key)
    done = _by_all(await node.withdraw(pipeline.environment, key))
    if not any(each["held"] for each in done):
        raise LocalKillMissing(pipeline.environment, key)
    return all(each["kept"] for each in done)


def _by_all(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each worker says to an order.

    Raises:
        Refusal: 503, one of them could not be told; what the others were told holds.
    """
    silent = [f"worker {each['worker']}: {each['error']}" for each in workers if "error" in each]
    if silent:
        told = ", ".join(str(each["worker"]) for each in workers if "error" not in each)
        raise Refusal(
            503,
            "NOT_ON_ALL_WORKERS",
            f"done on worker {told or 'none'} of this relay, but not confirmed by all ({'; '.join(silent)}): "
            "ask again until it is",
            retry_after=RETRY_AFTER,
        )
    return workers


def _admitted(request: Request) -> Pipeline:
    context = context_of(request)
    return pipeline_for(context, authenticate(context, request, "admin"))


def _order(body: bytes) -> tuple[str | None, str, str]:
    """What a kill's body asks for: the variant, who, and why.

    Raises:
        Refusal: 400, it is none.
    """
    try:
        order = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "INVALID_REQUEST", f"the body is not JSON: {error}") from error
    if not isinstance(order, dict) or order.keys() - {"to", "actor", "reason"}:
        raise Refusal(400, "INVALID_REQUEST", "the body should be an object with `reason`, `actor`, and perhaps `to`")
    texts = {"to": order.get("to", "-") or "", "actor": order.get("actor"), "reason": order.get("reason")}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_TEXT or not (text.strip() or name == "to"):
            raise Refusal(400, "INVALID_REQUEST", f"`{name}` should be text of 1 to {MAX_TEXT} characters")
    return order.get("to"), order["actor"], order["reason"]


async def _answer(context: Context, pipeline: Pipeline, **more: Any) -> Response:  # noqa: ANN401 - members of JSON
    """What is held now, and how Redis stands to it."""
    if context.node is None:
        standings = [standing.as_json() for standing in pipeline.local_kills.held.values()]
        streams = pipeline.streams
    else:
        gathered = await context.node.gather("kills")
        standings, streams = merge_kills(gathered, pipeline.environment)
        more |= {"workers": len(gathered["workers"]), "errors": faults(gathered)}
    document = {
        "environment": pipeline.environment,
        **more,
        "revision": pipeline.held().position.revision,
        "streams": streams,
        "source": pipeline.source.state.value,
        "kills": [_member(standing) for standing in standings],
    }
    return Response(orjson.dumps(document), headers={"cache-control": "no-store"}, media_type="application/json")


def _member(standing: dict[str, Any]) -> dict[str, Any]:
    kill = standing["kill"]
    return {
        "flag": kill["key"],
        **{name: kill[name] for name in ("to", "actor", "reason", "at")},
        "state": standing["state"],
        "why": standing["why"],
        **({"workers": standing["workers"]} if "workers" in standing else {}),
    }
