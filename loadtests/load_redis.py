"""Speaks to Redis for `locustfile.py`, as a process of its own: it writes the changes, and compares the clocks.

The store is asyncio, and locust is gevent; they do not live well in one process. Lines of JSON come in and are answered
in order. The first line says where Redis is:

    {"redis_url": "redis://…", "environment": "production", "prefix": "flagrelay"}
    {"do": "clock"}                  {"offset": 0.0012}: what to add to this machine's clock to get Redis's, in seconds
    {"do": "begin", "flag": ""}      {"flag": "loadtest-5e0c2b9d"}: the flag that changes, which must not exist yet
    {"do": "change"}                 {"ms": 0.41}: how long the write took

A question may have an `id`, which its answer has too. What fails is answered with {"error": "…"}. At the end of its
input, however that comes about, the flag is removed.
"""

import asyncio
import json
import math
import secrets
import sys
import time
from contextlib import suppress
from typing import Any

from flagrelay.errors import FlagMissing, FlagrelayError
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.reading import read_clock, read_flag
from flagrelay.store.writing import Draft, write_change

ACTOR = "loadtests/locustfile.py"
CLOCK_READINGS = 20
PADDING = "x" * 120
"""Makes a change about as large as one of a flag with a rule is."""


async def clock_offset(store: Store, environment: str) -> float:
    """Redis's clock minus ours, in seconds, by the fastest reading; 0 where that cannot tell them apart."""
    fastest, offset = math.inf, 0.0
    for _ in range(CLOCK_READINGS):
        asked = time.time()
        theirs = await read_clock(store, environment) / 1e6
        answered = time.time()
        if answered - asked < fastest:
            fastest, offset = answered - asked, theirs - (asked + answered) / 2
    return offset if abs(offset) > fastest / 2 else 0.0


class Changes:
    """Changes of one flag, which exists as long as they go on."""

    def __init__(self, store: Store, environment: str) -> None:
        self.flag = ""
        self._store = store
        self.environment = environment
        self._written = 0

    async def begin(self, flag: str) -> None:
        """Settle on a flag.

        Raises:
            FlagrelayError: the flag exists: it is somebody's.
        """
        flag = flag or f"loadtest-{secrets.token_hex(4)}"
        try:
            await read_flag(self._store, self.environment, flag)
        except FlagMissing:
            self.flag = flag
        else:
            raise FlagrelayError(f'the flag "{flag}" exists: name one that does not, it is removed at the end')

    async def make(self) -> float:
        """Change what the flag says to everybody. Returns how long that took, in milliseconds."""
        self._written += 1
        one, other = ("on", "off") if self._written % 2 else ("off", "on")
        flag = {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": one,
            "targeting": {"if": [{"in": [{"var": "email"}, ["ada@example.com", PADDING]]}, other, one]},
            "metadata": {"change": self._written},
        }
        began = time.perf_counter()
        await write_change(self._store, self.environment, Draft(flags={self.flag: flag}, actor=ACTOR))
        return (time.perf_counter() - began) * 1000

    async def end(self) -> None:
        """Leave nothing behind.

        Raises:
            FlagrelayError: the flag is still there; says which.
        """
        if not self._written:
            return
        try:
            await write_change(self._store, self.environment, Draft(flags={self.flag: None}, actor=ACTOR))
        except FlagrelayError as error:
            raise FlagrelayError(f'the flag "{self.flag}" is still there: {error}') from error


async def main() -> None:
    lines = await _lines()
    where = json.loads(await lines.readline())
    try:
        async with open_store(RedisAddress(where["redis_url"]), prefix=where["prefix"]) as store:
            changes = Changes(store, where["environment"])
            while line := await lines.readline():
                _tell(await _answer(store, changes, json.loads(line)))
            await changes.end()
    except FlagrelayError as error:
        _tell({"error": str(error)})
        sys.exit(str(error))


def _tell(answer: dict[str, Any]) -> None:
    # Whoever asked may have gone, and the flag is to be removed all the same.
    with suppress(BrokenPipeError):
        print(json.dumps(answer), flush=True)


async def _answer(store: Store, changes: Changes, asked: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": asked.get("id")}
    try:
        match asked["do"]:
            case "clock":
                answer["offset"] = await clock_offset(store, changes.environment)
            case "begin":
                await changes.begin(asked["flag"])
                answer["flag"] = changes.flag
            case "change":
                answer["ms"] = await changes.make()
    except FlagrelayError as error:
        answer["error"] = str(error)
    return answer


async def _lines() -> asyncio.StreamReader:
    """Standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    asyncio.run(main())
