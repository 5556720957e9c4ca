"""What Redis says to a local kill, once it can be asked; pure.

A kill that a relay holds by itself is written to Redis where nobody has changed the flag since, and it is done where
Redis has the flag killed the same way. Anything else is for a person to decide: the flag stays killed on the relay, and
what Redis has stays what it is.
"""

from dataclasses import dataclass
from enum import StrEnum

from flagrelay.flags.equality import same
from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.store.reading import FlagEntry


class KillState(StrEnum):
    """Where a local kill stands."""

    LOCAL = "local"
    """Redis has not been asked about it since it was put, or does not answer."""
    WRITTEN = "written"
    """Redis has it; this relay waits to see it come."""
    CONFLICT = "conflict"
    """Redis has a newer change of the flag: a person must decide."""
    REFUSED = "refused"
    """Redis answers, and takes no write from this relay; it is tried again."""


class Verdict(StrEnum):
    """What is to be done."""

    WRITE = "write"
    DONE = "done"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be done, and why, for people."""

    verdict: Verdict
    why: str


def judge_kill(kill: LocalKill, position: Position, entry: FlagEntry | None) -> Judgement:
    """What Redis's entry of the flag means for a local kill.

    Args:
        kill: the local kill.
        position: where the environment stands in Redis.
        entry: the flag there; None where there is none.
    """
    if entry is None:
        return Judgement(Verdict.CONFLICT, "Redis no longer has the flag")
    if entry.killed and entry.killed.to == kill.to:
        return Judgement(Verdict.DONE, "Redis has it killed the same way")
    # Another history counts its revisions anew: there the flag must be what it was, too.
    newer = entry.revision > kill.over.revision
    if newer or (position.epoch != kill.over.epoch and not same(entry.definition, kill.original)):
        return Judgement(
            Verdict.CONFLICT,
            f"the flag was changed in Redis since (revision {entry.revision}); kill it again to say that the kill "
            "still holds, or withdraw it",
        )
    return Judgement(Verdict.WRITE, "nobody has changed the flag since")
