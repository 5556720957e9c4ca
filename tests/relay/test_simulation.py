"""Writers, a Redis, a network and several relays, in virtual time: whatever happens, no stream is ever told wrong.

The relays are the real ones, with their real table of states; only Redis and time are not.
"""

import asyncio
import logging
import random
from contextlib import ExitStack
from typing import Any

import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flagrelay.errors import EnvironmentMissing, StoreUnavailable
from flagrelay.relay.pipeline import Pipeline, PipelineOptions
from flagrelay.relay.states import SourceState
from flagrelay.relay.subscriber import GONE, Subscriber
from flagrelay.wire.event_id import format_event_id
from flagrelay.wire.frame import Framing
from flagrelay.wire.sse import EventParser
from support.fakes import FakeTransport, definition
from support.simulation import ModelRedis, VirtualLoop, Way, simulated
from support.streams import Replica

RELAYS = 2
OPTIONS = PipelineOptions(
    verify_interval=1.0, backoff_min=0.05, backoff_max=1.0, heartbeat_interval=1e6, changes_held=4
)

relays = st.integers(0, RELAYS - 1)
streams = st.integers(0, RELAYS * 2 - 1)
likely = st.sampled_from([0.0, 0.3, 1.0])


class Stream:
    """One SDK, and its connection."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.subscriber: Subscriber | None = None
        self.transport = FakeTransport()
        self._parser = EventParser()
        self._taken = 0

    def connect(self, pipeline: Pipeline) -> None:
        self.transport, self._parser, self._taken = FakeTransport(high_water=200), EventParser(), 0
        self.subscriber = Subscriber(
            pipeline.hub, self.transport, framing=Framing.PLAIN, key_id="k", ends_at=float("inf")
        )
        self.transport.subscriber = self.subscriber
        _, start = pipeline.hub.join(self.subscriber, self.replica.event_id)
        known = self.replica
        self.transport.write(b"".join(start))
        # A stream that begins may begin further back, where Redis lost changes: there it starts anew.
        self.take(fresh=known)

    def take(self, *, fresh: Replica | None = None) -> None:
        data, self._taken = self.transport.received[self._taken :], len(self.transport.received)
        for event in self._parser.feed(data):
            if fresh and event.type == "put":
                self.replica = Replica(puts=fresh.puts)
            fresh = None
            self.replica.take(event)

    def leave(self) -> None:
        if self.subscriber:
            self.subscriber.connection_lost(None)
        self.subscriber = None


class World(RuleBasedStateMachine):
    """What may happen, in any order."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(simulated())
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.loop = VirtualLoop()
        self.redis = ModelRedis(random.Random(seed))
        self.redis.create()
        self.ways = [Way(self.redis) for _ in range(RELAYS)]
        self.pipelines: list[Pipeline] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.loaded: set[int] = set()
        self.number = 0
        self.streams = [Stream() for _ in range(RELAYS * 2)]
        for way in self.ways:
            self.loop.run_until_complete(self._start(way))
        self.run(1)
        for number in range(len(self.streams)):
            self.an_sdk_connects(number)

    async def _start(self, way: Way) -> None:
        store: Any = way
        pipeline = Pipeline(store, "production", OPTIONS)
        self.pipelines.append(pipeline)
        self.tasks.append(asyncio.create_task(pipeline.run()))

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    # -- what writers do --------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 6), key=st.sampled_from("abc"), deletes=st.booleans())
    def write(self, count: int, key: str, deletes: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        async def run() -> None:
            for _ in range(count):
                self.number += 1
                flag = None if deletes and self.number % 3 == 0 else definition(self.number)
                try:
                    self.redis.write(key, flag)
                except (StoreUnavailable, EnvironmentMissing):
                    return

        self.loop.run_until_complete(run())

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.002, 0.05, 1.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(seconds)

    # -- what Redis does --------------------------------------------------------------------------------------

    @precondition(lambda self: self.redis.up)
    @rule()
    def redis_dies(self) -> None:
        self.redis.stop()

    @precondition(lambda self: not self.redis.up)
    @rule(lost=st.sampled_from([0, 0, 1, 3]))
    def redis_is_back(self, lost: int) -> None:
        self.redis.start(lost=lost)

    @precondition(lambda self: self.redis.up)
    @rule(lost=st.integers(1, 4), writes=st.integers(0, 4))
    def redis_fails_over(self, lost: int, writes: int) -> None:
        self.redis.stop()
        self.redis.start(lost=lost)
        self.write(writes, "a", deletes=False)

    @rule()
    def redis_is_flushed(self) -> None:
        self.redis.flush()

    @precondition(lambda self: self.redis.stored is None)
    @rule()
    def environment_is_created(self) -> None:
        self.redis.create()

    @rule(most=st.integers(0, 3))
    def changelog_is_trimmed(self, most: int) -> None:
        self.redis.trim(most)

    # -- what the network does --------------------------------------------------------------------------------

    @rule(relay=relays, lose=likely, double=likely, late=likely)
    def messages_suffer(self, relay: int, lose: float, double: float, late: float) -> None:
        way = self.ways[relay]
        way.lose, way.double, way.late = lose, double, late

    @rule(relay=relays, latency=st.sampled_from([0.001, 0.1, 2.0]))
    def the_way_is_slow(self, relay: int, latency: float) -> None:
        self.ways[relay].latency = latency

    @rule(relay=relays)
    def the_connection_is_cut(self, relay: int) -> None:
        async def cut() -> None:
            self.ways[relay].cut()

        self.loop.run_until_complete(cut())

    @rule(relay=relays, dead=st.booleans())
    def the_way_is_half_open(self, relay: int, dead: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        self.ways[relay].dead = dead

    @rule(relay=relays, garbage=st.sampled_from([b"garbage", b"{}", b"[]"]))
    def nonsense_is_said(self, relay: int, garbage: bytes) -> None:
        async def say() -> None:
            for subscription in self.redis.subscriptions:
                if subscription.way is self.ways[relay]:
                    subscription.hear(garbage)

        self.loop.run_until_complete(say())

    # -- what SDKs do -----------------------------------------------------------------------------------------

    @rule(stream=streams)
    def an_sdk_connects(self, stream: int) -> None:
        async def connect() -> None:
            pipeline = self.pipelines[stream % RELAYS]
            self.streams[stream].leave()
            if pipeline.hub.loaded:
                self.streams[stream].connect(pipeline)

        self.loop.run_until_complete(connect())

    @rule(stream=streams)
    def an_sdk_goes(self, stream: int) -> None:
        async def leave() -> None:
            self.streams[stream].take()
            self.streams[stream].leave()

        self.loop.run_until_complete(leave())

    @rule(relay=relays, seconds=st.sampled_from([0.0, 1.0]))
    def a_relay_restarts(self, relay: int, seconds: float) -> None:
        async def restart() -> None:
            for stream in self.streams[relay::RELAYS]:
                stream.take()
                stream.leave()
            self.tasks[relay].cancel()
            await asyncio.gather(self.tasks[relay], return_exceptions=True)
            store: Any = self.ways[relay]
            before = self.pipelines[relay].source.snapshot
            self.pipelines[relay] = Pipeline(store, "production", OPTIONS)
            if before:  # as it is on disk
                self.pipelines[relay].source.remember(before.position)
            self.tasks[relay] = asyncio.create_task(self.pipelines[relay].run())
            self.loaded.discard(relay)

        self.loop.run_until_complete(restart())
        self.run(seconds)

    @rule(stream=streams, reads=st.booleans())
    def an_sdk_reads_or_does_not(self, stream: int, reads: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        async def read() -> None:
            transport = self.streams[stream].transport
            transport.read() if reads else transport.stall()

        self.loop.run_until_complete(read())

    # -- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def relays_run_and_never_shrink_to_nothing(self) -> None:
        for number, (pipeline, task) in enumerate(zip(self.pipelines, self.tasks, strict=True)):
            assert not task.done(), task
            if pipeline.snapshot:
                self.loaded.add(number)
            if number in self.loaded:
                assert pipeline.snapshot
                assert pipeline.source.state is not SourceState.CONNECTING

    @invariant()
    def no_stream_is_told_anything_twice_out_of_order_or_with_a_hole(self) -> None:
        for stream in self.streams:
            stream.take()

    @rule()
    def all_is_well_again(self) -> None:
        """The faults end: in a while everybody stands where Redis stands."""
        if not self.redis.up:
            self.redis.start()
        for way in self.ways:
            way.well()
        for stream in self.streams:
            stream.transport.read()
        self.run(20)
        for pipeline in self.pipelines:
            if self.redis.stored is None:
                assert pipeline.source.state is not SourceState.LIVE
                continue
            assert pipeline.source.state is SourceState.LIVE
            snapshot = pipeline.snapshot
            assert snapshot
            assert (snapshot.position, snapshot.flags) == (self.redis.stored.position, self.redis.stored.flags)
        self.no_stream_is_told_anything_twice_out_of_order_or_with_a_hole()
        for stream in self.streams:
            if stream.subscriber and stream.subscriber.position != GONE and self.redis.stored:
                epoch, revision, _ = self.redis.stored.position
                assert stream.replica.event_id == format_event_id(epoch, revision)
                assert stream.replica.flags == self.redis.stored.flags

    def teardown(self) -> None:
        try:
            self.all_is_well_again()
        finally:
            for task in self.tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
            self.loop.close()
            self.stack.close()


World.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestWorld = World.TestCase
