"""A kill that one relay holds by itself, since Redis could not be told of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from flagrelay.flags.change import Definition
from flagrelay.flags.position import Position

MARKER = "localKill"
"""The member of a flag's metadata by which everybody who resolves it sees that one relay killed it by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKill:
    """That a flag is taken back from everybody on this relay, whatever Redis says.

    `to` is the variant that everybody gets, None where each caller falls back to its own default. `at` is the relay's
    clock, in microseconds since 1970. `over` is where the environment stood, and `original` what the flag was, when it
    was put: whether Redis has a newer change of the flag is judged by them.
    """

    key: str
    to: str | None
    actor: str
    reason: str
    at: int
    over: Position
    original: Definition

    def applied(self, definition: Definition) -> Definition:
        """What a definition becomes. A variant that it does not have leaves it disabled: killed it stays."""
        variants = definition.get("variants")
        marked = {**_object(definition.get("metadata")), MARKER: True}
        if self.to is None or self.to not in _object(variants):
            return {**definition, "state": "DISABLED", "metadata": marked}
        return {**definition, "state": "ENABLED", "defaultVariant": self.to, "targeting": {}, "metadata": marked}


def mark_of(kills: Mapping[str, LocalKill]) -> str:
    """What tells one set of local kills from another, the same on every relay; empty where there are none."""
    if not kills:
        return ""
    text = "\n".join(f"{key}\0{kill.to or ''}\0{kill.to is None}" for key, kill in sorted(kills.items()))
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
