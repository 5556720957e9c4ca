"""Who did what and why: every change, for longer than the changelog holds it; and all that was done to releases."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from flagrelay.release.states import Action
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position, unreadable
from flagrelay.store.script import Script
from flagrelay.store.writing import text_as_json

PAGE = 500
"""Entries read in one round trip."""

ACTIONS = ("kill", "revive", *Action)
"""What stands in a stream of its own, too, with its detail."""

HISTORY_LENGTH = 100_000
"""Entries that are kept, about; the write script keeps as many."""

# KEYS: state, history; ARGV: action, actor, reason and detail as members of an object, how many entries are kept.
_NOTE = Script("""
local revision = redis.call('HGET', KEYS[1], 'revision')
if not revision then return 0 end
local time = redis.call('TIME')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'entry',
  string.format('{"revision":%s,"at":%.0f,', revision, time[1] * 1000000 + time[2]) .. ARGV[1]
  .. ',"flags":[],"populations":[],"deleted":[],"left_out":0,"urgent":false}')
return 1
""")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that was done: the revision it made, Redis's time (µs), what, by whom, why.

    `flags`, `populations` and `deleted` (flags) name what it touched, or the first thousand of that; `left_out` says
    how many more there were. `detail` is what else is known of an action on a release, of a kill, or of what is no
    change: that an access key was created or revoked, at the revision at which the environment stood. `id` is its place
    in Redis's stream: what is older than it can be asked for.
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
    id: str = field(default="", compare=False)


async def note(store: Store, environment: str, action: str, detail: dict[str, Any], *, actor: str, reason: str) -> None:
    """Note what somebody did that is no change of the environment; nothing where there is no such environment.

    Raises:
        StoreUnavailable: Redis does not answer, or takes no write from us.
    """
    said = ",".join(
        [
            f'"action":{text_as_json(action).decode()}',
            f'"actor":{text_as_json(actor).decode()}',
            f'"reason":{text_as_json(reason).decode()}',
            f'"detail":{orjson.dumps(detail).decode()}',
        ]
    )
    keys = store.keys
    await _NOTE.run(store, [keys.state(environment), keys.history(environment)], said, HISTORY_LENGTH)


async def read_history(
    store: Store, environment: str, *, since: int = 0, before: str = ""
) -> AsyncIterator[HistoryEntry]:
    """Every change, newest first, as far back as is kept: about a hundred thousand.

    Args:
        store: where it is.
        environment: its name.
        since: Redis's time (µs) before which nothing is wanted.
        before: the `id` of an entry; nothing is wanted but what is older.

    Raises:
        EnvironmentMissing: there is no such environment.
        StoreCorrupt: an entry is none of ours.
    """
    last = f"({before}" if before else "+"
    async for entry in _newest_first(store, environment, store.keys.history(environment), since, last, _change):
        yield entry


async def read_actions(
    store: Store, environment: str, key: str | None = None, *, since: int = 0, before: str = ""
) -> AsyncIterator[HistoryEntry]:
    """What was done to a flag's release, or to all of them, and kills, newest first; all that ever was.

    Args:
        store: where it is.
        environment: its name.
        key: the flag; of all where it is None.
        since: Redis's time (µs) before which nothing is wanted.
        before: the `id` of an entry of the history; what was noted after its millisecond is not wanted.

    Raises:
        EnvironmentMissing: there is no such environment.
        StoreCorrupt: an entry is none of ours.
    """
    last = before.partition("-")[0] or "+"
    async for entry in _newest_first(store, environment, store.keys.actions(environment), since, last, _action):
        if key is None or key in entry.flags:
            yield entry


async def read_audit(
    store: Store, environment: str, key: str | None = None, *, since: int = 0, before: str = ""
) -> AsyncIterator[HistoryEntry]:
    """Every change, as `read_history` has it, or those that touched one flag, or may have; each with the detail that is noted with actions.

    Both streams are written by the same script, in the same order and with the same times, so they are read side by
    side. Where several releases ended by one change, no detail is said of it.
    """
    actions = read_actions(store, environment, key, since=since, before=before)
    action = await anext(actions, None)
    async for entry in read_history(store, environment, since=since, before=before):
        if key is not None and key not in entry.flags and not entry.left_out:
            continue
        if entry.action in ACTIONS:
            while action and action.at > entry.at:
                action = await anext(actions, None)
            if action and (action.at, action.revision, action.action) == (entry.at, entry.revision, entry.action):
                yield replace(entry, detail=action.detail or None)
                action = await anext(actions, None)
                continue
        yield entry


async def _newest_first(
    store: Store, environment: str, stream: str, since: int, last: str, parse: Callable[[Any], HistoryEntry]
) -> AsyncIterator[HistoryEntry]:
    await read_position(store, environment)
    first = str(since // 1000)
    while True:
        with store.talking():
            page = await store.client.xrevrange(stream, max=last, min=first, count=PAGE)
        for name, fields in page:
            try:
                entry = replace(parse(orjson.loads(fields[b"entry"])), id=name.decode())
            except (KeyError, ValueError, TypeError) as error:
                raise unreadable(environment, f"entry {name.decode()} of {stream}") from error
            if entry.at >= since:
                yield entry
        if len(page) < PAGE:
            return
        last = f"({page[-1][0].decode()}"


def _change(members: Any) -> HistoryEntry:  # noqa: ANN401 - whatever stands there
    return HistoryEntry(
        **_head(members),
        urgent=_typed(members["urgent"], bool),
        flags=_names(members["flags"]),
        populations=_names(members["populations"]),
        deleted=_names(members["deleted"]),
        left_out=_typed(members["left_out"], int),
        detail=_typed(members["detail"], dict) if "detail" in members else None,
    )


def _action(members: Any) -> HistoryEntry:  # noqa: ANN401 - whatever stands there
    flags = (_typed(members["flag"], str),)
    return HistoryEntry(**_head(members), flags=flags, detail=_typed(members["detail"], dict))


def _head(members: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever stands there
    # By name, so that what a later version adds is nothing to stumble over.
    head = {name: _typed(members[name], int) for name in ("revision", "at")}
    return head | {name: _typed(members[name], str) for name in ("action", "actor", "reason")}


def _names(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever stands there
    return tuple(_typed(name, str) for name in _typed(value, list))


def _typed(value: Any, kind: type) -> Any:  # noqa: ANN401 - whatever stands there
    if type(value) is not kind:
        raise TypeError(f"{value!r:.80} is no {kind.__name__}")
    return value
