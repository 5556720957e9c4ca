"""`flagrelay relays`: what relays report to Redis of what their streams have."""

from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from flagrelay.cli.options import MAX_TEXT, checked_text, json_option, with_store
from flagrelay.cli.output import print_json, print_table
from flagrelay.cli.target import Target, target_options
from flagrelay.control.relays import RelayReports, reports_of
from flagrelay.control.table import FORGET_RELAY, LIST_RELAYS
from flagrelay.flags.position import Position
from flagrelay.store.connection import Store
from flagrelay.store.environments import list_environments
from flagrelay.store.reading import read_position
from flagrelay.store.reports import Report, Reports, read_reports

COLUMNS = ("RELAY", "ENVIRONMENT", "STATE", "REVISION", "STREAMS", "LAGGING", "MS", "LAST HEARD")

MAX_SHOWN = 3
"""Kills of a relay's own that its line names."""

Found = dict[str, tuple[Position, Reports]]
"""Where each environment stands, and what its relays say."""


@click.group(invoke_without_command=True, epilog="Example: flagrelay relays --env production")
@json_option
@target_options()
def relays(as_json: bool, target: Target) -> None:
    """Show what relays report: who has which revision, for how many streams, and when each was last heard of.

    A relay with several workers is a line for each of them. `stale` is one that has lost Redis, or does not serve what
    Redis has; `silent` one that should have reported since: it is dead, or cannot reach Redis. A flag in parentheses is
    one that the relay shows by a kill of its own, which Redis does not have. MS is how long the last
    change took, from its time in Redis until the last stream had it. Without --env: of all environments.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand:
        _refuse_misplaced(ctx)
        return
    found = _ask(target) if target.url else with_store(target.redis, lambda store: _read(store, target.environment))
    if as_json:
        print_json([_members(name, position, each) for name, position, each in _flat(found)])
        return
    rows = [_row(name, position, each) for name, position, each in _flat(found)]
    print_table(COLUMNS, rows, empty="no relay reports here: none runs, or none may write to Redis")


@relays.command(epilog="Example: flagrelay relays forget relay-3:8080 --env production")
@click.argument("relay", callback=checked_text(MAX_TEXT))
@target_options()
def forget(relay: str, target: Target) -> None:
    """Forget a relay that is gone for good, rather than wait until that happens by itself.

    That takes ten minutes where it had no streams, and else a day: it might serve them still, cut off from Redis.

    A relay that still runs reports again, and is back.
    """
    target.do(FORGET_RELAY, relay=relay)
    click.echo(f'relay "{relay}" is forgotten')


def _refuse_misplaced(ctx: click.Context) -> None:
    """An option before the subcommand would not reach it: it would act on what its own options say instead."""
    for option in ctx.command.params:
        if option.name and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} belongs behind `{ctx.invoked_subcommand}`.")


def _ask(target: Target) -> Found:
    """What a relay's control API says of the environment of the admin key."""
    answer: RelayReports = target.do(LIST_RELAYS)
    return {answer.environment: (Position(answer.epoch, answer.revision, ""), reports_of(answer))}


async def _read(store: Store, environment: str | None) -> Found:
    if environment is not None:
        return {environment: (await read_position(store, environment), await read_reports(store, environment))}
    summaries = await list_environments(store)
    return {each.name: (each.position, await read_reports(store, each.name)) for each in summaries}


def _flat(found: Found) -> list[tuple[str, Position, tuple[Report, int]]]:
    """Each report, with its environment, where that stands, and Redis's time."""
    return [(name, position, (report, said.now)) for name, (position, said) in found.items() for report in said.reports]


def _row(name: str, position: Position, each: tuple[Report, int]) -> Sequence[str]:
    report, now = each
    return (
        f"{report.relay} worker {report.worker}" if report.workers > 1 else report.relay,
        name,
        f"{_state(report, now)}{_kills(report)}",
        f"{report.revision}{_behind(report, position)}",
        f"{report.streams:,}",
        f"{report.lagging:,}",
        "-" if report.ms is None else f"{report.ms:,.1f}",
        f"{report.age(now):.1f} s ago",
    )


def _members(name: str, position: Position, each: tuple[Report, int]) -> dict[str, Any]:
    report, now = each
    same = report.epoch == position.epoch
    return {
        "environment": name,
        "state": _state(report, now),
        "behind": max(0, position.revision - report.revision) if same else None,
        "age_ms": round(report.age(now) * 1000),
        **report.as_json(),
    }


def _state(report: Report, now: int) -> str:
    return "silent" if report.silent(now) else report.source


def _kills(report: Report) -> str:
    """What a relay shows by kills of its own, for people; empty where that is nothing."""
    if not report.kills and not report.more_kills:
        return ""
    shown = [f'"{key}": {state}' for key, state in sorted(report.kills.items())[:MAX_SHOWN]]
    more = len(report.kills) + report.more_kills - len(shown)
    return f" (kills of its own: {', '.join(shown)}{f' and {more:,} more' if more else ''})"


def _behind(report: Report, position: Position) -> str:
    """How far a relay is behind its environment, for people; empty where it is not."""
    if report.epoch != position.epoch:
        return " of another history"
    behind = position.revision - report.revision
    return f" ({behind:,} behind)" if behind > 0 else ""
