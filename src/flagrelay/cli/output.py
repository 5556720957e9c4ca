"""What commands print: JSON for scripts, tables for people, plain columns for pipes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from flagrelay.store.writing import Written


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_json_line(value: Any) -> None:
    """One line of JSON, at once."""
    click.echo(orjson.dumps(value).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table at a terminal; tab-separated lines with a header elsewhere."""
    rows = list(rows)
    console = Console()
    if not rows:
        click.echo(empty, err=True)
    elif console.is_terminal:
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(_plain(cell) for cell in row))
        console.print(table)
    else:
        for row in [columns, *rows]:
            click.echo("\t".join(_plain(cell) for cell in row))


def print_written(written: Written, what: str, *, as_json: bool) -> None:
    """That something was written, and at which revision."""
    if as_json:
        print_json({"revision": written.revision, "at": written.at, "changed": written.changed})
    elif written.changed:
        click.echo(f"{what} (revision {written.revision})")
    else:
        click.echo(f"{what} already; nothing was changed (revision {written.revision})")


def clock(at_us: int) -> str:
    """A time of Redis's, for people: local, to the millisecond."""
    moment = datetime.fromtimestamp(at_us / 1e6, tz=UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def _plain(cell: str) -> str:
    """A cell that cannot break its line, nor be taken for markup or control sequences."""
    return "".join(c if c.isprintable() else " " for c in cell).replace("[", "\\[" if Console().is_terminal else "[")
