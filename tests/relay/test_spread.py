"""Rounds that are spread over time, with a clock that a test moves."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay import pump
from flagrelay.relay.hub import Hub
from flagrelay.relay.refetch import RefetchFeed
from flagrelay.relay.stats import Stats
from flagrelay.relay.subscriber import Subscriber
from flagrelay.wire.frame import Framing
from support.fakes import FakeTransport, empty_snapshot, next_change


class Clock:
    """The pump's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A hub of event streams, whose pump is turned by hand."""

    def __init__(self, streams: int, monkeypatch: pytest.MonkeyPatch, *, spread: float = 1.0) -> None:
        self.clock = Clock()
        monkeypatch.setattr(pump, "perf_counter", self.clock)
        self.hub = Hub(
            RefetchFeed(), stats=Stats(), delivered=lambda _: None, retry=1.0, lagging_timeout=30.0, spread=spread
        )
        self.snapshot: Snapshot = empty_snapshot()
        self.hub.load(self.snapshot)
        self.transports = [FakeTransport() for _ in range(streams)]
        for transport in self.transports:
            subscriber = Subscriber(self.hub, transport, framing=Framing.PLAIN, key_id="k", ends_at=float("inf"))
            transport.subscriber = subscriber
            transport.write(b"".join(self.hub.join(subscriber, "")[1]))
            transport.writes = 0

    def publish(self, *, urgent: bool = False) -> None:
        change = replace(next_change(self.snapshot, "flag", self.snapshot.position.revision), urgent=urgent)
        self.snapshot = self.snapshot.with_change(change)
        self.hub.publish(change, self.snapshot)

    def turn(self, seconds: float) -> None:
        """Let time pass, and every slice run that is due by then."""
        self.clock.now += seconds
        for _ in range(len(self.transports) + 2):
            self.hub._pump._turn()

    @property
    def told(self) -> int:
        return sum(transport.writes for transport in self.transports)


async def test_a_spread_round_tells_each_stream_in_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(100, monkeypatch)
    bench.publish()
    assert bench.told == 1, "the first hears at once"
    for tenth in range(1, 11):
        bench.turn(0.1)
        assert abs(bench.told - tenth * 10) <= 1
    assert bench.told == 100


async def test_an_urgent_change_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(100, monkeypatch)
    bench.publish()
    bench.turn(0.1)
    bench.publish(urgent=True)
    bench.turn(0.0)
    assert all(transport.received.count(b"event: message") >= 2 for transport in bench.transports)
    assert all(transport.received.endswith(bench.transports[0].received[-60:]) for transport in bench.transports)


async def test_an_urgent_change_is_never_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(100, monkeypatch, spread=60.0)
    bench.publish(urgent=True)
    bench.turn(0.0)
    assert bench.told == 100


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(
        st.tuples(st.sampled_from(["change", "urgent", "turn", "leave", "beat"]), st.integers(0, 39)), max_size=30
    ),
)
async def test_everybody_who_stays_hears_of_the_last_change_and_of_none_twice(
    streams: int, steps: list[tuple[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(streams, patch)
        gone = set()
        for name, number in steps:
            match name:
                case "change":
                    bench.publish()
                case "urgent":
                    bench.publish(urgent=True)
                case "turn":
                    bench.turn(number / 40)
                case "beat":
                    bench.hub.beat()
                case _:
                    leaving = bench.transports[number % streams]
                    assert leaving.subscriber
                    bench.hub.drop(leaving.subscriber, "gone")
                    gone.add(number % streams)
        for _ in range(4):
            bench.turn(1.0)
        await asyncio.sleep(0)
        for number, transport in enumerate(bench.transports):
            ids = [line for line in transport.received.split(b"\n") if line.startswith(b"id: ")]
            assert len(ids) == len(set(ids)), "an event that came twice"
            if number not in gone:
                assert ids[-1] == f"id: e0.{bench.snapshot.position.revision}".encode()
