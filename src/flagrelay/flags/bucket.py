"""Buckets of `fractional`: who falls where, stable for each key, spread evenly over keys.

Source: flagd's fractional operation. Generation v3 hashes the canonical CBOR (RFC 8949, section 4.2) of what decides,
v2 its UTF-8. The hash is MurmurHash3 x86 32-bit with seed 0.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import cbor2
from mmh3 import mmh3_32_uintdigest

MAX_TOTAL = 2**31 - 1
"""The most that all weights may come to."""

GENERATIONS = ("v3", "v2")

Hash = Callable[[Any], int | None]


def hash_v3(value: Any) -> int | None:
    """The hash of any JSON value; None for null, and for what CBOR cannot hold."""
    if value is None:
        return None
    if value.__class__ is str:
        try:
            return mmh3_32_uintdigest(_cbor_text(value))
        except UnicodeEncodeError:
            return None
    try:
        return mmh3_32_uintdigest(cbor2.dumps(_normal(value), canonical=True))
    except (cbor2.CBOREncodeError, ValueError, TypeError, OverflowError):
        return None


def hash_v2(value: Any) -> int | None:
    """The hash of a string; None for everything else."""
    try:
        return mmh3_32_uintdigest(value.encode()) if isinstance(value, str) else None
    except UnicodeEncodeError:
        return None


def shorthand_v3(flag_key: Any, targeting_key: Any) -> int | None:
    """The hash of `[flagKey, targetingKey]`; None without a targeting key."""
    if not isinstance(targeting_key, str) or not targeting_key:
        return None
    try:
        return mmh3_32_uintdigest(array_of_two(flag_key) + _cbor_text(targeting_key))
    except UnicodeEncodeError:
        return None


def shorthand_v2(flag_key: Any, targeting_key: Any) -> int | None:
    """The hash of flagKey + targetingKey; None without a targeting key."""
    return hash_v2(flag_key + targeting_key) if isinstance(targeting_key, str) and targeting_key else None


HASHES: dict[str, Hash] = {"v3": hash_v3, "v2": hash_v2}
SHORTHANDS: dict[str, Callable[[Any, Any], int | None]] = {"v3": shorthand_v3, "v2": shorthand_v2}


def array_of_two(flag_key: str) -> bytes:
    """The CBOR of an array of two items, up to the end of its first, a flag key."""
    return b"\x82" + _cbor_text(flag_key)


def _cbor_text(text: str) -> bytes:
    # Beside cbor2 because a call of it for one short string takes as long as the whole rest of a rule.
    data = text.encode()
    size = len(data)
    if size < len(SHORT_TEXT_HEADS):
        return SHORT_TEXT_HEADS[size] + data
    if size < 65536:  # noqa: PLR2004
        return b"\x79" + size.to_bytes(2, "big") + data
    return b"\x7a" + size.to_bytes(4, "big") + data


SHORT_TEXT_HEADS = [bytes([0x60 + size]) if size < 24 else bytes([0x78, size]) for size in range(256)]  # noqa: PLR2004
"""What stands before a text of so many bytes (RFC 8949, section 3)."""


def _normal(value: Any) -> Any:
    """One number, one encoding: whole floats that fit into 64 bits are integers."""
    if isinstance(value, dict):
        return {name: _normal(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(member) for member in value]
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value <= 2**64 - 1:
        return int(value)
    return value


def weight_of(value: Any) -> int | None:
    """A weight: a whole number, below 0 counts as 0; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return max(0, int(value)) if value.is_integer() else None
    return max(0, value) if isinstance(value, int) else None


def thresholds(weights: Sequence[int]) -> tuple[int, ...] | None:
    """For each weight the hash from which on its bucket is passed; None for a total that cannot be shared out.

    `(hash * total) >> 32 < sum` is the same as `hash < ceil(sum * 2^32 / total)`: so the search needs the hash alone.
    """
    total = sum(weights)
    if not 0 < total <= MAX_TOTAL:
        return None
    return tuple(-(-(reached << 32) // total) for reached in accumulate(weights))


def pick(hashed: int | None, limits: tuple[int, ...]) -> int:
    """The index of the bucket that a hash falls into; -1 without one."""
    return -1 if hashed is None else bisect_right(limits, hashed)
