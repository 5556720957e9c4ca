"""The `Evaluator` of flagd's Python kits (openfeature-flagd-api), on top of our snapshots.

It stands where their `FlagdCore` stands: the same values, variants, reasons and exceptions. It is stricter about a
document's JSON (no key twice, no NaN), and milder about a single flag in it that is broken, which shows when that flag
is resolved and takes no other flag with it. Every other module of this package goes without OpenFeature; this one
needs the extra `openfeature`.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode, InvalidContextError, ParseError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason

from flagrelay.errors import DefinitionError
from flagrelay.flags.definition import check_metadata, parse_json
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.operators import REFERENCE
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.flags.typed import resolve_boolean, resolve_float, resolve_integer, resolve_object, resolve_string

NOWHERE = Position("", 0, "")
"""The position of a snapshot that is part of no environment's history."""

_SUBJECT = "flag set"


class SnapshotEvaluator:
    """Resolves flags of one flag set, from any thread.

    Args:
        settings: the generation of `fractional` is taken from them.
    """

    def __init__(self, settings: EnvironmentSettings | None = None) -> None:
        self._settings = settings or EnvironmentSettings()
        self._snapshot = Snapshot(NOWHERE, settings=self._settings)
        self._replacing = threading.Lock()

    # -- the flag set ---------------------------------------------------------------------------------

    def set_flags(self, flag_configuration: str | dict[str, Any]) -> None:
        """Take a flag set in place of the one held.

        Args:
            flag_configuration: a flagd file: its text, or what it holds.

        Raises:
            ParseError: it is none; what was held stays.
        """
        self._replace(flag_configuration)

    def set_flags_and_get_changed_keys(self, flag_configuration: str | dict[str, Any]) -> list[str]:
        """Take a flag set in place of the one held; the keys of the flags that came, went, or differ, in order.

        Args:
            flag_configuration: a flagd file: its text, or what it holds.

        Raises:
            ParseError: it is none; what was held stays.
        """
        before, after = self._replace(flag_configuration)
        old, new = _as_written(before), _as_written(after)
        return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))

    def _replace(self, flag_configuration: str | dict[str, Any]) -> tuple[Snapshot, Snapshot]:
        after = _snapshot(flag_configuration, self._settings)
        with self._replacing:
            before, self._snapshot = self._snapshot, after
        return before, after

    def get_flag_set_metadata(self) -> Mapping[str, float | int | str | bool]:
        """The metadata of the flag set."""
        return dict(self._snapshot.metadata)

    # -- its flags ------------------------------------------------------------------------------------

    def resolve_boolean_value(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001 - the protocol's signature
        ctx: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """What a flag says, as a boolean. It raises OpenFeature's errors, as do the others."""
        return _details(resolve_boolean(self._snapshot, flag_key, default_value, _context(ctx)))

    def resolve_string_value(
        self, flag_key: str, default_value: str, ctx: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """What a flag says, as a string."""
        return _details(resolve_string(self._snapshot, flag_key, default_value, _context(ctx)))

    def resolve_integer_value(
        self, flag_key: str, default_value: int, ctx: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """What a flag says, as an integer."""
        return _details(resolve_integer(self._snapshot, flag_key, default_value, _context(ctx)))

    def resolve_float_value(
        self, flag_key: str, default_value: float, ctx: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """What a flag says, as a float."""
        return _details(resolve_float(self._snapshot, flag_key, default_value, _context(ctx)))

    def resolve_object_value(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        ctx: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """What a flag says, as an object or an array."""
        return _details(resolve_object(self._snapshot, flag_key, default_value, _context(ctx)))


def _snapshot(flag_configuration: str | dict[str, Any], settings: EnvironmentSettings) -> Snapshot:
    try:
        # Through text in either case: what a caller does to its document afterwards is nothing to us.
        text = flag_configuration if isinstance(flag_configuration, str) else json.dumps(flag_configuration)
        document = _object("", parse_json(text, _SUBJECT))
        flags = _object("flags", document.get("flags", {}))
        for key, definition in flags.items():
            _object(f"flags.{key:.80}", definition)
        evaluators = _object("$evaluators", document.get("$evaluators", {}))
        metadata = check_metadata(document.get("metadata", {}))
    except (DefinitionError, TypeError, ValueError, RecursionError) as error:
        raise ParseError(str(error)) from error
    return Snapshot(NOWHERE, flags, evaluators, metadata, settings)


def _object(path: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DefinitionError(_SUBJECT, path, f"should be an object and is {json.dumps(value):.80}")
    return value


def _as_written(snapshot: Snapshot) -> dict[str, str]:
    """Each flag, with the populations that it names: as text, since to Python 1, 1.0 and true are equal."""
    return {
        key: json.dumps(
            [definition, {name: snapshot.evaluators.get(name) for name in _named(definition.get("targeting"))}],
            sort_keys=True,
        )
        for key, definition in snapshot.flags.items()
    }


def _named(rule: object) -> Iterator[str]:
    """The populations that a rule names."""
    if isinstance(rule, list):
        for each in rule:
            yield from _named(each)
    elif isinstance(rule, dict):
        for operator, arguments in rule.items():
            if operator == REFERENCE and isinstance(arguments, str):
                yield arguments
            else:
                yield from _named(arguments)


def _context(ctx: EvaluationContext | None) -> dict[str, Any]:
    """An evaluation context as rules see it."""
    if ctx is None:
        return {}
    try:
        return {**{name: _plain(value) for name, value in ctx.attributes.items()}, "targetingKey": ctx.targeting_key}
    except RecursionError as error:
        raise InvalidContextError("the context nests too deep") from error


def _plain(value: Any) -> Any:  # noqa: ANN401 - attributes are of many types
    """A value of an attribute as JSON has it: times as ISO 8601 text, sequences as lists."""
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value


def _details(resolution: Resolution) -> FlagResolutionDetails[Any]:
    if resolution.error_code:
        raise ErrorCode.to_exception(ErrorCode(resolution.error_code), resolution.error_message or "")
    return FlagResolutionDetails(
        resolution.value,
        reason=Reason(resolution.reason),
        variant=resolution.variant,
        flag_metadata=dict(resolution.metadata),
    )
