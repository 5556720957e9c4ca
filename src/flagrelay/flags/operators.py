"""The operators of rules: what each takes, and what each gives for values.

Sources: jsonlogic.com/operations.html and json-logic-js 2.0 for JsonLogic's own, flagd.dev/reference/custom-operations
for `starts_with`, `ends_with`, `sem_ver` and `fractional`. Those that decide themselves what they evaluate
(`if`, `var`, `map`, ...) are known here by name and arity only; `compiler` and `trace` hold what they do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flagrelay.errors import RuleTooLong
from flagrelay.flags import javascript as js
from flagrelay.flags.meter import CHARACTERS, LIMIT, charge
from flagrelay.flags.version import compare_versions

ABSENT = object()
"""An argument that was not given: JavaScript's undefined."""

MOST_TEXT = 256 * 1024
"""Characters of a text that a rule may put together."""

MOST_INTEGER = 2**63
"""From here on arithmetic goes on in doubles, as JavaScript's does from 2^53: no number grows without end."""


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator takes, and what it gives where it only looks at values."""

    least: int
    most: float
    apply: Callable[..., Any] | None = None


def equal(left: Any = ABSENT, right: Any = ABSENT, *_: Any) -> bool:
    """`==`."""
    return js.loosely_equal(None if left is ABSENT else left, None if right is ABSENT else right)


def unequal(left: Any = ABSENT, right: Any = ABSENT, *_: Any) -> bool:
    """`!=`."""
    return not equal(left, right)


def identical(left: Any = ABSENT, right: Any = ABSENT, *_: Any) -> bool:
    """`===`."""
    return js.strictly_equal(left, right)


def different(left: Any = ABSENT, right: Any = ABSENT, *_: Any) -> bool:
    """`!==`."""
    return not js.strictly_equal(left, right)


def less(left: Any = math.nan, middle: Any = math.nan, right: Any = ABSENT, *_: Any) -> bool:
    """`<`, of two; or between, of three."""
    return js.less(left, middle) and (right is ABSENT or js.less(middle, right))


def less_or_equal(left: Any = math.nan, middle: Any = math.nan, right: Any = ABSENT, *_: Any) -> bool:
    """`<=`, of two; or between, of three."""
    return js.less_or_equal(left, middle) and (right is ABSENT or js.less_or_equal(middle, right))


def greater(left: Any = math.nan, right: Any = math.nan, *_: Any) -> bool:
    """`>`."""
    return js.less(right, left)


def greater_or_equal(left: Any = math.nan, right: Any = math.nan, *_: Any) -> bool:
    """`>=`."""
    return js.less_or_equal(right, left)


def negated(value: Any = None, *_: Any) -> bool:
    """`!`."""
    return not js.truthy(value)


def asserted(value: Any = None, *_: Any) -> bool:
    """`!!`."""
    return js.truthy(value)


def _number(value: float) -> float:
    if isinstance(value, int) and not -MOST_INTEGER < value < MOST_INTEGER:
        return js.as_double(value)
    return value


def add(*values: Any) -> float:
    """`+`."""
    total: float = 0
    for value in values:
        total = _number(total + _number(js.parse_number(value)))
    return total


def multiply(*values: Any) -> float:
    """`*`."""
    product: float = 1
    for value in values:
        product = _number(product * _number(js.parse_number(value)))
    return product


def subtract(left: Any = math.nan, right: Any = ABSENT, *_: Any) -> float:
    """`-`, of two; or the opposite, of one."""
    if right is ABSENT:
        return -_number(js.to_number(left))
    return _number(_number(js.to_number(left)) - _number(js.to_number(right)))


def divide(left: Any = math.nan, right: Any = math.nan, *_: Any) -> float:
    """`/`."""
    dividend, divisor = _number(js.to_number(left)), _number(js.to_number(right))
    if divisor:
        return dividend / divisor
    if not dividend or math.isnan(dividend):
        return math.nan
    return math.copysign(math.inf, dividend) * math.copysign(1, divisor)


def remainder(left: Any = math.nan, right: Any = math.nan, *_: Any) -> float:
    """`%`, with the sign of what is divided."""
    dividend, divisor = _number(js.to_number(left)), _number(js.to_number(right))
    if not divisor or math.isinf(dividend):
        return math.nan
    if isinstance(dividend, int) and isinstance(divisor, int):
        rest = abs(dividend) % abs(divisor)
        return -rest if dividend < 0 else rest
    return math.fmod(dividend, divisor)


def smallest(*values: Any) -> float:
    """`min`."""
    return _extreme(min, math.inf, values)


def largest(*values: Any) -> float:
    """`max`."""
    return _extreme(max, -math.inf, values)


def _extreme(choose: Callable[..., float], none: float, values: tuple[Any, ...]) -> float:
    numbers = [js.to_number(value) for value in values]
    return math.nan if any(number != number for number in numbers) else choose(numbers, default=none)  # noqa: PLR0124


def contains(needle: Any = ABSENT, haystack: Any = None, *_: Any) -> bool:
    """`in`, an array or a text."""
    if isinstance(haystack, str):
        charge(len(haystack) // CHARACTERS)
        return bool(haystack) and js.to_string(None if needle is ABSENT else needle) in haystack
    if isinstance(haystack, list | tuple):
        charge(len(haystack) // 4)
        if needle.__class__ is str:
            return needle in haystack
        return any(js.strictly_equal(needle, item) for item in haystack)
    return False


def concatenate(*values: Any) -> str:
    """`cat`."""
    texts = ["" if value is None else js.to_string(value) for value in values]
    size = sum(map(len, texts))
    charge(size // CHARACTERS)
    if size > MOST_TEXT:
        raise RuleTooLong(LIMIT)
    return "".join(texts)


def substring(text: Any = None, start: Any = 0, size: Any = ABSENT, *_: Any) -> str:
    """`substr`."""
    wanted = None if size is ABSENT else js.to_number(size)
    whole = js.to_string(text)
    charge(len(whole) // CHARACTERS)
    return js.substring(whole, js.to_number(start), wanted)


def merge(*values: Any) -> list[Any]:
    """`merge`."""
    merged: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple):
            charge(len(value))
            merged.extend(value)
        else:
            merged.append(value)
    return merged


def returned(value: Any = None, *_: Any) -> Any:
    """`log`: a relay has nowhere to log to for whoever wrote the rule."""
    return value


def starts_with(*values: Any) -> bool | None:
    """`starts_with`; None but for two strings."""
    return values[0].startswith(values[1]) if _two_strings(values) else None


def ends_with(*values: Any) -> bool | None:
    """`ends_with`; None but for two strings."""
    return values[0].endswith(values[1]) if _two_strings(values) else None


def _two_strings(values: tuple[Any, ...]) -> bool:
    return len(values) == 2 and all(isinstance(value, str) for value in values)  # noqa: PLR2004 - two


def version(*values: Any) -> bool | None:
    """`sem_ver`; None but for three arguments."""
    return compare_versions(*values) if len(values) == 3 else None  # noqa: PLR2004 - three


OPERATORS: dict[str, Operator] = {
    "==": Operator(2, 2, equal),
    "!=": Operator(2, 2, unequal),
    "===": Operator(2, 2, identical),
    "!==": Operator(2, 2, different),
    "<": Operator(2, 3, less),
    "<=": Operator(2, 3, less_or_equal),
    ">": Operator(2, 2, greater),
    ">=": Operator(2, 2, greater_or_equal),
    "!": Operator(1, 1, negated),
    "!!": Operator(1, 1, asserted),
    "+": Operator(1, math.inf, add),
    "*": Operator(1, math.inf, multiply),
    "-": Operator(1, 2, subtract),
    "/": Operator(2, 2, divide),
    "%": Operator(2, 2, remainder),
    "min": Operator(1, math.inf, smallest),
    "max": Operator(1, math.inf, largest),
    "in": Operator(2, 2, contains),
    "cat": Operator(1, math.inf, concatenate),
    "substr": Operator(2, 3, substring),
    "merge": Operator(0, math.inf, merge),
    "log": Operator(1, 1, returned),
    "starts_with": Operator(2, 2, starts_with),
    "ends_with": Operator(2, 2, ends_with),
    "sem_ver": Operator(3, 3, version),
    "if": Operator(1, math.inf),
    "?:": Operator(1, math.inf),
    "and": Operator(1, math.inf),
    "or": Operator(1, math.inf),
    "var": Operator(0, 2),
    "missing": Operator(0, math.inf),
    "missing_some": Operator(2, 2),
    "map": Operator(2, 2),
    "filter": Operator(2, 2),
    "reduce": Operator(2, 3),
    "all": Operator(2, 2),
    "some": Operator(2, 2),
    "none": Operator(2, 2),
    "fractional": Operator(1, math.inf),
}

REFERENCE = "$ref"
"""Not an operator, but written like one: the name of a population."""


def operator_of(rule: Any) -> str | None:
    """The operator of a rule; None for data, which is everything but an object with one member."""
    return next(iter(rule)) if isinstance(rule, dict) and len(rule) == 1 else None


_SCALARS = frozenset((str, int, float, bool, type(None)))


def is_plain(items: list[Any]) -> bool:
    """Whether a list holds neither lists nor objects: quick, for lists of a hundred thousand keys."""
    return _SCALARS.issuperset(map(type, items))


def is_data(rule: Any) -> bool:
    """Whether there is nothing in a rule to compute."""
    if isinstance(rule, list):
        return all(map(is_data, rule))
    return operator_of(rule) is None


def arguments_of(rule: dict[str, Any]) -> list[Any]:
    """The arguments of a rule; one that is no array stands for an array of it."""
    (values,) = rule.values()
    return values if isinstance(values, list) else [values]
