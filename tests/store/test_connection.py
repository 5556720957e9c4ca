import asyncio
import logging
import random
import signal
import socket
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.errors import FlagrelayError, SettingError, StoreUnavailable
from flagrelay.store import connection
from flagrelay.store.access_keys import read_access_keys
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, list_environments
from flagrelay.store.reading import read_clock, read_position, read_snapshot
from flagrelay.store.subscription import subscribe
from support.stores import ENVIRONMENT, free_ports, put

SECRET = "s3cr3t-p4ss"


async def fails(address: RedisAddress) -> StoreUnavailable:
    """Talk to an address that does not work, in every way. Returns the first error."""
    errors: list[StoreUnavailable] = []
    async with open_store(address) as store:

        async def listen() -> None:
            async with subscribe(store, ENVIRONMENT):
                pytest.fail("subscribed")

        ways: list[Callable[[], Awaitable[object]]] = [
            lambda: read_position(store, ENVIRONMENT),
            lambda: read_snapshot(store, ENVIRONMENT),
            lambda: put(store, "a"),
            lambda: create_environment(store, ENVIRONMENT),
            lambda: list_environments(store),
            lambda: read_access_keys(store),
            lambda: read_clock(store, ENVIRONMENT),
            listen,
        ]
        for way in ways:
            with pytest.raises(StoreUnavailable) as caught:
                await way()
            errors.append(caught.value)
            assert SECRET not in repr(store)
    for error in errors:
        assert str(error).startswith(f"Redis at {address}: ")
        assert SECRET not in str(error) + repr(error)
        assert SECRET not in "".join(traceback.format_exception(error))
    assert SECRET not in str(address) + repr(address)
    return errors[0]


# Addresses


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        (f"redis://ada:{SECRET}@localhost:6379/3", "redis://localhost:6379/3"),
        (f"rediss://:{SECRET}@[::1]:6379", "rediss://[::1]:6379"),
        (f"redis://localhost:6379/0?password={SECRET}", "redis://localhost:6379/0"),
        (f"redis://localhost:6379#{SECRET}", "redis://localhost:6379"),
        (f"unix://ada:{SECRET}@/run/redis.sock?db=2", "unix:///run/redis.sock"),
        (f"redis://:{SECRET}/x@localhost:6379/0", "redis://…"),
        (f"redis://:{SECRET}?x@localhost:6379/0", "redis://…"),
        (f"redis://:{SECRET}#x@localhost:6379/0", "redis://…"),
        (f"redis://a:b@{SECRET}/x@localhost", "redis://…"),
        (f"redis://localhost?password=x@{SECRET}", "redis://…"),
        (f"redis://:{SECRET}@@localhost:6379", "redis://localhost:6379"),
        (f"redis://:[{SECRET}@localhost:6379", "redis://localhost:6379"),
    ],
)
async def test_an_address_is_shown_without_credentials(url: str, shown: str) -> None:
    address = RedisAddress(url)
    assert str(address) == shown
    assert SECRET not in repr(address)
    sentinel = RedisAddress(url, sentinels=("a:1", "b:2"), sentinel_master="main")
    assert str(sentinel) == "the master 'main' of the Sentinels a:1, b:2"
    assert SECRET not in repr(sentinel)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "",
        f"redis://:{SECRET}/x@localhost:6379/0",
        f"redis://:x/{SECRET}@localhost:6379/0",
        f"redis://:[{SECRET}@localhost:6379",
        f"redis://localhost:{SECRET}",
        "redis://localhost:99999",
        f"redis://:{SECRET}@localhost?socket_timeout=soon",
        f"redis://:{SECRET}@localhost?no_such_option=1",
        f"redis://:{SECRET}@localhost?retry=3",
        f"redis://:{SECRET}@localhost?decode_responses=true",
    ],
)
async def test_a_url_that_is_none_is_a_wrong_setting_and_quotes_no_password(url: str) -> None:
    with pytest.raises(SettingError, match="cannot be used: it is redis://, rediss:// or unix://") as caught:
        async with open_store(RedisAddress(url)):
            pytest.fail("opened")
    if not url.endswith(f"localhost:{SECRET}"):  # there it stands where a port does
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("sentinels", "master", "message"),
    [
        (("localhost:1",), "", "not the name of their master"),
        (("localhost",), "main", "'localhost' is no address of a Sentinel: it takes host:port"),
        ((":1",), "main", "':1' is no address of a Sentinel"),
        (("a:1", "b:x"), "main", "'b:x' is no address of a Sentinel"),
        (("a:²",), "main", "no address of a Sentinel"),
    ],
)
async def test_sentinels_that_are_none_are_a_wrong_setting(
    sentinels: tuple[str, ...], master: str, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        async with open_store(RedisAddress("redis://", sentinels=sentinels, sentinel_master=master)):
            pytest.fail("opened")


async def test_opening_a_store_connects_nowhere() -> None:
    [port] = free_ports(1)
    async with open_store(RedisAddress(f"redis://127.0.0.1:{port}")):
        pass
    async with open_store(RedisAddress(f"redis://127.0.0.1:{port}", cluster=True)):
        pass


async def test_the_database_number_of_a_url_is_heeded(doomed_server: PrivateRedis) -> None:
    async with (
        open_store(RedisAddress(doomed_server.url)) as zero,
        open_store(RedisAddress(f"{doomed_server.url}?db=5")) as five,
    ):
        await create_environment(five, ENVIRONMENT)
        assert await list_environments(zero) == []
        assert [each.name for each in await list_environments(five)] == [ENVIRONMENT]


async def test_a_host_and_port_work_as_a_unix_socket_does() -> None:
    [port] = free_ports(1)
    with private_redis(port=port) as server:
        async with (
            open_store(RedisAddress(server.tcp_url)) as store,
            open_store(RedisAddress(f"redis://127.0.0.1:{port}/7")) as seven,
        ):
            await create_environment(store, ENVIRONMENT)
            await put(store, "a")
            assert (await read_position(store, ENVIRONMENT)).revision == 1
            assert await list_environments(seven) == []


# Failures


async def test_a_wrong_password_is_unavailable_and_shows_none(doomed: Store, doomed_server: PrivateRedis) -> None:
    await doomed.client.config_set("requirepass", "right")
    path = doomed_server.url.removeprefix("unix://")
    for url in (f"unix://:{SECRET}@{path}", f"unix://ada:{SECRET}@{path}"):
        error = await fails(RedisAddress(url))
        assert "invalid username-password pair" in str(error)
    assert "Authentication required" in str(await fails(RedisAddress(doomed_server.url)))
    async with open_store(RedisAddress(f"unix://:right@{path}")) as store:
        assert (await read_position(store, ENVIRONMENT)).revision == 0


async def test_a_user_without_the_right_is_told_what_is_missing(doomed: Store, doomed_server: PrivateRedis) -> None:
    await doomed.client.execute_command(
        "ACL",
        "SETUSER",
        "reader",
        "on",
        f">{SECRET}",
        "~*",
        "&*",
        "+@read",
        "+@connection",
        "+@transaction",
        "+eval",
        "+evalsha",
    )
    path = doomed_server.url.removeprefix("unix://")
    async with open_store(RedisAddress(f"unix://reader:{SECRET}@{path}")) as store:
        assert (await read_snapshot(store, ENVIRONMENT)).flags == {}
        with pytest.raises(StoreUnavailable, match=r"(?i)no permission|can't run this command|NOPERM") as caught:
            await put(store, "a")
        assert SECRET not in str(caught.value)
    assert (await read_position(doomed, ENVIRONMENT)).revision == 0


async def test_a_host_that_refuses_is_unavailable() -> None:
    [port] = free_ports(1)
    error = await fails(RedisAddress(f"redis://ada:{SECRET}@127.0.0.1:{port}/2"))
    assert str(error).startswith(f"Redis at redis://127.0.0.1:{port}/2: ")


async def test_a_socket_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    await fails(RedisAddress(f"unix://:{SECRET}@{tmp_path}/no.sock"))


async def test_a_name_that_nobody_knows_is_unavailable() -> None:
    await fails(RedisAddress(f"redis://:{SECRET}@no-such-host.invalid:6379"))


async def test_sentinels_that_do_not_answer_are_unavailable() -> None:
    ports = free_ports(2)
    sentinels = tuple(f"127.0.0.1:{port}" for port in ports)
    address = RedisAddress(f"redis://:{SECRET}@ignored", sentinels=sentinels, sentinel_master="main")
    error = await fails(address)
    assert "No master found for 'main'" in str(error)


async def test_a_cluster_that_does_not_answer_is_unavailable() -> None:
    [port] = free_ports(1)
    await fails(RedisAddress(f"redis://:{SECRET}@127.0.0.1:{port}", cluster=True))


async def test_a_plain_redis_is_no_cluster() -> None:
    [port] = free_ports(1)
    with private_redis(port=port) as server:
        error = await fails(RedisAddress(server.tcp_url, cluster=True))
        assert "Cluster mode is not enabled" in str(error)


async def test_a_server_without_tls_is_unavailable_to_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.1)
    [port] = free_ports(1)
    with private_redis(port=port):
        await fails(RedisAddress(f"rediss://:{SECRET}@127.0.0.1:{port}"))


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-LOADING Redis is loading\r\n", b"\0" * 9]
)
async def test_whatever_answers_in_redis_s_place_is_unavailable(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await fails(RedisAddress(f"redis://:{SECRET}@127.0.0.1:{port}"))


async def test_a_server_that_still_loads_is_unavailable_and_then_there(
    doomed: Store, doomed_server: PrivateRedis
) -> None:
    async with doomed.client.pipeline(transaction=False) as pipeline:
        for number in range(5000):
            pipeline.set(f"key-{number}", random.randbytes(2000))
        await pipeline.execute()
    await doomed.client.config_set("key-load-delay", 200)
    loading = asyncio.create_task(doomed.client.execute_command("DEBUG", "RELOAD"))
    said = ""
    async with asyncio.timeout(20):
        while not loading.done() and not said:
            try:
                await read_position(doomed, ENVIRONMENT)
            except StoreUnavailable as error:
                said = str(error)
        await asyncio.wait([loading])
    assert "loading the dataset in memory" in said
    assert (await read_position(doomed, ENVIRONMENT)).revision == 0


async def test_a_server_that_falls_silent_is_unavailable_within_the_time_to_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT", 0.5)
    with private_redis() as server:
        async with open_store(RedisAddress(server.url)) as store:
            await create_environment(store, ENVIRONMENT)
            server.signal(signal.SIGSTOP)
            try:
                for ask in (read_position, read_snapshot, read_clock):
                    async with asyncio.timeout(4):
                        with pytest.raises(StoreUnavailable, match="Timeout"):
                            await ask(store, ENVIRONMENT)
            finally:
                server.signal(signal.SIGCONT)
            assert (await read_position(store, ENVIRONMENT)).revision == 0


async def test_a_host_that_takes_no_connection_is_unavailable_within_the_time_to_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.2)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for taken in (first, second):
            taken.setblocking(False)
            taken.connect_ex(full.getsockname())
        async with open_store(RedisAddress(f"redis://127.0.0.1:{full.getsockname()[1]}")) as store:
            async with asyncio.timeout(3):
                with pytest.raises(StoreUnavailable, match="Timeout"):
                    await read_position(store, ENVIRONMENT)


async def test_a_lost_write_is_seen_and_never_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server paused in the middle: the write that timed out runs once, when the server wakes, and no second time."""
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT", 0.5)
    with private_redis() as server:
        async with open_store(RedisAddress(server.url)) as store:
            await create_environment(store, ENVIRONMENT)
            await put(store, "a", 1)
            server.signal(signal.SIGSTOP)
            try:
                with pytest.raises(StoreUnavailable):
                    await put(store, "a", 2)
            finally:
                server.signal(signal.SIGCONT)
            assert (await put(store, "a", 3)).revision in {2, 3}


async def test_what_goes_wrong_inside_is_not_called_unavailable(store: Store) -> None:
    for error in (ValueError("mine"), FlagrelayError("mine")):
        with pytest.raises(type(error), match="mine"), store.talking():
            raise error


async def test_nothing_is_logged_of_a_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    [port] = free_ports(1)
    await fails(RedisAddress(f"redis://:{SECRET}@127.0.0.1:{port}"))
    assert SECRET not in caplog.text


async def test_a_write_may_have_been_done_where_it_was_sent_and_not_answered_and_nowhere_else(store: Store) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"EVALSHA" not in (said := await reader.read(65536)):
            writer.write(b"+OK\r\n" * said.count(b"\r\n*") + b"+OK\r\n")
        writer.close()

    async def unsure(url: str) -> bool:
        async with open_store(RedisAddress(url)) as other:
            with pytest.raises(StoreUnavailable) as caught:
                await put(other, "a")
        return caught.value.unsure

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        assert await unsure(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert not await unsure("redis://127.0.0.1:1")
    assert not await unsure("unix:///nowhere/redis.sock")
    assert not await unsure(store.address.url.replace("unix://", "unix://nobody:wrong@"))
    await create_environment(store, ENVIRONMENT)
    await store.client.config_set("maxmemory", "1")
    try:
        assert not await unsure(store.address.url)
    finally:
        await store.client.config_set("maxmemory", "0")
