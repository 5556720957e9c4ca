"""Rules, definitions and contexts that mean harm: nothing is raised, nothing runs away, nothing becomes code."""

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError, RuleTooLong
from flagrelay.flags import forms, meter
from flagrelay.flags.change import Change
from flagrelay.flags.compiled_flag import CompiledFlag
from flagrelay.flags.compiler import CompiledRule, compile_rule, metered
from flagrelay.flags.definition import check_flag
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import ErrorCode, Reason, Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.flags.trace import trace_rule
from support.rules import CONTEXTS, JSON, OPERATORS, POPULATIONS, WILD

START = Position("e0", 0, "e0-0")
KEY = "flag"
VARIANTS = {"yes": 1, "no": 2, "true": 3, "false": 4}
CODES = set(ErrorCode)


def flag(targeting: Any = None, **members: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "no", "targeting": targeting, **members}


def snapshot(definition: Any, populations: Mapping[str, Any] | None = None) -> Snapshot:
    return Snapshot(START, {KEY: definition}, populations or {})


def resolve(targeting: Any, context: Any) -> Resolution:
    return snapshot(flag(targeting)).resolve(KEY, context)


def compiled(rule: Any) -> CompiledRule:
    return compile_rule("flag", "targeting", rule, generation="v3", flag_key=KEY)


def run(rule: Any, context: Any) -> Any:
    return metered(compiled(rule))(context, KEY)


def traced(rule: Any, context: Any) -> Any:
    return trace_rule(rule, context, KEY, generation="v3", rules={}).gave


def var(name: Any) -> dict[str, Any]:
    return {"var": name}


# -- depth ------------------------------------------------------------------------------------------------

SHAPES = [(operator, place) for operator in OPERATORS for place in range(3)]
CONTEXT = {"targetingKey": "u1", "x": "a", "list": ["a", "b"], "n": 3}


def nested(operator: str, place: int, depth: int, innermost: Any) -> Any:
    """A rule of one operator, in itself over and over, in one of its places."""
    rule = innermost
    for _ in range(depth):
        arguments: list[Any] = ["a", "a", "a"]
        if operator == "fractional":
            arguments = ["a", ["a", 1], ["b", 1]]
            arguments[place] = [rule, 1] if place else rule
        else:
            arguments[place] = rule
        rule = {operator: arguments}
    return rule


@pytest.mark.parametrize(("operator", "place"), SHAPES, ids=str)
def test_32_levels_of_any_operator_give_what_the_interpreter_gives(operator: str, place: int) -> None:
    for name in ("x", "list", "n", "gone"):
        rule = nested(operator, place, 32, var(name))
        assert repr(run(rule, CONTEXT)) == repr(traced(rule, CONTEXT)), name


@pytest.mark.parametrize(("operator", "place"), SHAPES, ids=str)
def test_what_is_deeper_is_resolved_or_broken_and_raises_nothing(operator: str, place: int) -> None:
    found = resolve(nested(operator, place, 100, var("x")), CONTEXT)
    assert found.error_code in {None, ErrorCode.PARSE_ERROR, ErrorCode.GENERAL}
    assert resolve(nested(operator, place, 10_000, var("x")), CONTEXT).error_code is ErrorCode.PARSE_ERROR


@pytest.mark.parametrize("operator", ["!", "!!", "log", "max", "cat"])
def test_the_deepest_rule_that_is_taken_is_resolved(operator: str) -> None:
    rule: Any = var("x")
    accepted = rule
    depth = 0
    while depth < 40:
        try:
            check_flag(KEY, flag(rule))
        except DefinitionError as error:
            assert "nests deeper" in error.cause
            break
        accepted, rule, depth = rule, {operator: rule}, depth + 1
    assert depth > 25
    assert repr(run(accepted, CONTEXT)) == repr(traced(accepted, CONTEXT))


def test_a_list_that_holds_itself_is_a_broken_rule() -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    assert resolve({"merge": endless}, {}).error_code is ErrorCode.PARSE_ERROR
    assert resolve({"if": [False, {"in": [var("x"), endless]}]}, {}).error_code is ErrorCode.PARSE_ERROR


@pytest.mark.parametrize("operator", ["fractional", "if", "map", "and", "in"])
def test_what_is_compiled_grows_with_the_rule_and_not_with_each_level_of_it(operator: str) -> None:
    """As compiling something twice would, in which there is something that is compiled twice."""

    def nodes(depth: int) -> int:
        rule: Any = var("x")
        for _ in range(depth):
            rule = {operator: [var("x"), [rule, 1]]}
        return compiled(rule).nodes

    assert nodes(10) <= 10 * nodes(1)


# -- width ------------------------------------------------------------------------------------------------

MANY = 10_000


def test_an_if_of_many_branches_takes_the_right_one() -> None:
    branches = [part for number in range(MANY) for part in ({"==": [var("n"), number]}, f"branch {number}")]
    rule = {"if": [*branches, "else"]}
    function = compiled(rule).function
    for number in (0, 1, MANY // 2, MANY - 1):
        assert function({"n": number}, KEY) == f"branch {number}"
    assert function({"n": -1}, KEY) == "else"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"or": [{"==": [var("n"), number]} for number in range(MANY)]}, True),
        ({"and": [*([var("n")] * MANY), "last"]}, "last"),
        ({"cat": [var("x")] * MANY}, "a" * MANY),
        ({"merge": [var("list")] * MANY}, ["a", "b"] * MANY),
        ({"+": [var("one")] * MANY}, MANY),
        ({"max": [*range(MANY), var("n")]}, MANY - 1),
        ({"missing": [f"gone {number}" for number in range(MANY)]}, [f"gone {number}" for number in range(MANY)]),
        ({"fractional": [["a", 1]] * MANY}, "a"),
        ({"fractional": [[var("x"), 1]] * MANY}, "a"),
        ({"fractional": [var("x"), *([["a", 1]] * MANY)]}, "a"),
    ],
    ids=lambda rule: next(iter(rule)) if isinstance(rule, dict) else "",
)
def test_operators_take_many_arguments(rule: Any, expected: Any) -> None:
    context = {**CONTEXT, "n": MANY - 1, "one": 1}
    assert run(rule, context) == expected


HUGE = 100_000
TEXTS = [f"user-{number}" for number in range(HUGE)]


@pytest.mark.parametrize(
    ("rule", "context", "expected"),
    [
        ({"in": [var("x"), TEXTS]}, {"x": TEXTS[-1]}, True),
        ({"in": [var("x"), TEXTS]}, {"x": "user-"}, False),
        ({"in": [var("x"), TEXTS]}, {"x": ["user-1"]}, False),
        ({"in": [var("x"), list(range(HUGE))]}, {"x": HUGE - 1}, True),
        ({"in": [var("x"), list(range(HUGE))]}, {"x": float(HUGE - 1)}, True),
        ({"in": [var("x"), list(range(HUGE))]}, {"x": True}, False),
        ({"in": [var("x"), [*TEXTS, None, [], {}, 5]]}, {"x": None}, True),
        ({"in": [var("x"), var("y")]}, {"x": "z", "y": TEXTS}, False),
        ({"max": list(range(HUGE))}, {}, HUGE - 1),
        ({"some": [TEXTS, {"==": [var(""), TEXTS[-1]]}]}, {}, True),
        ({"==": [{"merge": [TEXTS, var("x")]}, 1]}, {"x": 1}, False),
    ],
    ids=range(11),
)
def test_huge_literal_lists_are_looked_into_as_they_are(rule: Any, context: Any, expected: Any) -> None:
    assert run(rule, context) == expected


# -- what would run long ------------------------------------------------------------------------------------

ITEMS = {"items": [1] * 1000, "few": [1] * 60, "text": "7" * 200_000, "x": "a"}
ACCUMULATOR, CURRENT = var("accumulator"), var("current")
TEXT = "x" * 200_000
ENDLESS: dict[str, Any] = {
    "a loop in a loop": {"map": [var("items"), {"map": [list(range(1000)), var("")]}]},
    "a loop in a loop in a loop": {"all": [[1] * 100, {"all": [[1] * 100, {"all": [[1] * 100, True]}]}]},
    "a filter of a literal list for each item": {
        "filter": [var("items"), {"in": [var(""), {"merge": [TEXTS, var("")]}]}]
    },
    "a rule of many parts for each item": {"map": [[1] * 100_000, {"cat": [var("")] * 100}]},
    "a text that doubles": {"reduce": [var("few"), {"cat": [ACCUMULATOR, ACCUMULATOR]}, "x"]},
    "a list that doubles": {"reduce": [var("few"), {"merge": [ACCUMULATOR, ACCUMULATOR]}, [1]]},
    "a text of a list that doubles": {"cat": [{"reduce": [var("few"), [ACCUMULATOR, ACCUMULATOR], 1]}]},
    "a list compared with a text": {"==": [{"reduce": [var("few"), [ACCUMULATOR, ACCUMULATOR], 1]}, "x"]},
    "a number from a list": {"+": [{"reduce": [var("few"), [ACCUMULATOR, ACCUMULATOR], 1]}]},
    "names that are missing": {"map": [var("items"), {"missing": [TEXTS[:1000]]}]},
    "a part of a long text for each item": {"map": [var("items"), {"substr": [TEXT, {"-": [var(""), 1]}]}]},
    "a long text looked through for each item": {"map": [var("items"), {"in": [{"cat": ["y", var("")]}, TEXT]}]},
    "a long number for each item": {
        "reduce": [var("items"), {"if": [{"<": [ACCUMULATOR, CURRENT]}, 1, ACCUMULATOR]}, var("text")]
    },
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ENDLESS)
def test_a_rule_that_would_run_long_is_stopped(name: str) -> None:
    with pytest.raises(RuleTooLong):
        run(ENDLESS[name], ITEMS)
    found = resolve({"if": [ENDLESS[name], "yes", "no"]}, ITEMS)
    assert (found.value, found.reason, found.error_code) == (None, Reason.ERROR, ErrorCode.GENERAL)
    assert "visits more than" in (found.error_message or "")


@pytest.mark.timeout(20)
def test_a_result_that_no_text_could_hold_names_no_variant() -> None:
    found = resolve({"reduce": [var("few"), [ACCUMULATOR, ACCUMULATOR], 1]}, ITEMS)
    assert (found.value, found.error_code) == (None, ErrorCode.GENERAL)
    deep = resolve({"reduce": [[1] * 20_000, [ACCUMULATOR], 1]}, {})
    assert (deep.value, deep.error_code) == (None, ErrorCode.GENERAL)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["a" + " " * 200_000 + "a", "1" * 200_000 + "x", "." * 200_000, "\u00a0" * 200_000 + "1x"]
)
@pytest.mark.parametrize("operator", ["==", "<", "+", "-", "max", "substr", "missing_some"])
def test_a_long_text_is_read_as_a_number_in_one_go(operator: str, text: str) -> None:
    rule = {operator: ["abc", var("x")]} if operator == "substr" else {operator: [var("x"), var("n")]}
    assert resolve({"if": [rule, "yes", "no"]}, {"x": text, "n": 5}).error_code is None


def test_a_number_does_not_grow_without_end() -> None:
    rule = {"reduce": [[1] * 10_000, {"*": [ACCUMULATOR, 10]}, 3]}
    assert run(rule, {}) == math.inf
    assert run({"reduce": [[1] * 10_000, {"+": [ACCUMULATOR, ACCUMULATOR]}, -3]}, {}) == -math.inf
    assert isinstance(run({"reduce": [[1] * 100, {"-": [ACCUMULATOR, 2**62]}, 0]}, {}), float)


def test_a_stopped_rule_leaves_the_next_its_whole_measure() -> None:
    rule = metered(compiled({"map": [var("items"), {"map": [var(""), 1]}]}))
    with pytest.raises(RuleTooLong):
        rule({"items": [[1] * 1000] * 1000}, KEY)
    assert rule({"items": [[1]]}, KEY) == [[1]]
    assert meter._meter.left == math.inf


@pytest.mark.parametrize("size", [10, 100, 1000])
def test_a_rule_within_its_measure_runs_to_its_end(size: int) -> None:
    assert run({"reduce": [var("items"), {"+": [CURRENT, ACCUMULATOR]}, 0]}, {"items": [1] * size}) == size


# -- names and texts that could be more than that ---------------------------------------------------------------

NAMES = (
    *("__proto__", "__class__", "__dict__", "__init__", "__builtins__", "__import__", "constructor", "prototype"),
    *("toString", "hasOwnProperty", "get", "keys", "items", "context", "key", "local_1", "made_0", "None", "True"),
    *("lambda: 0", "import os", "__import__('os')", "\0000", "\x001", "\0", "\0x", "\ud800", "a\udfffb"),
    *("$ref", "$flagd", "{}", "%s", "{0}"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(name: str) -> None:
    shown = [name, {"nested": 1}, 7]
    reads = {"cat": [var(name), {"var": [f"{name}.{name}", "-"]}, {"var": [f"{name}.nested", "-"]}]}
    assert run(reads, {}) == "--" if name != "$flagd" else True
    if name != "$flagd":
        assert run({"merge": [var(name)]}, {name: shown}) == shown
        assert run({"map": [var("list"), var(name)]}, {"list": [{name: 5}, {}, "text", [], 3]}) == [5, *[None] * 4]
    literal = {"if": [{"==": [var("x"), name]}, {"cat": [name, var("x")]}, "other"]}
    assert run(literal, {"x": name}) == name * 2
    assert run(literal, {"x": "y"}) == "other"
    assert run({"in": [var("x"), [name, 1]]}, {"x": name}) is True
    assert run({"starts_with": [var("x"), name]}, {"x": name}) is True


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_operator_no_population_and_no_variant(name: str) -> None:
    if name != "$ref":
        assert resolve({name: ["yes"]}, {}).error_code is ErrorCode.PARSE_ERROR
    assert resolve({"$ref": name}, {}).error_code is ErrorCode.PARSE_ERROR
    found = resolve({"if": [True, name]}, {})
    assert (found.value, found.error_code) == (None, ErrorCode.GENERAL)
    found.error_message.encode()  # type: ignore[union-attr]  # an error has one


@pytest.mark.parametrize("name", NAMES)
def test_flags_populations_and_variants_may_have_any_name(name: str) -> None:
    definition = flag({"if": [{"$ref": name}, name]}, variants={name: "it"}, defaultVariant=name)
    whole = Snapshot(START, {name: definition}, {name: {"==": [var("x"), name]}})
    assert whole.resolve(name, {"x": name}).reason == Reason.TARGETING_MATCH
    assert whole.resolve(name, {}).reason == Reason.DEFAULT
    assert whole.resolve(f"{name}?", {}).error_code is ErrorCode.FLAG_NOT_FOUND


ALLOWED = {*forms.HELPERS, *forms.TYPES, "get", "__class__"}


def codes(function: Any) -> Iterator[CodeType]:
    """The code of a compiled function, and of those that it runs."""
    assert isinstance(function, FunctionType)
    assert function.__globals__["__builtins__"] == {}
    assert not function.__closure__
    yield function.__code__
    assert not [constant for constant in function.__code__.co_consts if isinstance(constant, CodeType)]
    for other in (*(function.__defaults__ or ()), *function.__code__.co_consts):
        if isinstance(other, FunctionType):
            yield from codes(other)


def assert_plain(function: Any) -> None:
    for code in codes(function):
        assert set(code.co_names) <= ALLOWED
        for name in code.co_varnames:
            stem, _, number = name.partition("_")
            assert name in {"context", "key"} or (stem in {"local", "made"} and number.isdigit())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_rule_is_a_name_in_its_function(name: str) -> None:
    assert_plain(
        compiled(
            {"if": [{"==": [var(name), name]}, {"map": [var(name), var(name)]}, {"cat": [var("a"), name]}]}
        ).function
    )


@settings(max_examples=100)
@given(WILD)
def test_functions_are_made_of_helpers_alone(rule: Any) -> None:
    populations = {name: compiled({"==": [var("x"), "a"]}) for name in POPULATIONS}
    rules = {name: {"==": [var("x"), "a"]} for name in POPULATIONS}
    made = compile_rule("flag", "", rule, generation="v3", flag_key=KEY, populations=populations, rules=rules)
    assert_plain(made.function)


# -- contexts ------------------------------------------------------------------------------------------------------


class Raising(Mapping[str, Any]):
    """An object that fails when it is looked at."""

    def __getitem__(self, name: str) -> Any:
        raise OSError(name)

    def __iter__(self) -> Iterator[str]:
        raise OSError("iter")

    def __len__(self) -> int:
        return 1


class RaisingDict(dict[str, Any]):
    def get(self, name: str, _default: Any = None) -> Any:
        raise OSError(name)


def chain(depth: int, *, of_lists: bool) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value] if of_lists else {"x": value}
    return value


STRANGE: dict[str, Any] = {
    "null": None,
    "a boolean": True,
    "a number": 5,
    "a huge number": 10**5000,
    "a negative huge number": -(10**5000),
    "a fraction": 2.5,
    "not a number": math.nan,
    "infinity": -math.inf,
    "a text": "context",
    "a lone surrogate": "\ud800",
    "NUL": "\0",
    "bytes": b"context",
    "a list": [1, 2],
    "a tuple": ("x", 1),
    "a set": {1, "x"},
    "a date": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "a mapping that is no dict": MappingProxyType({"x": 1}),
    "a function": len,
    "a class": dict,
    "an object": object(),
    "numbers as names": {1: 2, None: 3, (1, 2): 4},
    "deep objects": chain(2000, of_lists=False),
    "deep lists": chain(2000, of_lists=True),
    "deeper lists": chain(100_000, of_lists=True),
    "what fails": Raising(),
    "a dict that fails": RaisingDict(x=1),
}
LOOKING: tuple[Any, ...] = (
    *({operator: [var("x"), var("y"), var("x")]} for operator in OPERATORS),
    *({operator: [var("x"), var("")]} for operator in OPERATORS),
    *({operator: [var(""), var("x")]} for operator in OPERATORS),
    {"fractional": [["yes", 1], ["no", 1]]},
    {"fractional": [var("x"), ["yes", 1], ["no", 1]]},
    {"fractional": [var("x"), ["yes", var("x")], ["no", 1]]},
    {"if": [{"==": [var("x"), "a"]}, "yes", "no"]},
    {"if": [{"<": [var("x"), 5]}, "yes", "no"]},
    {"in": [var("x"), ["a", 1]]},
    {"in": ["a", var("x")]},
    {"var": "x.x.x.x.x.x.x"},
    {"var": ["x.length", "yes"]},
    {"var": "$flagd.flagKey"},
)


@pytest.mark.parametrize("name", STRANGE)
def test_a_context_of_any_kind_raises_nothing(name: str) -> None:
    whole = Snapshot(START, {str(index): flag(rule) for index, rule in enumerate(LOOKING)})
    for context in (STRANGE[name], {"x": STRANGE[name], "y": STRANGE[name], "targetingKey": STRANGE[name]}):
        for key in whole.flags:
            found = whole.resolve(key, context)
            assert isinstance(found, Resolution)
            assert (found.error_code in CODES) == (found.reason == Reason.ERROR), key


@pytest.mark.parametrize(
    "context", [5, True, "text", [], [{"x": 1}], b"{}", {1, 2}, 10**5000, math.nan, object()], ids=range(10)
)
def test_what_is_no_object_is_no_context(context: Any) -> None:
    found = resolve({"if": [var("x"), "yes", "no"]}, context)
    assert (found.value, found.reason, found.error_code) == (None, Reason.ERROR, ErrorCode.INVALID_CONTEXT)


def test_no_context_is_an_empty_one_and_any_mapping_is_one() -> None:
    rule = {"if": [var("x"), "yes", "no"]}
    assert resolve(rule, None).variant == "no"
    assert resolve(rule, MappingProxyType({"x": 1})).variant == "yes"


@settings(max_examples=50)
@given(JSON | st.binary() | st.dates() | st.sets(st.integers()) | st.lists(st.floats() | st.complex_numbers()))
def test_no_flag_key_and_no_context_raises(anything: Any) -> None:
    whole = snapshot(flag({"if": [{"in": [var("x"), ["a"]]}, "yes", "no"]}))
    assert whole.resolve(anything, {}).error_code is ErrorCode.FLAG_NOT_FOUND
    assert isinstance(whole.resolve(KEY, anything), Resolution)
    assert isinstance(whole.resolve(KEY, {"x": anything}), Resolution)


# -- definitions ---------------------------------------------------------------------------------------------------

MALFORMED: dict[str, Any] = {
    "null": None,
    "a number": 5,
    "a list": [],
    "a text": "flag",
    "an empty object": {},
    "no state": {"variants": {"a": 1}},
    "another state": {"state": "enabled", "variants": {"a": 1}},
    "a state of another type": {"state": [], "variants": {"a": 1}},
    "no variants": {"state": "ENABLED"},
    "empty variants": {"state": "ENABLED", "variants": {}},
    "variants as a list": {"state": "ENABLED", "variants": ["a"]},
    "a default that is no variant": flag(defaultVariant="gone"),
    "a default of another type": flag(defaultVariant=5),
    "a default that is a list": flag(defaultVariant=["yes"]),
    "a default that is an object": flag(defaultVariant={}),
    "a huge default": flag(defaultVariant=10**5000),
    "a default with a lone surrogate": flag(defaultVariant="\ud800"),
    "a targeting that is a list": flag([]),
    "a targeting that is a text": flag("yes"),
    "a targeting that is false": flag(False),
    "a targeting that is 0": flag(0),
    "a targeting with names that are no texts": flag({1: [2]}),
    "a targeting with a huge name": flag({10**5000: [2]}),
    "a population that is no name": flag({"$ref": ["a"]}),
    "a population of an unhashable name": flag({"$ref": {"a": [1]}}),
    "a population with a lone surrogate": flag({"$ref": "\ud800"}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_definition_is_an_error_and_raises_nothing(name: str) -> None:
    found = snapshot(MALFORMED[name]).resolve(KEY, {})
    assert (found.value, found.variant, found.reason) == (None, None, Reason.ERROR)
    assert found.error_code in CODES
    assert (found.error_message or "").encode()


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_flag_leaves_the_others_alone(name: str) -> None:
    whole = Snapshot(START, {"bad": MALFORMED[name], "good": flag({"if": [True, "yes"]})})
    assert whole.resolve("good", {}).value == 1
    change = Change("e0", 1, "n", "e0-0", 0, flags={"later": MALFORMED[name] or {}}, metadata={"a": 1})
    assert whole.with_change(change).resolve("good", {}).value == 1


@pytest.mark.parametrize("rule", [None, [], 5, "yes", {}, {"nope": 1}, {"$ref": "b"}, {"a": 1, "b": 2}, {1: 2}, b"x"])
def test_a_malformed_population_raises_nothing(rule: Any) -> None:
    found = snapshot(flag({"if": [{"$ref": "a"}, "yes", "no"]}), {"a": rule, "b": {"!": 0}}).resolve(KEY, {})
    assert found.variant in {"yes", "no"} or found.error_code is ErrorCode.PARSE_ERROR


@pytest.mark.parametrize(
    "value", [b"x", {1}, object(), math.nan, 10**5000, ("a", 1), dt.date(2026, 1, 1)], ids=range(7)
)
def test_what_is_no_json_in_a_rule_raises_nothing(value: Any) -> None:
    for operator in OPERATORS:
        for arguments in ([value], [value, var("x")], [var("x"), value], [value, value, value]):
            assert isinstance(resolve({operator: arguments}, {"x": value}), Resolution)
    found = snapshot(flag({"if": [1, "yes"]}, variants={"yes": value}, metadata={"a": value})).resolve(KEY, {})
    assert found.value is value


ANY_RULE = st.one_of(
    JSON,
    WILD,
    st.dictionaries(st.sampled_from([*OPERATORS, "$ref", "nope"]), WILD | JSON, max_size=2),
)
ANY_DEFINITION = JSON | st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["ENABLED", "ENABLED", "ENABLED", "DISABLED"]) | JSON,
        "variants": st.just(VARIANTS) | JSON,
        "defaultVariant": st.sampled_from([*VARIANTS, None]) | JSON,
        "targeting": ANY_RULE,
        "metadata": JSON,
    },
)
POPULATION_RULES = {name: {"==": [var("plan"), "pro"]} for name in POPULATIONS}


@settings(max_examples=150)
@given(ANY_RULE, CONTEXTS)
def test_what_is_taken_compiles_and_what_is_not_is_refused_or_resolved(targeting: Any, context: Any) -> None:
    found = snapshot(flag(targeting), POPULATION_RULES).resolve(KEY, context)
    try:
        check_flag(KEY, flag(targeting), POPULATIONS)
    except DefinitionError:
        assert (found.error_code in CODES) == (found.reason == Reason.ERROR)
    else:
        assert found.error_code in {None, ErrorCode.GENERAL}, found


@settings(max_examples=150)
@given(ANY_DEFINITION, JSON | CONTEXTS)
def test_no_definition_raises_but_where_it_is_checked(definition: Any, context: Any) -> None:
    found = snapshot(definition, POPULATION_RULES).resolve(KEY, context)
    assert (found.error_code in CODES) == (found.reason == Reason.ERROR)
    try:
        check_flag(KEY, definition, POPULATIONS)
    except DefinitionError:
        return
    assert found.error_code in {None, ErrorCode.GENERAL, ErrorCode.INVALID_CONTEXT}, found


# -- what a change touches -----------------------------------------------------------------------------------------

FLAGS = {
    "plain": flag({"if": [var("x"), "yes", "no"]}),
    "static": flag(),
    "names beta": flag({"if": [{"$ref": "beta"}, "yes", "no"]}),
    "names staff": flag({"if": [{"some": [var("list"), {"$ref": "staff"}]}, "yes", "no"]}),
    "names gone": flag({"if": [{"$ref": "gone"}, "yes", "no"]}),
}


def before() -> Snapshot:
    return Snapshot(START, FLAGS, POPULATION_RULES, {"version": "1"})


def after(snapshot: Snapshot, **members: Any) -> Snapshot:
    return snapshot.with_change(Change("e0", 1, "e0-1", "e0-0", 0, **members))


def flags_of(snapshot: Snapshot) -> Mapping[str, CompiledFlag]:
    return snapshot.compiled.flags


def compiled_anew(first: Snapshot, second: Snapshot) -> set[str]:
    """The flags whose rule is not the very function that it was."""
    return {
        key
        for key, each in flags_of(second).items()
        if key not in flags_of(first) or each.rule is None or each.rule is not flags_of(first)[key].rule
    }


@pytest.mark.parametrize(
    ("members", "touched"),
    [
        ({"flags": {"plain": flag({"!": var("x")})}}, {"plain"}),
        ({"flags": {"new": flag({"!": var("x")})}}, {"new"}),
        ({"flags": {"plain": None}}, set()),
        ({"flags": {"unknown": None}}, set()),
        ({"evaluators": {"beta": {"!": var("x")}}}, {"names beta", "names gone"}),
        ({"evaluators": {"staff": {"!": var("x")}}}, {"names staff", "names gone"}),
        ({"evaluators": {"gone": {"!": var("x")}}}, {"names gone"}),
        ({"evaluators": {"beta": None}}, {"names beta", "names gone"}),
        ({"evaluators": {"new": {"!": var("x")}}}, {"names gone"}),
        ({"flags": {"names beta": None}, "evaluators": {"beta": None}}, {"names gone"}),
    ],
)
def test_only_what_a_change_touches_is_compiled_again(members: dict[str, Any], touched: set[str]) -> None:
    first = before()
    second = after(first, **members)
    anew = {key for key, each in flags_of(second).items() if each is not flags_of(first).get(key)}
    assert anew == touched
    assert set(flags_of(second)) == set(second.flags)


def test_new_metadata_is_over_all_flags_and_no_rule_is_compiled_again() -> None:
    first = before()
    second = after(first, metadata={"version": "2"})
    assert compiled_anew(first, second) <= {"static"}
    assert all(second.resolve(key, {}).metadata == {"version": "2"} for key in FLAGS)
    assert all(first.resolve(key, {}).metadata == {"version": "1"} for key in FLAGS)


def test_another_generation_of_fractional_is_compiled_into_everything() -> None:
    first = before()
    second = after(first, settings=EnvironmentSettings(fractional="v2"))
    assert all(flags_of(second)[key] is not flags_of(first)[key] for key in FLAGS)


def test_a_population_that_comes_mends_who_names_it_and_one_that_goes_breaks_them() -> None:
    first = before()
    assert first.resolve("names gone", {}).error_code is ErrorCode.PARSE_ERROR
    second = after(first, evaluators={"gone": {"!": var("x")}, "beta": None})
    assert second.resolve("names gone", {}).variant == "yes"
    assert second.resolve("names beta", {}).error_code is ErrorCode.PARSE_ERROR
    assert first.resolve("names beta", {"plan": "pro"}).variant == "yes"


PATCHES = st.dictionaries(
    st.sampled_from([*FLAGS, "new"]), st.none() | st.sampled_from(list(FLAGS.values())), max_size=3
)
RULE_PATCHES = st.dictionaries(
    st.sampled_from(["beta", "staff", "gone"]),
    st.none() | st.sampled_from(["a", "b"]).map(lambda name: {"!": var(name)}),
    max_size=2,
)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(PATCHES, RULE_PATCHES, st.none() | st.just({"version": "2"})), max_size=5),
    st.fixed_dictionaries({}, optional={"x": st.booleans(), "a": st.booleans(), "plan": st.just("pro"), "list": JSON}),
)
def test_changes_one_by_one_come_to_what_all_of_it_compiled_at_once_is(edits: list[Any], context: Any) -> None:
    state = before()
    for flags, rules, metadata in edits:
        _, revision, nonce = state.position
        state = state.with_change(
            Change("e0", revision + 1, f"n{revision}", nonce, 0, flags=flags, evaluators=rules, metadata=metadata)
        )
    at_once = Snapshot(state.position, state.flags, state.evaluators, state.metadata)
    for key in [*FLAGS, "new"]:
        found, expected = state.resolve(key, context), at_once.resolve(key, context)
        for name in ("value", "variant", "reason", "error_code", "error_message", "metadata"):
            assert getattr(found, name) == getattr(expected, name)
