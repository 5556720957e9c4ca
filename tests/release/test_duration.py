"""Times as people write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError
from flagrelay.release.duration import LONGEST, UNITS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("30m", 1_800),
        ("1h", 3_600),
        ("1d12h", 129_600),
        ("2w", 1_209_600),
        ("1h1h", 7_200),
        ("0s", 0),
        ("366d", LONGEST),
        (45, 45),
        (0, 0),
    ],
)
def test_a_time_is_text_with_units_or_whole_seconds(written: Any, seconds: int) -> None:
    assert parse_duration("plan", "minimum", written) == seconds


@pytest.mark.parametrize(
    "written",
    ["", "90", "h", "1 h", "-1h", "1.5h", "1H", "1y", "1h ", "1ms", "9999999999s", -1, 1.5, True, None, [], {"h": 1}],
)
def test_whatever_else_is_refused_where_it_stands(written: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^plan: at stages\[0\]\.minimum: .* is no time such as 90s, 30m, 1h"):
        parse_duration("plan", "stages[0].minimum", written)


@pytest.mark.parametrize("written", ["367d", "366d1s", "53w", LONGEST + 1])
def test_a_time_is_a_year_at_most(written: Any) -> None:
    with pytest.raises(DefinitionError, match="a year at most"):
        parse_duration("plan", "", written)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.2, "1s"),
        (59.5, "1m"),
        (90, "1m30s"),
        (3_600, "1h"),
        (93_784, "1d2h"),
        (8 * 86_400, "8d"),
        (14 * 86_400, "2w"),
        (86_400 + 60, "1d1m"),
    ],
)
def test_a_time_is_shown_in_its_two_largest_units_and_never_as_less_than_a_second_that_is_left(
    seconds: float, shown: str
) -> None:
    assert format_duration(seconds) == shown


@given(st.integers(0, LONGEST))
def test_what_is_shown_is_read_back_as_the_same_but_for_what_smaller_units_would_say(seconds: int) -> None:
    read = parse_duration("", "", format_duration(seconds))
    assert read <= seconds
    assert seconds - read < UNITS["h"]
    if seconds < UNITS["h"]:
        assert read == seconds
