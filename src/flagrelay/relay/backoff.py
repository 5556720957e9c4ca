"""How long to wait before the next try."""

import random


class Backoff:
    """Exponential, jittered, capped.

    Each wait is drawn evenly between half of the current ceiling and the ceiling; the ceiling doubles from
    `shortest` up to `longest` (seconds). Jitter keeps a fleet of relays from coming back as one.
    """

    def __init__(self, shortest: float, longest: float, rng: random.Random | None = None) -> None:
        self._shortest = shortest
        self._longest = longest
        self._ceiling = shortest
        self._rng = rng or random.Random()

    def next(self) -> float:
        """Seconds to wait now."""
        wait = self._rng.uniform(self._ceiling / 2, self._ceiling)
        self._ceiling = min(self._ceiling * 2, self._longest)
        return wait

    def reset(self) -> None:
        """All is well: the next misfortune starts at the shortest wait."""
        self._ceiling = self._shortest
