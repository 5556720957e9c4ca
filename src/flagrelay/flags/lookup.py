"""What `var` finds in a context, and what `missing` does not."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from flagrelay.flags.javascript import item, to_string, truthy
from flagrelay.flags.javascript import to_number as number
from flagrelay.flags.meter import charge

PROVIDED = "$flagd"
"""The member of every context that the evaluator sets, over anything sent: `flagKey` and `timestamp`."""


def timestamp() -> int:
    """`$flagd.timestamp`: seconds since 1970."""
    return int(time.time())


def provided(flag_key: str) -> dict[str, Any]:
    """`$flagd`."""
    return {"flagKey": flag_key, "timestamp": timestamp()}


def whole(data: Any, flag_key: str | None) -> Any:
    """Everything that a rule can see: `{"var": ""}`. Inside a loop (no flag key) that is the item."""
    return data if flag_key is None else {**data, PROVIDED: provided(flag_key)}


def look(data: Any, flag_key: str | None, name: Any, default: Any = None) -> Any:
    """`{"var": [name, default]}` where the name is known only now. Null is absent, and gives the default."""
    if name is None or name == "":
        return whole(data, flag_key)
    first, *rest = to_string(name).split(".")
    found = provided(flag_key) if first == PROVIDED and flag_key is not None else item(data, first)
    return descend(found, rest, default)


def descend(found: Any, rest: Sequence[str], default: Any = None) -> Any:
    """The rest of a path, from what its first part gave."""
    for name in rest:
        if found is None:
            return default
        found = found.get(name) if found.__class__ is dict else item(found, name)
    return default if found is None else found


def missing(data: Any, flag_key: str | None, names: Sequence[Any]) -> list[Any]:
    """Those of the names under which there is nothing, null or an empty text."""
    if names and isinstance(names[0], list):
        names = names[0]
    charge(len(names))
    return [name for name in names if look(data, flag_key, name) in (None, "")]


def missing_some(data: Any, flag_key: str | None, needed: Any, names: Any) -> list[Any]:
    """The missing ones, unless at least as many as needed are there."""
    listed = names if isinstance(names, list) else [names]
    lacking = missing(data, flag_key, [listed])
    return [] if len(listed) - len(lacking) >= number(needed) else lacking


def kept(items: Any, test: Any, flag_key: str) -> list[Any]:
    """`filter`."""
    if not isinstance(items, list | tuple):
        return []
    return [each for each in _counted(items, test) if truthy(test(each, flag_key))]


def mapped(items: Any, rule: Any, flag_key: str) -> list[Any]:
    """`map`."""
    return [rule(each, flag_key) for each in _counted(items, rule)] if isinstance(items, list | tuple) else []


def reduced(items: Any, rule: Any, initial: Any, flag_key: str) -> Any:
    """`reduce`."""
    if isinstance(items, list | tuple):
        for each in _counted(items, rule):
            initial = rule({"current": each, "accumulator": initial}, flag_key)
    return initial


def every(items: Any, test: Any, flag_key: str) -> bool:
    """`all`: false of nothing."""
    return (
        isinstance(items, list | tuple)
        and bool(items)
        and all(truthy(test(each, flag_key)) for each in _counted(items, test))
    )


def some(items: Any, test: Any, flag_key: str) -> bool:
    """`some`."""
    return isinstance(items, list | tuple) and any(truthy(test(each, flag_key)) for each in _counted(items, test))


def none(items: Any, test: Any, flag_key: str) -> bool:
    """`none`."""
    return not some(items, test, flag_key)


def _counted(items: Sequence[Any], rule: Any) -> Sequence[Any]:
    charge((len(items) + 1) * getattr(rule, "weight", 1))
    return items


def targeting_key(data: Any) -> Any:
    """What `fractional` takes where it is not told what to look at."""
    return data.get("targetingKey") if isinstance(data, Mapping) else None
