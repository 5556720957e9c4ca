import math
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import RuleTooLong
from flagrelay.flags import meter
from flagrelay.flags.javascript import (
    item,
    length,
    less,
    less_or_equal,
    loosely_equal,
    parse_number,
    strictly_equal,
    substring,
    to_number,
    to_string,
    truthy,
)
from support.recorded import alike, recorded

CONVERSIONS = recorded(Path(__file__).parents[1] / "data" / "json-logic-js" / "conversions.jsonl")
NAN, INFINITY = math.nan, math.inf

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("a😀\uffff\U00010000"), max_size=8)


# -- conversions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "convert"), [("String", to_string), ("Number", to_number), ("parseFloat", parse_number)]
)
def test_a_conversion_gives_what_javascript_recorded(name: str, convert: Any) -> None:
    lines = [line[1:] for line in CONVERSIONS if line[0] == name]
    assert len(lines) > 300
    assert not [(value, convert(value), theirs) for value, theirs in lines if not alike(convert(value), theirs)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-1.5, "-1.5"), (1e-6, "0.000001"), (1e-7, "1e-7"), (1.25e-7, "1.25e-7"),
        (1e20, "100000000000000000000"), (1e21, "1e+21"), (-1.5e300, "-1.5e+300"), (5e-324, "5e-324"),
        (123456789012345680000.0, "123456789012345680000"), (0.1 + 0.2, "0.30000000000000004"),
        (NAN, "NaN"), (INFINITY, "Infinity"), (-INFINITY, "-Infinity"),
        (10**20, "100000000000000000000"), (10**21 - 1, "999999999999999999999"), (10**21, "1e+21"),
        (-(10**21), "-1e+21"), (12 * 10**22, "1.2e+23"), (2**53 + 1, "9007199254740993"),
        (None, "null"), (True, "true"), (False, "false"), ({}, "[object Object]"), ({"a": 1}, "[object Object]"),
        ([], ""), ([None], ""), ([None, None], ","), ([1, [2, [3]], {}], "1,2,3,[object Object]"), ((1, 2), "1,2"),
        ([True, "x", 1.0], "true,x,1"),
    ],
)  # fmt: skip
def test_a_value_is_written_as_javascript_writes_it(value: Any, text: str) -> None:
    assert to_string(value) == text


def test_an_integer_that_no_double_reaches_is_written_as_infinity() -> None:
    assert to_string(10**400) == "Infinity"
    assert to_string(-(10**400)) == "-Infinity"


@given(FINITE)
def test_a_float_is_read_back_from_its_text(value: float) -> None:
    assert to_number(to_string(value)) == value
    assert parse_number(to_string(value)) == value


@given(FINITE)
def test_the_text_of_a_float_has_an_exponent_only_where_javascript_writes_one(value: float) -> None:
    text = to_string(value)
    assert ("e" in text) is (value != 0 and not 1e-6 <= abs(value) < 1e21)
    assert text.removeprefix("-")[0].isdigit()
    assert not text.endswith(".0")
    assert "e-0" not in text
    assert "e+0" not in text


@given(st.integers())
def test_an_integer_keeps_all_its_digits_below_where_exponents_begin(value: int) -> None:
    assert to_string(value) == (str(value) if abs(value) < 10**21 else to_string(float(value)))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0), ("   ", 0), ("\ufeff\u00a0\u2028", 0), (" 12 ", 12), ("+5", 5), ("-5", -5), (".5", 0.5), ("5.", 5.0),
        ("1e3", 1000.0), ("0x1F", 31.0), ("0b101", 5.0), ("0o17", 15.0), ("0X1f", 31.0), ("Infinity", INFINITY),
        ("-Infinity", -INFINITY), ("+Infinity", INFINITY), ("1e1000", INFINITY), ("00012", 12),
        ("infinity", NAN), ("inf", NAN), ("nan", NAN), ("1_000", NAN), ("٣", NAN), ("１", NAN), ("-0x10", NAN),
        ("0x", NAN),
        ("1,2", NAN), ("1 2", NAN), ("12px", NAN), ("\u001c5", NAN), ("\u00855", NAN), (".", NAN), ("e5", NAN),
        ("+", NAN),
        ("0x" + "f" * 300, NAN),
    ],
)  # fmt: skip
def test_a_text_is_the_number_that_javascript_reads(text: str, number: float) -> None:
    assert alike(to_number(text), number)
    assert alike(to_number([text]), number)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (None, 0), (True, 1), (False, 0), ([], 0), ([[]], 0), ([None], 0), ([7], 7), ([[" 8 "]], 8), ([1, 2], NAN),
        ({}, NAN),
    ],
)  # fmt: skip
def test_any_value_is_a_number_or_none(value: Any, number: float) -> None:
    assert alike(to_number(value), number)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("12px", 12), ("1.5e3x", 1500.0), ("  -3 apples", -3), ("1e", 1), ("1.2.3", 1.2), ("0x10", 0), ("", NAN),
        ("px", NAN),
        ([3, 4], 3), ([], NAN), ({}, NAN), ("-Infinityx", -INFINITY), (None, 0), (True, 1), (False, 0), (2.5, 2.5),
    ],
)  # fmt: skip
def test_to_sums_a_text_is_the_number_that_it_begins_with(value: Any, number: float) -> None:
    assert alike(parse_number(value), number)


@given(JSON)
def test_conversions_take_any_value(value: Any) -> None:
    assert isinstance(to_string(value), str)
    for convert in (to_number, parse_number):
        assert isinstance(convert(value), int | float)
        assert not isinstance(convert(value), bool)


def test_writing_a_list_counts_its_items() -> None:
    meter.start()
    try:
        to_string([0] * meter.LIMIT)
        with pytest.raises(RuleTooLong):
            to_string([0])
    finally:
        meter.stop()


# -- truth and equality -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, 0, 0.0, -0.0, NAN, "", [], ()])
def test_what_is_false(value: Any) -> None:
    assert truthy(value) is False


@pytest.mark.parametrize("value", [True, 1, -1, 0.1, INFINITY, "0", "false", " ", [0], [None], {}, {"a": 0}, 5e-324])
def test_what_is_true(value: Any) -> None:
    assert truthy(value) is True


EQUAL = [
    (1, 1.0), (1, "1"), (1, " 1 "), (1, True), (0, False), (0, ""), (0, []), ("", []), (False, []), (True, [1]),
    (16, "0x10"),
    ("1,2", [1, 2]), ("[object Object]", {}), (None, None), ("a", "a"), (0.0, -0.0), ("", [None]),
    (INFINITY, "Infinity"),
]  # fmt: skip
UNEQUAL: list[tuple[Any, Any]] = [
    (None, 0), (None, False), (None, ""), (None, []), (NAN, NAN), ([], []), ({}, {}), ([1], [1]), (1, 2), ("1", "01"),
    ("a", "A"),
    (True, "true"), (True, 2), ("\u00e9", "e\u0301"), (1, "1_0"), (2**53, 2**53 + 1), (0, "x"), ({}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_what_is_equal_with_coercion(left: Any, right: Any) -> None:
    assert loosely_equal(left, right) is loosely_equal(right, left) is True


@pytest.mark.parametrize(("left", "right"), UNEQUAL)
def test_what_is_not_equal_even_with_coercion(left: Any, right: Any) -> None:
    assert loosely_equal(left, right) is loosely_equal(right, left) is False
    assert strictly_equal(left, right) is strictly_equal(right, left) is False


@given(JSON, JSON)
def test_what_is_identical_is_equal(left: Any, right: Any) -> None:
    if strictly_equal(left, right):
        assert loosely_equal(left, right)
    assert strictly_equal(left, right) is strictly_equal(right, left)
    assert loosely_equal(left, right) is loosely_equal(right, left)


@given(JSON)
def test_everything_but_nan_is_identical_to_itself(value: Any) -> None:
    assert strictly_equal(value, value) is (value == value if isinstance(value, float) else True)  # noqa: PLR0124 - NaN


@pytest.mark.parametrize(("left", "right"), [(1, True), (0, False), (1, "1"), (None, False), ("", []), ([1], [1])])
def test_values_of_two_types_are_not_identical(left: Any, right: Any) -> None:
    assert strictly_equal(left, right) is strictly_equal(right, left) is False


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 2), (1, "2"), ("10", "9"), ("9", 10), (None, 1), (False, True), ("a", "b"), ("A", "a"), ("", "a"),
        ([1], [2]), ([10], [9]),
        (-INFINITY, INFINITY), ("\U00010000", "\uffff"), ("😀", "\uff21"), (2**53, 2**53 + 1), ("a", "a😀"),
        ("Z", [[["a"]]]),
    ],
)  # fmt: skip
def test_what_is_less(left: Any, right: Any) -> None:
    assert less(left, right) is True
    assert less_or_equal(left, right) is True
    assert less(right, left) is False
    assert less_or_equal(right, left) is False


@pytest.mark.parametrize("other", [NAN, "x", {}, [1, 2]])
def test_nothing_is_in_order_with_what_is_no_number(other: Any) -> None:
    for compare in (less, less_or_equal):
        assert compare(other, 1) is compare(1, other) is False


@given(TEXTS, TEXTS)
def test_texts_are_in_the_order_of_their_utf_16(left: str, right: str) -> None:
    units = [
        [int.from_bytes(text.encode("utf-16-be")[i : i + 2]) for i in range(0, 4 * len(text), 2)]
        for text in (left, right)
    ]
    assert less(left, right) is (units[0] < units[1])
    assert less_or_equal(left, right) is (units[0] <= units[1])


@given(JSON, JSON)
def test_or_equal_is_less_or_equal_where_there_is_an_order(left: Any, right: Any) -> None:
    assert not (less(left, right) and less(right, left))
    assert less_or_equal(left, right) is (less(left, right) or (less_or_equal(left, right) and not less(right, left)))
    ordered = less_or_equal(left, right) or less_or_equal(right, left)
    assert less_or_equal(left, right) is (ordered and not less(right, left))


# -- texts and members -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "size", "part"),
    [
        ("jsonlogic", 4, None, "logic"), ("jsonlogic", -5, None, "logic"), ("jsonlogic", 0, 1, "j"),
        ("jsonlogic", -1, 1, "c"),
        ("jsonlogic", 4, 5, "logic"), ("jsonlogic", -5, 5, "logic"), ("jsonlogic", -5, -2, "log"),
        ("jsonlogic", 1, -5, "son"),
        ("abc", 5, None, ""), ("abc", -9, None, "abc"), ("abc", 0, 0, ""), ("abc", 0, -9, ""),
        ("abc", NAN, None, "abc"),
        ("abc", 1.9, None, "bc"), ("abc", -1.9, None, "c"), ("abc", 0, 1.9, "a"), ("abc", 0, INFINITY, "abc"),
        ("abc", INFINITY, 1, ""),
        ("abc", -INFINITY, 2, "ab"), ("abc", 0, NAN, ""), ("a😀b", 3, None, "b"), ("a😀b", 1, 2, "😀"),
        ("a😀b", 2, 1, "\ude00"),
        ("éa", 1, None, "a"), ("", 0, 5, ""), ("abc", 1, -1.5, ""), ("abc", 0, -0.5, "ab"), ("abc", 0, -0.0, ""),
    ],
)  # fmt: skip
def test_a_part_of_a_text(text: str, start: float, size: float | None, part: str) -> None:
    assert substring(text, start, size) == part


@given(TEXTS, st.integers(-10, 10), st.none() | st.integers(-10, 10))
def test_a_part_of_a_text_is_counted_in_utf_16_units(text: str, start: int, size: int | None) -> None:
    units = text.encode("utf-16-le")
    pairs = [units[index : index + 2] for index in range(0, len(units), 2)]
    rest = pairs[start:] if start >= 0 or -start <= len(pairs) else pairs
    expected = rest if size is None else rest[:size]
    assert substring(text, start, size).encode("utf-16-le", "surrogatepass") == b"".join(expected)


@given(TEXTS)
def test_the_length_of_a_text_is_that_of_its_utf_16(text: str) -> None:
    assert length(text) == item(text, "length") == len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    ("value", "name", "found"),
    [
        ({"a": 1}, "a", 1), ({"a": 1}, "b", None), ({"0": "x"}, "0", "x"), ({"length": 7}, "length", 7),
        ({}, "length", None),
        (MappingProxyType({"a": 1}), "a", 1), (OrderedDict(a=1), "a", 1),
        (["x", "y"], "1", "y"), (["x"], "1", None), (["x"], "-1", None), (["x"], "00", None), (["x"], "0.0", None),
        (["x"], "", None),
        (["x"], "length", 1), (("x",), "0", "x"), (["x"], "٠", None), (["x"], "99999999999999999999", None),
        (["x"], "0\n", None),
        ("abc", "1", "b"), ("abc", "3", None), ("abc", "length", 3), ("a😀", "1", "\ud83d"), ("a😀", "3", None),
        ("", "0", None),
        (None, "a", None), (5, "length", None), (True, "a", None), (1.5, "0", None),
    ],
)  # fmt: skip
def test_a_member_of_data(value: Any, name: str, found: Any) -> None:
    assert item(value, name) == found


@given(JSON, st.sampled_from(["constructor", "__proto__", "__class__", "toString", "map", "append", "get", "__len__"]))
def test_data_has_no_members_but_its_own(value: Any, name: str) -> None:
    assert item(value, name) == (value.get(name) if isinstance(value, dict) else None)
