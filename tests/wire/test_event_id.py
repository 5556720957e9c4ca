import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.wire.event_id import format_event_id, parse_event_id

HEX = "0123456789abcdef"


@given(st.text(HEX, min_size=1, max_size=64), st.integers(0, 10**15), st.text(HEX, max_size=12))
def test_an_id_comes_back_as_it_went(epoch: str, revision: int, mark: str) -> None:
    assert parse_event_id(format_event_id(epoch, revision, mark)) == (epoch, revision, mark)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "e",
        "e.",
        ".1",
        "e.1.2",
        "e.-1",
        "e.01",
        "e.+1",
        "e. 1",
        "e.1 ",
        "e.١",
        "e\n.1",
        "e.1\n",
        "e.1e3",
        "e.1~",
        "e.1~x",
        "e.1~a~b",
    ],
)
def test_anything_else_is_no_id(text: str) -> None:
    assert parse_event_id(text) is None


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    parse_event_id(text)
