"""A relay as a process of its own on a private Redis, with the demo's flags: for the demo and the load test."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from flagrelay.cli.documents import parse_yaml
from flagrelay.cli.kept import kept
from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.errors import FlagrelayError
from flagrelay.flags.definition import check_flag_set
from flagrelay.settings import PREFIX
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import Store
from flagrelay.store.writing import Draft, write_change

DEMO_FLAGS = "demo_flags.yaml"


@contextmanager
def private_relay(redis: PrivateRedis, environment: str) -> Iterator[str]:
    """A relay on a port of the system's choice, which Ctrl-C does not reach. Gives its URL."""
    options = ["--redis-url", redis.url, "--env", environment, "--host", "127.0.0.1", "--port", "0"]
    command = [sys.executable, "-m", "flagrelay", "serve", *options, "--drain-timeout", "2", "--log-level", "warning"]
    log = redis.folder / "relay.log"
    # Settings that are meant for a real relay are none of this one's.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with kept(command, log=log, environment=variables) as process:
        line = process.output.readline()
        if not line.startswith("listening on "):
            raise FlagrelayError(f"the relay did not start: {log.read_text(encoding='utf-8')[-1000:]}")
        yield line.removeprefix("listening on ").strip()


async def load_demo_flags(store: Store, environment: str, actor: str) -> str:
    """Write the demo's flags and an access key, whose secret is given."""
    text = files(__package__).joinpath(DEMO_FLAGS).read_bytes()
    wanted = check_flag_set(parse_yaml(text, DEMO_FLAGS))
    draft = Draft(flags=wanted.flags, evaluators=wanted.evaluators, metadata=wanted.metadata, actor=actor)
    await write_change(store, environment, draft)
    _, secret = await create_access_key(store, environment, "server", actor, None)
    return secret
