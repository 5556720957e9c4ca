"""What a flag says for a context. The names are OpenFeature's (specification, types)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Metadata = Mapping[str, bool | int | float | str]


class Reason(StrEnum):
    """Why a flag has the value that it has."""

    STATIC = "STATIC"
    DEFAULT = "DEFAULT"
    TARGETING_MATCH = "TARGETING_MATCH"
    DISABLED = "DISABLED"
    ERROR = "ERROR"


class ErrorCode(StrEnum):
    """Why it has none."""

    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    PARSE_ERROR = "PARSE_ERROR"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    GENERAL = "GENERAL"


@dataclass(eq=False, slots=True)
class Resolution:
    """The resolution details of one flag for one context. Made once and shared: not to be changed.

    Args:
        flag_key: the flag.
        value: what it says; None where the caller's default is to be taken.
        variant: the name of that; None where there is none.
        reason: why.
        error_code: None where nothing is wrong.
        error_message: what is wrong, for people; None where nothing is.
        metadata: the flag's, over the flag set's.
        fractions: whether it is a flag of numbers that are not all whole.
        memo: whatever is worked out from it once, by whoever does; never read here.
    """

    flag_key: str
    value: Any = None
    variant: str | None = None
    reason: Reason = Reason.ERROR
    error_code: ErrorCode | None = None
    error_message: str | None = None
    metadata: Metadata = field(default_factory=dict)
    fractions: bool = False
    memo: Any = None
