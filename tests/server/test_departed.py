"""What a worker reported that is no more: its supervisor has Redis forget it."""

import asyncio
from typing import Any

import pytest
import structlog

from flagrelay.errors import StoreUnavailable
from flagrelay.server import departed
from flagrelay.server.departed import forget
from flagrelay.settings import Settings
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.reports import Report, drop_report, read_reports, write_report


def settings(store: Store, **different: Any) -> Settings:
    known: dict[str, Any] = {"redis_url": store.address.url, "relay_id": "node", "backoff_min": 0.01, "workers": 2}
    return Settings(**{**known, **different})


async def say(store: Store, *instances: str) -> None:
    for environment in ("production", "staging"):
        await create_environment(store, environment)
        for instance in instances:
            report = Report(
                relay="node",
                workers=2,
                epoch="e0",
                revision=1,
                source="live",
                streams=1,
                written=1,
                lagging=0,
                interval=5.0,
                instance=instance,
            )
            await write_report(store, environment, report)


async def left(store: Store) -> dict[str, list[str]]:
    return {
        environment: [report.instance for report in (await read_reports(store, environment)).reports]
        for environment in ("production", "staging")
    }


async def test_it_is_forgotten_in_every_environment_that_the_node_serves_and_nobody_else_is(store: Store) -> None:
    await say(store, "a", "b")
    await forget(settings(store, env=("staging",)), "a")
    assert {name: set(found) for name, found in (await left(store)).items()} == {
        "production": {"a", "b"},
        "staging": {"b"},
    }
    await forget(settings(store), "a")
    assert await left(store) == {"production": ["b"], "staging": ["b"]}
    await forget(settings(store, report_interval=0.0), "b")
    assert await left(store) == {"production": ["b"], "staging": ["b"]}, "a node that does not report has said nothing"


async def test_where_redis_is_away_it_is_told_once_it_is_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await say(store, "a", "b")
    failures = [StoreUnavailable("gone"), StoreUnavailable("still gone")]

    async def drop(*words: Any, **members: Any) -> int:
        if failures:
            raise failures.pop()
        return await drop_report(*words, **members)

    monkeypatch.setattr(departed, "drop_report", drop)
    with structlog.testing.capture_logs() as logs:
        await asyncio.wait_for(forget(settings(store), "a"), 20)
    assert await left(store) == {"production": ["b"], "staging": ["b"]}
    assert [line["reason"] for line in logs] == ["still gone"], "once, since it may go on for long"
