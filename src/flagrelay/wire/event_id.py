"""The id of a `put` or a `patch`: `EPOCH.REVISION`."""

import re

_EVENT_ID = re.compile(r"([0-9A-Za-z_-]{1,64})\.(0|[1-9][0-9]{0,15})")


def format_event_id(epoch: str, revision: int) -> str:
    """The id of the event that brings a client to a revision."""
    return f"{epoch}.{revision}"


def parse_event_id(text: str) -> tuple[str, int] | None:
    """Epoch and revision of an id; None for anything else, since a client may send what it likes."""
    found = _EVENT_ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None
