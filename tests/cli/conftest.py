"""The command line, in front of an empty Redis."""

import socket
from collections.abc import Callable

import pytest

from flagrelay.cli.private_redis import PrivateRedis
from support.cli import Cli


@pytest.fixture
def redis_command(redis_server: PrivateRedis) -> Callable[..., bytes]:
    """Redis's own command line, for what flagrelay would not do."""

    def command(*words: str) -> bytes:
        request = b"*%d\r\n" % len(words)
        request += b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(redis_server.url.removeprefix("unix://"))
            connection.sendall(request)
            return connection.recv(65536)

    return command


@pytest.fixture
def cli(redis_server: PrivateRedis, redis_command: Callable[..., bytes]) -> Cli:
    """`flagrelay`, with the run's Redis, as ada."""
    assert redis_command("FLUSHALL") == b"+OK\r\n"
    return Cli({"FLAGRELAY_REDIS_URL": redis_server.url, "FLAGRELAY_ACTOR": "ada"})


@pytest.fixture
def production(cli: Cli) -> Cli:
    """With an empty environment, which is the one meant."""
    cli.ok("env", "create", "production")
    cli.environment["FLAGRELAY_ENV"] = "production"
    return cli
