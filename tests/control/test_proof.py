"""Who has a change, by what relays report; and waiting for it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.control.proof import Proof, State, judge, prove
from flagrelay.errors import StoreUnavailable
from flagrelay.store.reports import PATIENCE, Report, Reports
from flagrelay.store.writing import Written

NOW = 1_764_000_010_000_000
AT = NOW - 500_000
WRITTEN = Written(18, AT, epoch="e0")


def report(relay: str, revision: int = 18, *, ago: float = 0.1, **different: Any) -> Report:
    """What a relay said, so many seconds ago."""
    members: dict[str, Any] = {
        "relay": relay,
        "epoch": "e0",
        "revision": revision,
        "source": "live",
        "streams": 10_000,
        "written": 10_000,
        "lagging": 0,
        "ms": 20.0,
        "interval": 5.0,
        "seen": NOW - round(ago * 1e6),
    }
    return Report(**{**members, **different})


def judged(*said: Report, at: int = AT) -> Proof:
    return judge(Reports(NOW, said), "e0", 18, at)


def states(proof: Proof) -> dict[str, State]:
    return {standing.relay: standing.state for standing in proof.standings}


# -- what is said of it -------------------------------------------------------------------------------------------


def test_the_sentence_is_the_one_that_was_promised() -> None:
    proof = judged(
        report("relay-1"),
        report("relay-2", written=9_981, lagging=19, ms=38.2),
        report("relay-3", ms=12.0),
    )
    sentence = "un-released in 38 ms: 3 of 3 relays, 29,981 of 30,000 streams written, 19 lagging"
    assert proof.sentence("un-released") == sentence
    assert proof.complete


def test_whoever_has_it_not_is_named_with_the_reason_and_not_counted() -> None:
    proof = judged(report("relay-1"), report("relay-2", ago=12.3), report("relay-3", 17))
    assert proof.sentence("un-released") == (
        "un-released only in part: 1 of 3 relays, 10,000 of 30,000 streams written, 0 lagging; "
        "relay-2: silent for 12.3 s; relay-3: at revision 17"
    )
    assert states(proof) == {"relay-1": "done", "relay-2": "silent", "relay-3": "behind"}
    assert not proof.complete


@pytest.mark.parametrize(
    ("different", "why"),
    [
        ({"source": "stale"}, "stale at revision 18"),
        ({"epoch": "0123456789"}, "in another history, 01234567 at revision 18"),
        ({"revision": 0}, "at revision 0"),
        ({"worker": 1, "workers": 2}, "worker 2 not heard of"),
        ({"worker": 1, "workers": 2, "revision": 17}, "worker 1 at revision 17, worker 2 not heard of"),
    ],
)
def test_a_relay_that_is_behind_says_why(different: dict[str, Any], why: str) -> None:
    [standing] = judged(report("relay-1", **different)).standings
    assert (standing.state, standing.why) == ("behind", why)
    assert (standing.written, standing.lagging, standing.ms) == (0, 0, None)


def test_no_relay_is_no_proof() -> None:
    proof = judged()
    assert not proof.complete
    assert proof.ms is None
    assert proof.sentence("written") == "written, but nobody knows where: no relay reports here"


def test_without_a_time_of_the_change_none_is_told() -> None:
    proof = judged(report("relay-1"), at=0)
    assert proof.sentence("killed") == "killed: 1 of 1 relays, 10,000 of 10,000 streams written, 0 lagging"


@pytest.mark.parametrize(
    ("ms", "shown"), [(3.44, "3.4 ms"), (38.2, "38 ms"), (2345.0, "2,345 ms"), (12345.0, "12.3 s")]
)
def test_times_are_shown_as_people_read_them(ms: float, shown: str) -> None:
    assert judged(report("r", ms=ms)).sentence("killed").startswith(f"killed in {shown}: ")


def test_a_later_revision_has_the_change_too_and_its_time_is_when_that_was_said() -> None:
    [standing] = judged(report("relay-1", 21, ago=0.1, ms=1.0)).standings
    assert (standing.state, standing.ms) == ("done", 400.0)


def test_a_revision_that_was_loaded_whole_has_the_time_at_which_that_was_said() -> None:
    [standing] = judged(report("relay-1", ago=0.2, ms=None)).standings
    assert (standing.state, standing.ms) == ("done", 300.0)


# -- several workers ----------------------------------------------------------------------------------------------


def test_a_node_is_done_when_each_of_its_workers_is() -> None:
    workers = [report("node", worker=number, workers=3, ms=number) for number in (1, 2, 3)]
    [standing] = judged(*workers).standings
    assert (standing.state, standing.streams, standing.ms, standing.missing) == ("done", 30_000, 3.0, ())
    for number in range(3):
        [standing] = judged(*workers[:number], *workers[number + 1 :]).standings
        assert (standing.state, standing.missing) == ("behind", (number + 1,))


def test_a_node_with_a_silent_worker_is_silent() -> None:
    [standing] = judged(report("node", worker=1, workers=2), report("node", worker=2, workers=2, ago=9.0)).standings
    assert (standing.state, standing.missing, standing.age) == ("silent", (2,), 9.0)
    assert standing.why == "worker 2 silent for 9.0 s"


def test_what_a_node_said_before_it_had_another_number_of_workers_does_not_count() -> None:
    before = [report("node", 17, worker=number, workers=4, ago=100.0) for number in (1, 2, 3, 4)]
    now = [report("node", worker=number, workers=2) for number in (1, 2)]
    assert states(judged(*before, *now)) == {"node": "done"}
    assert states(judged(*before, report("node"))) == {"node": "done"}


def test_what_a_node_said_before_it_was_started_again_does_not_count() -> None:
    before = [report("node", 17, worker=number, workers=2, node="n1", ago=100.0) for number in (1, 2)]
    now = [report("node", worker=number, workers=2, node="n2") for number in (1, 2)]
    assert states(judged(*before, *now)) == {"node": "done"}


def test_a_worker_that_is_being_replaced_counts_beside_its_successor() -> None:
    now = [report("node", worker=number, workers=2, node="n", instance=f"new {number}") for number in (1, 2)]
    old = report("node", 17, worker=1, workers=2, node="n", instance="old", ago=9.0, streams=18)
    [standing] = judged(*now, old).standings
    assert (standing.state, standing.why, standing.streams) == ("silent", "worker 1 silent for 9.0 s", 20_018)
    assert states(judged(*now, replace(old, revision=18, seen=NOW))) == {"node": "done"}


# -- kills of a relay's own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "kills", "more", "why"),
    [
        ("x", {"x": "conflict"}, 0, 'shows flag "x" by a kill of its own (conflict)'),
        ("x", {"w": "local", "x": "refused", "y": "local"}, 0, 'shows flag "x" by a kill of its own (refused)'),
        ("x", {"y": "conflict"}, 0, ""),
        ("x", {"y": "conflict"}, 7, "shows 7 flags by kills of its own that it does not name"),
        (None, {"y": "conflict"}, 0, 'shows flag "y" by a kill of its own (conflict)'),
        (None, {"y": "conflict", "z": "local"}, 2, 'shows flag "y" and 3 others by a kill of its own (conflict)'),
        (None, {}, 0, ""),
    ],
)
def test_a_relay_that_shows_the_flag_by_a_kill_of_its_own_has_not_got_the_change(
    flag: str | None, kills: dict[str, str], more: int, why: str
) -> None:
    said = Reports(NOW, (report("relay-1", kills=kills, more_kills=more),))
    [standing] = judge(said, "e0", 18, AT, flag).standings
    assert (standing.state, standing.why) == ("behind" if why else "done", why)


async def test_who_waits_for_one_flag_is_not_kept_waiting_by_kills_of_others() -> None:
    redis = Redis([report("a", kills={"y": "conflict"})])
    async with asyncio.timeout(20):
        assert (await prove(redis.read, WRITTEN, within=10.0, flag="x")).complete
        assert not (await prove(redis.read, WRITTEN, within=0.01)).complete


# -- what must always hold ----------------------------------------------------------------------------------------

SAID = st.builds(
    report,
    st.sampled_from("abcd"),
    st.integers(15, 20),
    ago=st.sampled_from([0.0, 1.0, 6.9, 7.1, 100.0]),
    worker=st.integers(1, 3),
    workers=st.integers(1, 3),
    source=st.sampled_from(["live", "live", "live", "stale"]),
    epoch=st.sampled_from(["e0", "e0", "e0", "e1"]),
    ms=st.none() | st.floats(0, 1000),
    streams=st.integers(0, 50),
    written=st.integers(0, 50),
    lagging=st.integers(0, 50),
    node=st.sampled_from(["", "n"]),
    instance=st.sampled_from("ab"),
    kills=st.sampled_from([{}, {}, {}, {"x": "conflict"}]),
)


def has_it(said: Report) -> bool:
    heard = said.age(NOW) <= said.interval + PATIENCE
    return heard and said.source == "live" and said.epoch == "e0" and said.revision >= 18 and not said.kills


@given(st.lists(SAID, max_size=12))
def test_nobody_is_counted_who_has_not_said_so_and_everybody_is_named(said: list[Report]) -> None:
    proof = judged(*said)
    assert [standing.relay for standing in proof.standings] == sorted({each.relay for each in said})
    for standing in proof.standings:
        mine = [each for each in said if each.relay == standing.relay]
        if standing.done:
            workers = max(mine, key=lambda each: (each.seen, each.workers)).workers
            for number in range(1, workers + 1):
                assert any(has_it(each) for each in mine if each.worker == number and each.workers == workers)
            assert standing.why == ""
        else:
            assert (standing.written, standing.lagging, standing.ms) == (0, 0, None)
            assert standing.why
            assert f"{standing.relay}: {standing.why}" in proof.sentence("killed")
    assert proof.complete == (bool(said) and all(standing.done for standing in proof.standings))
    assert proof.complete == ("only in part" not in proof.sentence("killed") and bool(said))


@given(st.lists(SAID, max_size=12), SAID)
def test_what_one_relay_says_changes_nothing_of_any_other(said: list[Report], more: Report) -> None:
    before = {standing.relay: standing for standing in judged(*said).standings}
    after = {standing.relay: standing for standing in judged(*said, more).standings}
    assert {relay: after[relay] for relay in before if relay != more.relay} == {
        relay: standing for relay, standing in before.items() if relay != more.relay
    }


@given(st.lists(SAID, max_size=12), st.randoms())
def test_the_order_of_the_reports_says_nothing(said: list[Report], rng: Any) -> None:
    # Of one process one report stands; here each is told from the others by when it was written.
    said = [replace(each, seen=each.seen - index) for index, each in enumerate(said)]
    unique = list({(each.relay, each.worker, each.workers, each.instance): each for each in said}.values())
    shuffled = unique[:]
    rng.shuffle(shuffled)
    assert judged(*shuffled) == judged(*unique)


@given(st.lists(SAID, max_size=12), st.floats(0, 60_000), st.text())
def test_a_proof_survives_json(said: list[Report], waited: float, error: str) -> None:
    proof = replace(judged(*said), waited=waited, error=error)
    members = json.loads(json.dumps(proof.as_json()))
    assert Proof.from_json(members) == proof
    assert (members["complete"], members["ms"]) == (proof.complete, proof.ms)
    for relay in members["relays"]:
        relay["of a later version"] = 1
    assert Proof.from_json(members) == proof


@pytest.mark.parametrize("wrong", [{}, {"relays": [{}]}, {"relays": [{"state": "well"}]}, {"revision": "x"}])
def test_what_is_no_proof_is_refused(wrong: dict[str, Any]) -> None:
    members = {**judged(report("a")).as_json(), **wrong} if wrong else {}
    with pytest.raises((KeyError, TypeError, ValueError)):
        Proof.from_json(members)


# -- waiting ------------------------------------------------------------------------------------------------------


class Redis:
    """Reports as they come: each look sees the next of them, the last one for good."""

    def __init__(self, *looks: Sequence[Report] | Exception) -> None:
        self.looks = list(looks)
        self.seen = 0

    async def read(self) -> Reports:
        look = self.looks[min(self.seen, len(self.looks) - 1)]
        self.seen += 1
        if isinstance(look, Exception):
            raise look
        return Reports(NOW, tuple(look))


async def wait(redis: Redis, within: float = 10.0) -> tuple[Proof, list[Proof]]:
    told: list[Proof] = []
    async with asyncio.timeout(20):
        return await prove(redis.read, WRITTEN, within=within, told=told.append), told


async def test_it_ends_as_soon_as_every_relay_has_it_and_tells_what_moves() -> None:
    redis = Redis(
        [report("a", 17), report("b", 17)],
        [report("a", 17), report("b", 17)],
        [report("a"), report("b", 17)],
        [report("a"), report("b", written=9_999, lagging=1)],
    )
    proof, told = await wait(redis)
    assert proof.complete
    assert redis.seen == 4
    assert [states(each) for each in told] == [
        {"a": "behind", "b": "behind"},
        {"a": "done", "b": "behind"},
        {"a": "done", "b": "done"},
    ]
    assert told[-1] == proof


async def test_it_does_not_wait_for_who_was_silent_already() -> None:
    redis = Redis([report("a", 17), report("b", 17, ago=60)], [report("a"), report("b", 17, ago=60)])
    proof, _ = await wait(redis)
    assert states(proof) == {"a": "done", "b": "silent"}
    assert redis.seen == 2


async def test_it_waits_no_longer_than_it_may_for_who_is_behind() -> None:
    redis = Redis([report("a"), report("b", 17)])
    proof, told = await wait(redis, within=0.1)
    assert states(proof) == {"a": "done", "b": "behind"}
    assert 100 <= proof.waited < 5000
    assert len(told) == 1, "nothing has moved"


async def test_it_does_not_wait_where_no_relay_reports() -> None:
    redis = Redis([])
    proof, _ = await wait(redis)
    assert proof.standings == ()
    assert redis.seen == 1


async def test_how_long_it_took_is_what_was_said_first() -> None:
    redis = Redis(
        [report("a", ms=5.0), report("b", 17)],
        [report("a", 19, ms=2.0), report("b", 17)],
        [report("a", 20, ms=2.0), report("b", ms=7.0)],
    )
    proof, _ = await wait(redis)
    assert [standing.ms for standing in proof.standings] == [5.0, 7.0]


async def test_reports_that_cannot_be_read_for_a_while_are_read_again() -> None:
    redis = Redis(StoreUnavailable("Redis at x: gone"), [report("a", 17)], StoreUnavailable("again"), [report("a")])
    proof, _ = await wait(redis)
    assert proof.complete
    assert redis.seen == 4


async def test_reports_that_can_never_be_read_prove_nothing_and_the_reason_is_told() -> None:
    proof, _ = await wait(Redis(StoreUnavailable("Redis at x: gone")), within=0.05)
    assert not proof.complete
    assert proof.sentence("killed") == "killed, but nobody knows where: Redis at x: gone"
    proof, _ = await wait(Redis([report("a", 17)], StoreUnavailable("Redis at x: gone")), within=0.05)
    assert proof.sentence("killed").endswith("; a: at revision 17; the reports cannot be read: Redis at x: gone")


async def test_a_redis_that_says_nothing_is_not_waited_for_longer_than_that() -> None:
    async def read() -> Reports:
        await asyncio.sleep(3600)
        raise AssertionError

    async with asyncio.timeout(20):
        proof = await prove(read, WRITTEN, within=0.05)
    assert proof.error == "there was no answer in time"


async def test_one_look_is_had_however_short_the_wait_and_slow_the_answer() -> None:
    async def read() -> Reports:
        await asyncio.sleep(0.05)
        return Reports(NOW, (report("a", 18),))

    proof = await prove(read, WRITTEN, within=0)
    assert (proof.error, proof.complete) == ("", True)
