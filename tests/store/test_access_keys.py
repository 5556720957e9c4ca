import asyncio
import hashlib
import json

import pytest

from flagrelay.errors import AccessKeyMissing, EnvironmentMissing, StoreUnavailable
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.access_keys import (
    AccessKey,
    create_access_key,
    digest,
    list_access_keys,
    read_access_keys,
    read_keys_position,
    revoke_access_key,
)
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.subscription import subscribe_keys
from support.stores import ENVIRONMENT, everything


async def create(store: Store, name: str = "web", kind: str = "server") -> tuple[AccessKey, str]:
    return await create_access_key(store, ENVIRONMENT, kind, name, None)


async def test_a_key_is_what_it_was_created_as(store: Store, empty: Snapshot) -> None:
    key, secret = await create_access_key(store, ENVIRONMENT, "client", 'shop "ü"', 1_900_000_000)
    assert (key.environment, key.kind, key.name, key.expires) == (ENVIRONMENT, "client", 'shop "ü"', 1_900_000_000)
    seconds, _ = await store.client.time()
    assert abs(key.created - seconds) < 60
    assert secret.startswith("fr_client_")
    assert len(secret) >= 40
    read = await read_access_keys(store)
    assert read
    assert read.keys == {digest(secret): key}
    assert read.position == await read_keys_position(store)
    assert read.unreadable == 0


async def test_a_key_needs_its_environment(store: Store) -> None:
    with pytest.raises(EnvironmentMissing, match='"production"'):
        await create(store)
    assert await store.client.keys("*") == []
    assert await read_access_keys(store) is None
    assert await read_keys_position(store) is None
    assert await list_access_keys(store) == []


async def test_no_secret_is_anywhere_in_redis(store: Store, empty: Snapshot) -> None:
    secrets = [(await create(store, kind=kind))[1] for kind in ("server", "client", "admin")]
    held = repr(await everything(store))
    slow = repr(await store.client.slowlog_get(1000))
    for secret in secrets:
        assert secret not in held + slow
        # What is random in it may hold underscores too: what is behind the last one may be a single letter.
        assert secret.split("_", 2)[2] not in held + slow
        assert hashlib.sha256(secret.encode()).hexdigest() == digest(secret)
        assert digest(secret) in held
    assert len(set(secrets)) == 3


async def test_the_list_is_sorted_and_has_no_secret(store: Store, empty: Snapshot) -> None:
    await create_environment(store, "a")
    created = [(await create(store, name)) for name in ("web", "app", "app")]
    created.append(await create_access_key(store, "a", "admin", "z", None))
    listed = await list_access_keys(store)
    assert [(key.environment, key.name) for key in listed] == [
        ("a", "z"),
        (ENVIRONMENT, "app"),
        (ENVIRONMENT, "app"),
        (ENVIRONMENT, "web"),
    ]
    assert {key.id for key in listed} == {key.id for key, _ in created}
    assert not [secret for _, secret in created if secret in repr(listed)]


async def test_a_revoked_key_is_gone_and_the_others_stay(store: Store, empty: Snapshot) -> None:
    first, _ = await create(store, "first")
    second, _ = await create(store, "second")
    assert await revoke_access_key(store, first.id) == first
    assert await list_access_keys(store) == [second]
    with pytest.raises(AccessKeyMissing, match=f'no access key has the id "{first.id}"'):
        await revoke_access_key(store, first.id)


async def test_revoking_the_last_key_differs_from_a_wipe(store: Store, empty: Snapshot) -> None:
    key, _ = await create(store)
    before = await read_access_keys(store)
    assert before
    await revoke_access_key(store, key.id)
    after = await read_access_keys(store)
    assert after
    assert after.keys == {}
    assert after.position == (before.position[0], before.position[1] + 1)
    await store.client.flushall()
    assert await read_access_keys(store) is None


@pytest.mark.parametrize("revoke", ["", "x", "epoch", "revision"])
async def test_what_is_no_key_cannot_be_revoked(store: Store, empty: Snapshot, revoke: str) -> None:
    await create(store)
    before = await everything(store)
    with pytest.raises(AccessKeyMissing):
        await revoke_access_key(store, revoke)
    assert await everything(store) == before


async def test_of_many_who_revoke_a_key_at_once_one_does(store: Store, empty: Snapshot) -> None:
    key, _ = await create(store)
    answers = await asyncio.gather(*(revoke_access_key(store, key.id) for _ in range(10)), return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, AccessKeyMissing)] == [key]
    position = await read_keys_position(store)
    assert position
    assert position[1] == 2


async def test_every_write_counts_and_publishes_where_the_keys_stand(store: Store, empty: Snapshot) -> None:
    async with subscribe_keys(store) as subscription:
        created = await asyncio.gather(*(create(store) for _ in range(5)))
        await revoke_access_key(store, created[0][0].id)
        hints = [json.loads(await subscription.next(5) or b"") for _ in range(6)]
        assert await subscription.next(0.05) is None
    position = await read_keys_position(store)
    assert position
    assert hints == [{"epoch": position[0], "revision": revision} for revision in range(1, 7)]
    assert len(position[0]) == 32


SOUND = {"id": "1", "environment": ENVIRONMENT, "kind": "server", "name": "web", "created": 1, "expires": None}


@pytest.mark.parametrize(
    "record",
    [
        b"what",
        b"",
        b"[]",
        b"null",
        b"\xff",
        json.dumps(SOUND | {"kind": "root"}),
        json.dumps(SOUND | {"kind": ["server"]}),
        json.dumps(SOUND | {"name": 5}),
        json.dumps(SOUND | {"expires": "never"}),
        json.dumps(SOUND | {"created": "today"}),
        json.dumps({"id": "1"}),
    ],
)
async def test_a_record_that_is_none_of_ours_is_skipped_and_counted(
    store: Store, empty: Snapshot, record: bytes | str
) -> None:
    key, _ = await create(store)
    await store.client.hset(store.keys.keys, "0" * 64, record)
    await store.client.hset(store.keys.keys, b"\xff", record)
    read = await read_access_keys(store)
    assert read
    assert list(read.keys.values()) == [key]
    assert read.unreadable == 2
    assert await list_access_keys(store) == [key]
    assert await revoke_access_key(store, key.id) == key


@pytest.mark.parametrize(("field", "value"), [("epoch", None), ("revision", None), ("revision", b"x")])
async def test_keys_that_do_not_say_where_they_stand_are_not_known(
    store: Store, empty: Snapshot, field: str, value: bytes | None
) -> None:
    await create(store)
    if value is None:
        await store.client.hdel(store.keys.keys, field)
    else:
        await store.client.hset(store.keys.keys, field, value)
    assert await read_access_keys(store) is None
    assert await read_keys_position(store) is None


async def test_a_full_redis_creates_no_key_but_revokes(doomed: Store) -> None:
    key, _ = await create(doomed)
    before = await everything(doomed)
    await doomed.client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable):
        await create(doomed)
    assert await everything(doomed) == before
    await revoke_access_key(doomed, key.id)
    assert await list_access_keys(doomed) == []


async def test_a_key_of_another_type_is_unavailable(store: Store, empty: Snapshot) -> None:
    await store.client.set(store.keys.keys, "x")
    with pytest.raises(StoreUnavailable, match=r"WRONGTYPE|wrong kind of value"):
        await read_access_keys(store)
    with pytest.raises(StoreUnavailable):
        await create(store)


async def test_a_name_that_is_no_unicode_is_kept_as_far_as_it_is(store: Store, empty: Snapshot) -> None:
    key, _ = await create(store, "we\udcff")
    assert key.name == "we?"
    assert await list_access_keys(store) == [key]


async def test_a_key_of_a_later_version_with_more_to_its_record_is_known_to_this_one(
    store: Store, empty: Snapshot
) -> None:
    key, _ = await create(store)
    record = json.loads(await store.client.hget(store.keys.keys, key.digest))
    await store.client.hset(store.keys.keys, key.digest, json.dumps({**record, "scopes": ["evaluate"]}))
    assert await list_access_keys(store) == [key]
