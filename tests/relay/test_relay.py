"""All environments of one process: which are followed, and how they end."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from flagrelay.cli.private_redis import private_redis
from flagrelay.relay import relay as relay_module
from flagrelay.relay.pipeline import PipelineOptions
from flagrelay.relay.relay import Relay
from flagrelay.relay.subscriber import Subscriber
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import EnvironmentSummary, create_environment, destroy_environment, list_environments
from flagrelay.wire.frame import Framing
from support.fakes import FakeTransport
from support.sources import NEVER, end, no_tracebacks, put, until

OPTIONS = PipelineOptions(verify_interval=0.05, backoff_min=0.01, backoff_max=0.05, heartbeat_interval=NEVER)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What was logged; a traceback fails the test."""
    with no_tracebacks(caplog) as entries:
        yield entries


class Running:
    """A relay that runs, on environments that are named or found."""

    def __init__(self, store: Store, *environments: str, discover_interval: float = 0.02) -> None:
        self.relay = Relay(store, environments, OPTIONS, discover_interval=discover_interval)

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        self._task = asyncio.create_task(self.relay.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._task, self._before, failing=kind is not None)

    async def finds(self, environment: str) -> None:
        """Wait until it follows one more."""
        await until(lambda: environment in self.relay.pipelines, f"it has found {environment}")

    async def follows(self, *environments: str) -> None:
        """Wait until exactly these are followed, and live."""

        def all_live() -> bool:
            pipelines = self.relay.pipelines
            return pipelines.keys() == set(environments) and all(each.live for each in pipelines.values())

        await until(lambda: self._task.done() or all_live(), f"{environments} are live")
        assert not self._task.done()


async def test_it_follows_the_environments_that_are_named_and_no_others(store: Store) -> None:
    for name in ("production", "staging", "other"):
        await create_environment(store, name)
    async with Running(store, "production", "staging") as running:
        assert not running.relay.discovers
        await running.follows("production", "staging")
        await put(store, "here", environment="staging")
        staging = running.relay.pipelines["staging"]
        await until(lambda: "here" in staging.held().flags, "the change")
        assert running.relay.pipelines["production"].held().flags == {}


async def test_an_environment_that_is_named_and_does_not_exist_yet_is_waited_for(store: Store) -> None:
    async with Running(store, "production") as running:
        await until(
            lambda: [each for each in running.relay.pipelines.values() if "env create" in each.source.reason],
            "it says what is missing",
        )
        await create_environment(store, "production")
        await running.follows("production")


async def test_with_no_names_it_finds_every_environment_and_new_ones_as_they_come(store: Store) -> None:
    await create_environment(store, "production")
    async with Running(store) as running:
        assert running.relay.discovers
        await running.follows("production")
        pipeline = running.relay.pipelines["production"]
        await create_environment(store, "staging")
        await running.follows("production", "staging")
        assert running.relay.pipelines["production"] is pipeline


async def test_it_starts_with_no_environment_at_all(store: Store) -> None:
    async with Running(store) as running:
        await until(lambda: running.relay._tasks, "it runs")
        await create_environment(store, "first")
        await running.follows("first")


async def test_a_hint_makes_it_look_at_once(store: Store) -> None:
    await create_environment(store, "production")
    async with Running(store, discover_interval=NEVER) as running:
        await running.follows("production")
        for name in ("one", "two"):
            await create_environment(store, name)
            running.relay.look()
            await running.finds(name)
        await running.follows("production", "one", "two")


async def test_a_hint_makes_it_look_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def counted(store: Store) -> list[EnvironmentSummary]:
        nonlocal looks
        looks += 1
        return await list_environments(store)

    monkeypatch.setattr(relay_module, "list_environments", counted)
    async with Running(store, discover_interval=NEVER) as running:
        await until(lambda: looks == 1, "the first look")
        running.relay.look()
        await until(lambda: looks == 2, "another look")
        for _ in range(10):
            await store.client.ping()  # the time that further looks would take
        assert looks == 2


async def test_an_environment_that_is_destroyed_goes_on_being_served_as_it_was(store: Store) -> None:
    await create_environment(store, "production")
    await put(store, "kept", environment="production")
    async with Running(store) as running:
        await running.follows("production")
        pipeline = running.relay.pipelines["production"]
        await until(lambda: pipeline.held().flags, "its flags")
        await destroy_environment(store, "production")
        await until(lambda: not pipeline.live, "it is stale")
        assert pipeline.held().flags.keys() == {"kept"}
        await create_environment(store, "production")
        await running.follows("production")
        assert running.relay.pipelines["production"] is pipeline


async def test_names_without_an_environment_are_not_followed(store: Store) -> None:
    await create_environment(store, "production")
    await store.client.sadd(store.keys.environments, "ghost", "", b"\xff\xfe", "a b", "x" * 10_000)
    async with Running(store) as running:
        await running.follows("production")
        await create_environment(store, "staging")
        await running.follows("production", "staging")


async def test_without_redis_it_goes_on_looking_and_says_so_once(tmp_path: Path, logged: list[Any]) -> None:
    async with open_store(RedisAddress(f"unix://{tmp_path}/redis.sock")) as store, Running(store) as running:
        await until(lambda: logged, "a warning")
        with private_redis(folder=tmp_path):
            await create_environment(store, "production")
            await running.follows("production")
            complaints = [entry for entry in logged if entry["event"] == "cannot look for environments"]
            assert len(complaints) == 1
            assert "redis.sock" in complaints[0]["reason"]


async def test_draining_ends_the_streams_of_all_environments(store: Store) -> None:
    for name in ("production", "staging"):
        await create_environment(store, name)
    async with Running(store) as running:
        await running.follows("production", "staging")
        transports = []
        for pipeline in running.relay.pipelines.values():
            transports.append(FakeTransport())
            subscriber = Subscriber(
                pipeline.hub, transports[-1], framing=Framing.PLAIN, key_id="k", ends_at=float("inf")
            )
            transports[-1].subscriber = subscriber
            transports[-1].write(b"".join(pipeline.hub.join(subscriber, "")[1]))
        assert running.relay.streams == 2
        await running.relay.drain(spread=1.0, timeout=0.05)
        assert running.relay.draining
        assert running.relay.streams == 0
        for transport in transports:
            assert b"event: goodbye" in transport.received
            assert transport.closed


async def test_a_cancellation_that_a_library_has_swallowed_is_heeded_nevertheless(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = asyncio.Event()

    async def deaf(_store: Store) -> list[EnvironmentSummary]:
        looking.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(NEVER)
        return []

    monkeypatch.setattr(relay_module, "list_environments", deaf)
    async with Running(store, discover_interval=NEVER):
        await looking.wait()


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.005, 0.01, 0.02])
@pytest.mark.parametrize("named", [(), ("production", "missing")])
async def test_it_ends_when_it_is_cancelled_whatever_it_is_doing(
    store: Store, moment: float, named: tuple[str, ...]
) -> None:
    for name in ("production", "staging"):
        await create_environment(store, name)
    async with Running(store, *named, discover_interval=0.001):
        await asyncio.sleep(moment)  # the moment is the test's point
