"""`flagrelay env`: environments."""

import sys
from typing import Any

import click

from flagrelay.cli.options import json_option, redis_options, with_store
from flagrelay.cli.output import print_json, print_table
from flagrelay.store.environments import create_environment, destroy_environment, list_environments


@click.group(epilog="Example: flagrelay env create production")
def env() -> None:
    """Environments: each is one set of flags, with its own keys and its own history."""


@env.command(epilog="Example: flagrelay env create production")
@click.argument("name")
@json_option
@redis_options
def create(name: str, as_json: bool, **redis: Any) -> None:
    """Create an environment, empty."""
    position = with_store(redis, lambda store: create_environment(store, name))
    if as_json:
        print_json({"name": name, "epoch": position.epoch, "revision": position.revision})
    else:
        click.echo(f'environment "{name}" created; next: flagrelay keys create --env {name} --kind server --name WHAT')


@env.command("list", epilog="Example: flagrelay env list --json")
@json_option
@redis_options
def list_(as_json: bool, **redis: Any) -> None:
    """List the environments."""
    environments = with_store(redis, list_environments)
    if as_json:
        print_json(
            [
                {"name": e.name, "epoch": e.position.epoch, "revision": e.position.revision, "flags": e.flags}
                for e in environments
            ]
        )
        return
    print_table(
        ("NAME", "REVISION", "FLAGS", "EPOCH"),
        [(e.name, str(e.position.revision), str(e.flags), e.position.epoch) for e in environments],
        empty="no environment yet: flagrelay env create NAME",
    )


@env.command(epilog="Example: flagrelay env destroy staging --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@redis_options
def destroy(name: str, yes: bool, as_json: bool, **redis: Any) -> None:
    """Destroy an environment with all its flags and its history.

    Relays that serve it keep the last state, as stale. Its access keys stay until they are revoked.
    """
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("nobody is at a terminal to be asked: say --yes; nothing was changed")
        if not click.confirm(f'Destroy the environment "{name}" with all its flags and its history?'):
            raise click.ClickException("not confirmed; nothing was changed")
    with_store(redis, lambda store: destroy_environment(store, name))
    if as_json:
        print_json({"name": name, "destroyed": True})
    else:
        click.echo(f'environment "{name}" destroyed')
