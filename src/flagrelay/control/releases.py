"""Releases: plans, stages, un-release."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as member
from itertools import pairwise
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from flagrelay.control.answers import (
    AnyReason,
    Change,
    Key,
    Killed,
    Name,
    Reason,
    Request,
    Revision,
    Sample,
    change_of,
    killed_of,
)
from flagrelay.control.effect import Effect, counted_effect, exact_effect
from flagrelay.control.flags import check_revision, killed_by
from flagrelay.control.session import Session
from flagrelay.errors import ActionRefused, Conflict, FlagMissing, PopulationMissing, ReleaseMissing
from flagrelay.errors import Killed as KilledError
from flagrelay.flags.change import Definition
from flagrelay.flags.definition import check_flag
from flagrelay.release import actions
from flagrelay.release.compiler import compile_release
from flagrelay.release.exposure import exposures
from flagrelay.release.plan import WHOLE, Plan, check_plan, check_variants
from flagrelay.release.standing import Release
from flagrelay.release.states import fitting
from flagrelay.store.reading import (
    FlagEntry,
    ReleaseEntry,
    read_about,
    read_clock,
    read_flag_release,
    read_populations,
    read_position,
    read_state,
)
from flagrelay.store.releases import write_release

UNRELEASE_TRIES = 50
"""How often an un-release is done anew, because somebody else has written the flag meanwhile."""

StageName = Annotated[str, Meta(min_length=1, max_length=256, description="A stage's name or number")]

# -- what is asked for ------------------------------------------------------------------------------------------------


class ListReleases(Request, kw_only=True):
    """Nothing is asked for but the list."""


class GetRelease(Request, kw_only=True):
    """Which flag's."""

    key: Key


class PutPlan(Request, kw_only=True):
    """A plan for a flag.

    `replace_targeting` lets it replace targeting that the flag has of its own. With `preview` nothing is written, and
    the answer says what would be.
    """

    key: Key
    plan: dict[str, Any]
    replace_targeting: bool = False
    preview: bool = False
    sample: Sample = field(default_factory=list)
    reason: AnyReason = ""
    if_revision: Revision | None = None


class Step(Request, kw_only=True):
    """An action. With `preview` nothing is written, and the answer says what would be, and for whom."""

    key: Key
    preview: bool = False
    sample: Sample = field(default_factory=list)
    if_revision: Revision | None = None


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
    """From populations; to what a stage, or a population, has; or, where neither is said, from everybody."""

    from_: Annotated[list[Name], Meta(max_length=50)] = field(default_factory=list, name="from")
    to: StageName | None = None
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


# -- what is answered -------------------------------------------------------------------------------------------------


class StageAnswer(Struct, kw_only=True):
    """A stage of a plan. `whom` says it in words, `minimum` is in seconds, `approval` says who must agree."""

    name: str
    whom: str
    population: str | None
    percent: float
    minimum: int
    approval: str
    approved_by: list[str]
    reached: bool


class Exposed(Struct, kw_only=True):
    """What a population, or everybody else, has: `percent` of it, and in words."""

    scope: str
    percent: float
    shown: str


class ReleaseAnswer(Struct, kw_only=True):
    """How a release stands.

    `revision` is the environment's revision that last changed it: the ETag. `position` counts the stages that are
    reached, `since` is when that was (µs), `fitting` are the actions that fit now.
    """

    flag: str
    revision: int
    state: str
    stage: str
    position: int
    since: int
    stages: list[StageAnswer]
    blocks: list[str]
    only: list[str]
    exposures: list[Exposed]
    plan: dict[str, Any]
    killed: Killed | None
    fitting: list[str]


class Acted(Struct, kw_only=True):
    """What an action did, or would do.

    The release after it, who gains and loses, the flag that it compiles to, and the change that was written; null for a
    preview. `notes` are sentences about what is allowed, and may not be meant.
    """

    release: ReleaseAnswer
    effect: Effect
    notes: list[str]
    definition: dict[str, Any]
    change: Change | None


# -- what is done -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Action:
    """An action on a release that exists: what makes the next standing of the last one, and what goes with it."""

    name: str
    step: Callable[[Release, int], Release]
    reason: str
    narrows: bool = False
    """Whether it takes away: done at once, and to a flag that is killed too."""
    detail: Mapping[str, Any] = member(default_factory=dict)


async def list_releases(session: Session, _request: ListReleases) -> list[ReleaseAnswer]:
    """List the releases of the environment, and how each stands."""
    state = await read_state(session.store, session.environment)
    return [_answer(entry, state.flags.get(key)) for key, entry in sorted(state.releases.items())]


async def get_release(session: Session, request: GetRelease) -> ReleaseAnswer:
    """Get how the release of a flag stands."""
    flag, entry = await held_release(session, request.key)
    return _answer(entry, flag)


async def put_plan(session: Session, request: PutPlan) -> Acted:
    """Store the plan of a release: the flag then serves its baseline to everybody, until the release is started."""
    plan = check_plan(request.plan)
    if plan.flag != request.key:
        raise ActionRefused(request.key, "plan", f'the plan is for flag "{plan.flag}"', "plan")
    store, environment = session.store, session.environment
    known = await read_populations(store, environment)
    for name in plan.populations:
        if name not in known:
            raise PopulationMissing(environment, name)
    flag, entry = await read_flag_release(store, environment, plan.flag)
    base = _base_of_plan(environment, plan, flag, entry, replace=request.replace_targeting)
    check_variants(plan, base["variants"])
    check_revision(f'release "{plan.flag}"', request.if_revision, entry.revision if entry else 0)
    release = actions.plan(entry.release if entry else None, plan, await read_clock(store, environment))
    action = _Action("plan", lambda _release, _now: release, request.reason, detail={"plan": plan.as_json()})
    _refuse_killed(flag)
    return await _finish(session, request, action, (flag, entry), (release, compile_release(release, base)))


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
    return await _act(session, request, _Action(name, entered, request.reason, detail=detail))


async def retreat(session: Session, request: RetreatTo) -> Acted:
    """Go back to the stage before, or to an earlier one that is named; from the first one, to nobody."""

    def left(release: Release, now: int) -> Release:
        return actions.retreat(release, request.to, now=now)

    return await _act(session, request, _Action("retreat", left, request.reason, narrows=True))


async def unrelease(session: Session, request: Unrelease) -> Acted:
    """Take a release back: from populations, from all but those up to a stage or population, or from everybody."""
    await _check_populations(session, request)

    def taken(release: Release, now: int) -> Release:
        return actions.unrelease(release, request.from_, request.to, now=now)

    detail = {"from": request.from_, "to": request.to}
    action = _Action("unrelease", taken, request.reason, narrows=True, detail=detail)
    for _ in range(UNRELEASE_TRIES):
        try:
            return await _act(session, request, action)
        except Conflict:  # somebody else's edit; an un-release does not yield to it
            if request.if_revision is not None:
                raise
    return await _act(session, request, action)


async def restore(session: Session, request: Restore) -> Acted:
    """Give a release back to a population that it was taken back from, as far as its stages go."""

    def given(release: Release, _now: int) -> Release:
        return actions.restore(release, request.population)

    detail = {"population": request.population}
    return await _act(session, request, _Action("restore", given, request.reason, detail=detail))


async def finish(session: Session, request: Finish) -> Acted:
    """End a release with everybody having it: the flag is plain again, and the plan is kept in its history."""

    def finished(release: Release, _now: int) -> Release:
        return actions.finish(release, actor=session.actor, force=request.force)

    return await _act(session, request, _Action("finish", finished, request.reason))


async def abandon(session: Session, request: End) -> Acted:
    """End a release with nobody having it: the flag is plain again, and the plan is kept in its history."""

    def abandoned(release: Release, _now: int) -> Release:
        return actions.abandon(release)

    return await _act(session, request, _Action("abandon", abandoned, request.reason, narrows=True))


async def detach(session: Session, request: End) -> Acted:
    """End a release and leave the flag as it is, to be edited as plain JSON from now on."""

    def detached(release: Release, _now: int) -> Release:
        return actions.detach(release)

    return await _act(session, request, _Action("detach", detached, request.reason))


async def approve(session: Session, request: Approve) -> Acted:
    """Agree to the entry of a stage that takes an approval."""

    def approved(release: Release, _now: int) -> Release:
        return actions.approve(release, request.stage, session.actor)

    return await _act(session, request, _Action("approve", approved, request.reason))


async def _act(session: Session, request: Step, action: _Action) -> Acted:
    flag, entry = await held_release(session, request.key)
    check_revision(f'release "{request.key}"', request.if_revision, entry.revision)
    release = action.step(entry.release, await read_clock(session.store, session.environment))
    if not action.narrows and action.name not in ("approve", "detach"):
        _refuse_killed(flag)
    definition = compile_release(release, _original(flag))
    return await _finish(session, request, action, (flag, entry), (release, definition))


async def _finish(
    session: Session,
    request: Step | PutPlan,
    action: _Action,
    before: tuple[FlagEntry | None, ReleaseEntry | None],
    after: tuple[Release, Definition],
) -> Acted:
    """Write what an action makes, unless that is nothing new, or only to be shown; and say what it does."""
    flag, entry = before
    release, definition = after
    then = entry.release if entry else None
    change = None
    if not request.preview:
        change = await _write(session, action, before, after)
    if request.preview or request.sample:
        served = flag.definition if flag else None
        shown = flag.definition if flag and flag.killed else definition
        effect = await counted_effect(session, (then, served), (release, shown), request.sample)
    else:
        effect = exact_effect(then, release)
    written = ReleaseEntry(change.revision if change and change.changed else entry.revision if entry else 0, release)
    return Acted(
        release=_answer(written, flag),
        effect=effect,
        notes=await _notes(session, release.plan) if action.name == "plan" else [],
        definition=dict(definition),
        change=change,
    )


async def _notes(session: Session, plan: Plan) -> list[str]:
    """Where stages do not come in the order of the risks of their populations."""
    about = await read_about(session.store, session.environment)
    risks = [(stage.name, about.get(stage.population or "", {}).get("risk")) for stage in plan.stages]
    known = [(name, risk) for name, risk in risks if risk is not None]
    return [
        f'stage "{before}" (risk {high}) comes before stage "{after}" (risk {low}): less risk is released to first'
        for (before, high), (after, low) in pairwise(known)
        if high > low
    ]


async def _write(
    session: Session,
    action: _Action,
    before: tuple[FlagEntry | None, ReleaseEntry | None],
    after: tuple[Release, Definition],
) -> Change:
    flag, entry = before
    release, definition = after
    if entry and release == entry.release:  # whatever was to be taken away is away already
        position = await read_position(session.store, session.environment)
        return Change(revision=position.revision, epoch=position.epoch, at=None, changed=False)
    detail = {
        **action.detail,
        "state": release.state.value,
        "stage": release.stage_name,
        "from_stage": entry.release.stage_name if entry else None,
        "blocks": release.blocks,
        "only": release.only,
        "release": release.revision,
    }
    if release.state.value in ("finished", "abandoned", "detached"):
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


async def _check_populations(session: Session, request: Unrelease) -> None:
    """Refuse to block, or to limit to, what there is not: it would block nobody."""
    _, entry = await held_release(session, request.key)  # without one, that is what is to be said
    known = await read_populations(session.store, session.environment)
    for name in request.from_:
        if name not in known:
            raise PopulationMissing(session.environment, name)
    if request.to is not None:
        stages = entry.release.plan.stages
        named = {str(number) for number in range(1, len(stages) + 1)} | {stage.name for stage in stages}
        if request.to not in named | known:
            raise PopulationMissing(session.environment, request.to)


def _original(flag: FlagEntry) -> Definition:
    """What a release is made over. Another tool may have written it: what would be kept of it must be sound.

    Raises:
        DefinitionError: it is not.
    """
    definition = flag.killed.original if flag.killed else flag.definition
    kept = {name: definition[name] for name in ("variants", "metadata") if name in definition}
    check_flag(flag.key, {"state": "ENABLED", **kept})
    return definition


def _base_of_plan(
    environment: str, plan: Plan, flag: FlagEntry | None, entry: ReleaseEntry | None, *, replace: bool
) -> Definition:
    """What a plan is applied to: the flag as it is, or a new one of the variants that the plan names."""
    if flag is None:
        if plan.variants is None:
            raise FlagMissing(environment, plan.flag)
        return {"variants": dict(plan.variants)}
    base = _original(flag)
    if entry is None and base.get("targeting") and not replace:
        cause = "the flag has targeting of its own, which the release would replace: say --replace-targeting"
        raise ActionRefused(plan.flag, "plan", cause, "plan")
    return {**base, "variants": dict(plan.variants)} if plan.variants is not None else base


def _refuse_killed(flag: FlagEntry | None) -> None:
    if flag and flag.killed:
        raise KilledError(killed_by(flag), f"it goes nowhere before `flagrelay revive {flag.key}`")


def exposed_of(release: Release) -> list[Exposed]:
    """What each population, and everybody else, has of a release."""
    return [
        Exposed(scope=each.scope, percent=each.effective * 100 / WHOLE, shown=str(each))
        for each in exposures(release).values()
    ]


def _answer(entry: ReleaseEntry, flag: FlagEntry | None) -> ReleaseAnswer:
    release = entry.release
    return ReleaseAnswer(
        flag=release.flag,
        revision=entry.revision,
        state=release.state.value,
        stage=release.stage_name,
        position=release.position,
        since=release.since,
        stages=[
            StageAnswer(
                name=stage.name,
                whom=stage.whom,
                population=stage.population,
                percent=stage.share * 100 / WHOLE,
                minimum=stage.minimum,
                approval=str(stage.approval),
                approved_by=list(release.approvals.get(stage.name, ())),
                reached=index < release.position,
            )
            for index, stage in enumerate(release.plan.stages)
        ],
        blocks=list(release.blocks),
        only=list(release.only),
        exposures=exposed_of(release),
        plan=release.plan.as_json(),
        killed=killed_of(flag.killed) if flag else None,
        fitting=fitting(release.state),
    )
