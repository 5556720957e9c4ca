"""The model beside measured runs, of the sizes that fit on one machine: what it says, what was, and the ratio."""

import os
import signal
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from bench import Receiver
from rich.console import Console

from flagrelay.settings import Settings
from scale.constants import Constants
from scale.fleet import Fleet
from scale.herd import Loss, Recovered, Recovery
from scale.lab import Lab, lab, relay, settled, writer
from scale.measure import Rounds, machine, measured_round, undisturbed_rounds
from scale.propagation import propagation
from scale.sdks import Sdks

Document = dict[str, Any]

FAN_OUTS = ((1, 2000), (1, 8000), (3, 2000))
"""Relays, and streams of each. The first is of a size that the constants were measured at: what differs there is the
machine from one hour to the next, and not the model."""

RETRIES = (2.0, 0.1)
"""The first is the setting's default. With the second, SDKs come faster than streams open, and queue."""

STREAMS = 4000
EVERY = 0.1
FIRST_NUMBER = 1000
PREDICTIONS = 20


def check(constants: Constants, console: Console, *, rounds: int, runs: int) -> Document:
    """Everything that is checked: rounds for each fan-out, runs for each herd."""
    on = machine()
    with lab() as here:
        fan_outs = [_fan_out(here, constants, Fleet(n * each, n), rounds, console) for n, each in FAN_OUTS]
        herds = [_herd(here, constants, retry, runs, console) for retry in RETRIES]
    checked = datetime.now(UTC).date().isoformat()
    return {"checked": checked, "machine": on, "fan_outs": fan_outs, "herds": herds}


# -- a change to everybody --------------------------------------------------------------------------------------------


def _fan_out(here: Lab, constants: Constants, fleet: Fleet, rounds: int, console: Console) -> Document:
    predicted = propagation(
        fleet, constants, None, {"none": None}, changes=rounds * 10, stretch=shared(fleet, constants)
    )["none"].percentiles
    measured = _measured_rounds(here, fleet, rounds)
    medians = {name: round(statistics.median(each[name] for each in measured), 3) for name in measured[0]}
    console.log(f"{fleet.relays} x {fleet.sdks // fleet.relays}: predicted {predicted}, measured {medians}")
    names = {"first": "first", "p50": "median", "p99": "p99", "last": "last"}
    return {
        "relays": fleet.relays,
        "streams": fleet.sdks,
        "stretch": round(shared(fleet, constants), 2),
        "predicted_ms": {name: predicted[name] for name in names},
        "measured_ms": {name: medians[ours] for name, ours in names.items()},
        "cpu_us": medians["cpu_us"],
        "receiver_cpu_us": medians["receiver_cpu_us"],
        "rounds_last_ms": [round(each["last"], 2) for each in measured],
    }


def shared(fleet: Fleet, constants: Constants, cores: int | None = None) -> float:
    """How much longer a round takes where processes and the one that receives share a machine's cores."""
    cores = cores or os.cpu_count() or 1
    per_stream = float(np.median(constants.per_stream_us))
    receiving = fleet.processes * constants.receiver_cpu_us
    return max(1.0, (fleet.processes * per_stream + receiving) / cores / per_stream, receiving / per_stream)


def _measured_rounds(here: Lab, fleet: Fleet, rounds: int) -> Rounds:
    with ExitStack() as stack:
        relays = [stack.enter_context(relay(here)) for _ in range(fleet.relays)]
        writes = stack.enter_context(writer(here))
        streams = Receiver()
        stack.callback(streams.close)
        for pid, port in relays:
            streams.connect(port, fleet.sdks // fleet.relays, here.request, b"event: put")
            settled(pid)
        pids = [pid for pid, _ in relays]
        if fleet.relays < (os.cpu_count() or 1):
            return undisturbed_rounds(pids, streams, writes, rounds)
        return [measured_round(pids, streams, writes) for _ in range(rounds)]


# -- a relay that is killed -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One recovery: seconds until so many were back, and how changes took meanwhile (milliseconds, the last stream)."""

    half: float
    most: float
    all: float
    change_median_ms: float
    change_worst_ms: float


def _herd(here: Lab, constants: Constants, retry: float, runs: int, console: Console) -> Document:
    predicted = _medians([_predicted(constants, retry, seed) for seed in range(PREDICTIONS)])
    measured = [_measured(here, retry) for _ in range(runs)]
    medians = _medians(measured)
    console.log(f"herd, retry {retry:g} s: predicted {predicted}, measured {medians}")
    return {
        "retry": retry,
        "streams": STREAMS,
        "lost": STREAMS // 2,
        "predicted": predicted,
        "measured": medians,
        "runs": [asdict(each) for each in measured],
    }


def _medians(seen: list[Seen]) -> dict[str, float]:
    rows: list[Mapping[str, float]] = [asdict(each) for each in seen]
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def _predicted(constants: Constants, retry: float, seed: int) -> Seen:
    rng = np.random.default_rng(seed)
    loss = Loss(
        lost=np.array([STREAMS // 2]),
        left=np.array([STREAMS // 2]),
        joins_per_second=rng.choice(constants.joins_per_second["current"], 1),
        per_stream=rng.choice(constants.per_stream_us, 1) / 1e6,
        first=float(np.median(constants.first_ms)) / 1000,
        changes_every=EVERY,
        settings=Settings(retry=retry),
    )
    return _seen(Recovery(loss, rng).run())


def _seen(recovered: Recovered) -> Seen:
    if recovered.half is None or recovered.most is None or recovered.all is None:
        raise ValueError("not everybody comes back")
    waits = [wait for _, wait in recovered.changes]
    return Seen(recovered.half, recovered.most, recovered.all, statistics.median(waits), max(waits))


def _measured(here: Lab, retry: float) -> Seen:
    """Two relays, one of which is killed: its SDKs go to the other, while changes are written."""
    each = STREAMS // 2
    with relay(here, "--retry", str(retry)) as (doomed, first), relay(here, "--retry", str(retry)) as (other, second):
        sdks = Sdks(here.request)
        for ports in ([first, second], [second, first]):
            sdks.come(each, ports)
            sdks.until(lambda ports=ports: len(sdks.opened) == (each if ports[0] == first else STREAMS))  # type: ignore[misc]  # bound for this turn
        settled(other)
        with writer(here) as writes:
            sdks.during(0.3)
            sdks.arrivals.clear()
            writes.begin(FIRST_NUMBER, EVERY)
            killed = time.time()
            os.kill(doomed, signal.SIGKILL)
            sdks.until(lambda: len(sdks.opened) == STREAMS + each)
            written = writes.written()
            sdks.during(0.5)
        sdks.close()
    back = sorted(when - killed for when in sdks.opened[STREAMS:])
    waits = _last_waits(sdks, written)
    return Seen(
        half=back[each // 2],
        most=back[int(each * 0.99)],
        all=back[-1],
        change_median_ms=statistics.median(waits),
        change_worst_ms=max(waits),
    )


def _last_waits(sdks: Sdks, written: Mapping[int, float]) -> list[float]:
    """How long each change took to the last of the streams that were open all along, in milliseconds."""
    last: dict[int, float] = {}
    for number, when, stayed in sdks.arrivals:
        if stayed and number in written:
            last[number] = max(last.get(number, 0.0), (when - written[number]) * 1000)
    return list(last.values())
