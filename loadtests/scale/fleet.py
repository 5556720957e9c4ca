"""How SDKs are spread over the processes of relays, and relays over Redis servers."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many SDKs on so many relays.

    Args:
        sdks: streams in all.
        relays: nodes.
        workers: processes of each; each follows Redis by itself.
        replicas: Redis servers that relays subscribe to, where it is not the primary.
    """

    sdks: int
    relays: int
    workers: int = 1
    replicas: int = 0

    @property
    def processes(self) -> int:
        """Processes in all, which is subscriptions in all."""
        return self.relays * self.workers

    @property
    def subscribers(self) -> int:
        """Subscriptions to one Redis server."""
        return math.ceil(self.processes / max(1, self.replicas))

    def without(self, lost: int) -> "Fleet":
        """The same SDKs on what is left."""
        return Fleet(self.sdks, self.relays - lost, self.workers, self.replicas)

    def streams(self, rng: np.random.Generator) -> Counts:
        """Streams of each process: each SDK went to one at random, as a balancer and the kernel send them."""
        return rng.multinomial(self.sdks, np.full(self.processes, 1 / self.processes))
