"""The event that everybody sends: a change of one flag with a rule, as flagrelay sends it."""

from dataclasses import dataclass
from typing import Any

KEY = "checkout-v2"
NAME = "patch"
PADDING = "x" * 120
"""Makes the event about 450 bytes, as a flag with a rule of a few conditions has."""

FIRST = 1000
"""Rounds count from here, so that all events are of one length."""


def definition(number: int) -> dict[str, Any]:
    """The flag in a round."""
    return {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": {"if": [{"in": [{"var": "email"}, ["ada@example.com", PADDING]]}, "on", "off"]},
        "metadata": {"round": number},
    }


@dataclass(frozen=True, slots=True)
class Event:
    """An event as a relay has sent it once, in the round `FIRST`.

    Args:
        frame: all of it, framing of HTTP included.
    """

    frame: bytes

    def framed(self, number: int) -> bytes:
        """The same bytes, in another round."""
        return self.frame.replace(_mark(FIRST), _mark(number))

    def data(self, number: int) -> bytes:
        """What stands behind `data: `: each server gives it an id and a frame of its own."""
        return next(line for line in self.framed(number).split(b"\n") if line.startswith(b"data: "))[6:]


def rounds_in(text: bytes) -> list[int]:
    """Which rounds' events a stream has got, in order."""
    return [int(piece[:4]) for piece in text.split(_MARK)[1:]]


_MARK = b'"round":'


def _mark(number: int) -> bytes:
    return b"%b%d" % (_MARK, number)
