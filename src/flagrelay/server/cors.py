"""Which web pages may ask for evaluated values: cross-origin resource sharing, environment by environment.

Off until an environment has origins. A preflight brings no key, so it cannot say which environment it is about: it is
answered where any environment has the origin, and grants nothing; the answer itself is open only to the origins of the
key's own environment.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flagrelay.server.access import ENVIRONMENT
from flagrelay.server.context import Context

PATHS = ("/ofrep/", "/v1/evaluations/")
"""What web pages may ask for: never definitions."""

PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, OPTIONS",
    "access-control-allow-headers": "Authorization, Content-Type, If-None-Match, Last-Event-ID, X-API-Key",
    "access-control-max-age": "600",
}
CLOSED = {"vary": "Origin"}
OPEN = {**CLOSED, "access-control-expose-headers": "ETag, Retry-After, Flagrelay-Resume"}


class Cors:
    """The middleware that adds the headers, and answers preflights."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no web page's."""
        if scope["type"] != "http" or not scope["path"].startswith(PATHS) or "origin" not in Headers(scope=scope):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope):
            granted = cors_headers(scope)
            headers = {**granted, **PREFLIGHT} if granted != CLOSED else CLOSED
            await Response(status_code=204, headers=headers)(scope, receive, send)
            return

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(cors_headers(scope))
            await send(message)

        await self._app(scope, receive, send_with)


def cors_headers(scope: Scope) -> dict[str, str]:
    """The headers that open an answer to the origin that asks, or do not; none where no origin asks."""
    origin = Headers(scope=scope).get("origin", "") if scope["path"].startswith(PATHS) else ""
    if not origin:
        return {}
    context: Context = scope["app"].state.context
    only = scope.get(ENVIRONMENT)
    for name, pipeline in context.relay.pipelines.items():
        origins = pipeline.snapshot.settings.origins if pipeline.snapshot else ()
        if only in (None, name) and (origin in origins or "*" in origins):
            return {"access-control-allow-origin": origin, **OPEN}
    return CLOSED
