"""GET /metrics: every family there, every count moved by what it counts."""

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from flagrelay import __version__
from flagrelay.store.access_keys import revoke_access_key
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay, wired_relay
from support.sources import publish, until
from support.streams import ask, stream

FAMILIES = {
    "flagrelay_build_info": "gauge",
    "flagrelay_streams_open": "gauge",
    "flagrelay_streams_open_by_kind": "gauge",
    "flagrelay_streams_lagging": "gauge",
    "flagrelay_streams_opened": "counter",
    "flagrelay_streams_resumed": "counter",
    "flagrelay_streams_refused": "counter",
    "flagrelay_streams_closed": "counter",
    "flagrelay_sent_bytes": "counter",
    "flagrelay_evaluations": "counter",
    "flagrelay_changes_applied": "counter",
    "flagrelay_revision": "gauge",
    "flagrelay_flags": "gauge",
    "flagrelay_source_state": "gauge",
    "flagrelay_source_age_seconds": "gauge",
    "flagrelay_source_gaps": "counter",
    "flagrelay_source_reloads": "counter",
    "flagrelay_source_bad_messages": "counter",
    "flagrelay_source_losses": "counter",
    "flagrelay_source_histories_lost": "counter",
    "flagrelay_local_kills": "gauge",
    "flagrelay_reports": "counter",
    "flagrelay_clock_offset_seconds": "gauge",
    "flagrelay_propagation_seconds": "histogram",
}


class Scrape:
    """One answer of /metrics, parsed as Prometheus would."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, *, environment: str = ENVIRONMENT, **labels: str) -> float:
        """The value of a sample; 0 where a counter's label has never come up."""
        wanted: Mapping[str, str] = {"environment": environment, **labels}
        return self._samples.get((f"flagrelay_{name}", frozenset(wanted.items())), 0.0)


async def scrape(relay: RunningRelay) -> Scrape:
    answer = await ask(relay.port, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape(answer.body.decode())


async def test_every_family_is_there_with_its_type_and_a_description(world: World) -> None:
    async with running_relay("handover", world) as relay:
        families = (await scrape(relay)).families
        assert {name: family.type for name, family in families.items()} == FAMILIES
        assert all(family.documentation for family in families.values())
        [build] = families["flagrelay_build_info"].samples
        assert build.labels == {"version": __version__}


async def test_streams_are_counted_from_opening_to_the_reason_of_their_end(world: World) -> None:
    async with running_relay("handover", world) as relay:
        (key, secret), event_id = await relay.key(), await world.event_id()
        before = await scrape(relay)
        assert before("streams_open") == before("streams_opened_total") == 0
        async with stream(relay.port, secret) as first, stream(relay.port, secret, event_id) as second:
            await first.event("put")
            await second.event("heartbeat")
            now = await scrape(relay)
            assert now("streams_open") == now("streams_opened_total") == 2
            assert now("streams_resumed_total", resume="full") == 1
            assert now("streams_resumed_total", resume="current") == 1
            sent = len(first.content) + len(second.content)
            assert sent < now("sent_bytes_total") < sent + 200, "the events, and their framing"
            first.connection.reset()
            await relay.streams(1)
            await revoke_access_key(world.store, key.id)
            assert await second.goodbye() == "revoked"
            after = await scrape(relay)
            assert (after("streams_open"), after("streams_opened_total")) == (0, 2)
            assert after("streams_closed_total", reason="gone") == 1
            assert after("streams_closed_total", reason="revoked") == 1


async def test_changes_are_counted_and_their_way_is_timed(world: World) -> None:
    async with running_relay("handover", world) as relay:
        async with stream(relay.port, await relay.secret()) as opened:
            await opened.event("put")
            for number in range(5):
                await world.tick(number, f"flag-{number}")
                await opened.event("patch")
            now = await scrape(relay)
        assert now("changes_applied_total") == 5
        assert (now("revision"), now("flags")) == (8, 7)
        for which in ("first", "last"):
            assert now("propagation_seconds_count", stream=which) == 5
            assert 0 <= now("propagation_seconds_sum", stream=which) < 5
            assert now("propagation_seconds_bucket", stream=which, le="+Inf") == 5
        assert now("propagation_seconds_sum", stream="first") <= now("propagation_seconds_sum", stream="last")
        assert abs(now("clock_offset_seconds")) < 0.5, "it is the same machine's clock"


async def test_reports_to_redis_are_counted(world: World) -> None:
    async with running_relay("handover", world, report_interval=0.01) as relay:
        await until(lambda: relay.pipeline.stats.reports["ok"] > 1, "it reports")
        await world.store.client.flushall()
        await until(lambda: relay.pipeline.stats.reports["failed"], "there is nothing to report to")
        now = await scrape(relay)
        assert now("reports_total", result="ok") > 1
        assert now("reports_total", result="failed") >= 1


async def test_a_change_without_streams_is_counted_but_not_timed(world: World) -> None:
    async with running_relay("handover", world) as relay:
        await relay.at((await world.tick(1)).revision)
        now = await scrape(relay)
        assert now("changes_applied_total") == 1
        assert now("propagation_seconds_count", stream="last") == 0


async def test_what_the_source_goes_through_is_seen(world: World, tmp_path: Path) -> None:
    async with wired_relay("handover", world, tmp_path) as (relay, wire):
        now = await scrape(relay)
        assert now("source_state", state="live") == 1
        assert sum(now("source_state", state=state) for state in ("connecting", "loading", "stale")) == 0
        assert now("source_reloads_total", reason="start") == 1
        assert 0 <= now("source_age_seconds") < 5
        await publish(world.store, b"no change at all")
        await until(lambda: relay.pipeline.stats.bad_messages, "it was heard")
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live, "Redis is lost")
        await until(lambda: relay.pipeline.source.state == "stale", "it says so")
        now = await scrape(relay)
        assert now("source_bad_messages_total") == 1
        assert now("source_losses_total") >= 1
        assert now("source_state", state="stale") == 1
        await world.tick(1)
        wire.refusing = False
        await until(lambda: relay.pipeline.live, "Redis is back")
        assert (await scrape(relay))("source_gaps_total") == 1


async def test_no_sample_is_without_a_value_before_anything_has_loaded(world: World, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    async with running_relay("handover", world, ready=False, redis_url=url) as relay:
        now = await scrape(relay)
        values = [sample.value for family in now.families.values() for sample in family.samples]
        assert not [value for value in values if math.isnan(value)]
        assert now("source_state", state="connecting") == 1
        assert ENVIRONMENT not in {
            sample.labels["environment"] for sample in now.families["flagrelay_revision"].samples
        }, "it has none yet"


async def test_each_environment_is_counted_apart_under_load(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(ask(relay.port, "/v1/flags", secret))
                tasks.create_task(ask(relay.port, "/metrics"))
        assert (await scrape(relay))("streams_opened_total") == 0, "only streams are streams"
