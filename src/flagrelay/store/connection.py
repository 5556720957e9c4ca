"""A client for an address: plain, TLS, unix socket, Sentinel or Cluster."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from flagrelay.errors import SettingError, StoreUnavailable
from flagrelay.store.keyspace import Keyspace

CONNECT_TIMEOUT = 2.0
"""Seconds to connect."""

ANSWER_TIMEOUT = 5.0
"""Seconds to answer a command."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is.

    Args:
        url: as redis-py takes it: `redis://`, `rediss://`, `unix://`; credentials and database number within.
        sentinels: `host:port` of each Sentinel; the URL then gives credentials and database of the master.
        sentinel_master: the name by which Sentinels know the master.
        cluster: whether the URL names a node of a Redis Cluster.
    """

    url: str
    sentinels: tuple[str, ...] = ()
    sentinel_master: str = ""
    cluster: bool = False

    def __str__(self) -> str:
        """The address for people: without credentials."""
        if self.sentinels:
            return f"the master {self.sentinel_master!r} of the Sentinels {', '.join(self.sentinels)}"
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class Store:
    """A connected client, the names it uses, and where it is."""

    client: Any = field(repr=False)  # Redis or RedisCluster: redis-py types their commands apart
    keys: Keyspace
    address: RedisAddress = field(repr=False)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Around everything said to Redis: whatever goes wrong is `StoreUnavailable`."""
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task else 0
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            reason = str(error) or type(error).__name__
            raise StoreUnavailable(f"Redis at {self.address}: {reason}") from error
        finally:
            # redis-py sends with asyncio.wait_for, which before Python 3.12 can swallow a cancellation: the
            # task would go on for good, and whoever waits for its end would wait for as long.
            if task and task.cancelling() > cancelled_before:
                raise asyncio.CancelledError


@asynccontextmanager
async def open_store(address: RedisAddress, *, prefix: str = "flagrelay") -> AsyncIterator[Store]:
    """A store at an address. Nothing is connected before it is needed.

    Raises:
        SettingError: the address is none.
    """
    try:
        client = _client(address)
    except (ValueError, RedisClusterException) as error:
        raise SettingError(f"the Redis URL is none that redis-py takes: {error}") from error
    try:
        yield Store(client, Keyspace(prefix), address)
    finally:
        await client.aclose()


def _client(address: RedisAddress) -> Any:  # noqa: ANN401 - see Store.client
    # A write must not be sent twice, and a lost connection must be seen: redis-py is to retry nothing.
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if address.sentinels:
        return _sentinel_client(address, options)
    if address.cluster:
        return RedisCluster.from_url(address.url, **options)
    return Redis.from_url(address.url, **options)


def _sentinel_client(address: RedisAddress, options: dict[str, Any]) -> Any:  # noqa: ANN401 - see Store.client
    if not address.sentinel_master:
        raise SettingError("Sentinels are given, but not the name of their master (FLAGRELAY_REDIS_SENTINEL_MASTER)")
    hosts = []
    for sentinel in address.sentinels:
        host, _, port = sentinel.rpartition(":")
        if not host or not port.isdigit():
            raise SettingError(f"{sentinel!r} is no address of a Sentinel: it takes host:port")
        hosts.append((host, int(port)))
    connection = Redis.from_url(address.url).connection_pool.connection_kwargs
    credentials = {name: connection[name] for name in ("db", "username", "password") if connection.get(name)}
    sentinels = Sentinel(hosts, sentinel_kwargs=dict(options), **credentials, **options)  # type: ignore[no-untyped-call]  # redis-py's
    return sentinels.master_for(address.sentinel_master)
