"""`flagrelay keys`: access keys."""

import re
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import click

from flagrelay.cli.noting import note_or_say
from flagrelay.cli.options import checked_text, env_option, json_option, redis_options, who_options, with_store
from flagrelay.cli.output import clock, one_line, print_json, print_table
from flagrelay.errors import AccessKeyMissing
from flagrelay.store.access_keys import (
    KINDS,
    AccessKey,
    create_access_key,
    list_access_keys,
    revoke_access_key,
    stream_token,
)
from flagrelay.store.connection import Store

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _in_future(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Seconds since 1970 of a time to come: after `90d`, `12h`, `30m`, `45s`, `2w`, or at an ISO date."""
    if value is None:
        return None
    try:
        moment = _moment(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is neither like 90d, 12h, 30m, 45s nor a date like 2027-03-31") from None
    if moment <= time():
        raise click.BadParameter(f"{value!r} is not in the future")
    return moment


def _moment(value: str) -> int:
    duration = re.fullmatch(r"(\d+)([smhdw])", value)
    if duration:
        date = datetime.now(UTC) + timedelta(**{UNITS[duration[2]]: int(duration[1])})
    else:
        date = datetime.fromisoformat(value)
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())


@click.group(epilog="Example: flagrelay keys create --env production --kind server --name checkout")
def keys() -> None:
    """Access keys: what SDKs and tools show to a relay.

    A `server` key gets definitions and streams; a `client` key only evaluated values; an `admin` key may act on relays.
    """


@keys.command(epilog="Example: flagrelay keys create --env production --kind server --name checkout --expires 90d")
@env_option()
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What it may do.")
@click.option(
    "--name",
    required=True,
    metavar="WHAT",
    callback=checked_text(),
    help="What it is for: a service, a team, a tool.",
)
@click.option(
    "--expires",
    metavar="WHEN",
    callback=_in_future,
    help="After 90d, 12h, 30m, or at a date (2027-03-31, in UTC). Default: never.",
)
@who_options()
@json_option
@redis_options
def create(
    environment: str,
    kind: str,
    name: str,
    expires: int | None,
    actor: str,
    reason: str,
    as_json: bool,
    **redis: Any,
) -> None:
    """Create an access key. It is shown once, and stored only as a hash.

    To rotate, create the next one, change over, then revoke the last.
    """

    async def made(store: Store) -> tuple[AccessKey, str]:
        key, secret = await create_access_key(store, environment, kind, name, expires)
        await note_or_say(store, environment, "keys create", _noted(key), actor=actor, reason=reason)
        return key, secret

    key, secret = with_store(redis, made)
    if as_json:
        print_json({**_shown(key), "key": secret})
        return
    click.echo(secret)
    click.echo(one_line(f'This is key {key.id} ("{name}", {kind}, {environment}); it is not shown again.'), err=True)


@keys.command("list", epilog="Example: flagrelay keys list --env production")
@env_option(required=False)
@json_option
@redis_options
def list_(environment: str | None, as_json: bool, **redis: Any) -> None:
    """List access keys, without their secrets."""
    found = [key for key in with_store(redis, list_access_keys) if environment in (None, key.environment)]
    if as_json:
        print_json([_shown(key) for key in found])
        return
    rows = [(key.id, key.environment, key.kind, key.name, _day(key.created), _expiry(key)) for key in found]
    print_table(("ID", "ENVIRONMENT", "KIND", "NAME", "CREATED (UTC)", "EXPIRES (UTC)"), rows, empty="no access keys")


@keys.command(epilog="Example: flagrelay keys token 5f0c9e1ab2d3")
@click.argument("key_id", metavar="ID")
@json_option
@redis_options
def token(key_id: str, as_json: bool, **redis: Any) -> None:
    """Print the token that stands for a key in the URLs of streams, for browsers, whose EventSource sends no header.

    It opens streams of evaluated values, sees what a client key sees, and is revoked with the key.
    """
    key = next((key for key in with_store(redis, list_access_keys) if key.id == key_id), None)
    if key is None:
        raise AccessKeyMissing(key_id)
    if as_json:
        print_json({**_shown(key), "token": stream_token(key)})
    else:
        click.echo(stream_token(key))


@keys.command(epilog="Example: flagrelay keys revoke 5f0c9e1ab2d3")
@click.argument("key_id", metavar="ID")
@who_options()
@json_option
@redis_options
def revoke(key_id: str, actor: str, reason: str, as_json: bool, **redis: Any) -> None:
    """Revoke an access key. Its streams end at once, on every relay."""

    async def revoked(store: Store) -> AccessKey:
        key = await revoke_access_key(store, key_id)
        await note_or_say(store, key.environment, "keys revoke", _noted(key), actor=actor, reason=reason)
        return key

    key = with_store(redis, revoked)
    if as_json:
        print_json({**_shown(key), "revoked": True})
    else:
        click.echo(one_line(f'key {key.id} ("{key.name}", {key.kind}, {key.environment}) is revoked'))


def _noted(key: AccessKey) -> dict[str, Any]:
    """What the history says of a key."""
    return {"key": key.id, "kind": key.kind, "name": key.name, "expires": key.expires}


def _shown(key: AccessKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "environment": key.environment,
        "kind": key.kind,
        "name": key.name,
        "created": key.created,
        "expires": key.expires,
    }


def _day(seconds: int) -> str:
    return clock(seconds * 1_000_000)[:16]


def _expiry(key: AccessKey) -> str:
    if key.expires is None:
        return "never"
    return f"{_day(key.expires)}{' (expired)' if key.expires <= time() else ''}"
