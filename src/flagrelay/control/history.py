"""Who did what and why."""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from flagrelay.control.answers import Key, Request
from flagrelay.control.session import Session
from flagrelay.release.duration import parse_duration
from flagrelay.store.history import HistoryEntry, read_actions, read_audit
from flagrelay.store.reading import read_clock

MAX_ENTRIES = 100_000

Since = Annotated[str, Meta(max_length=100, description="Not older than this: 90s, 30m, 1h, 1d12h")]
Before = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]{0,18}-[0-9]{1,19}$(?!\n)",
        max_length=39,
        description="The `id` of an entry: only what is older",
    ),
]
Limit = Annotated[int, Meta(ge=1, le=MAX_ENTRIES, description="How many, at most; the newest")]


class GetHistory(Request, kw_only=True):
    """Of which flag, by whom, since when; of all where nothing is said. The newest come first.

    Changes of more than a thousand flags name a thousand of them, and count the others as `left_out`. As one of those
    may be the flag that is asked for, they are listed as well.
    """

    flag: Key | None = None
    actor: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    since: Since | None = None
    before: Before | None = None
    limit: Limit = 100


class GetReleaseHistory(Request, kw_only=True):
    """Of which flag; the newest come first."""

    key: Key
    limit: Limit = 1000


async def get_history(session: Session, request: GetHistory) -> list[HistoryEntry]:
    """List changes, newest first: who made them, when and why; and what they did to a release."""
    since = 0
    if request.since is not None:
        now = await read_clock(session.store, session.environment)
        since = now - parse_duration("history", "since", request.since) * 1_000_000
    found = read_audit(session.store, session.environment, request.flag, since=since, before=request.before or "")
    return [entry async for entry in _first(found, request.limit, actor=request.actor)]


async def get_release_history(session: Session, request: GetReleaseHistory) -> list[HistoryEntry]:
    """List every action on a flag's release, and every kill, newest first, however long ago."""
    found = read_actions(session.store, session.environment, request.key)
    return [entry async for entry in _first(found, request.limit)]


async def _first(
    entries: AsyncIterator[HistoryEntry], most: int, *, actor: str | None = None
) -> AsyncIterator[HistoryEntry]:
    left = most
    async for entry in entries:
        if actor is None or actor == entry.actor:
            yield entry
            left -= 1
            if not left:
                return
