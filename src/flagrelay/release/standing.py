"""A release as it stands: its plan, its position, and from whom it was taken back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.errors import DefinitionError
from flagrelay.release.plan import Plan, Stage, check_plan
from flagrelay.release.states import State

DARK = "dark"
"""What is said for a stage where none is reached."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a flag.

    Args:
        plan: what is to go to whom.
        state: how it stands.
        position: how many of the plan's stages are reached; 0 for none.
        blocks: populations that it was taken back from, by name; each beats every stage and percentage.
        only: populations that it was taken back to: whoever is not in all of them has the baseline.
        revision: how often it was written; a flag's metadata carry it.
        since: when its position was reached (µs since 1970, Redis's clock).
        approvals: who agreed to enter which stage, by the stage's name.
    """

    plan: Plan
    state: State = State.PLANNED
    position: int = 0
    blocks: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    revision: int = 1
    since: int = 0
    approvals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        """The key of its flag."""
        return self.plan.flag

    @property
    def reached(self) -> tuple[Stage, ...]:
        """The stages that are reached, in order."""
        return self.plan.stages[: self.position]

    @property
    def stage(self) -> Stage | None:
        """The stage that it is at."""
        return self.reached[-1] if self.position else None

    @property
    def stage_name(self) -> str:
        """The name of that, or `dark`."""
        return self.stage.name if self.stage else DARK

    @property
    def populations(self) -> tuple[str, ...]:
        """Every population that it names: they may not be deleted."""
        return tuple(sorted({*self.plan.populations, *self.blocks, *self.only}))

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "plan": self.plan.as_json(),
            "state": self.state.value,
            "position": self.position,
            "blocks": list(self.blocks),
            "only": list(self.only),
            "revision": self.revision,
            "since": self.since,
            "approvals": {name: list(people) for name, people in self.approvals.items()},
            "populations": list(self.populations),
        }


def read_release(document: Mapping[str, Any]) -> Release:
    """A release as it is stored. By name, so that what a later version adds is nothing to stumble over.

    Raises:
        DefinitionError: it is none.
    """
    try:
        release = Release(
            plan=check_plan(document["plan"]),
            state=State(document["state"]),
            position=int(document["position"]),
            blocks=_texts(document["blocks"]),
            only=_texts(document["only"]),
            revision=int(document["revision"]),
            since=int(document["since"]),
            approvals={name: _texts(people) for name, people in document["approvals"].items()},
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DefinitionError("release", "", f"not as it was stored: {error!r:.200}") from error
    if not 0 <= release.position <= len(release.plan.stages):
        raise DefinitionError("release", "position", "beyond the stages of its plan")
    if release.position == 0 and release.state in (State.RUNNING, State.FINISHED):
        raise DefinitionError("release", "position", f"a release that is {release.state} is at a stage")
    if release.position and release.state in (State.PLANNED, State.WITHDRAWN):
        raise DefinitionError("release", "position", f"a release that is {release.state} is at no stage")
    return release


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{value!r:.80} is no list of texts")
    return tuple(value)
