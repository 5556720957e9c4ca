"""One environment, from a real Redis to streams whose clients a test plays."""

import asyncio
import json
import random
from types import TracebackType
from typing import Any, Self

import pytest

from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay import pipeline as pipeline_module
from flagrelay.relay import source as source_module
from flagrelay.relay.hub import Resume
from flagrelay.relay.pipeline import Pipeline, PipelineOptions
from flagrelay.relay.stats import Delivery
from flagrelay.relay.subscriber import Subscriber
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.reading import read_position, read_snapshot
from flagrelay.store.writing import renew_epoch
from flagrelay.wire.event_id import format_event_id
from flagrelay.wire.frame import Framing
from flagrelay.wire.sse import EventParser
from support.fakes import FakeTransport, definition
from support.sources import ENVIRONMENT, NEVER, Hands, end, put, until
from support.streams import Replica

pytestmark = pytest.mark.usefixtures("logged")


class Stream:
    """One open stream and its client, who breaks no rule and forgives none."""

    def __init__(self, pipeline: Pipeline, last_event_id: str = "", *, trust_ahead: bool = False) -> None:
        self.transport = FakeTransport()
        self.parser = EventParser()
        self.replica = Replica()
        self.heartbeats: list[dict[str, Any]] = []
        self.goodbye = ""
        self._taken = 0
        subscriber = Subscriber(pipeline.hub, self.transport, framing=Framing.PLAIN, key_id="k", ends_at=float("inf"))
        self.transport.subscriber = self.subscriber = subscriber
        self.resume, start = pipeline.hub.join(subscriber, last_event_id, trust_ahead=trust_ahead)
        self.transport.write(b"".join(start))

    def take(self) -> Replica:
        """The client reads what has come."""
        data, self._taken = self.transport.received[self._taken :], len(self.transport.received)
        for event in self.parser.feed(data):
            self.replica.take(event)
            if event.type == "heartbeat":
                self.heartbeats.append(json.loads(event.data))
            elif event.type == "goodbye":
                self.goodbye = json.loads(event.data)["reason"]
        return self.replica

    async def heartbeat(self, source: str, *, age: int = 0) -> dict[str, Any]:
        """Wait until the last heartbeat is of a live or a stale source, and of an age (ms) at least."""

        def came() -> bool:
            self.take()
            return (
                bool(self.heartbeats)
                and self.heartbeats[-1]["source"] == source
                and self.heartbeats[-1]["age_ms"] >= age
            )

        await until(came, f"a heartbeat of a {source} source")
        return self.heartbeats[-1]

    def leave(self) -> str:
        """The client goes, with the id that it would come back with."""
        event_id = self.take().event_id
        self.transport.abort()
        return event_id


class Running:
    """A pipeline that runs."""

    def __init__(self, store: Store, **options: float) -> None:
        quick = {"verify_interval": 0.05, "backoff_min": 0.01, "backoff_max": 0.05, "heartbeat_interval": NEVER}
        self.delivered: list[Delivery] = []
        self.pipeline = Pipeline(
            store,
            ENVIRONMENT,
            PipelineOptions(**{**quick, **options}),  # type: ignore[arg-type]  # those that are int are not given
            on_delivered=lambda _pipeline, delivery: self.delivered.append(delivery),
        )

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        self._task = asyncio.create_task(self.pipeline.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._task, self._before, failing=kind is not None)

    @property
    def position(self) -> Position:
        return self.pipeline.held().position

    @property
    def event_id(self) -> str:
        return format_event_id(self.position.epoch, self.position.revision)

    async def live(self, revision: int) -> None:
        await until(
            lambda: self.pipeline.live and self.position.revision == revision,
            f"live at {revision}; {self.pipeline.source.state}: {self.pipeline.source.reason}",
        )


async def test_a_change_in_redis_is_the_next_event_of_every_stream(redis: Store) -> None:
    await put(redis, "there")
    async with Running(redis, verify_interval=NEVER) as running:
        await running.live(1)
        streams = [Stream(running.pipeline) for _ in range(50)]
        written = await put(redis, "new", 3)
        await until(lambda: running.delivered, "the change is delivered")
        assert [delivery.at for delivery in running.delivered] == [written.at]
        assert running.delivered[0].streams == 50
        for stream in streams:
            assert stream.resume is Resume.FULL
            replica = stream.take()
            assert (replica.puts, replica.patches) == (1, 1)
            assert replica.flags == {"there": definition(1), "new": definition(3)}
            assert replica.event_id == running.event_id


async def test_another_history_is_the_next_put_of_every_stream(redis: Store) -> None:
    await put(redis, "old")
    async with Running(redis) as running:
        await running.live(1)
        streams = [Stream(running.pipeline) for _ in range(50)]
        epoch = running.position.epoch
        await destroy_environment(redis, ENVIRONMENT)
        await create_environment(redis, ENVIRONMENT)
        await put(redis, "new")
        await until(lambda: running.position.epoch != epoch and running.position.revision == 1, "the new history")
        await until(
            lambda: all(stream.take().event_id == running.event_id for stream in streams), "every client has it"
        )
        for stream in streams:
            assert stream.replica.flags.keys() == {"new"}


async def test_nothing_is_held_before_it_is_loaded(store: Store) -> None:
    async with Running(store) as running:
        await until(lambda: "does not exist" in running.pipeline.source.reason, "it has looked")
        assert not running.pipeline.hub.loaded
        assert not running.pipeline.live
        assert running.pipeline.snapshot is None
        with pytest.raises(RuntimeError, match=f'environment "{ENVIRONMENT}" has not been loaded yet'):
            running.pipeline.held()
        await create_environment(store, ENVIRONMENT)
        await running.live(0)
        assert running.pipeline.hub.loaded


async def test_heartbeats_say_how_fresh_the_flags_are(redis: Store) -> None:
    await put(redis)
    async with Running(redis, heartbeat_interval=0.01) as running:
        await running.live(1)
        stream = Stream(running.pipeline)
        fresh = await stream.heartbeat("live")
        assert fresh["revision"] == 1
        assert 0 <= fresh["age_ms"] < 5000
        await redis.client.flushall()
        stale = await stream.heartbeat("stale")
        assert stale["revision"] == 1
        await stream.heartbeat("stale", age=stale["age_ms"] + 20)
        assert stream.replica.flags == {"flag": definition(1)}, "and the flags stay"
        assert not stream.goodbye
        await create_environment(redis, ENVIRONMENT)
        await stream.heartbeat("live")


async def test_a_stream_whose_lifetime_is_over_is_told_so_without_anybody_asking(redis: Store) -> None:
    async with Running(redis) as running:
        await running.live(0)
        stream, other = Stream(running.pipeline), Stream(running.pipeline)
        stream.subscriber.ends_at = 0.0
        await until(lambda: stream.transport.closed, "it is closed")
        stream.take()
        assert stream.goodbye == "lifetime"
        assert not other.transport.closed


async def test_losing_redis_is_told_to_whoever_reads_the_log_and_so_is_its_return(
    redis: Store, logged: list[Any]
) -> None:
    async with Running(redis) as running:
        await running.live(0)
        await redis.client.flushall()
        await until(lambda: any(entry["log_level"] == "warning" for entry in logged), "a warning")
        warning = next(entry for entry in logged if entry["log_level"] == "warning")
        assert warning["environment"] == ENVIRONMENT
        assert warning["state"] == "stale"
        assert "does not exist in Redis" in warning["reason"]
        await create_environment(redis, ENVIRONMENT)
        await running.live(0)
        assert (logged[-1]["log_level"], logged[-1]["state"]) == ("info", "live")


async def test_streams_that_come_and_go_while_redis_is_shaken_end_where_redis_stands(redis: Store) -> None:
    rng = random.Random(7)
    async with Running(redis, changes_held=20) as running:
        await running.live(0)
        streams = [Stream(running.pipeline) for _ in range(20)]

        async def write() -> None:
            for number in range(400):
                await put(redis, f"flag-{number % 11}", number)

        writer = asyncio.create_task(write())
        while not writer.done():
            await asyncio.sleep(0)
            chosen = rng.randrange(len(streams))
            match rng.randrange(20):
                case 0:
                    streams[chosen].transport.stall()
                case 1 | 2:
                    streams[chosen].transport.read()
                case 3:
                    event_id = streams[chosen].leave()
                    replica = streams[chosen].replica
                    trust = await running.pipeline.settle(event_id)
                    streams[chosen] = Stream(running.pipeline, event_id, trust_ahead=trust)
                    streams[chosen].replica = replica
                    assert streams[chosen].resume is not Resume.FULL or replica.revision < running.position.revision
                case 4 if rng.random() < 0.1:
                    await redis.client.client_kill_filter(_type="pubsub")
        await writer
        await running.live(400)
        for stream in streams:
            stream.transport.read()
        await until(lambda: all(stream.take().revision == 400 for stream in streams), "every client has everything")
        snapshot = await read_snapshot(redis, ENVIRONMENT)
        assert all(stream.replica.flags == snapshot.flags for stream in streams)
        assert running.pipeline.stats.reloads == {"start": 1}


# -- a client that is ahead (docs/decisions/0004) -----------------------------------------------------------------


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Position]:
    """What Redis answered when it was asked on behalf of a client."""
    answers: list[Position] = []

    async def counted(store: Store, environment: str) -> Position:
        answers.append(await read_position(store, environment))
        return answers[-1]

    monkeypatch.setattr(pipeline_module, "read_position", counted)
    return answers


async def test_a_client_that_is_not_ahead_is_no_reason_to_ask_redis(redis: Store, questions: list[Position]) -> None:
    await put(redis)
    async with Running(redis) as running:
        await running.live(1)
        epoch = running.position.epoch
        for event_id in ("", "nonsense", f"{epoch}.0", f"{epoch}.1", f"{'0' * 32}.7", f"{epoch}.-1"):
            assert await running.pipeline.settle(event_id) is False
        assert questions == []


async def test_a_client_that_is_ahead_waits_for_the_relay_to_hear_the_same(
    redis: Store, hands: Hands, questions: list[Position]
) -> None:
    async with Running(redis, verify_interval=0.1) as running:
        await running.live(0)
        hands.pass_on = lambda _data: []
        for number in range(1, 4):
            await put(redis, "flag", number)
        event_id = format_event_id(running.position.epoch, 3)
        assert running.position.revision == 0
        assert await running.pipeline.settle(event_id) is False
        assert running.position.revision == 3
        assert len(questions) == 1
        assert Stream(running.pipeline, event_id).resume is Resume.CURRENT


async def test_a_client_that_has_more_than_redis_holds_a_lost_history(redis: Store, questions: list[Position]) -> None:
    await put(redis)
    async with Running(redis) as running:
        await running.live(1)
        event_id = format_event_id(running.position.epoch, 5)
        assert await running.pipeline.settle(event_id) is False
        assert len(questions) == 1
        stream = Stream(running.pipeline, event_id)
        assert stream.resume is Resume.FULL
        assert stream.take().flags == {"flag": definition(1)}


async def test_while_redis_does_not_answer_a_client_keeps_what_it_has(
    redis: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(redis)
    async with Running(redis) as running, open_store(RedisAddress("unix:///nowhere/redis.sock")) as nowhere:
        await running.live(1)
        event_id = format_event_id(running.position.epoch, 3)
        monkeypatch.setattr(running.pipeline, "_store", nowhere)
        trust = await running.pipeline.settle(event_id)
        assert trust is True
        stream = Stream(running.pipeline, event_id, trust_ahead=trust)
        assert stream.resume is Resume.CURRENT
        for number in (2, 3, 4):
            await put(redis, "flag", number)
        await running.live(4)
        await until(lambda: stream.transport.received.count(b"event: patch"), "what it lacks")
        assert b"event: put" not in stream.transport.received
        assert stream.transport.received.count(b"event: patch") == 1
        assert f"id: {running.event_id}\n".encode() in stream.transport.received


async def test_a_client_that_is_ahead_of_a_flushed_redis_keeps_what_it_has(redis: Store) -> None:
    await put(redis)
    async with Running(redis) as running:
        await running.live(1)
        await redis.client.flushall()
        assert await running.pipeline.settle(format_event_id(running.position.epoch, 2)) is True


async def test_a_client_that_is_ahead_waits_for_no_longer_than_it_must(
    redis: Store, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "CATCH_UP_WAIT", 0.05)
    async with Running(redis, verify_interval=NEVER) as running:
        await running.live(0)
        hands.pass_on = lambda _data: []
        await put(redis)
        event_id = format_event_id(running.position.epoch, 1)
        trust = await running.pipeline.settle(event_id)
        assert trust is True
        assert Stream(running.pipeline, event_id, trust_ahead=trust).resume is Resume.CURRENT
        assert running.position.revision == 0


@pytest.mark.parametrize("lost", [False, True])
async def test_a_client_that_is_ahead_in_an_epoch_that_redis_has_left_waits_for_the_next(
    redis: Store, hands: Hands, *, lost: bool
) -> None:
    for number in range(1, 4):
        await put(redis, "flag", number)
    async with Running(redis, verify_interval=0.1) as running:
        await running.live(3)
        hands.pass_on = lambda _data: []
        epoch = running.position.epoch
        if not lost:
            await put(redis, "flag", 4)
        await renew_epoch(redis, ENVIRONMENT, await read_position(redis, ENVIRONMENT))
        assert await running.pipeline.settle(f"{epoch}.5") is False
        assert running.position.epoch != epoch
        stream = Stream(running.pipeline, f"{epoch}.5")
        assert stream.resume is Resume.FULL
        assert stream.take().event_id == running.event_id


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.005, 0.01, 0.02])
async def test_it_ends_when_it_is_cancelled_whatever_it_is_doing(redis: Store, moment: float) -> None:
    async with Running(redis, verify_interval=0.001, heartbeat_interval=0.001):
        await put(redis)
        await asyncio.sleep(moment)  # the moment is the test's point


async def test_what_is_wrong_is_logged_once_however_often_it_is_tried_again(
    store: Store, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = []
    pipeline = Pipeline(store, ENVIRONMENT, PipelineOptions(backoff_min=0.001, backoff_max=0.002))

    async def counted(store: Store, environment: str, known: Snapshot | None) -> Snapshot:
        reasons.append(pipeline.source.reason)
        return await read_snapshot(store, environment, known)

    monkeypatch.setattr(source_module, "read_snapshot", counted)
    task = asyncio.create_task(pipeline.run())
    await until(lambda: len(reasons) > 20, "it has tried many times")
    assert all("does not exist" in reason for reason in reasons[1:]), "also while it tries"
    assert [entry["state"] for entry in logged] == ["connecting"]
    await create_environment(store, ENVIRONMENT)
    await until(lambda: pipeline.live, "it is live")
    assert [entry["state"] for entry in logged] == ["connecting", "live"]
    task.cancel()
    await asyncio.wait([task])
