"""Options that commands share. Those that are settings are made from the table of settings."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import click

from flagrelay.settings import Setting, Settings, settings_table
from flagrelay.store.connection import RedisAddress, Store, open_store

Command = TypeVar("Command", bound=Callable[..., Any])
Answer = TypeVar("Answer")

REDIS = ("redis_url", "redis_sentinels", "redis_sentinel_master", "redis_cluster", "prefix")


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Add the options of settings to a command; all of them where none is named."""

    def add(command: Command) -> Command:
        for setting in reversed(list(settings_table())):
            if not names or setting.name in names:
                command = _option(setting)(command)
        return command

    return add


def _option(setting: Setting) -> Callable[[Command], Command]:
    unit = f" ({setting.unit})" if setting.unit else ""
    bounds = f" [{setting.bounds}]" if setting.bounds and not setting.choices else ""
    options: dict[str, Any] = {
        "envvar": setting.variable,
        "show_envvar": True,
        "default": setting.default,
        "show_default": bool(setting.shown_default) and setting.type not in (bool, tuple),
        "help": f"{setting.about}{unit}.{bounds}",
    }
    if setting.many:
        options |= {"multiple": True, "metavar": "NAME" if setting.name == "env" else "HOST:PORT"}
    elif setting.type is bool:
        options["is_flag"] = True
    elif setting.choices:
        options["type"] = click.Choice(setting.choices)
    else:
        options["type"] = setting.type
    return click.option(setting.option, setting.name, **options)


def redis_options(command: Command) -> Command:
    """Where Redis is."""
    return setting_options(*REDIS)(command)


def env_option(command: Command) -> Command:
    """The one environment that a command is about."""
    return click.option(
        "--env",
        "environment",
        required=True,
        envvar="FLAGRELAY_ENV",
        show_envvar=True,
        metavar="NAME",
        help="The environment.",
    )(command)


def json_option(command: Command) -> Command:
    """Output for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def who_options(*, reason_required: bool = False) -> Callable[[Command], Command]:
    """Who changes something, and why: it stands in the changelog, and `flagrelay watch` shows it."""

    def add(command: Command) -> Command:
        command = click.option(
            "--actor",
            envvar="FLAGRELAY_ACTOR",
            show_envvar=True,
            default=_login,
            show_default="your login name",
            help="Who makes the change.",
        )(command)
        return click.option(
            "--reason",
            default="" if not reason_required else None,
            required=reason_required,
            help="Why; it is kept with the change.",
        )(command)

    return add


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def with_store(redis: Mapping[str, Any], body: Callable[[Store], Awaitable[Answer]]) -> Answer:
    """Run something with a store, from the options that `redis_options` gave.

    Raises:
        FlagrelayError: what went wrong.
    """
    settings = Settings(**redis)
    address = RedisAddress(
        settings.redis_url,
        sentinels=settings.redis_sentinels,
        sentinel_master=settings.redis_sentinel_master,
        cluster=settings.redis_cluster,
    )

    async def run() -> Answer:
        async with open_store(address, prefix=settings.prefix) as store:
            return await body(store)

    return asyncio.run(run())
