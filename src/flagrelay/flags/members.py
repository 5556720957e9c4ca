"""A literal list that `in` looks into, as sets."""

from typing import Any


class Texts(frozenset[str]):
    """A set of texts. Not a plain one: Python would look into each, to intern what it finds, when code takes it in."""

    __slots__ = ()


class Members:
    """The items of a literal list, by how JavaScript's `===` tells them apart.

    Arrays and objects in it equal nothing: each evaluation would make new ones.
    """

    __slots__ = ("_constants", "_numbers", "texts")

    def __init__(self, items: list[Any]) -> None:
        others = [item for item in items if not isinstance(item, str)]
        self.texts = Texts([item for item in items if isinstance(item, str)] if others else items)
        self._numbers = frozenset(
            item for item in others if isinstance(item, int | float) and not isinstance(item, bool)
        )
        self._constants = [item for item in (None, True, False) if any(item is each for each in others)]

    def have(self, value: Any) -> bool:
        """Whether a value is among them."""
        if isinstance(value, str):
            return value in self.texts
        if value is None or isinstance(value, bool):
            return any(value is constant for constant in self._constants)
        return isinstance(value, int | float) and value in self._numbers


def has(members: Members, value: Any) -> bool:
    """Whether a value is among the items."""
    return members.have(value)
