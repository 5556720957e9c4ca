"""The immutable state of one environment at one revision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.errors import HistoryError
from flagrelay.flags.change import Change, Definition, Rule
from flagrelay.flags.compiled import NOTHING, Compiled, Source, compile_all, compile_changed, compile_like
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.local_kill import LocalKill, mark_of
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import ErrorCode, Reason, Resolution


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All flags and populations of one environment at one position of its history, ready to be resolved.

    `mark` tells which local kills are on top of what Redis has there; empty for none.
    """

    position: Position
    flags: Mapping[str, Definition] = field(default_factory=dict)
    evaluators: Mapping[str, Rule] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    settings: EnvironmentSettings = field(default_factory=EnvironmentSettings)
    mark: str = ""
    compiled: Compiled = field(default=NOTHING, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile what nobody has compiled yet."""
        if self.compiled is NOTHING:
            source = self._source
            object.__setattr__(self, "compiled", compile_all(source))

    @property
    def _source(self) -> Source:
        return Source(self.flags, self.evaluators, self.metadata, self.settings)

    def resolve(self, flag_key: str, context: Any) -> Resolution:
        """What a flag says for a context: an object with `targetingKey` and attributes. Raises nothing."""
        try:
            flag = self.compiled.flags[flag_key]
        except (KeyError, TypeError):  # there is none, or what was asked for can be no key
            return self.not_found(flag_key)
        return flag.resolve(context)

    def not_found(self, flag_key: object) -> Resolution:
        """The resolution of a flag that there is not."""
        shown = (flag_key if isinstance(flag_key, str) else repr(flag_key)).encode(errors="replace").decode()
        message = f'there is no flag "{shown:.256}"'
        return Resolution(shown, None, None, Reason.ERROR, ErrorCode.FLAG_NOT_FOUND, message, self.metadata)

    def reloaded(
        self,
        position: Position,
        flags: Mapping[str, Definition],
        evaluators: Mapping[str, Rule],
        metadata: Mapping[str, Any],
        settings: EnvironmentSettings,
    ) -> "Snapshot":
        """A snapshot of what was read anew. What is the same in this one is not compiled again."""
        source = Source(flags, evaluators, metadata, settings)
        return Snapshot(position, *source, compiled=compile_like(self.compiled, self._source, source))

    def with_change(self, change: Change) -> "Snapshot":
        """The snapshot one change later; this one stays as it is. What the change does not touch is not compiled again.

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
        source = Source(
            _merged(self.flags, change.flags),
            _merged(self.evaluators, change.evaluators),
            self.metadata if change.metadata is None else change.metadata,
            self.settings if change.settings is None else change.settings,
        )
        compiled = compile_changed(self.compiled, change, source)
        return Snapshot(change.position, *source, compiled=compiled)

    def with_kills(self, kills: Mapping[str, LocalKill]) -> "Snapshot":
        """The same position as one relay shows it that holds kills of its own; this snapshot where there are none."""
        if not kills:
            return self
        killed = {key: kill.applied(self.flags[key]) for key, kill in kills.items() if key in self.flags}
        source = self._source._replace(flags={**self.flags, **killed})
        compiled = compile_changed(self.compiled, Change(*self.position, previous="", at=0, flags=killed), source)
        return Snapshot(self.position, *source, mark=mark_of(kills), compiled=compiled)


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
