"""What relays say of themselves in Redis."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import StoreUnavailable
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import destroy_environment
from flagrelay.store.reading import read_clock
from flagrelay.store.reports import (
    FORGOTTEN,
    MISSED,
    PATIENCE,
    Report,
    Reports,
    drop_report,
    read_reports,
    write_report,
)
from support.stores import ENVIRONMENT

REPORT = Report(
    relay="relay-1:8080",
    epoch="e0",
    revision=18,
    source="live",
    streams=10_000,
    written=9_990,
    lagging=10,
    ms=38.25,
    interval=5.0,
    instance="a1b2",
)


async def fields(store: Store) -> set[str]:
    return {name.decode() for name in await store.client.hkeys(store.keys.relays(ENVIRONMENT))}


async def put_raw(store: Store, field: str, text: str) -> None:
    await store.client.hset(store.keys.relays(ENVIRONMENT), field, text)


async def test_a_report_is_read_as_it_was_written_with_redis_own_time(store: Store, empty: Snapshot) -> None:
    before = await read_clock(store, ENVIRONMENT)
    assert await write_report(store, ENVIRONMENT, REPORT)
    found = await read_reports(store, ENVIRONMENT)
    [report] = found.reports
    assert replace(report, seen=0) == REPORT
    assert before <= report.seen <= found.now
    assert await fields(store) == {"relay-1:8080"}


async def test_each_worker_has_a_report_and_the_last_one_stands(store: Store, empty: Snapshot) -> None:
    for worker in (2, 1):
        for revision in (1, 2):
            await write_report(store, ENVIRONMENT, replace(REPORT, worker=worker, workers=2, revision=revision))
    assert await fields(store) == {"relay-1:8080/1/a1b2", "relay-1:8080/2/a1b2"}
    found = await read_reports(store, ENVIRONMENT)
    assert [(report.worker, report.revision) for report in found.reports] == [(1, 2), (2, 2)]


async def test_a_worker_that_is_being_replaced_has_its_report_beside_its_successors(
    store: Store, empty: Snapshot
) -> None:
    old = replace(REPORT, workers=2, node="n1", instance="old")
    for report in (old, replace(old, instance="new")):
        await write_report(store, ENVIRONMENT, report, sweep=True)
    assert {report.instance for report in (await read_reports(store, ENVIRONMENT)).reports} == {"old", "new"}
    assert await drop_report(store, ENVIRONMENT, REPORT.relay, instance="old") == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_another_node_of_the_name_said_is_dropped_by_the_one_that_follows(
    workers: int, store: Store, empty: Snapshot
) -> None:
    before = replace(REPORT, workers=3, node="n1", instance="before")
    for number in (1, 2, 3):
        await write_report(store, ENVIRONMENT, replace(before, worker=number))
    await write_report(store, ENVIRONMENT, replace(before, relay="another"))
    now = replace(REPORT, workers=workers, node="n2" if workers > 1 else "", instance="now")
    await write_report(store, ENVIRONMENT, now, sweep=True)
    found = (await read_reports(store, ENVIRONMENT)).reports
    assert {(report.relay, report.instance) for report in found} == {("another", "before"), (REPORT.relay, "now")}


async def test_nothing_is_written_where_there_is_no_environment(store: Store, empty: Snapshot) -> None:
    assert not await write_report(store, "nowhere", REPORT, sweep=True)
    await write_report(store, ENVIRONMENT, REPORT)
    await destroy_environment(store, ENVIRONMENT)
    assert not await write_report(store, ENVIRONMENT, REPORT)
    assert not await store.client.exists(store.keys.relays(ENVIRONMENT))
    assert (await read_reports(store, ENVIRONMENT)).reports == ()


async def test_who_was_not_heard_of_for_long_is_forgotten_and_nobody_else(store: Store, empty: Snapshot) -> None:
    now = await read_clock(store, ENVIRONMENT)
    for relay, age, streams in (
        ("dead", FORGOTTEN + 1, 0),
        ("silent", FORGOTTEN - 60, 0),
        ("long dead", MISSED + 1, 1),
        ("cut off", FORGOTTEN + 1, 1),
        ("later", 0, 0),
    ):
        about = {"relay": relay, "seen": now - age * 1_000_000, "streams": streams, "of a later version": [1]}
        members = {**REPORT.as_json(), **about}
        await put_raw(store, relay, json.dumps(members))
    await put_raw(store, "garbage", "no report")
    await write_report(store, ENVIRONMENT, REPORT)
    assert "dead" in await fields(store), "nobody has looked"
    await write_report(store, ENVIRONMENT, REPORT, sweep=True)
    assert await fields(store) == {"silent", "cut off", "later", "garbage", "relay-1:8080"}
    assert [report.relay for report in (await read_reports(store, ENVIRONMENT)).reports] == [
        "cut off",
        "later",
        "relay-1:8080",
        "silent",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "[]", "1", "null", "{}", '"text"', "\x00"),
        json.dumps({**REPORT.as_json(), "revision": "18"}),
        json.dumps({**REPORT.as_json(), "revision": True}),
        json.dumps({**REPORT.as_json(), "interval": None}),
        json.dumps({**REPORT.as_json(), "kills": ["x"]}),
        json.dumps({**REPORT.as_json(), "kills": {"x": 1}}),
        json.dumps({name: value for name, value in REPORT.as_json().items() if name != "epoch"}),
    ],
)
async def test_what_is_no_report_is_passed_over(store: Store, empty: Snapshot, wrong: str) -> None:
    await put_raw(store, "wrong", wrong)
    await write_report(store, ENVIRONMENT, REPORT, sweep=True)
    assert [report.relay for report in (await read_reports(store, ENVIRONMENT)).reports] == ["relay-1:8080"]


async def test_a_relay_is_dropped_with_all_of_its_workers_and_no_other(store: Store, empty: Snapshot) -> None:
    for worker in (1, 2, 3):
        await write_report(store, ENVIRONMENT, replace(REPORT, worker=worker, workers=3))
    await write_report(store, ENVIRONMENT, replace(REPORT, relay="relay-1"))
    await put_raw(store, "broken", "no report")
    assert await drop_report(store, ENVIRONMENT, "relay-1:8080") == 3
    assert await drop_report(store, ENVIRONMENT, "relay-1:8080") == 0
    assert await fields(store) == {"relay-1", "broken"}
    assert await drop_report(store, ENVIRONMENT, "broken") == 1


async def test_a_process_that_ends_does_not_take_its_successors_report_with_it(store: Store, empty: Snapshot) -> None:
    await write_report(store, ENVIRONMENT, REPORT)
    await write_report(store, ENVIRONMENT, replace(REPORT, instance="successor"))
    assert await drop_report(store, ENVIRONMENT, REPORT.relay, instance=REPORT.instance) == 0
    assert await drop_report(store, ENVIRONMENT, REPORT.relay, instance="successor") == 1


async def test_without_redis_it_says_so(store: Store) -> None:
    async with open_store(RedisAddress("unix:///nowhere/redis.sock")) as nowhere:
        for attempt in (write_report(nowhere, ENVIRONMENT, REPORT), read_reports(nowhere, ENVIRONMENT)):
            with pytest.raises(StoreUnavailable, match="nowhere"):
                await attempt


def test_it_is_silent_after_its_own_interval_and_some_patience() -> None:
    limit = round((REPORT.interval + PATIENCE) * 1e6)
    assert not REPORT.silent(REPORT.seen + limit)
    assert REPORT.silent(REPORT.seen + limit + 1)
    assert REPORT.age(REPORT.seen - 5) == 0, "a clock that went back makes nobody older"


REPORTS = st.builds(
    Report,
    relay=st.text(),
    worker=st.integers(1, 9),
    workers=st.integers(1, 9),
    epoch=st.text(),
    revision=st.integers(0, 10**15),
    source=st.sampled_from(["live", "stale"]),
    streams=st.integers(0),
    written=st.integers(0),
    lagging=st.integers(0),
    ms=st.none() | st.floats(0, allow_infinity=False),
    interval=st.floats(0, 60) | st.integers(0, 60),
    node=st.text(),
    kills=st.dictionaries(st.text(), st.sampled_from(["local", "conflict", "refused"]), max_size=3),
    more_kills=st.integers(0, 9),
    seen=st.integers(0, 10**18),
)


@given(st.integers(0, 10**18), st.lists(REPORTS, max_size=4), st.dictionaries(st.text(min_size=20), st.integers()))
def test_reports_survive_json_whatever_a_later_version_adds(now: int, said: list[Report], more: dict[str, Any]) -> None:
    reports = Reports(now, tuple(said))
    members = json.loads(json.dumps(reports.as_json()))
    members["reports"] = [each | more for each in members["reports"]]
    assert Reports.from_json(members) == reports
