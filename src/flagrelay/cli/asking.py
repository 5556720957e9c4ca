"""What an action does is shown before it is asked for: who gains, who loses, and whether that is meant."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from flagrelay.cli.documents import subject_of
from flagrelay.cli.options import Command
from flagrelay.cli.output import one_line, print_table
from flagrelay.control.effect import Counted, Effect, ScopeShift
from flagrelay.errors import InputError

MAX_SAMPLE = 100_000
"""Contexts of a sample."""


def yes_option(command: Command) -> Command:
    """Not to be asked."""
    return click.option("--yes", is_flag=True, help="Do not ask; for scripts.")(command)


def sample_option(command: Command) -> Command:
    """Contexts over which is counted who gains and who loses, as `sample`: a list, or None."""
    return click.option(
        "--sample",
        metavar="FILE",
        callback=_contexts,
        help="Count over these evaluation contexts, one JSON object a line; - for standard input.",
    )(command)


def _contexts(_ctx: click.Context, _param: click.Parameter, path: str | None) -> list[dict[str, Any]] | None:
    if path is None:
        return None
    subject = subject_of(path)
    try:
        if path == "-":
            return _parsed(sys.stdin.buffer if sys.stdin else (), subject)
        with Path(path).open("rb") as file:
            return _parsed(file, subject)
    except OSError as error:
        raise InputError(f"cannot read {subject}: {error.strerror}") from error


def _parsed(lines: Iterable[bytes], subject: str) -> list[dict[str, Any]]:
    contexts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            context = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{subject}: line {number} is not JSON: {error}") from error
        if not isinstance(context, dict):
            raise InputError(f"{subject}: line {number} is no context: it should be a JSON object")
        contexts.append(context)
        if len(contexts) > MAX_SAMPLE:
            raise InputError(f"{subject} has more than {MAX_SAMPLE:,} contexts, which is the most")
    if not contexts:  # which would count over open streams, or over nobody, and say nothing of it
        raise InputError(f"{subject} has no contexts: one JSON object a line")
    return contexts


def show_effect(effect: Effect) -> None:
    """Who gains and who loses, as a table, and how many people that are where it is known."""
    counted = any(shift.counted for shift in effect.shifts)
    columns = ("", "WHO", "BEFORE", "AFTER", *(("OF ITS KEYS",) if counted else ()))
    rows = [_row(shift)[: len(columns)] for shift in effect.shifts]
    print_table(columns, rows, empty="nobody gains or loses by it")
    if effect.counted:
        click.echo(f"of {_source(effect.counted)}: {_moved(effect.counted)}")


def _row(shift: ScopeShift) -> Sequence[str]:
    sign = "+ gains" if shift.gains else "- loses" if shift.loses else "= as before"
    counted = f"{_moved(shift.counted)} of {shift.counted.contexts:,}" if shift.counted else "-"
    return (sign, one_line(shift.scope), shift.before, shift.after, counted)


def _moved(counted: Counted) -> str:
    parts = [
        f"{number:,} {verb} ({number / counted.contexts:.2%})"
        for number, verb in ((counted.gain, "gain"), (counted.lose, "lose"))
        if number
    ]
    return ", ".join(parts) or "nobody gains or loses"


def _source(counted: Counted) -> str:
    what = {"sample": "contexts of the sample", "streams": "contexts of open streams", "keys": "targeting keys"}
    return f"{counted.contexts:,} {what[counted.over]}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless told not to.

    Raises:
        click.UsageError: there is nobody to be asked.
        click.ClickException: they say no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("nobody is at a terminal to be asked: say --yes; nothing was changed")
    if not click.confirm(one_line(question), err=True):
        raise click.ClickException("not confirmed; nothing was changed")
