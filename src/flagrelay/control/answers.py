"""The shapes that several requests and answers share."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from flagrelay.flags.change import Definition
from flagrelay.flags.position import Position
from flagrelay.store.reading import Kill
from flagrelay.store.writing import Written

MAX_TEXT = 1000

Key = Annotated[str, Meta(min_length=1, max_length=256, description="A flag's key")]
Name = Annotated[str, Meta(min_length=1, max_length=256, description="A population's name")]
Reason = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=r"\S", description="Why; kept with the change")]
AnyReason = Annotated[str, Meta(max_length=MAX_TEXT, description="Why; kept with the change")]
Revision = Annotated[int, Meta(ge=0)]
Sample = Annotated[
    list[dict[str, Any]], Meta(max_length=100_000, description="Evaluation contexts, to count over who gains and loses")
]


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked for; it has no members but its own."""


class Change(Struct, kw_only=True):
    """What a write did.

    `revision` and `epoch` are the environment's after it, `at` is Redis's time of it in microseconds; null where
    nothing had to be changed.
    """

    revision: int
    epoch: str
    at: int | None
    changed: bool


class Killed(Struct, kw_only=True):
    """That a flag is killed: since when (µs), by whom, why, and which variant everybody has; null: none."""

    at: int
    actor: str
    reason: str
    to: str | None


def change_of(written: Written) -> Change:
    """What scripts get of a write."""
    at = written.at if written.changed else None
    return Change(revision=written.revision, epoch=written.epoch, at=at, changed=written.changed)


def unchanged_at(position: Position) -> Change:
    """What scripts get of a write that is not needed, since all is so already: relays may still have to be told."""
    return Change(revision=position.revision, epoch=position.epoch, at=None, changed=False)


def written_of(change: Change) -> Written:
    """The write that a change tells of."""
    return Written(change.revision, change.at or 0, changed=change.changed, epoch=change.epoch)


def killed_of(kill: Kill | None) -> Killed | None:
    """What is told of a kill."""
    return None if kill is None else Killed(at=kill.at, actor=kill.actor, reason=kill.reason, to=kill.to)


def type_of(definition: Definition) -> str:
    """The type of a flag's variants: boolean, string, number or object."""
    match next(iter(definition["variants"].values())):
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case _:
            return "object"
