"""Who gains and who loses by an action on a release: exact by scope, and counted where people can be counted.

Counting takes its time, so it is done in a thread: a relay that is asked goes on streaming meanwhile.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from flagrelay.control.session import Session
from flagrelay.flags.change import Definition
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release.exposure import Shift, shifts
from flagrelay.release.plan import EVERYBODY, Plan
from flagrelay.release.population import keys_of
from flagrelay.release.sample import Count, count, telling
from flagrelay.release.standing import Release
from flagrelay.store.reading import read_flag_snapshot


class Counted(Struct, kw_only=True):
    """Of so many contexts, how many have what is released before and after, and how many gain and lose it.

    `over` says what they are: a `sample` that was given, those of open `streams`, or all `keys` of a population.
    """

    over: Literal["sample", "streams", "keys"]
    contexts: int
    before: int
    after: int
    gain: int
    lose: int


class ScopeShift(Struct, kw_only=True):
    """How the exposure of a population, or of everybody else, changes; counted where it is a list of targeting keys."""

    scope: str
    before: str
    after: str
    gains: bool
    loses: bool
    counted: Counted | None = None


class Effect(Struct, kw_only=True):
    """What an action does: how exposures change, and how many people that are, as far as is known."""

    shifts: list[ScopeShift]
    counted: Counted | None = None


def exact_effect(before: Release | None, after: Release, flag: Definition | None) -> Effect:
    """What is known without looking at anybody; `flag` is what was served before, where there was a flag."""
    plain = _taken_from_plain(flag, after.plan) if flag and before is None else []
    return Effect(shifts=[*plain, *(_shift(shift) for shift in shifts(before, after))])


def _taken_from_plain(flag: Definition, plan: Plan) -> list[ScopeShift]:
    """What a plain flag has given that becomes a release: whoever it was, they have the baseline from now on."""
    if flag.get("state") != "ENABLED":
        return []
    if flag.get("targeting"):
        before = "whom its own targeting says"
    elif flag.get("defaultVariant") in telling(plan):
        before = "all"
    else:
        return []
    return [ScopeShift(scope=EVERYBODY, before=before, after="none", gains=False, loses=True)]


async def counted_effect(
    session: Session,
    before: tuple[Release | None, Definition | None],
    after: tuple[Release, Definition],
    sample: Sequence[Mapping[str, Any]] | None,
) -> Effect:
    """The same, with people counted: those of a sample, or else of open streams; and the keys of populations.

    Args:
        session: who asks, and where.
        before: the release and the flag as it is served; None for what there is not.
        after: the same as they are to be.
        sample: contexts to count over.
    """
    release, definition = after
    effect = exact_effect(before[0], release, before[1])
    released = telling(release.plan)
    if not released:
        return effect
    held = await read_flag_snapshot(session.store, session.environment, release.flag)
    then, now = (_with(held, release.flag, each) for each in (before[1], definition))

    async def counted(over: Literal["sample", "streams", "keys"], contexts: Iterable[Mapping[str, Any]]) -> Counted:
        found = await asyncio.to_thread(count, release.flag, released, then, now, contexts)
        return _counted(over, found)

    for shift in effect.shifts:
        keys = keys_of(held.evaluators.get(shift.scope))
        if keys:
            shift.counted = await counted("keys", ({"targetingKey": key} for key in keys))
    if sample:
        effect.counted = await counted("sample", sample)
    else:
        streams = await counted("streams", session.contexts())
        effect.counted = streams if streams.contexts else None
    return effect


def _with(held: Snapshot, key: str, definition: Definition | None) -> Snapshot | None:
    if definition is None:
        return None
    flags = {key: definition}
    return held.reloaded(held.position, flags, held.evaluators, held.metadata, held.settings)


def _shift(shift: Shift) -> ScopeShift:
    return ScopeShift(
        scope=shift.scope,
        before=str(shift.before),
        after=str(shift.after),
        gains=shift.gains,
        loses=shift.loses,
    )


def _counted(over: Literal["sample", "streams", "keys"], found: Count) -> Counted:
    return Counted(
        over=over,
        contexts=found.contexts,
        before=found.before,
        after=found.after,
        gain=found.gain,
        lose=found.lose,
    )
