"""The relay as a process: how it starts, and above all how it ends."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flagrelay.cli.private_redis import private_redis
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, open_store
from support.fakes import definition
from support.relays import ENVIRONMENT, World, make_world, running_relay
from support.served import DRAIN, GRACE, SPREAD, becomes_ready, served
from support.sources import until
from support.streams import PATIENCE, Stream, ask, connection, request, stream


async def secret_of(world: World) -> str:
    return (await create_access_key(world.store, ENVIRONMENT, "server", "a test's", None))[1]


async def test_it_says_where_it_listens_and_serves_there(world: World, tmp_path: Path) -> None:
    secret = await secret_of(world)
    async with served(world.redis_url, tmp_path) as relay, stream(relay.port, secret) as opened:
        await opened.event("put")
        await world.tick(1)
        await opened.event("patch")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_every_stream_and_ends_with_0(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    secret = await secret_of(world)
    async with served(world.redis_url, tmp_path) as relay, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(stream(relay.port, secret)) for _ in range(60)]
        for opened in streams:
            await opened.event("put")
        idle = await stack.enter_async_context(connection(relay.port))
        idle.send(request("/livez"))
        await idle.answer()
        untouched = await stack.enter_async_context(connection(relay.port))
        started = time.monotonic()
        relay.process.send_signal(number)
        reasons = [await opened.goodbye() for opened in streams]
        assert reasons == ["drain"] * 60
        retries = sorted(opened.parser.retry or 0 for opened in streams)
        assert len(set(retries)) > 15, "they are spread"
        assert 50 <= retries[0] < SPREAD * 1000 / 4
        assert SPREAD * 1000 * 3 / 4 < retries[-1] <= SPREAD * 1000
        assert await relay.ended(DRAIN + GRACE) == 0
        assert time.monotonic() - started < DRAIN, "nobody was slow: it did not wait"
        assert await idle.end() == await untouched.end() == b""


async def fill(world: World) -> None:
    """More flags than the buffers of a socket hold."""
    for number in range(10):
        flag = definition(number) | {"metadata": {"text": "x" * 100_000}}
        await world.put({f"large-{number}-{part}": flag for part in range(10)})


async def test_who_never_reads_does_not_keep_it_from_ending_in_time(world: World, tmp_path: Path) -> None:
    await fill(world)
    secret = await secret_of(world)
    async with served(world.redis_url, tmp_path) as relay, contextlib.AsyncExitStack() as stack:
        deaf = [await stack.enter_async_context(connection(relay.port, receive_buffer=4096)) for _ in range(3)]
        deaf[0].send(request("/v1/stream", secret))
        deaf[1].send(request("/v1/stream", secret, version="HTTP/1.0"))
        deaf[2].send(request("/v1/flags", secret))
        for opened in deaf:
            assert (await opened.head()).status == 200
        reading = await stack.enter_async_context(stream(relay.port, secret))
        await reading.event("put")
        idle = await stack.enter_async_context(connection(relay.port))
        idle.send(request("/livez"))
        await idle.answer()
        started = time.monotonic()
        relay.process.send_signal(signal.SIGTERM)
        assert await reading.goodbye() == "drain", "whoever reads is not kept waiting by those who do not"
        # Meanwhile nobody new is let in, on whatever connection.
        with pytest.raises(ConnectionRefusedError):
            await ask(relay.port, "/livez")
        idle.send(request("/readyz"))
        answer = await idle.answer()
        assert (answer.status, answer.json["reason"]) == (503, "shutting down")
        idle.send(request("/v1/stream", secret))
        answer = await idle.answer()
        assert (answer.status, answer.json["errorCode"]) == (503, "OVERLOADED")
        assert "shutting down" in answer.json["errorDetails"]
        assert await relay.ended(DRAIN + GRACE) == 0
        assert time.monotonic() - started < DRAIN + GRACE


async def test_a_second_signal_ends_it_at_once(world: World, tmp_path: Path) -> None:
    await fill(world)
    secret = await secret_of(world)
    async with (
        served(world.redis_url, tmp_path, "--drain-timeout", "60") as relay,
        connection(relay.port, receive_buffer=4096) as deaf,
    ):
        deaf.send(request("/v1/flags", secret))
        await deaf.head()
        relay.process.send_signal(signal.SIGINT)
        await until(lambda: "drained" in relay.logged, "it waits for the one that does not read")
        relay.process.send_signal(signal.SIGINT)
        assert await relay.ended(5) == 0


async def test_a_hangup_is_no_end_and_says_that_there_is_nothing_to_reload(world: World, tmp_path: Path) -> None:
    secret = await secret_of(world)
    async with served(world.redis_url, tmp_path) as relay, stream(relay.port, secret) as opened:
        await opened.event("put")
        relay.process.send_signal(signal.SIGHUP)
        await until(lambda: "nothing to reload" in relay.logged, "it says so")
        await world.tick(1)
        await opened.event("patch")
        assert relay.workers == []


async def test_a_port_in_use_is_one_line_and_1(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flagrelay", "serve", "--port", str(port), "--redis-url", world.redis_url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        async with asyncio.timeout(20):
            output, errors = await process.communicate()
    assert process.returncode == 1
    assert output == b""
    [line] = errors.decode().splitlines()
    assert f"cannot listen on 127.0.0.1 port {port}" in line
    assert "already in use" in line
    assert "--port" in line


async def test_without_redis_it_keeps_trying_and_becomes_ready_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    url = f"unix://{folder}/redis.sock"
    async with served(url, tmp_path, ready=False) as relay:
        async with asyncio.timeout(PATIENCE):
            while "redis.sock" not in (answer := await ask(relay.port, "/readyz")).json["reason"]:
                await asyncio.sleep(0.02)
        assert answer.status == 503
        assert (await ask(relay.port, "/livez")).status == 200
        answer = await ask(relay.port, "/v1/stream", "fr_server_whatever")
        assert (answer.status, answer.json["errorCode"]) == (503, "KEYS_UNAVAILABLE")
        with private_redis(folder=folder):
            async with open_store(RedisAddress(url)) as store:
                world = await make_world(store, url)
                secret = await secret_of(world)
                await becomes_ready(relay)
                async with stream(relay.port, secret) as opened:
                    await opened.event("put")
        # Redis is gone again: its end must not wait for it.
        relay.process.send_signal(signal.SIGTERM)
        assert await relay.ended(DRAIN + GRACE) == 0


async def test_without_redis_it_ends_as_well(tmp_path: Path) -> None:
    async with served(f"unix://{tmp_path}/nobody.sock", tmp_path, "--env", "production", ready=False) as relay:
        relay.process.send_signal(signal.SIGTERM)
        assert await relay.ended(DRAIN + GRACE) == 0


async def test_a_task_that_crashes_ends_the_process_with_1(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("flagrelay.server.app.log", SimpleNamespace(critical=lambda event, **_: said.append(event)))
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        async with stream(relay.port, secret) as opened:
            await opened.event("put")

            async def broken() -> None:
                raise TypeError("a bug")

            monkeypatch.setattr(relay.context.keyring, "_load", broken)
            relay.context.keyring._position = None
            assert await opened.goodbye() == "drain", "clients are sent elsewhere"
        server = relay.server
    assert server
    assert vars(server)["status"] == 1
    assert said == ["a task of the relay crashed"]


async def test_uvicorns_own_handling_of_signals_stays_out_of_the_way(world: World) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        async with stream(relay.port, secret) as opened, stream(relay.port, secret) as other:
            await opened.event("put")
            await other.event("put")
            os.kill(os.getpid(), signal.SIGTERM)
            assert await opened.goodbye() == await other.goodbye() == "drain"
    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_stream_of_http_1_0_is_drained_too(world: World) -> None:
    async with running_relay("handover", world) as relay, connection(relay.port) as opened:
        opened.send(request("/v1/stream", await relay.secret(), version="HTTP/1.0"))
        taken = Stream(opened, await opened.head())
        await taken.event("put")
        assert relay.server
        relay.server.should_exit = True
        assert await taken.goodbye() == "drain"
