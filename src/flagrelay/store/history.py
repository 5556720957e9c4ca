"""Who did what and why: every change, for longer than the changelog holds it; and all that was done to releases."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from flagrelay.errors import Conflict, EnvironmentMissing
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

_NO_NAMES: Mapping[str, Sequence[str]] = {"flags": (), "populations": (), "deleted": ()}

NAMES = 1000
"""Names in one entry that is no change."""

# KEYS: state, history; ARGV: how many entries are kept, the revision that the environment is to be at or '', then each
# entry's members but for the revision and the time. Answers the revision, or nil where there is no environment.
_NOTE = Script("""
local revision = redis.call('HGET', KEYS[1], 'revision')
if not revision or ARGV[2] ~= '' and ARGV[2] ~= revision then return revision end
local time = redis.call('TIME')
for index = 3, #ARGV do
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'entry',
    string.format('{"revision":%s,"at":%.0f,', revision, time[1] * 1000000 + time[2]) .. ARGV[index] .. '}')
end
return revision
""")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that was done: the revision it made, Redis's time (µs), what, by whom, why.

    `flags`, `populations` and `deleted` (flags) name what it touched, or the first thousand of that; `left_out` says
    how many more there were. `detail` is what else is known: of an action on a release, of a kill, that a change has
    other `metadata`, which `settings` it has; and of what is no change, at the revision at which the environment
    stood: that an access key was created or revoked, or, as `agreed`, that files have the same as people wrote. `id` is
    its place in Redis's stream: what is older than it can be asked for.
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
    await _note(store, environment, [_members(action, actor, reason, detail)], expected="")


async def note_agreement(
    store: Store,
    environment: str,
    action: str,
    *,
    flags: Sequence[str],
    populations: Sequence[str],
    deleted: Sequence[str],
    expected: int,
    actor: str,
    reason: str,
) -> None:
    """Note that what people did last to flags and populations is what somebody wants who changes nothing of them.

    All of them are named, in as many entries as that takes. Their `detail` says `agreed`.

    Args:
        store: where it is.
        environment: its name.
        action: what the agreement is called: as the change would be that wrote all of it.
        flags: flags as they are.
        populations: populations as they are.
        deleted: flags that are no more.
        expected: the revision at which the environment was read.
        actor: who agrees.
        reason: why.

    Raises:
        Conflict: the environment is not at that revision.
        EnvironmentMissing: there is no such environment.
        StoreUnavailable: Redis does not answer, or takes no write from us.
    """
    named = [("flags", name) for name in flags] + [("populations", name) for name in populations]
    named += [("deleted", name) for name in deleted]
    entries = []
    for start in range(0, len(named), NAMES):
        names: dict[str, list[str]] = {"flags": [], "populations": [], "deleted": []}
        for kind, name in named[start : start + NAMES]:
            names[kind].append(name)
        names["flags"] += names["deleted"]
        entries.append(_members(action, actor, reason, {"agreed": True}, names))
    revision = await _note(store, environment, entries, expected=expected)
    if revision is None:
        raise EnvironmentMissing(environment)
    if revision != expected:
        raise Conflict(f'environment "{environment}"', expected, revision)


async def _note(store: Store, environment: str, entries: Sequence[bytes], *, expected: int | str) -> int | None:
    keys = [store.keys.state(environment), store.keys.history(environment)]
    revision = await _NOTE.run(store, keys, HISTORY_LENGTH, expected, *entries)
    return None if revision is None else int(revision)


def _members(
    action: str, actor: str, reason: str, detail: Mapping[str, Any], names: Mapping[str, Sequence[str]] = _NO_NAMES
) -> bytes:
    """The members of an entry but for the revision and the time, without braces."""
    texts = {name: orjson.Fragment(text_as_json(text)) for name, text in (("actor", actor), ("reason", reason))}
    entry = {"action": action, **texts, **names, "left_out": 0, "urgent": False, "detail": detail}
    return orjson.dumps(entry)[1:-1]


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
    """Every change, as `read_history` has it, or those that touched one flag, or may have; with the detail of actions.

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
