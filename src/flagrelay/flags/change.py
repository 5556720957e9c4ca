"""One atomic edit of an environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position

Definition = Mapping[str, Any]
"""A flagd flag definition, as parsed JSON: `state`, `variants`, `defaultVariant`, `targeting`, `metadata`."""

Rule = Any
"""A JsonLogic rule, as parsed JSON; carried as it is."""


@dataclass(frozen=True, slots=True)
class Change:
    """One atomic edit: any number of flags and populations, one revision.

    `flags` and `evaluators` are a merge patch at the level of one entry: a value replaces the entry whole,
    None deletes it. `metadata`, where not None, replaces the flag set's metadata whole, and `settings` those of the
    environment. `previous` is the nonce
    of the change before. `at` is Redis's own clock, in microseconds since 1970.
    """

    epoch: str
    revision: int
    nonce: str
    previous: str
    at: int
    actor: str = ""
    reason: str = ""
    urgent: bool = False
    flags: Mapping[str, Definition | None] = field(default_factory=dict)
    evaluators: Mapping[str, Rule | None] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    settings: EnvironmentSettings | None = None

    @property
    def position(self) -> Position:
        """Where the environment stands once this change is applied."""
        return Position(self.epoch, self.revision, self.nonce)


@dataclass(frozen=True, slots=True)
class Hint:
    """News that a change exists, without its body: too large for pub/sub, it is in the changelog."""

    epoch: str
    revision: int
    nonce: str
    previous: str
