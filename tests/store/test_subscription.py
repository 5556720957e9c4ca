import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.errors import StoreUnavailable
from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store import subscription as module
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.subscription import Subscription, subscribe, subscribe_keys
from flagrelay.wire.message import decode_message
from support.stores import ENVIRONMENT, free_ports, put, until

PROMPTLY = 4.0
"""Seconds within which a lost connection must show; a timeout would take `ANSWER_TIMEOUT`, which is more."""


async def test_a_change_right_after_entering_is_never_missed(store: Store, empty: Snapshot) -> None:
    async def once(number: int) -> None:
        async with subscribe(store, ENVIRONMENT) as subscription:
            written = await put(store, f"flag-{number}")
            revision = 0
            while revision < written.revision:
                message = await subscription.next(5)
                assert message is not None, f"revision {written.revision} was missed"
                revision = decode_message(message).revision

    for _ in range(10):
        await asyncio.gather(*(once(number) for number in range(10)))


async def test_messages_come_in_order_and_each_once(store: Store, empty: Snapshot) -> None:
    async with subscribe(store, ENVIRONMENT) as subscription:
        await asyncio.gather(*(put(store, f"flag-{number % 3}", number) for number in range(300)))
        snapshot = empty
        for _ in range(300):
            change = decode_message(await subscription.next(5) or b"")
            assert isinstance(change, Change)
            snapshot = snapshot.with_change(change)
        assert await subscription.next(0.05) is None


async def test_a_subscription_hears_its_own_environment_alone(store: Store, empty: Snapshot) -> None:
    async with subscribe(store, "staging") as staging, subscribe(store, ENVIRONMENT) as production:
        await put(store, "a")
        assert await production.next(5)
        assert await staging.next(0.05) is None


async def test_waiting_ends_when_it_should(store: Store, empty: Snapshot) -> None:
    loop = asyncio.get_running_loop()
    async with subscribe(store, ENVIRONMENT) as subscription:
        for timeout in (0.0, 0.2):
            begun = loop.time()
            assert await subscription.next(timeout) is None
            assert timeout - 0.02 <= loop.time() - begun < timeout + 1
        await put(store, "a")
        assert await subscription.next(0.5), "what is there already needs no wait"


async def test_no_wait_at_all_still_takes_what_is_there(store: Store, empty: Snapshot) -> None:
    async with subscribe(store, ENVIRONMENT) as subscription:
        await put(store, "a")

        async def taken() -> bool:
            return await subscription.next(0) is not None

        await until(taken)


async def test_a_message_cut_off_by_a_timeout_comes_whole_later(store: Store, empty: Snapshot) -> None:
    """Waits so short that they end in the middle of large messages."""
    async with subscribe(store, ENVIRONMENT) as subscription:
        sent = [bytes([65 + number]) * 3_000_000 for number in range(5)]

        async def publish() -> None:
            for data in sent:
                await store.client.publish(store.keys.changes(ENVIRONMENT), data)

        publishing = asyncio.create_task(publish())
        received: list[bytes] = []
        async with asyncio.timeout(20):
            while len(received) < len(sent):
                data = await subscription.next(0.0005)
                if data is not None:
                    received.append(data)
        await publishing
        assert received == sent


async def heard_since(subscription: Subscription, moment: float) -> bool:
    assert await subscription.next(0.05) is None, "an answer to a ping is no message"
    return subscription.last_heard > moment


async def test_an_answer_to_a_ping_shows_in_last_heard_and_is_no_message(store: Store, empty: Snapshot) -> None:
    async with subscribe(store, ENVIRONMENT) as subscription:
        before = subscription.last_heard
        await asyncio.sleep(0.01)
        await subscription.ping()
        assert subscription.last_heard == before, "asking is not hearing"
        await until(lambda: heard_since(subscription, before))
        await put(store, "a")
        heard = subscription.last_heard
        assert await subscription.next(5)
        assert subscription.last_heard > heard


async def test_a_paused_server_is_silent_and_says_so_by_last_heard(doomed: Store, doomed_server: PrivateRedis) -> None:
    async with subscribe(doomed, ENVIRONMENT) as subscription:
        heard = subscription.last_heard
        doomed_server.signal(signal.SIGSTOP)
        try:
            await subscription.ping()
            assert await subscription.next(0.2) is None
            assert subscription.last_heard == heard
        finally:
            doomed_server.signal(signal.SIGCONT)
        await until(lambda: heard_since(subscription, heard))


async def test_a_killed_server_shows_at_once(doomed: Store, doomed_server: PrivateRedis) -> None:
    async with subscribe(doomed, ENVIRONMENT) as subscription:
        waiting = asyncio.create_task(subscription.next(60))
        await asyncio.sleep(0)
        doomed_server.signal(signal.SIGKILL)
        async with asyncio.timeout(PROMPTLY):
            with pytest.raises(StoreUnavailable, match="Redis at unix://"):
                await waiting
            with pytest.raises(StoreUnavailable):
                await subscription.ping()


async def test_a_killed_connection_shows_at_once_and_is_not_made_good_in_secret(store: Store, empty: Snapshot) -> None:
    async with subscribe(store, ENVIRONMENT) as subscription:
        waiting = asyncio.create_task(subscription.next(60))
        await asyncio.sleep(0.01)
        await store.client.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(PROMPTLY):
            with pytest.raises(StoreUnavailable):
                await waiting
    async with subscribe(store, ENVIRONMENT) as subscription:
        await store.client.client_kill_filter(_type="pubsub")
        await put(store, "a")
        with pytest.raises(StoreUnavailable):
            await subscription.next(5)


async def test_without_a_redis_there_is_no_subscription() -> None:
    [port] = free_ports(1)
    async with open_store(RedisAddress(f"redis://127.0.0.1:{port}")) as store:
        for subscribing in (subscribe(store, ENVIRONMENT), subscribe_keys(store)):
            with pytest.raises(StoreUnavailable, match=f"Redis at redis://127.0.0.1:{port}: "):
                async with subscribing:
                    pytest.fail("entered")


async def test_a_subscription_that_is_not_confirmed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.1)

    async def greet_and_fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
        writer.close()

    server = await asyncio.start_unix_server(greet_and_fall_silent, tmp_path / "redis.sock")
    async with server, open_store(RedisAddress(f"unix://{tmp_path}/redis.sock")) as store:
        with pytest.raises(StoreUnavailable, match="the subscription was not confirmed"):
            async with subscribe(store, ENVIRONMENT):
                pytest.fail("entered")


async def test_a_relay_may_follow_hundreds_of_environments_at_once(store: Store, empty: Snapshot) -> None:
    async with AsyncExitStack() as stack:
        for number in range(300):
            await stack.enter_async_context(subscribe(store, f"environment-{number}"))
        heard = await stack.enter_async_context(subscribe(store, ENVIRONMENT))
        await put(store, "a")
        assert await heard.next(5)


async def test_a_cancelled_wait_leaves_nobody_subscribed(store: Store, empty: Snapshot) -> None:
    async def wait() -> None:
        async with subscribe(store, ENVIRONMENT) as subscription:
            await subscription.next(60)

    async def subscribers() -> int:
        return int((await store.client.pubsub_numsub(store.keys.changes(ENVIRONMENT)))[0][1])

    async def heard() -> bool:
        return await subscribers() == 1

    async def gone() -> bool:
        return await subscribers() == 0

    waiting = asyncio.create_task(wait())
    await until(heard)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(gone)


async def test_the_hint_of_the_keys_has_a_channel_of_its_own(store: Store, empty: Snapshot) -> None:
    async with subscribe_keys(store) as keys:
        await put(store, "a")
        await store.client.publish(store.keys.keys, b"hint")
        assert await keys.next(5) == b"hint"
