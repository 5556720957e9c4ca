"""Options that commands share. Those that are settings are made from the table of settings."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import click

from flagrelay.errors import DefinitionError, SettingError
from flagrelay.flags.definition import MAX_KEY_LENGTH, check_environment_name
from flagrelay.settings import Setting, Settings, settings_table
from flagrelay.store.connection import RedisAddress, Store, open_store

Command = TypeVar("Command", bound=Callable[..., Any])
Answer = TypeVar("Answer")

REDIS = ("redis_url", "redis_sentinels", "redis_sentinel_master", "redis_cluster", "prefix")

METAVARS = {
    "redis_url": "URL",
    "redis_sentinels": "HOST:PORT",
    "redis_sentinel_master": "NAME",
    "prefix": "NAME",
    "env": "NAME",
    "relay_id": "NAME",
    "host": "ADDRESS",
    "public_url": "URL",
    "state_dir": "PATH",
    "tls_cert": "PATH",
    "tls_key": "PATH",
}
"""What stands for the value of a setting that is text."""

Callback = Callable[[click.Context, click.Parameter, Any], Any]

MAX_TEXT = 1000
"""Characters of a reason or a name."""


def checked_text(most: int = MAX_TEXT, *, may_be_empty: bool = False) -> Callback:
    """A callback that refuses text which is too long (in characters), says nothing, or is not Unicode."""

    def check(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
        if text is None:
            return None
        if not text.strip() and not may_be_empty:
            raise click.BadParameter("it is empty")
        if len(text) > most:
            raise click.BadParameter(f"it has {len(text)} characters; the most is {most}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter("it is not UTF-8") from None
        return text

    return check


def key_argument(command: Command) -> Command:
    """The flag that a command is about."""
    return click.argument("key", callback=checked_text(MAX_KEY_LENGTH))(command)


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Add the options of settings to a command; all of them where none is named."""

    def add(command: Command) -> Command:
        for setting in reversed(list(settings_table())):
            if not names or setting.name in names:
                command = _option(setting)(command)
        return command

    return add


def _option(setting: Setting) -> Callable[[Command], Command]:
    unit = f", in {setting.unit}" if setting.unit else ""
    bounds = f" [{setting.bounds}]" if setting.bounds and not setting.choices else ""
    options: dict[str, Any] = {
        "envvar": setting.variable,
        "show_envvar": True,
        "default": setting.default,
        "show_default": bool(setting.shown_default) and setting.type not in (bool, tuple),
        "help": f"{setting.about}{unit}.{bounds}",
    }
    if setting.many:
        options |= {"multiple": True, "metavar": METAVARS[setting.name]}
    elif setting.type is bool:
        options["is_flag"] = True
    elif setting.choices:
        options["type"] = click.Choice(setting.choices)
    else:
        metavar = METAVARS.get(setting.name, "NUMBER")
        options |= {"callback": _parsed(setting), "default": setting.shown_default, "metavar": metavar}
    return click.option(setting.option, setting.name, **options)


def _parsed(setting: Setting) -> Callback:
    """Has the table read and check what was given, rather than click: one rule, and one sentence."""

    def parse(_ctx: click.Context, _param: click.Parameter, text: str) -> Any:
        try:
            value = setting.parse(text)
            setting.check(value)
        except SettingError as error:
            raise click.BadParameter(str(error)) from None
        return value

    return parse


def redis_options(command: Command) -> Command:
    """Where Redis is."""
    return setting_options(*REDIS)(command)


def env_option(*, required: bool = True, about: str = "") -> Callable[[Command], Command]:
    """The one environment that a command is about; `about` says so where it is more than that."""
    return click.option(
        "--env",
        "environment",
        required=required,
        envvar="FLAGRELAY_ENV",
        show_envvar=True,
        metavar="NAME",
        callback=_one_environment,
        help=about or ("The environment." if required else "Only of this environment."),
    )


def _one_environment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if len(value.split()) > 1:  # as `serve` takes them, in the same variable
        raise click.BadParameter(f"it names several environments: {value!r}. Say which with --env")
    try:
        return check_environment_name(value)
    except DefinitionError as error:
        raise click.BadParameter(str(error)) from None


def json_option(command: Command) -> Command:
    """Output for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def replicas_option(command: Command) -> Command:
    """How many replicas must have a write before it counts as done."""
    return click.option(
        "--replicas",
        type=click.IntRange(0, 100),
        default=0,
        metavar="NUMBER",
        help="Wait until this many replicas of Redis have it, so that a failover does not lose it.",
    )(command)


def who_options(*, reason_required: bool = False) -> Callable[[Command], Command]:
    """Who changes something, and why: it stands in the changelog, and `flagrelay watch` shows it."""

    def add(command: Command) -> Command:
        command = click.option(
            "--actor",
            callback=checked_text(),
            envvar="FLAGRELAY_ACTOR",
            show_envvar=True,
            default=_login,
            show_default="your login name",
            metavar="WHO",
            help="Who makes the change.",
        )(command)
        # A default of None would count as given.
        needed: dict[str, Any] = {"required": True} if reason_required else {"default": ""}
        return click.option(
            "--reason",
            callback=checked_text(may_be_empty=not reason_required),
            metavar="WHY",
            help="Why; it is kept with the change.",
            **needed,
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
