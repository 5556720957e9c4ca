"""GET /v1/kills, PUT and DELETE /v1/kills/{key}: un-release without Redis, with an admin key."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.errors import FlagMissing, LocalKillMissing, Refusal, VariantMissing
from flagrelay.relay.local_kills import Standing
from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.access import authenticate, pipeline_for, refuse_body
from flagrelay.server.bodies import read_body
from flagrelay.server.context import context_of

MAX_TEXT = 1000
"""Characters of a reason, an actor, or a variant."""


async def kills(request: Request) -> Response:
    """The kills that this relay holds by itself."""
    return _answer(_admitted(request))


async def put_kill(request: Request) -> Response:
    """Take a flag back from everybody on this relay; applied when this is answered."""
    pipeline = _admitted(request)
    key = request.path_params["key"]
    to, actor, reason = _order(await read_body(request, context_of(request).settings))
    _admitted(request)  # the key may have been revoked while the body was on its way
    try:
        kept = await pipeline.kill(key, to=to, actor=actor, reason=reason)
    except (FlagMissing, VariantMissing) as error:
        raise Refusal(404, "FLAG_NOT_FOUND" if isinstance(error, FlagMissing) else "NOT_FOUND", str(error)) from error
    return _answer(pipeline, flag=key, kept=kept)


async def withdraw_kill(request: Request) -> Response:
    """Take such a kill back: the flag is again what Redis says."""
    pipeline = _admitted(request)
    refuse_body(request)
    key = request.path_params["key"]
    try:
        kept = await pipeline.withdraw(key)
    except LocalKillMissing as error:
        raise Refusal(404, "NOT_FOUND", str(error)) from error
    return _answer(pipeline, flag=key, kept=kept)


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


def _answer(pipeline: Pipeline, **more: Any) -> Response:  # noqa: ANN401 - members of JSON
    """What is held now, and how Redis stands to it."""
    document = {
        "environment": pipeline.environment,
        **more,
        "revision": pipeline.held().position.revision,
        "streams": pipeline.streams,
        "source": pipeline.source.state.value,
        "kills": [_member(standing) for standing in pipeline.local_kills.held.values()],
    }
    return Response(orjson.dumps(document), headers={"cache-control": "no-store"}, media_type="application/json")


def _member(standing: Standing) -> dict[str, Any]:
    kill = standing.kill
    return {
        "flag": kill.key,
        "to": kill.to,
        "actor": kill.actor,
        "reason": kill.reason,
        "at": kill.at,
        "state": standing.state.value,
        "why": standing.why,
    }
