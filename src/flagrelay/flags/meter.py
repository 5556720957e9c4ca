"""How much work one evaluation may still do, where a rule could do much: loops, and lists that come with contexts."""

import math
import threading

from flagrelay.errors import RuleTooLong

LIMIT = 250_000
"""Items that one evaluation of a rule may visit, all loops and lists together: some tenths of a second at most."""


CHARACTERS = 64
"""Characters of a text that count as one item where a text is looked through."""


class _Meter(threading.local):
    """Per thread, since an evaluation never leaves its own."""

    left: float = math.inf


_meter = _Meter()


def charge(items: int) -> None:
    """Count work that grows with the data.

    Raises:
        RuleTooLong: it was more than an evaluation may do.
    """
    _meter.left -= items
    if _meter.left < 0:
        raise RuleTooLong(LIMIT)


def start() -> None:
    """An evaluation begins that may do much."""
    _meter.left = LIMIT


def stop() -> None:
    """It has ended."""
    _meter.left = math.inf
