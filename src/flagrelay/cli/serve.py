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
    """Run a relay until SIGTERM or Ctrl-C; with --workers, several processes behind one address.

    It listens on loopback unless told otherwise, follows its environments in Redis, and keeps trying while Redis
    does not answer.
    """
    settings = Settings(**given)
    with_store({name: given[name] for name in REDIS}, _nothing)  # an address that is none is one line, at once
    # Imported here, or every `flagrelay --help`, and every supervisor, would wait for a web server to be imported.
    if settings.workers > 1:
        from flagrelay.server.supervisor import supervise as run  # noqa: PLC0415
    else:
        from flagrelay.server.serve import serve as run  # noqa: PLC0415
    sys.exit(run(settings))


async def _nothing(_store: Store) -> None:
    """Opening a store connects to nothing."""
