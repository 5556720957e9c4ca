"""Reading an environment: the whole state at one revision, single flags, the clock."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from redis.exceptions import ExecAbortError, OutOfMemoryError

from flagrelay.errors import DefinitionError, EnvironmentMissing, FlagMissing, StoreCorrupt
from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.environment_settings import EnvironmentSettings, read_settings
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release.standing import Release, read_release
from flagrelay.store.connection import Store
from flagrelay.store.script import CLOCK, READ

Hash = Mapping[bytes, bytes]

# Both stand in event ids, whoever wrote them; the write script refuses the same.
_EPOCH = re.compile(rb"[0-9A-Za-z_-]{1,64}")
_REVISION = re.compile(rb"[0-9]{1,15}")


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
class ReleaseEntry:
    """A flag's release as it is stored; `revision` is the change that last touched it."""

    revision: int
    release: Release


@dataclass(frozen=True, slots=True)
class State:
    """Everything of an environment at one revision; evaluators are (revision, rule).

    `about` is what people should know of populations, as it is stored; of some there may be nothing.
    """

    position: Position
    flags: Mapping[str, FlagEntry] = field(default_factory=dict)
    evaluators: Mapping[str, tuple[int, Rule]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    settings: EnvironmentSettings = field(default_factory=EnvironmentSettings)
    releases: Mapping[str, ReleaseEntry] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


async def read_snapshot(store: Store, environment: str, known: Snapshot | None = None) -> Snapshot:
    """The whole environment at one revision, as relays serve it.

    Args:
        store: where it is.
        environment: its name.
        known: what was read before; what is still the same of it is not compiled again.

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
    make = known.reloaded if known else Snapshot
    return make(
        position,
        flags={key: entry.definition for key, entry in _flags(environment, flags, {}).items()},
        evaluators={name: rule for name, (_, rule) in _evaluators(environment, evaluators).items()},
        metadata=_metadata(environment, state),
        settings=_settings(environment, state),
    )


async def read_state(store: Store, environment: str) -> State:
    """The whole environment at one revision, with what writers need: revisions, kills, releases.

    Raises:
        EnvironmentMissing: there is none.
        StoreCorrupt: what is stored contradicts itself.
    """
    keys = store.keys
    state, flags, evaluators, killed, releases, about = await _together(
        store,
        keys.state(environment),
        keys.flags(environment),
        keys.evaluators(environment),
        keys.killed(environment),
        keys.releases(environment),
        keys.populations(environment),
    )
    return State(
        _whole(environment, state, flags, evaluators),
        flags=_flags(environment, flags, killed),
        evaluators=_evaluators(environment, evaluators),
        metadata=_metadata(environment, state),
        settings=_settings(environment, state),
        releases={_text(environment, name): _release(environment, name, text) for name, text in releases.items()},
        about=_about(environment, about),
    )


async def read_flag(store: Store, environment: str, key: str) -> FlagEntry:
    """One flag.

    Raises:
        FlagMissing: the environment has none of that key.
        EnvironmentMissing: there is no such environment.
    """
    await read_position(store, environment)
    flag, killed = await READ.run(store, [store.keys.flags(environment), store.keys.killed(environment)], key)
    if flag is None:
        raise FlagMissing(environment, key)
    name = key.encode()
    return _flags(environment, {name: flag}, {} if killed is None else {name: killed})[key]


async def read_flag_release(store: Store, environment: str, key: str) -> tuple[FlagEntry | None, ReleaseEntry | None]:
    """One flag and its release, as of one moment; None for what there is not.

    Raises:
        StoreCorrupt: what is stored is none.
    """
    keys = store.keys
    hashes = [keys.flags(environment), keys.killed(environment), keys.releases(environment)]
    flag, killed, release = await READ.run(store, hashes, key)
    name = key.encode()
    kills = {} if killed is None else {name: killed}
    entry = None if flag is None else _flags(environment, {name: flag}, kills)[key]
    return entry, None if release is None else _release(environment, name, release)


async def read_flag_snapshot(store: Store, environment: str, key: str) -> Snapshot:
    """A snapshot with one flag only, and all that it may refer to; without it where there is no such flag.

    Raises:
        EnvironmentMissing: there is no such environment.
        StoreCorrupt: what is stored contradicts itself.
    """
    keys = store.keys
    state, evaluators = await _together(store, keys.state(environment), keys.evaluators(environment))
    position = _position(environment, [state.get(name) for name in (b"epoch", b"revision", b"nonce")])
    try:
        flags = {key: (await read_flag(store, environment, key)).definition}
    except FlagMissing:
        flags = {}
    return Snapshot(
        position,
        flags=flags,
        evaluators={name: rule for name, (_, rule) in _evaluators(environment, evaluators).items()},
        metadata=_metadata(environment, state),
        settings=_settings(environment, state),
    )


async def read_populations(store: Store, environment: str) -> set[str]:
    """The names of an environment's populations.

    Raises:
        EnvironmentMissing: there is no such environment.
    """
    await read_position(store, environment)
    with store.talking():
        names = await store.client.hkeys(store.keys.evaluators(environment))
    return {name.decode(errors="replace") for name in names}


async def read_about(store: Store, environment: str) -> dict[str, Mapping[str, Any]]:
    """What people should know of the populations of an environment, by name, as it is stored.

    Raises:
        StoreCorrupt: something of it cannot be read.
    """
    (about,) = await _together(store, store.keys.populations(environment))
    return _about(environment, about)


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
        try:
            async with store.client.pipeline(transaction=True) as transaction:
                for name in hashes:
                    transaction.execute_command("HGETALL", name)  # .hgetall() breaks the transaction of a cluster
                read: list[Hash] = await transaction.execute()
                return read
        except (OutOfMemoryError, ExecAbortError):
            # A full Redis takes nothing into a transaction, not even what only reads, but it runs scripts that only
            # read. Not always by script: Lua, as Redis 6.2 has it, takes minutes to hold thousands of like texts.
            answers = await READ.run(store, list(hashes))
    return [dict(zip(answer[::2], answer[1::2], strict=True)) for answer in answers]


def _position(environment: str, values: list[bytes | None]) -> Position:
    epoch, revision, nonce = values
    if epoch is None and revision is None and nonce is None:
        raise EnvironmentMissing(environment)
    if not (epoch and revision and nonce and _EPOCH.fullmatch(epoch) and _REVISION.fullmatch(revision)):
        raise state_damaged(environment)
    try:
        return Position(epoch.decode(), int(revision), nonce.decode())
    except ValueError as error:
        raise state_damaged(environment) from error


def _whole(environment: str, state: Hash, flags: Hash, evaluators: Hash) -> Position:
    """The position of a state whose flags and evaluators are all there."""
    position = _position(environment, [state.get(name) for name in (b"epoch", b"revision", b"nonce")])
    for what, entries in ((b"flags", flags), (b"evaluators", evaluators)):
        expected = state.get(what, b"%d" % len(entries))
        if expected != b"%d" % len(entries):
            raise entries_lost(environment, what, expected, len(entries))
    return position


def _flags(environment: str, flags: Hash, killed: Hash) -> dict[str, FlagEntry]:
    entries = {}
    for name, text in flags.items():
        try:
            key = name.decode()
            revision, definition = _entry(text, "flag")
            kill = _kill(killed[name]) if name in killed else None
            entries[key] = FlagEntry(key, revision, definition, kill)
        except (ValueError, KeyError, TypeError) as error:
            raise unreadable(environment, f'flag "{name.decode(errors="replace")}"') from error
    return entries


def _kill(text: bytes) -> Kill:
    # By name, so that what a later version adds is nothing to stumble over.
    stored = orjson.loads(text)
    return Kill(**{member: stored[member] for member in ("at", "actor", "reason", "to", "original")})


def _evaluators(environment: str, evaluators: Hash) -> dict[str, tuple[int, Rule]]:
    entries = {}
    for name, text in evaluators.items():
        try:
            entries[name.decode()] = _entry(text, "rule")
        except (ValueError, KeyError, TypeError) as error:
            raise unreadable(environment, f'population "{name.decode(errors="replace")}"') from error
    return entries


def _entry(text: bytes, member: str) -> tuple[int, Any]:
    stored = orjson.loads(text)
    revision, held = stored["revision"], stored[member]
    if type(revision) is not int or not isinstance(held, dict):
        raise TypeError(f"neither a revision nor an object: {text[:80]!r}")
    return revision, held


def _release(environment: str, name: bytes, text: bytes) -> ReleaseEntry:
    try:
        revision, document = _entry(text, "release")
        return ReleaseEntry(revision, read_release(document))
    except (ValueError, KeyError, TypeError, DefinitionError) as error:
        raise unreadable(environment, f'the release of flag "{name.decode(errors="replace")}"') from error


def _about(environment: str, about: Hash) -> dict[str, Mapping[str, Any]]:
    return {_text(environment, name): _said(environment, name, text) for name, text in about.items()}


def _said(environment: str, name: bytes, text: bytes) -> Mapping[str, Any]:
    # Of what a later version adds nothing is known here.
    try:
        document = orjson.loads(text)
        description, risk = document.get("description", ""), document.get("risk")
    except (ValueError, AttributeError):
        description = risk = None
    if not isinstance(description, str) or type(risk) not in (int, type(None)):
        raise unreadable(environment, f'what is said of population "{name.decode(errors="replace")}"')
    return cast("Mapping[str, Any]", document)


def _text(environment: str, name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise unreadable(environment, f'the name "{name.decode(errors="replace")}"') from error


def _metadata(environment: str, state: Hash) -> Mapping[str, Any]:
    try:
        metadata = orjson.loads(state.get(b"metadata", b"{}"))
    except ValueError as error:
        raise unreadable(environment, "metadata") from error
    if not isinstance(metadata, dict):
        raise unreadable(environment, "metadata")
    return metadata


def _settings(environment: str, state: Hash) -> EnvironmentSettings:
    try:
        return read_settings(orjson.loads(state.get(b"settings", b"{}")))
    except (ValueError, DefinitionError, AttributeError) as error:
        raise unreadable(environment, "settings") from error


def state_damaged(environment: str) -> StoreCorrupt:
    """The error where an environment's state does not say where it stands."""
    return StoreCorrupt(
        f'the state of environment "{environment}" in Redis lacks its epoch, revision or nonce: it was damaged '
        "by something other than flagrelay; restore it, or destroy, create and import the environment"
    )


def entries_lost(environment: str, what: bytes, expected: bytes, found: int) -> StoreCorrupt:
    """The error where an environment has another number of entries than its state says."""
    return StoreCorrupt(
        f'environment "{environment}" should have {expected.decode(errors="replace")} {what.decode()} in Redis and has '
        f"{found}: a key was lost or evicted (maxmemory-policy should be noeviction); "
        "restore it, or destroy, create and import the environment"
    )


def unreadable(environment: str, what: str) -> StoreCorrupt:
    """The error where something other than flagrelay wrote what is no entry."""
    return StoreCorrupt(
        f'{what} of environment "{environment}" cannot be read in Redis: it was written by something other than '
        "flagrelay; restore it, or destroy, create and import the environment"
    )
