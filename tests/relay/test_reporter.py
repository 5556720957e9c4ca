"""What a relay reports of its streams: never before they have it, soon after they have, and not too often."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.cli.private_redis import private_redis
from flagrelay.flags.position import Position
from flagrelay.relay import reporter as reporter_module
from flagrelay.relay.pipeline import Pipeline, PipelineOptions
from flagrelay.relay.reconcile import KillState
from flagrelay.relay.relay import Relay
from flagrelay.relay.reporter import APART, Reporter, Reporting
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.relay.subscriber import Subscriber
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reports import MAX_KILLS, Report, read_reports, write_report
from flagrelay.store.writing import Draft, renew_epoch, write_change
from flagrelay.wire.frame import Framing
from support.fakes import FakeTransport, definition
from support.sources import ENVIRONMENT, NEVER, end, no_tracebacks, put, until


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What was logged; a traceback fails the test."""
    with no_tracebacks(caplog) as entries:
        yield entries


@contextlib.asynccontextmanager
async def running(
    store: Store, *, interval: float = NEVER, worker: int = 1, workers: int = 1, **options: Any
) -> AsyncIterator[Pipeline]:
    """A pipeline that reports, as `relay-1`."""
    quick: dict[str, Any] = {"verify_interval": 0.05, "backoff_min": 0.01, "backoff_max": 0.05}
    pipeline = Pipeline(
        store,
        ENVIRONMENT,
        PipelineOptions(**{**quick, "heartbeat_interval": NEVER, **options}),
        reporting=Reporting(relay="relay-1", worker=worker, workers=workers, interval=interval),
    )
    before = asyncio.all_tasks()
    task = asyncio.create_task(pipeline.run())
    failing = True
    try:
        yield pipeline
        failing = False
    finally:
        await end(task, before, failing=failing)


async def reports(store: Store) -> tuple[Report, ...]:
    return (await read_reports(store, ENVIRONMENT)).reports


async def reported(store: Store, revision: int, *, source: str = "live") -> Report:
    """Wait until the one process that reports says that its streams have a revision."""
    async with asyncio.timeout(10):
        while True:
            said = await reports(store)
            if said and (said[0].revision, said[0].source) == (revision, source):
                [report] = said
                return report
            await asyncio.sleep(0.005)


def open_stream(pipeline: Pipeline, kind: str = "definitions") -> FakeTransport:
    hub = pipeline.hubs[kind]
    transport = FakeTransport()
    subscriber = Subscriber(hub, transport, framing=Framing.PLAIN, key_id="k", ends_at=float("inf"))
    transport.subscriber = subscriber
    transport.write(b"".join(hub.join(subscriber, "")[1]))
    return transport


def stalled(pipeline: Pipeline) -> FakeTransport:
    """A stream whose client does not read, with room for more."""
    transport = open_stream(pipeline)
    transport.stall()
    transport._high_water = 1_000_000
    return transport


# -- with a real Redis --------------------------------------------------------------------------------------------


async def test_what_was_loaded_whole_is_reported_without_a_time(redis: Store) -> None:
    await put(redis)
    async with running(redis) as pipeline:
        report = await reported(redis, 1)
        assert (report.epoch, report.ms) == (pipeline.held().position.epoch, None)
        assert (report.relay, report.worker, report.workers) == ("relay-1", 1, 1)
        assert (report.streams, report.written, report.lagging) == (0, 0, 0)


async def test_a_change_is_reported_with_its_streams_and_its_time(redis: Store) -> None:
    async with running(redis) as pipeline:
        await reported(redis, 0)
        for kind in ("definitions", "definitions", "events"):
            open_stream(pipeline, kind)
        slow = open_stream(pipeline)
        slow.stall()
        for number in (1, 2):
            await write_change(redis, ENVIRONMENT, Draft(flags={"flag": definition(number)}, urgent=True))
        report = await reported(redis, 2)
        assert (report.streams, report.written, report.lagging) == (4, 3, 1)
        assert report.kills == {}
        assert report.ms is not None
        assert 0 <= report.ms < 5000


async def test_bytes_that_a_client_has_not_taken_count_as_lagging_although_there_is_room_for_more(
    redis: Store,
) -> None:
    async with running(redis) as pipeline:
        await reported(redis, 0)
        slow = stalled(pipeline)
        open_stream(pipeline)
        await put(redis)
        report = await reported(redis, 1)
        assert not slow.paused
        assert (report.streams, report.written, report.lagging) == (2, 1, 1)
        slow.read()
        await put(redis)
        assert (await reported(redis, 2)).lagging == 0


async def test_bytes_that_leave_at_the_end_of_a_turn_are_not_taken_for_a_client_that_does_not_read(
    redis: Store,
) -> None:
    async with running(redis) as pipeline:
        await reported(redis, 0)
        late = stalled(pipeline)
        await put(redis)
        await until(lambda: late.buffered, "it is written to")
        late.read()
        assert (await reported(redis, 1)).lagging == 0


async def test_a_kill_of_the_relays_own_is_reported_until_every_stream_shows_what_redis_says(redis: Store) -> None:
    async def kills(expected: dict[str, str]) -> None:
        async with asyncio.timeout(10):
            while [report.kills for report in await reports(redis)] != [expected]:
                await asyncio.sleep(0.005)

    await put(redis)
    async with running(redis) as pipeline:
        await reported(redis, 1)
        kill = pipeline.draft_kill("flag", to=None, actor="ada", reason="error rate")
        pipeline.local_kills._told = AsyncMock(return_value=(KillState.CONFLICT, "another's", None))  # type: ignore[method-assign]
        await pipeline.hold(kill)
        await kills({"flag": "conflict"})
        await pipeline.withdraw("flag")
        await kills({})


async def test_another_history_is_reported_as_one(redis: Store) -> None:
    await put(redis)
    async with running(redis) as pipeline:
        before = await reported(redis, 1)
        await renew_epoch(redis, ENVIRONMENT, pipeline.held().position)
        await until(lambda: pipeline.held().position.epoch != before.epoch, "the other history")
        async with asyncio.timeout(10):
            while (await reported(redis, 1)).epoch == before.epoch:
                await asyncio.sleep(0.005)


async def test_it_reports_now_and_then_although_nothing_happens(redis: Store) -> None:
    async with running(redis, interval=0.05) as pipeline:
        first = await reported(redis, 0)
        open_stream(pipeline)
        async with asyncio.timeout(10):
            while (await reported(redis, 0)).streams == 0:
                await asyncio.sleep(0.005)
        assert (await reported(redis, 0)).seen > first.seen
        assert first.interval == 0.05


async def test_nothing_is_reported_before_the_last_hub_has_it(redis: Store) -> None:
    async with running(redis, refetch_spread=NEVER) as pipeline:
        await reported(redis, 0)
        for _ in range(5):
            open_stream(pipeline, "events")
        before = pipeline.stats.reports["ok"]
        await put(redis)
        await until(lambda: pipeline.held().position.revision == 1, "the change is there")
        assert pipeline.reporter
        pipeline.reporter.changed()
        await until(lambda: pipeline.stats.reports["ok"] > before, "another report")
        [report] = await reports(redis)
        assert report.revision == 0, "four OFREP clients have not been told"
        await write_change(redis, ENVIRONMENT, Draft(flags={"flag": definition(2)}, urgent=True))
        assert (await reported(redis, 2)).streams == 5


async def test_each_worker_of_a_node_reports_for_itself(redis: Store) -> None:
    async def said(*expected: tuple[int, int, int]) -> None:
        async with asyncio.timeout(10):
            while tuple((r.worker, r.workers, r.revision) for r in await reports(redis)) != expected:
                await asyncio.sleep(0.005)

    async with running(redis, worker=1, workers=2):
        await said((1, 2, 0))
        async with running(redis, worker=2, workers=2):
            await put(redis)
            await said((1, 2, 1), (2, 2, 1))


async def test_a_source_that_is_lost_is_reported_as_stale_and_its_return_at_once(redis: Store) -> None:
    async with running(redis, interval=0.02, verify_interval=NEVER) as pipeline:
        await reported(redis, 0)
        pipeline.source._lose("a test")
        await reported(redis, 0, source="stale")
    async with running(redis) as pipeline:
        await reported(redis, 0)
        await redis.client.client_kill_filter(_type="pubsub")
        await until(lambda: pipeline.stats.connection_losses, "it is lost")
        await reported(redis, 0)


async def test_a_relay_that_drains_is_forgotten_and_stays_so(redis: Store) -> None:
    reporting = Reporting(relay="relay-1", interval=0.01)
    relay = Relay(redis, [ENVIRONMENT], PipelineOptions(), reporting=reporting)
    before = asyncio.all_tasks()
    task = asyncio.create_task(relay.run())
    await reported(redis, 0)
    await write_report(redis, ENVIRONMENT, Report(relay="other", epoch="e", revision=0, source="live", **ZERO))
    await relay.drain(spread=0.0, timeout=0.1)
    await put(redis)
    await until(lambda: relay.pipelines[ENVIRONMENT].held().position.revision == 1, "it follows on")
    assert [report.relay for report in await reports(redis)] == ["other"]
    await relay.withdraw_reports()
    await end(task, before, failing=False)


ZERO: dict[str, Any] = {"streams": 0, "written": 0, "lagging": 0, "interval": 5.0}


async def test_a_relay_without_rights_to_write_says_so_once_and_serves_all_the_same(logged: list[Any]) -> None:
    with private_redis() as server:
        async with open_store(RedisAddress(server.url)) as admin:
            await create_environment(admin, ENVIRONMENT)
            rights = ["~*", "&*", "+@all", "-hset"]
            await admin.client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">pass", *rights)
            address = RedisAddress(server.url.replace("unix://", "unix://reader:pass@"))
            async with open_store(address) as reader, running(reader, interval=0.01) as pipeline:
                await until(lambda: pipeline.stats.reports["failed"] > 3, "it has tried often")
                transport = open_stream(pipeline)
                await put(admin)
                await until(lambda: b"event: patch" in transport.received, "the change")
                await asyncio.wait_for(pipeline.withdraw_report(), 5)
    complaints = [entry for entry in logged if entry["event"] == "cannot report what streams have"]
    assert len(complaints) == 1
    assert complaints[0]["environment"] == ENVIRONMENT


async def test_a_redis_that_goes_is_no_end_and_is_told_when_it_is_back(tmp_path: Path) -> None:
    async with open_store(RedisAddress(f"unix://{tmp_path}/redis.sock")) as store:
        with private_redis("--save", "", folder=tmp_path):
            await create_environment(store, ENVIRONMENT)
            async with running(store, interval=0.02) as pipeline:
                await reported(store, 0)
                failed = pipeline.stats.reports["failed"]
                await store.client.flushall()
                await until(lambda: pipeline.stats.reports["failed"] > failed, "there is no environment to report to")
                assert await reports(store) == ()
                await create_environment(store, ENVIRONMENT)
                await reported(store, 0)


# -- when it reports ----------------------------------------------------------------------------------------------


class Writes:
    """Reports, written nowhere; each takes as long as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reports: list[tuple[float, Report]] = []
        self.sweeps = 0
        self.free = asyncio.Event()
        self.free.set()
        monkeypatch.setattr(reporter_module, "write_report", self.write)

    async def write(self, _store: Store, _environment: str, report: Report, *, sweep: bool) -> bool:
        self.reports.append((asyncio.get_running_loop().time(), report))
        self.sweeps += sweep
        await self.free.wait()
        return True

    @property
    def revisions(self) -> list[int]:
        return [report.revision for _, report in self.reports]


class NoStreams:
    """A hub's side towards a reporter."""

    subscribers: tuple[()] = ()

    underway = False

    def unsent(self) -> list[Subscriber]:
        return []


def make_reporter(kinds: str = "a", interval: float = NEVER) -> Reporter:
    hubs: Any = {kind: NoStreams() for kind in kinds}
    nowhere: Any = None
    return Reporter(
        nowhere,
        ENVIRONMENT,
        Reporting(relay="r", interval=interval),
        hubs,
        live=lambda: True,
        kills=dict,
        clock_offset=lambda: 0.0,
        stats=Stats(),
    )


def delivery(revision: int, *, at: int = 0, last: float = 0.0) -> Delivery:
    position = Position("e0", revision, f"nonce {revision}")
    return Delivery(position=position, at=at, first=last, last=last, streams=0)


@contextlib.asynccontextmanager
async def reporting(reporter: Reporter) -> AsyncIterator[None]:
    task = asyncio.create_task(reporter.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_kill_that_has_ended_is_said_until_streams_have_been_told_and_of_many_some_are_named() -> None:
    reporter = make_reporter()
    [hub] = reporter._hubs.values()
    reporter.delivered("a", delivery(1))
    shown = {str(number): "conflict" for number in range(MAX_KILLS + 3)}
    for kills, underway, expected in ((shown, False, shown), ({}, True, shown), ({}, False, {})):
        reporter._kills = lambda kills=kills: kills  # type: ignore[misc]  # bound on purpose
        hub.underway = underway  # type: ignore[misc]  # NoStreams has it as it is set
        report = await reporter.report()
        assert report
        assert len(report.kills) + report.more_kills == len(expected)
        assert report.kills.items() <= expected.items()
        assert len(report.kills) <= MAX_KILLS


async def test_many_changes_are_few_reports_and_the_last_of_them_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, reporter = Writes(monkeypatch), make_reporter()
    async with reporting(reporter):
        for revision in range(1, 200):
            reporter.delivered("a", delivery(revision))
            await asyncio.sleep(0.001)
        await until(lambda: 199 in writes.revisions, "the last")
    times = [at for at, _ in writes.reports]
    assert all(later - earlier >= APART * 0.9 for earlier, later in itertools.pairwise(times))
    assert writes.revisions[0] == 1, "the first is not kept waiting"
    assert len(writes.reports) < 20


async def test_a_redis_that_is_slow_holds_up_nothing_and_gets_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, reporter = Writes(monkeypatch), make_reporter()
    async with reporting(reporter):
        writes.free.clear()
        for revision in (1, 2, 3):
            reporter.delivered("a", delivery(revision))
            await until(lambda: writes.reports, "it has begun to write")
        writes.free.set()
        await until(lambda: len(writes.reports) > 1, "it writes again")
        assert writes.revisions == [1, 3]


async def test_it_looks_for_the_forgotten_at_its_interval_however_often_it_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporter_module, "APART", 0.0)
    writes, reporter = Writes(monkeypatch), make_reporter(interval=30.0)
    async with reporting(reporter):
        for revision in range(1, 6):
            reporter.delivered("a", delivery(revision))
            await until(lambda revision=revision: revision in writes.revisions, "it is reported")  # type: ignore[misc]  # bound on purpose
    assert (len(writes.reports), writes.sweeps) == (5, 1)


async def test_the_time_of_a_change_is_that_of_the_last_hub_by_redis_clock() -> None:
    reporter = make_reporter("ab")
    reporter._clock_offset = lambda: 2.0
    at = 1_000_000_000
    reporter.delivered("a", delivery(1, at=at, last=998.1))
    assert await reporter.report() is None
    reporter.delivered("b", delivery(1, at=at, last=998.3))
    report = await reporter.report()
    assert report
    assert report.ms == 300.0


async def test_a_kill_of_the_relays_own_is_no_other_revision() -> None:
    reporter = make_reporter()
    reporter.delivered("a", delivery(7, at=1_000_000, last=1.5))
    reporter.delivered("a", delivery(7, at=5_000_000, last=5.1))
    report = await reporter.report()
    assert report
    assert (report.revision, report.ms) == (7, 500.0)


@given(st.lists(st.sampled_from("abc"), max_size=60))
async def test_only_what_every_hub_has_delivered_is_ever_said_and_always_the_newest_of_it(order: list[str]) -> None:
    reporter = make_reporter("abc")
    delivered = dict.fromkeys("abc", 0)
    for kind in order:
        delivered[kind] += 1
        reporter.delivered(kind, delivery(delivered[kind]))
        report = await reporter.report()
        assert (report.revision if report else 0) == min(delivered.values())


async def test_it_ends_when_it_is_cancelled_while_redis_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    writes, reporter = Writes(monkeypatch), make_reporter()
    writes.free.clear()
    task = asyncio.create_task(reporter.run())
    reporter.delivered("a", delivery(1))
    await until(lambda: writes.reports, "it writes")
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def test_a_redis_that_says_nothing_does_not_keep_a_relay_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter_module, "WITHDRAWAL", 0.05)
    writes, reporter = Writes(monkeypatch), make_reporter()
    async with reporting(reporter):
        writes.free.clear()
        reporter.delivered("a", delivery(1))
        await until(lambda: writes.reports, "it writes")
        async with asyncio.timeout(5):
            await reporter.withdraw()
