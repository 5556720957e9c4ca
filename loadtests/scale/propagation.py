"""How long a change takes to each SDK: Redis, the way to the relays, their rounds over their streams, the way to SDKs.

A process has a change `first` after it was written (measured: writing, Redis, the relay's own work, its first send),
later by its turn among Redis's subscribers, by the hop to a replica, by the network, and by what it was just doing.
From there on each of its streams takes what one took in a measured round: one round is drawn for each process and
change, since what makes a process slow makes it slow for a whole round.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flagrelay.relay.pump import SLICE
from scale.assumptions import Assumptions, Network
from scale.constants import Constants, Floats
from scale.fleet import Counts, Fleet

Milliseconds = npt.NDArray[np.float32]

PERCENTILES = {"first": 0.0, "p50": 0.5, "p99": 0.99, "p99.9": 0.999, "last": 1.0}
CURVE = (
    0.0001,
    0.001,
    0.005,
    0.01,
    0.015,
    *(round(step / 40, 3) for step in range(1, 40)),
    0.985,
    0.99,
    0.995,
    0.999,
    0.9999,
    1.0,
)
"""Where a distribution is noted to be drawn."""


@dataclass(frozen=True, slots=True)
class Load:
    """What else a process does: the share of its time that heartbeats and streams that open take."""

    beats: Floats
    joins: Floats
    join_ms: float

    @classmethod
    def of(cls, streams: Counts, constants: Constants, assumptions: Assumptions) -> "Load":
        """What so many streams bring: heartbeats, and a new beginning at the end of each lifetime."""
        settings = assumptions.settings
        join_ms = constants.join_cpu_us["current"] / 1000
        return cls(
            beats=streams.astype(float) * constants.heartbeat_cpu_us / 1e6 / settings.heartbeat_interval,
            joins=streams.astype(float) * join_ms / 1000 / (settings.stream_lifetime * 0.9),
            join_ms=join_ms,
        )

    def waits(self, rng: np.random.Generator) -> Floats:
        """How long a change waits for what a process was doing when it came, in milliseconds."""
        count = len(self.beats)
        beating, joining = rng.random(count) < self.beats, rng.random(count) < self.joins
        waits: Floats = rng.random(count) * (beating * SLICE * 1000 + joining * self.join_ms)
        return waits


@dataclass(frozen=True, slots=True)
class Rounds:
    """One change in every process: when its first stream has it, and what each stream takes, in milliseconds."""

    starts: Floats
    per_stream: Floats

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        fleet: Fleet,
        streams: Counts,
        constants: Constants,
        assumptions: Assumptions | None,
        stretch: float = 1.0,
    ) -> "Rounds":
        """One change.

        Args:
            rng: where chance comes from.
            fleet: what is subscribed to what.
            streams: of each process.
            constants: what was measured.
            assumptions: what is around; None for a quiet relay next to its Redis.
            stretch: how much longer everything takes because processes share cores.
        """
        count = len(streams)
        turns = np.concatenate([rng.permutation(fleet.subscribers) for _ in range(max(1, fleet.replicas))])[:count]
        starts = rng.choice(constants.first_ms, count) + turns * constants.redis_subscriber_us / 1000
        per_stream = rng.choice(constants.per_stream_us, count) / 1000
        if stretch > 1:  # who shares cores is as fast as all of them together
            per_stream = np.full(count, per_stream.mean() * stretch)
        if fleet.replicas:
            starts += constants.replica_hop_ms
        if assumptions:
            load = Load.of(streams, constants, assumptions)
            starts += assumptions.redis_network.draw(rng, count) + load.waits(rng)
            per_stream /= np.maximum(0.05, 1 - load.joins)
        return cls(starts, per_stream)

    def last(self, streams: Counts) -> float:
        """When the last stream has the change, networks to SDKs excluded."""
        return float(np.max(self.starts + np.maximum(0, streams - 1) * self.per_stream))

    def late(self, streams: Counts, milliseconds: float) -> int:
        """How many streams have the change later than that, networks to SDKs excluded."""
        in_time = np.floor((milliseconds - self.starts) / self.per_stream) + 1
        return int(np.maximum(0, streams - np.maximum(0, in_time)).sum())

    def each(self, streams: Counts) -> Milliseconds:
        """When each stream has the change, networks to SDKs excluded; process by process."""
        total = int(streams.sum())
        before = np.repeat(np.cumsum(streams) - streams, streams)
        places = (np.arange(total) - before).astype(np.float32)
        places *= np.repeat(self.per_stream.astype(np.float32), streams)
        places += np.repeat(self.starts.astype(np.float32), streams)
        return places


def last_ms(fleet: Fleet, constants: Constants, assumptions: Assumptions, *, changes: int = 60, seed: int = 1) -> float:
    """When the last SDK has a change, networks to SDKs excluded: the median over changes."""
    rng = np.random.default_rng(seed)
    streams = fleet.streams(rng)
    draws = [Rounds.draw(rng, fleet, streams, constants, assumptions).last(streams) for _ in range(changes)]
    return float(np.median(draws))


def late(
    fleet: Fleet,
    constants: Constants,
    assumptions: Assumptions,
    milliseconds: float,
    *,
    changes: int = 60,
    seed: int = 1,
) -> float:
    """How many SDKs have a change later than that, networks to SDKs excluded: the median over changes."""
    rng = np.random.default_rng(seed)
    streams = fleet.streams(rng)
    draws = [Rounds.draw(rng, fleet, streams, constants, assumptions) for _ in range(changes)]
    return float(np.median([each.late(streams, milliseconds) for each in draws]))


@dataclass(frozen=True, slots=True)
class Propagation:
    """The percentiles of how long a change takes, and their curve: medians over changes, in milliseconds."""

    percentiles: dict[str, float]
    lowest: dict[str, float]
    highest: dict[str, float]
    curve: list[tuple[float, float]]


def propagation(
    fleet: Fleet,
    constants: Constants,
    assumptions: Assumptions | None,
    networks: Mapping[str, Network | None],
    *,
    changes: int,
    stretch: float = 1.0,
    seed: int = 1,
) -> dict[str, Propagation]:
    """How long changes take to all SDKs of a fleet, over each of some networks; None for no network at all."""
    rng = np.random.default_rng(seed)
    streams = fleet.streams(rng)
    probes = [*PERCENTILES.values(), *CURVE]
    draws: dict[str, list[Floats]] = {name: [] for name in networks}
    for _ in range(changes):
        relays = Rounds.draw(rng, fleet, streams, constants, assumptions, stretch).each(streams)
        for name, network in networks.items():
            times = relays + network.draw(rng, len(relays)) if network else relays.copy()
            times.sort()
            draws[name].append(np.array([_quantile(times, probe) for probe in probes]))
    return {name: _summary(np.array(each)) for name, each in draws.items()}


def _quantile(ordered: Milliseconds, share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])


def _summary(draws: Floats) -> Propagation:
    """Rows are changes; columns are percentiles, then points of the curve."""
    named = len(PERCENTILES)

    def row(values: Floats) -> dict[str, float]:
        return {name: round(float(value), 3) for name, value in zip(PERCENTILES, values[:named], strict=True)}

    medians = np.median(draws, axis=0)
    curve = [(share, round(float(value), 3)) for share, value in zip(CURVE, medians[named:], strict=True)]
    return Propagation(row(medians), row(draws.min(axis=0)), row(draws.max(axis=0)), curve)
