import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.wire.event_id import format_event_id, parse_event_id


@given(st.text("0123456789abcdef", min_size=1, max_size=64), st.integers(0, 10**15))
def test_an_id_comes_back_as_it_went(epoch: str, revision: int) -> None:
    assert parse_event_id(format_event_id(epoch, revision)) == (epoch, revision)


@pytest.mark.parametrize(
    "text",
    ["", ".", "e", "e.", ".1", "e.1.2", "e.-1", "e.01", "e.+1", "e. 1", "e.1 ", "e.١", "e\n.1", "e.1\n", "e.1e3"],
)
def test_anything_else_is_no_id(text: str) -> None:
    assert parse_event_id(text) is None


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    parse_event_id(text)
