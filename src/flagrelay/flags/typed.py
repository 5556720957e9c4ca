"""What a flag says to a caller who wants a value of one type, and who has a default: OpenFeature's five types.

Nothing here raises: a value of another type is the error TYPE_MISMATCH, and wherever there is no value of the type,
the caller's default is the value.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from flagrelay.flags.resolution import ErrorCode, Reason, Resolution
from flagrelay.flags.snapshot import Snapshot


class FlagType(StrEnum):
    """What a caller may want a value to be."""

    BOOLEAN = "boolean"
    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    OBJECT = "object"


TYPES: Final[Mapping[FlagType, tuple[type, ...]]] = {
    FlagType.BOOLEAN: (bool,),
    FlagType.STRING: (str,),
    FlagType.INTEGER: (int,),
    FlagType.FLOAT: (float, int),
    FlagType.OBJECT: (dict, list),
}
"""The values that each type takes. To Python a boolean is an integer; to flags it is not."""


def resolve_boolean(
    snapshot: Snapshot,
    flag_key: str,
    default: bool,  # noqa: FBT001 - what OpenFeature calls it with
    context: Any,
) -> Resolution:
    """What a flag says, as a boolean."""
    return resolve_typed(snapshot, FlagType.BOOLEAN, flag_key, default, context)


def resolve_string(snapshot: Snapshot, flag_key: str, default: str, context: Any) -> Resolution:
    """What a flag says, as a string."""
    return resolve_typed(snapshot, FlagType.STRING, flag_key, default, context)


def resolve_integer(snapshot: Snapshot, flag_key: str, default: int, context: Any) -> Resolution:
    """What a flag says, as an integer: 1.0 is none."""
    return resolve_typed(snapshot, FlagType.INTEGER, flag_key, default, context)


def resolve_float(snapshot: Snapshot, flag_key: str, default: float, context: Any) -> Resolution:
    """What a flag says, as a float: 1 is 1.0."""
    return resolve_typed(snapshot, FlagType.FLOAT, flag_key, default, context)


def resolve_object(
    snapshot: Snapshot, flag_key: str, default: Mapping[str, Any] | Sequence[Any], context: Any
) -> Resolution:
    """What a flag says, as an object or an array."""
    return resolve_typed(snapshot, FlagType.OBJECT, flag_key, default, context)


def resolve_typed(snapshot: Snapshot, flag_type: FlagType, flag_key: str, default: Any, context: Any) -> Resolution:
    """What a flag says, as a value of a type.

    Args:
        snapshot: where the flag is.
        flag_type: what the caller wants.
        flag_key: the flag.
        default: what the caller takes where there is no such value; its own type is the caller's affair.
        context: the evaluation context.
    """
    found = snapshot.resolve(flag_key, context)
    if found.variant is None:  # disabled, without a default variant, or an error
        return _with(found, default)
    value = found.value
    if isinstance(value, bool) is not (flag_type is FlagType.BOOLEAN) or not isinstance(value, TYPES[flag_type]):
        return _mismatch(found, flag_type, default)
    if flag_type is not FlagType.FLOAT or isinstance(value, float):
        return found
    try:
        return _with(found, float(found.value))
    except OverflowError:
        return _mismatch(found, flag_type, default)


def _with(found: Resolution, value: Any) -> Resolution:
    """The same with another value, which is the caller's: what was found is shared by all callers."""
    return Resolution(
        found.flag_key,
        value,
        found.variant,
        found.reason,
        found.error_code,
        found.error_message,
        found.metadata,
        found.fractions,
    )


def _mismatch(found: Resolution, flag_type: FlagType, default: Any) -> Resolution:
    message = f'flag "{found.flag_key}" is asked for as {flag_type}; its variant "{found.variant}" is none'
    return Resolution(found.flag_key, default, None, Reason.ERROR, ErrorCode.TYPE_MISMATCH, message, found.metadata)
