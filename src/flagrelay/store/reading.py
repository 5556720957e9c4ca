"""Reading an environment: the whole state at one revision, single flags, the clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from flagrelay.errors import EnvironmentMissing, FlagMissing, StoreCorrupt
from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.connection import Store
from flagrelay.store.script import CLOCK

Hash = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Kill:
    """That a flag is killed: when (µs), by whom, why, to which variant (None: disabled), and what it was."""

    at: int
    actor: str
    reason: str
    to: str | None
    original: Definition


@dataclass(frozen=True, slots=True)
class FlagEntry:
    """A flag as it is stored; `revision` is the change that last touched it."""

    key: str
    revision: int
    definition: Definition
    killed: Kill | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything of an environment at one revision; evaluators are (revision, rule)."""

    position: Position
    flags: Mapping[str, FlagEntry] = field(default_factory=dict)
    evaluators: Mapping[str, tuple[int, Rule]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


async def read_snapshot(store: Store, environment: str) -> Snapshot:
    """The whole environment at one revision, as relays serve it.

    Raises:
        EnvironmentMissing: there is none.
        StoreCorrupt: what is stored contradicts itself.
        StoreUnavailable: Redis does not answer.
    """
    keys = store.keys
    state, flags, evaluators = await _together(
        store, keys.state(environment), keys.flags(environment), keys.evaluators(environment)
    )
    position = _whole(environment, state, flags, evaluators)
    return Snapshot(
        position,
        flags={key: entry.definition for key, entry in _flags(environment, flags, {}).items()},
        evaluators={name: rule for name, (_, rule) in _evaluators(environment, evaluators).items()},
        metadata=_json(environment, "metadata", state.get(b"metadata", b"{}")),
    )


async def read_state(store: Store, environment: str) -> State:
    """The whole environment at one revision, with what writers need: revisions and kills.

    Raises:
        EnvironmentMissing: there is none.
        StoreCorrupt: what is stored contradicts itself.
    """
    keys = store.keys
    state, flags, evaluators, killed = await _together(
        store,
        keys.state(environment),
        keys.flags(environment),
        keys.evaluators(environment),
        keys.killed(environment),
    )
    return State(
        _whole(environment, state, flags, evaluators),
        flags=_flags(environment, flags, killed),
        evaluators=_evaluators(environment, evaluators),
        metadata=_json(environment, "metadata", state.get(b"metadata", b"{}")),
    )


async def read_flags(store: Store, environment: str) -> Mapping[str, FlagEntry]:
    """Every flag of an environment."""
    return (await read_state(store, environment)).flags


async def read_flag(store: Store, environment: str, key: str) -> FlagEntry:
    """One flag.

    Raises:
        FlagMissing: the environment has none of that key.
        EnvironmentMissing: there is no such environment.
    """
    await read_position(store, environment)
    with store.talking():
        async with store.client.pipeline(transaction=True) as pipeline:
            pipeline.hget(store.keys.flags(environment), key)
            pipeline.hget(store.keys.killed(environment), key)
            flag, killed = await pipeline.execute()
    if flag is None:
        raise FlagMissing(environment, key)
    name = key.encode()
    return _flags(environment, {name: flag}, {name: killed} if killed else {})[key]


async def read_position(store: Store, environment: str) -> Position:
    """Where an environment stands: what relays compare with every few seconds.

    Raises:
        EnvironmentMissing: there is none.
        StoreCorrupt: its state has a hole.
    """
    with store.talking():
        values = await store.client.hmget(store.keys.state(environment), ["epoch", "revision", "nonce"])
    return _position(environment, values)


async def read_clock(store: Store, environment: str) -> int:
    """Redis's own clock, in microseconds since 1970, on the node that holds the environment."""
    seconds, microseconds = await CLOCK.run(store, [store.keys.state(environment)])
    return int(seconds) * 1_000_000 + int(microseconds)


async def _together(store: Store, *hashes: str) -> list[Hash]:
    """Several hashes, all as of the same moment."""
    with store.talking():
        async with store.client.pipeline(transaction=True) as pipeline:
            for name in hashes:
                pipeline.hgetall(name)
            answers: list[Hash] = await pipeline.execute()
    return answers


def _position(environment: str, values: list[bytes | None]) -> Position:
    epoch, revision, nonce = values
    if epoch is None and revision is None and nonce is None:
        raise EnvironmentMissing(environment)
    if epoch is None or revision is None or nonce is None or not revision.isdigit():
        raise StoreCorrupt(
            f'the state of environment "{environment}" in Redis lacks its epoch, revision or nonce: it was damaged '
            "by something other than flagrelay; restore it, or destroy and create the environment"
        )
    return Position(epoch.decode(), int(revision), nonce.decode())


def _whole(environment: str, state: Hash, flags: Hash, evaluators: Hash) -> Position:
    """The position of a state whose flags and evaluators are all there."""
    position = _position(environment, [state.get(name) for name in (b"epoch", b"revision", b"nonce")])
    for what, entries in ((b"flags", flags), (b"evaluators", evaluators)):
        expected = state.get(what)
        if expected is not None and int(expected) != len(entries):
            raise StoreCorrupt(
                f'environment "{environment}" should have {int(expected)} {what.decode()} in Redis and has '
                f"{len(entries)}: a key was lost or evicted (maxmemory-policy should be noeviction); "
                "restore it, or destroy, create and import the environment"
            )
    return position


def _flags(environment: str, flags: Hash, killed: Hash) -> dict[str, FlagEntry]:
    entries = {}
    for name, text in flags.items():
        key = name.decode()
        try:
            stored = orjson.loads(text)
            kill = Kill(**orjson.loads(killed[name])) if name in killed else None
            entries[key] = FlagEntry(key, stored["revision"], stored["flag"], kill)
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(environment, f'flag "{key}"') from error
    return entries


def _evaluators(environment: str, evaluators: Hash) -> dict[str, tuple[int, Rule]]:
    entries = {}
    for name, text in evaluators.items():
        try:
            stored = orjson.loads(text)
            entries[name.decode()] = (stored["revision"], stored["rule"])
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(environment, f'population "{name.decode()}"') from error
    return entries


def _json(environment: str, what: str, text: bytes) -> Any:  # noqa: ANN401 - it is JSON
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise _unreadable(environment, what) from error


def _unreadable(environment: str, what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f'{what} of environment "{environment}" cannot be read in Redis: it was written by something other than '
        "flagrelay; put or delete it"
    )
