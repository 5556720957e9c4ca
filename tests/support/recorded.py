"""What JavaScript said, read back from JSON lines: `{"$": "NaN"}` and its like stand for what JSON has no word for."""

import json
import math
from pathlib import Path
from typing import Any

FUNCTION = object()
ERROR = object()

_SPECIAL: dict[str, Any] = {
    "NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
    "undefined": None,  # which is what it becomes wherever JSON is written
    "function": FUNCTION,
    "error": ERROR,
}


def recorded(path: Path) -> list[list[Any]]:
    """The lines of a file."""
    return [json.loads(line, object_hook=_read) for line in path.read_text(encoding="utf-8").splitlines()]


def _read(members: dict[str, Any]) -> Any:
    return _SPECIAL[members["$"]] if members.keys() == {"$"} else members


def alike(ours: Any, theirs: Any) -> bool:
    """The same to JavaScript, all of whose numbers are doubles; booleans are no numbers, and NaN is NaN."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        left, right = float(ours), float(theirs)
        return left == right or (left != left and right != right)  # noqa: PLR0124 - NaN
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(alike(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    return type(ours) is type(theirs) and bool(ours == theirs)
