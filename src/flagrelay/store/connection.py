"""A client for an address: plain, TLS, unix socket, Sentinel or Cluster."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from flagrelay.errors import InputError, SettingError, StoreUnavailable
from flagrelay.store.keyspace import Keyspace

CONNECT_TIMEOUT = 2.0
"""Seconds to connect."""

ANSWER_TIMEOUT = 5.0
"""Seconds to answer a command."""

MAX_CONNECTIONS = 10_000
"""Connections at once, as many as Redis takes by default: every environment that is followed has one of its own."""


_NOT_DONE = (ResponseError, AuthenticationError, BusyLoadingError, MaxConnectionsError, MasterNotFoundError)
"""Redis says no, or there was nobody to ask."""

_NOT_SENT = "connecting to"
"""What redis-py says where there was no connection: its exceptions are those of one that is lost."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is.

    Args:
        url: as redis-py takes it: `redis://`, `rediss://`, `unix://`; credentials and database number within.
        sentinels: `host:port` of each Sentinel; the URL then gives credentials and database of the master.
        sentinel_master: the name by which Sentinels know the master.
        cluster: whether the URL names a node of a Redis Cluster.
    """

    url: str = field(repr=False)  # it may hold a password
    sentinels: tuple[str, ...] = ()
    sentinel_master: str = ""
    cluster: bool = False

    def __str__(self) -> str:
        """The address for people: without credentials."""
        if self.sentinels:
            return f"the master {self.sentinel_master!r} of the Sentinels {', '.join(self.sentinels)}"
        scheme, _, rest = self.url.partition("://")
        place = re.split("[?#]", rest)[0]
        authority, slash, path = place.partition("/")
        if "@" in self.url and ("@" not in authority or "@" in path):
            # The password holds what it should have escaped, and nobody can tell where it ends.
            return f"{scheme}://…"
        return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, slots=True)
class Store:
    """A connected client, the names it uses, and where it is."""

    client: Any = field(repr=False)  # Redis or RedisCluster: redis-py types their commands apart
    keys: Keyspace
    address: RedisAddress = field(repr=False)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Around everything said to Redis: whatever goes wrong is `StoreUnavailable`.

        Raises:
            InputError: a name that cannot be said at all, since it is no Unicode text.
        """
        try:
            yield
        except UnicodeEncodeError as error:
            raise InputError(f"{error.object!r:.100} is no Unicode text; nothing was changed") from error
        except (RedisError, RedisClusterException, OSError, RuntimeError, AttributeError) as error:
            # On writing to a connection that was lost a moment ago uvloop raises a RuntimeError, and asyncio's own
            # loop, in Python 3.12, an AttributeError. redis-py may have wrapped either; what they say helps nobody.
            lost = isinstance(error, RuntimeError | AttributeError) or "handler is closed" in str(error)
            reason = "the connection was lost" if lost else str(error) or type(error).__name__
            # What is refused as it connects, redis-py wraps.
            answered = isinstance(error, _NOT_DONE) or isinstance(error.__cause__, _NOT_DONE)
            unsure = not answered and _NOT_SENT not in reason
            raise StoreUnavailable(f"Redis at {self.address}: {reason}", unsure=unsure) from error


@asynccontextmanager
async def open_store(address: RedisAddress, *, prefix: str = "flagrelay") -> AsyncIterator[Store]:
    """A store at an address. Nothing is connected before it is needed.

    Raises:
        SettingError: the address is none.
    """
    try:
        client = _client(address)
    except (ValueError, TypeError, AttributeError, RedisClusterException):
        # What redis-py says quotes the part that it does not understand, which may be a part of the password.
        raise SettingError(
            f"the Redis URL {address} cannot be used: it is redis://, rediss:// or unix://, with user, password, host, "
            "port and database number as in redis://user:password@host:6379/0, and what is special in a password is "
            "percent-encoded"
        ) from None
    try:
        yield Store(client, Keyspace(prefix), address)
    finally:
        await client.aclose()
        # redis-py's client of a master leaves open those by which it asked for the master.
        manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
        for sentinel in manager.sentinels if manager else ():
            await sentinel.aclose()


def _client(address: RedisAddress) -> Any:  # noqa: ANN401 - see Store.client
    # A write must not be sent twice, and a lost connection must be seen: redis-py is to retry nothing.
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": MAX_CONNECTIONS,
    }
    if "decode_responses" in parse_qs(urlsplit(address.url).query):
        raise ValueError("answers are read as the bytes that they are")
    if address.sentinels:
        return _sentinel_client(address, options)
    if address.cluster:
        return RedisCluster.from_url(address.url, **options)
    client = Redis.from_url(address.url, **options)
    # Connects nowhere, but knows which options of the URL do not exist.
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's
    return client


def _sentinel_client(address: RedisAddress, options: dict[str, Any]) -> Any:  # noqa: ANN401 - see Store.client
    if not address.sentinel_master:
        raise SettingError("Sentinels are given, but not the name of their master (FLAGRELAY_REDIS_SENTINEL_MASTER)")
    hosts = []
    for sentinel in address.sentinels:
        host, _, port = sentinel.rpartition(":")
        if not host or not port.isdecimal():
            raise SettingError(f"{sentinel!r} is no address of a Sentinel: it takes host:port")
        hosts.append((host, int(port)))
    given = Redis.from_url(address.url).connection_pool.connection_kwargs
    names = [name for name in given if name in ("db", "username", "password") or name.startswith("ssl_")]
    master = {name: given[name] for name in names} | {"ssl": address.url.startswith("rediss:")}
    sentinels = Sentinel(hosts, sentinel_kwargs=dict(options), **master, **options)  # type: ignore[no-untyped-call]  # redis-py's
    return sentinels.master_for(address.sentinel_master)
