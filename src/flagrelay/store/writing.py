"""Writing an environment: changes, kills, and their undoing. Every function is one run of one script."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from flagrelay.errors import (
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    FlagMissing,
    NotKilled,
    PopulationMissing,
    PopulationUsed,
    Released,
    VariantMissing,
)
from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.definition import MAX_FLAGS, check_flag, check_metadata, check_population
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position
from flagrelay.release.population import references
from flagrelay.store.connection import Store
from flagrelay.store.reading import entries_lost, state_damaged, unreadable
from flagrelay.store.script import WRITE

Answer = Sequence[Any]
"""What the write script answers: the name of an outcome, and what belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An edit that is not written yet.

    `flags` and `evaluators`: a value replaces the entry, None deletes it; `about`: what people should know of a
    population. `expected_*`: the revision at which each entry was read, 0 for "it must not exist"; what is left out is
    not checked. `expected`: the same of the environment as a whole. `action` is what the history calls it. A flag that
    has a release is not written, unless `over_releases`, which ends the release.
    `detail` is what else the history should know.
    """

    flags: Mapping[str, Definition | None] = field(default_factory=dict)
    evaluators: Mapping[str, Rule | None] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    settings: EnvironmentSettings | None = None
    expected_flags: Mapping[str, int] = field(default_factory=dict)
    expected_evaluators: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    expected: int | None = None
    over_releases: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)
    action: str = "write"
    actor: str = ""
    reason: str = ""
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A write that happened: the revision it made, Redis's time of it (µs), and whether it changed anything.

    `epoch` is that of the history that the revision counts.
    """

    revision: int
    at: int
    changed: bool = True
    epoch: str = ""


async def write_change(store: Store, environment: str, draft: Draft) -> Written:
    """Write an edit as one change, all or nothing.

    Raises:
        DefinitionError: a definition, rule or limit is broken.
        Conflict: an entry, or the environment, is not at the revision at which it was read.
        Released: a flag has a release.
        PopulationUsed: a release names a population that was to be deleted.
        PopulationMissing: a flag of it names a population that there is not.
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
    for name, about in draft.about.items():
        arguments += ["about", name, "", orjson.dumps(about)]
    for name in sorted(_named_by(draft.flags.values())):
        arguments += ["needed", name, "", ""]
    detail = {**draft.detail, **({} if draft.metadata is None else {"metadata": True})}
    if detail:
        arguments += ["detail", "", "", orjson.dumps(detail)]
    metadata = b"" if draft.metadata is None else orjson.dumps(check_metadata(draft.metadata))
    who = (draft.action, text_as_json(draft.actor), text_as_json(draft.reason), orjson.dumps(draft.urgent))
    settings = b"" if draft.settings is None else orjson.dumps(draft.settings.as_json())
    seen = "" if draft.expected is None else draft.expected
    more = (metadata, settings, MAX_FLAGS, seen, "1" if draft.over_releases else "")
    return await write(store, environment, "", "change", *who, *more, *arguments)


def _named_by(flags: Iterable[Definition | None]) -> set[str]:
    """The populations that definitions name."""
    return {name for flag in flags if flag is not None for name in references(flag.get("targeting"))}


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
    return await write(
        store, environment, key, "kill", *who, key, to or "", "" if expected is None else expected, variant=to or ""
    )


async def revive_flag(store: Store, environment: str, key: str, *, actor: str = "", reason: str = "") -> Written:
    """Undo a kill exactly.

    Raises:
        FlagMissing: there is no such flag.
        NotKilled: it is not killed.
    """
    who = (text_as_json(actor), text_as_json(reason))
    return await write(store, environment, key, "revive", *who, key)


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


async def write(
    store: Store, environment: str, key: str, action: str, *arguments: str | bytes | int, variant: str = ""
) -> Written:
    """One run of the write script that makes a change. Returns what was written, or raises what was refused.

    Args:
        store: where the environment is.
        environment: its name.
        key: the flag that it is about, for errors; empty for several.
        action: what the script is to do.
        arguments: what belongs to that, as the script says.
        variant: what a kill is to serve, for errors.
    """
    nonce = secrets.token_hex(8)
    answer = await WRITE.run(store, store.keys.all_of(environment), action, nonce, *arguments)
    _refuse(environment, answer)
    match answer:
        case [b"WRITTEN", revision, at, epoch]:
            return Written(int(revision), int(at), epoch=epoch.decode())
        case [b"UNCHANGED", revision, _, epoch]:
            return Written(int(revision), 0, changed=False, epoch=epoch.decode())
        case [b"NO_FLAG"]:
            raise FlagMissing(environment, key)
        case [b"NO_VARIANT"]:
            raise VariantMissing(environment, key, variant)
        case [b"NOT_KILLED"]:
            raise NotKilled(environment, key)
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
    _refuse_entries(environment, answer)


def _refuse_entries(environment: str, answer: Answer) -> None:
    """Raise what an answer says is wrong with what was to be written."""
    match answer:
        case [b"CONFLICT", kind, name, expected, found]:
            raise Conflict(f'{kind.decode()} "{name.decode() or environment}"', int(expected), int(found))
        case [b"RELEASED", name]:
            raise Released(environment, name.decode())
        case [b"NO_POPULATION", name]:
            raise PopulationMissing(environment, name.decode())
        case [b"IN_USE", name, user]:
            raise PopulationUsed(name.decode(), [f'the release of flag "{user.decode()}"'])
        case [b"FULL", flags]:
            cause = f"it would have {flags} flags; the most is {MAX_FLAGS}"
            raise DefinitionError(f'environment "{environment}"', "", cause)
