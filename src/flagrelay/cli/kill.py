"""`flagrelay kill` and `flagrelay revive`."""

from typing import Any

import click

from flagrelay.cli.options import (
    checked_text,
    env_option,
    json_option,
    key_argument,
    redis_options,
    who_options,
    with_store,
)
from flagrelay.cli.output import print_written
from flagrelay.store.writing import kill_flag, revive_flag


@click.command(epilog="Example: flagrelay kill checkout-v2 --env production --reason 'error rate'")
@key_argument
@env_option()
@click.option(
    "--to",
    metavar="VARIANT",
    callback=checked_text(),
    help="Serve this variant to everybody, rather than the callers' own defaults.",
)
@who_options(reason_required=True)
@json_option
@redis_options
def kill(
    key: str,
    environment: str,
    to: str | None,
    actor: str,
    reason: str,
    as_json: bool,
    **redis: Any,
) -> None:
    """Take a flag back from everybody, at once.

    Every caller then gets the default in its own code. It wins over whatever is being edited, and killing twice is no
    error. `flagrelay revive` undoes it exactly.
    """
    written = with_store(redis, lambda store: kill_flag(store, environment, key, to=to, actor=actor, reason=reason))
    state = f'is "{to}" for everybody' if to is not None else "is killed"
    print_written(written, f'flag "{key}" {state}', as_json=as_json)


@click.command(epilog="Example: flagrelay revive checkout-v2 --env production --reason fixed")
@key_argument
@env_option()
@who_options()
@json_option
@redis_options
def revive(key: str, environment: str, actor: str, reason: str, as_json: bool, **redis: Any) -> None:
    """Undo a kill, exactly: the flag is again what it was before."""
    written = with_store(redis, lambda store: revive_flag(store, environment, key, actor=actor, reason=reason))
    print_written(written, f'flag "{key}" is what it was before', as_json=as_json)
