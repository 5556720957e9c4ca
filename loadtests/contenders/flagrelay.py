"""flagrelay itself, in each of its ways: a private Redis, a relay of one environment, and a writer for each."""

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import trustme
import uvloop
from rig.companion import companion
from rig.event import FIRST, KEY, Event, definition
from rig.links import Link
from rig.opener import first_bytes
from rig.posting import Sent
from rig.relays import create_all, portable_process
from rig.streams import connect, stream_request

from contenders import Contender, Missing, Server, program
from flagrelay.cli.private_redis import private_redis
from flagrelay.store.connection import RedisAddress, open_store
from flagrelay.store.writing import Draft, write_change

ENVIRONMENT = "bench"
SETTINGS = {"--env": ENVIRONMENT, "--heartbeat-interval": "3600", "--log-level": "warning"}
"""No heartbeat falls into what is measured."""

GZIP = "accept-encoding: gzip"
"""What a client sends that takes compressed events."""


@contextmanager
def _running(
    _event: Event, *, headers: tuple[str, ...] = (), more: Mapping[str, str] | None = None, portable: bool = False
) -> Iterator[Server]:
    settings = {**SETTINGS, **(more or {})}
    tls = "--tls-cert" in settings
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        secret = create_all(redis.url, **{ENVIRONMENT: 1})[ENVIRONMENT]
        words = [word for setting in settings.items() for word in setting]
        if portable:
            process, port = stack.enter_context(portable_process(redis.url, *words))
            pid = process.pid
        else:
            command = [sys.executable, "-m", "flagrelay", "serve", "--port", "0", "--redis-url", redis.url, *words]
            pid, port = stack.enter_context(program(*command))
        _until_ready(port, tls=tls)
        request = stream_request(secret, *headers)
        if headers == (GZIP,) and b"content-encoding: gzip" not in first_bytes(port, request).lower():
            raise Missing("this build of flagrelay does not compress")
        publisher = stack.enter_context(companion(_publish, redis.url))
        yield Server(pid, port, request, publisher, tls, spread="--workers" in settings)


@contextmanager
def _with_workers(event: Event) -> Iterator[Server]:
    command = [sys.executable, "-m", "flagrelay", "serve", "--help"]
    if b"--workers" not in subprocess.run(command, capture_output=True, check=True).stdout:
        raise Missing("this build of flagrelay has no --workers")
    with _running(event, more={"--workers": "2"}) as server:
        yield server


@contextmanager
def _with_tls(event: Event) -> Iterator[Server]:
    with certificate() as (cert, key), _running(event, more={"--tls-cert": str(cert), "--tls-key": str(key)}) as server:
        yield server


@contextmanager
def certificate() -> Iterator[tuple[Path, Path]]:
    """A certificate for loopback and its key, as files."""
    with TemporaryDirectory(prefix="bench-") as folder:
        cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        issued = trustme.CA().issue_cert("127.0.0.1")
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        yield cert, key


def _until_ready(port: int, *, tls: bool) -> None:
    context = ssl._create_unverified_context() if tls else None  # noqa: SLF001 - documented, though named so
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            urlopen(f"http{'s' * tls}://127.0.0.1:{port}/readyz", timeout=5, context=context).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the relay is not ready after 15 s")


def _publish(pipe: Connection, redis_url: str) -> None:
    """Write changes as any writer does."""

    async def serve() -> None:
        async with open_store(RedisAddress(redis_url)) as store:
            while True:
                draft = Draft(flags={KEY: definition(pipe.recv())}, actor="bench")
                began = time.time()
                written = await write_change(store, ENVIRONMENT, draft)
                pipe.send(Sent(began, written.at / 1e6))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def capture() -> Event:
    """One change, as a relay sends it."""
    with _running(Event(b"")) as server, connect(server.port, "127.0.0.1") as sock:
        sock.settimeout(5)
        sock.send(server.request)
        link = Link(server.request)
        while b"event: put" not in link.text:
            link.feed(sock.recv(1 << 20))
        server.publisher.ask(FIRST)
        return Event(sock.recv(1 << 20))


CONTENDERS = (
    Contender("flagrelay", _running),
    Contender("flagrelay-gzip", partial(_running, headers=(GZIP,))),
    Contender("flagrelay-portable", partial(_running, portable=True)),
    Contender("flagrelay-workers", _with_workers),
    Contender("flagrelay-tls", _with_tls),
)
