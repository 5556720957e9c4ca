"""How often each access key may ask."""

import math
from time import monotonic

from flagrelay.errors import Refusal


class Rates:
    """A bucket of requests for each key: one second's worth, filled as time passes.

    Args:
        per_second: requests that one key may make in a second; 0 for no limit.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._buckets: dict[str, tuple[float, float]] = {}

    def admit(self, key_id: str) -> None:
        """Count a request.

        Raises:
            Refusal: 429, with the seconds after which to come back.
        """
        if not self._per_second:
            return
        now = monotonic()
        left, at = self._buckets.get(key_id, (float(self._per_second), now))
        left = min(self._per_second, left + (now - at) * self._per_second)
        if left < 1:
            self._buckets[key_id] = (left, now)
            details = f"this access key may make {self._per_second} requests a second"
            raise Refusal(429, "RATE_LIMITED", details, retry_after=max(1, math.ceil((1 - left) / self._per_second)))
        self._buckets[key_id] = (left - 1, now)
