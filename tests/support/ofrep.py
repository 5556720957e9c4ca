"""OFREP's own schema, and somebody who asks."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml
from jsonschema import Draft202012Validator

from support.relays import RunningRelay

_FOLDER = Path(__file__).parents[1] / "data" / "ofrep"
OPENAPI: dict[str, Any] = yaml.safe_load((_FOLDER / "openapi.yaml").read_text(encoding="utf-8"))

# As it is published no value could ever be valid: a value may match only one of the six kinds of flags, but the code
# default, which its description says has no `value`, matches them all; and an integer is a number, too.
_SCHEMAS = OPENAPI["components"]["schemas"]
_SCHEMAS["codeDefaultFlag"]["not"] = {"required": ["value"]}
[_KINDS] = [part for part in _SCHEMAS["evaluationSuccess"]["allOf"] if "oneOf" in part]
_KINDS["anyOf"] = _KINDS.pop("oneOf")

SINGLE = "/ofrep/v1/evaluate/flags/{key}"
BULK = "/ofrep/v1/evaluate/flags"


def check_schema(name: str, value: Any) -> None:
    """A value, against one of OFREP's schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}
    Draft202012Validator(schema).validate(value)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: its status, its headers in lower case, its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Asker:
    """An OFREP client that checks every answer against the protocol's own description."""

    def __init__(self, relay: RunningRelay, session: aiohttp.ClientSession) -> None:
        self.relay = relay
        self.session = session

    async def ask(self, method: str, path: str, **request: Any) -> Said:
        async with self.session.request(method, self.relay.url + path, allow_redirects=False, **request) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Said(response.status, headers, await response.read())

    async def single(self, secret: str, key: str, context: Any = None, **headers: str) -> Said:
        """One flag."""
        body = {} if context is None else {"json": {"context": context}}
        said = await self.ask("POST", f"{BULK}/{key}", headers={**bearer(secret), **headers}, **body)
        self._check(SINGLE, said)
        return said

    async def bulk(self, secret: str, context: Any = None, query: str = "", **headers: str) -> Said:
        """Every flag."""
        body = {} if context is None else {"json": {"context": context}}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        said = await self.ask("POST", f"{BULK}{query}", headers={**bearer(secret), **given}, **body)
        self._check(BULK, said)
        return said

    def _check(self, path: str, said: Said) -> None:
        described = OPENAPI["paths"][path]["post"]["responses"]
        assert str(said.status) in described or said.status in (413, 503), "a status that the protocol does not have"
        content = described.get(str(said.status), {}).get("content")
        if content:
            assert said.headers["content-type"] == "application/json"
            check_schema(content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1], said.json)
        elif said.status != 304:
            assert set(said.json) == {"errorCode", "errorDetails"}


def bearer(secret: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {secret}"} if secret else {}


@contextlib.asynccontextmanager
async def asking(relay: RunningRelay) -> AsyncIterator[Asker]:
    """Somebody who asks a relay."""
    async with aiohttp.ClientSession() as session:
        yield Asker(relay, session)
