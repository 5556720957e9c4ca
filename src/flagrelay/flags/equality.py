"""Equality as JSON has it."""

from typing import Any


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. Python's own equality takes true for 1, and 1 for 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        rest = ((each, its) for each, its in zip(one, other, strict=True) if each.__class__ is not str)
        return one == other and all(same(each, its) for each, its in rest)
    return type(one) is type(other) and bool(one == other)
