"""`fractional`: which of several results a key gets, by weight."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from mmh3 import mmh3_32_uintdigest

from flagrelay.flags.bucket import HASHES, SHORT_TEXT_HEADS, SHORTHANDS, pick, shorthand_v3, thresholds, weight_of

Result = Any


def share(
    prefix: bytes, flag_key: str, targeting_key: Any, limits: tuple[int, ...], results: Sequence[Result]
) -> Result:
    """The whole of `{"fractional": [[result, weight], ...]}` under generation v3, where nothing in it is computed.

    Args:
        prefix: the CBOR of an array of two, and of the flag key as its first item.
        flag_key: the same flag key.
        targeting_key: the context's.
        limits: `bucket.thresholds` of the weights.
        results: one for each weight.
    """
    try:
        data = targeting_key.encode()
        hashed = mmh3_32_uintdigest(prefix + _HEADS[len(data)] + data)
    except (AttributeError, IndexError, TypeError, UnicodeEncodeError):  # no text, an empty one, or a long one
        return choose(shorthand_v3(flag_key, targeting_key), limits, results)
    return results[bisect_right(limits, hashed)]


_HEADS: list[Any] = [None, *SHORT_TEXT_HEADS[1:]]
"""An empty targeting key is none: nothing can be put together with what stands there."""


def choose(hashed: int | None, limits: tuple[int, ...], results: Sequence[Result]) -> Result:
    """The result whose bucket a hash falls into; None without a hash."""
    return chosen(pick(hashed, limits), results)


def chosen(index: int, results: Sequence[Result]) -> Result:
    """The result at an index; None at -1."""
    return None if index < 0 else results[index]


def spread(hashed: int | None, weights: Sequence[Any]) -> int:
    """The index of the bucket that a hash falls into, by weights that were computed; -1 where there is none."""
    numbers = [weight_of(weight) for weight in weights]
    whole = [number for number in numbers if number is not None]
    limits = thresholds(whole) if len(whole) == len(numbers) else None
    return -1 if limits is None else pick(hashed, limits)


def split(generation: str, flag_key: str, targeting_key: Any, arguments: Sequence[Any]) -> Result:
    """`fractional`, of arguments that were all computed: the first is a list in the shorthand, else what decides."""
    if isinstance(arguments[0], list | tuple):
        hashed, shares = SHORTHANDS[generation](flag_key, targeting_key), arguments
    else:
        hashed, shares = HASHES[generation](arguments[0]), arguments[1:]
    if not all(is_share(each) for each in shares):
        return None
    index = spread(hashed, [each[1] if len(each) > 1 else 1 for each in shares])
    return None if index < 0 else shares[index][0]


def is_share(value: Any) -> bool:
    """Whether a value can be `[result, weight]` or `[result]`."""
    return isinstance(value, list | tuple) and 1 <= len(value) <= 2  # noqa: PLR2004 - two
