"""What news from Redis means for the position we hold. Pub/sub is a hint, never the truth."""

from enum import StrEnum

from flagrelay.flags.change import Change, Hint
from flagrelay.flags.position import Position


class Step(StrEnum):
    """What to do next."""

    APPLY = "apply"
    """It is the next change."""
    DROP = "drop"
    """We have it already."""
    REPAIR = "repair"
    """Something is missing or does not fit: compare with Redis, and read what we lack."""


class Repair(StrEnum):
    """What it takes to stand where Redis stands."""

    NONE = "none"
    """We do."""
    FILL = "fill"
    """The changes after ours, from the changelog."""
    RELOAD = "reload"
    """The whole state: Redis holds another history than we do."""


def judge(mine: Position, message: Change | Hint) -> Step:
    """What a message on the channel means. It alone never proves that our history is wrong."""
    if message.epoch != mine.epoch:
        return Step.REPAIR
    if message.revision < mine.revision or (message.revision, message.nonce) == (mine.revision, mine.nonce):
        return Step.DROP
    follows = message.revision == mine.revision + 1 and message.previous == mine.nonce
    return Step.APPLY if follows and isinstance(message, Change) else Step.REPAIR


def compare(mine: Position, theirs: Position) -> Repair:
    """What the position that Redis holds means."""
    if theirs == mine:
        return Repair.NONE
    if theirs.epoch == mine.epoch and theirs.revision > mine.revision:
        return Repair.FILL
    return Repair.RELOAD
