"""Writing an environment: changes, kills, and their undoing. Every function is one run of one script."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from flagrelay.errors import (
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    FlagMissing,
    NotKilled,
    VariantMissing,
)
from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.definition import MAX_FLAGS, check_flag, check_metadata, check_population
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position
from flagrelay.store.connection import Store
from flagrelay.store.reading import entries_lost, state_damaged, unreadable
from flagrelay.store.script import WRITE

Answer = Sequence[Any]
"""What the write script answers: the name of an outcome, and what belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An edit that is not written yet.

    `flags` and `evaluators`: a value replaces the entry, None deletes it. `expected_*`: the revision at which
    each entry was read, 0 for "it must not exist"; what is left out is not checked.
    """

    flags: Mapping[str, Definition | None] = field(default_factory=dict)
    evaluators: Mapping[str, Rule | None] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    settings: EnvironmentSettings | None = None
    expected_flags: Mapping[str, int] = field(default_factory=dict)
    expected_evaluators: Mapping[str, int] = field(default_factory=dict)
    actor: str = ""
    reason: str = ""
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A write that happened: the revision it made, Redis's time of it (µs), and whether it changed anything."""

    revision: int
    at: int
    changed: bool = True


async def write_change(store: Store, environment: str, draft: Draft) -> Written:
    """Write an edit as one change, all or nothing.

    Raises:
        DefinitionError: a definition, rule or limit is broken.
        Conflict: an entry is not at the revision at which it was read.
        StoreCorrupt: what Redis holds contradicts itself.
        EnvironmentMissing: there is no such environment; a write never creates one.
        StoreUnavailable: Redis does not answer; the change may have been written.
    """
    arguments: list[str | bytes | int] = []
    for key, flag in draft.flags.items():
        text = b"" if flag is None else orjson.dumps(check_flag(key, flag))
        arguments += ["flag", key, draft.expected_flags.get(key, ""), text]
    for name, rule in draft.evaluators.items():
        text = b"" if rule is None else orjson.dumps(check_population(name, rule))
        arguments += ["population", name, draft.expected_evaluators.get(name, ""), text]
    metadata = b"" if draft.metadata is None else orjson.dumps(check_metadata(draft.metadata))
    who = (text_as_json(draft.actor), text_as_json(draft.reason), orjson.dumps(draft.urgent))
    settings = b"" if draft.settings is None else orjson.dumps(draft.settings.as_json())
    return await _write(store, environment, "", "change", *who, metadata, settings, MAX_FLAGS, *arguments)


async def kill_flag(
    store: Store,
    environment: str,
    key: str,
    *,
    to: str | None = None,
    actor: str = "",
    reason: str = "",
    expected: int | None = None,
) -> Written:
    """Take a flag back from everybody: disable it, or serve one variant. Wins over whatever is being edited.

    With `expected`, the revision at which the flag was read, it does not: what was decided elsewhere and earlier must
    not undo what somebody has changed since.

    Raises:
        FlagMissing: there is no such flag.
        VariantMissing: the flag has no variant `to`.
        Conflict: the flag is not at the revision `expected`.
        StoreCorrupt: what Redis holds of it is no definition.
    """
    if to == "":  # what a shell makes of a variable that is not set; the script takes it for "no variant"
        raise VariantMissing(environment, key, to)
    who = (text_as_json(actor), text_as_json(reason))
    return await _write(
        store, environment, key, "kill", *who, key, to or "", "" if expected is None else expected, variant=to or ""
    )


async def revive_flag(store: Store, environment: str, key: str, *, actor: str = "", reason: str = "") -> Written:
    """Undo a kill exactly.

    Raises:
        FlagMissing: there is no such flag.
        NotKilled: it is not killed.
    """
    who = (text_as_json(actor), text_as_json(reason))
    return await _write(store, environment, key, "revive", *who, key)


async def renew_epoch(store: Store, environment: str, seen: Position) -> Position:
    """Give an environment a fresh epoch, unless it has moved from where it was seen. Returns where it stands.

    Raises:
        EnvironmentMissing: there is no such environment.
    """
    answer = await WRITE.run(store, store.keys.all_of(environment), "renew", *seen, secrets.token_hex(16))
    _refuse(environment, answer)
    _, epoch, revision, nonce = answer
    return Position(epoch.decode(), int(revision), nonce.decode())


def text_as_json(text: str) -> bytes:
    """A person's words as JSON; lone surrogates, as a command line in no UTF-8 leaves them, become question marks."""
    return orjson.dumps(text.encode(errors="replace").decode())


async def _write(
    store: Store, environment: str, key: str, action: str, *arguments: str | bytes | int, variant: str = ""
) -> Written:
    nonce = secrets.token_hex(8)
    answer = await WRITE.run(store, store.keys.all_of(environment), action, nonce, *arguments)
    _refuse(environment, answer)
    match answer:
        case [b"WRITTEN", revision, at]:
            return Written(int(revision), int(at))
        case [b"UNCHANGED", revision, _]:
            return Written(int(revision), 0, changed=False)
        case [b"CONFLICT", kind, name, expected, found]:
            raise Conflict(f'{kind.decode()} "{name.decode()}"', int(expected), int(found))
        case [b"NO_FLAG"]:
            raise FlagMissing(environment, key)
        case [b"NO_VARIANT"]:
            raise VariantMissing(environment, key, variant)
        case [b"NOT_KILLED"]:
            raise NotKilled(environment, key)
        case [b"FULL", flags]:
            raise DefinitionError(
                f'environment "{environment}"', "", f"it would have {flags} flags; the most is {MAX_FLAGS}"
            )
    raise RuntimeError(f"the write script answered {answer!r:.100}")


def _refuse(environment: str, answer: Answer) -> None:
    """Raise what an answer says is wrong with the environment itself."""
    match answer:
        case [b"NO_ENVIRONMENT"]:
            raise EnvironmentMissing(environment)
        case [b"DAMAGED"]:
            raise state_damaged(environment)
        case [b"DAMAGED", what, expected, found]:
            raise entries_lost(environment, what, expected, found)
        case [b"UNREADABLE", kind, name]:
            raise unreadable(environment, f'{kind.decode()} "{name.decode()}"')
