from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import MessageError
from flagrelay.wire.sse import Event, EventParser

LINES = st.lists(
    st.sampled_from(
        ["data: a", "data:b", "data", "data: ", ":comment", "", "", "event: put", "event", "id: e.1", "id", "id: \0",
         "retry: 5", "retry: x", "retry: ٥", "unknown: 1", "data: ü€", " data: x", "data:  two", "\ufeffdata: bom"]
    ),
    max_size=25,
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


def events(data: bytes) -> list[Event]:
    return EventParser().feed(data)


@given(LINES, ENDS, st.lists(st.integers(0, 300), max_size=20))
def test_however_bytes_are_cut_the_events_are_the_same(lines: list[str], end: str, cuts: list[int]) -> None:
    data = "".join(line + end for line in lines).encode() + b"\n"
    whole = EventParser()
    expected = whole.feed(data)
    pieces = EventParser()
    found = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        found += pieces.feed(data[start:stop])
    assert found == expected
    assert (pieces.last_event_id, pieces.retry) == (whole.last_event_id, whole.retry)


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
        (b": test stream\n\ndata: first\n\ndata:second\n\ndata:  third\n\n", ["first", "second", " third"]),
        (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        (b"data:test\n\ndata: test\n\n", ["test", "test"]),
        (b"\xef\xbb\xbfdata: after a BOM\n\n", ["after a BOM"]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", ["a", "b", "c"]),
        (b"data: never finished", []),
        (b"event: nothing\n\n", []),
        (b"data: \xff\n\n", ["\ufffd"]),
    ],
)
def test_the_standards_own_cases(stream: bytes, data: list[str]) -> None:
    assert [event.data for event in events(stream)] == data


def test_an_id_stays_until_another_comes_and_an_empty_one_clears_it() -> None:
    found = events(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: 2\n\ndata: d\n\n")
    assert [event.id for event in found] == ["1", "1", "", "2"]


def test_an_id_with_a_nul_and_a_retry_that_is_no_number_are_ignored() -> None:
    parser = EventParser()
    parser.feed(b"id: 1\nretry: 10\ndata: a\n\nid: 2\0\nretry: 1s\ndata: b\n\n")
    assert (parser.last_event_id, parser.retry) == ("1", 10)


def test_an_id_counts_only_once_its_event_is_complete() -> None:
    parser = EventParser()
    parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert parser.last_event_id == "1"


def test_an_event_has_a_type_or_is_a_message() -> None:
    assert [event.type for event in events(b"event: put\ndata: a\n\ndata: b\n\n")] == ["put", "message"]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b"data: 1234567\n" * 20])
def test_an_event_that_never_ends_is_given_up(stream: bytes) -> None:
    with pytest.raises(MessageError, match="more than 100 bytes"):
        EventParser(max_event_bytes=100).feed(stream)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    EventParser().feed(data)
