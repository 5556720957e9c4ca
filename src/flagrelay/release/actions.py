"""Each action on a release, from one standing to the next. Nothing here writes, or knows the time by itself."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from flagrelay.errors import ActionRefused, ApprovalMissing, DefinitionError, TooEarly
from flagrelay.release import states
from flagrelay.release.duration import format_duration
from flagrelay.release.plan import EVERYBODY, WHOLE, Plan, Stage
from flagrelay.release.standing import Release
from flagrelay.release.states import GIVING, Action, State, transition

MAX_BLOCKS = 50
"""Populations that one release may be taken back from, and that it may be limited to."""


def plan(release: Release | None, wanted: Plan, now: int) -> Release:
    """A plan, stored; over the plan of a release that is under way where it leaves what was reached as it is.

    Raises:
        ActionRefused: stages that were reached, the variants or the salt would be others.
    """
    if release is None:
        return Release(wanted, since=now)
    state = transition(wanted.flag, release.state, Action.PLAN)
    if release.state is not State.PLANNED:
        _refuse_another(release, wanted)
        # The hash goes through variants in their order: another one would move people between them.
        wanted = replace(wanted, released=release.plan.released, baseline=release.plan.baseline)
    kept = {stage.name for stage in wanted.stages if stage in release.plan.stages}  # nobody agreed to another one
    approvals = {name: people for name, people in release.approvals.items() if name in kept}
    return _next(release, state, plan=wanted, approvals=approvals)


def approve(release: Release, stage: str | None, actor: str) -> Release:
    """Agree to the entry of a stage: the next one, or one that is named.

    Raises:
        ActionRefused: it takes no approval, or not this person's.
    """
    state = transition(release.flag, release.state, Action.APPROVE)
    position = find_stage(release.plan, stage) if stage is not None else release.position + 1
    if position > len(release.plan.stages):
        raise ActionRefused(release.flag, "approve", "there is no further stage", "finish")
    if position <= release.position:
        raise ActionRefused(release.flag, "approve", f'stage "{stage}" is reached already', "advance")
    wanted = release.plan.stages[position - 1]
    if not wanted.approval:
        raise ActionRefused(release.flag, "approve", f'stage "{wanted.name}" takes no approval', "advance")
    if wanted.approval.people and actor not in wanted.approval.people:
        raise ActionRefused(release.flag, "approve", f'stage "{wanted.name}" is approved {wanted.approval}', "approve")
    people = dict.fromkeys((*release.approvals.get(wanted.name, ()), actor))
    return _next(release, state, approvals={**release.approvals, wanted.name: tuple(people)})


def start(release: Release, stage: str | None, *, now: int, actor: str, force: bool = False) -> Release:
    """Enter the first stage, or the one that is named.

    Raises:
        ActionUnfit: it has started.
        TooEarly, ApprovalMissing, ActionRefused: as `advance`.
    """
    return _enter(release, Action.START, stage, now=now, actor=actor, force=force)


def advance(release: Release, stage: str | None, *, now: int, actor: str, force: bool = False) -> Release:
    """Enter the next stage, or a later one that is named; `force` disregards how long stages last at least.

    Raises:
        ActionUnfit: it has not started.
        TooEarly: the stage that it is at, or one that it would step over, has not lasted its minimum.
        ApprovalMissing: a stage that it would enter takes an approval.
        ActionRefused: there is no such later stage.
    """
    return _enter(release, Action.ADVANCE, stage, now=now, actor=actor, force=force)


def retreat(release: Release, stage: str | None, *, now: int) -> Release:
    """Go back to the stage before, or to an earlier one that is named; from the first one, to nobody.

    Raises:
        ActionUnfit: it is at no stage.
        ActionRefused: the stage is no earlier one.
    """
    transition(release.flag, release.state, Action.RETREAT)
    position = release.position - 1 if stage is None else find_stage(release.plan, stage)
    if position >= release.position:
        cause = f'stage "{stage}" is no earlier one: the release is at stage "{release.stage_name}"'
        raise ActionRefused(release.flag, "retreat", cause, "advance")
    return _back(release, position, now)


def unrelease(release: Release, blocked: Collection[str], to: str | None, *, now: int) -> Release:
    """Take it back: from populations; from all but those up to a stage, or of one population; or from everybody.

    Whatever it was, this only ever takes away. The same release where it takes nothing away.

    Args:
        release: as it stands.
        blocked: the populations; `everybody` is as much as none, which is everybody.
        to: who keeps it: those up to a stage, or a population.
        now: the time (µs).

    Raises:
        ActionRefused: from more populations than can be blocked.
    """
    transition(release.flag, release.state, Action.UNRELEASE)
    blocks = _few(release, "blocks", {*release.blocks, *blocked} - {EVERYBODY})
    changed, position = replace(release, blocks=blocks), None
    if to is not None:
        position = stage_for(release.plan, to)
        if position is None:
            changed = replace(changed, only=_few(release, "limits", {*release.only, to}))
    elif EVERYBODY in blocked or not blocked:
        position = 0
    if position is not None and position < release.position:
        changed = _back(changed, position, now)
    return release if changed == release else replace(changed, revision=release.revision + 1)


def _few(release: Release, what: str, names: Collection[str]) -> tuple[str, ...]:
    """Blocks, or limits, in order, where they are not too many."""
    if len(names) > MAX_BLOCKS:
        raise ActionRefused(release.flag, "unrelease", f"it has {MAX_BLOCKS} {what}, which is the most", "retreat")
    return tuple(sorted(names))


def restore(release: Release, population: str) -> Release:
    """Give it back to a population that it was taken back from, as far as the stages go; or lift the limit to one.

    Raises:
        ActionRefused: it was not taken back from that population.
    """
    state = transition(release.flag, release.state, Action.RESTORE)
    if population in release.blocks:
        return _next(release, state, blocks=tuple(name for name in release.blocks if name != population))
    if population in release.only:
        return _next(release, state, only=tuple(name for name in release.only if name != population))
    blocked = ", ".join(release.blocks) or "none"
    cause = f'it is not un-released from population "{population:.80}"; un-released are: {blocked}'
    if release.only:
        cause += f"; it is limited to {', '.join(release.only)}"
    raise ActionRefused(release.flag, "restore", cause, "advance")


def finish(release: Release, *, actor: str, force: bool = False) -> Release:
    """End it: the flag serves everybody what was released.

    Raises:
        ActionUnfit: it is at no stage.
        ActionRefused: it has not reached everybody, and `force` is not said; or somebody is un-released.
        ApprovalMissing: a stage that it has not reached takes an approval.
    """
    state = transition(release.flag, release.state, Action.FINISH)
    if release.blocks or release.only:
        names = ", ".join([*release.blocks, *(f"all but {name}" for name in release.only)])
        cause = f"it is un-released from {names}: restore them first (or abandon the release)"
        raise ActionRefused(release.flag, "finish", cause, "restore")
    if not force and not any(stage.population is None and stage.share == WHOLE for stage in release.reached):
        cause = f'it is at stage "{release.stage_name}", and not with everybody: advance first, or say --force'
        raise ActionRefused(release.flag, "finish", cause, "advance")
    _check_approvals(release, Action.FINISH, release.plan.stages[release.position :], actor)
    return _next(release, state)


def abandon(release: Release) -> Release:
    """End it: the flag serves everybody the baseline."""
    return _next(release, transition(release.flag, release.state, Action.ABANDON))


def detach(release: Release) -> Release:
    """End it: the flag stays as it is, and is plain."""
    return _next(release, transition(release.flag, release.state, Action.DETACH))


def fitting(release: Release, *, killed: bool) -> list[str]:
    """What may be done with a release as it stands, and with its flag `killed` or not, by the names of commands."""
    ahead = release.plan.stages[release.position :]
    unfit: set[str] = {*GIVING} if killed else set()
    if not ahead:
        unfit |= {Action.START, Action.ADVANCE}
    if not any(stage.approval for stage in ahead):
        unfit.add(Action.APPROVE)
    unfit.add(Action.FINISH if release.blocks or release.only else Action.RESTORE)
    return [name for name in states.fitting(release.state) if name not in unfit]


def find_stage(plan: Plan, name: str) -> int:
    """The position of a stage, counted from 1, by its name or number.

    Raises:
        DefinitionError: the plan has no such stage.
    """
    position = _position(plan, name)
    if position is None:
        stages = ", ".join(stage.name for stage in plan.stages)
        raise DefinitionError(f'plan of flag "{plan.flag}"', "stages", f'none is named "{name:.80}"; it has {stages}')
    return position


def stage_for(plan: Plan, name: str) -> int | None:
    """The position of the stage that is named, or of the last one of the population that is."""
    position = _position(plan, name)
    if position is None:
        positions = [position for position, stage in enumerate(plan.stages, 1) if stage.population == name]
        return positions[-1] if positions else None
    return position


def _position(plan: Plan, name: str) -> int | None:
    for position, stage in enumerate(plan.stages, 1):
        if stage.name == name:
            return position
    return int(name) if name.isdecimal() and 1 <= int(name) <= len(plan.stages) else None


def _enter(release: Release, action: Action, stage: str | None, *, now: int, actor: str, force: bool) -> Release:
    state = transition(release.flag, release.state, action)
    stages = release.plan.stages
    position = release.position + 1 if stage is None else find_stage(release.plan, stage)
    if position > len(stages):
        raise ActionRefused(release.flag, action, f'it is at its last stage, "{release.stage_name}"', "finish")
    if position <= release.position:
        cause = f'stage "{stage}" is reached already: the release is at stage "{release.stage_name}"'
        raise ActionRefused(release.flag, action, cause, "retreat")
    if not force:
        _check_minima(release, action, stages[release.position : position - 1], now)
    _check_approvals(release, action, stages[release.position : position], actor)
    return _next(release, state, position=position, since=now)


def _check_minima(release: Release, action: Action, skipped: Iterable[Stage], now: int) -> None:
    """Refuse to leave a stage that has not lasted its minimum, and to step over one that has any."""
    lasts = max(0.0, (now - release.since) / 1e6)  # a clock may have been set back
    left = release.stage.minimum - lasts if release.stage else 0
    if release.stage and left > 0:
        least = format_duration(release.stage.minimum)
        lasted, rest = format_duration(lasts), format_duration(left)
        raise TooEarly(release.flag, action, release.stage.name, lasted, least, rest)
    for each in skipped:
        if each.minimum:
            least = format_duration(each.minimum)
            raise TooEarly(release.flag, action, each.name, "", least, least)


def _check_approvals(release: Release, action: Action, stages: Iterable[Stage], actor: str) -> None:
    """Refuse to enter stages to which too few others have agreed."""
    for each in stages:
        given = release.approvals.get(each.name, ())
        if len({*given} - {actor}) < each.approval.count:
            named = [
                f"{person}, who is not to be the one who enters it" if person == actor else person for person in given
            ]
            raise ApprovalMissing(release.flag, action, each.name, str(each.approval), " and ".join(named) or "nobody")


def _back(release: Release, position: int, now: int) -> Release:
    state = transition(release.flag, release.state, Action.RETREAT if position else Action.WITHDRAW)
    kept = {stage.name for stage in release.plan.stages[:position]}  # what was left must be agreed to anew
    approvals = {name: people for name, people in release.approvals.items() if name in kept}
    return _next(release, state, position=position, since=now, approvals=approvals)


def _next(release: Release, state: State, **changes: object) -> Release:
    return replace(release, state=state, revision=release.revision + 1, **changes)  # type: ignore[arg-type]  # by its fields' names


def _refuse_another(release: Release, wanted: Plan) -> None:
    before = release.plan
    if (dict(before.released), dict(before.baseline), before.salt) != (
        dict(wanted.released),
        dict(wanted.baseline),
        wanted.salt,
    ):
        cause = "under way, its variants and its salt stay as they are: abandon it, and plan anew"
        raise ActionRefused(release.flag, "plan", cause, "abandon")
    exposes = [(stage.name, stage.population, stage.share) for stage in release.reached]
    if exposes != [(stage.name, stage.population, stage.share) for stage in wanted.stages[: release.position]]:
        cause = f'the stages up to "{release.stage_name}" are reached, and stay as they are'
        raise ActionRefused(release.flag, "plan", cause, "retreat")
