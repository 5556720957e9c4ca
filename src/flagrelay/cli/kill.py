"""`flagrelay kill`, `flagrelay revive`: through Redis, or on relays themselves where Redis is away."""

from typing import Any

import click

from flagrelay.cli.emergency import admin_key_option, on_relays, relay_option, show_outcomes
from flagrelay.cli.options import (
    checked_text,
    env_option,
    json_option,
    key_argument,
    redis_options,
    replicas_option,
    who_options,
    with_store,
)
from flagrelay.cli.output import print_written
from flagrelay.sdk.asking import put_kill, withdraw_kill
from flagrelay.store.replicas import replicated
from flagrelay.store.writing import kill_flag, revive_flag


@click.command(
    epilog="Example: flagrelay kill checkout-v2 --env production --reason 'error rate'. While Redis is away: "
    "flagrelay kill checkout-v2 --relay http://relay-1:8080 --relay http://relay-2:8080 --reason 'error rate'"
)
@key_argument
@env_option(required=False)
@click.option(
    "--to",
    metavar="VARIANT",
    callback=checked_text(),
    help="Serve this variant to everybody, rather than the callers' own defaults.",
)
@who_options(reason_required=True)
@relay_option
@admin_key_option
@replicas_option
@json_option
@redis_options
def kill(
    key: str,
    environment: str | None,
    to: str | None,
    actor: str,
    reason: str,
    relays: tuple[str, ...],
    admin_key: str,
    replicas: int,
    as_json: bool,
    **redis: Any,
) -> None:
    """Take a flag back from everybody, at once.

    Every caller then gets the default in its own code. It wins over whatever is being edited, and killing twice is no
    error. `flagrelay revive` undoes it exactly.

    With --relay it is put on those relays directly, while Redis is away, in the environment of the admin key. They
    write it to Redis once it is back, unless somebody has changed the flag there since.
    """
    if relays:
        outcomes = on_relays(
            relays, admin_key, lambda url: put_kill(url, admin_key, key, to=to, actor=actor, reason=reason)
        )
        show_outcomes(outcomes, f'flag "{key}" is killed', as_json=as_json)
        return
    name = _named(environment)
    written = with_store(
        redis,
        replicated(replicas, lambda store: kill_flag(store, name, key, to=to, actor=actor, reason=reason)),
    )
    state = f'is "{to}" for everybody' if to is not None else "is killed"
    print_written(written, f'flag "{key}" {state}', as_json=as_json)


@click.command(epilog="Example: flagrelay revive checkout-v2 --env production --reason fixed")
@key_argument
@env_option(required=False)
@who_options()
@relay_option
@admin_key_option
@replicas_option
@json_option
@redis_options
def revive(
    key: str,
    environment: str | None,
    actor: str,
    reason: str,
    relays: tuple[str, ...],
    admin_key: str,
    replicas: int,
    as_json: bool,
    **redis: Any,
) -> None:
    """Undo a kill, exactly: the flag is again what it was before.

    With --relay it withdraws the kill that those relays hold by themselves.
    """
    if relays:
        outcomes = on_relays(relays, admin_key, lambda url: withdraw_kill(url, admin_key, key))
        show_outcomes(outcomes, f'flag "{key}" is what Redis says', as_json=as_json)
        return
    name = _named(environment)
    written = with_store(
        redis, replicated(replicas, lambda store: revive_flag(store, name, key, actor=actor, reason=reason))
    )
    print_written(written, f'flag "{key}" is what it was before', as_json=as_json)


def _named(environment: str | None) -> str:
    if environment is None:
        raise click.UsageError("Missing option '--env' (or '--relay', to tell relays directly while Redis is away).")
    return environment
