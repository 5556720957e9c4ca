"""What an import would change: the difference between a file and an environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.definition import FlagSet
from flagrelay.flags.equality import same
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

    def draft(self, *, actor: str, reason: str) -> Draft:
        """The edit that makes it true, unless somebody changes one of the entries first."""
        return Draft(
            flags=self.flags,
            evaluators=self.evaluators,
            metadata=self.metadata,
            expected_flags=self.flag_revisions,
            expected_evaluators=self.evaluator_revisions,
            actor=actor,
            reason=reason,
        )

    def summary(self) -> dict[str, Any]:
        """Which flags and populations it touches, and how."""
        return {
            "added": sorted(key for key, revision in self.flag_revisions.items() if not revision),
            "replaced": sorted(
                key for key, flag in self.flags.items() if self.flag_revisions[key] and flag is not None
            ),
            "deleted": sorted(key for key, flag in self.flags.items() if flag is None),
            "populations": sorted(self.evaluators),
            "metadata": self.metadata is not None,
            "unchanged": self.unchanged,
        }

    def __str__(self) -> str:
        """One line for people."""
        summary = self.summary()
        parts = [f"{len(summary[name])} {name}" for name in ("added", "replaced", "deleted")]
        parts.append(f"{self.unchanged} unchanged")
        if self.evaluators:
            parts.append(f"{len(self.evaluators)} populations")
        if self.metadata is not None:
            parts.append("metadata")
        return "flags: " + ", ".join(parts)


def plan_import(state: State, wanted: FlagSet, *, prune: bool, over_kills: bool = False) -> Plan:
    """What changes where an environment is to hold what a file says; with `prune`, nothing else.

    A killed flag whose original the file has is left as it is, unless `over_kills`: the file knows nothing of the
    kill, and neither brings the flag back nor keeps the rest from being imported.
    """
    flags: dict[str, Definition | None] = {
        key: flag
        for key, flag in wanted.flags.items()
        if key not in state.flags or not _stands(state.flags[key], flag, over_kills=over_kills)
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


def _stands(entry: FlagEntry, flag: Definition, *, over_kills: bool) -> bool:
    if entry.killed and not over_kills and same(entry.killed.original, flag):
        return True
    return same(entry.definition, flag)
