"""The access keys in memory: right at once, and right for as long as Redis cannot be asked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from flagrelay.errors import Refusal
from flagrelay.relay.backoff import Backoff
from flagrelay.server.keyring import Keyring
from flagrelay.store.access_keys import AccessKey, create_access_key, revoke_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from support.relays import ENVIRONMENT
from support.sources import Wire, until

Ended = list[tuple[str, str]]


@asynccontextmanager
async def running(store: Store, *, interval: float = 0.1) -> AsyncIterator[tuple[Keyring, Ended]]:
    """A keyring that follows its keys, and the names of the keys that it ends, with why."""
    ended: Ended = []
    keyring = Keyring(
        store,
        on_end=lambda key, reason: ended.append((key.name, reason)),
        on_change=lambda: None,
        interval=interval,
        backoff=Backoff(0.01, 0.05),
    )
    task = asyncio.create_task(keyring.run())
    try:
        yield keyring, ended
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def keys(store: Store) -> Callable[..., Any]:
    await create_environment(store, ENVIRONMENT)

    async def create(name: str = "one", expires: float | None = None) -> tuple[AccessKey, str]:
        return await create_access_key(store, ENVIRONMENT, "server", name, int(expires) if expires else None)

    return create


def refusal(keyring: Keyring, secret: str) -> Refusal:
    with pytest.raises(Refusal) as refused:
        keyring.check(secret)
    return refused.value


async def known(keyring: Keyring, secret: str) -> AccessKey:
    """Wait until a key is good."""
    found: list[AccessKey] = []

    def look() -> bool:
        with suppress(Refusal):
            found.append(keyring.check(secret))
        return bool(found)

    await until(look, "the key is known")
    return found[0]


async def test_a_key_is_known_by_its_secret(store: Store, keys: Any) -> None:
    key, secret = await keys()
    async with running(store) as (keyring, _):
        assert await known(keyring, secret) == key
        for wrong in ("", secret[:-1], secret + "x", key.digest, key.id, "epoch", "revision", "\xe9", "\udcff"):
            assert (refusal(keyring, wrong).status, refusal(keyring, wrong).code) == (401, "UNAUTHORIZED")


async def test_created_and_revoked_keys_are_heard_of_at_once(store: Store, keys: Any) -> None:
    async with running(store, interval=60) as (keyring, ended):
        await until(lambda: keyring.live, "it runs")
        key, secret = await keys()
        await known(keyring, secret)
        await revoke_access_key(store, key.id)
        await until(lambda: ended == [("one", "revoked")], "it was revoked")
        assert refusal(keyring, secret).status == 401
        assert secret not in str(refusal(keyring, secret))


async def test_a_hint_that_was_lost_is_made_up_for_by_a_comparison(store: Store, keys: Any) -> None:
    key, _ = await keys()
    async with running(store) as (keyring, ended):
        await until(lambda: keyring.live, "it runs")
        # As another tool might: without a word on the channel.
        await store.client.hdel(store.keys.keys, key.digest)
        await store.client.hincrby(store.keys.keys, "revision", 1)
        await until(lambda: ended == [("one", "revoked")], "it was noticed")


async def test_revoking_the_last_key_is_no_wiped_redis(store: Store, keys: Any) -> None:
    key, secret = await keys()
    async with running(store) as (keyring, ended):
        await known(keyring, secret)
        await revoke_access_key(store, key.id)
        await until(lambda: ended, "it was revoked")
        assert keyring.live


async def test_a_wiped_redis_revokes_nobody(store: Store, keys: Any) -> None:
    _, secret = await keys()
    async with running(store) as (keyring, ended):
        await known(keyring, secret)
        with capture_logs() as logs:
            await store.client.flushall()
            await until(lambda: not keyring.live, "it was noticed")
            await asyncio.sleep(0.35)  # three comparisons more
        keyring.check(secret)
        assert not ended
        assert refusal(keyring, "fr_server_unknown").code == "KEYS_UNAVAILABLE"
        assert [entry["log_level"] for entry in logs if "gone" in str(entry.get("reason"))] == ["warning"], "once"
        # Whoever makes keys anew decides anew who is let in.
        await create_environment(store, ENVIRONMENT)
        _, new = await keys("two")
        await known(keyring, new)
        assert ended == [("one", "revoked")]
        assert keyring.live


async def test_while_redis_is_away_keys_are_good_and_unknown_ones_are_not_refused_for_good(
    store: Store, keys: Any, tmp_path: Path
) -> None:
    path = urlsplit(store.address.url).path
    async with (
        Wire(tmp_path / "redis.sock", Path(path)) as wire,
        open_store(RedisAddress(f"unix://{wire.path}")) as through,
        running(through) as (keyring, ended),
    ):
        _, secret = await keys()
        await known(keyring, secret)
        with capture_logs() as logs:
            wire.refusing = True
            wire.cut()
            await until(lambda: not keyring.live, "Redis is lost")
            keyring.check(secret)
            other, new = await keys("two")
            answer = refusal(keyring, new)
            assert (answer.status, answer.code) == (503, "KEYS_UNAVAILABLE")
            assert answer.retry_after
            await asyncio.sleep(0.3)  # several tries to connect
        assert len([entry for entry in logs if entry["event"] == "access keys"]) <= 2, "said, and not repeated"
        await revoke_access_key(store, other.id)
        wire.refusing = False
        await until(lambda: keyring.live, "Redis is back")
        assert refusal(keyring, new).status == 401
        assert not ended, "what it never knew has nothing to end"


async def test_a_key_that_was_revoked_while_redis_was_away_ends_when_it_is_back(
    store: Store, keys: Any, tmp_path: Path
) -> None:
    path = urlsplit(store.address.url).path
    async with (
        Wire(tmp_path / "redis.sock", Path(path)) as wire,
        open_store(RedisAddress(f"unix://{wire.path}")) as through,
        running(through) as (keyring, ended),
    ):
        key, secret = await keys()
        await known(keyring, secret)
        wire.refusing = True
        wire.cut()
        await until(lambda: not keyring.live, "Redis is lost")
        await revoke_access_key(store, key.id)
        keyring.check(secret)
        wire.refusing = False
        await until(lambda: ended == [("one", "revoked")], "it is revoked")
        assert refusal(keyring, secret).status == 401


async def test_keys_end_at_their_time_in_order_and_once(store: Store, keys: Any) -> None:
    now = time.time()
    await keys("never")
    await keys("in 30,000 years", now + 1e12)
    await keys("third", now + 2.2)
    await keys("second", now + 1.2)
    _, first = await keys("first", now)
    async with running(store) as (keyring, ended):
        await until(lambda: len(ended) == 3, "three have expired", within=5)
        assert ended == [("first", "expired"), ("second", "expired"), ("third", "expired")]
        assert "expired" in refusal(keyring, first).details
        await keys("another")
        await until(lambda: len(keyring._keys) == 6, "it was heard of")
        assert len(ended) == 3, "nothing ends twice"


async def test_an_expiry_is_kept_while_redis_is_away(store: Store, keys: Any, tmp_path: Path) -> None:
    path = urlsplit(store.address.url).path
    async with (
        Wire(tmp_path / "redis.sock", Path(path)) as wire,
        open_store(RedisAddress(f"unix://{wire.path}")) as through,
        running(through) as (keyring, ended),
    ):
        _, secret = await keys("short", time.time() + 1.2)
        await known(keyring, secret)
        wire.refusing = True
        wire.cut()
        await until(lambda: ended == [("short", "expired")], "it expires all the same")
        assert refusal(keyring, secret).status == 401, "an expired key is expired, whoever can be asked"


async def test_a_key_that_comes_later_and_expires_sooner_is_not_waited_past(store: Store, keys: Any) -> None:
    async with running(store) as (keyring, ended):
        _, late = await keys("late", time.time() + 3600)
        await known(keyring, late)
        await keys("soon", time.time() + 1.1)
        await until(lambda: ended == [("soon", "expired")], "the new one expires in its time", within=3)
        keyring.check(late)


async def test_records_that_are_none_lock_nobody_out(store: Store, keys: Any) -> None:
    _, secret = await keys()
    for name, record in (
        ("a" * 64, "no json"),
        ("b" * 64, "[]"),
        ("c" * 64, '{"id": 5}'),
        (b"\xff\xfe", b"\xff"),
        ("d" * 64, '{"id":"x","environment":"production","kind":"root","name":"","created":1,"expires":null}'),
    ):
        await store.client.hset(store.keys.keys, name, record)
    async with running(store) as (keyring, _):
        await known(keyring, secret)
        assert len(keyring._keys) == 1
