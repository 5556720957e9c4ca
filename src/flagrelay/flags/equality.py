"""Equality as JSON has it."""

from typing import Any


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. Python's own equality takes true for 1, and 1 for 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
