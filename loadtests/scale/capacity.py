"""What a fleet takes: relays for a target, bytes, memory, and Redis. Arithmetic on what was measured."""

import math
from typing import Any

import numpy as np

from scale.assumptions import Assumptions
from scale.constants import Constants, Sizes
from scale.fleet import Fleet
from scale.propagation import late

DAY = 86_400
MOST_RELAYS = 100_000


def fleet_for(sdks: int, constants: Constants, assumptions: Assumptions, *, share: float = 1.0) -> Fleet:
    """The fewest relays that meet the target after a part of them was lost, each stream being somewhere else then.

    Args:
        sdks: how many.
        constants: what was measured.
        assumptions: the target among them.
        share: how many of the SDKs are to have a change in time.
    """

    def carries(relays: int) -> bool:
        left = of_size(sdks, relays, assumptions).without(lost_of(relays, assumptions))
        full = sdks > left.processes * assumptions.settings.max_streams
        return not full and late(left, constants, assumptions, assumptions.target_ms) <= sdks * (1 - share)

    fewest, most = 2, 2
    while not carries(most):
        fewest, most = most, most * 2
        if most > MOST_RELAYS:
            raise ValueError(f"no number of relays brings changes to SDKs within {assumptions.target_ms:g} ms")
    while fewest < most:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if carries(middle) else (middle + 1, most)
    return of_size(sdks, most, assumptions)


def of_size(sdks: int, relays: int, assumptions: Assumptions) -> Fleet:
    """A fleet of so many relays, with replicas of Redis where one server would have too many subscribers."""
    subscribers = relays * assumptions.workers
    replicas = math.ceil(subscribers / assumptions.subscribers_per_redis)
    return Fleet(sdks, relays, assumptions.workers, replicas if replicas > 1 else 0)


def lost_of(relays: int, assumptions: Assumptions) -> int:
    """How many relays the share is that is lost: at least one."""
    return math.ceil(relays * assumptions.lost)


def on_the_wire(size: int, assumptions: Assumptions) -> int:
    """Bytes of a write, headers of its packets included."""
    return size + math.ceil(size / assumptions.segment_bytes) * assumptions.packet_bytes


def egress(fleet: Fleet, sizes: Sizes, constants: Constants, assumptions: Assumptions) -> dict[str, float]:
    """Bytes to SDKs, headers included: of one change, and of a day; and the rate while a change goes out."""
    settings = assumptions.settings
    patch, beat, begin = (on_the_wire(size, assumptions) for size in (sizes.patch, sizes.heartbeat, sizes.current))
    changes = assumptions.changes_per_day * patch
    beats = DAY / settings.heartbeat_interval * beat
    begins = DAY / (settings.stream_lifetime * 0.9) * begin
    per_stream_us = float(np.median(constants.per_stream_us))
    return {
        "change_bytes": fleet.sdks * patch,
        "day_bytes": fleet.sdks * (changes + beats + begins),
        "heartbeats_share": beats / (changes + beats + begins),
        "mean_mbit_per_relay": (changes + beats + begins) * fleet.sdks / fleet.relays * 8 / DAY / 1e6,
        "peak_mbit_per_relay": patch * 8 / per_stream_us * fleet.workers,
    }


def memory(fleet: Fleet, constants: Constants) -> dict[str, float]:
    """Bytes of one relay: its processes, and what the kernel holds of its sockets."""
    streams = fleet.sdks / fleet.relays
    return {
        "processes": fleet.workers * constants.relay_bytes + streams * constants.stream_bytes,
        "kernel": streams * constants.stream_kernel_bytes,
    }


def redis(fleet: Fleet, constants: Constants, assumptions: Assumptions) -> dict[str, Any]:
    """What Redis servers do: subscribers of each, the last one's turn, CPU of a change, CPU all the time."""
    verifying = fleet.subscribers / assumptions.settings.verify_interval * constants.redis_verification_cpu_us / 1e6
    return {
        "servers": 1 + fleet.replicas,
        "subscribers": fleet.subscribers,
        "last_turn_ms": fleet.subscribers * constants.redis_subscriber_us / 1000,
        "cpu_ms_per_change": (constants.redis_change_cpu_us + fleet.subscribers * constants.redis_subscriber_cpu_us)
        / 1000,
        "core_for_verifying": verifying,
    }


def one_core(constants: Constants, assumptions: Assumptions) -> dict[str, float]:
    """What one process on one core carries: by the median round, and limits by the 95th percentile."""
    median, slow = np.quantile(constants.per_stream_us, (0.5, 0.95))
    first = np.median(constants.first_ms)
    settings = assumptions.settings
    lives_per_second = 10_000 / (settings.stream_lifetime * 0.9)
    return {
        "deliveries_per_second": float(1e6 / median),
        "joins_per_second": float(np.median(constants.joins_per_second["current"])),
        **{f"streams_within_{target}_ms": float((target - first) * 1000 / slow) for target in (50, 100, 250)},
        "heartbeats_of_10000": 10_000 * constants.heartbeat_cpu_us / 1e6 / settings.heartbeat_interval,
        "lifetimes_of_10000": lives_per_second * constants.join_cpu_us["current"] / 1e6,
    }
