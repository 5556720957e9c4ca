"""The proxy that the fault tests rely on does what it says."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.store.connection import RedisAddress, Store, open_store
from support.proxy import Proxy, RespSplitter
from support.sources import until

SHORT = 0.1
"""Seconds in which something that passes would have come."""


class Peer:
    """One side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hears(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            assert await self.reader.readexactly(len(data)) == data

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                pytest.fail(f"it heard {await self.reader.read(100)!r}")

    async def is_reset(self) -> None:
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionResetError):
                assert await self.reader.read() is None, "an end in order"


class Backend:
    """A server whose side of each connection the test holds."""

    def __init__(self) -> None:
        self.address = ""
        self.accepted: asyncio.Queue[Peer] = asyncio.Queue()
        self.peers: list[Peer] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(Peer(reader, writer))
        self.accepted.put_nowait(self.peers[-1])


@contextlib.asynccontextmanager
async def backend() -> AsyncIterator[Backend]:
    opened = Backend()
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield opened
    finally:
        server.close()
        for peer in opened.peers:
            peer.writer.transport.abort()


@contextlib.asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[Peer]:
    opened = Peer(*await asyncio.open_connection("127.0.0.1", proxy.port))
    try:
        yield opened
    finally:
        opened.writer.transport.abort()
        with contextlib.suppress(OSError):
            await opened.writer.wait_closed()


class Pair:
    """A proxy, its backend, and both ends of one connection through it."""

    def __init__(self, proxy: Proxy, far: Backend, near: Peer, end: Peer) -> None:
        self.proxy = proxy
        self.backend = far
        self.client = near
        self.server = end


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with backend() as far, Proxy(far.address, receive_buffer=65536) as proxy, client(proxy) as near:
        yield Pair(proxy, far, near, await far.accepted.get())


async def test_bytes_pass_in_both_directions_as_they_are(pair: Pair) -> None:
    data = bytes(range(256)) * 4096
    for one, other in ((pair.client, pair.server), (pair.server, pair.client)):
        await asyncio.gather(one.says(data), other.hears(data))


async def test_the_end_of_one_direction_leaves_the_other_open(pair: Pair) -> None:
    pair.client.writer.write_eof()
    assert await pair.server.reader.read() == b""
    await pair.server.says(b"still here")
    await pair.client.hears(b"still here")
    pair.server.writer.close()
    assert await pair.client.reader.read() == b""
    await until(lambda: pair.proxy.connections == 0, "the connection is forgotten")


async def test_a_cut_resets_both_sides_and_new_connections_pass(pair: Pair) -> None:
    assert pair.proxy.connections == 1
    pair.proxy.cut()
    await pair.client.is_reset()
    await pair.server.is_reset()
    async with client(pair.proxy) as again:
        await again.says(b"hello")
        await (await pair.backend.accepted.get()).hears(b"hello")
        assert pair.proxy.connections == 1


async def test_a_reset_of_one_side_resets_the_other(pair: Pair) -> None:
    sock = pair.server.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.server.writer.transport.abort()
    await pair.client.is_reset()


async def test_a_proxy_that_refuses_resets_new_connections_only(pair: Pair) -> None:
    pair.proxy.refusing = True
    async with client(pair.proxy) as refused:
        await refused.is_reset()
    await pair.client.says(b"open before")
    await pair.server.hears(b"open before")
    assert pair.backend.accepted.empty()


async def test_a_backend_that_is_not_there_resets_the_client(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        pair.proxy.backend = f"127.0.0.1:{closed.getsockname()[1]}"
    async with client(pair.proxy) as refused:
        await refused.is_reset()


async def test_another_backend_takes_new_connections_and_leaves_the_open_ones(pair: Pair) -> None:
    async with backend() as other:
        pair.proxy.backend = other.address
        async with client(pair.proxy) as moved:
            await moved.says(b"new")
            await (await other.accepted.get()).hears(b"new")
            await pair.client.says(b"old")
            await pair.server.hears(b"old")


async def test_a_blackhole_tells_nobody_and_what_it_held_comes_after_it(pair: Pair) -> None:
    pair.proxy.blackhole()
    async with client(pair.proxy) as fresh:
        await fresh.says(b"fresh")
        await pair.client.says(b"up")
        await pair.server.says(b"down")
        await asyncio.gather(*(peer.hears_nothing() for peer in (fresh, pair.client, pair.server)))
        assert pair.backend.accepted.empty()
        pair.proxy.restore()
        await pair.server.hears(b"up")
        await pair.client.hears(b"down")
        await (await pair.backend.accepted.get()).hears(b"fresh")


async def test_a_blackhole_of_one_direction_leaves_the_other(pair: Pair) -> None:
    pair.proxy.blackhole(down=False)
    await pair.client.says(b"lost")
    await pair.server.says(b"seen")
    await pair.client.hears(b"seen")
    await pair.server.hears_nothing()
    pair.proxy.blackhole(up=False)
    await pair.server.hears(b"lost")
    await pair.server.says(b"later")
    await pair.client.hears_nothing()


async def test_a_blackhole_hides_that_a_side_has_gone(pair: Pair) -> None:
    pair.proxy.blackhole(down=False)
    sock = pair.client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.client.writer.transport.abort()
    await pair.server.says(b"to nobody")
    await pair.server.hears_nothing()
    pair.proxy.restore()
    await pair.server.is_reset()


async def test_a_blackhole_that_ends_with_a_drop_resets_only_what_it_held(pair: Pair) -> None:
    async with client(pair.proxy) as idle:
        idle_end = await pair.backend.accepted.get()
        pair.proxy.blackhole()
        await pair.client.says(b"lost")
        await pair.server.hears_nothing()
        pair.proxy.restore(drop=True)
        await pair.client.is_reset()
        await pair.server.is_reset()
        await idle.says(b"kept")
        await idle_end.hears(b"kept")


async def test_a_delay_holds_each_piece_back_and_keeps_the_order(pair: Pair) -> None:
    pair.proxy.delay = 0.1
    started = time.monotonic()
    for number in range(5):
        await pair.client.says(b"piece %d" % number)
    await pair.server.hears(b"".join(b"piece %d" % number for number in range(5)))
    assert 0.1 <= time.monotonic() - started < 2


async def test_a_throttle_limits_what_goes_to_the_client_alone(pair: Pair) -> None:
    pair.proxy.throttle = 100_000
    data = bytes(30_000)
    started = time.monotonic()
    await pair.client.says(data)
    await pair.server.hears(data)
    assert time.monotonic() - started < 0.29
    await pair.server.says(data)
    await pair.client.hears(data)
    assert 0.25 <= time.monotonic() - started < 3


async def test_a_stall_keeps_the_backend_from_writing_and_loses_nothing(pair: Pair) -> None:
    total = 64 * 1024 * 1024
    pair.proxy.stall = True
    writing = asyncio.create_task(pair.server.says(bytes(total)))
    await asyncio.sleep(SHORT)
    await pair.client.hears_nothing()
    assert pair.server.writer.transport.get_write_buffer_size() > total / 2, "somebody swallowed it"
    assert not writing.done()
    pair.proxy.stall = False
    async with asyncio.timeout(10):
        read = 0
        while read < total:
            read += len(await pair.client.reader.read(1 << 20))
    await writing


async def test_a_client_that_does_not_read_is_felt_by_the_backend(pair: Pair) -> None:
    total = 64 * 1024 * 1024
    writing = asyncio.create_task(pair.server.says(bytes(total)))
    await asyncio.sleep(SHORT)
    assert pair.server.writer.transport.get_write_buffer_size() > total / 2, "somebody swallowed it"
    pair.proxy.cut()  # also with all buffers full
    with pytest.raises(ConnectionError):
        await writing


# -- in front of Redis ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def through(proxy: Proxy) -> AsyncIterator[Store]:
    async with open_store(RedisAddress(f"redis://127.0.0.1:{proxy.port}/0")) as store:
        yield store


@contextlib.asynccontextmanager
async def listening(store: Store) -> AsyncIterator[Callable[[], Any]]:
    """A subscription; gives what takes the next message."""
    pubsub = store.client.pubsub()
    await pubsub.subscribe("news")

    async def following() -> Any:
        return await pubsub.get_message(timeout=5)

    assert (await following())["type"] == "subscribe"
    yield following
    await pubsub.aclose()


@pytest.fixture
async def redis_proxy(redis_server: PrivateRedis, store: Store) -> AsyncIterator[Proxy]:
    async with Proxy(f"unix:{redis_server.folder / 'redis.sock'}") as proxy:
        yield proxy


async def test_messages_can_be_dropped_doubled_and_put_in_another_order(redis_proxy: Proxy, store: Store) -> None:
    held: list[bytes] = []

    def hook(frame: bytes) -> list[bytes]:
        if b"drop" in frame:
            return []
        if b"hold" in frame:
            held.append(frame)
            return []
        return [frame, frame, *held]

    redis_proxy.on_message = hook
    async with through(redis_proxy) as far, listening(far) as following:
        for text in (b"drop", b"hold", b"double"):
            await store.client.publish("news", text)
        assert [(await following())["data"] for _ in range(3)] == [b"double", b"double", b"hold"]
        redis_proxy.restore()
        await store.client.publish("news", b"drop")
        assert (await following())["data"] == b"drop"


async def test_a_large_binary_message_is_one_frame(redis_proxy: Proxy, store: Store) -> None:
    data = (bytes(range(256)) + b"\r\n*3\r\n$7\r\nmessage\r\n") * 234  # as if it held frames of its own
    frames: list[bytes] = []

    def hook(frame: bytes) -> list[bytes]:
        frames.append(frame)
        return [frame]

    redis_proxy.on_message = hook
    async with through(redis_proxy) as far, listening(far) as following:
        await store.client.publish("news", data)
        assert (await following())["data"] == data
    assert frames == [b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$%d\r\n%b\r\n" % (len(data), data)]


async def test_the_hook_sees_messages_only(redis_proxy: Proxy, store: Store) -> None:
    seen: list[bytes] = []

    def hook(frame: bytes) -> list[bytes]:
        seen.append(frame)
        return []

    redis_proxy.on_message = hook
    async with through(redis_proxy) as far:
        pubsub = far.client.pubsub()
        await pubsub.subscribe("news")
        await pubsub.ping()
        assert [(await pubsub.get_message(timeout=5))["type"] for _ in range(2)] == ["subscribe", "pong"]
        assert await far.client.echo("*3\r\n$7\r\nmessage\r\n") == b"*3\r\n$7\r\nmessage\r\n"
        await pubsub.aclose()
    assert not seen


async def test_a_blackhole_of_subscriptions_leaves_commands_alone(redis_proxy: Proxy, store: Store) -> None:
    async with through(redis_proxy) as far, listening(far) as following:
        redis_proxy.blackhole(pubsub_only=True)
        await store.client.publish("news", b"late")
        assert await far.client.echo("now") == b"now"
        pending = asyncio.create_task(following())
        async with asyncio.timeout(5):
            assert not (await asyncio.wait([pending], timeout=SHORT))[0]
            redis_proxy.restore()
            assert (await pending)["data"] == b"late"


VALUES = st.recursive(
    st.one_of(
        st.sampled_from([b"+PONG\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"-ERR no\r\n"]),
        st.integers(-9, 9).map(lambda number: b":%d\r\n" % number),
        st.binary(max_size=40).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data)),
    ),
    lambda inner: st.lists(inner, max_size=4).map(lambda each: b"*%d\r\n%b" % (len(each), b"".join(each))),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=6), st.data())
def test_values_are_told_apart_however_they_are_cut(values: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    splitter, found = RespSplitter(), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += splitter.feed(whole[start:end])
        assert b"".join(found) + splitter.rest == whole[:end]
    assert found == values
