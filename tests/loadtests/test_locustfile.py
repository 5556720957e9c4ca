"""Locust on a real relay: in a process of its own, where gevent may patch what it likes."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flagrelay.store.changelog import read_changes
from flagrelay.store.reading import read_snapshot
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay

LOADTESTS = Path(__file__).resolve().parents[2] / "loadtests"
LOCUSTFILE = LOADTESTS / "locustfile.py"
PROPAGATION = "SSE propagation"
FIRST_PUT = "SSE connect to first put"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its exit status, its requests, and what it said."""

    status: int
    requests: dict[str, dict[str, Any]]
    said: str

    def count(self, name: str) -> int:
        return int(self.requests[name]["num_requests"])

    @property
    def failures(self) -> dict[str, int]:
        return {name: request["num_failures"] for name, request in self.requests.items() if request["num_failures"]}


@contextlib.asynccontextmanager
async def started(*options: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A run without a web page, for a few seconds."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("FLAGRELAY_", "LOCUST_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--json", "--only-summary"),
        *("--spawn-rate", "100", "--run-time", "4s", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**ours, **variables},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def locust(*options: str, **variables: str) -> Outcome:
    """Such a run, to its end."""
    async with started(*options, **variables) as process:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    # Each process of several prints what it has: the workers nothing, since they have told the master.
    documents: list[list[dict[str, Any]]] = json.loads("[" + out.decode().replace("]\n[", "],[") + "]")
    requests = max(documents, key=len, default=[])
    return Outcome(process.returncode, {f"{each['method']} {each['name']}": each for each in requests}, err.decode())


async def variables_for(relay: RunningRelay) -> dict[str, str]:
    """What a run has to know, as environment variables."""
    return {
        "LOCUST_HOST": relay.url,
        "LOCUST_ACCESS_KEY": await relay.secret(),
        "LOCUST_REDIS_URL": relay.world.redis_url,
        "LOCUST_REDIS_ENV": ENVIRONMENT,
    }


@pytest.mark.parametrize("kind", ["definitions", "evaluated"])
async def test_changes_reach_every_stream_and_the_flag_is_removed_at_the_end(world: World, kind: str) -> None:
    before = await read_snapshot(world.store, ENVIRONMENT)
    async with running_relay("handover", world) as relay:
        run = await locust("--users", "12", "--stream-kind", kind, "--contexts", "3", **await variables_for(relay))
    assert (run.status, run.failures) == (0, {}), run.said
    assert run.count(FIRST_PUT) == 10
    written = run.count("CHANGE write")
    assert written >= 10, "five a second"
    # Those at the very beginning and end meet streams that are not there yet, or no more.
    assert 10 * (written - 3) <= run.count(PROPAGATION) <= 10 * (written + 1)
    assert 0 < run.requests[PROPAGATION]["min_response_time"] < 1000
    assert run.count("POST /ofrep/v1/evaluate/flags") > 0
    after = await read_snapshot(world.store, ENVIRONMENT)
    assert after.flags == before.flags
    changes = await read_changes(world.store, ENVIRONMENT, before.position.revision)
    assert len(changes) in {written + 1, written + 2}, "one may have been written and not been told of"


async def test_the_flag_is_removed_even_where_locust_is_killed(world: World) -> None:
    async def flags() -> int:
        return len((await read_snapshot(world.store, ENVIRONMENT)).flags)

    before = await flags()
    async with running_relay("handover", world) as relay:
        async with started("--users", "12", **await variables_for(relay)) as process:
            async with asyncio.timeout(30):
                while await flags() == before:
                    await asyncio.sleep(0.02)
            process.kill()
        async with asyncio.timeout(10):
            while await flags() != before:
                await asyncio.sleep(0.02)


async def test_streams_that_end_are_opened_again_and_lose_nothing(world: World) -> None:
    async with running_relay("handover", world, stream_lifetime=0.5, retry=0.1) as relay:
        run = await locust("--users", "12", "StreamUser", "ChangeUser", **await variables_for(relay))
    assert (run.status, run.failures) == (0, {}), run.said
    assert run.count("SSE goodbye: lifetime") >= 20
    assert run.count("SSE reconnect to first event") >= 20
    assert run.count("SSE propagation after reconnect") > 0


async def test_however_many_processes_there_are_one_makes_changes(world: World) -> None:
    async with running_relay("handover", world) as relay:
        run = await locust("--users", "12", "--processes", "2", **await variables_for(relay))
    assert (run.status, run.failures) == (0, {}), run.said
    assert run.count(FIRST_PUT) == 10
    keys = {key for change in await read_changes(world.store, ENVIRONMENT, 3) for key in change.flags}
    assert len(keys) == 1
    assert run.count(PROPAGATION) >= 10 * (run.count("CHANGE write") - 3)


async def test_without_redis_the_changes_of_others_are_measured(world: World) -> None:
    async with running_relay("handover", world) as relay:
        running = asyncio.create_task(locust("--users", "12", **{**await variables_for(relay), "LOCUST_REDIS_URL": ""}))
        await relay.streams(10)
        for number in range(5):
            await world.tick(number)
        run = await running
    assert (run.status, run.failures) == (0, {}), run.said
    assert "CHANGE write" not in run.requests
    assert run.count(PROPAGATION) >= 40


async def test_a_stream_that_is_ended_for_cause_fails_the_run(world: World) -> None:
    async with running_relay("handover", world) as relay:
        run = await locust("--users", "3", "StreamUser", **{**await variables_for(relay), "LOCUST_ACCESS_KEY": "no"})
    assert run.status == 1
    assert run.failures == {"SSE stream": 3}


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"LOCUST_ACCESS_KEY": ""}, "no access key is given"),
        ({"LOCUST_HOST": ""}, "no relay is named"),
        ({"LOCUST_REDIS_ENV": "nowhere"}, '"nowhere"'),
        ({"LOCUST_REDIS_URL": "unix:///nowhere"}, "Redis at unix:///nowhere"),
        ({"LOCUST_REDIS_URL": "nonsense"}, "the Redis URL"),
        ({"LOCUST_CHANGE_FLAG": "old"}, 'the flag "old" exists'),
    ],
)
async def test_what_cannot_work_ends_at_once_and_says_why(world: World, differs: dict[str, str], says: str) -> None:
    async with running_relay("handover", world) as relay:
        run = await locust("--users", "3", **{**await variables_for(relay), **differs})
        assert (await read_snapshot(world.store, ENVIRONMENT)).position.revision == 3
    assert run.status == 1
    assert says in run.said
    assert "Traceback" not in run.said


async def test_every_option_is_in_the_help() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, str(LOCUSTFILE), stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    for option in ("--access-key", "--redis-url", "--changes-per-second", "--stream-kind", "--gzip", "--tls-verify"):
        assert option in out.decode()
