"""Who did what and why: every change, for longer than the changelog holds it; and all that was done to releases."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position, unreadable

PAGE = 500
"""Entries read in one round trip."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done: the revision it made, Redis's time (µs), what, by whom, why.

    `flags`, `populations` and `deleted` (flags) name what it touched, or the first thousand of that; `left_out` says
    how many more there were. `detail` is what else is known of an action on a release, or of a kill.
    """

    revision: int
    at: int
    action: str
    actor: str
    reason: str
    urgent: bool = False
    flags: tuple[str, ...] = ()
    populations: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    left_out: int = 0
    detail: dict[str, Any] | None = None


async def read_history(store: Store, environment: str, *, since: int = 0) -> AsyncIterator[Entry]:
    """Every change, newest first, as far back as is kept: about a hundred thousand.

    Args:
        store: where it is.
        environment: its name.
        since: Redis's time (µs) before which nothing is wanted.

    Raises:
        EnvironmentMissing: there is no such environment.
        StoreCorrupt: an entry is none of ours.
    """
    async for members in _newest_first(store, environment, store.keys.history(environment), since):
        yield Entry(
            **_head(members),
            urgent=members["urgent"],
            flags=tuple(members["flags"]),
            populations=tuple(members["populations"]),
            deleted=tuple(members["deleted"]),
            left_out=members["left_out"],
        )


async def read_actions(
    store: Store, environment: str, key: str | None = None, *, since: int = 0
) -> AsyncIterator[Entry]:
    """What was done to a flag's release, or to all of them, and kills, newest first; all that ever was.

    Raises:
        EnvironmentMissing: there is no such environment.
        StoreCorrupt: an entry is none of ours.
    """
    async for members in _newest_first(store, environment, store.keys.actions(environment), since):
        if key is None or members["flag"] == key:
            yield Entry(**_head(members), flags=(members["flag"],), detail=members["detail"])


def _head(members: dict[str, Any]) -> dict[str, Any]:
    return {name: members[name] for name in ("revision", "at", "action", "actor", "reason")}


async def _newest_first(store: Store, environment: str, stream: str, since: int) -> AsyncIterator[dict[str, Any]]:
    await read_position(store, environment)
    last, first = "+", str(since // 1000)
    while True:
        with store.talking():
            page = await store.client.xrevrange(stream, max=last, min=first, count=PAGE)
        for name, fields in page:
            try:
                members = orjson.loads(fields[b"entry"])
                found = {**members, **_head(members)}
            except (KeyError, ValueError, TypeError) as error:
                raise unreadable(environment, f"entry {name.decode()} of the history") from error
            if found["at"] >= since:
                yield found
        if len(page) < PAGE:
            return
        last = f"({page[-1][0].decode()}"
