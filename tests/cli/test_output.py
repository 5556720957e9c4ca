"""Tables at terminals of any width, and times for people anywhere."""

import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.cli.output import clock, column_widths, print_table

PLAN = ("", "STAGE", "RELEASES TO", "AT LEAST", "APPROVED", "DEV-TEAM", "INTERNAL", "BETA", "EVERYBODY")
STAGES = (
    ("1", "dev-team", "dev-team", "-", "-", "all", "none", "none (0 of 1,200 keys)", "none"),
    ("3", "beta-50%", "50 % of beta", "-", "by another person", "all", "all", "50 % (600 of 1,200 keys)", "none"),
    ("6", "100%", "everybody", "-", "-", "all", "all", "all (1,200 of 1,200 keys)", "all"),
)
CELLS = st.text("ab ü漢", max_size=30)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that is in Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_times_are_in_utc_wherever_one_is() -> None:
    assert clock(1_764_000_000_123_456) == "2025-11-24 16:00:00.123"
    assert clock(10**18) == "@1000000000000"


def shown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> list[str]:
    """The lines of a table at a terminal that is so wide."""
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(width)}.items():
        monkeypatch.setenv(name, value)
    print_table(columns, rows, empty="")
    text = capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "")
    return [line.rstrip() for line in text.splitlines()]


def test_where_there_is_room_every_row_is_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, first, *_ = lines = shown(capsys, monkeypatch, 130, PLAN, STAGES)
    assert len(lines) == 4
    assert head.startswith("   STAGE     RELEASES TO   AT LEAST  APPROVED")
    assert first.startswith("1  dev-team  dev-team      -         -  ")


def test_at_80_columns_no_word_of_a_plan_is_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(capsys, monkeypatch, 80, PLAN, STAGES)
    assert all(len(line) <= 80 for line in lines)
    words = [word for line in lines for word in line.split()]
    assert sorted(words) == sorted(word for row in (PLAN, *STAGES) for cell in row for word in cell.split())


def test_what_one_copies_stays_whole_as_long_as_it_leaves_half_of_the_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a key of a flag"
    assert shown(capsys, monkeypatch, 40, ("KEY", "WHY"), [(key, "x" * 50)])[1].startswith(f"{key} xxxx")
    lines = shown(capsys, monkeypatch, 20, ("KEY", "WHY"), [(key, "x" * 50)])
    assert "".join("".join(lines[1:]).split()) != "", "nothing is cut off"
    assert sum(line.count("x") for line in lines) == 50


def test_what_one_copies_leaves_the_others_a_place() -> None:
    assert column_widths(["", "a", "a", "a", "a"], [["key", "a", "a", "a", "a"]], 6, 0) == [2, 1, 1, 1, 1]


@given(
    st.lists(CELLS, min_size=1, max_size=6), st.lists(st.lists(CELLS, min_size=6, max_size=6), min_size=1), st.data()
)
def test_columns_have_room_and_are_no_wider_than_they_need(
    columns: list[str], rows: list[list[str]], data: st.DataObject
) -> None:
    room = data.draw(st.integers(len(columns), 200))
    lines = [row[: len(columns)] for row in rows]
    widths = column_widths(columns, lines, room, 0)
    natural = column_widths(columns, lines, 10_000, 0)
    assert all(width <= most for width, most in zip(widths, natural, strict=True))
    assert sum(widths) <= max(room, len(columns))
    assert widths == natural or sum(natural) > room
