"""What the model takes for given and nobody has measured here: networks, traffic. All of it can be set by options."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flagrelay.settings import Settings

Delays = npt.NDArray[np.float32]

Z99 = 2.3263
"""How many standard deviations the 99th percentile of a normal distribution is above its median."""


@dataclass(frozen=True, slots=True)
class Network:
    """One way through a network: a log-normal delay, and packets that are lost and sent again.

    Args:
        median_ms: half of the packets take no longer.
        p99_ms: 99 of 100 take no longer.
        loss: the share of packets that is lost.
        again_ms: after what time a packet is sent again; each time it is twice as long. 200 ms is Linux's shortest.
    """

    median_ms: float
    p99_ms: float
    loss: float = 0.0
    again_ms: float = 200.0

    def draw(self, rng: np.random.Generator, count: int) -> Delays:
        """So many delays, in milliseconds."""
        sigma = math.log(self.p99_ms / self.median_ms) / Z99
        delays = rng.standard_normal(count, dtype=np.float32)
        delays *= np.float32(sigma)
        np.exp(delays, out=delays)
        delays *= np.float32(self.median_ms)
        lost = rng.binomial(count, self.loss)
        if lost:
            times = rng.geometric(1 - self.loss, lost)
            delays[rng.integers(count, size=lost)] += ((2.0**times - 1) * self.again_ms).astype(np.float32)
        return delays


NETWORKS = {
    "zone": Network(0.25, 1.0),
    "region": Network(0.7, 3.0, 0.00001),
    "world": Network(60.0, 200.0, 0.005),
}
"""Relay to SDK: in one zone of a cloud, across the zones of a region, across the world."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What surrounds the relays."""

    networks: dict[str, Network] = field(default_factory=lambda: dict(NETWORKS))
    redis_network: Network = NETWORKS["region"]
    """Redis to relay."""
    workers: int = 4
    """Processes of one relay, each with a core, a socket and a subscription of its own."""
    target_ms: float = 100.0
    """When the last SDK has a change, networks excluded: what relays are counted for."""
    changes_per_day: int = 200
    lost: float = 0.1
    """The share of the relays that is lost, and whose streams the others carry without missing the target."""
    subscribers_per_redis: int = 500
    """Beyond that many, relays subscribe to replicas."""
    packet_bytes: int = 66
    """Ethernet, IPv4 and TCP with timestamps, around each segment."""
    segment_bytes: int = 1448
    settings: Settings = field(default_factory=Settings)
