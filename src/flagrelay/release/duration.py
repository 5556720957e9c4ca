"""Times as people write them: `90s`, `30m`, `1h`, `1d12h`."""

import re

from flagrelay.errors import DefinitionError

UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}

LONGEST = 366 * 86_400
"""Seconds of the longest time that anything here takes."""

_PARTS = re.compile(r"(?:\d{1,9}[wdhms])+")
_PART = re.compile(r"(\d+)([wdhms])")


def parse_duration(subject: str, path: str, value: object) -> int:
    """Seconds of a time: a text such as `1d12h`, or a whole number of seconds.

    Raises:
        DefinitionError: it is none, or longer than a year.
    """
    seconds = -1
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str) and _PARTS.fullmatch(value):
        seconds = sum(int(count) * UNITS[unit] for count, unit in _PART.findall(value))
    if not 0 <= seconds <= LONGEST:
        raise DefinitionError(subject, path, f"{value!r:.80} is no time such as 90s, 30m, 1h, 1d12h (a year at most)")
    return seconds


def format_duration(seconds: float) -> str:
    """A time for people, in its two largest units: `1d12h`; whole seconds, upwards."""
    left = max(0, -int(-seconds // 1))
    parts = []
    for unit, size in UNITS.items():
        count, rest = divmod(left, size)
        if unit == "w" and rest:  # 8d rather than 1w1d
            continue
        if count:
            parts.append(f"{count}{unit}")
            left = rest
    return "".join(parts[:2]) or "0s"
