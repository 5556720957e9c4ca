"""The id of a `put` or a `patch`: `EPOCH.REVISION`, or `EPOCH.REVISION~MARK` where a relay has kills of its own."""

import re
from typing import NamedTuple

from flagrelay.flags.snapshot import Snapshot

_EVENT_ID = re.compile(r"([0-9A-Za-z_-]{1,64})\.(0|[1-9][0-9]{0,15})(?:~([0-9a-f]{1,32}))?")


class EventId(NamedTuple):
    """What an event brings a client to.

    `mark` tells which local kills are on top of the revision; it is empty where there are none. The same revision
    with another mark is another state, so nobody can resume one in the other.
    """

    epoch: str
    revision: int
    mark: str = ""


def format_event_id(epoch: str, revision: int, mark: str = "") -> str:
    """The id of the event that brings a client to a revision."""
    return f"{epoch}.{revision}~{mark}" if mark else f"{epoch}.{revision}"


def event_id_of(snapshot: Snapshot) -> str:
    """The id of the event that brings a client to a snapshot."""
    return format_event_id(snapshot.position.epoch, snapshot.position.revision, snapshot.mark)


def parse_event_id(text: str) -> EventId | None:
    """The parts of an id; None for anything else, since a client may send what it likes."""
    found = _EVENT_ID.fullmatch(text)
    return EventId(found[1], int(found[2]), found[3] or "") if found else None
