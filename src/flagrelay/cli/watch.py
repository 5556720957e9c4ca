"""`flagrelay watch`."""

from typing import Any

import click

from flagrelay.cli.options import env_option, json_option, redis_options, with_store
from flagrelay.cli.output import clock, one_line
from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.source import Source
from flagrelay.relay.states import SourceState
from flagrelay.server.logs import configure_logs
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position
from flagrelay.wire.message import encode_change

MAX_SHOWN = 20
"""Flags and populations of one change that its line names; an import may touch thousands."""


@click.command(epilog="Example: flagrelay watch --env production")
@env_option()
@json_option
@redis_options
def watch(environment: str, as_json: bool, **redis: Any) -> None:
    """Follow the changes of an environment as they happen: a line each, with who and why.

    What happens while Redis is away follows once it is back, as far as its changelog goes. Ends with Ctrl-C.
    """
    show = _show_json if as_json else _show

    async def follow(store: Store) -> None:
        await read_position(store, environment)  # a name that does not exist is an error, and not waited for
        commentary = Commentary()
        source = Source(
            store,
            environment,
            on_load=commentary.loaded,
            on_change=lambda change, _snapshot: show(change),
            on_state=commentary.moved,
        )
        await source.run()

    configure_logs("warning", "auto")  # on standard error; by itself structlog would write among the changes
    with_store(redis, follow)


def describe(change: Change) -> str:
    """What a change did, for people: each flag and population that it touched, and how; not all of very many."""
    parts = [_entry(key, flag) for key, flag in change.flags.items()]
    parts += [f"population {name}{' deleted' if rule is None else ''}" for name, rule in change.evaluators.items()]
    if change.metadata is not None:
        parts.append("metadata")
    more = f", and {len(parts) - MAX_SHOWN} more" if len(parts) > MAX_SHOWN else ""
    return one_line((", ".join(parts[:MAX_SHOWN]) or "nothing") + more)


def signed(change: Change) -> str:
    """Who made a change, and why."""
    return one_line(f"{change.actor or 'unknown'}{f': {change.reason}' if change.reason else ''}")


def _entry(key: str, flag: Any) -> str:
    if flag is None:
        return f"{key} deleted"
    return f"{key} DISABLED" if flag.get("state") == "DISABLED" else key


def _show(change: Change) -> None:
    urgent = click.style("  urgent", fg="red", bold=True) if change.urgent else ""
    click.echo(f"{clock(change.at)} UTC  revision {change.revision}{urgent}  {describe(change)}  ({signed(change)})")


def _show_json(change: Change) -> None:
    click.echo(encode_change(change).decode())


class Commentary:
    """What is no change, told on standard error: what it starts from, and that Redis is lost, or back."""

    def __init__(self) -> None:
        self._loaded = False
        self._lost = False

    def loaded(self, snapshot: Snapshot) -> None:
        """The first time, and whenever changes cannot tell what happened."""
        why = "read anew, since its history is another one or too far ahead: " if self._loaded else ""
        self._loaded = True
        flags, revision = len(snapshot.flags), snapshot.position.revision
        click.echo(f"{why}{flags} flags at revision {revision}; waiting for changes", err=True)

    def moved(self, state: SourceState, reason: str) -> None:
        """Once for each loss, however many times it is tried again."""
        if state in (SourceState.STALE, SourceState.CONNECTING) and not self._lost:
            self._lost = True
            click.echo(f"{click.style('lost:', fg='yellow')} {one_line(reason)}", err=True)
        elif state is SourceState.LIVE and self._lost:
            self._lost = False
            click.echo(f"{click.style('back:', fg='green')} {one_line(reason)}", err=True)
