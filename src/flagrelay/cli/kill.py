"""`flagrelay kill`, `flagrelay revive`: through Redis or a control API, or on relays themselves where Redis is away."""

import click

from flagrelay.cli.acting import change
from flagrelay.cli.emergency import on_relays, relay_option, show_outcomes
from flagrelay.cli.options import checked_text, json_option, key_argument, who_options
from flagrelay.cli.proof import wait_option
from flagrelay.cli.target import Target, target_options
from flagrelay.control import table


@click.command(
    epilog="Example: flagrelay kill checkout-v2 --env production --reason 'error rate'. While Redis is away: "
    "flagrelay kill checkout-v2 --relay http://relay-1:8080 --relay http://relay-2:8080 --reason 'error rate'"
)
@key_argument
@click.option(
    "--to",
    metavar="VARIANT",
    callback=checked_text(),
    help="Serve this variant to everybody, rather than the callers' own defaults.",
)
@who_options(reason_required=True)
@relay_option
@wait_option
@json_option
@target_options(replicas=True)
def kill(
    key: str,
    to: str | None,
    reason: str,
    relays: tuple[str, ...],
    wait: float,
    as_json: bool,
    target: Target,
) -> None:
    """Take a flag back from everybody, at once.

    Every caller then gets the default in its own code. It wins over whatever is being edited, and killing twice is no
    error. `flagrelay revive` undoes it exactly. A flag that is being released is taken from some by `flagrelay
    unrelease`.

    With --relay it is put on those relays directly, while Redis is away, in the environment of the admin key. They
    write it to Redis once it is back, unless somebody has changed the flag there since.

    Exits with 0, or with 3 where it is done, and not every relay has it within --wait.
    """
    if relays:
        from flagrelay.sdk.asking import put_kill  # noqa: PLC0415 - a kill in Redis is not to wait for it

        admin_key, actor = target.admin_key, target.actor
        outcomes = on_relays(
            relays, admin_key, lambda url: put_kill(url, admin_key, key, to=to, actor=actor, reason=reason)
        )
        show_outcomes(outcomes, f'flag "{key}" is killed', as_json=as_json)
        return
    _check_named(target)
    state = f'is "{to}" for everybody' if to is not None else "is killed"
    what = f'flag "{key}" {state}'
    change(target, table.KILL, what, verb="killed", wait=wait, as_json=as_json, key=key, to=to, reason=reason)


@click.command(epilog="Example: flagrelay revive checkout-v2 --env production --reason fixed")
@key_argument
@who_options()
@relay_option
@wait_option
@json_option
@target_options(replicas=True)
def revive(
    key: str,
    reason: str,
    relays: tuple[str, ...],
    wait: float,
    as_json: bool,
    target: Target,
) -> None:
    """Undo a kill, exactly: the flag is again what it was before; a release, where it stands.

    With --relay it withdraws the kill that those relays hold by themselves.

    Exits with 0, or with 3 where it is done, and not every relay has it within --wait.
    """
    if relays:
        from flagrelay.sdk.asking import withdraw_kill  # noqa: PLC0415 - as above

        outcomes = on_relays(relays, target.admin_key, lambda url: withdraw_kill(url, target.admin_key, key))
        show_outcomes(outcomes, f'flag "{key}" is what Redis says', as_json=as_json)
        return
    _check_named(target)
    what = f'flag "{key}" is what it was before'
    change(target, table.REVIVE, what, verb="revived", wait=wait, as_json=as_json, key=key, reason=reason)


def _check_named(target: Target) -> None:
    if target.environment is None and not target.url:
        raise click.UsageError(
            "Missing option '--env' (or '--relay', to tell relays directly while Redis is away; "
            "or '--url', for a relay's control API)."
        )
