"""Semantic versions, as `sem_ver` compares them."""

from functools import lru_cache
from typing import Any

from semver import Version

from flagrelay.flags.javascript import to_string

LONGEST = 256
"""Characters of a version; npm's limit. What is longer is none."""

Comparable = tuple[int, int, int, tuple[Any, ...]]
"""A version that Python orders as semver.org does (section 11); build metadata is gone."""


def parse_version(value: Any) -> Comparable | None:
    """A version: with or without v, of one part to three, a number or a string; None where it is none."""
    text = to_string(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    return _parse(text) if len(text) <= LONGEST else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Comparable | None:
    text = text[1:] if text[:1] in ("v", "V") else text
    numbers = text.partition("-")[0].partition("+")[0]
    missing = 2 - numbers.count(".")
    padded = numbers + ".0" * missing + text[len(numbers) :]
    try:
        version = Version.parse(padded)
    except (ValueError, TypeError):
        return None
    return version.major, version.minor, version.patch, _precedence(version.prerelease)


def _precedence(prerelease: str | None) -> tuple[Any, ...]:
    if prerelease is None:
        return (1,)
    return (0, *[(0, int(part), "") if part.isdigit() else (1, 0, part) for part in prerelease.split(".")])


def compare_versions(left: Any, operator: Any, right: Any) -> bool | None:
    """`sem_ver`; None where one is no version or the operator is none."""
    compare = COMPARISONS.get(operator) if isinstance(operator, str) else None
    ours, theirs = parse_version(left), parse_version(right)
    return compare(ours, theirs) if compare and ours and theirs else None


COMPARISONS = {
    "=": lambda ours, theirs: ours == theirs,
    "!=": lambda ours, theirs: ours != theirs,
    "<": lambda ours, theirs: ours < theirs,
    "<=": lambda ours, theirs: ours <= theirs,
    ">": lambda ours, theirs: ours > theirs,
    ">=": lambda ours, theirs: ours >= theirs,
    "^": lambda ours, theirs: ours[0] == theirs[0],
    "~": lambda ours, theirs: ours[:2] == theirs[:2],
}
