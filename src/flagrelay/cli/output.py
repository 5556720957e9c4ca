"""What commands print: JSON for scripts, tables for people, plain columns for pipes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import orjson
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
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, column in enumerate(columns):
            # Where it is narrow, what one copies (a key, a name) stays whole if it can, and nothing is cut off.
            short = all(len(row[index]) <= console.width // 2 for row in lines)
            table.add_column(Text(column), no_wrap=index == 0 and short, overflow="fold")
        for row in lines:
            table.add_row(*map(Text, row))
        console.print(table)
    else:
        for line in [columns, *lines]:
            click.echo("\t".join(line))


def as_members(written: Written | None) -> dict[str, Any]:
    """What scripts get of a write; None for one that was not needed, or not wanted."""
    return {
        "revision": written.revision if written else None,
        "at": written.at if written and written.changed else None,
        "changed": written is not None and written.changed,
    }


def clock(at_us: int) -> str:
    """A time of Redis's, for people: local, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(at_us / 1e6, tz=UTC).astimezone()
    except (ValueError, OverflowError, OSError):  # another tool's, or too far away for a calendar; `date -d` reads this
        return f"@{at_us // 1_000_000}"
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def one_line(text: str) -> str:
    """Text that somebody else wrote: it cannot break its line, nor speak to the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
