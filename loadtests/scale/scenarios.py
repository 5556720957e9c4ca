"""Everything that the model says of one fleet, as a document that `report` and `plots` show."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from scale import capacity
from scale.assumptions import Assumptions
from scale.constants import Constants
from scale.fleet import Fleet
from scale.herd import Loss, Notice, Recovered, Recovery
from scale.propagation import last_ms, propagation

Document = dict[str, Any]

DRAWS = 100_000_000
"""Deliveries that are drawn for one fleet, about; its changes are as many as that makes."""

FEWEST_CHANGES, MOST_CHANGES = 10, 100


@dataclass(frozen=True, slots=True)
class Herd:
    """How relays are lost, and how SDKs come back: what they notice, what they lack, after what time they come.

    `retry` is None where it is as the settings have it.
    """

    notice: Notice
    kind: str
    retry: float | None = None


HERDS = {
    "processes end": Herd("reset", "current"),
    "machines fall silent": Herd("silence", "current"),
    "all at once, for everything": Herd("reset", "full", 0.0),
}
"""The last is as bad as it gets: SDKs that do not wait, and that have nothing."""


def scenario(sdks: int, constants: Constants, assumptions: Assumptions, *, relays: int = 0, seed: int = 1) -> Document:
    """What a fleet for so many SDKs is, and does.

    Args:
        sdks: how many.
        constants: what was measured.
        assumptions: what was not.
        relays: how many; 0 for the fewest that meet the target.
        seed: of chance.
    """
    fleet = capacity.of_size(sdks, relays, assumptions) if relays else capacity.fleet_for(sdks, constants, assumptions)
    changes = max(FEWEST_CHANGES, min(MOST_CHANGES, DRAWS // sdks))
    times = propagation(
        fleet, constants, assumptions, {"none": None, **assumptions.networks}, changes=changes, seed=seed
    )
    return {
        "sdks": sdks,
        "fleet": {
            **asdict(fleet),
            "streams_per_process": round(sdks / fleet.processes),
            "lost": capacity.lost_of(fleet.relays, assumptions),
        },
        "changes": changes,
        "propagation_ms": {name: asdict(each) for name, each in times.items()},
        "last_after_loss_ms": round(
            last_ms(fleet.without(capacity.lost_of(fleet.relays, assumptions)), constants, assumptions), 3
        ),
        "egress": {
            name: capacity.egress(fleet, sizes, constants, assumptions) for name, sizes in constants.sizes.items()
        },
        "memory": capacity.memory(fleet, constants),
        "redis": capacity.redis(fleet, constants, assumptions),
        "redis_alone": capacity.redis(replace(fleet, replicas=0), constants, assumptions),
        "herds": {name: asdict(_recovered(fleet, constants, assumptions, herd, seed)) for name, herd in HERDS.items()},
    }


def _recovered(fleet: Fleet, constants: Constants, assumptions: Assumptions, herd: Herd, seed: int) -> Recovered:
    """How a fleet recovers from losing some of its relays."""
    rng = np.random.default_rng(seed)
    streams = fleet.streams(rng)
    relays = capacity.lost_of(fleet.relays, assumptions)
    lost, left = np.split(streams, [relays * fleet.workers])
    settings = assumptions.settings
    loss = Loss(
        lost=lost.reshape(relays, fleet.workers).sum(axis=1),
        left=left,
        joins_per_second=rng.choice(constants.joins_per_second[herd.kind], len(left)),
        per_stream=rng.choice(constants.per_stream_us, len(left)) / 1e6,
        first=float(np.median(constants.first_ms)) / 1000,
        notice=herd.notice,
        network=assumptions.networks["region"],
        settings=settings if herd.retry is None else replace(settings, retry=herd.retry),
    )
    return Recovery(loss, rng).run()
