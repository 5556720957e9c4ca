"""`flagrelay kills`."""

from collections.abc import Iterator, Sequence

import click

from flagrelay.cli.emergency import Outcomes, admin_key_option, on_relays, relay_option
from flagrelay.cli.options import json_option
from flagrelay.cli.output import clock, print_json, print_table
from flagrelay.errors import FlagrelayError, StreamError
from flagrelay.sdk.asking import list_kills


@click.command(epilog="Example: flagrelay kills --relay http://relay-1:8080")
@relay_option
@admin_key_option
@json_option
def kills(relays: tuple[str, ...], admin_key: str, as_json: bool) -> None:
    """List the kills that relays hold by themselves, and how Redis stands to each.

    `local`: Redis does not know of it yet. `written`: it does. `conflict`: somebody has changed the flag there
    since, and a person must decide: kill it again, or withdraw it (`flagrelay revive KEY --relay URL`). `refused`:
    Redis lets the relay write nothing.
    """
    if not relays:
        raise click.UsageError("Missing option '--relay'.")
    outcomes = on_relays(relays, admin_key, lambda url: list_kills(url, admin_key))
    if as_json:
        print_json({url: {"error": str(o)} if isinstance(o, FlagrelayError) else o for url, o in outcomes.items()})
    else:
        columns = ("RELAY", "FLAG", "TO", "STATE", "SINCE (UTC)", "WHO", "REASON", "WHY")
        print_table(columns, _rows(outcomes), empty="no relay holds a kill by itself")
    failed = [str(outcome) for outcome in outcomes.values() if isinstance(outcome, FlagrelayError)]
    if failed:
        raise StreamError("; ".join(failed))


def _rows(outcomes: Outcomes) -> Iterator[Sequence[str]]:
    for url, outcome in outcomes.items():
        for kill in () if isinstance(outcome, FlagrelayError) else outcome["kills"]:
            to = "disabled" if kill["to"] is None else kill["to"]
            yield url, kill["flag"], to, kill["state"], clock(kill["at"]), kill["actor"], kill["reason"], kill["why"]
