"""How a release stands, and what an action did to it: the answers of operations on releases."""

from typing import Any

from msgspec import Struct

from flagrelay.control.answers import Change, Killed, killed_of
from flagrelay.control.effect import Effect
from flagrelay.release.actions import fitting
from flagrelay.release.exposure import exposures
from flagrelay.release.plan import WHOLE
from flagrelay.release.standing import Release
from flagrelay.store.reading import FlagEntry, ReleaseEntry


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

    The release after it, who gains and loses, the flag that it compiles to and that flag's revision (0: it is not there
    yet), and the change that was written; null for a preview. `notes` are sentences about what is allowed, and may not
    be meant.
    """

    release: ReleaseAnswer
    effect: Effect
    notes: list[str]
    definition: dict[str, Any]
    flag_revision: int
    change: Change | None


def exposed_of(release: Release) -> list[Exposed]:
    """What each population, and everybody else, has of a release."""
    return [
        Exposed(scope=each.scope, percent=each.effective * 100 / WHOLE, shown=str(each))
        for each in exposures(release).values()
    ]


def answer_of(entry: ReleaseEntry, flag: FlagEntry | None) -> ReleaseAnswer:
    """How a release stands that is stored, with its flag."""
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
        fitting=fitting(release, killed=bool(flag and flag.killed)),
    )
