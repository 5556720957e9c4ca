"""One action on a release, whichever it is: read, step, compile, write; and what it does to whom."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any, Protocol

from msgspec import field

from flagrelay.control.answers import Change, Key, Request, Revision, Sample, change_of, unchanged_at
from flagrelay.control.effect import counted_effect, exact_effect
from flagrelay.control.flags import check_revision, killed_by
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted, answer_of
from flagrelay.errors import FlagMissing, Killed, PopulationMissing, ReleaseMissing
from flagrelay.flags.change import Definition
from flagrelay.flags.definition import check_flag
from flagrelay.release.compiler import compile_release
from flagrelay.release.standing import Release
from flagrelay.release.states import GIVING
from flagrelay.store.reading import (
    FlagEntry,
    ReleaseEntry,
    read_clock,
    read_flag_release,
    read_populations,
    read_position,
)
from flagrelay.store.releases import ENDS, write_release

Before = tuple[FlagEntry | None, ReleaseEntry | None]
"""A flag and its release as they were read; None for what there was not."""


class Step(Request, kw_only=True):
    """An action. With `preview` nothing is written, and the answer says what would be, and for whom."""

    key: Key
    preview: bool = False
    sample: Sample = field(default_factory=list)
    if_revision: Revision | None = None


class Asked(Protocol):
    """What every action is asked with."""

    @property
    def preview(self) -> bool:
        """Whether nothing is to be written."""

    @property
    def sample(self) -> list[dict[str, Any]]:
        """Contexts to count over."""


@dataclass(frozen=True, slots=True)
class Action:
    """An action on a release that exists: what makes the next standing of the last one, and what goes with it."""

    name: str
    step: Callable[[Release, int], Release]
    reason: str
    narrows: bool = False
    """Whether it takes away: done at once."""
    detail: Mapping[str, Any] = member(default_factory=dict)
    notes: Sequence[str] = ()
    """What is allowed, and may not be meant."""


async def act(session: Session, request: Step, action: Action) -> Acted:
    """Do an action on a release that there is.

    Raises:
        FlagMissing, ReleaseMissing: there is none.
        Conflict: it is not at the revision that was asked for, or was written meanwhile.
        Killed: the action waits until the flag is revived.
        ReleaseError: the action does not fit.
    """
    flag, entry = await held_release(session, request.key)
    check_revision(f'release "{request.key}"', request.if_revision, entry.revision)
    release = action.step(entry.release, await read_clock(session.store, session.environment))
    if action.name in GIVING:
        refuse_killed(flag)
    definition = compile_release(release, original(flag))
    return await carry_out(session, request, action, (flag, entry), (release, definition))


async def carry_out(
    session: Session,
    request: Asked,
    action: Action,
    before: Before,
    after: tuple[Release, Definition],
) -> Acted:
    """Write what an action makes, unless that is nothing new, or only to be shown; and say what it does."""
    flag, entry = before
    release, definition = after
    then = entry.release if entry else None
    change = None
    if request.preview:
        await _check_populations(session, release)
    else:
        change = await _write(session, action, before, after)
    served = flag.definition if flag else None
    if request.preview or request.sample:
        shown = flag.definition if flag and flag.killed else definition
        effect = await counted_effect(session, (then, served), (release, shown), request.sample)
    else:
        effect = exact_effect(then, release, served)
    if flag and flag.killed:
        effect.shifts = []  # whatever the release gives or takes, everybody has what the kill says
    written = ReleaseEntry(change.revision if change and change.changed else entry.revision if entry else 0, release)
    return Acted(
        release=answer_of(written, flag),
        effect=effect,
        notes=list(action.notes),
        definition=dict(definition),
        flag_revision=change.revision if change and change.changed else flag.revision if flag else 0,
        change=change,
    )


async def _check_populations(session: Session, release: Release) -> None:
    """Refuse what a write would be refused for: whoever is in a population that there is not.

    Raises:
        PopulationMissing: it names one.
    """
    known = await read_populations(session.store, session.environment)
    for name in release.populations if release.state not in ENDS else ():
        if name not in known:
            raise PopulationMissing(session.environment, name)


async def _write(
    session: Session,
    action: Action,
    before: Before,
    after: tuple[Release, Definition],
) -> Change:
    flag, entry = before
    release, definition = after
    if entry and release == entry.release:  # whatever was to be taken away is away already
        return unchanged_at(await read_position(session.store, session.environment))
    detail = {
        **action.detail,
        "state": release.state.value,
        "stage": release.stage_name,
        "from_stage": entry.release.stage_name if entry else None,
        "blocks": release.blocks,
        "only": release.only,
        "release": release.revision,
    }
    if release.state in ENDS:
        detail["plan"] = release.plan.as_json()
    written = await session.write(
        lambda store: write_release(
            store,
            session.environment,
            release,
            definition,
            expected=(flag.revision if flag else 0, entry.revision if entry else 0),
            action=action.name,
            detail=detail,
            actor=session.actor,
            reason=action.reason,
            urgent=action.narrows,
        )
    )
    return change_of(written)


async def held_release(session: Session, key: str) -> tuple[FlagEntry, ReleaseEntry]:
    """A flag and its release.

    Raises:
        FlagMissing, ReleaseMissing: there is none.
    """
    flag, entry = await read_flag_release(session.store, session.environment, key)
    if flag is None:
        await read_position(session.store, session.environment)
        raise FlagMissing(session.environment, key)
    if entry is None:
        raise ReleaseMissing(session.environment, key)
    return flag, entry


def original(flag: FlagEntry) -> Definition:
    """What a release is made over. Another tool may have written it: what would be kept of it must be sound.

    Raises:
        DefinitionError: it is not.
    """
    definition = flag.killed.original if flag.killed else flag.definition
    kept = {name: definition[name] for name in ("variants", "metadata") if name in definition}
    check_flag(flag.key, {"state": "ENABLED", **kept})
    return definition


def refuse_killed(flag: FlagEntry | None) -> None:
    """Refuse to give a flag to more people that is killed.

    Raises:
        Killed: it is.
    """
    if flag and flag.killed:
        raise Killed(killed_by(flag.key, flag.killed), f"it goes nowhere before `flagrelay revive {flag.key}`")
