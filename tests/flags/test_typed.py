import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.flags.position import Position
from flagrelay.flags.resolution import ErrorCode, Reason, Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.flags.typed import (
    TYPES,
    FlagType,
    resolve_boolean,
    resolve_float,
    resolve_integer,
    resolve_object,
    resolve_string,
    resolve_typed,
)

DEFAULTS: dict[FlagType, Any] = {
    FlagType.BOOLEAN: True,
    FlagType.STRING: "the default",
    FlagType.INTEGER: -7,
    FlagType.FLOAT: -7.5,
    FlagType.OBJECT: {"the": "default"},
}

WRAPPERS: dict[FlagType, Callable[[Snapshot, str, Any, Any], Resolution]] = {
    FlagType.BOOLEAN: resolve_boolean,
    FlagType.STRING: resolve_string,
    FlagType.INTEGER: resolve_integer,
    FlagType.FLOAT: resolve_float,
    FlagType.OBJECT: resolve_object,
}

VALUES: list[tuple[Any, set[FlagType]]] = [
    (True, {FlagType.BOOLEAN}),
    (False, {FlagType.BOOLEAN}),
    ("", {FlagType.STRING}),
    ("true", {FlagType.STRING}),
    ("1", {FlagType.STRING}),
    (0, {FlagType.INTEGER, FlagType.FLOAT}),
    (1, {FlagType.INTEGER, FlagType.FLOAT}),
    (-(2**63), {FlagType.INTEGER, FlagType.FLOAT}),
    (10**400, {FlagType.INTEGER}),
    (1.0, {FlagType.FLOAT}),
    (0.5, {FlagType.FLOAT}),
    ({}, {FlagType.OBJECT}),
    ({"a": 1}, {FlagType.OBJECT}),
    ([], {FlagType.OBJECT}),
    ([1, "a"], {FlagType.OBJECT}),
    (None, set()),
]
"""Values, and the types that they are of."""


def snapshot(**flag: Any) -> Snapshot:
    definition = {"state": "ENABLED", "defaultVariant": "it", "metadata": {"owner": "ada"}, **flag}
    return Snapshot(Position("e0", 0, "e0-0"), {"flag": definition}, metadata={"team": "checkout"})


def parts(resolution: Resolution) -> tuple[Any, ...]:
    return (resolution.value, resolution.variant, resolution.reason, resolution.error_code, resolution.error_message)


def test_each_type_has_its_values_and_its_function() -> None:
    assert set(TYPES) == set(FlagType) == set(WRAPPERS) == set(DEFAULTS)
    assert set().union(*(types for _, types in VALUES)) == set(FlagType)


@pytest.mark.parametrize("flag_type", FlagType)
@pytest.mark.parametrize(("value", "types"), VALUES, ids=[json.dumps(value)[:20] for value, _ in VALUES])
def test_a_value_is_given_to_who_wants_its_type_and_to_nobody_else(
    value: Any, types: set[FlagType], flag_type: FlagType
) -> None:
    default = DEFAULTS[flag_type]
    found = WRAPPERS[flag_type](snapshot(variants={"it": value}), "flag", default, {})
    assert found.flag_key == "flag"
    assert found.metadata == {"team": "checkout", "owner": "ada"}
    if flag_type in types:
        assert found.value == value
        assert type(found.value) is (float if flag_type is FlagType.FLOAT else type(value))
        assert parts(found)[1:] == ("it", Reason.STATIC, None, None)
    else:
        assert found.value is default
        assert parts(found)[1:4] == (None, Reason.ERROR, ErrorCode.TYPE_MISMATCH)
        assert found.error_message
        assert flag_type in found.error_message
        assert '"flag"' in found.error_message


WITHOUT_A_VALUE: list[tuple[dict[str, Any], Reason, ErrorCode | None]] = [
    ({"state": "DISABLED"}, Reason.DISABLED, None),
    ({"defaultVariant": None}, Reason.DEFAULT, None),
    ({"targeting": {"if": [False, "it"]}, "defaultVariant": None}, Reason.DEFAULT, None),
    ({"targeting": {"if": [True, "other"]}}, Reason.ERROR, ErrorCode.GENERAL),
    ({"targeting": {"$ref": "nobody"}}, Reason.ERROR, ErrorCode.PARSE_ERROR),
]


@pytest.mark.parametrize("flag_type", FlagType)
@pytest.mark.parametrize(("flag", "reason", "code"), WITHOUT_A_VALUE)
def test_the_default_stands_in_for_a_value_that_is_not_there(
    flag: dict[str, Any], reason: Reason, code: ErrorCode | None, flag_type: FlagType
) -> None:
    # Of no type that anybody wants: a default alone is no mismatch.
    of_flags = snapshot(variants={"it": "text"}, **flag)
    default = DEFAULTS[flag_type]
    found = WRAPPERS[flag_type](of_flags, "flag", default, {})
    untyped = of_flags.resolve("flag", {})
    assert found.value is default
    assert parts(found)[1:] == parts(untyped)[1:]
    assert parts(found)[1:4] == (None, reason, code)
    assert found.metadata == {"team": "checkout", "owner": "ada"}


@pytest.mark.parametrize("flag_type", FlagType)
def test_a_flag_that_is_not_there_gives_the_default_and_says_so(flag_type: FlagType) -> None:
    found = WRAPPERS[flag_type](snapshot(variants={"it": 1}), "another", DEFAULTS[flag_type], {})
    assert found.value is DEFAULTS[flag_type]
    assert (found.reason, found.error_code) == (Reason.ERROR, ErrorCode.FLAG_NOT_FOUND)
    assert found.metadata == {"team": "checkout"}


def test_a_context_that_is_none_gives_the_default() -> None:
    of_flags = snapshot(variants={"it": True}, targeting={"if": [{"var": "beta"}, "it", "it"]})
    found = resolve_boolean(of_flags, "flag", False, ["no", "context"])
    assert parts(found)[:4] == (False, None, Reason.ERROR, ErrorCode.INVALID_CONTEXT)


def test_the_rule_decides_before_the_type_is_looked_at() -> None:
    of_flags = snapshot(variants={"number": 1, "it": "text"}, targeting={"if": [{"var": "beta"}, "number"]})
    assert parts(resolve_integer(of_flags, "flag", 9, {"beta": True}))[:3] == (1, "number", Reason.TARGETING_MATCH)
    assert parts(resolve_string(of_flags, "flag", "", {"beta": False}))[:3] == ("text", "it", Reason.DEFAULT)
    assert resolve_string(of_flags, "flag", "", {"beta": True}).error_code is ErrorCode.TYPE_MISMATCH


def test_no_caller_sees_the_default_of_another() -> None:
    of_flags = snapshot(variants={"it": 1}, state="DISABLED")
    first, second = (resolve_string(of_flags, "flag", default, {}) for default in ("one", "another"))
    assert (first.value, second.value) == ("one", "another")
    assert of_flags.resolve("flag", {}).value is None


def test_a_float_for_one_caller_stays_an_integer_for_the_next() -> None:
    of_flags = snapshot(variants={"it": 1})
    assert repr(resolve_float(of_flags, "flag", 0.0, {}).value) == "1.0"
    assert repr(resolve_integer(of_flags, "flag", 0, {}).value) == "1"


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(flag_type=st.sampled_from(FlagType), variants=ANYTHING, default=ANYTHING, context=ANYTHING, key=ANYTHING)
def test_whatever_it_is_asked_it_raises_nothing_and_gives_a_value_of_the_type_or_the_default(
    flag_type: FlagType, variants: Any, default: Any, context: Any, key: Any
) -> None:
    of_flags = snapshot(variants={"it": variants, **(variants if isinstance(variants, dict) else {})})
    for flag_key in (key, "flag"):
        found = resolve_typed(of_flags, flag_type, flag_key, default, context)
        if found.variant is None:
            assert found.value is default
        else:
            assert isinstance(found.value, TYPES[flag_type])
            assert isinstance(found.value, bool) is (flag_type is FlagType.BOOLEAN)
