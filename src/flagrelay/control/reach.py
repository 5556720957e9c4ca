"""How many people each stage of a release reaches: exact where they can be counted, else over a sample."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from flagrelay.control.answers import Key, Request, Sample
from flagrelay.control.planning import plan_for
from flagrelay.control.session import Session
from flagrelay.control.standing import Exposed, exposed_of
from flagrelay.control.stepping import held_release
from flagrelay.flags.change import Rule
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release.compiler import compile_release
from flagrelay.release.population import keys_of
from flagrelay.release.sample import count, telling
from flagrelay.release.standing import Release
from flagrelay.release.states import State
from flagrelay.store.reading import read_flag_snapshot


class CountReach(Request, kw_only=True):
    """Of which flag's release, or of which plan for it; counted over which contexts."""

    key: Key
    plan: dict[str, Any] | None = None
    sample: Sample = field(default_factory=list)


class KeysReach(Struct, kw_only=True):
    """How many of the targeting keys that a population lists have what is released."""

    population: str
    keys: int
    have: int


class StageReach(Struct, kw_only=True):
    """What everybody has at a stage, and how many of the contexts that were counted over; and of listed keys."""

    stage: str
    exposures: list[Exposed]
    have: int
    keys: list[KeysReach]


class Reach(Struct, kw_only=True):
    """What each stage reaches, as if nothing were taken back; and what the release reaches as it stands.

    `over` says what was counted over: a `sample`, the contexts of open `streams`, or nothing; `contexts` how many.
    Nobody is counted where baseline and released have the same variants, which do not tell who has what.
    """

    over: str
    contexts: int
    stages: list[StageReach]
    now: StageReach | None


async def count_reach(session: Session, request: CountReach) -> Reach:
    """Count how many people each stage of a release reaches, or each stage of a plan."""
    if request.plan is None:
        _, entry = await held_release(session, request.key)
        plan, now = entry.release.plan, entry.release
    else:
        plan, now = plan_for(request.key, request.plan), None
    held = await read_flag_snapshot(session.store, session.environment, request.key)
    variants = (
        plan.variants
        or held.flags.get(request.key, {}).get("variants")
        or dict.fromkeys((*plan.released, *plan.baseline), "")
    )
    over = "sample" if request.sample else "streams"
    contexts: Sequence[Mapping[str, Any]] = [*request.sample] or [*session.contexts()]
    lists = _lists(held.evaluators, plan.populations)
    if not telling(plan):
        contexts, lists = [], {}
    counting = _Counting(held, variants, contexts, lists)
    releases = [Release(plan, State.RUNNING, position) for position in range(1, len(plan.stages) + 1)]
    stages = [await asyncio.to_thread(counting.at, release) for release in releases]
    return Reach(
        over=over if contexts else "",
        contexts=len(contexts),
        stages=stages,
        now=await asyncio.to_thread(counting.at, now) if now else None,
    )


class _Counting:
    """What is counted over, read once for all stages."""

    def __init__(
        self,
        held: Snapshot,
        variants: Mapping[str, Any],
        contexts: Sequence[Mapping[str, Any]],
        lists: Mapping[str, Sequence[str]],
    ) -> None:
        self._held = held
        self._variants = variants
        self._contexts = contexts
        self._lists = lists

    def at(self, release: Release) -> StageReach:
        flags = {release.flag: compile_release(release, {"variants": self._variants})}
        held = self._held
        snapshot = held.reloaded(held.position, flags, held.evaluators, held.metadata, held.settings)

        def have(contexts: Iterable[Mapping[str, Any]]) -> int:
            return count(release.flag, telling(release.plan), None, snapshot, contexts).after

        return StageReach(
            stage=release.stage_name,
            exposures=exposed_of(release),
            have=have(self._contexts),
            keys=[
                KeysReach(population=name, keys=len(keys), have=have({"targetingKey": key} for key in keys))
                for name, keys in self._lists.items()
            ],
        )


def _lists(evaluators: Mapping[str, Rule], names: Iterable[str]) -> dict[str, list[str]]:
    found = {name: keys_of(evaluators.get(name)) for name in names}
    return {name: keys for name, keys in found.items() if keys}
