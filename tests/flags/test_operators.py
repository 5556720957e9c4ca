"""What the operators give: against json-logic-js, whose answers are recorded, and each rule of their own.

`DEPARTURES` is the whole list of what we do otherwise than json-logic-js: where none applies, both say the same.
"""

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import RuleTooLong
from flagrelay.flags import lookup
from flagrelay.flags.compiler import compile_rule, metered
from flagrelay.flags.javascript import to_string
from flagrelay.flags.operators import MOST_INTEGER, MOST_TEXT, OPERATORS, arguments_of, operator_of
from flagrelay.flags.trace import trace_rule
from support.recorded import ERROR, FUNCTION, alike, recorded

RECORDED = Path(__file__).parents[1] / "data" / "json-logic-js"
KEY = "flag"
NAN, INFINITY = math.nan, math.inf


def compiled(rule: Any, context: Any) -> Any:
    return metered(compile_rule("flag", "targeting", rule, generation="v3", flag_key=KEY))(context, KEY)


def traced(rule: Any, context: Any) -> Any:
    return trace_rule(rule, context, KEY, generation="v3", rules={}).gave


def inside_loop(rule: Any, data: Any) -> tuple[Any, Any]:
    """A rule and a context in which the rule sees the data as an item of a list: there it may be anything."""
    return {"map": [{"var": "items"}, rule]}, {"items": [data]}


# -- where we depart from json-logic-js ------------------------------------------------------------------

Applies = Callable[[Any, Sequence[Any]], bool]


def some(test: Callable[[Any], bool]) -> Applies:
    return lambda _data, arguments: any(map(test, arguments))


def null_at_the_end(data: Any, arguments: Sequence[Any]) -> bool:
    """There is a default, and the path ends at a null that is there."""
    padded: list[Any] = [*arguments, None, None]
    name, default = padded[:2]
    if default is None or name is None or name == "":
        return False
    *parents, last = to_string(name).split(".")
    parent = lookup.descend(data, parents)
    if isinstance(parent, list):
        return last.isdigit() and int(last) < len(parent) and parent[int(last)] is None
    return isinstance(parent, dict) and last in parent and parent[last] is None


PROTOTYPES = re.compile(r"(.*\.)?(constructor|__proto__|map|toString)(\..*)?")


def names_prototype(_data: Any, arguments: Sequence[Any]) -> bool:
    return any(isinstance(name, str) and bool(PROTOTYPES.fullmatch(name)) for name in arguments[:1])


def no_double_writes(value: Any) -> bool:
    """Whether it is or holds an integer of which JavaScript has other digits."""
    if isinstance(value, list):
        return any(map(no_double_writes, value))
    return isinstance(value, int) and abs(value) > 2**53 and to_string(float(value)) != str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def names_listed(_data: Any, arguments: Sequence[Any]) -> bool:
    return any(isinstance(name, list) for name in arguments)


def names_unlisted(_data: Any, arguments: Sequence[Any]) -> bool:
    return len(arguments) < 2 or not isinstance(arguments[1], list)


def negative_text(_data: Any, arguments: Sequence[Any]) -> bool:
    return len(arguments) > 2 and not is_number(arguments[2]) and "-" in str(arguments[2])


class Example(NamedTuple):
    rule: Any
    data: dict[str, Any]
    ours: Any


@dataclass(frozen=True)
class Departure:
    """Where we depart on purpose.

    Args:
        why: what is right.
        operators: those that it is about, separated by spaces.
        applies: whether it is about these arguments, and the data that the operator sees.
        examples: with our answers; json-logic-js's are recorded in departures.jsonl.
    """

    why: str
    operators: str
    applies: Applies
    examples: tuple[Example, ...]


def var(name: Any) -> dict[str, Any]:
    return {"var": name}


LARGE = {"+": [2**53, 1]}
NOT_NUMBERS = (None, True, False)

DEPARTURES = (
    Departure(
        "null is absent, and gives the default: as in every flagd evaluator",
        "var",
        null_at_the_end,
        (
            Example(var(["a", 1]), {"a": None}, 1),
            Example(var(["a.b", "x"]), {"a": {"b": None}}, "x"),
        ),
    ),
    Departure(
        "data has no members but its own: what JavaScript's prototypes have is not there",
        "var",
        names_prototype,
        (
            Example(var("constructor"), {}, None),
            Example(var("__proto__"), {}, None),
            Example(var("a.map"), {"a": []}, None),
            Example(var("a.toString"), {"a": "text"}, None),
            Example({"missing": ["constructor"]}, {}, ["constructor"]),
        ),
    ),
    Departure(
        "booleans and null are 0 and 1 to sums and products, as in every flagd evaluator",
        "+ *",
        some(lambda value: any(value is each for each in NOT_NUMBERS)),
        (
            Example({"+": [True, 1]}, {}, 2),
            Example({"+": [None, 1]}, {}, 1),
            Example({"+": [var("a")]}, {"a": False}, 0),
            Example({"*": [True, 3]}, {}, 3),
            Example({"*": [var("a"), 3]}, {"a": None}, 0),
            Example({"*": [None]}, {}, 0),
        ),
    ),
    Departure(
        "the product of one or of nothing is a number too",
        "*",
        lambda _data, arguments: not arguments or (len(arguments) == 1 and not is_number(arguments[0])),
        (
            Example({"*": ["3"]}, {}, 3),
            Example({"*": [var("a")]}, {"a": [2]}, 2),
            Example({"*": []}, {}, 1),
        ),
    ),
    Departure(
        "there is no undefined: what is not there is null",
        "and or substr",
        lambda _data, arguments: not arguments,
        (
            Example({"!==": [{"and": []}, None]}, {}, False),
            Example({"!==": [{"or": []}, None]}, {}, False),
            Example({"substr": []}, {}, "null"),
        ),
    ),
    Departure(
        "integers stay exact, where JavaScript rounds them from 2^53 on; and are written out as they are",
        "== != === !== < <= > >= + * - / % min max cat substr in",
        some(no_double_writes),
        (
            Example({"==": [LARGE, 2**53]}, {}, False),
            Example({"%": [LARGE, 2]}, {}, 1),
            Example({"-": [{"*": [94906267, 94906267]}, 9007199515875288]}, {}, 1),
            Example({"cat": [{"*": [2**31, 2**30]}]}, {}, "2305843009213693952"),
            Example({"in": [str(2**61), {"cat": [{"*": [var("a"), 2**30]}]}]}, {"a": 2**31}, True),
        ),
    ),
    Departure(
        "what is no list of names is one name to `missing_some`",
        "missing_some",
        names_unlisted,
        (
            Example({"missing_some": [2, "abc"]}, {}, ["abc"]),
            Example({"missing_some": [1, var("a")]}, {}, []),
        ),
    ),
    Departure(
        "among names everything is a name, and a list no name with its default",
        "missing",
        names_listed,
        (
            Example({"missing_some": [2, [["a"], "b"]]}, {"a": 1}, ["b"]),
            Example({"missing": [[["a", "x"], ["b"]]]}, {"b": 1}, [["a", "x"]]),
        ),
    ),
    Departure(
        "data is never run as a rule",
        "missing",
        some(lambda value: isinstance(value, dict) and len(value) == 1),
        (Example({"missing": [var("a")]}, {"a": {"cat": "b"}, "b": "c"}, [{"cat": "b"}]),),
    ),
    Departure(
        "a negative size of `substr` is a number, also where it is written as a text",
        "substr",
        negative_text,
        (
            Example({"substr": ["abc", 0, "-1"]}, {}, "ab"),
            Example({"substr": [var("a"), 1, [-1]]}, {"a": "abc"}, "b"),
        ),
    ),
    Departure(
        "a whole zero has no sign",
        "/",
        lambda _data, arguments: len(arguments) > 1 and not arguments[1] and isinstance(arguments[1], int),
        (Example({"/": [1, {"-": [0]}]}, {}, INFINITY),),
    ),
)


class Outside(Exception):
    """One of the departures applies."""


def check(operator: str, data: Any, arguments: Sequence[Any]) -> None:
    for departure in DEPARTURES:
        if operator in departure.operators.split() and departure.applies(data, arguments):
            raise Outside(departure.why)


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """The interpreter stops at the first operator to which a departure applies."""

    def apply_of(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            check(name, None, arguments)
            result = function(*arguments)
            check(name, None, (*arguments, result) if is_number(result) else arguments)
            return result

        return run

    look, missing, missing_some = lookup.look, lookup.missing, lookup.missing_some

    def looked(data: Any, flag_key: str | None, name: Any, default: Any = None) -> Any:
        if flag_key is not None and (name is None or name == ""):
            raise Outside("the whole context has $flagd, which json-logic-js knows nothing of")
        check("var", data, (name, default))
        return look(data, flag_key, name, default)

    def all_missing(data: Any, flag_key: str | None, names: Sequence[Any]) -> Any:
        check("missing", data, names[0] if names and isinstance(names[0], list) else names)
        return missing(data, flag_key, names)

    def some_missing(data: Any, flag_key: str | None, needed: Any, names: Any) -> Any:
        check("missing_some", data, (needed, names))
        return missing_some(data, flag_key, needed, names)

    operators = {
        name: replace(operator, apply=apply_of(name, operator.apply))
        for name, operator in OPERATORS.items()
        if operator.apply
    }
    with (
        mock.patch.dict(OPERATORS, operators),
        mock.patch.object(lookup, "look", looked),
        mock.patch.object(lookup, "missing", all_missing),
        mock.patch.object(lookup, "missing_some", some_missing),
    ):
        yield


@pytest.mark.parametrize(
    ("why", "example"), [(departure.why, example) for departure in DEPARTURES for example in departure.examples]
)
def test_where_we_depart_from_json_logic_js_each_gives_what_is_written_down(why: str, example: Example) -> None:
    (theirs,) = [gave for rule, data, gave in DEPARTED if rule == example.rule and data == example.data]
    assert not exactly_alike(example.ours, theirs)
    for rule, context, expected in (
        (example.rule, example.data, example.ours),
        (*inside_loop(example.rule, example.data), [example.ours]),
    ):
        assert exactly_alike(compiled(rule, context), expected)
        assert exactly_alike(traced(rule, context), expected)
        if operator_of(example.rule) != "!==":  # `and` and `or` of nothing are in no recorded rule
            with checked(), pytest.raises(Outside, match=re.escape(why)):
                traced(rule, context)


DEPARTED = recorded(RECORDED / "departures.jsonl")


def exactly_alike(ours: Any, theirs: Any) -> bool:
    """Alike, and integers to the last digit."""
    return alike(ours, theirs) and (not is_number(theirs) or not math.isfinite(theirs) or ours == theirs)


def test_every_recorded_departure_is_in_the_table() -> None:
    examples = [example for departure in DEPARTURES for example in departure.examples]
    assert [[rule, data] for rule, data, _ in DEPARTED] == [[example.rule, example.data] for example in examples]


def arrangements(values: list[Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Arguments and a context: all from the context, all literal, the first or the last literal. All say the same."""
    looked_up = [var(f"a{index}") for index in range(len(values))]
    context = {f"a{index}": value for index, value in enumerate(values)}
    literal = [not holds_rule(value) for value in values]
    for chosen in {(), (0,), (len(values) - 1,), tuple(range(len(values)))}:
        if all(0 <= index < len(values) and literal[index] for index in chosen):
            yield [values[index] if index in chosen else looked_up[index] for index in range(len(values))], context


def holds_rule(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(holds_rule, value))
    return isinstance(value, dict) and len(value) == 1


def both(rule: Any, context: Any) -> list[Any]:
    """What the interpreter gives, and what the compiled function does; nothing where a departure applies."""
    with checked():
        try:
            interpreted = traced(rule, context)
        except Outside:
            return []
    return [interpreted, compiled(copy.deepcopy(rule), context)]


OPERATED = recorded(RECORDED / "operators.jsonl")


@pytest.mark.parametrize("operator", sorted({operator for operator, _, _ in OPERATED}))
def test_an_operator_gives_what_json_logic_js_recorded(operator: str) -> None:
    compared, wrong = 0, []
    for values, theirs in [line[1:] for line in OPERATED if line[0] == operator]:
        for arguments, context in arrangements(values):
            found = both({operator: arguments}, context)
            compared += len(found)
            wrong += [(arguments, context, ours, theirs) for ours in found if not alike(ours, theirs)]
    assert not wrong
    assert compared > 40


def test_a_rule_gives_what_json_logic_js_recorded() -> None:
    compared, wrong = 0, []
    for rule, data, theirs in recorded(RECORDED / "rules.jsonl"):
        runs = [(*inside_loop(rule, data), [theirs])]
        if isinstance(data, dict):
            runs.append((rule, data, theirs))
        for run, context, expected in runs:
            found = both(run, context)
            compared += len(found)
            wrong += [(rule, data, ours, theirs) for ours in found if not alike(ours, expected)]
    assert not wrong
    assert compared > 8000


def test_where_json_logic_js_dies_or_gives_no_data_we_give_something() -> None:
    died = 0
    for rule, data, theirs in recorded(RECORDED / "rules.jsonl"):
        if theirs is ERROR or theirs is FUNCTION:
            run, context = inside_loop(rule, data)
            assert compiled(run, context) is not None
            died += 1
    assert died > 10


# -- flagd's own operators, and the limits --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "result"),
    [
        ({"starts_with": ["abcdef", "abc"]}, True),
        ({"starts_with": ["abcdef", "bcd"]}, False),
        ({"starts_with": ["abc", ""]}, True),
        ({"starts_with": ["", "a"]}, False),
        ({"ends_with": ["abcdef", "def"]}, True),
        ({"ends_with": ["abcdef", "abc"]}, False),
        ({"ends_with": ["é😀", "😀"]}, True),
        ({"starts_with": ["abc", 1]}, None),
        ({"starts_with": [1, "1"]}, None),
        ({"ends_with": [None, ""]}, None),
        ({"ends_with": [["a"], "a"]}, None),
        ({"starts_with": ["abc"]}, None),
        ({"starts_with": "abc"}, None),
        ({"starts_with": []}, None),
        ({"ends_with": ["abc", "c", "c"]}, None),
        ({"sem_ver": ["1.2.3", ">", "1.2.2"]}, True),
        ({"sem_ver": ["1.2.3", "<", "1.2.2"]}, False),
        ({"sem_ver": ["1.2.3", "="]}, None),
        ({"sem_ver": ["1.2.3", "=", "1.2.3", "1.2.3"]}, None),
        ({"sem_ver": []}, None),
    ],
)
def test_flagds_own_operators_take_exactly_their_arguments_and_give_null_for_others(rule: Any, result: Any) -> None:
    assert compiled(rule, {}) is result
    assert traced(rule, {}) is result
    (operator,) = rule
    arguments = arguments_of(rule)
    looked_up = [var(f"a{index}") for index in range(len(arguments))]
    context = {f"a{index}": argument for index, argument in enumerate(arguments)}
    assert compiled({operator: looked_up}, context) is result


@pytest.mark.parametrize(
    ("operator", "arguments", "result"),
    [
        ("%", [-7, 3], -1),
        ("%", [7, -3], 1),
        ("%", [-7.5, 2], -1.5),
        ("%", [5, INFINITY], 5.0),
        ("%", [INFINITY, 5], NAN),
        ("%", [1, 0], NAN),
        ("/", [1, 0], INFINITY),
        ("/", [-1, 0], -INFINITY),
        ("/", [1, -0.0], -INFINITY),
        ("/", [0, 0], NAN),
        ("/", [6, 3], 2.0),
        ("-", [10**400], -INFINITY),
        ("+", [2**62, 2**62], float(2**63)),
        ("+", [2**62, 2**61], 2**62 + 2**61),
        ("*", [10**400, -1], -INFINITY),
        ("min", [], INFINITY),
        ("max", [], -INFINITY),
        ("max", [1, "x"], NAN),
        ("min", [True, 2], 1),
    ],
)
def test_arithmetic_ends_in_doubles_and_never_fails(operator: str, arguments: list[Any], result: float) -> None:
    apply = OPERATORS[operator].apply
    assert apply is not None
    found = apply(*arguments)
    assert type(found) is type(result)
    assert repr(found) == repr(result)


@given(st.lists(st.integers() | st.floats(allow_nan=False) | st.text("0123456789-.e", max_size=6), max_size=6))
def test_no_sum_product_or_difference_is_an_integer_of_more_than_64_bits(values: list[Any]) -> None:
    for operator in ("+", "*", "-", "%"):
        apply = OPERATORS[operator].apply
        assert apply is not None
        found = apply(*values)
        assert isinstance(found, float) or -MOST_INTEGER < found < MOST_INTEGER


def test_a_text_that_a_rule_puts_together_has_a_limit() -> None:
    half = "x" * (MOST_TEXT // 2)
    assert len(compiled({"cat": [var("a"), var("a")]}, {"a": half})) == MOST_TEXT
    with pytest.raises(RuleTooLong, match="250000"):
        compiled({"cat": [var("a"), var("a"), "y"]}, {"a": half})
    with pytest.raises(RuleTooLong):
        compiled({"cat": [half, half, "y"]}, {})


@pytest.mark.parametrize(
    "rule",
    [
        {"some": [{"merge": [var("items")] * 3}, {"==": [var(""), -1]}]},
        {"none": [var("lists"), {"in": [-1, var("")]}]},
        {"reduce": [var("items"), {"merge": [var("accumulator"), var("current")]}, []]},
    ],
)
def test_work_that_grows_with_the_data_has_a_limit(rule: Any) -> None:
    with pytest.raises(RuleTooLong, match="visits more than 250000 items"):
        compiled(rule, {"items": list(range(100_000)), "lists": [list(range(100_000))] * 12})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(st.sampled_from([name for name, operator in OPERATORS.items() if operator.apply]), st.lists(JSON, max_size=4))
def test_an_operator_gives_a_json_value_for_any_arguments(name: str, arguments: list[Any]) -> None:
    apply = OPERATORS[name].apply
    assert apply is not None
    found = apply(*arguments)
    assert found is None or isinstance(found, bool | int | float | str | list | dict)
