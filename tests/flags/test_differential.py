"""What we say against what flagd's own evaluator for Python says, and compiled rules against interpreted ones.

`DIFFERENCES` is the whole list of what may differ in rules: where none of them applies, both must say the same. Each
knows the arguments that it is about, and has examples with both answers, so that a change on either side shows.
"""

import contextlib
import copy
import importlib
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from flagrelay.errors import RuleTooLong
from flagrelay.flags import lookup
from flagrelay.flags.compiled_flag import compile_population
from flagrelay.flags.compiler import compile_rule
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.flags.trace import trace_rule
from support.rules import CONTEXTS, OPERATORS, POPULATIONS, WILD, flags, rules, targetings

flagd_targeting = importlib.import_module("openfeature.contrib.tools.flagd.core.targeting.targeting")
read_by_them: Callable[[Any], Any] = importlib.import_module("json_logic.builtins").to_number

START = Position("e0", 0, "e0-0")
KEY = "flag-é"
NAN, INFINITY = math.nan, math.inf
NOW = 1_764_000_000


@pytest.fixture(autouse=True, scope="module")
def still() -> Iterator[None]:
    """The clock stands still for both, as `$flagd.timestamp` shows it; and flagd-core does not log what it refuses."""
    standing = SimpleNamespace(time=lambda: float(NOW))
    logger = logging.getLogger("openfeature.contrib")
    with (
        mock.patch.object(lookup, "time", standing),
        mock.patch.object(flagd_targeting, "time", standing),
        mock.patch.object(logger, "disabled", new=True),
    ):
        yield


def same(left: Any, right: Any) -> bool:
    """Of one type and equal, all the way down; NaN is NaN, and 0 is not -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return repr(left) == repr(right) if isinstance(left, float) else bool(left == right)


# -- what Python and JavaScript read and write differently -------------------------------------------------

PLAIN_NUMBER = re.compile(r"[ \t\n\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r]*")
ONLY_IN_JAVASCRIPT = re.compile(r"\s*(0[xob].*)?|.*\ufeff.*", re.IGNORECASE | re.DOTALL)
BEGINS_LIKE_A_NUMBER = re.compile(r"[\s\ufeff]*[+-]?(\.?\d|inf)", re.IGNORECASE)


def is_nan(value: Any) -> bool:
    return bool(value != value)  # noqa: PLR0124 - math.isnan refuses what is no number, and numbers that are huge


def is_number(value: Any) -> bool:
    """In Python's sense, to which true is one."""
    return isinstance(value, int | float)


def is_container(value: Any) -> bool:
    return isinstance(value, list | dict)


def reads_otherwise(value: Any) -> bool:
    """Whether only one of them reads a number from it, or another number."""
    if isinstance(value, list) and len(value) == 1:
        (item,) = value
        return isinstance(item, bool) or (isinstance(item, int) and abs(item) >= 10**15) or reads_otherwise(item)
    if not isinstance(value, str) or PLAIN_NUMBER.fullmatch(value):
        return False
    try:
        float(value)
    except ValueError:
        return bool(ONLY_IN_JAVASCRIPT.fullmatch(value))
    return True


def parses_otherwise(value: Any) -> bool:
    """The same for parseFloat, which takes of a text what looks like a number, and of a list its first item."""
    if isinstance(value, list):
        return len(value) != 1 or not is_number(value[0]) or reads_otherwise(value)
    return isinstance(value, str) and not PLAIN_NUMBER.fullmatch(value) and bool(BEGINS_LIKE_A_NUMBER.match(value))


def writes_otherwise(value: Any) -> bool:
    """Whether they write it as different texts."""
    if isinstance(value, list):
        return any(item is None or writes_otherwise(item) for item in value)
    if isinstance(value, float):
        short = f"{value:.15g}"
        return short != repr(value).removesuffix(".0") or "e" in short or not math.isfinite(value) or short == "-0"
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) >= 10**21)


def is_beyond(value: Any) -> bool:
    """Whether there is a character in it that UTF-16 writes as two, or orders after those."""
    return any(character > "\ud7ff" for character in str(value)) or "\\ud" in repr(value)


def is_infinite(value: Any) -> bool:
    """To a double."""
    return bool(abs(read_by_them(value)) >= 2**1024)


# -- the arguments that a difference is about ----------------------------------------------------------------

Applies = Callable[[Any, Sequence[Any]], bool]


def some(test: Callable[[Any], bool]) -> Applies:
    return lambda _data, arguments: any(map(test, arguments))


def fewer_than(count: int) -> Applies:
    return lambda _data, arguments: len(arguments) < count


def more_than(count: int) -> Applies:
    return lambda _data, arguments: len(arguments) > count


def null_at(index: int) -> Applies:
    return lambda _data, arguments: len(arguments) > index and arguments[index] is None


def at(index: int, test: Callable[[Any], bool]) -> Applies:
    return lambda _data, arguments: len(arguments) > index and test(arguments[index])


def pairs(test: Callable[[Any, Any], bool]) -> Applies:
    """About each two arguments that are compared with one another."""

    def applies(_data: Any, arguments: Sequence[Any]) -> bool:
        values = [*arguments[:3], None, None][: max(2, min(3, len(arguments)))]
        return any(test(left, right) or test(right, left) for left, right in pairwise(values))

    return applies


def mixes_up(left: Any, right: Any) -> bool:
    """Whether Python's == holds and JavaScript's === does not; or the other way, for the same NaN."""
    if is_container(left) and is_container(right):
        return left is not right and bool(left == right)
    return bool(left == right) and isinstance(left, bool) != isinstance(right, bool)


def in_list(_data: Any, arguments: Sequence[Any]) -> bool:
    needle, haystack = [*arguments, None, None][:2]
    return isinstance(haystack, list) and any(mixes_up(needle, item) or is_nan(item) for item in haystack)


def in_text(_data: Any, arguments: Sequence[Any]) -> bool:
    needle, haystack = [*arguments, None, None][:2]
    return isinstance(haystack, str) and (writes_otherwise(needle) or (haystack == "" and needle in ("", [])))


def grows(_data: Any, arguments: Sequence[Any]) -> bool:
    """Beyond 64 bits; or, where whole numbers are read from texts, beyond what a double holds exactly."""
    read = [(value, abs(read_by_them(value))) for value in arguments]
    whole = [int(number) for value, number in read if isinstance(value, int | str | list) and number < INFINITY]
    limit = 2**53 if any(isinstance(value, str | list) for value in arguments) else 2**63
    return sum(whole) >= limit or math.prod(max(1, number) for number in whole) >= limit


def by_zero(_data: Any, arguments: Sequence[Any]) -> bool:
    return len(arguments) < 2 or bool(read_by_them(arguments[1]) == 0)


def of_both_signs(_data: Any, arguments: Sequence[Any]) -> bool:
    left, right = [*map(read_by_them, arguments), 0, 0][:2]
    return bool(left < 0 < right or right < 0 < left)


def not_all_numbers(_data: Any, arguments: Sequence[Any]) -> bool:
    return any(isinstance(value, bool) for value in arguments) or (
        len(arguments) > 1 and any(is_nan(read_by_them(value)) for value in arguments)
    )


def names_otherwise(data: Any, arguments: Sequence[Any]) -> bool:
    """A number that is no index of a list or text."""
    name: Any = arguments[0] if arguments else None
    if not is_number(name):
        return False
    return isinstance(name, bool) or isinstance(data, dict) or is_nan(name) or abs(name) >= 10**15 or name != int(name)


def looks_into_text(data: Any, arguments: Sequence[Any]) -> bool:
    """On the way of the path there is a text whose characters are counted otherwise."""
    for part in str(arguments[0] if arguments else "").split("."):
        if isinstance(data, str):
            return is_beyond(data)
        with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
            data = data[int(part)] if isinstance(data, list) else data[part]
    return False


def is_scope_of_reduce(data: Any, arguments: Sequence[Any]) -> bool:
    whole = not arguments or arguments[0] is None or arguments[0] == ""
    return whole and isinstance(data, dict) and data.keys() == {"accumulator", "current"}


def is_whole_context(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("$flagd"), dict)


def is_made_anew(value: Any) -> bool:
    return is_whole_context(value) or (isinstance(value, dict) and value.keys() == {"flagKey", "timestamp"})


def shorthand_of_item(data: Any, arguments: Sequence[Any]) -> bool:
    """The shorthand where an item of a list stands for the context, and is no object or brings its own `$flagd`."""
    if not arguments or not isinstance(arguments[0], list):
        return False
    return not isinstance(data, dict) or data.get("$flagd", {}) not in ({}, {"flagKey": KEY, "timestamp": NOW})


def has_whole_float(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and isinstance(value[1], float) and value[1].is_integer()


def names_variant_otherwise(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value) or value.is_integer() or "e" in repr(value)
    return bool(value) if isinstance(value, list) else not isinstance(value, bool) and writes_otherwise(value)


def starts_reduce_with_rule(rule: Any) -> bool:
    """Somewhere in a rule."""
    if isinstance(rule, list):
        return any(starts_reduce_with_rule(each) for each in rule)
    if not isinstance(rule, dict) or len(rule) != 1:
        return False
    ((operator, arguments),) = rule.items()
    starts = operator == "reduce" and isinstance(arguments, list) and len(arguments) > 2 and has_rule(arguments[2])
    return starts or starts_reduce_with_rule(arguments)


def has_rule(rule: Any) -> bool:
    return any(map(has_rule, rule)) if isinstance(rule, list) else isinstance(rule, dict) and len(rule) == 1


class Example(NamedTuple):
    rule: Any
    context: dict[str, Any]
    theirs: Any  # a value, or what flagd-core dies of
    ours: Any


@dataclass(frozen=True)
class Difference:
    """Where the two differ on purpose.

    Args:
        why: what is right.
        operators: those that it is about, separated by spaces; `targeting` is the whole rule, before it is run, and
            `result` what it gave.
        applies: whether it is about these arguments, and the data that the operator sees.
        examples: with both answers.
    """

    why: str
    operators: str
    applies: Applies
    examples: tuple[Example, ...]


def var(name: Any) -> dict[str, Any]:
    return {"var": name}


DIFFERENCES = (
    Difference(
        "null == equals nothing but null; for flagd-core it equals zero",
        "== !=",
        pairs(lambda left, right: left is None and is_number(right)),
        (
            Example({"==": [var("x"), 0]}, {}, True, False),
            Example({"!=": [var("x"), False]}, {"x": None}, False, True),
            Example({"==": [0]}, {}, True, False),
        ),
    ),
    Difference(
        'Number("") is 0, Number("0x10") is 16; JavaScript has no underscores and no other digits in numbers',
        "== != < <= > >= - / % min max missing_some",
        some(reads_otherwise),
        (
            Example({"==": [var("x"), 0]}, {"x": ""}, False, True),
            Example({"==": [var("x"), 16]}, {"x": "0x10"}, False, True),
            Example({"==": [var("x"), 1000]}, {"x": "1_000"}, True, False),
            Example({"==": [var("x"), 3]}, {"x": "٣"}, True, False),
            Example({">": [var("x"), 3]}, {"x": "infinity"}, True, False),
            Example({"-": [var("x"), 1]}, {"x": "\ufeff5"}, NAN, 4.0),
            Example({"-": [var("x"), 1]}, {"x": "\x855"}, 4.0, NAN),
            Example({"==": [var("x"), 1]}, {"x": [True]}, True, False),
            Example({"max": [var("x")]}, {"x": "1_0"}, 10.0, NAN),
            Example({"missing_some": [var("x"), ["a"]]}, {"x": "0x1"}, ["a"], ["a"]),
        ),
    ),
    Difference(
        "a list as a text writes null as nothing, true as true, numbers as JavaScript does",
        "== != < <= > >=",
        pairs(lambda left, right: isinstance(left, str) and is_container(right) and writes_otherwise(right)),
        (
            Example({"==": [var("x"), "a,,true"]}, {"x": ["a", None, True]}, False, True),
            Example({"==": [var("x"), "1e-7,1"]}, {"x": [1e-7, 1.0]}, False, True),
            Example({"<": [var("x"), "b"]}, {"x": [None]}, False, True),
        ),
    ),
    Difference(
        "=== takes true for no number, and tells lists and objects apart by identity",
        "=== !==",
        pairs(mixes_up),
        (
            Example({"===": [var("x"), 1]}, {"x": True}, True, False),
            Example({"!==": [0, var("x")]}, {"x": False}, False, True),
            Example({"===": [var("x"), [1]]}, {"x": [1]}, True, False),
            Example({"!==": [var("x"), var("y")]}, {"x": {}, "y": {}}, False, True),
        ),
    ),
    Difference(
        "null is not what was never given",
        "=== !==",
        fewer_than(2),
        (Example({"===": [None]}, {}, True, False),),
    ),
    Difference(
        "the whole context, and what is provided in it, is put together anew each time that a rule looks at it",
        "== != === !== in",
        some(is_made_anew),
        (
            Example({"===": [var(""), var("")]}, {}, True, False),
            Example({"==": [var("$flagd"), var("$flagd")]}, {}, True, False),
            Example({"in": [var("$flagd"), [1, var("$flagd")]]}, {}, True, False),
        ),
    ),
    Difference(
        "in compares with ===",
        "in",
        in_list,
        (
            Example({"in": [var("x"), [1, 2]]}, {"x": True}, True, False),
            Example({"in": [var("x"), var("y")]}, {"x": 0, "y": [False]}, True, False),
            Example({"in": [var("x"), var("y")]}, {"x": [1], "y": [[1]]}, True, False),
            Example({"in": [var("y.0"), var("y")]}, {"y": [NAN]}, True, False),
        ),
    ),
    Difference(
        "in writes the needle as JavaScript does, and finds nothing in an empty text",
        "in",
        in_text,
        (
            Example({"in": [var("x"), "is true"]}, {"x": True}, False, True),
            Example({"in": [var("x"), "0.000001"]}, {"x": 0.000001}, False, True),
            Example({"in": ["", var("x")]}, {"x": ""}, True, False),
        ),
    ),
    Difference(
        "a third argument of null is compared too, as 0",
        "< <=",
        null_at(2),
        (Example({"<": [1, 2, var("x")]}, {}, True, False),),
    ),
    Difference(
        "> and >= take two arguments",
        "> >=",
        more_than(2),
        (Example({">": [3, 2, 5]}, {}, False, True),),
    ),
    Difference(
        "nothing is in order with an argument that was not given; for flagd-core that is 0",
        "< <= > >=",
        fewer_than(2),
        (Example({">": [1]}, {}, True, False), Example({"<=": []}, {}, True, False)),
    ),
    Difference(
        'a text against null is a number against 0; for flagd-core null is the text "null"',
        "< <= > >=",
        pairs(lambda left, right: isinstance(left, str) and right is None),
        (Example({"<": [var("x"), "zzz"]}, {}, True, False), Example({"<": [var("x"), "5"]}, {}, False, True)),
    ),
    Difference(
        "lists and objects are compared as texts",
        "< <= > >=",
        pairs(lambda left, right: is_container(left) and is_container(right)),
        (
            Example({"<": [var("x"), var("y")]}, {"x": [1, 2], "y": [1, 3]}, False, True),
            Example({"<": [[10], [9]]}, {}, False, True),
        ),
    ),
    Difference(
        "texts are in the order of their UTF-16 units",
        "< <= > >=",
        pairs(
            lambda left, right: isinstance(left, str) and not is_number(right) and is_beyond(left) and is_beyond(right)
        ),
        (Example({"<": [var("x"), "\uff21"]}, {"x": "😀"}, False, True),),
    ),
    Difference(
        "+ and * read with parseFloat: as much of a text as is a number, of a list its first item, of nothing nothing",
        "+ *",
        some(parses_otherwise),
        (
            Example({"+": [var("x"), 1]}, {"x": "12 apples"}, NAN, 13),
            Example({"*": [var("x"), 2]}, {"x": "0x10"}, NAN, 0),
            Example({"+": [var("x"), 1]}, {"x": "1_000"}, 1001.0, 2),
            Example({"+": [var("x")]}, {"x": [5, 6]}, NAN, 5),
            Example({"+": [var("x")]}, {"x": []}, 0, NAN),
        ),
    ),
    Difference(
        "- with a second argument of null subtracts 0; only with one argument does it change the sign",
        "-",
        null_at(1),
        (Example({"-": [5, var("x")]}, {}, -5, 5),),
    ),
    Difference(
        "an argument that was not given is NaN; for flagd-core it is 0",
        "-",
        fewer_than(1),
        (Example({"-": []}, {}, 0, NAN),),
    ),
    Difference(
        "from 2^63 on arithmetic goes on in doubles, so that no number grows without end; and whole numbers read from "
        "texts stay exact up to there, where flagd-core makes doubles of them",
        "+ * - / %",
        grows,
        (
            Example({"*": [2**62, 2]}, {}, 2**63, float(2**63)),
            Example({"+": [var("x")]}, {"x": 10**400}, 10**400, INFINITY),
            Example({"/": [var("x"), 2]}, {"x": 10**400}, OverflowError, INFINITY),
            Example({"*": ["100000000000001", "1001"]}, {}, 100100000000001008.0, 100100000000001001),
        ),
    ),
    Difference(
        "division by zero gives Infinity or NaN; flagd-core dies of it",
        "/ %",
        by_zero,
        (
            Example({"/": [1, var("x")]}, {}, ZeroDivisionError, INFINITY),
            Example({"/": [-1, 0]}, {}, ZeroDivisionError, -INFINITY),
            Example({"/": [0, 0]}, {}, ZeroDivisionError, NAN),
            Example({"/": [5]}, {}, ZeroDivisionError, NAN),
            Example({"%": [5, 0]}, {}, ZeroDivisionError, NAN),
        ),
    ),
    Difference(
        "the rest of a division has the sign of the dividend",
        "%",
        of_both_signs,
        (
            Example({"%": [-5, 3]}, {}, 1, -2),
            Example({"%": [5, -3]}, {}, -1, 2),
            Example({"%": [-5.5, 3]}, {}, 0.5, -2.5),
        ),
    ),
    Difference(
        "the least of nothing is Infinity, as Math.min() is",
        "min max",
        fewer_than(1),
        (Example({"min": []}, {}, NAN, INFINITY), Example({"max": []}, {}, NAN, -INFINITY)),
    ),
    Difference(
        "min and max are NaN where an argument is, and make numbers of true and false",
        "min max",
        not_all_numbers,
        (
            Example({"max": [1, "a"]}, {}, 1, NAN),
            Example({"min": [var("x"), 2]}, {"x": True}, True, 1),
        ),
    ),
    Difference(
        "cat writes null as nothing, and the rest as JavaScript does",
        "cat",
        some(lambda value: value is None or writes_otherwise(value)),
        (
            Example({"cat": ["a", var("x"), "b"]}, {}, "anullb", "ab"),
            Example({"cat": [var("x")]}, {"x": True}, "True", "true"),
            Example({"cat": [var("x")]}, {"x": 0.1 + 0.2}, "0.3", "0.30000000000000004"),
            Example({"cat": [var("x")]}, {"x": 1e20}, "1e+20", "100000000000000000000"),
            Example({"cat": [var("x")]}, {"x": 10**21}, "1000000000000000000000", "1e+21"),
            Example({"cat": [var("x")]}, {"x": -0.0}, "-0", "0"),
            Example({"cat": [var("x")]}, {"x": [1, None, False]}, "1,null,False", "1,,false"),
        ),
    ),
    Difference(
        "substr counts UTF-16 units",
        "substr",
        at(0, is_beyond),
        (
            Example({"substr": [var("x"), 2]}, {"x": "😀ab"}, "b", "ab"),
            Example({"substr": [var("x"), 0, -1]}, {"x": "a😀"}, "a", "a\ud83d"),
        ),
    ),
    Difference(
        "substr writes what is no text as JavaScript does",
        "substr",
        at(0, writes_otherwise),
        (Example({"substr": [var("x"), 0, 2]}, {"x": True}, "Tr", "tr"),),
    ),
    Difference(
        "substr takes null for 0, and reads numbers as JavaScript does; infinity is the end",
        "substr",
        lambda data, arguments: (
            null_at(2)(data, arguments) or any(reads_otherwise(value) or is_infinite(value) for value in arguments[1:3])
        ),
        (
            Example({"substr": ["abc", 1, var("x")]}, {}, "bc", ""),
            Example({"substr": ["abc", var("x")]}, {"x": "0x1"}, "abc", "bc"),
            Example({"substr": ["abc", 1, var("x")]}, {"x": INFINITY}, OverflowError, "bc"),
            Example({"substr": ["abc", 1, var("x")]}, {"x": 10**400}, OverflowError, "bc"),
        ),
    ),
    Difference(
        "substr from -0.5 is from 0: towards zero first, and then from the end",
        "substr",
        at(1, lambda start: -1 < read_by_them(start) < 0),
        (Example({"substr": ["abc", -0.5]}, {}, "", "abc"),),
    ),
    Difference(
        "a number names the member of that name",
        "var",
        names_otherwise,
        (
            Example({"var": 1}, {"1": "one"}, None, "one"),
            Example({"map": [var("x"), {"var": 1.5}]}, {"x": [["a", "bcdefg"]]}, [None], ["g"]),
            Example({"map": [var("x"), {"var": True}]}, {"x": [["a", "b"]]}, ["b"], [None]),
            Example({"missing": [1]}, {"1": "one"}, [1], []),
        ),
    ),
    Difference(
        "a third argument of var is ignored; flagd-core dies of it",
        "var",
        more_than(2),
        (Example({"var": ["x", 1, 2]}, {"x": 5}, TypeError, 5),),
    ),
    Difference(
        "length and places in a text count UTF-16 units",
        "var",
        looks_into_text,
        (
            Example({"var": "x.length"}, {"x": "a😀"}, 2, 3),
            Example({"var": "x.2"}, {"x": "😀b"}, None, "b"),
        ),
    ),
    Difference(
        "each round of reduce has an object of its own; flagd-core changes the one that it gave away",
        "var",
        is_scope_of_reduce,
        (
            Example(
                {"reduce": [[1, 2], {"if": [var("accumulator.current"), var("accumulator.current"), var("")]}, None]},
                {},
                2,
                1,
            ),
        ),
    ),
    Difference(
        "what reduce starts with is a rule like any other; flagd-core takes it as it is written",
        "targeting",
        some(starts_reduce_with_rule),
        (
            Example({"reduce": [[], var("current"), var("x")]}, {"x": 5}, {"var": "x"}, 5),
            Example({"reduce": [[1], var("accumulator"), [var("x")]]}, {"x": 5}, [{"var": "x"}], [5]),
        ),
    ),
    Difference(
        "one name stands for a list of it",
        "missing_some",
        at(1, lambda names: names is not None and not isinstance(names, list)),
        (Example({"missing_some": [1, "a"]}, {}, [], ["a"]),),
    ),
    Difference(
        "sem_ver takes numbers as JavaScript writes them, and no version of more than 256 characters",
        "sem_ver",
        some(lambda value: (is_number(value) and writes_otherwise(value)) or len(str(value)) > 256),
        (
            Example({"sem_ver": [var("x"), "=", var("x")]}, {"x": 10**21}, True, None),
            Example({"sem_ver": ["1.0.0-" + "a" * 256, ">", "0.1.0"]}, {}, True, None),
        ),
    ),
    Difference(
        "a whole number is a weight, however it came about",
        "fractional",
        some(has_whole_float),
        (
            Example({"fractional": ["x", ["a", 1.0]]}, {}, None, "a"),
            Example({"fractional": ["x", ["a", {"*": [var("x"), 2]}]]}, {"x": "5"}, None, "a"),
        ),
    ),
    Difference(
        "the shorthand over an item that is no object has no targeting key, and an item is not asked which flag it is",
        "fractional",
        shorthand_of_item,
        (
            Example({"map": [[1], {"fractional": [["a", 1], ["b", 1]]}]}, {}, AttributeError, [None]),
            Example(
                {"map": [var("x"), {"fractional": [["a", 1], ["b", 1]]}]},
                {"x": [{"targetingKey": "u1", "$flagd": {"flagKey": "other"}}]},
                ["b"],
                ["a"],
            ),
        ),
    ),
    Difference(
        "a context without a targeting key has none, where flagd-core puts a null",
        "fractional",
        at(0, lambda value: is_whole_context(value) and value.get("targetingKey") is None),
        (Example({"fractional": [var(""), ["a", 1], ["b", 1]]}, {"x": 3}, "a", "b"),),
    ),
    Difference(
        "numbers and lists name variants as JavaScript writes them",
        "result",
        some(names_variant_otherwise),
        (
            Example({"+": ["1"]}, {}, 1.0, 1),
            Example({"merge": ["on"]}, {}, ["on"], ["on"]),
        ),
    ),
)


# -- flagd-core, and where it need not agree ------------------------------------------------------------------


class Outside(Exception):
    """The evaluation has come to one of the differences."""


def guarded(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    known = [difference for difference in DIFFERENCES if operator in difference.operators.split()]

    def run(data: Any, *arguments: Any) -> Any:
        for difference in known:
            try:
                applies = difference.applies(data, arguments)
            except Exception as error:  # noqa: BLE001 - not to be taken for one of flagd-core's
                pytest.fail(f"{difference.why}: cannot be told for {arguments!r:.200}: {error!r}")
            if applies:
                raise Outside(difference.why)
        for name in names_looked_up(operator, arguments):
            check_name(data, name)
        return function(data, *arguments)

    return run


def names_looked_up(operator: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """What an operator looks up beside `var`."""
    if operator == "missing":
        return arguments[0] if arguments and isinstance(arguments[0], list) else arguments
    if operator == "missing_some":
        return arguments[1] if len(arguments) > 1 and isinstance(arguments[1], list) else []
    return []


check_name = guarded("var", lambda _data, name: name)


GUARDED = {name: guarded(name, function) for name, function in flagd_targeting.OPERATORS.items()}
check_result = guarded("result", lambda _data, result: result)
check_targeting = guarded("targeting", lambda _data, rule: rule)


def evaluation_context(context: dict[str, Any]) -> EvaluationContext:
    attributes = {name: value for name, value in context.items() if name != "targetingKey"}
    return EvaluationContext(context.get("targetingKey"), attributes)


def their_value(rule: Any, context: dict[str, Any], operators: dict[str, Any]) -> Any:
    """What a rule gives in flagd-core."""
    with (
        mock.patch.object(flagd_targeting, "OPERATORS", operators),
        contextlib.redirect_stdout(io.StringIO()),  # its `log` prints
    ):
        return flagd_targeting.targeting(KEY, rule, evaluation_context(context))


class Outcome(NamedTuple):
    value: Any
    variant: str | None
    reason: str
    error_code: str | None


def theirs(definition: Any, populations: dict[str, Any], context: dict[str, Any], *, guard: bool) -> Outcome:
    """What a flag says in flagd-core."""
    core = FlagdCore()
    operators = GUARDED if guard else flagd_targeting.OPERATORS
    try:
        core.set_flags({"flags": {KEY: copy.deepcopy(definition)}, "$evaluators": populations})
        with (
            mock.patch.object(flagd_targeting, "OPERATORS", operators),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            flag = core._flag_store.get_flag(KEY)
            if guard and flag and flag.state == "ENABLED" and flag.targeting:
                check_targeting(None, flag.targeting)
                check_result(None, flagd_targeting.targeting(KEY, flag.targeting, evaluation_context(context)))
            details = core._resolve(KEY, None, evaluation_context(context))
    except OpenFeatureError as error:
        return Outcome(None, None, "ERROR", error.error_code.value)
    except Outside:
        raise
    except Exception:  # noqa: BLE001 - whatever it dies of
        return Outcome(None, None, "ERROR", "GENERAL")
    return Outcome(details.value, details.variant, str(details.reason), None)


def ours(definition: Any, populations: dict[str, Any], context: Any) -> Outcome:
    found = Snapshot(START, {KEY: definition}, populations).resolve(KEY, context)
    code = found.error_code.value if found.error_code else None
    return Outcome(found.value, found.variant, found.reason.value, code)


POPULATION_RULES = rules("bool", 1).filter(
    # Outside what flagd-core can put into a rule: see the test of its populations.
    lambda rule: isinstance(rule, dict) and not {"\\", "$ref"} & set(re.findall(r"\\|\$ref", json.dumps(rule)))
)
POPULATION_SETS = st.fixed_dictionaries(dict.fromkeys(POPULATIONS, POPULATION_RULES))


@settings(max_examples=400)
@given(flags(targetings()), POPULATION_SETS, CONTEXTS)
def test_where_no_difference_applies_a_flag_says_what_flagd_core_says(
    definition: Any, populations: dict[str, Any], context: dict[str, Any]
) -> None:
    try:
        expected = theirs(definition, populations, context, guard=True)
    except Outside:
        reject()
    found = ours(definition, populations, context)
    assert same(list(found), list(expected)), (found, expected)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.why[:60])
def test_each_difference_is_as_it_is_written_down(difference: Difference) -> None:
    for rule, context, their_answer, our_answer in difference.examples:
        if isinstance(their_answer, type):
            with pytest.raises(their_answer):
                their_value(rule, context, flagd_targeting.OPERATORS)
        else:
            assert same(their_value(rule, context, flagd_targeting.OPERATORS), their_answer), rule
        assert same(compiled_value(rule, context, {}), our_answer), rule
        with pytest.raises(Outside, match=re.escape(difference.why)):
            check_result(None, their_value(check_targeting(None, rule), context, GUARDED))


@pytest.mark.parametrize(
    ("rule", "context", "expected"),
    [
        ({"if": [{"if": [var("x"), "a", ""]}, "on", "off"]}, {}, "off"),
        ({"if": [{"if": [var("x"), 1, 0]}, "on", "off"]}, {}, "off"),
        ({"if": [{"if": [var("x"), [1], []]}, "on", "off"]}, {}, "off"),
        ({"!": {"if": [var("x"), "a", ""]}}, {}, True),
        ({"or": [{"if": [var("x"), 1, 0]}, "last"]}, {}, "last"),
        ({"and": [{"if": [var("x"), 1, 0]}, "last"]}, {}, 0),
        ({"if": [{"if": [var("x"), "", "a"]}, "on", "off"]}, {"x": 1}, "off"),
        ({"fractional": [{"merge": ["on", 1]}, ["off", 0]]}, {"targetingKey": "u1"}, "on"),
        ({"fractional": [{"merge": []}, ["off", 1]]}, {"targetingKey": "u1"}, None),
        ({"fractional": [["on", 0], ["on", 0], {"merge": ["off"]}]}, {"targetingKey": "u1"}, "off"),
        ({"var": [["a", "b"]]}, {"a,b": 1, "a": 2}, 1),
        ({"var": [[], 5]}, {"": 1}, 1),
        ({"missing": [["a"], [["a", "b"]]]}, {"a": 1}, []),
        ({"missing_some": [1, [[]]]}, {}, [[]]),
        ({"in": [{"cat": []}, ["a", ""]]}, {}, True),
        ({"map": [[0, 1], {"if": [var(""), "a", ""]}]}, {}, ["", "a"]),
    ],
)
def test_both_agree_where_constants_meet_what_only_the_context_decides(rule: Any, context: Any, expected: Any) -> None:
    assert same(their_value(rule, context, flagd_targeting.OPERATORS), expected)
    assert same(compiled_value(rule, context, {}), expected)
    assert same(trace_rule(rule, context, KEY, generation="v3", rules={}).gave, expected)


VARIANTS = {"on": 1, "off": 2, "1": 3}
IS_ON = Outcome(1, "on", "TARGETING_MATCH", None)
IS_BROKEN = Outcome(None, None, "ERROR", "PARSE_ERROR")
HAS_FAILED = Outcome(None, None, "ERROR", "GENERAL")


def flag(targeting: Any, **members: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", "targeting": targeting, **members}


def if_so(test: Any) -> dict[str, Any]:
    return {"if": [test, "on", "off"]}


ABOUT_FLAGS: dict[str, tuple[Any, dict[str, Any], Outcome, Outcome]] = {
    "an unknown operator is found before its branch is reached": (
        flag({"if": [False, {"nope": 1}, "on"]}), {}, IS_ON, IS_BROKEN,
    ),
    "and so is one with a dot in its name, of which flagd-core dies": (
        flag({"cat.x": 1}), {}, HAS_FAILED, IS_BROKEN,
    ),
    "a population that there is not is found before its branch is reached": (
        flag({"if": [False, {"$ref": "gone"}, "on"]}), {"beta": var("x")}, IS_ON, IS_BROKEN,
    ),
    "a population names no other, whatever their order": (
        flag(if_so({"$ref": "a"})), {"a": {"$ref": "b"}, "b": {"!": var("x")}}, IS_ON, IS_BROKEN,
    ),
    "a population may hold any text; flagd-core puts it into a regular expression": (
        flag(if_so({"$ref": "a"})), {"a": {"!=": [var("x"), "é"]}}, HAS_FAILED, IS_ON,
    ),
    "a population may have any name": (
        flag(if_so({"$ref": "é"})), {"é": {"!": var("x")}}, IS_BROKEN, IS_ON,
    ),
    "a population is for rules, and not for the values of variants": (
        flag({"if": [True, "on"]}, variants={"on": {"$ref": "a"}}, defaultVariant=None),
        {"a": {"!": 1}},
        Outcome({"!": 1}, "on", "TARGETING_MATCH", None),
        Outcome({"$ref": "a"}, "on", "TARGETING_MATCH", None),
    ),
    "a whole number names a variant without a point": (
        flag({"+": ["1"]}), {}, HAS_FAILED, Outcome(3, "1", "TARGETING_MATCH", None),
    ),
    "a list of one names what that names, as String() has it": (
        flag({"merge": ["on"]}), {}, HAS_FAILED, IS_ON,
    ),
    "a targeting that is no object is broken, however false": (
        flag([]), {}, Outcome(2, "off", "STATIC", None), IS_BROKEN,
    ),
    "a default variant that cannot be one is asked for only where no rule decides": (
        flag({"if": [True, "on"]}, defaultVariant=5), {}, IS_BROKEN, IS_ON,
    ),
    "what is no part of a flag is refused on the way in, and once it is there does no harm": (
        flag({"if": [True, "on"]}, owner="ada"), {}, IS_BROKEN, IS_ON,
    ),
    "and so is metadata that is not flat": (
        flag({"if": [True, "on"]}, metadata={"owner": {}}), {}, IS_BROKEN, IS_ON,
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", ABOUT_FLAGS)
def test_each_difference_about_flags_is_as_it_is_written_down(why: str) -> None:
    definition, populations, their_outcome, our_outcome = ABOUT_FLAGS[why]
    assert theirs(definition, populations, {}, guard=False) == their_outcome
    assert ours(definition, populations, {}) == our_outcome


@pytest.mark.parametrize("context", [5, "text", [1], b"{}", {1}, object()])
def test_a_context_that_is_none_is_said_to_be_none(context: Any) -> None:
    definition = flag(if_so(var("x")))
    with pytest.raises(AttributeError, match="attributes"):
        flagd_targeting.targeting(KEY, definition["targeting"], context)
    assert ours(definition, {}, context) == Outcome(None, None, "ERROR", "INVALID_CONTEXT")


def places(rule: Any) -> Iterator[tuple[list[Any], int]]:
    """Where in a rule there stands another, as a list and the place in it."""
    arguments = rule if isinstance(rule, list) else []
    if isinstance(rule, dict) and len(rule) == 1:
        (arguments,) = rule.values()
    if isinstance(arguments, list):
        for index, each in enumerate(arguments):
            yield arguments, index
            yield from places(each)


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_unknown_operator_is_found_in_every_argument_however_many_there_are(operator: str) -> None:
    for index in range(5):
        arguments: list[Any] = ["a"] * 5
        arguments[index] = {"nope": 1}
        assert ours(flag(if_so({operator: arguments})), {}, {}) == IS_BROKEN, index


@settings(max_examples=150)
@given(WILD, st.sampled_from(({"nope": []}, {"$ref": "gone"}, {"": 1}, {"$ref": None})), st.data())
def test_an_unknown_operator_or_population_is_found_wherever_it_stands(
    rule: Any, broken: dict[str, Any], data: st.DataObject
) -> None:
    targeting = {"if": [copy.deepcopy(rule), "on", "off"]}
    populations = {name: {"!": 1} for name in POPULATIONS}
    arguments, index = data.draw(st.sampled_from(list(places(targeting))), label="place")
    arguments[index] = broken
    assert ours(flag(targeting), populations, {}) == IS_BROKEN


def compiled_value(rule: Any, context: Any, populations: dict[str, Any], generation: str = "v3") -> Any:
    compiled = {name: compile_population(name, each, generation=generation) for name, each in populations.items()}
    rule = compile_rule(
        "flag", "targeting", rule, generation=generation, flag_key=KEY, populations=compiled, rules=populations
    )
    return rule.function(context, KEY)


WILD_POPULATIONS = st.fixed_dictionaries(dict.fromkeys(POPULATIONS, WILD.filter(lambda rule: "$ref" not in repr(rule))))


@settings(max_examples=400)
@given(WILD | rules("any", 2) | targetings(2), WILD_POPULATIONS, CONTEXTS, st.sampled_from(("v3", "v2")))
def test_a_compiled_rule_gives_what_the_interpreted_one_gives(
    rule: Any, populations: dict[str, Any], context: dict[str, Any], generation: str
) -> None:
    try:
        expected = trace_rule(rule, context, KEY, generation=generation, rules=populations).gave
    except RuleTooLong:
        with pytest.raises(RuleTooLong):
            compiled_value(rule, context, populations, generation)
    else:
        found = compiled_value(rule, context, populations, generation)
        assert same(found, expected), (found, expected)
