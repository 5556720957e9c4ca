"""How many people a change of a flag reaches, counted over contexts.

They come from a file, from open streams, or are the targeting keys that a population lists.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flagrelay.flags.snapshot import Snapshot
from flagrelay.release.plan import Mix, Plan


@dataclass(frozen=True, slots=True)
class Count:
    """Of so many contexts, how many have what was released before and after, and how many gain and lose it."""

    contexts: int
    before: int
    after: int
    gain: int
    lose: int

    @property
    def moved(self) -> bool:
        """Whether anybody gains or loses."""
        return bool(self.gain or self.lose)


def telling(plan: Plan) -> Mix:
    """The variants that tell who has what is released: those that the baseline does not have too, if there are any.

    None where both have the same, in other shares: nobody can be said to have what is released.
    """
    own = {name: weight for name, weight in plan.released.items() if name not in plan.baseline}
    return own or ({} if plan.released.keys() == plan.baseline.keys() else plan.released)


def count(
    key: str, released: Mix, before: Snapshot | None, after: Snapshot | None, contexts: Iterable[Mapping[str, Any]]
) -> Count:
    """Count over contexts.

    Args:
        key: the flag.
        released: the variants that count as released.
        before: a snapshot with the flag as it was, and the populations that it names; None where there was none.
        after: the same, as it is to be.
        contexts: evaluation contexts.
    """
    seen = had = has = gain = lose = 0
    for context in contexts:
        seen += 1
        then = before is not None and before.resolve(key, context).variant in released
        now = after is not None and after.resolve(key, context).variant in released
        had += then
        has += now
        gain += now and not then
        lose += then and not now
    return Count(seen, had, has, gain, lose)
