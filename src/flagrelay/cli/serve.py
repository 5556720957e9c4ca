"""`flagrelay serve`."""

import sys
from typing import Any

import click

from flagrelay.cli.options import REDIS, setting_options, with_store
from flagrelay.settings import Settings
from flagrelay.store.connection import Store


@click.command(epilog="Example: flagrelay serve --redis-url redis://redis.internal:6379/0 --env production")
@setting_options()
def serve(**given: Any) -> None:
    """Run a relay until SIGTERM or Ctrl-C.

    It listens on loopback unless told otherwise, follows its environments in Redis, and keeps trying while Redis
    does not answer.
    """
    # Imported here, or every `flagrelay --help` would wait for a web server to be imported.
    from flagrelay.server.serve import serve as run  # noqa: PLC0415

    with_store({name: given[name] for name in REDIS}, _nothing)  # an address that is none is one line, at once
    sys.exit(run(Settings(**given)))


async def _nothing(_store: Store) -> None:
    """Opening a store connects to nothing."""
