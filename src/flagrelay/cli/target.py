"""Where an operation is done: in Redis, or by a relay's control API. The same operations, and the same errors."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click

from flagrelay.cli.emergency import admin_key_option
from flagrelay.cli.options import REDIS, Command, env_option, redis_options, replicas_option, with_store
from flagrelay.cli.proof import warn_unproven
from flagrelay.control.operation import Operation, perform
from flagrelay.control.session import Session
from flagrelay.store.connection import Store
from flagrelay.store.replicas import replicated

Perform = Callable[..., Awaitable[Any]]
"""Does an operation: `await perform(OPERATION, member=value, …)` gives its answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where, and as whom. `url` is empty for Redis."""

    environment: str | None
    url: str
    admin_key: str = field(repr=False)
    actor: str
    replicas: int
    redis: Mapping[str, Any] = field(repr=False)

    def run(self, body: Callable[[Perform], Awaitable[Any]]) -> Any:
        """Run something that does operations. Returns what it does.

        Raises:
            FlagrelayError: what went wrong, said as it is everywhere.
        """
        if self.url:
            return asyncio.run(self._over_http(body))
        if self.environment is None:
            raise click.UsageError("Missing option '--env' (or '--url', for a relay's control API).")
        environment = self.environment

        async def locally(store: Store) -> Any:
            session = Session(store, environment, self.actor, around=partial(_replicated, self.replicas))
            return await body(partial(perform, session))

        return with_store(self.redis, locally)

    def do(self, operation: Operation[Any, Any], **members: Any) -> Any:
        """Do one operation. Returns its answer.

        Raises:
            FlagrelayError: what went wrong.
        """

        async def once(perform: Perform) -> Any:
            return await perform(operation, **members)

        return self.run(once)

    async def _over_http(self, body: Callable[[Perform], Awaitable[Any]]) -> Any:
        # Nobody who asks Redis is to wait until an HTTP client is imported, least of all with a kill.
        from flagrelay.cli.over_http import over_http  # noqa: PLC0415

        if not self.admin_key:
            raise click.UsageError("--url takes an access key of kind admin: --admin-key, or FLAGRELAY_ADMIN_KEY.")
        if self.replicas:
            raise click.UsageError("--replicas is for writes to Redis, and not for --url.")
        async with over_http(self.url, self.admin_key, self.environment) as perform:
            return await body(perform)


def target_options(*, replicas: bool = False) -> Callable[[Command], Command]:
    """Redis, or a relay's control API; and the environment. The command gets them as one `target`."""

    def add(command: Command) -> Command:
        @redis_options
        @admin_key_option
        @click.option(
            "--url",
            envvar="FLAGRELAY_URL",
            show_envvar=True,
            default="",
            metavar="URL",
            callback=_url,
            help="Ask the control API of this relay, rather than Redis; takes --admin-key.",
        )
        @env_option(required=False, about="The environment; with --url that of the access key, and no other.")
        def with_target(*args: Any, environment: str | None, url: str, admin_key: str, **options: Any) -> Any:
            redis = {name: options.pop(name) for name in REDIS}
            target = Target(environment, url, admin_key, options.get("actor", ""), options.pop("replicas", 0), redis)
            options.pop("actor", None)
            return command(*args, target=target, **options)

        made: Any = replicas_option(with_target) if replicas else with_target
        made.__click_params__ += getattr(command, "__click_params__", [])
        made.__doc__, made.__name__ = command.__doc__, command.__name__
        return made  # type: ignore[no-any-return]  # click's decorators are typed by what they decorate

    return add


def _url(_ctx: click.Context, _param: click.Parameter, url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is no URL of a relay: it begins with http:// or https://")
    return url


async def _replicated(replicas: int, store: Store, write: Callable[[Store], Awaitable[Any]]) -> Any:
    return await replicated(replicas, write, warn_unproven)(store)
