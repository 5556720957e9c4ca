import json
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError
from flagrelay.flags.definition import (
    MAX_DEFINITION_BYTES,
    MAX_DEPTH,
    MAX_FLAGS,
    MAX_POPULATION_BYTES,
    check_environment_name,
    check_flag,
    check_flag_set,
    check_metadata,
    check_population,
    parse_json,
)

GOOD: dict[str, Any] = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JUNK = st.recursive(
    SCALARS | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["state", "variants", "defaultVariant", "targeting", "metadata", "flags", "key"]), inner
        )
    ),
    max_leaves=20,
)


def flag(**members: Any) -> dict[str, Any]:
    return {**GOOD, **members}


def nested(depth: int, value: Any = 1) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "definition",
    [
        GOOD,
        flag(defaultVariant=None),
        {"state": "DISABLED", "variants": {"only": "text"}},
        flag(variants={"none": 0, "some": 2.5}, defaultVariant="none"),
        flag(variants={"a": {"deep": [1, {"er": None}]}, "b": {}}, defaultVariant="b"),
        flag(targeting={}),
        flag(targeting={"if": [{"$ref": "beta"}, "on", "off"]}),
        flag(metadata={"owner": "ada", "version": 3, "stable": True, "weight": 0.5}),
    ],
)
def test_a_flagd_definition_is_taken_as_it_is(definition: dict[str, Any]) -> None:
    before = json.dumps(definition)
    assert check_flag("flag", definition) is definition
    assert json.dumps(definition) == before


@pytest.mark.parametrize(
    ("definition", "path", "cause"),
    [
        ([], "", "should be an object and is an array"),
        ({"variants": {"on": True}}, "state", "missing"),
        ({"state": "ENABLED"}, "variants", "missing"),
        (flag(state="enabled"), "state", '"enabled" is neither ENABLED nor DISABLED'),
        (flag(state=True), "state", "neither ENABLED nor DISABLED"),
        (flag(state=["ENABLED"]), "state", "neither ENABLED nor DISABLED"),
        (flag(variants={}), "variants", "empty"),
        (flag(variants=["on"]), "variants", "should be an object and is an array"),
        (flag(variants={"": True}), "variants", "name is empty"),
        (flag(variants={"on": True, "off": "false"}), "variants.off", 'a string, while "on" is a boolean'),
        (flag(variants={"on": 1, "off": False}), "variants.off", 'a boolean, while "on" is a number'),
        (flag(variants={"on": None}), "variants.on", "null; a variant is"),
        (flag(variants={"on": [1]}), "variants.on", "an array; a variant is"),
        (flag(defaultVariant="maybe"), "defaultVariant", '"maybe" is none of the variants: on, off'),
        (flag(defaultVariant=True), "defaultVariant", "a boolean; it is a variant's name, or null"),
        (flag(targeting=None), "targeting", "should be an object and is null"),
        (flag(targeting="on"), "targeting", "should be an object and is a string"),
        (flag(metadata={"owner": {"name": "ada"}}), "metadata.owner", "an object; metadata is flat"),
        (flag(metadata={"owner": None}), "metadata.owner", "null; metadata is flat"),
        (
            flag(rollout=10),
            "rollout",
            "unknown member; a flag has state, variants, defaultVariant, targeting, metadata",
        ),
        (flag(variants={"on": float("nan")}), "variants.on", "nan is no JSON number"),
        (flag(targeting={"==": [1, float("-inf")]}), "targeting.==[1]", "-inf is no JSON number"),
        (flag(variants={"on": 2**64}), "variants.on", "more than 64 bits"),
        (flag(targeting={"in": [b"x"]}), "targeting.in[0]", "a bytes is no JSON value"),
        (flag(targeting={1: 2}), "targeting", "a member's name is a string, not a number"),
    ],
)
def test_a_wrong_definition_is_refused_with_flag_path_and_cause(definition: Any, path: str, cause: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        check_flag("checkout", definition)
    assert refused.value.subject == 'flag "checkout"'
    assert refused.value.path == path
    assert cause in refused.value.cause
    assert str(refused.value).startswith('flag "checkout": ')


@pytest.mark.parametrize("key", ["", "x" * 257, "a\nb", "a\x00", "\x7f", "\x85", "\ud800", 5, None])
def test_a_key_is_1_to_256_characters_without_control_characters(key: object) -> None:
    with pytest.raises(DefinitionError):
        check_flag(key, GOOD)


@pytest.mark.parametrize("key", ["x", "x" * 256, "with space", "äöü", "🚀", 'quo"te', "a/b:c{d}"])
def test_any_other_key_is_taken(key: str) -> None:
    assert check_flag(key, GOOD) == GOOD


def test_a_definition_has_at_most_256_kib() -> None:
    def sized(size: int) -> dict[str, Any]:
        empty = len(orjson.dumps(flag(metadata={"text": ""})))
        return flag(metadata={"text": "x" * (size - empty)})

    assert check_flag("flag", sized(MAX_DEFINITION_BYTES))
    with pytest.raises(DefinitionError, match="has 262145 bytes as JSON; the most is 262144"):
        check_flag("flag", sized(MAX_DEFINITION_BYTES + 1))


def keys(count: int) -> list[str]:
    return [f"{number:036}" for number in range(count)]


def test_a_population_of_100000_targeting_keys_is_taken() -> None:
    rule = {"in": [{"var": "targetingKey"}, keys(100_000)]}
    assert check_population("beta", rule) is rule
    assert check_flag_set({"flags": {"a": GOOD}, "$evaluators": {"beta": rule}}).evaluators == {"beta": rule}
    assert check_population("beta", parse_json(orjson.dumps(rule), "it")) == rule


def test_a_population_has_at_most_8_mib_with_its_lists() -> None:
    def sized(size: int) -> dict[str, Any]:
        empty = len(orjson.dumps({"in": [{"var": "x"}, [""]]}))
        return {"in": [{"var": "x"}, ["x" * (size - empty)]]}

    assert check_population("beta", sized(MAX_POPULATION_BYTES))
    with pytest.raises(DefinitionError, match="has 8388609 bytes as JSON; the most is 8388608") as refused:
        check_population("beta", sized(MAX_POPULATION_BYTES + 1))
    assert refused.value.subject == 'population "beta"'


@pytest.mark.parametrize(
    "large",
    [
        {"==": [{"var": "x"}, "x" * MAX_DEFINITION_BYTES]},
        {"or": [{"==": [{"var": "x"}, number]} for number in range(20_000)]},
        {"missing": keys(10_000)},
        {"in": [{"var": "x"}, [*keys(10_000), [1]]]},
        {"in": [{"var": "x"}, "x" * MAX_DEFINITION_BYTES]},
        {"in": [{"merge": [keys(10_000)]}, ["x"]]},
    ],
)
def test_a_population_has_at_most_256_kib_beside_the_lists_that_in_looks_into(large: Any) -> None:
    beside = r"has \d+ bytes as JSON beside the lists that `in` looks into; the most is 262144"
    with pytest.raises(DefinitionError, match=beside):
        check_population("beta", {"and": [large, {"in": [{"var": "x"}, keys(10_000)]}]})


def test_a_flag_has_at_most_256_kib_lists_or_not() -> None:
    with pytest.raises(DefinitionError, match="the most is 262144"):
        check_flag("flag", flag(targeting={"in": [{"var": "targetingKey"}, keys(10_000)]}))


@pytest.mark.parametrize("wrong", [float("nan"), 2**64, b"x", {"nope": 1}])
@pytest.mark.parametrize("place", [0, 1, 99])
def test_one_wrong_item_of_a_long_list_is_found_where_it_is(wrong: Any, place: int) -> None:
    items = ["x"] * 100
    items[place] = wrong
    with pytest.raises(DefinitionError) as refused:
        check_population("beta", {"in": [{"var": "x"}, items]})
    assert refused.value.path.startswith(f"in[1][{place}]")


def test_a_definition_nests_at_most_32_levels_deep() -> None:
    assert check_flag("flag", flag(targeting={"log": nested(MAX_DEPTH - 2)}))
    with pytest.raises(DefinitionError, match="nests deeper than 32 levels"):
        check_flag("flag", flag(targeting={"log": nested(MAX_DEPTH - 1)}))
    for innermost in ("text", True):
        assert check_flag("flag", flag(targeting={"log": nested(MAX_DEPTH - 2, innermost)}))
        with pytest.raises(DefinitionError, match="nests deeper than 32 levels"):
            check_flag("flag", flag(targeting={"log": nested(MAX_DEPTH - 1, innermost)}))
    with pytest.raises(DefinitionError, match="nests deeper than 32 levels"):
        check_flag("flag", flag(targeting={"log": nested(sys.getrecursionlimit() * 10)}))


@given(JUNK, JUNK)
def test_whatever_is_no_definition_is_refused_and_never_crashes(key: Any, definition: Any) -> None:
    for check in (lambda: check_flag(key, definition), lambda: check_population(key, definition)):
        try:
            check()
        except DefinitionError as error:
            assert error.cause
        else:
            orjson.dumps({key: definition})


@given(JUNK)
def test_whatever_is_no_flag_set_is_refused_and_never_crashes(document: Any) -> None:
    for check in (check_flag_set, check_metadata):
        try:
            check(document)
        except DefinitionError as error:
            assert error.cause


def test_a_flag_set_is_taken_as_an_object_and_as_an_array() -> None:
    rules = {"beta": {"in": ["beta", {"var": "groups"}]}}
    as_object = check_flag_set({"$schema": "x", "flags": {"a": GOOD}, "$evaluators": rules, "metadata": {"v": 1}})
    as_array = check_flag_set({"flags": [{"key": "a", **GOOD}], "$evaluators": rules, "metadata": {"v": 1}})
    assert as_object == as_array
    assert as_object.flags == {"a": GOOD}
    assert as_object.evaluators == rules
    assert as_object.metadata == {"v": 1}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "flag set: should be an object and is an array"),
        ({}, "flag set: at flags: missing"),
        ({"flags": None}, "flag set: at flags: should be an object and is null"),
        ({"flags": {}, "flag": {}}, "flag set: at flag: unknown member"),
        ({"flags": {"a": GOOD, "not-a-flag": {}}}, 'flag "not-a-flag": at state: missing'),
        ({"flags": [GOOD]}, r"flag set: at flags\[0\].key: missing"),
        ({"flags": [{"key": "a", **GOOD}, {"key": "a", **GOOD}]}, 'flag "a": stands twice in the array'),
        ({"flags": [{"key": [], **GOOD}]}, r"flag \[\]: a key is a string, not an array"),
        ({"flags": {}, "$evaluators": {"beta": True}}, 'population "beta": should be an object and is a boolean'),
        ({"flags": {}, "metadata": {"a": {"b": 1}}}, "flag set: at metadata.a: an object; metadata is flat"),
    ],
)
def test_a_wrong_flag_set_is_refused_with_a_sentence(document: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        check_flag_set(document)


def test_a_flag_set_has_at_most_50000_flags() -> None:
    with pytest.raises(DefinitionError, match="has 50001 flags; the most is 50000"):
        check_flag_set({"flags": {str(number): GOOD for number in range(MAX_FLAGS + 1)}})


@pytest.mark.parametrize("name", ["production", "eu-west.1_a", "0", "x" * 64])
def test_the_name_of_an_environment_fits_a_redis_key_and_a_file(name: str) -> None:
    assert check_environment_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "-a", ".", "..", "a b", "a}b", "a{b", "a:b", "a/b", "ä", "a\n"])
def test_any_other_name_of_an_environment_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="a name has 1 to 64 letters"):
        check_environment_name(name)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', 'the key "c" stands twice in one object'),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1,}', r"not JSON: .* at line 1 column \d"),
        ("", "not JSON: Expecting value at line 1 column 1"),
        (b'{"a": "\xff"}', "not UTF-8, at byte 7"),
        ("[" * 100_000, "nests deeper than 200 levels"),
        ('{"a":' * 100_000, "nests deeper than 200 levels"),
        ("1" * 5000, "not usable as JSON"),
    ],
)
def test_json_is_read_strictly(text: str | bytes, cause: str) -> None:
    with pytest.raises(DefinitionError, match=cause):
        parse_json(text, "flags.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=30,
    )
)
def test_json_that_is_strict_is_read_as_it_is(document: Any) -> None:
    assert parse_json(json.dumps(document), "x") == document
    assert parse_json(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"), "x") == document


@given(st.text(alphabet='{}[]":,\\ 1aeN-', max_size=40) | st.text(max_size=20))
def test_text_that_is_no_json_is_refused_and_never_crashes(text: str) -> None:
    try:
        parse_json(text, "x")
    except DefinitionError as error:
        assert error.cause
