"""Whom a release exposes, scope by scope, and who gains and who loses between two standings of it.

Exact, and by name; how many people that are, where it can be known, `sample` counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flagrelay.release.compiler import shares
from flagrelay.release.plan import WHOLE, percent
from flagrelay.release.standing import Release
from flagrelay.release.states import State

EVERYBODY = "everybody"
"""The scope of who is in no population that the release names."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a scope, a population or everybody else, has of a release.

    `share` (of `WHOLE`) is what the stages give to those of it whom nothing withholds it from; `withheld` says what
    does: that it is un-released, or that the release is limited to others.
    """

    scope: str
    share: int
    withheld: str = ""

    @property
    def effective(self) -> int:
        """What it has."""
        return 0 if self.withheld else self.share

    def __str__(self) -> str:
        """For people."""
        if self.withheld:
            return self.withheld
        return "all" if self.share == WHOLE else percent(self.share) if self.share else "none"


def exposures(release: Release) -> dict[str, Exposure]:
    """What each population that the release names has, and everybody else, by scope; everybody else comes last."""
    whole, some, everybody = shares(release)
    if release.state in (State.FINISHED, State.ABANDONED):
        whole, some, everybody = [], {}, WHOLE if release.state is State.FINISHED else 0
    found = {}
    names = [*release.plan.populations, *release.only, *release.blocks]
    for name in dict.fromkeys(names):
        share = WHOLE if name in whole else max(some.get(name, 0), everybody)
        others = [other for other in release.only if other != name]
        limited = f"limited to {', '.join(others)}" if others else ""
        found[name] = Exposure(name, share, "un-released" if name in release.blocks else limited)
    limited = f"limited to {', '.join(release.only)}" if release.only else ""
    found[EVERYBODY] = Exposure(EVERYBODY, everybody, limited)
    return found


@dataclass(frozen=True, slots=True)
class Shift:
    """How a scope's exposure changes."""

    before: Exposure
    after: Exposure

    @property
    def scope(self) -> str:
        """Whose."""
        return self.after.scope

    @property
    def gains(self) -> bool:
        """Whether somebody of it gets what was released."""
        return self.after.effective > self.before.effective

    @property
    def loses(self) -> bool:
        """Whether somebody of it gets the baseline again."""
        return self.after.effective < self.before.effective

    def __str__(self) -> str:
        """For people: `beta: none → 50 %`."""
        return f"{self.scope}: {self.before} → {self.after}"


def shifts(before: Release | None, after: Release) -> list[Shift]:
    """How each scope's exposure changes; those that keep what they have are left out."""
    then: Mapping[str, Exposure] = exposures(before) if before else {}
    rest = then.get(EVERYBODY, Exposure(EVERYBODY, 0))
    found = []
    for scope, now in exposures(after).items():
        had = then.get(scope, Exposure(scope, rest.share, rest.withheld))
        if (had.effective, had.withheld) != (now.effective, now.withheld):
            found.append(Shift(had, now))
    return found
