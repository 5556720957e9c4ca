"""The immutable state of one environment at one revision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.errors import HistoryError
from flagrelay.flags.change import Change, Definition, Rule
from flagrelay.flags.position import Position


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All flags and populations of one environment at one position of its history."""

    position: Position
    flags: Mapping[str, Definition] = field(default_factory=dict)
    evaluators: Mapping[str, Rule] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def with_change(self, change: Change) -> "Snapshot":
        """The snapshot one change later; this one stays as it is.

        Raises:
            HistoryError: the change is not the next one of this history.
        """
        if (change.epoch, change.revision, change.previous) != (
            self.position.epoch,
            self.position.revision + 1,
            self.position.nonce,
        ):
            raise HistoryError(
                f"change {change.epoch}.{change.revision} (after nonce {change.previous!r}) does not follow "
                f"{self.position.epoch}.{self.position.revision} (nonce {self.position.nonce!r})"
            )
        return Snapshot(
            position=change.position,
            flags=_merged(self.flags, change.flags),
            evaluators=_merged(self.evaluators, change.evaluators),
            metadata=self.metadata if change.metadata is None else change.metadata,
        )


def _merged(entries: Mapping[str, Any], patch: Mapping[str, Any]) -> Mapping[str, Any]:
    if not patch:
        return entries
    merged = dict(entries)
    for name, entry in patch.items():
        if entry is None:
            merged.pop(name, None)
        else:
            merged[name] = entry
    return merged
