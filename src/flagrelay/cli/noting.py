"""Noting in an environment's history what is no change of it."""

from typing import Any

import click

from flagrelay.cli.output import one_line
from flagrelay.errors import StoreError, StoreUnavailable
from flagrelay.store.connection import Store
from flagrelay.store.history import note


async def note_or_say(
    store: Store, environment: str, action: str, detail: dict[str, Any], *, actor: str, reason: str
) -> None:
    """Note what was done; or say that nobody could, since it is done, and what came of it must still be told."""
    try:
        await note(store, environment, action, detail, actor=actor, reason=reason)
    except (StoreError, StoreUnavailable) as error:
        click.echo(one_line(f"done, but the history does not have it: {error}"), err=True)
