"""Whoever asks a relay's control API."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from flagrelay.control.operation import BASE
from support.relays import RunningRelay, World, running_relay
from support.streams import Answer, connection, request

FLAG = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}

PLAN = {
    "flag": "checkout",
    "released": "on",
    "baseline": "off",
    "stages": [{"population": "devs"}, {"population": "beta", "percent": 50}, {"percent": 100}],
}

NOTHING = object()
"""No body, which is something else than null."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody with an admin key of a relay."""

    relay: RunningRelay
    secret: str

    async def ask(self, method: str, path: str, body: Any = NOTHING, **headers: str) -> Answer:
        """One request; a body that is no bytes is sent as JSON."""
        return await self.asked(request_of(method, path, self.secret, body, **headers), method)

    async def asked(self, data: bytes, method: str = "GET") -> Answer:
        """The answer to one request as it is."""
        async with connection(self.relay.port) as opened:
            opened.send(data)
            return await opened.answer(method)

    async def ok(self, method: str, path: str, body: Any = NOTHING, **headers: str) -> Any:
        """What is answered to a request that is granted."""
        answer = await self.ask(method, path, body, **headers)
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        return answer.json

    async def refused(self, status: int, code: str, method: str, path: str, body: Any = NOTHING, **headers: str) -> str:
        """What is said of a request that is refused."""
        answer = await self.ask(method, path, body, **headers)
        assert (answer.status, answer.json["errorCode"]) == (status, code), answer.body
        assert answer.headers["content-type"] == "application/json"
        details: str = answer.json["errorDetails"]
        return details


def request_of(method: str, path: str, secret: str, body: Any = NOTHING, **headers: str) -> bytes:
    """The bytes of a request."""
    if body is NOTHING:
        return request(BASE + path, secret, method=method, **headers)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content_type": "application/json"} | headers
    return request(BASE + path, secret, method=method, content_length=str(len(data)), **kind) + data


@asynccontextmanager
async def administered(world: World, **settings: Any) -> AsyncIterator[Admin]:
    """A relay whose control API answers, and somebody who may use it."""
    async with running_relay("handover", world, admin_api=True, **settings) as relay:
        yield Admin(relay, await relay.secret("admin"))
