"""What relays say of themselves in Redis: which revision each has written to how many streams.

A report stands in the hash `{ENV}:relays`, below the relay's id; below `ID/WORKER/INSTANCE` where a node has several
workers, since one that is being replaced still serves while its successor does.
It lives and dies with its environment: nothing is written where there is none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from dataclasses import field as member
from typing import Any, Self

import orjson

from flagrelay.store.connection import Store
from flagrelay.store.script import Script

FORGOTTEN = 600
"""Seconds without a word after which what a relay said is dropped that had no streams."""

MISSED = 24 * 60 * 60
"""The same for one that had streams: cut off from Redis it may serve them still, and is to be named, not forgotten."""

MAX_KILLS = 100
"""Kills of its own that a relay names."""

PATIENCE = 2.0
"""Seconds beyond its own interval that a relay may say nothing: a busy one is late, a dead one says nothing at all."""

LIVE, STALE = "live", "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one relay process said last of one environment.

    Args:
        relay: the relay's id.
        worker: which of the node's workers it is, from 1.
        workers: how many workers the node has.
        epoch: the history that it follows.
        revision: the newest revision that was written to every stream, but for those that lag.
        source: `live`, or `stale` where it does not know whether that is Redis's state.
        streams: open streams, of every kind.
        written: those of them that have the revision.
        lagging: those that lack it, since their clients do not read.
        ms: milliseconds from the change's time in Redis until its bytes went to the last stream, clocks corrected;
            None where the revision was not broadcast, but loaded whole.
        interval: seconds between its reports, at most, while nothing happens.
        node: the random identity of the node, where it has several workers.
        instance: the random identity of the process.
        kills: the kills of its own that streams are shown and Redis does not have: why not, in a word, by flag.
        more_kills: how many those are beyond `MAX_KILLS`.
        seen: when Redis was told, in microseconds of its own clock; set as it is written.
    """

    relay: str
    worker: int = 1
    workers: int = 1
    epoch: str
    revision: int
    source: str
    streams: int
    written: int
    lagging: int
    ms: float | None = None
    interval: float
    node: str = ""
    instance: str = ""
    kills: dict[str, str] = member(default_factory=dict)
    more_kills: int = 0
    seen: int = 0

    @property
    def field(self) -> str:
        """Where it stands in the hash."""
        return f"{self.relay}/{self.worker}/{self.instance}" if self.workers > 1 else self.relay

    def age(self, now: int) -> float:
        """Seconds since it was written; `now` in microseconds of Redis's clock."""
        return max(0.0, (now - self.seen) / 1e6)

    def silent(self, now: int) -> bool:
        """Whether the relay should have said something since, and has not."""
        return self.age(now) > self.interval + PATIENCE

    def as_json(self) -> dict[str, Any]:
        """Its members, by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """What another process wrote; members that we do not know are a later version's.

        Raises:
            KeyError, TypeError: it is no report.
        """
        known = {each.name: members[each.name] for each in fields(cls) if each.name in members}
        report = cls(**known)
        for each in fields(cls):
            value = getattr(report, each.name)
            if type(value) not in _TYPES[each.type]:
                raise TypeError(f"{each.name} is {value!r:.80}")
        if not all(isinstance(each, str) for each in report.kills.values()):
            raise TypeError(f"kills is {report.kills!r:.80}")
        return report


_TYPES: Mapping[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    float | None: (int, float, type(None)),
    dict[str, str]: (dict,),
}
"""What JSON may hold for a member of each type."""


@dataclass(frozen=True, slots=True)
class Reports:
    """All that stands of an environment's relays, as of one moment: `now`, in microseconds of Redis's clock."""

    now: int
    reports: tuple[Report, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Its members, by name."""
        return {"now": self.now, "reports": [report.as_json() for report in self.reports]}

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """What another process sent.

        Raises:
            KeyError, TypeError: it is none.
        """
        return cls(int(members["now"]), tuple(Report.from_json(each) for each in members["reports"]))


# KEYS: state, relays; ARGV: field, report without `seen`, relay, node; then, to look at the others, the seconds after
# which those are forgotten that had no streams, and those that had. What another node of the same name said is of one
# that was there before. Reads no more than that of what others wrote: a later version may say more.
_WRITE = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('HSET', KEYS[2], ARGV[1], string.format('{"seen":%.0f,', now) .. string.sub(ARGV[2], 2))
if ARGV[5] then
  local all = redis.call('HGETALL', KEYS[2])
  for index = 1, #all, 2 do
    local sound, report = pcall(cjson.decode, all[index + 1])
    report = sound and type(report) == 'table' and report or {}
    local seen, limit = tonumber(report.seen), report.streams == 0 and ARGV[5] or ARGV[6]
    local gone = seen and now - seen > limit * 1000000
    if gone or report.relay == ARGV[3] and report.node ~= ARGV[4] and all[index] ~= ARGV[1] then
      redis.call('HDEL', KEYS[2], all[index])
    end
  end
end
return 1
""")

_READ = Script("return {redis.call('TIME'), redis.call('HGETALL', KEYS[1])}")

# KEYS: relays; ARGV: relay, instance or '' for any. A field of the relay's name goes even where it cannot be read.
_DROP = Script("""
local dropped = 0
local all = redis.call('HGETALL', KEYS[1])
for index = 1, #all, 2 do
  local sound, report = pcall(cjson.decode, all[index + 1])
  sound = sound and type(report) == 'table'
  local named = sound and report.relay == ARGV[1] or all[index] == ARGV[1]
  if named and (ARGV[2] == '' or sound and report.instance == ARGV[2]) then
    dropped = dropped + redis.call('HDEL', KEYS[1], all[index])
  end
end
return dropped
""")


async def write_report(store: Store, environment: str, report: Report, *, sweep: bool = False) -> bool:
    """Say how a relay stands. Returns whether there is such an environment; where not, nothing is written.

    Args:
        store: where it is.
        environment: its name.
        report: what the relay says; it is given Redis's time.
        sweep: whether to drop what was not heard of for `FORGOTTEN` seconds, or for `MISSED` where it had streams.

    Raises:
        StoreUnavailable: Redis does not answer, or takes no write from us.
    """
    members = report.as_json()
    del members["seen"]
    keys = [store.keys.state(environment), store.keys.relays(environment)]
    limits = (FORGOTTEN, MISSED) if sweep else ()
    about = (report.field, orjson.dumps(members), report.relay, report.node)
    return bool(await _WRITE.run(store, keys, *about, *limits))


async def read_reports(store: Store, environment: str) -> Reports:
    """What every relay of an environment said last; none where there is no such environment.

    What cannot be read is passed over: it says nothing of any relay.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    (seconds, microseconds), stored = await _READ.run(store, [store.keys.relays(environment)])
    reports = []
    for text in stored[1::2]:
        try:
            reports.append(Report.from_json(orjson.loads(text)))
        except (ValueError, KeyError, TypeError):
            continue
    now = int(seconds) * 1_000_000 + int(microseconds)
    return Reports(now, tuple(sorted(reports, key=lambda report: (report.relay, report.worker))))


async def drop_report(store: Store, environment: str, relay: str, *, instance: str = "") -> int:
    """Forget what a relay said, with all of its workers; or only what one process said. Returns how many that were.

    Raises:
        StoreUnavailable: Redis does not answer, or takes no write from us.
    """
    return int(await _DROP.run(store, [store.keys.relays(environment)], relay, instance))
