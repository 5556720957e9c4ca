"""In front of everything: paths that are none, and requests for streams, no more at once than may wait."""

import asyncio
import random
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from flagrelay.errors import Refusal
from flagrelay.server.context import Context
from flagrelay.server.pace import Turn
from flagrelay.server.refusals import answer_of

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

RETRY_AFTER = (2, 10)
"""Bounds of the jittered `Retry-After` of a relay that has no room, in seconds."""


class Admission:
    """The middleware in front of what opens streams; anything else passes by.

    Args:
        app: what is behind it.
        paths: what opens streams.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request for a stream in when its turn comes."""
        if scope["type"] == "http" and _CONTROL.search(scope["path"]):  # `$` in a route would let one pass at the end
            unknown = Refusal(404, "NOT_FOUND", f"{scope['method']} {scope['path']}: not found")
            await answer_of(unknown)(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] in self._paths:
            context: Context = scope["app"].state.context
            turn = asyncio.Event()
            match context.pace.enter(turn.set):
                case Turn.LATER:
                    await turn.wait()
                case Turn.NEVER:
                    context.relay.refused["herd"] += 1
                    await answer_of(no_room("too many clients are connecting at once"))(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def no_room(why: str) -> Refusal:
    """The refusal of a stream for which there is no room now."""
    return Refusal(503, "OVERLOADED", why, retry_after=random.randint(*RETRY_AFTER))
