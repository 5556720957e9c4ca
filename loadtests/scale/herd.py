"""How SDKs come back after relays were lost: a simulation in steps of time, over every process that is left.

An SDK notices, waits the jittered time that it was told, connects to a process at random, and waits there for its
turn. A process opens streams at its measured rate; while a change is on its way, writing it takes the pump's share of
the time first. A process with no room refuses, and who is refused comes again after `Retry-After`.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flagrelay.relay.pump import SHARE
from flagrelay.server.admission import RETRY_AFTER
from flagrelay.server.app import STREAMS_PER_TURN
from flagrelay.settings import Settings
from scale.assumptions import Network
from scale.constants import Floats
from scale.fleet import Counts

Notice = Literal["reset", "silence"]
"""How an SDK notices: its connection is reset (a process ended), or it hears nothing for a time (a machine did)."""

SILENCE = 3
"""Heartbeats that an SDK misses before it takes its connection for dead, as docs/protocol.md has it."""

STEP = 0.002
PATIENCE = 120.0
"""Seconds after the first attempts of all for which it is simulated at most."""

POINTS = 100
"""Points of the curve that are noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is lost, and what is left.

    Args:
        lost: streams of each relay that is lost.
        left: streams of each process that is left.
        joins_per_second: streams that each process left opens in a second, when it does nothing else.
        per_stream: seconds that each process left takes to write a change to one stream.
        first: seconds from a change's writing until its first stream has it.
        notice: how SDKs notice.
        network: SDK to relay; None for no delay.
        changes_every: seconds between two changes that are written meanwhile.
        settings: of the relays.
    """

    lost: Counts
    left: Counts
    joins_per_second: Floats
    per_stream: Floats
    first: float = 0.0
    notice: Notice = "reset"
    network: Network | None = None
    changes_every: float = 0.25
    settings: Settings = field(default_factory=Settings)

    def attempts(self, rng: np.random.Generator) -> Floats:
        """When each SDK's first attempt reaches a relay, in seconds since the loss, in order."""
        count = int(self.lost.sum())
        noticed = np.zeros(count)
        if self.notice == "silence":
            beat = self.settings.heartbeat_interval
            noticed = np.repeat(SILENCE * beat - rng.random(len(self.lost)) * beat, self.lost)
        attempts: Floats = noticed + self.settings.retry * rng.uniform(0.5, 1.5, count)
        if self.network:  # SYN, its answer, the request
            attempts += 3 * self.network.draw(rng, count) / 1000
        attempts.sort()
        return attempts


@dataclass(slots=True)
class Change:
    """A change that is written while SDKs come back: how far each process must have written, and when it had."""

    at: float
    goal: Floats
    waits: Floats
    done: Floats


@dataclass(frozen=True, slots=True)
class Recovered:
    """How it went. Times in seconds since the loss; None for what did not happen."""

    back: list[tuple[float, int]]
    """How many were back at which time."""
    half: float | None
    most: float | None
    """99 of 100."""
    all: float | None
    longest_queue: int
    refused: int
    quiet_ms: float
    """After how many milliseconds the last stream has a change where nobody comes."""
    changes: list[tuple[float, float]]
    """When each change was written, and after how many milliseconds the last open stream had it."""


class Recovery:
    """The simulation. `step` by step, or `run` to its end.

    Args:
        loss: what is lost, and what is left.
        rng: where chance comes from.
        step: seconds of one step.
    """

    def __init__(self, loss: Loss, rng: np.random.Generator, *, step: float = STEP) -> None:
        self._loss = loss
        self._rng = rng
        self._length = step
        self.now = 0.0
        self._steps = 0
        self._attempts = loss.attempts(rng)
        self._came = 0
        self._again: dict[int, int] = {}
        self.open = loss.left.copy()
        self.waiting = np.zeros_like(loss.left)
        self.refused = 0
        self.longest_queue = 0
        self._credit = np.zeros(len(loss.left))
        self._unwritten = np.zeros(len(loss.left))
        self._written = np.zeros(len(loss.left))
        self._underway: list[Change] = []
        self.changes: list[Change] = []
        self._change_due = 0.0
        self.back: list[int] = []

    @property
    def away(self) -> int:
        """SDKs that are neither open nor wait at a relay."""
        return len(self._attempts) - self._came + sum(self._again.values())

    @property
    def over(self) -> bool:
        """Whether all are back, and have every change."""
        return not self.away and not self.waiting.any() and not self._underway

    def run(self) -> Recovered:
        """Until all are back, or nobody will wait any longer."""
        end = (self._attempts[-1] if len(self._attempts) else 0.0) + PATIENCE
        while not self.over and self.now < end:
            self.step()
        return self._recovered()

    def step(self) -> None:
        """One step of time."""
        if self.now >= self._change_due and (self.away or self.waiting.any()):
            self._change_due += self._loss.changes_every
            self._write_change()
        self._arrive()
        self._serve(self._write())
        self._steps += 1
        self.now = self._steps * self._length
        self.back.append(int(self.open.sum() - self._loss.left.sum()))

    # -- who comes ------------------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        until = self.now + self._length
        count = int(np.searchsorted(self._attempts, until)) - self._came
        self._came += count
        count += self._again.pop(self._steps, 0)
        if not count:
            return
        settings = self._loss.settings
        come = np.bincount(self._rng.integers(len(self.open), size=count), minlength=len(self.open))
        room = np.minimum(settings.max_waiting - self.waiting, settings.max_streams - self.open - self.waiting)
        admitted = np.minimum(come, np.maximum(0, room))
        self.waiting += admitted
        self.longest_queue = max(self.longest_queue, int(self.waiting.max()))
        self._refuse(count - int(admitted.sum()))

    def _refuse(self, count: int) -> None:
        self.refused += count
        shortest, longest = RETRY_AFTER
        for wait in self._rng.integers(shortest, longest + 1, size=count):
            step = self._steps + max(1, round(int(wait) / self._length))
            self._again[step] = self._again.get(step, 0) + 1

    # -- what processes do ----------------------------------------------------------------------------------------

    def _write_change(self) -> None:
        """Everybody who is open is to be written to; who comes from now on has it from the beginning.

        Who still waits for the change before gets both at once, so there is never more to write than that.
        """
        turn = STREAMS_PER_TURN / self._loss.joins_per_second
        waits = np.where(self.waiting > 0, self._rng.random(len(self.open)) * turn, 0.0)
        goal = self._written + self.open
        self._unwritten = self.open.astype(float)
        change = Change(self.now, goal, waits, np.full(len(self.open), np.nan))
        change.done[self.open == 0] = self.now
        self._underway.append(change)
        self.changes.append(change)

    def _write(self) -> Floats:
        """Write what there is to write, in the pump's share of the step. Returns what is left of the step.

        Opening streams gets what it needs, and beside a change no more than leaves the pump its share.
        """
        needed = self.waiting / self._loss.joins_per_second / self._length
        share = 1 - np.minimum(needed, 1 / (1 + SHARE))
        wrote = np.minimum(self._unwritten, share * self._length / self._loss.per_stream)
        for change in self._underway:
            lacking = change.goal - self._written
            finished = np.isnan(change.done) & (lacking <= wrote + 1e-6)
            change.done[finished] = (self.now + lacking * self._loss.per_stream / share)[finished]
        self._underway = [change for change in self._underway if np.isnan(change.done).any()]
        self._written += wrote
        self._unwritten -= wrote
        rest: Floats = np.maximum(0.0, self._length - wrote * self._loss.per_stream)
        return rest

    def _serve(self, rest: Floats) -> None:
        """Open streams of those who wait."""
        self._credit += rest * self._loss.joins_per_second
        served = np.minimum(self.waiting, np.floor(self._credit).astype(np.int64))
        self.waiting -= served
        self.open += served
        self._credit -= served
        self._credit[self.waiting == 0] = 0.0  # time in which nobody waited is not saved up

    # -- how it went ----------------------------------------------------------------------------------------------

    def _recovered(self) -> Recovered:
        count = len(self._attempts)
        every = max(1, len(self.back) // POINTS)
        last = len(self.back) - 1
        points = [*range(0, last, every), last] if self.back else []
        return Recovered(
            back=[(round((point + 1) * self._length, 3), self.back[point]) for point in points],
            half=self._when(math.ceil(count * 0.5)),
            most=self._when(math.ceil(count * 0.99)),
            all=self._when(count),
            longest_queue=self.longest_queue,
            refused=self.refused,
            quiet_ms=round(float(np.max(self._loss.left * self._loss.per_stream) + self._loss.first) * 1000, 2),
            changes=[
                (round(change.at, 3), round(self._took_ms(change), 2))
                for change in self.changes
                if not np.isnan(change.done).any()
            ],
        )

    def _when(self, count: int) -> float | None:
        if not count:
            return 0.0
        step = int(np.searchsorted(self.back, count))
        return round((step + 1) * self._length, 3) if step < len(self.back) else None

    def _took_ms(self, change: Change) -> float:
        return float(np.max(change.done + change.waits) - change.at + self._loss.first) * 1000
