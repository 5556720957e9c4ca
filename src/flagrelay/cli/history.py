"""`flagrelay history`."""

import click
import msgspec

from flagrelay.cli.histories import show_entries
from flagrelay.cli.options import checked_text, json_option
from flagrelay.cli.output import print_json
from flagrelay.cli.target import Target, target_options
from flagrelay.control.table import HISTORY


@click.command(epilog="Example: flagrelay history --env production --flag checkout-v2 --since 1h")
@click.option("--flag", callback=checked_text(), metavar="KEY", help="Only what touched this flag.")
@click.option("--actor", "by", callback=checked_text(), metavar="WHO", help="Only what this person did.")
@click.option("--since", callback=checked_text(), metavar="TIME", help="Not older than this: 30m, 1h, 1d12h.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@click.option("--jsonl", is_flag=True, help="Print JSON lines, the newest first, to be kept elsewhere.")
@json_option
@target_options()
def history(
    flag: str | None,
    by: str | None,
    since: str | None,
    limit: int,
    jsonl: bool,
    as_json: bool,
    target: Target,
) -> None:
    """Show who changed what, when and why: every change, about a hundred thousand of them."""
    entries = target.do(HISTORY, flag=flag, actor=by, since=since, limit=limit)
    if jsonl:
        for entry in entries:
            click.echo(msgspec.json.encode(entry).decode())
    elif as_json:
        print_json(entries)
    else:
        show_entries(entries, empty="nothing was changed")
