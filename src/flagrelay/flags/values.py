"""What a part of a rule is to the compiler: known already, or known only when a context comes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flagrelay.flags.forms import Form

CONTEXT: Form = ("context",)
KEY: Form = ("key",)
NONE: Form = ("none",)

PLAIN_TRUTH = ("bool", "str", "list", "int")
"""Kinds whose truth is Python's."""


class Dynamic(NamedTuple):
    """What is known only when a context comes: how to compute it, and of what kind it will be, where that is known."""

    form: Form
    kind: str = ""


class Constant(NamedTuple):
    """What is known already."""

    value: Any


Value = Dynamic | Constant


def known(values: Sequence[Value]) -> bool:
    """Whether all of them are known already."""
    return all(isinstance(value, Constant) for value in values)


def constants(values: Sequence[Value]) -> list[Any]:
    """Those of them that are known already."""
    return [value.value for value in values if isinstance(value, Constant)]


def kind_of(value: Value) -> str:
    """The kind that a value has or will have; empty where only the context decides.

    Empty for constants that count as false, too: what stands for one in a syntax tree is a text that counts as true,
    and Python's compiler, which takes what it finds in a condition at its word, must not find it there.
    """
    if isinstance(value, Dynamic):
        return value.kind
    if value.value is not False and not value.value:
        return ""
    return {bool: "bool", str: "str", list: "list", int: "int"}.get(type(value.value), "")


def may_be_list(value: Value) -> bool:
    """Whether it is a list, or only the context decides if it is."""
    return value.kind in ("", "list") if isinstance(value, Dynamic) else isinstance(value.value, list)
