"""Flags, one by one: list, get, put, delete, kill, revive."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from flagrelay.control.answers import AnyReason, Change, Key, Killed, Reason, Request, Revision, change_of, killed_of
from flagrelay.control.answers import type_of as type_of_flag
from flagrelay.control.session import Session
from flagrelay.errors import Conflict, DefinitionError, FlagMissing
from flagrelay.errors import Killed as KilledError
from flagrelay.flags.change import Definition
from flagrelay.flags.definition import check_flag
from flagrelay.release.standing import Release
from flagrelay.store.connection import Store
from flagrelay.store.reading import (
    FlagEntry,
    Kill,
    read_flag_release,
    read_populations,
    read_position,
    read_state,
)
from flagrelay.store.writing import Draft, Written, kill_flag, revive_flag, write_change


class FlagSummary(Struct, kw_only=True):
    """A flag, in a list. `state` is INVALID where something other than flagrelay wrote what is no definition."""

    key: str
    revision: int
    state: str
    type: str
    variants: list[str]
    defaultVariant: str | None  # noqa: N815 - as flagd spells it
    killed: Killed | None
    stage: str | None


class Flag(Struct, kw_only=True):
    """A flag as it is stored, and where its release stands; null: it has none."""

    key: str
    revision: int
    definition: dict[str, Any]
    killed: Killed | None
    stage: str | None


class ListFlags(Request, kw_only=True):
    """Nothing is asked for but the list."""


class GetFlag(Request, kw_only=True):
    """Which flag."""

    key: Key


class PutFlag(Request, kw_only=True):
    """A flag's whole definition; `force` ends the kill of one that is killed."""

    key: Key
    definition: dict[str, Any]
    force: bool = False
    reason: AnyReason = ""
    if_revision: Revision | None = None


class DeleteFlag(Request, kw_only=True):
    """Which flag is to go."""

    key: Key
    force: bool = False
    reason: AnyReason = ""
    if_revision: Revision | None = None


class KillFlag(Request, kw_only=True):
    """Which flag is taken from everybody; `to` is the variant that everybody gets, null for their own defaults."""

    key: Key
    to: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    reason: Reason


class ReviveFlag(Request, kw_only=True):
    """Which kill is undone."""

    key: Key
    reason: AnyReason = ""


async def list_flags(session: Session, _request: ListFlags) -> list[FlagSummary]:
    """List the flags of the environment."""
    state = await read_state(session.store, session.environment)
    stages = {key: entry.release for key, entry in state.releases.items()}
    return [_summary(entry, stages.get(key)) for key, entry in sorted(state.flags.items())]


async def get_flag(session: Session, request: GetFlag) -> Flag:
    """Get a flag as it is stored."""
    entry, release = await existing(session, request.key)
    if entry is None:
        raise FlagMissing(session.environment, request.key)
    return Flag(
        key=entry.key,
        revision=entry.revision,
        definition=dict(entry.definition),
        killed=killed_of(entry.killed),
        stage=stage_of(release),
    )


async def put_flag(session: Session, request: PutFlag) -> Change:
    """Create a flag, or replace its whole definition."""
    store, environment, key = session.store, session.environment, request.key
    definition = check_flag(key, request.definition, await read_populations(store, environment))
    entry, _ = await existing(session, key)
    refuse_killed([entry] if entry else [], force=request.force)
    return await _write(session, request, definition, entry)


async def delete_flag(session: Session, request: DeleteFlag) -> Change:
    """Delete a flag; callers then get the default in their own code."""
    entry, _ = await existing(session, request.key)
    if entry is None:
        raise FlagMissing(session.environment, request.key)
    refuse_killed([entry], force=request.force)
    return await _write(session, request, None, entry)


async def _write(
    session: Session, request: PutFlag | DeleteFlag, definition: Definition | None, entry: FlagEntry | None
) -> Change:
    found = entry.revision if entry else 0
    draft = Draft(
        flags={request.key: definition},
        expected_flags={request.key: found if request.if_revision is None else request.if_revision},
        action="delete" if definition is None else "put",
        actor=session.actor,
        reason=request.reason,
    )
    return change_of(await session.write(lambda store: write_change(store, session.environment, draft)))


async def kill(session: Session, request: KillFlag) -> Change:
    """Take a flag back from everybody, at once; it wins over whatever is being edited."""

    async def write(store: Store) -> Written:
        who = {"actor": session.actor, "reason": request.reason}
        return await kill_flag(store, session.environment, request.key, to=request.to, expected=None, **who)

    return change_of(await session.write(write))


async def revive(session: Session, request: ReviveFlag) -> Change:
    """Undo a kill, exactly."""
    who = {"actor": session.actor, "reason": request.reason}
    return change_of(await session.write(lambda store: revive_flag(store, session.environment, request.key, **who)))


async def existing(session: Session, key: str) -> tuple[FlagEntry | None, Release | None]:
    """A flag and its release, or None for what there is not.

    Raises:
        EnvironmentMissing: there is no such environment.
    """
    entry, release = await read_flag_release(session.store, session.environment, key)
    if entry is None:
        await read_position(session.store, session.environment)
    return entry, release.release if release else None


def stage_of(release: Release | None) -> str | None:
    """The name of the stage that a flag's release is at; None where it has none."""
    return release.stage_name if release else None


def check_revision(subject: str, expected: int | None, found: int) -> None:
    """Refuse an edit of something that has been written since it was read.

    Raises:
        Conflict: it has.
    """
    if expected is not None and expected != found:
        raise Conflict(subject, expected, found)


def refuse_killed(entries: list[FlagEntry], *, force: bool) -> None:
    """Refuse an edit of flags that are killed.

    Raises:
        Killed: one of them is, and `force` is not said.
    """
    killed = [(entry.key, entry.killed) for entry in entries if entry.killed]
    if killed and not force:
        raise KilledError(
            "; ".join(killed_by(key, kill) for key, kill in killed),
            "an edit would end the kill. Revive first (`flagrelay revive`), or say --force",
        )


def killed_by(key: str, kill: Kill | Killed) -> str:
    """That a flag is killed, by whom and why, as a sentence."""
    return f'flag "{key}" is {told_of_kill(kill)}'


def told_of_kill(kill: Kill | Killed) -> str:
    """By whom, since when and why a flag is killed, as the end of a sentence."""
    return f"killed by {kill.actor or 'unknown'} since {moment(kill.at)} ({kill.reason or 'no reason'})"


def moment(at: int) -> str:
    """A time of Redis's (µs), for people anywhere."""
    try:
        return datetime.fromtimestamp(at // 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # another tool's, or too far away for a calendar
        return f"@{at // 1_000_000}"


def _summary(entry: FlagEntry, release: Release | None) -> FlagSummary:
    """What is listed of a flag. One that something else than flagrelay wrote may be of any shape."""
    summary = FlagSummary(
        key=entry.key,
        revision=entry.revision,
        state="INVALID",
        type="",
        variants=[],
        defaultVariant=None,
        killed=killed_of(entry.killed),
        stage=stage_of(release),
    )
    with suppress(DefinitionError):
        definition = check_flag(entry.key, entry.definition)
        summary.state = definition["state"]
        summary.type = type_of_flag(definition)
        summary.variants = list(definition["variants"])
        summary.defaultVariant = definition.get("defaultVariant")
    return summary
