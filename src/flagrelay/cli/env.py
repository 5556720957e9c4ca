"""`flagrelay env`: environments."""

import sys
from typing import Any

import click

from flagrelay.cli.acting import say
from flagrelay.cli.options import json_option, redis_options, replicas_option, who_options, with_store
from flagrelay.cli.output import as_members, print_json, print_table
from flagrelay.control.answers import change_of
from flagrelay.flags.bucket import GENERATIONS
from flagrelay.flags.environment_settings import EnvironmentSettings, check_settings
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment, destroy_environment, list_environments
from flagrelay.store.reading import read_state
from flagrelay.store.replicas import replicated
from flagrelay.store.writing import Draft, Written, write_change


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


@env.command(
    "set", epilog="Example: flagrelay env set production --origin https://www.example.com --reason 'web shop goes live'"
)
@click.argument("name")
@click.option(
    "--fractional",
    type=click.Choice(GENERATIONS),
    help="How `fractional` hashes. Another generation moves users between variants.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="A web origin whose pages may ask for evaluated values; give all of them. * is every one.",
)
@click.option("--no-origins", is_flag=True, help="No web page may ask.")
@who_options()
@replicas_option
@json_option
@redis_options
def set_(
    name: str,
    fractional: str | None,
    origins: tuple[str, ...],
    no_origins: bool,
    actor: str,
    reason: str,
    replicas: int,
    as_json: bool,
    **redis: Any,
) -> None:
    """Change the settings of an environment, or show them where nothing is given.

    It is a change like any other: every relay follows it, and the changelog has it.
    """
    given: dict[str, Any] = {"fractional": fractional} if fractional else {}
    if origins or no_origins:
        given["origins"] = [] if no_origins else list(origins)

    async def write(store: Store) -> tuple[EnvironmentSettings, Written | None]:
        settings = (await read_state(store, name)).settings
        if not given:
            return settings, None
        settings = check_settings({**settings.as_json(), **given})
        detail = {"settings": sorted(given)}
        draft = Draft(settings=settings, action="env set", detail=detail, actor=actor, reason=reason)
        return settings, await write_change(store, name, draft)

    settings, written = with_store(redis, replicated(replicas, write))
    if as_json:
        print_json({"name": name, **settings.as_json(), **(as_members(written) if written else {})})
        return
    origins_shown = " ".join(settings.origins) or "none"
    click.echo(f"fractional: {settings.fractional}\norigins: {origins_shown}")
    if written:
        say(change_of(written), f'settings of environment "{name}" are written')


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
