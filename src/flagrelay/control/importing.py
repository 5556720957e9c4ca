"""The difference between a file and an environment."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.definition import FlagSet
from flagrelay.flags.equality import same
from flagrelay.release.compiler import REVISION, STAGE
from flagrelay.store.reading import FlagEntry, State
from flagrelay.store.writing import Draft


@dataclass(frozen=True, slots=True)
class Plan:
    """A difference: what each touched flag and population becomes (None: deleted), and from which revision."""

    flags: Mapping[str, Definition | None]
    evaluators: Mapping[str, Rule | None]
    metadata: Mapping[str, Any] | None
    flag_revisions: Mapping[str, int]
    evaluator_revisions: Mapping[str, int]
    unchanged: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to change."""
        return not self.flags and not self.evaluators and self.metadata is None

    def without(self, flags: Collection[str], evaluators: Collection[str]) -> "Plan":
        """The same, but for some flags and populations."""
        return replace(
            self,
            flags={key: flag for key, flag in self.flags.items() if key not in flags},
            evaluators={name: rule for name, rule in self.evaluators.items() if name not in evaluators},
        )

    def draft(self, **more: Any) -> Draft:  # noqa: ANN401 - whatever else a draft takes
        """The edit that makes it true, unless somebody changes one of the entries first."""
        return Draft(
            flags=self.flags,
            evaluators=self.evaluators,
            metadata=self.metadata,
            expected_flags=self.flag_revisions,
            expected_evaluators=self.evaluator_revisions,
            **more,
        )


def plan_import(state: State, wanted: FlagSet, *, prune: bool) -> Plan:
    """What changes where an environment is to hold what a file says; with `prune`, nothing else.

    A killed flag whose original the file has is left as it is: the file knows nothing of the kill, and neither brings
    the flag back nor keeps the rest from being imported. So is a flag that has a release, where the file has what that
    compiles to.
    """
    flags: dict[str, Definition | None] = {
        key: flag for key, flag in wanted.flags.items() if not _stands(state, key, flag)
    }
    evaluators: dict[str, Rule | None] = {
        name: rule
        for name, rule in wanted.evaluators.items()
        if name not in state.evaluators or not same(state.evaluators[name][1], rule)
    }
    metadata: Mapping[str, Any] | None = wanted.metadata if wanted.metadata or prune else None
    if prune:
        flags |= dict.fromkeys(state.flags.keys() - wanted.flags.keys())
        evaluators |= dict.fromkeys(state.evaluators.keys() - wanted.evaluators.keys())
    return Plan(
        flags=flags,
        evaluators=evaluators,
        metadata=metadata if metadata is not None and not same(metadata, state.metadata) else None,
        flag_revisions={key: state.flags[key].revision if key in state.flags else 0 for key in flags},
        evaluator_revisions={name: state.evaluators[name][0] if name in state.evaluators else 0 for name in evaluators},
        unchanged=len(wanted.flags.keys() - flags.keys()),
    )


def written_over(state: State, flags: Mapping[str, Definition | None]) -> State:
    """An environment once some flags are written: their kills and releases have ended. For who uses what then."""
    kept = {key: entry for key, entry in state.flags.items() if key not in flags}
    kept |= {key: FlagEntry(key, 0, flag) for key, flag in flags.items() if flag is not None}
    releases = {key: entry for key, entry in state.releases.items() if key not in flags}
    return replace(state, flags=kept, releases=releases)


def _stands(state: State, key: str, flag: Definition) -> bool:
    """Whether an environment holds a flag as a file has it."""
    entry = state.flags.get(key)
    if entry is None:
        return False
    held = [entry.definition, *([entry.killed.original] if entry.killed else [])]
    if key in state.releases:
        return any(same(_without_stage(each), _without_stage(flag)) for each in held)
    return any(same(each, flag) for each in held)


def _without_stage(flag: Definition) -> Definition:
    """A flag without what its metadata say of its release: that is no setting, but a note of where it stands."""
    metadata = {name: value for name, value in flag.get("metadata", {}).items() if name not in (STAGE, REVISION)}
    rest = {name: value for name, value in flag.items() if name != "metadata"}
    return {**rest, "metadata": metadata} if metadata else rest
