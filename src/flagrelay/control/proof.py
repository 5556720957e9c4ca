"""Proof that a change is everywhere: which relays have written it to their streams, which have not, and why not.

`judge` says it of the reports as they stand, and `prove` waits until they stand well. A relay counts only where it has
said so itself: each of its workers, live, of the same history, at that revision or beyond. One that has not been heard
of for its own interval and two seconds more is silent, and is named rather than counted, whatever it said before; and
so is one that shows a flag of the change by a kill of its own, which Redis does not have.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby
from typing import Any, Literal, Self, get_args

from flagrelay.errors import FlagrelayError
from flagrelay.store.reports import LIVE, Report, Reports
from flagrelay.store.writing import Written

SHORTEST_PAUSE, LONGEST_PAUSE, SHARE = 0.002, 0.05, 0.2
"""Seconds between two looks at the reports, at least and at most; and between those, this share of what has passed: how
long it took is known to a fifth, whatever that was."""

ANSWER = 2.0
"""Seconds that a look has for its answer, at least, however little is left: it is to tell how things stand."""

State = Literal["done", "behind", "silent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where one relay stands to a change.

    Args:
        relay: its id.
        state: `done`, `behind`, or `silent` where it has not been heard of for too long.
        why: why it is not done, for people; empty where it is.
        revision: the lowest that any of its workers has.
        streams: streams that it has open.
        written: those of them that have the change; 0 unless it is done.
        lagging: those that lack it, since their clients do not read; 0 unless it is done.
        ms: milliseconds from the change's time until its last stream had it; where it went on to a later change before
            it reported, until it said so. None where it is not done, and where the change's time is not known.
        age: seconds since the worker was heard of that was silent for longest.
        missing: the workers that are not heard of.
    """

    relay: str
    state: State
    why: str
    revision: int
    streams: int
    written: int
    lagging: int
    ms: float | None
    age: float
    missing: tuple[int, ...] = ()

    @property
    def done(self) -> bool:
        """Whether every stream of the relay has the change, but for those that lag."""
        return self.state == "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Who has a change.

    Args:
        revision: the change's.
        at: its time in Redis, in microseconds; 0 where nothing had to be changed.
        standings: where each relay stands, by id.
        waited: milliseconds that were waited for it.
        error: why the reports could not be read; empty where they could.
    """

    revision: int
    at: int
    standings: tuple[Standing, ...]
    waited: float = 0.0
    error: str = ""

    @property
    def done(self) -> int:
        """How many relays have it."""
        return sum(standing.done for standing in self.standings)

    @property
    def complete(self) -> bool:
        """Whether all relays have it, of which there is at least one."""
        return 0 < len(self.standings) == self.done and not self.error

    @property
    def ms(self) -> float | None:
        """Milliseconds until the last of the relays that have it had it; None where that is not known."""
        return max((standing.ms for standing in self.standings if standing.ms is not None), default=None)

    def sentence(self, verb: str) -> str:
        """What came of it, for people; `verb` as in `un-released in 38 ms`."""
        if not self.standings:
            return f"{verb}, but nobody knows where: {self.error or 'no relay reports here'}"
        took = "" if self.ms is None else f" in {_shown(self.ms)}"
        head = verb + took if self.complete else f"{verb} only in part"
        return "; ".join([f"{head}: {self._counted()}", *self._missing()])

    def _counted(self) -> str:
        streams, written, lagging = (
            sum(getattr(standing, name) for standing in self.standings) for name in ("streams", "written", "lagging")
        )
        relays = f"{self.done} of {len(self.standings)} relays"
        return f"{relays}, {written:,} of {streams:,} streams written, {lagging:,} lagging"

    def _missing(self) -> list[str]:
        missing = [f"{standing.relay}: {standing.why}" for standing in self.standings if not standing.done]
        return [*missing, *([f"the reports cannot be read: {self.error}"] if self.error else [])]

    def as_json(self) -> dict[str, Any]:
        """What scripts get of it."""
        relays = [{**asdict(standing), "missing": list(standing.missing)} for standing in self.standings]
        return {
            "complete": self.complete,
            "ms": self.ms,
            "revision": self.revision,
            "at": self.at,
            "waited": self.waited,
            "error": self.error,
            "relays": relays,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """What another process sent; members that we do not know are a later version's.

        Raises:
            KeyError, TypeError, ValueError: it is no proof.
        """
        return cls(
            revision=int(members["revision"]),
            at=int(members["at"]),
            standings=tuple(_standing_from_json(each) for each in members["relays"]),
            waited=float(members["waited"]),
            error=str(members["error"]),
        )


def judge(reports: Reports, epoch: str, revision: int, at: int, flag: str | None = None) -> Proof:
    """Who has a change, by what relays have reported.

    Args:
        reports: what they said last.
        epoch: the change's history.
        revision: its revision.
        at: its time in Redis, in microseconds; 0 where that is not known.
        flag: the one flag that it touches; None where it may touch any.
    """
    change = _Change(epoch, revision, at, reports.now, flag)
    ordered = sorted(reports.reports, key=lambda report: (report.relay, report.worker, report.instance))
    relays = groupby(ordered, key=lambda report: report.relay)
    standings = tuple(change.standing(relay, tuple(said)) for relay, said in relays)
    return Proof(revision=revision, at=at, standings=standings)


async def prove(
    read: Callable[[], Awaitable[Reports]],
    written: Written,
    *,
    within: float,
    flag: str | None = None,
    told: Callable[[Proof], None] = lambda _proof: None,
) -> Proof:
    """Wait until every relay has a change, or nothing more is to be expected.

    That is so where all relays that have not are silent, and were from the beginning; there is none to wait for where
    none reports.

    Args:
        read: reads what relays have reported; its errors are no end, since the change is written whatever it says.
        written: the change.
        within: seconds to wait, at most.
        flag: the one flag that the change touches; None where it may touch any.
        told: told whenever something has moved.
    """
    wait = _Wait(read, written, asyncio.get_running_loop().time(), within, flag)
    proof, moved = await wait.look()
    silent = {standing.relay for standing in proof.standings if standing.state == "silent"}
    while True:
        if moved:
            told(proof)
        waited_for = {standing.relay for standing in proof.standings if not standing.done} - silent
        if wait.over or not (waited_for or proof.error):
            return proof
        await asyncio.sleep(min(wait.pause, wait.left))
        proof, moved = await wait.look()


@dataclass(slots=True)
class _Wait:
    """What is known while one waits."""

    read: Callable[[], Awaitable[Reports]]
    written: Written
    began: float
    within: float
    flag: str | None
    reports: Reports = field(default_factory=lambda: Reports(0))
    took: dict[str, float | None] = field(default_factory=dict)
    """Milliseconds that each relay took, as it first said: what it says later is about later changes."""
    last: Proof | None = None

    async def look(self) -> tuple[Proof, bool]:
        """How it stands now, and whether anything has moved since the last look."""
        error = await self._read()
        written = self.written
        judged = judge(self.reports, written.epoch, written.revision, written.at, self.flag)
        standings = tuple(self._as_first_said(standing) for standing in judged.standings)
        proof = replace(judged, standings=standings, waited=round(self._elapsed * 1000, 1), error=error)
        moved = self.last is None or _still(proof) != _still(self.last)
        self.last = proof
        return proof, moved

    async def _read(self) -> str:
        try:
            async with asyncio.timeout(max(ANSWER, self.left)):
                self.reports = await self.read()
        except TimeoutError:
            return "there was no answer in time"
        except FlagrelayError as error:
            return str(error)
        return ""

    def _as_first_said(self, standing: Standing) -> Standing:
        if not standing.done:
            return standing
        return replace(standing, ms=self.took.setdefault(standing.relay, standing.ms))

    @property
    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return min(max(SHORTEST_PAUSE, self._elapsed * SHARE), LONGEST_PAUSE)

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.within - self._elapsed)

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        return not self.left


@dataclass(frozen=True, slots=True)
class _Change:
    """What relays are judged by: a change, and the time at which that is done (µs, Redis's clock)."""

    epoch: str
    revision: int
    at: int
    now: int
    flag: str | None

    def standing(self, relay: str, said: Sequence[Report]) -> Standing:
        """Where a relay stands that has said this, worker by worker."""
        # What a node said before it was started again, or had another number of workers, is of no worker that there is.
        # Of one worker there may be several: one that is being replaced has its streams until it has taken its leave.
        newest = max(said, key=lambda report: (report.seen, report.workers))
        workers = newest.workers
        reports = [report for report in said if (report.node, report.workers) == (newest.node, workers)]
        silent = [report for report in reports if report.silent(self.now)]
        unknown = sorted(set(range(1, workers + 1)) - {report.worker for report in reports})
        why = [*(self._why(report) for report in reports), *(_not_heard(worker) for worker in unknown)]
        reasons = list(dict.fromkeys(filter(None, why)))
        done = not reasons
        return Standing(
            relay=relay,
            state="done" if done else "silent" if silent else "behind",
            why=", ".join(reasons),
            revision=min(report.revision for report in reports),
            streams=sum(report.streams for report in reports),
            written=sum(report.written for report in reports) if done else 0,
            lagging=sum(report.lagging for report in reports) if done else 0,
            ms=max((ms for ms in map(self._took, reports) if ms is not None), default=None) if done else None,
            age=max(report.age(self.now) for report in reports),
            missing=tuple(sorted({*unknown, *(report.worker for report in silent)})),
        )

    def _why(self, report: Report) -> str:
        """Why one process does not count; empty where it does."""
        if report.silent(self.now):
            why = f"silent for {report.age(self.now):.1f} s"
        elif report.source != LIVE:
            why = f"stale at revision {report.revision}"
        elif report.epoch != self.epoch:
            why = f"in another history, {report.epoch:.8} at revision {report.revision}"
        elif report.revision < self.revision:
            why = f"at revision {report.revision}"
        elif not (why := self._shows(report)):
            return ""
        return f"worker {report.worker} {why}" if report.workers > 1 else why

    def _shows(self, report: Report) -> str:
        """What a process shows by kills of its own, rather than the change; empty where that is nothing."""
        concerned = [key for key in sorted(report.kills) if self.flag in (None, key)]
        if not concerned and not report.more_kills:
            return ""
        if not concerned:
            return f"shows {report.more_kills:,} flags by kills of its own that it does not name"
        key, more = concerned[0], len(concerned) - 1 + report.more_kills
        others = f" and {more:,} others" if more else ""
        return f'shows flag "{key}"{others} by a kill of its own ({report.kills[key]})'

    def _took(self, report: Report) -> float | None:
        if not self.at:
            return None
        if report.revision == self.revision and report.ms is not None:
            return report.ms
        return max(0.0, round((report.seen - self.at) / 1000, 3))


def _not_heard(worker: int) -> str:
    return f"worker {worker} not heard of"


def _still(proof: Proof) -> Any:  # noqa: ANN401 - compared, and nothing else
    """What of a proof does not move by itself."""
    return proof.error, [replace(standing, age=0.0, why="") for standing in proof.standings]


def _standing_from_json(members: Mapping[str, Any]) -> Standing:
    known = {each.name: members[each.name] for each in fields(Standing)}
    if known["state"] not in get_args(State):
        raise ValueError(f"a relay is {known['state']!r:.80}")
    return Standing(**{**known, "missing": tuple(known["missing"])})


def _shown(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:,.0f} ms" if ms < 10_000 else f"{ms / 1000:,.1f} s"  # noqa: PLR2004
