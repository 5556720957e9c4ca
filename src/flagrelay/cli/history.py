"""`flagrelay history`."""

from collections.abc import AsyncIterator
from typing import Any

import click
import msgspec

from flagrelay.cli.histories import show_entries
from flagrelay.cli.options import checked_text, json_option
from flagrelay.cli.output import print_json
from flagrelay.cli.target import Perform, Target, target_options
from flagrelay.control.history import MAX_ENTRIES
from flagrelay.control.table import HISTORY
from flagrelay.store.history import HistoryEntry

SHOWN = 100
"""Entries that are shown where nobody says how many, or since when."""

PAGE = 1000
"""Entries that are asked for at once."""


@click.command(epilog="Example: flagrelay history --env production --flag checkout-v2 --since 1h")
@click.option("--flag", callback=checked_text(), metavar="KEY", help="Only what touched this flag, or may have.")
@click.option("--actor", "by", callback=checked_text(), metavar="WHO", help="Only what this person did.")
@click.option("--since", callback=checked_text(), metavar="TIME", help="Not older than this: 30m, 1h, 1d12h.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_ENTRIES),
    show_default=f"{SHOWN}, and all with --since or --jsonl",
    help="The newest so many.",
)
@click.option("--jsonl", is_flag=True, help="Print JSON lines, the newest first, to be kept elsewhere.")
@json_option
@target_options()
def history(
    flag: str | None,
    by: str | None,
    since: str | None,
    limit: int | None,
    jsonl: bool,
    as_json: bool,
    target: Target,
) -> None:
    """Show who changed what, when and why: every change, about a hundred thousand of them.

    Of a change of more than a thousand flags, a thousand are known by name. With --flag, all such changes are shown,
    and those that do not name the flag say `perhaps`.
    """
    bounded = limit is None and not since and not jsonl
    most = SHOWN + 1 if bounded else limit

    async def read(perform: Perform) -> list[HistoryEntry]:
        found = []
        async for entry in _newest_first(perform, most, flag=flag, actor=by, since=since):
            if jsonl:  # there may be very many
                click.echo(msgspec.json.encode(entry).decode())
            else:
                found.append(entry)
        return found

    entries = target.run(read)
    shown = entries[:SHOWN] if bounded else entries
    if as_json and not jsonl:
        print_json(shown)
    elif not jsonl:
        show_entries(shown, empty="nothing was changed", flag=flag)
    if len(entries) > len(shown):
        click.echo(f"there are older ones than these {SHOWN}: --limit, --since or --jsonl shows them", err=True)


async def _newest_first(perform: Perform, most: int | None, **members: Any) -> AsyncIterator[HistoryEntry]:
    """Entries page by page; all that there are where it is not said how many at most."""
    before, left = None, most
    while left is None or left:
        wanted = PAGE if left is None else min(PAGE, left)
        page: list[HistoryEntry] = await perform(HISTORY, limit=wanted, before=before, **members)
        for entry in page:
            yield entry
        if len(page) < wanted:
            return
        before, left = page[-1].id, left and left - wanted
