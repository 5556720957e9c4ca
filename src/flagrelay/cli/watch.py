"""`flagrelay watch`."""

from typing import Any

import click

from flagrelay.cli.options import env_option, json_option, redis_options, with_store
from flagrelay.cli.output import clock, print_json_line
from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.source import Source
from flagrelay.relay.states import SourceState
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position


@click.command(epilog="Example: flagrelay watch --env production")
@env_option
@json_option
@redis_options
def watch(environment: str, as_json: bool, **redis: Any) -> None:
    """Follow the changes of an environment as they happen: a line each, with who and why.

    Nothing is missed while Redis is away: what happened meanwhile follows once it is back. Ends with Ctrl-C.
    """
    show = _show_json if as_json else _show

    async def follow(store: Store) -> None:
        await read_position(store, environment)  # a name that does not exist is an error, and not waited for
        source = Source(
            store,
            environment,
            on_load=lambda snapshot: _loaded(snapshot, quiet=as_json),
            on_change=lambda change, _snapshot: show(change),
            on_state=_tell,
        )
        await source.run()

    with_store(redis, follow)


def describe(change: Change) -> str:
    """What a change did, for people: each flag and population that it touched, and how."""
    parts = [_entry(key, flag) for key, flag in change.flags.items()]
    parts += [f"population {name}{' deleted' if rule is None else ''}" for name, rule in change.evaluators.items()]
    if change.metadata is not None:
        parts.append("metadata")
    return _line(", ".join(parts) or "nothing")


def signed(change: Change) -> str:
    """Who made a change, and why."""
    return _line(f"{change.actor or 'unknown'}{f': {change.reason}' if change.reason else ''}")


def _entry(key: str, flag: Any) -> str:
    if flag is None:
        return f"{key} deleted"
    return f"{key} DISABLED" if flag.get("state") == "DISABLED" else key


def _show(change: Change) -> None:
    urgent = click.style("  urgent", fg="red", bold=True) if change.urgent else ""
    click.echo(f"{clock(change.at)}  revision {change.revision}{urgent}  {describe(change)}  ({signed(change)})")


def _show_json(change: Change) -> None:
    print_json_line(
        {
            "at": change.at,
            "epoch": change.epoch,
            "revision": change.revision,
            "urgent": change.urgent,
            "actor": change.actor,
            "reason": change.reason,
            "flags": dict(change.flags),
            "$evaluators": dict(change.evaluators),
        }
    )


def _loaded(snapshot: Snapshot, *, quiet: bool) -> None:
    if not quiet:
        click.echo(
            f"{len(snapshot.flags)} flags at revision {snapshot.position.revision}; waiting for changes",
            err=True,
        )


def _tell(state: SourceState, reason: str) -> None:
    if state is SourceState.STALE:
        click.echo(f"{click.style('lost', fg='yellow')}: {reason}", err=True)


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
