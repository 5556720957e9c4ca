"""Whom a release exposes, scope by scope, and who gains and who loses between two standings of it.

Exact, and by name; how many people that are, where it can be known, `sample` counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flagrelay.release.compiler import shares
from flagrelay.release.plan import EVERYBODY, WHOLE, percent
from flagrelay.release.standing import Release
from flagrelay.release.states import State

UNRELEASED = "un-released"


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a scope, a population or everybody else, has of a release.

    Args:
        scope: whose.
        share: what the stages give to it (of `WHOLE`), whether or not it is withheld.
        withheld: why it has nothing all the same: it is un-released, or the release is limited to others.
        within: populations that the release is limited to beside it: who is not in all of them has nothing.
    """

    scope: str
    share: int
    withheld: str = ""
    within: tuple[str, ...] = ()

    @property
    def effective(self) -> int:
        """What it has."""
        return 0 if self.withheld else self.share

    def __str__(self) -> str:
        """For people."""
        if self.withheld or not self.share:
            return self.withheld or "none"
        share = "all" if self.share == WHOLE else percent(self.share)
        return f"{share} of those in {' and '.join(self.within)}" if self.within else share


def exposures(release: Release) -> dict[str, Exposure]:
    """What each population that the release names has, and everybody else, by scope; everybody else comes last."""
    names = [*release.plan.populations, *release.only, *release.blocks]
    return _exposures(release, names)


def _exposures(release: Release, names: Iterable[str]) -> dict[str, Exposure]:
    whole, some, everybody = shares(release)
    if release.state in (State.FINISHED, State.ABANDONED):
        whole, some, everybody = [], {}, WHOLE if release.state is State.FINISHED else 0
    found = {}
    for name in dict.fromkeys(names):
        share = WHOLE if name in whole else max(some.get(name, 0), everybody)
        within = tuple(other for other in release.only if other != name)
        found[name] = Exposure(name, share, UNRELEASED if name in release.blocks else "", within)
    limited = f"limited to {' and '.join(release.only)}" if release.only else ""
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
        """Whether somebody of it may get what was released."""
        return _more(self.before, self.after)

    @property
    def loses(self) -> bool:
        """Whether somebody of it may get the baseline again."""
        return _more(self.after, self.before)

    def __str__(self) -> str:
        """For people: `beta: none → 50 %`."""
        return f"{self.scope}: {self.before} → {self.after}"


def _more(less: Exposure, more: Exposure) -> bool:
    """Whether somebody has it with the one and not with the other.

    Un-released, those of a population who are in others as well have lost what they had through those.
    """
    if more.effective > less.effective or (less.withheld == UNRELEASED != more.withheld):
        return True
    return bool(more.effective and set(less.within) - set(more.within))


def shifts(before: Release | None, after: Release) -> list[Shift]:
    """How each scope's exposure changes; those that keep what they have are left out."""
    named = [*exposures(after), *(exposures(before) if before else ())]
    names = [name for name in named if name != EVERYBODY]
    then = _exposures(before, names) if before else {}
    found = []
    for scope, now in _exposures(after, names).items():
        shift = Shift(then.get(scope, Exposure(scope, 0)), now)
        if shift.gains or shift.loses or shift.before.withheld != now.withheld:
            found.append(shift)
    return found
