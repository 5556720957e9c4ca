"""Storing the plan of a release."""

from itertools import pairwise
from typing import Any

from msgspec import field

from flagrelay.control.answers import AnyReason, Key, Request, Revision, Sample
from flagrelay.control.flags import check_revision
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted
from flagrelay.control.stepping import Action, carry_out, original, refuse_killed
from flagrelay.errors import ActionRefused, FlagMissing
from flagrelay.flags.change import Definition
from flagrelay.release import actions
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import Plan, check_plan, check_variants
from flagrelay.store.reading import (
    FlagEntry,
    ReleaseEntry,
    read_about,
    read_clock,
    read_flag_release,
)


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


async def put_plan(session: Session, request: PutPlan) -> Acted:
    """Store the plan of a release: the flag then serves its baseline to everybody, until the release is started."""
    plan = plan_for(request.key, request.plan)
    store, environment = session.store, session.environment
    flag, entry = await read_flag_release(store, environment, plan.flag)
    base = _base_of_plan(environment, plan, flag, entry, replace=request.replace_targeting)
    check_variants(plan, base["variants"])
    check_revision(f'release "{plan.flag}"', request.if_revision, entry.revision if entry else 0)
    release = actions.plan(entry.release if entry else None, plan, await read_clock(store, environment))
    refuse_killed(flag)
    action = Action(
        "plan",
        lambda _release, _now: release,
        request.reason,
        detail={"plan": plan.as_json()},
        notes=[*_of_another_variant(plan, flag, entry), *await _order_of_risk(session, plan)],
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


def _of_another_variant(plan: Plan, flag: FlagEntry | None, entry: ReleaseEntry | None) -> list[str]:
    """That a plain flag gives everybody what the plan neither releases nor takes for the baseline."""
    default = flag.definition.get("defaultVariant") if flag and entry is None else None
    if default is None or default in plan.released or default in plan.baseline:
        return []
    return [f'the flag serves "{default}" now, which the plan does not: everybody will have the baseline']


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
            raise FlagMissing(environment, plan.flag)
        return {"variants": dict(plan.variants)}
    base = original(flag)
    if entry is None and base.get("targeting") and not replace:
        cause = "the flag has targeting of its own, which the release would replace: say --replace-targeting"
        raise ActionRefused(plan.flag, "plan", cause, "plan")
    return {**base, "variants": dict(plan.variants)} if plan.variants is not None else base
