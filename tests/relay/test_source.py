"""The source against a real Redis: every rule of "pub/sub is a hint, never the truth"."""

import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.errors import EnvironmentMissing, StoreUnavailable
from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay import source as source_module
from flagrelay.relay.source import Source
from flagrelay.relay.states import SourceState
from flagrelay.store import connection, subscription
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.reading import read_position, read_snapshot
from flagrelay.store.writing import Draft, renew_epoch, write_change
from flagrelay.wire.message import encode_change
from support.fakes import definition
from support.sources import ENVIRONMENT, NEVER, Followed, Hands, Wire, publish, put

CONNECTING, LOADING, LIVE, STALE = SourceState

COUNT = itertools.count()

Copy = dict[str, bytes]


pytestmark = pytest.mark.usefixtures("logged")


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[Position]:
    """Every comparison with Redis that a source makes."""
    made: list[Position] = []

    async def counted(store: Store, environment: str) -> Position:
        made.append(await read_position(store, environment))
        return made[-1]

    monkeypatch.setattr(source_module, "read_position", counted)
    return made


async def copy_keys(store: Store) -> Copy:
    """What a backup, or a replica that lags, holds of the environment."""
    dumped = {key: await store.client.dump(key) for key in store.keys.all_of(ENVIRONMENT)}
    return {key: value for key, value in dumped.items() if value is not None}


async def put_back(store: Store, copy: Copy) -> None:
    """Redis falls back to what a copy holds, in one step."""
    async with store.client.pipeline(transaction=True) as pipe:
        pipe.delete(*store.keys.all_of(ENVIRONMENT))
        for key, dumped in copy.items():
            pipe.restore(key, 0, dumped)
        await pipe.execute()


# -- loading and following ----------------------------------------------------------------------------------------


async def test_it_loads_what_redis_holds_and_is_live(redis: Store) -> None:
    for number in range(3):
        await put(redis, f"flag-{number}", number)
    async with Followed(redis) as followed:
        await followed.live(3)
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        assert followed.moves == [LOADING, LIVE]
        assert len(followed.loads) == 1
        assert followed.stats.reloads == {"start": 1}
        assert followed.stats.gaps == followed.stats.connection_losses == followed.stats.bad_messages == 0


async def test_an_empty_environment_is_an_environment(redis: Store) -> None:
    async with Followed(redis) as followed:
        await followed.live(0)
        assert followed.held.flags == {}


async def test_the_next_change_is_applied_as_it_comes_without_asking_redis(
    redis: Store, comparisons: list[Position]
) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        for number in range(1, 20):
            await put(redis, "flag", number)
            await followed.live(number)
        assert followed.held.flags == {"flag": definition(19)}
        assert [change.revision for change in followed.changes] == list(range(1, 20))
        assert followed.changes[0].actor == "ada"
        assert not comparisons
        assert followed.stats.changes == 19


async def test_deleted_flags_populations_and_metadata_follow_too(redis: Store) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await put(redis, "a")
        await put(redis, "b")
        rule = {"in": ["x", {"var": "email"}]}
        await write_change(
            redis,
            ENVIRONMENT,
            Draft(flags={"a": None}, evaluators={"beta": rule}, metadata={"v": 1}, actor="ada", reason="more"),
        )
        await followed.live(3)
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        assert followed.held.flags.keys() == {"b"}
        assert followed.held.evaluators == {"beta": rule}
        assert followed.held.metadata == {"v": 1}


async def test_environments_do_not_mix(redis: Store) -> None:
    await create_environment(redis, "staging")
    async with Followed(redis) as production, Followed(redis, environment="staging") as staging:
        await production.live()
        await staging.live()
        await put(redis, "here")
        await put(redis, "there", environment="staging")
        await production.live(1)
        await staging.live(1)
        assert production.held.flags.keys() == {"here"}
        assert staging.held.flags.keys() == {"there"}


async def test_what_it_has_already_is_dropped_without_asking_redis(
    redis: Store, hands: Hands, comparisons: list[Position]
) -> None:
    messages: list[bytes] = []

    def repeat_everything(data: bytes) -> list[bytes]:
        messages.append(data)
        return [*messages, *messages]

    hands.pass_on = repeat_everything
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        for number in range(1, 11):
            await put(redis, "flag", number)
        await followed.live(10)
        await put(redis, "flag", 11)
        await followed.live(11)
        assert [change.revision for change in followed.changes] == list(range(1, 12))
        assert comparisons == [], "each first copy was the next change"


async def test_a_gap_is_filled_from_the_changelog(redis: Store, hands: Hands) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        hands.pass_on = lambda _data: []
        for number in range(1, 10):
            await put(redis, f"flag-{number}", number)
        hands.pass_on = lambda data: [data]
        await put(redis, "flag-10", 10)
        await followed.live(10)
        assert [change.revision for change in followed.changes] == list(range(1, 11))
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        assert followed.stats.gaps == 1
        assert followed.stats.reloads == {"start": 1}
        assert followed.moves == [LOADING, LIVE], "a gap that can be filled is no divergence"


async def test_a_gap_of_thousands_is_filled_from_the_changelog_too(redis: Store, hands: Hands) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        hands.pass_on = lambda _data: []
        for number in range(1, 2500):
            await put(redis, f"flag-{number % 7}", number)
        hands.pass_on = lambda data: [data]
        await put(redis, "last", 2500)
        await followed.live(2500)
        assert [change.revision for change in followed.changes] == list(range(1, 2501))
        assert followed.stats.reloads == {"start": 1}


@pytest.mark.parametrize("seed", range(3))
async def test_messages_lost_repeated_and_reordered_on_the_way_change_nothing(
    redis: Store, hands: Hands, seed: int
) -> None:
    rng = random.Random(seed)
    withheld: list[bytes] = []

    def meddle(data: bytes) -> list[bytes]:
        match rng.randrange(6):
            case 0:
                return []
            case 1:
                withheld.append(data)
                return []
            case 2:
                return [data, data]
            case 3:
                heard, withheld[:] = [data, *withheld], []
                rng.shuffle(heard)
                return heard
        return [data]

    hands.pass_on = meddle
    async with Followed(redis) as followed:
        await followed.live()
        for number in range(1, 301):
            await put(redis, f"flag-{rng.randrange(9)}", number)
        await followed.live(300)
        assert [change.revision for change in followed.changes] == list(range(1, 301))
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        assert followed.stats.reloads == {"start": 1}


async def test_a_trimmed_changelog_means_a_whole_reload(redis: Store, hands: Hands) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        hands.pass_on = lambda _data: []
        for number in range(1, 10):
            await put(redis, f"flag-{number}", number)
        await redis.client.xtrim(redis.keys.changes(ENVIRONMENT), maxlen=3, approximate=False)
        hands.pass_on = lambda data: [data]
        await put(redis, "flag-10", 10)
        await followed.live(10)
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        assert followed.stats.reloads == {"start": 1, "trimmed": 1}
        assert followed.moves == [LOADING, LIVE, LOADING, LIVE]
        assert "changelog" in followed.states[-2][1]
        assert [snapshot.position.revision for snapshot in followed.loads] == [0, 10]
        assert len({snapshot.position.epoch for snapshot in followed.loads}) == 1, "the history goes on"


async def test_a_changelog_that_is_gone_means_a_whole_reload(redis: Store, hands: Hands) -> None:
    async with Followed(redis) as followed:
        await followed.live()
        hands.pass_on = lambda _data: []
        # One step, so that no comparison comes between.
        async with redis.client.pipeline(transaction=True) as pipe:
            pipe.hset(redis.keys.state(ENVIRONMENT), mapping={"revision": 7, "nonce": "seventh"})
            pipe.delete(redis.keys.changes(ENVIRONMENT))
            await pipe.execute()
        await followed.live(7)
        assert followed.stats.reloads == {"start": 1, "trimmed": 1}


async def test_a_lost_last_message_is_repaired_within_the_interval(redis: Store, hands: Hands) -> None:
    hands.pass_on = lambda _data: []
    async with Followed(redis, verify_interval=0.1) as followed:
        await followed.live()
        await put(redis)
        written = asyncio.get_running_loop().time()
        await followed.live(1)
        assert asyncio.get_running_loop().time() - written < 0.1 + 0.5, "the interval, and what a busy machine adds"
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)


async def test_a_body_too_large_for_pubsub_is_read_from_the_changelog(redis: Store) -> None:
    large = {**definition(1), "metadata": {"text": "x" * 100_000}}
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        await write_change(redis, ENVIRONMENT, Draft(flags={"large": large}, actor="ada", reason="large"))
        await followed.live(1)
        assert followed.held.flags == {"large": large}
        assert followed.changes[0].reason == "large"
        assert followed.stats.reloads == {"start": 1}


async def test_a_changelog_that_holds_garbage_means_a_whole_reload(redis: Store, hands: Hands) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        hands.pass_on = lambda _data: []
        for number in range(1, 4):
            await put(redis, f"flag-{number}", number)
        changes = redis.keys.changes(ENVIRONMENT)
        await redis.client.xtrim(changes, maxlen=0, approximate=False)
        await redis.client.delete(changes)
        for revision, garbage in enumerate([b"{", b'{"epoch": 1}', b"[]"], 1):
            await redis.client.xadd(changes, {"change": garbage}, id=f"{revision}-0")
        hands.pass_on = lambda data: [data]
        await put(redis, "flag-4", 4)
        await followed.live(4)
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        await put(redis, "flag-5", 5)
        await followed.live(5)


# -- between subscribing and loading ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.integers(0, 3),
    subscribed=st.integers(0, 3),
    read=st.integers(0, 3),
    after=st.integers(0, 3),
)
async def test_what_is_written_between_subscribing_and_loading_is_neither_lost_nor_doubled(
    store: Store, before: int, subscribed: int, read: int, after: int
) -> None:
    environment = f"window-{next(COUNT)}"
    await create_environment(store, environment)

    async def write(count: int) -> None:
        for _ in range(count):
            number = next(COUNT)
            await put(store, f"flag-{number % 3}", number, environment=environment)

    async def read_with_writers(store: Store, environment: str, known: Snapshot | None) -> Snapshot:
        snapshot = await read_snapshot(store, environment, known)
        await write(read)
        return snapshot

    hands = Hands()
    hands.subscribed = lambda: write(subscribed)  # type: ignore[method-assign]  # the moment that the test is about
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "subscribe", hands.subscribe)
        patch.setattr(source_module, "read_snapshot", read_with_writers)
        await write(before)
        async with Followed(store, environment=environment, verify_interval=NEVER) as followed:
            await followed.live()
            await write(after)
            await followed.live(before + subscribed + read + after)
            assert followed.held == await read_snapshot(store, environment)
            assert followed.loads[0].position.revision == before + subscribed
            assert [change.revision for change in followed.changes] == list(
                range(before + subscribed + 1, before + subscribed + read + after + 1)
            )
            assert followed.stats.gaps == 0, "the subscription held what was written meanwhile"


async def test_concurrent_writers_and_a_source_that_starts_among_them(redis: Store) -> None:
    async def writer(number: int) -> None:
        for step in range(100):
            await put(redis, f"flag-{number}", step)

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(writer(number))
        followed = [Followed(redis, verify_interval=NEVER) for _ in range(3)]
        async with followed[0], followed[1], followed[2]:
            for each in followed:
                await each.live(300)
                assert each.held == await read_snapshot(redis, ENVIRONMENT)
                assert each.stats.gaps == 0


# -- another history ----------------------------------------------------------------------------------------------


async def test_an_environment_destroyed_and_created_again_is_another_history(redis: Store) -> None:
    await put(redis, "old")
    async with Followed(redis) as followed:
        await followed.live(1)
        epoch = followed.held.position.epoch
        await destroy_environment(redis, ENVIRONMENT)
        await create_environment(redis, ENVIRONMENT)
        await put(redis, "new")
        await followed.until(lambda: followed.held.flags.keys() == {"new"}, "the new history")
        assert followed.held.position.epoch != epoch
        await followed.same_as_redis()
        assert followed.stats.reloads["epoch"] == 1
        assert "epoch" in next(reason for state, reason in followed.states[2:] if state is LOADING)


async def test_the_first_message_of_another_history_is_enough(redis: Store) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        await destroy_environment(redis, ENVIRONMENT)
        await create_environment(redis, ENVIRONMENT)
        await put(redis, "new")
        await followed.until(lambda: followed.held.flags.keys() == {"new"}, "the new history")
        assert followed.moves == [LOADING, LIVE, LOADING, LIVE]


# -- failover to an old replica -----------------------------------------------------------------------------------


async def written_copy(redis: Store, followed: Followed, *, lost: int = 5) -> tuple[Copy, Snapshot]:
    """Ten changes, a copy, and more changes that will be lost. Returns the copy and the last snapshot held."""
    for number in range(1, 11):
        await put(redis, f"flag-{number}", number)
    copy = await copy_keys(redis)
    for number in range(11, 11 + lost):
        await put(redis, f"flag-{number}", number)
    await followed.live(10 + lost)
    return copy, followed.held


async def test_a_redis_that_fell_back_gets_a_new_epoch_and_is_followed_back(redis: Store, logged: list[Any]) -> None:
    async with Followed(redis) as followed:
        copy, lost = await written_copy(redis, followed)
        await put_back(redis, copy)
        await followed.until(lambda: followed.revision == 10, "the older state")
        await followed.same_as_redis()
        assert followed.held.position.epoch != lost.position.epoch
        assert followed.held.flags.keys() == {f"flag-{number}" for number in range(1, 11)}
        assert followed.loads[-1] == followed.held, "everybody gets the whole flag set"
        assert followed.stats.reloads == {"start": 1, "fork": 1}
        assert "lost changes" in next(reason for state, reason in followed.states[2:] if state is LOADING)
        await put(redis, "later")
        await followed.live(11)
        assert followed.changes[-1].epoch == followed.loads[-1].position.epoch
    told = [entry for entry in logged if entry["log_level"] == "warning"]
    assert [(entry["held"], entry["found"]) for entry in told] == [(15, 10)]


async def test_a_lost_history_of_the_same_length_is_noticed_by_its_nonce(redis: Store) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        copy, lost = await written_copy(redis, followed)
        await put_back(redis, copy)
        for number in range(11, 16):
            await put(redis, f"other-{number}", number)
        await followed.until(lambda: "other-15" in followed.held.flags, "the other history")
        await followed.same_as_redis()
        assert "flag-15" not in followed.held.flags
        assert followed.held.position.epoch != lost.position.epoch
        assert followed.stats.reloads == {"start": 1, "fork": 1}


async def test_a_lost_history_that_is_longer_by_now_is_noticed_by_what_a_change_follows(
    redis: Store, hands: Hands
) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        copy, lost = await written_copy(redis, followed)
        hands.pass_on = lambda _data: []
        await put_back(redis, copy)
        for number in range(11, 18):
            await put(redis, f"other-{number}", number)
        hands.pass_on = lambda data: [data]
        await put(redis, "other-18")
        await followed.until(lambda: "other-18" in followed.held.flags, "the other history")
        await followed.same_as_redis()
        assert "flag-15" not in followed.held.flags
        assert followed.held.position.epoch != lost.position.epoch
        assert followed.stats.reloads == {"start": 1, "fork": 1}


async def test_all_sources_end_at_one_new_epoch_and_it_is_renewed_once(
    redis: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def counted(store: Store, environment: str, seen: Position) -> Position:
        asked.append(seen)
        return await renew_epoch(store, environment, seen)

    monkeypatch.setattr(source_module, "renew_epoch", counted)
    followed = [Followed(redis, verify_interval=0.02) for _ in range(5)]
    async with followed[0], followed[1], followed[2], followed[3], followed[4]:
        copy, lost = await written_copy(redis, followed[0])
        for each in followed:
            await each.live(15)
        await put_back(redis, copy)
        for each in followed:
            await each.epochs(2)
        for each in followed:
            await each.same_as_redis()
            assert len(each.seen) == 2, "one epoch before, one after"
            assert each.held.position.epoch != lost.position.epoch
        assert len(asked) >= 1
        assert len({each.held.position.epoch for each in followed}) == 1


async def test_a_redis_that_falls_back_twice_to_the_same_copy_never_repeats_an_epoch(redis: Store) -> None:
    async with Followed(redis) as followed:
        copy, _ = await written_copy(redis, followed)
        for times in range(1, 4):
            await put_back(redis, copy)
            await followed.epochs(times + 1)
            await followed.same_as_redis()
            await put(redis, f"again-{times}")
            await followed.live(11)
            assert f"again-{times}" in followed.held.flags
            assert f"again-{times - 1}" not in followed.held.flags


async def test_an_epoch_that_was_left_for_another_is_never_returned_to(redis: Store) -> None:
    async with Followed(redis) as followed:
        copy, _ = await written_copy(redis, followed)
        await destroy_environment(redis, ENVIRONMENT)
        await create_environment(redis, ENVIRONMENT)
        await followed.epochs(2)
        await put_back(redis, copy)
        await followed.epochs(3)
        await followed.same_as_redis()
        assert followed.held.flags.keys() == {f"flag-{number}" for number in range(1, 11)}


async def test_a_redis_that_falls_back_while_it_is_being_read_is_noticed(
    redis: Store, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        copy, lost = await written_copy(redis, followed)

        async def falls_back_first(store: Store, environment: str, known: Snapshot | None) -> Snapshot:
            monkeypatch.setattr(source_module, "read_snapshot", read_snapshot)
            await put_back(redis, copy)
            return await read_snapshot(store, environment, known)

        hands.pass_on = lambda _data: []
        await put(redis, "missed")
        await redis.client.xtrim(redis.keys.changes(ENVIRONMENT), maxlen=0, approximate=False)
        monkeypatch.setattr(source_module, "read_snapshot", falls_back_first)
        hands.pass_on = lambda data: [data]
        await put(redis, "heard")
        await followed.epochs(2)
        await followed.same_as_redis()
        assert followed.held.position.revision == 10
        assert followed.held.position.epoch != lost.position.epoch


@pytest.mark.parametrize("pause", [0.0, 0.002])
async def test_writers_who_go_on_during_a_failover_lose_nothing_that_redis_has(redis: Store, pause: float) -> None:
    followed = [Followed(redis, verify_interval=0.02) for _ in range(2)]
    async with followed[0], followed[1]:
        copy, _ = await written_copy(redis, followed[0])
        stop = asyncio.Event()

        async def write() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                await put(redis, f"busy-{number % 5}", number)
                await asyncio.sleep(pause)

        writer = asyncio.create_task(write())
        for times in range(1, 4):
            await followed[0].beyond(followed[0].revision)
            await put_back(redis, copy)
            for each in followed:
                await each.epochs(times + 1)
        stop.set()
        await writer
        for each in followed:
            await each.same_as_redis()


async def test_a_forged_change_that_fits_is_undone_by_the_next_comparison(redis: Store) -> None:
    await put(redis, "real")
    async with Followed(redis) as followed:
        await followed.live(1)
        epoch, revision, nonce = followed.held.position
        forged = Change(epoch=epoch, revision=revision + 1, nonce="forged", previous=nonce, at=1, flags={"real": None})
        await publish(redis, encode_change(forged))
        await followed.until(lambda: "fork" in followed.stats.reloads, "it is noticed")
        await followed.same_as_redis()
        assert followed.held.flags.keys() == {"real"}
        assert followed.held.position.epoch != epoch, "its id was sent out, and must not come again"


# -- messages that nobody wrote -----------------------------------------------------------------------------------


def forged(position: Position, **changed: Any) -> bytes:
    """The very next change, but for what is wrong with it."""
    members = {
        "epoch": position.epoch,
        "revision": position.revision + 1,
        "nonce": "forged",
        "previous": position.nonce,
        "at": 1_764_000_000_000_000,
        "actor": "mallory",
        "reason": "",
        "urgent": False,
        "flags": {"forged": definition(1)},
        "$evaluators": {},
    }
    return json.dumps({name: value for name, value in {**members, **changed}.items() if value is not ...}).encode()


UNREADABLE: dict[str, Callable[[Position], bytes]] = {
    "nothing": lambda _: b"",
    "no JSON": lambda _: b"hello",
    "half of a change": lambda position: forged(position)[:-10],
    "not UTF-8": lambda position: forged(position).replace(b"mallory", b"\xff\xfe"),
    "a list": lambda position: b"[" + forged(position) + b"]",
    "a number": lambda _: b"12",
    "null": lambda _: b"null",
    "1 MiB of nothing": lambda _: b"\0" * 2**20,
    "100,000 deep": lambda _: b"[" * 100_000,
    "no epoch": lambda position: forged(position, epoch=...),
    "no revision": lambda position: forged(position, revision=...),
    "no nonce": lambda position: forged(position, nonce=...),
    "a revision that is text": lambda position: forged(position, revision=str(position.revision + 1)),
    "a revision that is true": lambda position: forged(position, revision=True),
    "a revision with a fraction": lambda position: forged(position, revision=position.revision + 1.5),
    "a revision below zero": lambda position: forged(position, revision=-1),
    "flags that are a list": lambda position: forged(position, flags=["forged"]),
    "a flag that is text": lambda position: forged(position, flags={"forged": "on"}),
}

READABLE: dict[str, Callable[[Position], bytes]] = {
    "another epoch": lambda position: forged(position, epoch="0" * 32),
    "another epoch, 1 MiB": lambda position: forged(position, epoch="0" * 32, reason="x" * 2**20),
    "the far future": lambda position: forged(position, revision=10**15),
    "one too far": lambda position: forged(position, revision=position.revision + 2),
    "another predecessor": lambda position: forged(position, previous="another"),
    "another change at our revision": lambda position: forged(position, revision=position.revision),
    "a hint of nothing": lambda position: forged(position, flags=..., **{"$evaluators": ...}),
}


@pytest.mark.parametrize("make", [*UNREADABLE.values(), *READABLE.values()], ids=[*UNREADABLE, *READABLE])
async def test_a_forged_message_is_counted_and_compared_with_redis_and_changes_nothing(
    redis: Store, comparisons: list[Position], logged: list[Any], make: Callable[[Position], bytes]
) -> None:
    for number in range(1, 4):
        await put(redis, f"flag-{number}", number)
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live(3)
        before = followed.held
        await publish(redis, make(before.position))
        await followed.until(lambda: comparisons, "a comparison with Redis")
        assert followed.held is before
        await put(redis, "real", 4)
        await followed.live(4)
        assert followed.held.flags == {**before.flags, "real": definition(4)}
        assert followed.stats.bad_messages == 1
        assert len(comparisons) == 1, "the real change needed none"
        assert followed.moves == [LOADING, LIVE]
        assert len(followed.loads) == 1
    assert [entry["event"] for entry in logged] == ["bad message on the channel"]


async def test_a_message_from_the_past_is_dropped(redis: Store, comparisons: list[Position]) -> None:
    for number in range(1, 4):
        await put(redis, f"flag-{number}", number)
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live(3)
        before = followed.held
        await publish(redis, forged(before.position, revision=1))
        await publish(redis, forged(before.position, revision=0))
        await put(redis, "real", 4)
        await followed.live(4)
        assert followed.held.flags == {**before.flags, "real": definition(4)}
        assert not comparisons
        assert followed.stats.bad_messages == 0


async def test_another_environments_change_is_not_ours(redis: Store, hands: Hands, comparisons: list[Position]) -> None:
    await create_environment(redis, "staging")
    real: list[bytes] = []

    def keep(data: bytes) -> list[bytes]:
        real.append(data)
        return [data]

    hands.pass_on = keep
    async with Followed(redis, environment="staging", verify_interval=NEVER) as staging:
        await staging.live()
        await put(redis, "there", environment="staging")
        await staging.live(1)
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        await publish(redis, real[0])
        await followed.until(lambda: comparisons, "a comparison with Redis")
        await put(redis, "here")
        await followed.live(1)
        assert followed.held.flags.keys() == {"here"}
        assert followed.stats.bad_messages == 1


async def test_a_flood_of_bad_messages_is_logged_once_and_hides_nothing(redis: Store, logged: list[Any]) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        for number in range(1, 201):
            await publish(redis, b"flood")
            if number % 20 == 0:
                await put(redis, "flag", number)
        await followed.live(10)
        await followed.until(lambda: followed.stats.bad_messages == 200, "all are counted")
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)
        assert followed.stats.reloads == {"start": 1}
    assert [entry["event"] for entry in logged] == ["bad message on the channel"]
    assert logged[0]["environment"] == ENVIRONMENT


# -- a Redis that lost what it held -------------------------------------------------------------------------------


async def test_a_flushed_redis_never_shrinks_what_is_served(redis: Store) -> None:
    for number in range(1, 4):
        await put(redis, f"flag-{number}", number)
    async with Followed(redis) as followed:
        await followed.live(3)
        before = followed.held
        await redis.client.flushall()
        reason = await followed.stale()
        assert f'environment "{ENVIRONMENT}" does not exist in Redis' in reason
        assert "flagrelay env create" in reason
        await followed.until(lambda: followed.moves.count(STALE) >= 3, "it goes on trying")
        assert followed.held is before
        assert followed.stats.connection_losses == 1, "one loss, however often it tries again"
        assert len(followed.loads) == 1
        await create_environment(redis, ENVIRONMENT)
        await put(redis, "new")
        await followed.until(lambda: followed.held.flags.keys() == {"new"}, "the new environment")
        await followed.same_as_redis()
        assert followed.stats.reloads == {"start": 1, "epoch": 1}


async def test_a_flushed_redis_that_is_restored_is_followed_as_if_nothing_had_been(redis: Store) -> None:
    await put(redis)
    async with Followed(redis) as followed:
        await followed.live(1)
        copy = await copy_keys(redis)
        await redis.client.flushall()
        await followed.stale()
        await put_back(redis, copy)
        await followed.live(1)
        assert followed.stats.reloads == {"start": 1}


async def test_an_environment_that_does_not_exist_yet_is_waited_for(store: Store) -> None:
    async with Followed(store) as followed:
        await followed.until(lambda: len(followed.states) >= 4, "a few tries")
        assert set(followed.moves) == {LOADING, CONNECTING}
        assert "env create production" in next(reason for state, reason in followed.states if state is CONNECTING)
        assert followed.source.snapshot is None
        assert followed.stats.reloads == {}, "nothing was read"
        await create_environment(store, ENVIRONMENT)
        await followed.live(0)
        assert followed.stats.reloads == {"start": 1}
        assert followed.stats.connection_losses == 0, "there was nothing to lose"


async def test_a_half_written_environment_is_not_loaded(redis: Store) -> None:
    await put(redis)
    flags = redis.keys.flags(ENVIRONMENT)
    dumped = await redis.client.dump(flags)
    await redis.client.delete(flags)
    async with Followed(redis) as followed:
        await followed.until(lambda: len(followed.states) >= 4, "a few tries")
        assert followed.source.snapshot is None
        assert CONNECTING in followed.moves
        assert LIVE not in followed.moves
        await redis.client.restore(flags, 0, dumped)
        await followed.live(1)


async def test_flags_that_redis_evicts_are_kept(redis: Store, hands: Hands) -> None:
    await put(redis)
    async with Followed(redis) as followed:
        await followed.live(1)
        before = followed.held
        await redis.client.delete(redis.keys.flags(ENVIRONMENT))
        await redis.client.client_kill_filter(_type="pubsub")
        await hands.reopened(followed)
        await followed.live(1)
        assert followed.held == before
        await redis.client.hset(redis.keys.state(ENVIRONMENT), "epoch", "f" * 32)
        reason = await followed.stale()
        assert ENVIRONMENT in reason
        assert followed.held == before, "an environment without its flags is not served as an empty one"


@pytest.mark.parametrize("key", ["state", "flags", "changes"])
async def test_a_key_of_another_type_is_survived(redis: Store, key: str) -> None:
    await put(redis)
    name = getattr(redis.keys, key)(ENVIRONMENT)
    async with Followed(redis) as followed:
        await followed.live(1)
        before = followed.held
        dumped = await redis.client.dump(name)
        await redis.client.set(name, "what")
        await redis.client.client_kill_filter(_type="pubsub")
        await followed.until(lambda: followed.stats.connection_losses, "the connection was lost")
        assert followed.held == before
        await redis.client.restore(name, 0, dumped, replace=True)
        await followed.live(1)
        await put(redis, "later")
        await followed.live(2)
        assert followed.held == await read_snapshot(redis, ENVIRONMENT)


DAMAGED = {
    "no epoch": ("state", "epoch", None),
    "an epoch that is no text": ("state", "epoch", b"\xff"),
    "an empty epoch": ("state", "epoch", b""),
    "an epoch of two lines": ("state", "epoch", b"one\ntwo"),
    "no revision": ("state", "revision", None),
    "a revision that is no number": ("state", "revision", b"x"),
    "a revision below zero": ("state", "revision", b"-1"),
    "a revision with 5,000 digits": ("state", "revision", b"9" * 5000),
    "no nonce": ("state", "nonce", None),
    "a nonce that is no text": ("state", "nonce", b"\xff"),
    "a count that is no number": ("state", "flags", b"x"),
    "a count that is too high": ("state", "evaluators", b"7"),
    "metadata that is no JSON": ("state", "metadata", b"{"),
    "metadata that is a list": ("state", "metadata", b"[]"),
    "a flag that is no JSON": ("flags", "flag", b"{"),
    "a flag that is a list": ("flags", "flag", b"[]"),
    "a flag without a definition": ("flags", "flag", b'{"revision": 1}'),
    "a flag whose definition is text": ("flags", "flag", b'{"revision": 1, "flag": "on"}'),
    "a flag too many": ("flags", "another", b'{"revision": 1, "flag": {}}'),
    "a flag too few": ("flags", "flag", None),
    "a population that is no JSON": ("evaluators", "beta", b"{"),
    "a population without a rule": ("evaluators", "beta", b'{"revision": 1}'),
}


@pytest.mark.parametrize(("key", "name", "value"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("loaded", [False, True])
async def test_a_damaged_environment_is_not_served_and_ends_nothing(
    redis: Store, key: str, name: str, value: bytes | None, *, loaded: bool
) -> None:
    await write_change(redis, ENVIRONMENT, Draft(flags={"flag": definition(1)}, evaluators={"beta": {"==": [1, 1]}}))
    copy = await copy_keys(redis)
    followed = Followed(redis)
    damaged = getattr(redis.keys, key)(ENVIRONMENT)

    async def damage() -> None:
        if value is None:
            await redis.client.hdel(damaged, name)
        else:
            await redis.client.hset(damaged, name, value)

    if not loaded:
        await damage()
    async with followed:
        if loaded:
            await followed.live(1)
            before = followed.held
            await redis.client.hset(redis.keys.state(ENVIRONMENT), "epoch", "f" * 32)  # so that it is read as a whole
            await damage()
            assert ENVIRONMENT in await followed.stale()
            assert followed.held is before
        else:
            await followed.until(lambda: CONNECTING in followed.moves, "it has tried")
            assert ENVIRONMENT in followed.source.reason or followed.source.state is LOADING
            assert followed.source.snapshot is None
        await put_back(redis, copy)
        await followed.live(1)
        await followed.same_as_redis()


# -- connections --------------------------------------------------------------------------------------------------


async def test_a_killed_subscription_is_made_again_and_what_was_missed_is_read_as_changes(
    redis: Store, hands: Hands
) -> None:
    async with Followed(redis, verify_interval=NEVER) as followed:
        await followed.live()
        missed = 0

        async def write_more() -> None:
            nonlocal missed
            missed += 10
            for _ in range(10):
                await put(redis, "flag", missed)

        hands.pass_on = lambda _data: []
        for _ in range(5):
            await write_more()
            await redis.client.client_kill_filter(_type="pubsub")
            await hands.reopened(followed)
            await followed.live(missed)
        assert [change.revision for change in followed.changes] == list(range(1, 51))
        assert followed.stats.reloads == {"start": 1}
        assert followed.stats.gaps == 5
        assert followed.stats.connection_losses == 5
        assert len(followed.loads) == 1
        assert followed.moves == [LOADING, LIVE] + [STALE, LOADING, LIVE] * 5


async def test_nothing_is_lost_or_doubled_by_concurrent_writers_and_random_kills(redis: Store, hands: Hands) -> None:
    rng = random.Random(20)
    hands.pass_on = lambda data: [] if rng.random() < 0.02 else [data]
    changes_each, writers = 800, 4
    written = asyncio.Event()

    async def write(number: int) -> None:
        own = random.Random(number)
        for step in range(changes_each):
            draft = Draft(
                flags={f"flag-{own.randrange(40)}": None if own.random() < 0.2 else definition(step)},
                evaluators={f"population-{own.randrange(5)}": {"==": [step, own.random()]}} if step % 10 == 0 else {},
                actor=f"writer {number}",
                reason=str(step),
            )
            await write_change(redis, ENVIRONMENT, draft)

    async def kill() -> None:
        while not written.is_set():
            await redis.client.client_kill_filter(_type="pubsub")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.0, 0.1)):
                    await written.wait()

    followed = [Followed(redis, longest_wait=0.02) for _ in range(2)]
    async with followed[0], followed[1]:
        killer = asyncio.create_task(kill())
        async with asyncio.TaskGroup() as tasks:
            for number in range(writers):
                tasks.create_task(write(number))
        written.set()
        await killer
        for each in followed:
            await each.live(changes_each * writers)
            assert each.held == await read_snapshot(redis, ENVIRONMENT)
            first = each.loads[0].position.revision
            assert [change.revision for change in each.changes] == list(range(first + 1, changes_each * writers + 1))
            assert each.stats.reloads == {"start": 1}
            assert each.stats.connection_losses > 3


# -- a Redis that goes away, and one that comes back another ------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are not waited for as long as in life."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr(subscription, "ANSWER_TIMEOUT", 0.5)


class Far:
    """A Redis server of the test's own, behind a wire through which the relay's `relay` goes."""

    def __init__(self, server: PrivateRedis, wire: Wire, relay: Store) -> None:
        self.server = server
        self.wire = wire
        self.relay = relay

    @contextlib.asynccontextmanager
    async def store(self, server: PrivateRedis | None = None) -> AsyncIterator[Store]:
        """The writers' way to the server, or to another."""
        async with open_store(RedisAddress((server or self.server).url)) as store:
            yield store

    def change_to(self, server: PrivateRedis) -> None:
        """The relay's address leads to another server from now on."""
        self.wire.backend = server.folder / "redis.sock"
        self.wire.cut()


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    with private_redis(folder=tmp_path) as server:
        async with (
            Wire(tmp_path / "wire.sock", tmp_path / "redis.sock") as wire,
            open_store(RedisAddress(f"unix://{wire.path}")) as relay,
        ):
            far = Far(server, wire, relay)
            async with far.store() as store:
                await create_environment(store, ENVIRONMENT)
            yield far


async def test_without_a_redis_it_says_why_and_goes_on_trying(tmp_path: Path) -> None:
    async with open_store(RedisAddress(f"unix://{tmp_path}/redis.sock")) as store, Followed(store) as followed:
        await followed.until(lambda: followed.states, "it says something")
        assert followed.moves == [CONNECTING]
        assert "redis.sock" in followed.source.reason
        with private_redis(folder=tmp_path):
            await create_environment(store, ENVIRONMENT)
            await followed.live(0)


async def test_a_redis_that_is_killed_and_comes_back_with_its_data(far: Far) -> None:
    async with far.store() as store:
        for number in range(1, 4):
            await put(store, f"flag-{number}", number)
        await store.client.save()
    async with Followed(far.relay) as followed:
        await followed.live(3)
        before = followed.held
        far.server.signal(signal.SIGKILL)
        assert "wire.sock" in await followed.stale()
        with private_redis(folder=far.server.folder):
            await followed.live(3)
            assert followed.held is before, "nothing had to be read but the position"
            assert followed.stats.reloads == {"start": 1}
            assert followed.stats.connection_losses == 1
            async with far.store() as store:
                await put(store, "later")
            await followed.live(4)


async def test_a_redis_that_comes_back_with_nothing_changes_nothing_that_is_served(far: Far) -> None:
    async with far.store() as store:
        await put(store)
    async with Followed(far.relay) as followed:
        await followed.live(1)
        before = followed.held
        far.server.signal(signal.SIGKILL)
        await followed.stale()
        with private_redis(folder=far.server.folder):
            await followed.until(lambda: "does not exist" in followed.source.reason, "it says what is missing")
            assert followed.held is before
            async with far.store() as store:
                await create_environment(store, ENVIRONMENT)
            await followed.live(0)
            assert followed.held.flags == {}, "created by a person, who knows that it is empty"


async def test_a_redis_that_comes_back_with_an_old_dump_is_followed_back(far: Far) -> None:
    async with far.store() as store:
        await put(store, "kept")
        await store.client.save()
        await put(store, "lost")
    async with Followed(far.relay) as followed:
        await followed.live(2)
        epoch = followed.held.position.epoch
        far.server.signal(signal.SIGKILL)
        await followed.stale()
        with private_redis(folder=far.server.folder):
            await followed.live(1)
            assert followed.held.flags.keys() == {"kept"}
            assert followed.held.position.epoch != epoch
            async with far.store() as store:
                await followed.same_as_redis(store)
                await put(store, "later")
            await followed.live(2)
            assert followed.stats.reloads == {"start": 1, "fork": 1}


async def replicated(replica: Store, revision: int) -> None:
    """Wait until a replica stands at a revision."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailable, EnvironmentMissing):
                if (await read_position(replica, ENVIRONMENT)).revision == revision:
                    return
            await asyncio.sleep(0.005)


async def test_a_replica_that_lags_is_followed_back_once_it_is_promoted(
    far: Far, tmp_path: Path, unused_tcp_port: int
) -> None:
    master_address = ("127.0.0.1", str(unused_tcp_port))
    arguments = ("--replicaof", *master_address, "--repl-diskless-sync-delay", "0")
    for name in ("m", "r"):
        (tmp_path / name).mkdir()
    with (
        private_redis(folder=tmp_path / "m", port=unused_tcp_port) as master,
        private_redis(*arguments, folder=tmp_path / "r") as replica,
    ):
        async with far.store(master) as writer, far.store(replica) as behind, Followed(far.relay) as followed:
            await followed.live(0)
            await create_environment(writer, ENVIRONMENT)
            await put(writer, "kept")
            await replicated(behind, 1)
            far.change_to(master)
            await followed.live(1)
            await behind.client.execute_command("REPLICAOF", "NO", "ONE")  # it hears nothing of what follows
            await put(writer, "lost")
            await followed.live(2)
            master.signal(signal.SIGKILL)
            await followed.stale()
            before = followed.held
            await behind.client.execute_command("REPLICAOF", *master_address)
            far.change_to(replica)
            await followed.until(lambda: "read only" in followed.source.reason, "a replica may not be written to")
            assert followed.held is before
            await behind.client.execute_command("REPLICAOF", "NO", "ONE")
            await followed.live(1)
            await followed.same_as_redis(behind)
            assert followed.held.flags.keys() == {"kept"}
            assert followed.held.position.epoch != before.position.epoch
            await put(behind, "later")
            await followed.live(2)


@pytest.mark.usefixtures("impatient")
async def test_a_paused_redis_makes_it_stale_and_a_resumed_one_live(far: Far) -> None:
    async with far.store() as store:
        await put(store)
        async with Followed(far.relay) as followed:
            await followed.live(1)
            before = followed.held
            far.server.signal(signal.SIGSTOP)
            try:
                reason = await followed.stale()
                assert "wire.sock" in reason
                assert followed.held is before
            finally:
                far.server.signal(signal.SIGCONT)
            await put(store, "later")
            await followed.live(2)
            assert followed.stats.reloads == {"start": 1}


@pytest.mark.usefixtures("impatient")
async def test_a_subscription_that_died_without_a_word_is_noticed_by_its_silence(far: Far) -> None:
    async with far.store() as store, Followed(far.relay, verify_interval=0.02) as followed:
        await followed.live(0)
        far.wire.freeze(subscriptions_only=True)
        await put(store, "meanwhile")
        await followed.until(lambda: followed.revision == 1, "a comparison finds what no message tells")
        reason = await followed.stale()
        assert any("silent" in told for state, told in followed.states if state is STALE), reason
        far.wire.thaw()
        await followed.live(1)
        await put(store, "later")
        await followed.live(2)
        assert followed.stats.reloads == {"start": 1}


@pytest.mark.usefixtures("impatient")
async def test_a_network_that_carries_nothing_makes_it_stale_until_it_does(far: Far) -> None:
    async with far.store() as store, Followed(far.relay) as followed:
        await followed.live(0)
        far.wire.freeze()
        await put(store)
        await followed.stale()
        assert followed.revision == 0
        far.wire.thaw()
        await followed.live(1)


async def test_a_reconnection_reads_what_it_missed_and_not_the_whole(far: Far) -> None:
    async with far.store() as store, Followed(far.relay) as followed:
        await followed.live(0)
        far.wire.refusing = True
        far.wire.cut()
        await followed.stale()
        for number in range(1, 1201):
            await put(store, f"flag-{number % 10}", number)
        assert followed.revision == 0
        far.wire.refusing = False
        await followed.live(1200)
        assert [change.revision for change in followed.changes] == list(range(1, 1201))
        assert followed.stats.reloads == {"start": 1}
        assert followed.stats.gaps == 1
        assert followed.stats.connection_losses == 1


async def test_a_relay_that_may_not_write_stays_stale_after_a_failover_and_says_why(far: Far) -> None:
    async with far.store() as store:
        await store.client.execute_command(
            *(
                "ACL",
                "SETUSER",
                "relay",
                "on",
                ">secret",
                "~flagrelay:*",
                "resetchannels",
                "&flagrelay:*",
                "+@all",
                "-hset",
            )
        )
        address = RedisAddress(f"unix://relay:secret@{far.server.folder}/redis.sock")
        async with open_store(address) as relay, Followed(relay) as followed:
            copy, before = await written_copy(store, followed)
            await put_back(store, copy)
            reason = await followed.stale()
            assert "secret" not in reason
            assert re.search("permission|can't run", reason), "Redis's own words, which differ by version"
            assert followed.held is before
            await store.client.execute_command("ACL", "SETUSER", "relay", "+hset")
            await followed.live(10)
            assert followed.held.position.epoch != before.position.epoch


async def test_wrong_credentials_are_told_without_being_shown(far: Far) -> None:
    async with far.store() as store:
        await store.client.execute_command("ACL", "SETUSER", "relay", "on", ">right", "~*", "&*", "+@all")
        async with (
            open_store(RedisAddress(f"unix://relay:hunter2@{far.server.folder}/redis.sock")) as relay,
            Followed(relay) as followed,
        ):
            await followed.until(lambda: followed.states, "it says something")
            assert followed.moves == [CONNECTING]
            assert "hunter2" not in followed.source.reason
            await store.client.execute_command("ACL", "SETUSER", "relay", ">hunter2")
            await followed.live(0)


@pytest.mark.parametrize("seed", range(3))
async def test_connections_that_break_at_any_moment_end_nothing(far: Far, seed: int) -> None:
    rng = random.Random(seed)
    followed = [Followed(far.relay, verify_interval=0.001, longest_wait=0.01) for _ in range(3)]
    async with far.store() as store, followed[0], followed[1], followed[2]:
        for number in range(1, 151):
            await put(store, f"flag-{number % 5}", number)
            await asyncio.sleep(rng.uniform(0.0, 0.004))  # the moment is the test's point
            far.wire.cut()
        for each in followed:
            await each.live(150)
            await each.same_as_redis(store)
            assert each.stats.reloads == {"start": 1}


# -- the clock ----------------------------------------------------------------------------------------------------


async def test_redis_on_this_machine_has_this_machines_clock(redis: Store) -> None:
    async with Followed(redis) as followed:
        await followed.live()
        assert abs(followed.source.clock_offset) < 0.1


async def test_the_clock_offset_is_that_of_the_quickest_of_the_last_answers(
    redis: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([0.0, *[0.05] * 100])

    async def ahead(_store: Store, _environment: str) -> int:
        # A slow answer is slow on its way back, which makes Redis look late by half of it.
        now = round((time() + 30.0) * 1e6)
        await asyncio.sleep(next(answers))
        return now

    monkeypatch.setattr(source_module, "read_clock", ahead)
    async with Followed(redis, verify_interval=0.001) as followed:
        await followed.live()
        await followed.until(lambda: len(followed.source._clock_samples) >= 3, "a few answers")
        assert followed.source.clock_offset == pytest.approx(30.0, abs=0.01)


def test_without_an_answer_the_clocks_are_taken_to_agree() -> None:
    source = Source(
        None,  # type: ignore[arg-type]  # never asked
        ENVIRONMENT,
        on_load=lambda _snapshot: None,
        on_change=lambda _change, _snapshot: None,
    )
    assert source.clock_offset == 0.0


# -- endings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.003, 0.01, 0.03])
async def test_it_ends_when_it_is_cancelled_whatever_it_is_doing(redis: Store, moment: float) -> None:
    for _ in range(3):
        async with Followed(redis, verify_interval=0.001):
            await put(redis)
            await asyncio.sleep(moment)  # the moment is the test's point


async def test_it_knows_when_it_last_stood_where_redis_stood(redis: Store) -> None:
    async with Followed(redis, verify_interval=0.02) as followed:
        await followed.live()
        first = followed.source.confirmed_at
        assert abs(asyncio.get_running_loop().time() - first) < 5
        await followed.until(lambda: followed.source.confirmed_at > first, "a comparison confirms it")
        await redis.client.flushall()
        await followed.stale()
        last = followed.source.confirmed_at
        await followed.until(lambda: followed.moves.count(STALE) >= 3, "it goes on trying")
        assert followed.source.confirmed_at == last
