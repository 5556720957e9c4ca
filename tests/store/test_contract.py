"""What a source asks of a store, of the real one and of the one that models rule: the same must hold for both."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from flagrelay.errors import ChangelogTrimmed, EnvironmentMissing
from flagrelay.flags.position import Position
from flagrelay.store import changelog, reading, subscription, writing
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.writing import Draft, write_change
from flagrelay.wire.message import decode_change
from support import simulation
from support.fakes import definition
from support.simulation import ModelRedis, Way
from support.stores import ENVIRONMENT


class Subject(Protocol):
    """A store, the functions by which a source asks it, and the means to change what it has."""

    store: Any
    functions: dict[str, Any]

    async def write(self, number: int) -> None: ...
    async def trim(self, most: int) -> None: ...
    async def destroy(self) -> None: ...


class Real:
    def __init__(self, store: Store) -> None:
        self.store = store
        modules = (subscription, reading, changelog, writing)
        self.functions = {
            name: getattr(module, name)
            for name in simulation.FUNCTIONS
            for module in modules
            if getattr(getattr(module, name, None), "__module__", "") == module.__name__
        }

    async def write(self, number: int) -> None:
        await write_change(
            self.store, ENVIRONMENT, Draft(flags={f"flag-{number % 3}": definition(number)}, actor="ada")
        )

    async def trim(self, most: int) -> None:
        await self.store.client.xtrim(self.store.keys.changes(ENVIRONMENT), maxlen=most, approximate=False)

    async def destroy(self) -> None:
        await destroy_environment(self.store, ENVIRONMENT)


class Model:
    def __init__(self) -> None:
        self.redis = ModelRedis(random.Random(1))
        self.redis.create()
        self.store = Way(self.redis)
        self.functions = simulation.FUNCTIONS

    async def write(self, number: int) -> None:
        self.redis.write(f"flag-{number % 3}", definition(number))

    async def trim(self, most: int) -> None:
        self.redis.trim(most)

    async def destroy(self) -> None:
        self.redis.flush()


@pytest.fixture(params=["real", "model"])
async def subject(request: pytest.FixtureRequest, store: Store) -> AsyncIterator[Subject]:
    if request.param == "real":
        await create_environment(store, ENVIRONMENT)
        yield Real(store)
    else:
        yield Model()


async def ask(subject: Subject, name: str, *arguments: Any, **options: Any) -> Any:
    return await subject.functions[name](subject.store, ENVIRONMENT, *arguments, **options)


def test_the_model_stands_for_every_function_that_the_real_one_has(store: Store) -> None:
    assert Real(store).functions.keys() == simulation.FUNCTIONS.keys()


async def test_a_write_is_one_revision_and_another_nonce(subject: Subject) -> None:
    before = await ask(subject, "read_position")
    assert before.revision == 0
    await subject.write(1)
    after = await ask(subject, "read_position")
    assert (after.epoch, after.revision) == (before.epoch, 1)
    assert after.nonce != before.nonce


async def test_changes_lead_from_one_snapshot_to_the_next(subject: Subject) -> None:
    start = await ask(subject, "read_snapshot")
    for number in range(5):
        await subject.write(number)
    changes = await ask(subject, "read_changes", 0)
    assert [change.revision for change in changes] == [1, 2, 3, 4, 5]
    for change in changes:
        start = start.with_change(change)
    assert start == await ask(subject, "read_snapshot")
    assert await ask(subject, "read_changes", 5) == []
    assert await ask(subject, "read_changes", 3) == changes[3:]
    recent = await ask(subject, "read_recent_changes", start.position, most=2, most_bytes=100_000)
    assert recent == changes[3:]
    assert await ask(subject, "read_recent_changes", start.position, most=0, most_bytes=0) == []


async def test_a_changelog_that_was_trimmed_says_so(subject: Subject) -> None:
    for number in range(5):
        await subject.write(number)
    await subject.trim(2)
    with pytest.raises(ChangelogTrimmed):
        await ask(subject, "read_changes", 1)
    assert [change.revision for change in await ask(subject, "read_changes", 3)] == [4, 5]
    position = await ask(subject, "read_position")
    recent = await ask(subject, "read_recent_changes", position, most=10, most_bytes=100_000)
    assert [change.revision for change in recent] == [4, 5]


async def test_an_epoch_is_renewed_once_and_only_where_nobody_has_written_since(subject: Subject) -> None:
    await subject.write(1)
    seen = await ask(subject, "read_position")
    renewed = await ask(subject, "renew_epoch", seen)
    assert renewed.epoch != seen.epoch
    assert (renewed.revision, renewed.nonce) == (seen.revision, seen.nonce)
    assert await ask(subject, "renew_epoch", seen) == renewed, "who comes second gets what the first has made"
    await subject.write(2)
    assert (await ask(subject, "renew_epoch", renewed)).epoch == renewed.epoch
    fits = await ask(subject, "read_recent_changes", await ask(subject, "read_position"), most=9, most_bytes=100_000)
    assert [change.revision for change in fits] == [2], "what was written under another epoch is another history"


async def test_a_subscription_hears_what_is_written_after_it(subject: Subject) -> None:
    async with subject.functions["subscribe"](subject.store, ENVIRONMENT) as heard:
        before = heard.last_heard
        await subject.write(1)
        await subject.write(2)
        messages = [await heard.next(5), await heard.next(5)]
        assert [decode_change(message).revision for message in messages] == [1, 2]
        assert await heard.next(0.01) is None
        await heard.ping()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while heard.last_heard <= before:
                    await heard.next(0.01)
        assert heard.last_heard > before


async def test_what_is_not_there_is_missing(subject: Subject) -> None:
    await subject.destroy()
    for name in ("read_position", "read_snapshot"):
        with pytest.raises(EnvironmentMissing):
            await ask(subject, name)
    with pytest.raises(EnvironmentMissing):
        await ask(subject, "renew_epoch", Position("e", 1, "n"))


async def test_the_clock_is_in_microseconds(subject: Subject) -> None:
    first = await ask(subject, "read_clock")
    await asyncio.sleep(0.01)
    assert 5_000 < await ask(subject, "read_clock") - first < 5_000_000
