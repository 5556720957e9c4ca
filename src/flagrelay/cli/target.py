"""Where an operation is done: in Redis, or by a relay's control API. The same operations, and the same errors."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp
import click
import msgspec
import orjson

from flagrelay.cli.emergency import admin_key_option
from flagrelay.cli.options import Command, env_option, redis_options, replicas_option, with_store
from flagrelay.control.operation import BASE, Operation, perform, request_of
from flagrelay.control.session import Session
from flagrelay.errors import FlagrelayError, InputError, StreamError
from flagrelay.sdk.stream import refusal_of
from flagrelay.store.connection import Store
from flagrelay.store.replicas import replicated

ANSWER_TIMEOUT = 90.0
"""Seconds that a relay has to answer; one that waits for a proof takes its time."""

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
        if not self.admin_key:
            raise click.UsageError("--url takes an access key of kind admin: --admin-key, or FLAGRELAY_ADMIN_KEY.")
        if self.replicas:
            raise click.UsageError("--replicas is for writes to Redis, and not for --url.")
        headers = {"authorization": f"Bearer {self.admin_key}", "accept": "application/json"}
        if self.environment is not None:
            headers["flagrelay-environment"] = self.environment  # a key of another one is refused
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
            return await body(partial(_ask, http, self.url.rstrip("/")))


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
        @env_option(required=False)
        def with_target(*args: Any, environment: str | None, url: str, admin_key: str, **options: Any) -> Any:
            redis = {name: options.pop(name) for name in REDIS_NAMES}
            target = Target(environment, url, admin_key, options.get("actor", ""), options.pop("replicas", 0), redis)
            options.pop("actor", None)
            return command(*args, target=target, **options)

        made: Any = replicas_option(with_target) if replicas else with_target
        made.__click_params__ += getattr(command, "__click_params__", [])
        made.__doc__, made.__name__ = command.__doc__, command.__name__
        return made  # type: ignore[no-any-return]  # click's decorators are typed by what they decorate

    return add


REDIS_NAMES = ("redis_url", "redis_sentinels", "redis_sentinel_master", "redis_cluster", "prefix")


def _url(_ctx: click.Context, _param: click.Parameter, url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is no URL of a relay: it begins with http:// or https://")
    return url


async def _replicated(replicas: int, store: Store, write: Callable[[Store], Awaitable[Any]]) -> Any:
    return await replicated(replicas, write)(store)


async def _ask(http: aiohttp.ClientSession, url: str, operation: Operation[Any, Any], **members: Any) -> Any:
    """The same over HTTP."""
    rest = msgspec.to_builtins(request_of(operation, members))
    rest = {name: value for name, value in rest.items() if name in members and members[name] is not None}
    revision = rest.pop("if_revision", None)
    headers = {} if revision is None else _precondition(revision)
    path = operation.path.format(**{name: _in_path(str(rest.pop(name))) for name in operation.path_members})
    query = {} if operation.has_body else {name: str(value) for name, value in rest.items()}
    body = orjson.dumps(rest) if operation.has_body else None
    if body is not None:
        headers["content-type"] = "application/json"
    asked = http.request(
        operation.method, url + BASE + path, params=_lowered(query), data=body, headers=headers, allow_redirects=False
    )
    try:
        async with asked as response:
            data = await response.read()
            if response.ok:
                return msgspec.json.decode(data, type=operation.answer)
            raise _error(url, response, data)
    except TimeoutError:
        raise StreamError(f"{url} does not answer within {ANSWER_TIMEOUT:g} s") from None
    except aiohttp.ClientError as error:
        raise StreamError(f"{url} cannot be reached: {error}") from error
    except msgspec.DecodeError as error:
        raise StreamError(f"{url} answers with something that is no answer of flagrelay's: {error}") from error


def _in_path(name: str) -> str:
    """A name as a part of a path.

    Raises:
        InputError: it cannot be one: whoever passes a URL on takes it for a step within the path.
    """
    if name in (".", ".."):
        raise InputError(f'"{name}" cannot be said in a URL: ask Redis, without --url')
    return quote(name, safe="")


def _precondition(revision: int) -> dict[str, str]:
    return {"if-match": f'"{revision}"'} if revision else {"if-none-match": "*"}


def _lowered(query: Mapping[str, str]) -> dict[str, str]:
    """Booleans as JSON writes them."""
    return {name: value.lower() if value in ("True", "False") else value for name, value in query.items()}


def _error(url: str, response: aiohttp.ClientResponse, data: bytes) -> FlagrelayError:
    """The sentence that the operation failed with, where it did; else what the relay refuses."""
    refusal = refusal_of(url, response, data)
    return FlagrelayError(refusal.details) if refusal.details and response.status in _OPERATION else refusal


_OPERATION = (400, 404, 409, 412, 500, 503)
