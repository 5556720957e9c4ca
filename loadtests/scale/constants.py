"""What was measured, as the model takes it: read from the document that `measure` writes."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ENOUGH = 2000
"""Streams from which on a round says what one of them takes in a long round. The shorter a round, the more it is noise:
what disturbs a machine for a few milliseconds is much of a short round, and little of a long one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on a connection: the beginning of a stream with everything, of one that lacks nothing, and events."""

    full: int
    current: int
    patch: int
    heartbeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What one core, one stream and one Redis cost. Arrays are what single rounds gave: the model draws from them."""

    first_ms: Floats
    per_stream_us: Floats
    delivery_cpu_us: float
    receiver_cpu_us: float
    heartbeat_cpu_us: float
    joins_per_second: Mapping[str, Floats]
    join_cpu_us: Mapping[str, float]
    relay_bytes: int
    stream_bytes: int
    stream_kernel_bytes: int
    redis_subscriber_us: float
    redis_subscriber_cpu_us: float
    redis_change_cpu_us: float
    redis_verification_cpu_us: float
    replica_hop_ms: float
    sizes: Mapping[str, Sizes]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The constants that a document holds."""
        rounds = [each for rounds in document["fan_out"]["rounds"].values() for each in rounds]
        long = _long_rounds(document)
        joins, redis, memory = document["joins"], document["redis"], document["memory"]
        return cls(
            first_ms=np.array([each["first"] for each in rounds]),
            per_stream_us=np.array([each["us_per_stream"] for each in long]),
            delivery_cpu_us=statistics.median(each["cpu_us"] for each in long),
            receiver_cpu_us=statistics.median(each["receiver_cpu_us"] for each in long),
            heartbeat_cpu_us=document["heartbeat"]["cpu_us"],
            joins_per_second={kind: np.array([r["per_second"] for r in joins[kind]["rounds"]]) for kind in joins},
            join_cpu_us={kind: statistics.median(r["cpu_us"] for r in joins[kind]["rounds"]) for kind in joins},
            relay_bytes=memory["relay_without_streams"],
            stream_bytes=memory["per_idle_stream"],
            stream_kernel_bytes=memory["per_idle_stream_in_the_kernel"],
            redis_subscriber_us=_per_subscriber(redis, lambda each: each["last_ms"]["median"] * 1000),
            redis_subscriber_cpu_us=_per_subscriber(redis, lambda each: each["cpu_us"]),
            redis_change_cpu_us=redis["cpu_us_per_change"],
            redis_verification_cpu_us=redis["cpu_us_per_verification"],
            replica_hop_ms=max(0.0, redis["replica_hop_ms"]["median"]),
            sizes={name: Sizes(**sizes) for name, sizes in document["bytes"].items() if sizes},
        )


def _long_rounds(document: Mapping[str, Any]) -> list[Mapping[str, float]]:
    return [each for count, rounds in document["fan_out"]["rounds"].items() if int(count) >= ENOUGH for each in rounds]


def _per_subscriber(redis: Mapping[str, Any], cost: Callable[[Mapping[str, Any]], float]) -> float:
    """What one subscriber more costs: the slope between the fewest and the most that were measured."""
    counts = sorted(redis["subscribers"], key=int)
    fewest, most = counts[0], counts[-1]
    rise = cost(redis["subscribers"][most]) - cost(redis["subscribers"][fewest])
    return rise / (int(most) - int(fewest))
