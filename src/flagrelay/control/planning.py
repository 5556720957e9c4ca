"""Storing the plan of a release."""

from itertools import pairwise
from typing import Any

import orjson
from msgspec import field

from flagrelay.control.answers import AnyReason, Key, Request, Revision, Sample
from flagrelay.control.flags import check_revision
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted
from flagrelay.control.stepping import Action, carry_out, original, refuse_killed
from flagrelay.errors import ActionRefused, DefinitionError, FlagMissing
from flagrelay.flags.change import Definition
from flagrelay.flags.definition import MAX_DEFINITION_BYTES, MAX_KEY_LENGTH
from flagrelay.flags.equality import same
from flagrelay.release import actions
from flagrelay.release.actions import MAX_BLOCKS
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import Plan, check_plan, check_variants
from flagrelay.release.sample import telling
from flagrelay.release.standing import Release
from flagrelay.release.states import State
from flagrelay.store.reading import (
    FlagEntry,
    ReleaseEntry,
    read_about,
    read_clock,
    read_flag_release,
)

ROOM = 2 * MAX_BLOCKS * (4 * MAX_KEY_LENGTH + 32) + 1024
"""Bytes that un-releases may add to a flag, and that are kept for them: a block, or a limit, for each name."""


class PutPlan(Request, kw_only=True):
    """A plan for a flag.

    `replace_targeting` lets it replace targeting that the flag has of its own. With `preview` nothing is written, and
    the answer says what would be. `if_flag_revision` is the flag's revision, as a preview had it; 0: it is not there.
    """

    key: Key
    plan: dict[str, Any]
    replace_targeting: bool = False
    preview: bool = False
    sample: Sample = field(default_factory=list)
    reason: AnyReason = ""
    if_revision: Revision | None = None
    if_flag_revision: Revision | None = None


async def put_plan(session: Session, request: PutPlan) -> Acted:
    """Store the plan of a release: the flag then serves its baseline to everybody, until the release is started."""
    plan = plan_for(request.key, request.plan)
    store, environment = session.store, session.environment
    flag, entry = await read_flag_release(store, environment, plan.flag)
    base = _base_of_plan(environment, plan, flag, entry, replace=request.replace_targeting)
    check_variants(plan, base["variants"])
    check_revision(f'release "{plan.flag}"', request.if_revision, entry.revision if entry else 0)
    check_revision(f'flag "{plan.flag}"', request.if_flag_revision, flag.revision if flag else 0)
    release = actions.plan(entry.release if entry else None, plan, await read_clock(store, environment))
    refuse_killed(flag)
    _check_room(release.plan, base)
    action = Action(
        "plan",
        lambda _release, _now: release,
        request.reason,
        detail={"plan": plan.as_json()},
        notes=[
            *_of_what_is_served(plan, flag, entry),
            *_of_values(plan, flag),
            *_of_what_is_withheld(release),
            *_of_what_cannot_be_counted(plan),
            *await _order_of_risk(session, plan),
        ],
    )
    return await carry_out(session, request, action, (flag, entry), (release, compile_release(release, base)))


def plan_for(key: str, document: object) -> Plan:
    """The plan that a document is, of the release of one flag.

    Raises:
        DefinitionError: it is none.
        ActionRefused: it is another flag's.
    """
    plan = check_plan(document)
    if plan.flag != key:
        raise ActionRefused(key, "plan", f'the plan is for flag "{plan.flag}"', "plan")
    return plan


def _of_what_is_served(plan: Plan, flag: FlagEntry | None, entry: ReleaseEntry | None) -> list[str]:
    """That a plain flag gives everybody what the plan neither releases nor takes for the baseline."""
    if flag is None or entry is not None:
        return []
    if flag.definition["state"] == "DISABLED":
        return ["the flag is switched off now, so that callers take their own default: they will have the baseline"]
    default = flag.definition.get("defaultVariant")
    if default is None or default in plan.released or default in plan.baseline:
        return []
    return [f'the flag serves "{default}" now, which the plan does not: everybody will have the baseline']


def _of_values(plan: Plan, flag: FlagEntry | None) -> list[str]:
    """That variants keep their names, and get other values."""
    return [f'variant "{name}" gets another value: whoever has it has that at once' for name in _revalued(plan, flag)]


def _of_what_is_withheld(release: Release) -> list[str]:
    """From whom the flag stays taken, whatever the stages say."""
    withheld = [f"un-released from {name}" for name in release.blocks]
    withheld += [f"limited to {name}" for name in release.only]
    return [f"it stays {' and '.join(withheld)}, whatever its stages give"] if withheld else []


def _of_what_cannot_be_counted(plan: Plan) -> list[str]:
    if telling(plan):
        return []
    return ["released and baseline have the same variants, in other shares: who has what is released is not counted"]


def _revalued(plan: Plan, flag: FlagEntry | None) -> list[str]:
    """The variants of a plan that have another value than the flag has now."""
    if flag is None or plan.variants is None:
        return []
    before = original(flag)["variants"]
    return [name for name, value in plan.variants.items() if name in before and not same(value, before[name])]


def _check_room(plan: Plan, base: Definition) -> None:
    """Refuse a plan that could not be entered, or not be taken back, since its flag would be too large.

    Raises:
        DefinitionError: it is that large.
    """
    stages = range(len(plan.stages) + 1)
    largest = max(
        len(orjson.dumps(compile_release(Release(plan, State.RUNNING, at) if at else Release(plan), base)))
        for at in stages
    )
    if largest > MAX_DEFINITION_BYTES - ROOM:
        cause = f"its flag would have up to {largest} bytes as JSON; the most is {MAX_DEFINITION_BYTES - ROOM}"
        raise DefinitionError(f'plan of flag "{plan.flag}"', "", f"{cause}, so that it can be un-released from anybody")


async def _order_of_risk(session: Session, plan: Plan) -> list[str]:
    """Where stages do not come in the order of the risks of their populations."""
    about = await read_about(session.store, session.environment)
    risks = [(stage.name, about.get(stage.population or "", {}).get("risk")) for stage in plan.stages]
    known = [(name, risk) for name, risk in risks if risk is not None]
    return [
        f'stage "{before}" (risk {high}) comes before stage "{after}" (risk {low}): less risk is released to first'
        for (before, high), (after, low) in pairwise(known)
        if high > low
    ]


def _base_of_plan(
    environment: str, plan: Plan, flag: FlagEntry | None, entry: ReleaseEntry | None, *, replace: bool
) -> Definition:
    """What a plan is applied to: the flag as it is, or a new one of the variants that the plan names."""
    if flag is None:
        if plan.variants is None:
            raise FlagMissing(environment, plan.flag, "`variants` in the plan creates it")
        return {"variants": dict(plan.variants)}
    base = original(flag)
    if entry and entry.release.state is not State.PLANNED and (others := _revalued(plan, flag)):
        cause = f'under way, variant "{others[0]}" keeps its value: abandon it, and plan anew'
        raise ActionRefused(plan.flag, "plan", cause, "abandon")
    if entry is None and base.get("targeting") and not replace:
        cause = "the flag has targeting of its own, which the release would replace: say --replace-targeting"
        raise ActionRefused(plan.flag, "plan", cause, "plan")
    return {**base, "variants": dict(plan.variants)} if plan.variants is not None else base
