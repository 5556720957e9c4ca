"""What commands print: JSON for scripts, tables for people, plain columns for pipes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import orjson
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flagrelay.store.writing import Written


def print_json(value: Any) -> None:
    """One JSON document, indented; answers of operations as what they hold."""
    click.echo(orjson.dumps(value, default=msgspec.to_builtins, option=orjson.OPT_INDENT_2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table at a terminal; tab-separated lines with a header elsewhere."""
    columns = [one_line(column) for column in columns]
    lines = [[one_line(cell) for cell in row] for row in rows]
    console = Console()
    if not lines:
        click.echo(empty, err=True)
    elif console.is_terminal:
        console.print(_table(columns, lines, console.width))
    else:
        for line in [columns, *lines]:
            click.echo("\t".join(line))


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], room: int) -> Table:
    gap = 2 if sum(_widest([columns, *lines])) + 2 * (len(columns) - 1) <= room else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column, width in zip(columns, column_widths(columns, lines, room, gap), strict=True):
        table.add_column(Text(column), width=width, overflow="fold")
    for row in lines:
        table.add_row(*map(Text, row))
    return table


def column_widths(columns: Sequence[str], lines: Sequence[Sequence[str]], room: int, gap: int) -> list[int]:
    """How wide each column is, so that all have room with gaps between them; it is taken from the widest.

    Where it is narrow, names of columns are folded first, then cells, both between words; and within a word only where
    nothing else helps. What one copies (a key, a name) stands in the first column, and stays whole unless that takes
    half of the room, or what the others need at the very least.
    """
    widths = [min(width, room) for width in _widest([columns, *lines])]
    words = _widest([_longest_words(row) for row in (columns, *lines)])
    cells = [max(both) for both in zip(words, _widest(lines), strict=True)]
    kept = widths[0] if widths[0] <= room // 2 else 1
    room -= gap * (len(columns) - 1)
    nothing = [1] * len(widths)
    for least in (cells, words, nothing):
        _narrow(widths, [max(kept, least[0]), *least[1:]], room)
    _narrow(widths, nothing, room)
    return widths


def _narrow(widths: list[int], least: Sequence[int], room: int) -> None:
    """Take from the widest column again and again, until all have room or none is wider than it is to be at least."""
    while sum(widths) > room:
        spare = [width if width > low else 0 for width, low in zip(widths, least, strict=True)]
        if not any(spare):
            return
        widths[spare.index(max(spare))] -= 1


def _widest(cells: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column is at its widest."""
    return [max(map(cell_len, column)) for column in zip(*cells, strict=True)]


def _longest_words(row: Sequence[str]) -> list[str]:
    return [max(cell.split(), key=cell_len, default="") for cell in row]


def as_members(written: Written | None) -> dict[str, Any]:
    """What scripts get of a write; None for one that was not needed, or not wanted."""
    return {
        "revision": written.revision if written else None,
        "at": written.at if written and written.changed else None,
        "changed": written is not None and written.changed,
    }


def clock(at_us: int) -> str:
    """A time of Redis's, to the millisecond; in UTC, for people anywhere: say so beside it, or in the column's name."""
    try:
        moment = datetime.fromtimestamp(at_us / 1e6, tz=UTC)
    except (ValueError, OverflowError, OSError):  # another tool's, or too far away for a calendar; `date -d` reads this
        return f"@{at_us // 1_000_000}"
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def one_line(text: str) -> str:
    """Text that somebody else wrote: it cannot break its line, nor speak to the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
