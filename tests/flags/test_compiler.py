"""Rules as functions: the classic suite of JsonLogic, and what compiling is for."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError, RuleTooLong
from flagrelay.flags import forms
from flagrelay.flags.compiled_flag import compile_population
from flagrelay.flags.compiler import METERED_NODES, CompiledRule, compile_rule, metered
from flagrelay.flags.members import Members
from flagrelay.flags.meter import LIMIT
from flagrelay.flags.operators import OPERATORS
from flagrelay.flags.trace import trace_rule
from support.recorded import alike
from support.rules import POPULATIONS, WILD

CASES = [
    case
    for case in json.loads((Path(__file__).parents[1] / "data" / "jsonlogic" / "compatible.json").read_text())
    if isinstance(case, dict)
]
KEY = "checkout-v2"


def compiled(
    rule: Any, *, populations: Mapping[str, Any] | None = None, flag_key: str | None = KEY, generation: str = "v3"
) -> CompiledRule:
    named = {name: compile_population(name, each, generation=generation) for name, each in (populations or {}).items()}
    return compile_rule(
        'flag "f"',
        "targeting",
        rule,
        generation=generation,
        flag_key=flag_key,
        populations=named,
        rules=populations,
    )


def run(rule: Any, context: Any, populations: Mapping[str, Any] | None = None) -> Any:
    return metered(compiled(rule, populations=populations))(context, KEY)


def traced(rule: Any, context: Any) -> Any:
    return trace_rule(rule, context, KEY, generation="v3", rules={}).gave


def function_of(rule: CompiledRule) -> FunctionType:
    assert isinstance(rule.function, FunctionType)
    return rule.function


def held_by(rule: Any) -> tuple[Any, ...]:
    """The constants of a rule's function, but for the names in its code."""
    return function_of(compiled(rule)).__code__.co_consts


def var(name: str) -> dict[str, Any]:
    return {"var": name}


# -- the classic suite ----------------------------------------------------------------------------------------


def test_the_classic_suite_is_complete() -> None:
    assert len(CASES) == 278


def ids(case: dict[str, Any]) -> str:
    return f"{case['description']:.60}"


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.get("data"), dict | None)], ids=ids)
def test_a_case_of_the_classic_suite_as_a_rule_of_its_own(case: dict[str, Any]) -> None:
    context = case.get("data") or {}
    assert alike(run(case["rule"], context), case["result"])
    assert alike(traced(case["rule"], context), case["result"])


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_case_of_the_classic_suite_inside_a_loop(case: dict[str, Any]) -> None:
    rule, context = {"map": [var("d"), case["rule"]]}, {"d": [case.get("data")]}
    assert alike(run(rule, context), [case["result"]])
    assert alike(traced(rule, context), [case["result"]])


# -- what is known already --------------------------------------------------------------------------------------

CONSTANTS: list[tuple[Any, Any]] = [
    ({"+": [1, 2]}, 3),
    ({"cat": ["a", {"+": [1, 1]}]}, "a2"),
    ({"if": [{"==": [1, 1]}, "yes", var("x")]}, "yes"),
    ({"if": [False, var("x"), "no"]}, "no"),
    ({"if": [0, var("x"), "", var("y"), {"cat": ["el", "se"]}]}, "else"),
    ({"and": ["", var("x")]}, ""),
    ({"or": ["text", var("x")]}, "text"),
    ({"or": [0, None, 7]}, 7),
    ({"merge": [[1], [2, [3]]]}, [1, 2, [3]]),
    ([{"+": [1, 1]}, "x", [{"-": [1]}]], [2, "x", [-1]]),
    ({"sem_ver": ["1.2.3", "^", "1.0.0"]}, True),
    ({"==": [var("$flagd.flagKey"), KEY]}, True),
    ({"in": ["b", ["a", "b"]]}, True),
    ({"fractional": [["a", 0], ["b", 0]]}, None),
    ({"fractional": []}, None),
]


@pytest.mark.parametrize(("rule", "result"), CONSTANTS)
def test_a_constant_rule_is_its_result(rule: Any, result: Any) -> None:
    function = function_of(compiled(rule))
    assert alike(function({}, KEY), result)
    assert function.__code__.co_names == ()
    if result is not None and not isinstance(result, bool):
        assert any(alike(constant, result) for constant in function.__code__.co_consts)


def test_only_the_constant_part_of_a_rule_is_folded() -> None:
    rule = {"+": [var("x"), {"*": [6, 7]}]}
    assert 42 in held_by(rule)
    assert run(rule, {"x": 1}) == 43


def test_a_branch_that_cannot_be_taken_is_left_out() -> None:
    rule = {"if": [False, {"sem_ver": [var("v"), "=", "1.0.0"]}, {"cat": [var("x"), "!"]}]}
    names = function_of(compiled(rule)).__code__.co_names
    assert "concatenate" in names
    assert "version" not in names


@pytest.mark.parametrize("rule", [{"cat": ["x" * 200_000, "x" * 200_000]}, {"if": [True, {"cat": ["x" * 300_000]}]}])
def test_a_constant_that_cannot_be_computed_fails_when_it_is_run(rule: Any) -> None:
    function = compiled(rule).function
    with pytest.raises(RuleTooLong):
        function({}, KEY)


# -- lists to look into -------------------------------------------------------------------------------------------

MIXED: list[Any] = ["a", "b", 1, 2.0, True, None, [1], {"x": 1, "y": 2}, "1", ""]


def test_a_literal_list_that_in_looks_into_becomes_a_set() -> None:
    everything = held_by({"in": [var("x"), MIXED]})
    (members,) = [held for held in everything if isinstance(held, Members)]
    assert set(members.texts) == {"a", "b", "1", ""}
    assert any(held is members.texts for held in everything)  # Python has neither looked into it nor copied it
    assert not any(isinstance(held, list) for held in everything)


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("a", True),
        ("", True),
        ("c", False),
        (1, True),
        (1.0, True),
        (2, True),
        (3, False),
        (True, True),
        (False, False),
    ],
)
def test_a_literal_list_holds_what_is_identical(value: Any, inside: bool) -> None:  # noqa: FBT001
    assert run({"in": [var("x"), MIXED]}, {"x": value}) is inside
    assert run({"in": [var("x"), var("mixed")]}, {"x": value, "mixed": MIXED}) is inside


@pytest.mark.parametrize("value", [[1], {"x": 1, "y": 2}, [], float("nan")])
def test_a_literal_list_holds_no_array_and_no_object(value: Any) -> None:
    assert run({"in": [var("x"), MIXED]}, {"x": value}) is False


def test_a_literal_list_without_null_does_not_hold_what_is_absent() -> None:
    assert run({"in": [var("x"), MIXED]}, {}) is True
    assert run({"in": [var("x"), ["a", 0, False, ""]]}, {}) is False


SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5, -0.0]) | st.sampled_from("ab1")
)


@given(st.lists(SCALARS, max_size=5), SCALARS)
def test_a_literal_list_and_one_of_the_context_hold_the_same(items: list[Any], value: Any) -> None:
    literal = run({"in": [var("x"), items]}, {"x": value})
    assert literal is run({"in": [var("x"), var("items")]}, {"x": value, "items": items})


# -- functions that are shared --------------------------------------------------------------------------------------


@pytest.fixture
def no_shapes() -> Iterator[None]:
    """As if nothing had been compiled yet."""
    forms._shared.cache_clear()
    yield
    forms._shared.cache_clear()


def if_plan(plan: str, then: Any) -> dict[str, Any]:
    return {"if": [{"==": [var("plan"), plan]}, then, {"fractional": [["a", 1], ["b", 2]]}]}


def test_rules_of_one_shape_are_compiled_once(no_shapes: None) -> None:
    first, second = compiled(if_plan("pro", "on")), compiled(if_plan("free", "off"), flag_key="another")
    assert forms._shared.cache_info()[:2] == (1, 1)  # hits, misses
    assert function_of(first).__code__.co_code == function_of(second).__code__.co_code
    assert first.function({"plan": "pro"}, KEY) == "on"
    assert second.function({"plan": "free"}, "another") == "off"


def test_rules_of_another_shape_are_compiled_for_themselves(no_shapes: None) -> None:
    compiled({"==": [var("plan"), "pro"]})
    compiled({"===": [var("plan"), 5]})
    assert forms._shared.cache_info()[:2] == (0, 2)


def test_what_is_too_large_to_be_met_again_is_not_kept(no_shapes: None) -> None:
    rule = {"cat": [var("x")] * 500}
    assert compiled(rule).function({"x": "y"}, KEY) == "y" * 500
    assert forms._shared.cache_info().currsize == 0


def made_for(function: Callable[..., Any]) -> tuple[Any, ...]:
    assert isinstance(function, FunctionType)
    return function.__defaults__ or ()


def test_all_rules_that_name_a_population_run_one_function() -> None:
    rule = {"==": [var("plan"), "pro"]}
    population = compile_population("beta", rule, generation="v3")
    assert isinstance(population, CompiledRule)
    rules = [
        compile_rule("f", "targeting", each, generation="v3", populations={"beta": population}, rules={"beta": rule})
        for each in ({"if": [{"$ref": "beta"}, "on", "off"]}, {"!": {"$ref": "beta"}})
    ]
    for each in rules:
        assert made_for(each.function) == (population.function,)
        assert each.populations == {"beta"}
    assert rules[0].function({"plan": "pro"}, KEY) == "on"
    assert rules[1].function({"plan": "pro"}, KEY) is False


def test_a_population_sees_the_context_and_the_key_of_the_flag_that_names_it() -> None:
    populations = {"mine": {"==": [var("$flagd.flagKey"), var("mine")]}}
    assert run({"$ref": "mine"}, {"mine": KEY}, populations) is True
    assert run({"$ref": "mine"}, {"mine": "another"}, populations) is False


def test_a_population_in_a_loop_sees_the_item() -> None:
    populations = {"adult": {">=": [var("age"), 18]}}
    people = [{"age": 17, "kids": []}, {"age": 40, "kids": [{"age": 18}, {"age": 3}]}]
    context = {"age": 1, "people": people}
    assert run({"filter": [var("people"), {"$ref": "adult"}]}, context, populations) == people[1:]
    nested = {"map": [var("people"), {"map": [var("kids"), {"$ref": "adult"}]}]}
    assert run(nested, context, populations) == [[], [True, False]]
    assert compiled(nested, populations=populations).populations == {"adult"}


# -- what is known about a rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "timed"),
    [
        (var("plan"), False),
        (var("$flagd.flagKey"), False),
        (var("$flagd.timestamp"), True),
        (var("$flagd"), True),
        (var("$flagd.other"), True),
        (var(""), True),
        ({"var": []}, True),
        ({"var": [{"cat": ["$flagd.", "timestamp"]}]}, True),
        ({"var": [var("name")]}, True),
        ({"missing": ["a"]}, True),
        ({"missing_some": [1, ["a"]]}, True),
        ({"if": [False, 1, {"<": [var("$flagd.timestamp"), 5]}]}, True),
        ({"var": ["plan", var("$flagd.timestamp")]}, True),
        ({"map": [var("tags"), var("")]}, False),
        ({"map": [var("tags"), var("$flagd.timestamp")]}, False),
        ({"map": [var("$flagd.timestamp"), 1]}, True),
        ({"fractional": [["a", 1], ["b", var("$flagd.timestamp")]]}, True),
        ({"$ref": "late"}, True),
        ({"$ref": "plain"}, False),
    ],
)
def test_a_rule_is_timed_where_the_time_can_change_what_it_gives(rule: Any, timed: bool) -> None:  # noqa: FBT001
    populations = {"late": {">": [var("$flagd.timestamp"), 5]}, "plain": {"!": var("x")}}
    assert compiled(rule, populations=populations).timed is timed


@pytest.mark.parametrize(
    ("rule", "loops"),
    [
        ({"in": ["a", var("x")]}, False),
        ({"merge": [var("x"), [1]]}, False),
        *[({loop: [var("x"), True]}, True) for loop in ("map", "filter", "reduce", "all", "some", "none")],
        ({"if": [var("x"), {"!": {"some": [[1], 1]}}]}, True),
        ({"$ref": "looping"}, True),
    ],
)
def test_a_rule_has_loops_where_one_stands_in_it(rule: Any, loops: bool) -> None:  # noqa: FBT001
    assert compiled(rule, populations={"looping": {"all": [var("x"), var("")]}}).loops is loops


def test_a_rule_names_the_populations_in_it_and_no_others() -> None:
    populations = {name: {"!": var(name)} for name in "abcde"}
    rule = {"if": [{"$ref": "a"}, {"map": [var("x"), {"$ref": "b"}]}, {"fractional": [[{"$ref": "c"}], ["x"]]}]}
    assert compiled(rule, populations=populations).populations == {"a", "b", "c"}


def test_the_size_of_a_rule_counts_everything_in_it() -> None:
    assert compiled("on").nodes == 1
    assert compiled({"==": [var("x"), 1]}).nodes == 4
    inner = {"map": [var("x"), {"+": [var(""), 1]}]}
    assert compiled(inner).nodes == 7
    populations = {"p": inner}
    assert compiled({"!": {"$ref": "p"}}, populations=populations).nodes > 7


def test_only_what_could_run_long_is_metered() -> None:
    small, loop, large = compiled(var("x")), compiled({"map": [1, 2]}), compiled({"cat": [var("x")] * METERED_NODES})
    assert metered(small) is small.function
    assert metered(loop) is not loop.function
    assert metered(large) is not large.function


def test_a_literal_list_that_in_looks_into_is_as_one_to_the_meter_however_long() -> None:
    long = compiled({"in": [var("x"), [*range(100_000), "a", None, True, 0.5]]})
    assert long.nodes == compiled({"in": [var("x"), ["a"]]}).nodes
    assert metered(long) is long.function
    within: list[Any] = [99_999, "a", None, True, 0.5]
    without: list[Any] = [100_000, "b", False, 0.25, [], {}]
    assert [long.function({"x": x}, KEY) for x in within] == [True] * len(within)
    assert [long.function({"x": x}, KEY) for x in without] == [False] * len(without)


@pytest.mark.parametrize("operator", ["==", "missing", "merge", "max"])
def test_a_literal_list_counts_in_full_elsewhere(operator: str) -> None:
    assert compiled({operator: [["a"] * METERED_NODES, var("x")]}).nodes > METERED_NODES


def test_a_loop_looks_into_a_long_literal_list_for_each_of_many_items() -> None:
    rule = {"some": [var("tags"), {"in": [var(""), [str(number) for number in range(100_000)]]}]}
    assert metered(compiled(rule))({"tags": ["none"] * 10_000 + ["99999"]}, KEY) is True


def test_each_evaluation_has_the_whole_limit_for_itself() -> None:
    function = metered(compiled({"all": [var("x"), True]}))
    context = {"x": [1] * (LIMIT // 2)}
    for _ in range(5):
        assert function(context, KEY) is True
    with pytest.raises(RuleTooLong):
        function({"x": [1] * (LIMIT + 1)}, KEY)
    assert function(context, KEY) is True


# -- what is wrong with a rule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "path", "cause"),
    [
        ({"nope": 1}, "targeting.nope", '"nope" is no operator'),
        ({"if": [{"nope": []}, 1, 2]}, "targeting.if[0].nope", '"nope" is no operator'),
        ({"if": [1, 2, {"and": [True, {"nope": []}]}]}, "targeting.if[2].and[1].nope", "no operator"),
        ({"!": {"nope": 1}}, "targeting.![0].nope", "no operator"),
        ([1, [{"nope": 1}]], "targeting[1][0].nope", "no operator"),
        ({"if": [False, {"nope": 1}]}, "targeting.if[1].nope", "no operator"),
        ({"map": [var("x"), {"nope": 1}]}, "targeting.map[1].nope", "no operator"),
        ({"map": [var("x"), {"filter": [{"nope": 1}, 1]}]}, "targeting.map[1].filter[0].nope", "no operator"),
        ({"reduce": [var("x"), 1, {"nope": 1}]}, "targeting.reduce[2].nope", "no operator"),
        ({"var": ["x", {"nope": 1}]}, "targeting.var[1].nope", "no operator"),
        ({"missing": [{"nope": 1}]}, "targeting.missing[0].nope", "no operator"),
        ({"fractional": [{"nope": 1}, ["a", 1]]}, "targeting.fractional[0].nope", "no operator"),
        ({"fractional": [["a", 1], [{"nope": 1}, 1]]}, "targeting.fractional[1][0].nope", "no operator"),
        ({"fractional": [var("x"), ["a", {"nope": 1}]]}, "targeting.fractional[1][1].nope", "no operator"),
        ({"fractional": [["a", {"nope": 1}]]}, "targeting.fractional[0][1].nope", "no operator"),
        ({"!": {"": 1}}, "targeting.![0].", '"" is no operator'),
        ({"if": [{"$ref": "gone"}]}, "targeting.if[0].$ref", "there is no population 'gone'"),
        ({"$ref": ["good"]}, "targeting.$ref", "there is no population 'good'"),
        ({"and": [{"$ref": "bad"}]}, "targeting.and[0].$ref", r"population 'bad' does not compile: at !\[0\].nope: "),
        ({"map": [1, {"$ref": "bad"}]}, "targeting.map[1].$ref", "population 'bad' does not compile"),
    ],
)  # fmt: skip
def test_an_error_says_where_in_the_rule_what_is_wrong(rule: Any, path: str, cause: str) -> None:
    with pytest.raises(DefinitionError, match=cause) as caught:
        compiled(rule, populations={"good": {"!": 1}, "bad": {"!": {"nope": 1}}})
    assert caught.value.subject == 'flag "f"'
    assert caught.value.path == path
    assert str(caught.value) == f'flag "f": at {path}: {caught.value.cause}'


def test_a_population_that_names_another_is_wrong_itself() -> None:
    found = compile_population("outer", {"!": {"$ref": "inner"}}, generation="v3")
    assert isinstance(found, DefinitionError)
    assert (found.subject, found.path) == ('population "outer"', "![0].$ref")
    assert "names no other" in found.cause


def test_a_long_name_is_cut_in_an_error() -> None:
    with pytest.raises(DefinitionError) as caught:
        compiled({"n" * 1000: 1})
    assert len(caught.value.cause) < 120


# -- of what functions are made -------------------------------------------------------------------------------------


def codes(function: FunctionType) -> Iterator[CodeType]:
    yield function.__code__
    for made in chain(function.__defaults__ or (), function.__code__.co_consts):
        if isinstance(made, FunctionType):
            yield from codes(made)


@settings(max_examples=200)
@given(WILD)
def test_no_name_in_a_rule_becomes_a_name_in_its_code(rule: Any) -> None:
    allowed = {*forms.HELPERS, *forms.TYPES, "get", "__class__"}
    populations = {name: {"==": [var("x"), name]} for name in POPULATIONS}
    function = function_of(compiled(rule, populations=populations))
    assert function.__globals__["__builtins__"] == {}
    for code in codes(function):
        assert set(code.co_names) <= allowed
        assert all(name in ("context", "key") or name.startswith(("local_", "made_")) for name in code.co_varnames)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_runs_however_deep_it_nests_and_however_many_arguments_it_has(operator: str) -> None:
    deep: Any = var("x")
    for _ in range(31):
        deep = {operator: [deep, 1]}
    wide = {operator: [var("x")] * 2000}
    for rule in (deep, wide):
        function = metered(compiled(rule))
        for value in (None, "text", 5, [1, 2]):
            context = {"x": value}
            assert alike(function(context, KEY), traced(rule, context))


# -- values that come in all kinds ------------------------------------------------------------------------------------

VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    18,
    0.5,
    17.9,
    18.0,
    "",
    "0",
    "18",
    "abc",
    " 18 ",
    [],
    [18],
    ["18"],
    {},
    {"a": 1},
]


@pytest.mark.parametrize("operator", ["==", "!=", "===", "!==", "<", "<=", ">", ">=", "in"])
@pytest.mark.parametrize("constant", [None, True, False, 0, 18, -1, 17.9, "", "18", "abc", [], [18], ["abc", 18, None]])
def test_a_comparison_with_a_constant_is_the_comparison(operator: str, constant: Any) -> None:
    apply = OPERATORS[operator].apply
    assert apply is not None
    for value in VALUES:
        context = {"x": value}
        assert run({operator: [var("x"), constant]}, context) is apply(value, constant), value
        assert run({operator: [constant, var("x")]}, context) is apply(constant, value), value


@pytest.mark.parametrize("operator", ["!", "!!", "and", "or", "if"])
def test_the_truth_of_any_value_is_the_interpreters(operator: str) -> None:
    for value in VALUES:
        for tested in (var("x"), {"==": [var("x"), 18]}, {"cat": [var("x")]}, {"merge": [var("x")]}, {"+": [var("x")]}):
            rule: Any = {operator: [tested]} if operator in "!!" else {operator: [tested, "then", "else"]}
            assert alike(run(rule, {"x": value}), traced(rule, {"x": value})), (rule, value)
