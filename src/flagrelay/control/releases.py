"""Releases: plans, stages, un-release."""

from collections.abc import Callable
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from flagrelay.control.answers import AnyReason, Key, Name, Reason, Request
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted, ReleaseAnswer, answer_of
from flagrelay.control.stepping import Action, Step, act, held_release
from flagrelay.errors import Conflict
from flagrelay.release import actions
from flagrelay.release.plan import Plan
from flagrelay.release.standing import Release
from flagrelay.store.reading import read_state

UNRELEASE_TRIES = 50
"""How often an un-release is done anew, because somebody else has written the flag meanwhile."""

StageName = Annotated[str, Meta(min_length=1, max_length=256, description="A stage's name or number")]

Limit = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="Who keeps it: those up to a stage, by its name or number, or who are in a population, by its name",
    ),
]

# -- what is asked for ------------------------------------------------------------------------------------------------


class ListReleases(Request, kw_only=True):
    """Nothing is asked for but the list."""


class GetRelease(Request, kw_only=True):
    """Which flag's."""

    key: Key


class StepTo(Step, kw_only=True):
    """To the next stage, or to one that is named; `force` disregards the minimum time of a stage."""

    to: StageName | None = None
    force: bool = False
    reason: Reason


class RetreatTo(Step, kw_only=True):
    """To the stage before, or to an earlier one that is named."""

    to: StageName | None = None
    reason: Reason


class Unrelease(Step, kw_only=True):
    """From populations; to what a stage, or a population, has; or, where neither is said, from everybody.

    `from` is left out where nobody is named: an empty list may be a list that went missing, and is not everybody.
    """

    from_: Annotated[list[Name], Meta(min_length=1, max_length=50)] | UnsetType = field(default=UNSET, name="from")
    to: Limit | None = None
    reason: Reason


class Restore(Step, kw_only=True):
    """To which population it is given back."""

    population: Name
    reason: Reason


class Finish(Step, kw_only=True):
    """Everybody gets it; `force`, though its stages have not reached everybody."""

    force: bool = False
    reason: AnyReason = ""


class End(Step, kw_only=True):
    """Why it ends."""

    reason: AnyReason = ""


class Approve(Step, kw_only=True):
    """Which stage is agreed to; the next one where none is named."""

    stage: StageName | None = None
    reason: AnyReason = ""


# -- what is done -----------------------------------------------------------------------------------------------------


async def list_releases(session: Session, _request: ListReleases) -> list[ReleaseAnswer]:
    """List the releases of the environment, and how each stands."""
    state = await read_state(session.store, session.environment)
    return [answer_of(entry, state.flags.get(key)) for key, entry in sorted(state.releases.items())]


async def get_release(session: Session, request: GetRelease) -> ReleaseAnswer:
    """Get how the release of a flag stands."""
    flag, entry = await held_release(session, request.key)
    return answer_of(entry, flag)


async def start(session: Session, request: StepTo) -> Acted:
    """Enter the first stage of a release, or the one that is named."""
    return await _widen(session, request, "start", actions.start)


async def advance(session: Session, request: StepTo) -> Acted:
    """Enter the next stage of a release, or a later one that is named."""
    return await _widen(session, request, "advance", actions.advance)


async def _widen(session: Session, request: StepTo, name: str, step: Callable[..., Release]) -> Acted:
    def entered(release: Release, now: int) -> Release:
        return step(release, request.to, now=now, actor=session.actor, force=request.force)

    detail = {"force": True} if request.force else {}
    return await act(session, request, Action(name, entered, request.reason, detail=detail))


async def retreat(session: Session, request: RetreatTo) -> Acted:
    """Go back to the stage before, or to an earlier one that is named; from the first one, to nobody."""

    def left(release: Release, now: int) -> Release:
        return actions.retreat(release, request.to, now=now)

    return await act(session, request, Action("retreat", left, request.reason, narrows=True))


async def unrelease(session: Session, request: Unrelease) -> Acted:
    """Take a release back: from populations, from all but those up to a stage or population, or from everybody."""
    names = [] if request.from_ is UNSET else request.from_
    notes: list[str] = []

    def taken(release: Release, now: int) -> Release:
        notes[:] = _of_a_stage_ahead(release, request.to)
        return actions.unrelease(release, names, request.to, now=now)

    detail = {"from": names, "to": request.to}
    action = Action("unrelease", taken, request.reason, narrows=True, detail=detail, notes=notes)
    for _ in range(UNRELEASE_TRIES):
        try:
            return await act(session, request, action)
        except Conflict:  # somebody else's edit; an un-release does not yield to it
            if request.if_revision is not None:
                raise
    return await act(session, request, action)


def _of_a_stage_ahead(release: Release, to: str | None) -> list[str]:
    """That to go back to a stage which is not reached takes nothing from anybody."""
    position = None if to is None else actions.stage_for(release.plan, to)
    if position is None or position <= release.position:
        return []
    cause = f'it is at stage "{release.stage_name}", which comes before "{to}"'
    return [f"{cause}: whoever was released to by then keeps it; --from takes it from a population"]


async def restore(session: Session, request: Restore) -> Acted:
    """Give a release back to a population that it was taken back from, as far as its stages go."""

    def given(release: Release, _now: int) -> Release:
        return actions.restore(release, request.population)

    detail = {"population": request.population}
    return await act(session, request, Action("restore", given, request.reason, detail=detail))


async def finish(session: Session, request: Finish) -> Acted:
    """End a release with everybody having it: the flag is plain again, and the plan is kept in its history."""

    def finished(release: Release, _now: int) -> Release:
        return actions.finish(release, actor=session.actor, force=request.force)

    return await act(session, request, Action("finish", finished, request.reason))


async def abandon(session: Session, request: End) -> Acted:
    """End a release with nobody having it: the flag is plain again, and the plan is kept in its history."""

    def abandoned(release: Release, _now: int) -> Release:
        return actions.abandon(release)

    return await act(session, request, Action("abandon", abandoned, request.reason, narrows=True))


async def detach(session: Session, request: End) -> Acted:
    """End a release and leave the flag as it is, to be edited as plain JSON from now on."""

    def detached(release: Release, _now: int) -> Release:
        return actions.detach(release)

    return await act(session, request, Action("detach", detached, request.reason))


async def approve(session: Session, request: Approve) -> Acted:
    """Agree to the entry of a stage that takes an approval."""
    detail: dict[str, str] = {}

    def approved(release: Release, _now: int) -> Release:
        after = actions.approve(release, request.stage, session.actor)
        detail["approves"] = approved_stage(release.plan, release.position, request.stage)
        return after

    return await act(session, request, Action("approve", approved, request.reason, detail=detail))


def approved_stage(plan: Plan, position: int, stage: str | None) -> str:
    """The name of the stage that an approval is of: the next one after a position, or one that is named."""
    return plan.stages[position if stage is None else actions.find_stage(plan, stage) - 1].name
