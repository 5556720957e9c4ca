"""Values as JavaScript has them, where JsonLogic borrows JavaScript's rules: truth, equality, order, conversions.

Values are JSON: None, bool, int, float, str, list, dict. Integers stay exact at any size, where JavaScript would round
them to doubles. Source: ECMA-262, sections 7.1 (conversion) and 7.2 (comparison).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from flagrelay.flags.meter import CHARACTERS, charge

_SPACE = " \t\n\r\v\f\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
_DECIMAL = re.compile(r"[+-]?(?:Infinity|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_RADIX = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_DIGITS = re.compile(r"[+-]?[0-9]{1,15}")

_EXACT = 10**21
"""From here on JavaScript writes numbers with an exponent."""


def truthy(value: Any) -> bool:
    """JsonLogic's truth: JavaScript's, but an empty array is false."""
    if isinstance(value, float):
        return bool(value) and value == value  # noqa: PLR0124 - NaN
    return True if isinstance(value, Mapping) else bool(value)


def to_number(value: Any) -> float:
    """`Number(value)`."""
    number = _known_number(value)
    if number is not None:
        return number
    text = _text_to_read(value)
    if _DIGITS.fullmatch(text):
        return int(text)
    text = text.strip(_SPACE)
    if not text:
        return 0
    if _DECIMAL.fullmatch(text):
        return float(text)
    return float(int(text, 0)) if len(text) < _LONGEST and _RADIX.fullmatch(text) else math.nan


_LONGEST = 250
"""Characters of a number with a radix that are still read; doubles end before."""


def _known_number(value: Any) -> float | None:
    """What needs no reading: null and false are 0, true is 1."""
    if isinstance(value, bool | None):
        return int(bool(value))
    return value if isinstance(value, int | float) else None


def _text_to_read(value: Any) -> str:
    text = value if isinstance(value, str) else to_string(value)
    charge(len(text) // CHARACTERS)
    return text


def parse_number(value: Any) -> float:
    """`parseFloat(value)`, with which JsonLogic adds and multiplies: a number and whatever stands behind it.

    But a boolean is 0 or 1 and null is 0, as in every flagd evaluator, where parseFloat would give NaN.
    """
    number = _known_number(value)
    if number is not None:
        return number
    found = _DECIMAL.match(_text_to_read(value).strip(_SPACE))
    if not found:
        return math.nan
    return int(found[0]) if _DIGITS.fullmatch(found[0]) else float(found[0])


def to_string(value: Any) -> str:  # noqa: PLR0911 - one for each type of value
    """`String(value)`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -_EXACT < value < _EXACT else _float_to_string(as_double(value))
    if isinstance(value, float):
        return _float_to_string(value)
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        charge(len(value))
        return ",".join(["" if item is None else to_string(item) for item in value])
    return "[object Object]"


def as_double(value: int) -> float:
    """An integer of any size as a double; Infinity beyond those."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _float_to_string(value: float) -> str:  # noqa: PLR0911 - the steps of Number::toString
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == int(value) and abs(value) < 2**53:
        return str(int(value))
    # Both languages write the shortest digits that read back as the same number; they differ in where the point goes.
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:  # noqa: PLR2004 - Number::toString, step 6
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:  # noqa: PLR2004 - step 7
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:  # noqa: PLR2004 - step 8
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def strictly_equal(left: Any, right: Any) -> bool:
    """`left === right`."""
    if left is None or right is None or isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str) and left == right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    return left is right


def loosely_equal(left: Any, right: Any) -> bool:
    """`left == right`."""
    if left is None or right is None:
        return left is right
    left_is_object, right_is_object = _is_object(left), _is_object(right)
    if left_is_object and right_is_object:
        return left is right
    if left_is_object:
        left = to_string(left)
    if right_is_object:
        right = to_string(right)
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    return to_number(left) == to_number(right)


def less(left: Any, right: Any) -> bool:
    """`left < right`."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left < right
    left, right = _primitive(left), _primitive(right)
    if isinstance(left, str) and isinstance(right, str):
        return _text_less(left, right)
    return to_number(left) < to_number(right)


def less_or_equal(left: Any, right: Any) -> bool:
    """`left <= right`; not the opposite of `right < left`, since nothing is in order with NaN."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left <= right
    left, right = _primitive(left), _primitive(right)
    if isinstance(left, str) and isinstance(right, str):
        return not _text_less(right, left)
    return to_number(left) <= to_number(right)


def _is_object(value: Any) -> bool:
    return not isinstance(value, str | int | float | None)


def _primitive(value: Any) -> Any:
    return to_string(value) if _is_object(value) else value


def _text_less(left: str, right: str) -> bool:
    # JavaScript compares UTF-16 code units: only beyond the basic plane is that another order than by code point.
    if left.isascii() or right.isascii():
        return left < right
    return left.encode("utf-16-be", "surrogatepass") < right.encode("utf-16-be", "surrogatepass")


def length(value: Any) -> int:
    """`value.length` of a string (in UTF-16 code units) or an array."""
    if isinstance(value, str) and not value.isascii():
        return len(value) + sum(character > "\uffff" for character in value)
    return len(value)


def substring(text: str, start: float, size: float | None) -> str:
    """`text.substr(start, size)`, but a negative size leaves that many off the end. Counts UTF-16 code units."""
    if text.isascii():
        first, last = _span(len(text), start, size)
        return text[first:last]
    units = text.encode("utf-16-le", "surrogatepass")
    first, last = _span(len(units) // 2, start, size)
    return units[2 * first : 2 * last].decode("utf-16-le", "surrogatepass")


def _span(end: int, start: float, size: float | None) -> tuple[int, int]:
    first = _whole(start)
    first = min(max(0, end + first) if first < 0 else first, end)
    if size is None:
        return first, end
    if size < 0:
        return first, first + max(0, _whole(end - first + size))
    return first, min(first + _whole(size), end)


def _whole(number: float) -> int:
    """Towards zero; NaN is 0. Infinity is more than any string has."""
    if number != number:  # noqa: PLR0124 - NaN
        return 0
    return int(max(-(2.0**53), min(2.0**53, number)))


def item(value: Any, name: str) -> Any:
    """`value[name]` of data: an object's member, an array's item, a string's character, a length; else None."""
    if isinstance(value, Mapping):
        return value.get(name)
    if not isinstance(value, str | list | tuple):
        return None
    if name == "length":
        return length(value)
    if not _INDEX.fullmatch(name):
        return None
    index = int(name)
    if isinstance(value, str) and not value.isascii():
        return substring(value, index, 1) or None
    return value[index] if index < len(value) else None


_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
