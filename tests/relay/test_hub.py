"""The hub and its pump, with transports that stall when a test says so. Real sockets: tests/server/test_streams.py."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.feed import DefinitionsFeed
from flagrelay.relay.held import Held
from flagrelay.relay.hub import ABORT_AFTER, Hub, Resume
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.relay.subscriber import Subscriber
from flagrelay.wire.event_id import format_event_id, parse_event_id
from flagrelay.wire.frame import Framing, heartbeat_frame, patch_frame
from flagrelay.wire.sse import EventParser
from support.fakes import FakeTransport, definition, empty_snapshot, next_change

NEVER = float("inf")


class Bench:
    """A hub with streams whose clients a test drives."""

    def __init__(self, *, held: int = 100, lagging_timeout: float = 30.0) -> None:
        self.delivered: list[Delivery] = []
        self.snapshot = empty_snapshot()
        self.stats = Stats()
        self.hub = Hub(
            DefinitionsFeed(
                Held(held, 1_000_000),
                lambda: heartbeat_frame(revision=self.snapshot.position.revision, live=True, age_ms=0),
            ),
            stats=self.stats,
            delivered=self.delivered.append,
            retry=2.0,
            lagging_timeout=lagging_timeout,
        )
        self.hub.load(self.snapshot)
        self.delivered.clear()

    def publish(self, key: str = "flag", number: int | None = 1) -> None:
        change = next_change(self.snapshot, key, number)
        self.snapshot = self.snapshot.with_change(change)
        self.hub.publish(change, self.snapshot)

    def reload(self, epoch: str) -> None:
        self.snapshot = Snapshot(empty_snapshot(epoch, 3).position, flags={"reloaded": definition(1)})
        self.hub.load(self.snapshot)

    def open(
        self, last_event_id: str = "", *, key_id: str = "k", ends_at: float = NEVER, trust_ahead: bool = False
    ) -> tuple[FakeTransport, Resume]:
        transport = FakeTransport()
        subscriber = Subscriber(self.hub, transport, framing=Framing.PLAIN, key_id=key_id, ends_at=ends_at)
        transport.subscriber = subscriber
        resume, start = self.hub.join(subscriber, last_event_id, trust_ahead=trust_ahead)
        transport.write(b"".join(start))
        return transport, resume

    @property
    def event_id(self) -> str:
        return format_event_id(self.snapshot.position.epoch, self.snapshot.position.revision)


@dataclass
class Client:
    """What an SDK makes of the bytes of its streams."""

    flags: dict[str, Any] = field(default_factory=dict)
    last_event_id: str = ""
    seen: list[str] = field(default_factory=list)
    goodbye: str = ""

    def take(self, received: bytes) -> None:
        for event in EventParser().feed(received):
            data = json.loads(event.data)
            if event.type == "goodbye":
                self.goodbye = data["reason"]
            if event.type not in ("put", "patch"):
                continue
            before, after = parse_event_id(self.last_event_id), parse_event_id(event.id)
            assert after
            if event.type == "put":
                self.flags = data["flags"]
            else:
                assert before, "a patch without anything to apply it to"
                assert after[:2] == (before[0], before[1] + 1), "a patch that does not follow"
                for key, flag in data["flags"].items():
                    if flag is None:
                        self.flags.pop(key, None)
                    else:
                        self.flags[key] = flag
            if before and before[0] == after[0]:
                assert after[1] > before[1], "an id that did not grow"
            self.last_event_id = event.id
            self.seen.append(event.type)


async def settle() -> None:
    """Let every slice run that is due."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_change_reaches_every_stream_with_the_same_bytes() -> None:
    bench = Bench()
    transports = [bench.open()[0] for _ in range(500)]
    starts = [len(transport.received) for transport in transports]
    bench.publish()
    await settle()
    frames = {transport.received[start:] for transport, start in zip(transports, starts, strict=True)}
    assert frames == {patch_frame(next_change(empty_snapshot(), "flag", 1), "e0.1").plain}


async def test_an_idle_pump_writes_the_first_streams_before_anything_else_runs() -> None:
    bench = Bench()
    transport, _ = bench.open()
    bench.publish()
    assert b"event: patch" in transport.received


async def test_changes_during_a_round_are_merged_into_the_rest_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagrelay.relay.pump.SLICE", 0.0)
    monkeypatch.setattr("flagrelay.relay.pump.BATCH", 1)  # a slice is now one stream
    bench = Bench()
    transports = [bench.open()[0] for _ in range(100)]
    for transport in transports:
        transport.writes = 0
    bench.publish(number=1)
    bench.publish(number=2)
    bench.publish(number=3)
    await asyncio.sleep(0)
    while len(bench.delivered) < 3:
        await asyncio.sleep(0)
    for transport in transports:
        client = Client()
        client.take(transport.received)
        assert client.last_event_id == bench.event_id
    assert sorted(transport.writes for transport in transports)[-2] == 1, "only the first had to be written to twice"


async def test_each_change_is_reported_as_delivered_once_and_in_order() -> None:
    bench = Bench()
    for _ in range(50):
        bench.open()
    for number in range(20):
        bench.publish(number=number)
        if number % 3:
            await asyncio.sleep(0)
    await settle()
    assert [delivery.at for delivery in bench.delivered] == [1_764_000_000_000_000 + n for n in range(20)]
    assert all(0 < delivery.first <= delivery.last for delivery in bench.delivered)


async def test_a_change_without_any_stream_is_delivered_too() -> None:
    bench = Bench()
    bench.publish()
    assert [delivery.streams for delivery in bench.delivered] == [0]


async def test_a_stalled_stream_holds_one_frame_over_its_limit_and_disturbs_nobody() -> None:
    bench = Bench()
    slow, _ = bench.open()
    quick, _ = bench.open()
    slow.stall()
    for number in range(50):
        bench.publish(number=number)
        await settle()
    assert slow.writes == 2, "its start, and the change that filled it"
    assert len(bench.hub.lagging) == 1
    client = Client()
    client.take(quick.received)
    assert client.last_event_id == bench.event_id


async def test_a_stalled_stream_gets_what_it_missed_as_changes_in_one_write() -> None:
    bench = Bench(held=100)
    slow, _ = bench.open()
    slow.stall()
    for number in range(50):
        bench.publish(number=number)
    slow.read()
    client = Client()
    client.take(slow.received)
    assert client.seen == ["put", *["patch"] * 50]
    assert slow.writes == 3
    assert not bench.hub.lagging


async def test_a_stalled_stream_gets_the_whole_flag_set_where_the_changes_are_gone() -> None:
    bench = Bench(held=10)
    slow, _ = bench.open()
    slow.stall()
    for number in range(50):
        bench.publish(number=number)
    slow.read()
    client = Client()
    client.take(slow.received)
    assert client.seen == ["put", "patch", "put"]
    assert client.flags == {"flag": definition(49)}


async def test_a_stream_that_stalls_for_too_long_is_told_goodbye_and_cut_off() -> None:
    bench = Bench(lagging_timeout=30.0)
    slow, _ = bench.open()
    slow.stall()
    bench.publish()
    await settle()
    now = asyncio.get_running_loop().time()
    bench.hub.sweep(now + 29)
    closed_early = slow.closed
    bench.hub.sweep(now + 31)
    assert (closed_early, slow.closed) == (False, True)
    assert bench.stats.closed == {"lagging": 1}
    bench.hub.sweep(now + 31 + ABORT_AFTER)
    assert slow.aborted
    assert bench.stats.closed == {"lagging": 1}, "one stream is counted once"


async def test_a_stream_ends_when_its_lifetime_is_over() -> None:
    bench = Bench()
    short, _ = bench.open(ends_at=10.0)
    long, _ = bench.open(ends_at=20.0)
    bench.hub.sweep(15.0)
    client = Client()
    client.take(short.received)
    assert client.goodbye == "lifetime"
    assert short.closed
    assert not long.closed


async def test_revoking_a_key_ends_its_streams_and_no_others() -> None:
    bench = Bench()
    revoked = [bench.open(key_id="bad")[0] for _ in range(100)]
    kept, _ = bench.open(key_id="good")
    await bench.hub.dismiss_key("bad", "revoked")
    for transport in revoked:
        client = Client()
        client.take(transport.received)
        assert client.goodbye == "revoked"
        assert transport.closed
    assert not kept.closed
    assert bench.hub.streams_by_key == {"good": 1}


async def test_a_drain_spreads_the_reconnection_times() -> None:
    bench = Bench()
    transports = [bench.open()[0] for _ in range(200)]

    async def clients_go() -> None:
        while not all(transport.closed for transport in transports):
            await asyncio.sleep(0)
        for transport in transports:
            assert transport.subscriber
            transport.subscriber.connection_lost(None)

    deadline = asyncio.get_running_loop().time() + 5
    await asyncio.gather(bench.hub.drain(spread=4.0, deadline=deadline), clients_go())
    retries = set()
    for transport in transports:
        parser = EventParser()
        assert parser.feed(transport.received)[-1].type == "goodbye"
        assert parser.retry is not None
        retries.add(parser.retry)
    assert len(retries) > 20
    assert min(retries) >= 100
    assert max(retries) <= 4000
    assert not any(transport.aborted for transport in transports)


async def test_a_drain_aborts_whoever_does_not_leave_by_the_deadline() -> None:
    bench = Bench()
    stuck, _ = bench.open()
    await bench.hub.drain(spread=1.0, deadline=asyncio.get_running_loop().time())
    assert stuck.aborted


async def test_a_transport_that_fails_is_dropped_and_the_others_are_served() -> None:
    bench = Bench()
    transports = [bench.open()[0] for _ in range(10)]

    def fail(data: bytes) -> None:
        raise RuntimeError("broken")

    transports[4].write = fail  # type: ignore[method-assign]  # the failure that the test is about
    bench.publish()
    await settle()
    assert transports[4].aborted
    assert bench.stats.closed == {"error": 1}
    assert sum(b"event: patch" in transport.received for transport in transports) == 9


async def test_heartbeats_reach_every_stream_that_is_current_and_move_no_id() -> None:
    bench = Bench()
    quick, _ = bench.open()
    slow, _ = bench.open()
    slow.stall()
    bench.publish()
    bench.hub.beat()
    await settle()
    assert b"event: heartbeat" in quick.received
    assert b"event: heartbeat" not in slow.received + slow.buffered
    parser = EventParser()
    parser.feed(quick.received)
    assert parser.last_event_id == bench.event_id


@pytest.mark.parametrize(
    ("behind", "resume"), [(0, Resume.CURRENT), (1, Resume.DELTA), (10, Resume.DELTA), (11, Resume.FULL)]
)
async def test_a_reconnecting_stream_gets_only_what_it_lacks(behind: int, resume: Resume) -> None:
    bench = Bench(held=10)
    for number in range(30):
        bench.publish(number=number)
    transport, how = bench.open(f"e0.{30 - behind}")
    assert how is resume
    assert transport.received.count(b"event: patch") == (behind if resume is Resume.DELTA else 0)
    assert transport.received.count(b"event: put") == (resume is Resume.FULL)
    assert transport.received.count(b"event: heartbeat") == (resume is Resume.CURRENT)


@pytest.mark.parametrize("last_event_id", ["", "e1.3", "e0.31", "nonsense", "e0.-1", "e0.", ".", "e0.3\x00"])
async def test_an_id_that_is_not_ours_gets_the_whole_flag_set(last_event_id: str) -> None:
    bench = Bench()
    for number in range(30):
        bench.publish(number=number)
    assert bench.open(last_event_id)[1] is Resume.FULL


async def test_a_client_that_is_ahead_and_trusted_gets_nothing_twice() -> None:
    bench = Bench()
    transport, resume = bench.open("e0.2", trust_ahead=True)
    assert resume is Resume.CURRENT
    bench.publish(number=1)
    bench.publish(number=2)
    await settle()
    assert b"event: patch" not in transport.received
    bench.publish(number=3)
    await settle()
    assert transport.received.count(b"event: patch") == 1
    assert b"id: e0.3\n" in transport.received


async def test_a_client_that_is_ahead_follows_redis_to_another_history() -> None:
    bench = Bench()
    transport, _ = bench.open("e0.7", trust_ahead=True)
    bench.reload("e1")
    await settle()
    assert b"id: e1.3\nevent: put" in transport.received


Operation = tuple[str, int]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "open", "reopen", "stall", "read", "run", "reload", "beat"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.integers(1, 6), st.sampled_from([0.0, 0.001]))
def test_whatever_happens_no_stream_loses_repeats_or_reorders_anything(
    operations: list[Operation], held: int, slice_seconds: float
) -> None:
    async def play() -> None:
        bench = Bench(held=held)
        open_streams: list[tuple[FakeTransport, Client]] = []
        for number, (operation, which) in enumerate(operations):
            chosen = open_streams[which % len(open_streams)] if open_streams else None
            match operation:
                case "publish":
                    bench.publish(f"flag-{which}", number if number % 5 else None)
                case "reload":
                    bench.reload(f"e{number}")
                case "open":
                    open_streams.append((bench.open()[0], Client()))
                case "beat":
                    bench.hub.beat()
                case "run":
                    await asyncio.sleep(0)
                case "reopen" if chosen:
                    transport, client = chosen
                    client.take(transport.received)
                    transport.abort()
                    open_streams.remove(chosen)
                    open_streams.append((bench.open(client.last_event_id)[0], client))
                case "stall" if chosen:
                    chosen[0].stall()
                case "read" if chosen:
                    chosen[0].read()
        for transport, _ in open_streams:
            transport.read()
        await settle()
        for transport, client in open_streams:
            client.take(transport.received)
            assert client.flags == bench.snapshot.flags
            assert client.last_event_id == bench.event_id
        assert len(bench.hub.subscribers) == len(open_streams)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flagrelay.relay.pump.SLICE", slice_seconds)
        patch.setattr("flagrelay.relay.pump.BATCH", 1)
        asyncio.run(play())
