"""The model of scale: what must hold of it, whatever is drawn."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scale.assumptions import Assumptions, Network
from scale.capacity import egress, fleet_for, of_size, on_the_wire
from scale.check import shared
from scale.constants import Constants, Sizes
from scale.fleet import Fleet
from scale.herd import Loss, Notice, Recovered, Recovery
from scale.propagation import Rounds, last_ms, propagation

from flagrelay.settings import Settings

CONSTANTS = Constants(
    first_ms=np.array([0.5, 0.6, 1.5]),
    per_stream_us=np.array([9.0, 10.0, 12.0]),
    delivery_cpu_us=9.0,
    receiver_cpu_us=4.0,
    heartbeat_cpu_us=9.0,
    joins_per_second={"current": np.array([4000.0, 5000.0]), "full": np.array([4000.0])},
    join_cpu_us={"current": 200.0, "full": 220.0},
    relay_bytes=50_000_000,
    stream_bytes=1800,
    stream_kernel_bytes=4500,
    redis_subscriber_us=5.0,
    redis_subscriber_cpu_us=5.0,
    redis_change_cpu_us=90.0,
    redis_verification_cpu_us=200.0,
    replica_hop_ms=0.05,
    sizes={"plain": Sizes(full=31_000, current=700, patch=420, heartbeat=75)},
)
QUIET = Assumptions(redis_network=Network(0.0001, 0.0001))

STEP = 0.01
"""Seconds of a step of the simulations here."""

few = settings(max_examples=60, deadline=None)


# -- propagation ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**32))
@few
def test_every_sdk_is_on_one_process(sdks: int, relays: int, workers: int, seed: int) -> None:
    streams = Fleet(sdks, relays, workers).streams(np.random.default_rng(seed))

    assert streams.sum() == sdks
    assert len(streams) == relays * workers
    assert (streams >= 0).all()


@given(st.integers(1, 3000), st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**32))
@few
def test_each_stream_has_a_change_after_the_one_before_it_and_the_last_when_the_model_says(
    sdks: int, relays: int, replicas: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fleet = Fleet(sdks, relays, 2, replicas)
    streams = fleet.streams(rng)

    rounds = Rounds.draw(rng, fleet, streams, CONSTANTS, QUIET)
    times = np.split(rounds.each(streams), np.cumsum(streams)[:-1])

    assert all((np.diff(each) > 0).all() for each in times)
    lasts = [float(each[-1]) for each in times if len(each)]
    empty = rounds.starts[streams == 0]
    assert max(lasts) <= rounds.last(streams) * (1 + 1e-4)
    assert rounds.last(streams) == pytest.approx(max([*lasts, *empty]), rel=1e-4)


@given(st.integers(1, 3000), st.integers(1, 6), st.floats(0, 40), st.integers(0, 2**32))
@few
def test_whoever_is_late_is_counted(sdks: int, relays: int, target: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fleet = Fleet(sdks, relays)
    streams = fleet.streams(rng)

    rounds = Rounds.draw(rng, fleet, streams, CONSTANTS, QUIET)

    unsure = np.isclose(rounds.each(streams), target, rtol=1e-5).sum()  # times are of single precision
    assert abs(rounds.late(streams, target) - (rounds.each(streams) > target).sum()) <= unsure


def test_percentiles_rise_and_a_network_makes_them_longer() -> None:
    networks = {"none": None, "far": Network(50.0, 100.0)}

    times = propagation(Fleet(5000, 2, 2), CONSTANTS, QUIET, networks, changes=5)

    for each in times.values():
        assert list(each.percentiles.values()) == sorted(each.percentiles.values())
        assert [value for _, value in each.curve] == sorted(value for _, value in each.curve)
        assert all(each.lowest[name] <= each.percentiles[name] <= each.highest[name] for name in each.percentiles)
    assert times["far"].percentiles["p50"] > times["none"].percentiles["p50"] + 40


def test_one_quiet_process_takes_what_was_measured() -> None:
    constants = replace(CONSTANTS, first_ms=np.array([0.5]), per_stream_us=np.array([10.0]))

    [times] = propagation(Fleet(1001, 1), constants, None, {"none": None}, changes=1).values()

    assert times.percentiles == pytest.approx(
        {"first": 0.5, "p50": 5.5, "p99": 10.4, "p99.9": 10.49, "last": 10.5}, abs=0.02
    )


@given(st.integers(1, 20), st.floats(50, 500), st.floats(1.0, 5.0), st.floats(0, 0.05))
@few
def test_a_network_keeps_its_median_and_its_p99(seed: int, median: float, ratio: float, loss: float) -> None:
    drawn = Network(median, median * ratio).draw(np.random.default_rng(seed), 50_000)
    lossy = Network(median, median * ratio, loss).draw(np.random.default_rng(seed), 50_000)

    assert np.quantile(drawn, 0.5) == pytest.approx(median, rel=0.05)
    assert np.quantile(drawn, 0.99) == pytest.approx(median * ratio, rel=0.15)
    assert (drawn > 0).all()
    assert (lossy >= drawn - 1e-3).all()  # a packet that is lost comes later, and never sooner


def test_more_subscribers_of_one_redis_make_the_last_process_later() -> None:
    lasts = [last_ms(Fleet(1000, relays), CONSTANTS, QUIET) for relays in (10, 1000, 10_000)]

    assert lasts[0] < lasts[1] < lasts[2]


def test_replicas_take_the_subscribers_from_the_primary() -> None:
    alone, tier = Fleet(1000, 10_000), Fleet(1000, 10_000, replicas=20)

    assert tier.subscribers == 500
    assert last_ms(tier, CONSTANTS, QUIET) < last_ms(alone, CONSTANTS, QUIET)


# -- capacity ---------------------------------------------------------------------------------------------------------


@given(st.integers(1000, 400_000), st.sampled_from([30.0, 60.0, 100.0]))
@settings(max_examples=15, deadline=None)
def test_a_fleet_meets_its_target_without_a_tenth_of_its_relays(sdks: int, target: float) -> None:
    wanted = replace(QUIET, target_ms=target)

    fleet = fleet_for(sdks, CONSTANTS, wanted)

    left = fleet.without(-(-fleet.relays // 10))
    assert last_ms(left, CONSTANTS, wanted) <= target
    assert sdks <= left.processes * wanted.settings.max_streams


def test_a_target_that_nothing_meets_is_refused() -> None:
    with pytest.raises(ValueError, match="no number of relays"):
        fleet_for(1000, CONSTANTS, replace(QUIET, target_ms=0.1))


def test_beyond_so_many_subscribers_there_are_replicas() -> None:
    assert of_size(10_000, 125, QUIET).replicas == 0
    assert of_size(10_000, 126, QUIET).replicas == 2


def test_egress_counts_headers_and_grows_with_the_sdks() -> None:
    assert on_the_wire(1448, QUIET) == 1448 + 66
    assert on_the_wire(1449, QUIET) == 1449 + 2 * 66
    one, ten = (egress(Fleet(sdks, 1), CONSTANTS.sizes["plain"], CONSTANTS, QUIET) for sdks in (1, 10))
    assert one["change_bytes"] == 420 + 66
    assert one["day_bytes"] == pytest.approx(200 * 486 + 5760 * 141 + 86_400 / 3240 * 766)
    assert ten["day_bytes"] == pytest.approx(10 * one["day_bytes"])


def test_processes_that_share_cores_take_longer_and_one_alone_does_not() -> None:
    assert shared(Fleet(8000, 1), CONSTANTS, cores=2) == 1
    assert shared(Fleet(6000, 3), CONSTANTS, cores=2) == pytest.approx((3 * 10 + 3 * 4) / 2 / 10)
    assert shared(Fleet(6000, 3), CONSTANTS, cores=64) == pytest.approx(3 * 4 / 10)  # who receives is one process


def test_processes_that_share_cores_end_together() -> None:
    fleet = Fleet(6000, 3)
    streams = np.full(3, 2000)

    rounds = Rounds.draw(np.random.default_rng(1), fleet, streams, CONSTANTS, None, stretch=2.0)

    assert len(set(rounds.per_stream)) == 1
    assert 2 * 0.009 <= rounds.per_stream[0] <= 2 * 0.012


# -- a herd -----------------------------------------------------------------------------------------------------------


@st.composite
def losses(draw: st.DrawFn, *, roomy: bool = False) -> Loss:
    left = draw(st.lists(st.integers(0, 300), min_size=1, max_size=5))
    waiting, streams = (10_000, 20_000) if roomy else (draw(st.integers(1, 50)), draw(st.integers(200, 2000)))
    return Loss(
        lost=np.array(draw(st.lists(st.integers(0, 200), min_size=1, max_size=3))),
        left=np.array(left),
        joins_per_second=np.array(draw(st.lists(st.floats(50, 5000), min_size=len(left), max_size=len(left)))),
        per_stream=np.full(len(left), draw(st.floats(1e-6, 1e-4))),
        first=0.001,
        notice=draw(st.sampled_from(("reset", "silence"))),
        settings=Settings(
            retry=draw(st.floats(0, 3)),
            heartbeat_interval=draw(st.floats(0.05, 2)),
            max_waiting=waiting,
            max_streams=streams,
        ),
    )


def _recovered(loss: Loss, seed: int = 1) -> Recovered:
    return Recovery(loss, np.random.default_rng(seed), step=STEP).run()


@given(losses(), st.integers(0, 2**32))
@few
def test_nobody_is_lost_or_counted_twice_at_any_moment(loss: Loss, seed: int) -> None:
    recovery = Recovery(loss, np.random.default_rng(seed), step=STEP)
    everybody = int(loss.lost.sum() + loss.left.sum())

    before = recovery.open.copy()
    for _ in range(400):
        recovery.step()
        assert recovery.away + recovery.waiting.sum() + recovery.open.sum() == everybody
        assert (recovery.open >= before).all()
        assert (recovery.waiting >= 0).all()
        assert (recovery.waiting <= loss.settings.max_waiting).all()
        assert (recovery.open <= np.maximum(loss.left, loss.settings.max_streams)).all()
        before = recovery.open.copy()


@given(losses(roomy=True))
@few
def test_all_come_back_where_there_is_room_and_half_of_them_no_later(loss: Loss) -> None:
    seen = _recovered(loss)

    assert seen.half is not None
    assert seen.most is not None
    assert seen.all is not None
    assert seen.half <= seen.most <= seen.all
    assert seen.refused == 0
    counts = [count for _, count in seen.back]
    assert counts == sorted(counts)
    assert not counts or counts[-1] == loss.lost.sum()


@given(losses(roomy=True))
@few
def test_nobody_is_back_before_it_has_noticed_and_waited(loss: Loss) -> None:
    loss = replace(loss, notice="silence")
    earliest = loss.settings.heartbeat_interval * 2 + loss.settings.retry * 0.5

    assert all(moment >= earliest or not count for moment, count in _recovered(loss).back)


@given(losses(roomy=True), st.floats(1.5, 10))
@few
def test_relays_that_open_streams_faster_have_everybody_back_no_later_by_more_than_a_step(
    loss: Loss, faster: float
) -> None:
    quick = replace(loss, joins_per_second=loss.joins_per_second * faster)

    slow_end, quick_end = _recovered(loss).all, _recovered(quick).all

    assert slow_end is not None
    assert quick_end is not None
    # Whole streams are opened in whole steps: what a change takes of a step may move the last one into the next.
    assert quick_end <= slow_end + STEP + 1e-9


@given(losses(roomy=True))
@few
def test_a_change_meanwhile_takes_no_less_than_when_it_is_quiet_and_no_more_than_the_share_allows(loss: Loss) -> None:
    seen = _recovered(loss)
    turn_ms = 8 / loss.joins_per_second.min() * 1000
    everybody = float((loss.left + loss.lost.sum()).max() * loss.per_stream.max() * 1000)

    for _, took in seen.changes:
        assert took >= seen.quiet_ms - 0.02
        assert took <= 1.5 * everybody + turn_ms + 1 + 0.02


def test_without_a_loss_nothing_happens() -> None:
    loss = Loss(
        lost=np.array([0]), left=np.array([10]), joins_per_second=np.array([100.0]), per_stream=np.array([1e-5])
    )

    assert _recovered(loss).all == 0
    assert _recovered(loss).changes == []


def test_whoever_finds_no_room_is_refused_and_comes_back_when_told() -> None:
    loss = Loss(
        lost=np.array([100]),
        left=np.array([0]),
        joins_per_second=np.array([20.0]),
        per_stream=np.array([1e-5]),
        settings=Settings(retry=0, max_waiting=10),
    )

    seen = _recovered(loss)

    assert seen.refused >= 90
    assert seen.longest_queue == 10
    assert seen.all is not None
    assert seen.all >= 2  # the shortest Retry-After


def test_where_there_is_no_room_for_all_it_ends_and_says_so() -> None:
    loss = Loss(
        lost=np.array([100]),
        left=np.array([50]),
        joins_per_second=np.array([1000.0]),
        per_stream=np.array([1e-5]),
        settings=Settings(retry=0, max_streams=60),
    )

    seen = _recovered(loss)

    assert seen.half is None
    assert seen.all is None
    assert seen.back[-1][1] == 10


@pytest.mark.parametrize(("notice", "earliest", "latest"), [("reset", 1.0, 3.1), ("silence", 31.0, 48.1)])
def test_sdks_notice_at_once_or_by_silence(notice: Notice, earliest: float, latest: float) -> None:
    loss = Loss(
        lost=np.full(50, 20),
        left=np.full(50, 20),
        joins_per_second=np.full(50, 1000.0),
        per_stream=np.full(50, 1e-5),
        notice=notice,
    )

    seen = _recovered(loss)

    assert seen.all is not None
    assert earliest < seen.all < latest
    assert min(moment for moment, count in seen.back if count) >= earliest - 0.05
