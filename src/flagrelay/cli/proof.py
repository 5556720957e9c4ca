"""Waiting until every relay has a change: the option, the live table, the sentence and the exit status."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flagrelay.cli.options import Command
from flagrelay.cli.output import one_line
from flagrelay.control.proof import Proof, Standing, prove
from flagrelay.errors import ReplicasMissing
from flagrelay.store.reports import Reports
from flagrelay.store.writing import Written

NOT_PROVEN = 3
"""Exit status where something was written, and not every relay, or too few replicas, are known to have it."""

DEFAULT_WAIT = 5.0
"""Seconds that are waited at a terminal, and with `--wait` alone."""

LONGEST_WAIT = 3600.0

COLOURS = {"done": "green", "behind": "yellow", "silent": "red"}

_NO_WAIT = "flagrelay.cli.proof.no_wait"
_UNPROVEN = "flagrelay.cli.proof.unproven"


def wait_option(command: Command) -> Command:
    """How long to wait until every relay has the change, as `wait` in seconds; 0 for not at all."""
    command = click.option(
        "--no-wait",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note_no_wait,
        help="The same as --wait=0.",
    )(command)
    return click.option(
        "--wait",
        is_flag=False,
        flag_value=f"{DEFAULT_WAIT:g}",
        metavar="[SECONDS]",
        callback=_seconds,
        help="Wait until every relay has written it to its streams, and say how long that took; exit with "
        f"{NOT_PROVEN} where not all have in time.  [default: {DEFAULT_WAIT:g} at a terminal, elsewhere 0: not at all]",
    )(command)


def _note_no_wait(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    ctx.meta[_NO_WAIT] = given


def _seconds(ctx: click.Context, _param: click.Parameter, text: str | None) -> float:
    if ctx.meta.get(_NO_WAIT):
        return 0.0
    if text is None:
        return DEFAULT_WAIT if sys.stdout and sys.stdout.isatty() else 0.0
    try:
        seconds = float(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no number of seconds: write --wait={DEFAULT_WAIT:g}, or put --wait last"
        ) from None
    if not 0 <= seconds <= LONGEST_WAIT:
        raise click.BadParameter(f"{text} is no time to wait: it is 0 to {LONGEST_WAIT:g} seconds")
    return seconds


async def show_proof(
    read: Callable[[], Awaitable[Reports]],
    written: Written,
    *,
    within: float,
    verb: str,
    as_json: bool,
    flag: str | None = None,
) -> Proof:
    """Wait until every relay has a change: a line for each at a terminal, live, and then the sentence.

    Args:
        read: reads what relays have reported.
        written: the change.
        within: seconds, at most.
        verb: what they have done with it, as in `un-released in 38 ms`.
        as_json: whether to show nothing, since the caller prints the proof as JSON.
        flag: the one flag that the change touches; None where it may touch any.
    """
    console = Console()
    shown = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with shown or nullcontext():

        def told(proof: Proof) -> None:
            if shown:
                shown.update(_table(proof), refresh=True)

        proof = await prove(read, written, within=within, flag=flag, told=told)
    if not as_json:
        click.echo(one_line(proof.sentence(verb)))
    return proof


def warn_unproven(error: ReplicasMissing) -> None:
    """Say that what is written is not where it was to be; the command goes on, and ends with `NOT_PROVEN`."""
    click.echo(f"warning: {error}", err=True)
    click.get_current_context().meta[_UNPROVEN] = True


def end_with(proof: Proof | None) -> None:
    """End the command with `NOT_PROVEN` where a proof was wanted, and is none; or replicas were, and are missing."""
    if (proof and not proof.complete) or click.get_current_context().meta.get(_UNPROVEN):
        click.get_current_context().exit(NOT_PROVEN)


def _table(proof: Proof) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("RELAY", "STATE", "REVISION", "WRITTEN", "LAGGING", "MS"):
        table.add_column(column)
    for standing in proof.standings:
        table.add_row(*_cells(standing))
    return table


def _cells(standing: Standing) -> list[Text]:
    return [
        Text(one_line(standing.relay)),
        Text(standing.state, style=COLOURS[standing.state]),
        Text(str(standing.revision)),
        Text(f"{standing.written:,}/{standing.streams:,}"),
        Text(f"{standing.lagging:,}"),
        Text("-" if standing.ms is None else f"{standing.ms:,.1f}"),
    ]
