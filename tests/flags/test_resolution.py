"""What a flag says for a context: each case of it, and that nothing is raised."""

import json
from collections import UserDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.flags.change import Change
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import ErrorCode, Reason, Resolution
from flagrelay.flags.snapshot import Snapshot
from support.rules import CONTEXTS, JSON, WILD, flags, targetings

START = Position("e0", 0, "e0-0")
FLAG_SET = {"team": "shop", "version": 1, "serverOnly": False}
OWN = {"version": 2, "owner": "ada"}
MERGED = {"team": "shop", "version": 2, "serverOnly": False, "owner": "ada"}
VARIANTS: dict[str, Any] = {"on": "ON", "off": "OFF", "true": "TRUE", "false": "FALSE", "1": "ONE", "0.5": "HALF"}
POPULATIONS = {"pro": {"==": [{"var": "plan"}, "pro"]}}


def flag(targeting: Any = None, **members: Any) -> dict[str, Any]:
    definition = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", "metadata": OWN, **members}
    return definition if targeting is None else {**definition, "targeting": targeting}


def without(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    return {member: value for member, value in definition.items() if member != name}


def snapshot(definition: Any, populations: Mapping[str, Any] = POPULATIONS) -> Snapshot:
    return Snapshot(START, {"f": definition}, populations, FLAG_SET)


def resolve(definition: Any, context: Any = None) -> Resolution:
    return snapshot(definition).resolve("f", {} if context is None else context)


def said(found: Resolution) -> tuple[Any, str | None, Reason, ErrorCode | None]:
    return found.value, found.variant, found.reason, found.error_code


OFF = ("OFF", "off", Reason.DEFAULT, None)
STATIC = ("OFF", "off", Reason.STATIC, None)
NOTHING = (None, None, Reason.DEFAULT, None)
DISABLED = (None, None, Reason.DISABLED, None)


def match(variant: str) -> tuple[Any, str, Reason, None]:
    return VARIANTS[variant], variant, Reason.TARGETING_MATCH, None


def failure(code: ErrorCode) -> tuple[None, None, Reason, ErrorCode]:
    return None, None, Reason.ERROR, code


GENERAL, BROKEN = failure(ErrorCode.GENERAL), failure(ErrorCode.PARSE_ERROR)
NO_DEFAULT = without("defaultVariant", flag())

TABLE: dict[str, list[tuple[Any, Any]]] = {
    "a disabled flag has no value and no variant": [
        (flag(state="DISABLED"), DISABLED),
        (flag({"if": [True, "on"]}, state="DISABLED"), DISABLED),
        (flag({"nope": 1}, state="DISABLED"), DISABLED),
        (flag(state="DISABLED", defaultVariant="gone"), DISABLED),
        (flag(state="DISABLED", variants={}), DISABLED),
    ],
    "without targeting it is the default variant, static": [
        (flag(), STATIC),
        (flag({}), STATIC),
        (flag(targeting=None), STATIC),
    ],
    "where targeting gives null it is the default variant": [
        (flag({"if": [False, "on"]}), OFF),
        (flag({"var": "nothing"}), OFF),
        (flag({"if": [True, None]}), OFF),
        (flag({"fractional": [["on", 0]]}), OFF),
        (flag({"fractional": [["on"], ["off"]]}), OFF),
    ],
    "without a default variant where it is needed there is no value, and the caller's default is taken": [
        (NO_DEFAULT, NOTHING),
        (flag(defaultVariant=None), NOTHING),
        (flag(defaultVariant=""), NOTHING),
        (flag({"if": [False, "on"]}, defaultVariant=None), NOTHING),
        ({**NO_DEFAULT, "targeting": {"var": "nothing"}}, NOTHING),
    ],
    "a default variant is not asked for where a rule decides": [
        (flag({"if": [True, "on"]}, defaultVariant=None), match("on")),
        (flag({"if": [True, "on"]}, defaultVariant="gone"), match("on")),
        ({**NO_DEFAULT, "targeting": {"if": [True, "on"]}}, match("on")),
    ],
    "a known variant matches": [
        (flag({"if": [True, "on"]}), match("on")),
        (flag({"cat": ["o", "ff"]}), match("off")),
        (flag({"if": [{"$ref": "pro"}, "off", "on"]}), match("on")),
        (flag({"fractional": [{"var": "$flagd.flagKey"}, ["on"]]}), match("on")),
    ],
    'true and false mean "true" and "false", and numbers what they are written as': [
        (flag({"==": [1, 1]}), match("true")),
        (flag({"!": [True]}), match("false")),
        (flag({"+": ["1"]}), match("1")),
        (flag({"+": [0.25, 0.75]}), match("1")),
        (flag({"/": [1, 2]}), match("0.5")),
        (flag(defaultVariant=True), ("TRUE", "true", Reason.STATIC, None)),
    ],
    "an unknown variant is an error": [
        (flag({"if": [True, "gone"]}), GENERAL),
        (flag({"if": [True, ""]}), GENERAL),
        (flag({"+": [1, 1]}), GENERAL),
        (flag({"merge": [["on", "off"]]}), GENERAL),
        (flag({"var": ""}), GENERAL),
        (flag({"!": 1}, variants={"on": True}), GENERAL),
        (flag(defaultVariant="gone"), GENERAL),
        (flag(defaultVariant=5), GENERAL),
        (flag({"var": "nothing"}, defaultVariant="gone"), GENERAL),
    ],
    "a bad rule or definition is a parse error": [
        (flag({"nope": 1}), BROKEN),
        (flag({"if": [{"$ref": "gone"}, "on"]}), BROKEN),
        (flag([]), BROKEN),
        (flag("on"), BROKEN),
        (flag(5), BROKEN),
        (flag(state="enabled"), BROKEN),
        (without("state", flag()), BROKEN),
        (without("variants", flag()), BROKEN),
        (flag(variants={}), BROKEN),
        (flag(variants=["on"]), BROKEN),
    ],
}


@pytest.mark.parametrize(
    ("why", "definition", "expected"), [(why, *case) for why, cases in TABLE.items() for case in cases]
)
def test_each_case_of_the_table(why: str, definition: Any, expected: Any) -> None:
    found = resolve(definition)
    assert said(found) == expected
    assert found.flag_key == "f"
    assert found.metadata == MERGED
    assert (found.error_message is None) is (found.error_code is None)


@pytest.mark.parametrize("definition", [None, [], "text", 5, [["state", "ENABLED"]]])
def test_what_is_no_definition_at_all_is_a_parse_error(definition: Any) -> None:
    found = resolve(definition)
    assert said(found) == BROKEN
    assert found.metadata == FLAG_SET


def test_a_flag_that_there_is_not_is_not_found_and_has_the_flag_sets_metadata() -> None:
    found = snapshot(flag()).resolve("gone", {})
    assert said(found) == failure(ErrorCode.FLAG_NOT_FOUND)
    assert found.flag_key == "gone"
    assert found.error_message == 'there is no flag "gone"'
    assert found.metadata == FLAG_SET


@pytest.mark.parametrize("key", [None, 5, ["f"], {}, "", "\ud800", "x" * 10_000])
def test_what_can_be_no_key_is_not_found_either(key: Any) -> None:
    found = snapshot(flag()).resolve(key, {})
    assert said(found) == failure(ErrorCode.FLAG_NOT_FOUND)
    assert found.error_message is not None
    assert len(found.error_message.encode()) < 2000


@pytest.mark.parametrize(
    ("own", "merged"),
    [(OWN, MERGED), (None, FLAG_SET), ({}, FLAG_SET), ([], FLAG_SET), ({"team": "x"}, {**FLAG_SET, "team": "x"})],
)
def test_a_flags_metadata_is_over_the_flag_sets(own: Any, merged: Any) -> None:
    assert resolve(flag(metadata=own)).metadata == merged
    assert resolve(flag({"if": [{"var": "x"}, "on", "gone"]}, metadata=own)).metadata == merged


@pytest.mark.parametrize(
    ("flag_set", "own", "server_only"),
    [
        ({}, {}, False), ({"serverOnly": True}, {}, True), ({}, {"serverOnly": True}, True),
        ({"serverOnly": True}, {"serverOnly": False}, False),
        ({}, {"serverOnly": "true"}, False), ({}, {"serverOnly": 1}, False),
    ],
)  # fmt: skip
def test_a_flag_is_server_only_where_its_merged_metadata_says_true(flag_set: Any, own: Any, server_only: bool) -> None:  # noqa: FBT001
    found = Snapshot(START, {"f": flag(metadata=own)}, metadata=flag_set)
    assert found.compiled.flags["f"].server_only is server_only


def test_what_the_metadata_of_the_flag_set_becomes_shows_on_every_flag() -> None:
    before = snapshot(flag({"if": [{"$ref": "pro"}, "on"]}))
    after = before.with_change(Change("e0", 1, "e0-1", "e0-0", 0, metadata={"team": "cart"}))
    assert after.resolve("f", {"plan": "pro"}).metadata == {"team": "cart", **OWN}
    assert said(after.resolve("f", {"plan": "pro"})) == match("on")
    assert after.resolve("gone", {}).metadata == {"team": "cart"}


# -- errors in words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (flag({"if": [True, "gone"]}), 'flag "f" has no variant "gone"'),
        (flag({"if": [True, "x" * 500]}), f'flag "f" has no variant "{"x" * 80}"'),
        (flag({"if": [True, "\ud800"]}), 'flag "f" has no variant "?"'),
        (flag({"if": [True, [1, 2]]}), 'flag "f" has no variant "1,2"'),
        (flag(defaultVariant=5), 'flag "f" has no variant "int"'),
        (flag({"if": [{"nope": 1}, "on"]}), 'flag "f": at targeting.if[0].nope: "nope" is no operator'),
        (flag([]), 'flag "f": at targeting: should be an object'),
        (flag({"$ref": "gone"}), "flag \"f\": at targeting.$ref: there is no population 'gone'"),
        (flag(state="on"), 'flag "f" is no flag definition: state or variants'),
        (
            flag({"map": [{"var": "many"}, 1]}),
            'flag "f": the rule visits more than 250000 items of lists, with this context',
        ),
    ],
)
def test_an_error_says_what_is_wrong_with_which_flag(definition: Any, message: str) -> None:
    assert resolve(definition, {"many": [0] * 300_000}).error_message == message


# -- contexts -------------------------------------------------------------------------------------------------------

BY_PLAN = flag({"if": [{"==": [{"var": "plan"}, "pro"]}, "on"]})


@pytest.mark.parametrize("context", [5, "text", [1], ["plan"], b"{}", {1}, object(), True, 1.5])
def test_what_is_no_object_is_an_invalid_context(context: Any) -> None:
    found = resolve(BY_PLAN, context)
    assert said(found) == failure(ErrorCode.INVALID_CONTEXT)
    assert found.error_message == f"a context is an object, not {type(context).__name__}"
    assert said(resolve(flag(), context)) == STATIC


def test_no_context_is_an_empty_one() -> None:
    assert said(snapshot(BY_PLAN).resolve("f", None)) == OFF


@pytest.mark.parametrize("make", [dict, MappingProxyType, UserDict])
def test_any_mapping_is_a_context(make: Any) -> None:
    assert said(resolve(BY_PLAN, make({"plan": "pro"}))) == match("on")
    assert said(resolve(flag({"var": "gone"}), make({"gone": "elsewhere"}))) == GENERAL


@pytest.mark.parametrize(("sent", "seen"), [({}, "f"), ({"flagKey": "x"}, "f"), (None, "f"), ("text", "f"), ([1], "f")])
def test_what_the_evaluator_provides_is_over_anything_sent(sent: Any, seen: str) -> None:
    definition = flag({"var": "$flagd.flagKey"}, variants={"f": "the key", "x": "another"}, defaultVariant=None)
    assert resolve(definition, {"$flagd": sent}).variant == seen
    looked_up = flag({"var": {"cat": ["$flagd.", "flagKey"]}}, variants={"f": 1, "x": 2}, defaultVariant=None)
    assert resolve(looked_up, {"$flagd": sent}).variant == seen
    ticking = flag({">": [{"var": "$flagd.timestamp"}, 1_700_000_000]})
    assert said(resolve(ticking, {"$flagd": {"timestamp": 5}})) == match("true")


def test_a_context_stays_as_it_is() -> None:
    context = {"plan": "pro", "tags": [1, {"a": 2}], "targetingKey": "u1"}
    before = json.dumps(context)
    for targeting in (
        {"var": ""},
        {"merge": [{"var": "tags"}, 1]},
        {"map": [{"var": "tags"}, {"var": ""}]},
        {"var": "tags"},
    ):
        resolve(flag(targeting), context)
    assert json.dumps(context) == before


class FailingMember(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise ZeroDivisionError


class FailingMapping(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise ZeroDivisionError

    def __iter__(self) -> Any:
        raise ZeroDivisionError

    def __len__(self) -> int:
        return 1


class Unhashable(str):
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # that is what is hostile about it


@pytest.mark.parametrize(
    ("targeting", "context"),
    [
        (BY_PLAN["targeting"], FailingMember()),
        (BY_PLAN["targeting"], FailingMapping()),
        ({"var": "x"}, {"x": FailingMapping()}),
        ({"var": "x.y"}, {"x": FailingMapping()}),
        ({"var": "x"}, {"x": Unhashable("on")}),
        ({"if": [{"in": [{"var": "x"}, ["a", "b"]]}, "gone"]}, {"x": Unhashable("a")}),
    ],
)
def test_values_whose_own_code_fails_raise_nothing(targeting: Any, context: Any) -> None:
    found = resolve(flag(targeting), context)
    assert isinstance(found, Resolution)
    assert (found.reason is Reason.ERROR) is (found.error_code is not None)


# -- generations ------------------------------------------------------------------------------------------------


def test_the_generation_of_an_environment_decides_who_gets_what() -> None:
    definition = {
        "state": "ENABLED",
        "variants": {"a": 1, "b": 2},
        "defaultVariant": None,
        "targeting": {"fractional": [["a", 50], ["b", 50]]},
    }
    by_generation = {
        generation: [
            Snapshot(START, {"f": definition}, settings=EnvironmentSettings(generation))
            .resolve("f", {"targetingKey": f"user-{number}"})
            .variant
            for number in range(200)
        ]
        for generation in ("v3", "v2")
    }
    assert by_generation["v3"] != by_generation["v2"]
    assert set(by_generation["v3"]) == set(by_generation["v2"]) == {"a", "b"}


# -- what holds for any flag --------------------------------------------------------------------------------------

ANY_CONTEXT = CONTEXTS | JSON | st.none()


@settings(max_examples=300)
@given(flags(targetings() | WILD), ANY_CONTEXT)
def test_a_resolution_is_one_of_those_that_there_are(definition: Any, context: Any) -> None:
    found = snapshot(definition).resolve("f", context)
    own = definition.get("metadata", {})
    assert found.metadata == {**FLAG_SET, **own}
    match found.reason:
        case Reason.ERROR:
            assert found.error_code in (ErrorCode.GENERAL, ErrorCode.PARSE_ERROR, ErrorCode.INVALID_CONTEXT)
            assert found.error_message
            assert found.error_message.encode()
            assert found.value is found.variant is None
        case Reason.DISABLED:
            assert definition["state"] == "DISABLED"
            assert found.value is found.variant is found.error_code is None
        case Reason.TARGETING_MATCH:
            assert definition["targeting"]
            assert found.value is definition["variants"][found.variant]
            assert found.value is not None
        case Reason.STATIC:
            assert not definition["targeting"]
            assert found.value is definition["variants"][found.variant]
        case Reason.DEFAULT:
            assert found.error_code is None
            assert found.variant is None or found.value is definition["variants"][found.variant]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["state", "variants", "defaultVariant", "targeting", "metadata", "on", "if", "var", "$ref"]
            ),
            inner,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["state", "variants", "defaultVariant", "targeting", "metadata"]), JUNK), JUNK)
def test_whatever_stands_in_the_store_and_comes_as_context_nothing_is_raised(definition: Any, context: Any) -> None:
    for state in ({}, {"state": "ENABLED"}, {"state": "ENABLED", "variants": VARIANTS}):
        found = snapshot({**definition, **state}).resolve("f", context)
        assert isinstance(found.reason, Reason)
        assert (found.reason is Reason.ERROR) is (found.error_code is not None)
