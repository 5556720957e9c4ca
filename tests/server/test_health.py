"""GET /livez and GET /readyz: who may be sent here, and why not."""

import asyncio
from pathlib import Path
from typing import Any

from flagrelay.store.access_keys import create_access_key
from flagrelay.store.environments import create_environment, destroy_environment
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay, wired_relay
from support.sources import until
from support.streams import PATIENCE, Answer, ask, stream


async def ready(relay: RunningRelay) -> Answer:
    return await ask(relay.port, "/readyz")


async def becomes(relay: RunningRelay, status: int, why: str = "") -> dict[str, Any]:
    """Wait until /readyz answers with a status, and where it has a reason, with these words in it; its body."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await ready(relay)
            body: dict[str, Any] = answer.json
            if answer.status == status and why in body.get("reason", ""):
                return body
            await asyncio.sleep(0.005)


async def test_a_relay_that_has_loaded_is_ready_and_says_what_it_serves(world: World) -> None:
    async with running_relay("handover", world) as relay:
        answer = await ready(relay)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        report = answer.json["environments"][ENVIRONMENT]
        assert answer.json["status"] == "ready"
        assert report["source"] == "live"
        assert f"{report['epoch']}.{report['revision']}" == await world.event_id()
        assert 0 <= report["age_ms"] < 5000


async def test_a_relay_is_alive_whatever_becomes_of_redis(world: World, tmp_path: Path) -> None:
    async with wired_relay("handover", world, tmp_path) as (relay, wire):
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live, "Redis is lost")
        answer = await ask(relay.port, "/livez")
        assert (answer.status, answer.json) == (200, {"status": "alive"})


async def test_an_environment_that_is_missing_makes_the_relay_not_ready_until_it_is_there(world: World) -> None:
    await destroy_environment(world.store, ENVIRONMENT)
    async with running_relay("handover", world, ready=False) as relay:
        await until(lambda: relay.context.keyring.live, "the keys are known")
        body = await becomes(relay, 503, f"flagrelay env create {ENVIRONMENT}")
        assert body["status"] == "not ready"
        assert body["reason"].startswith(f"{ENVIRONMENT}: not loaded yet: ")
        assert body["environments"][ENVIRONMENT]["source"] in ("connecting", "loading")
        await create_environment(world.store, ENVIRONMENT)
        assert (await becomes(relay, 200))["environments"][ENVIRONMENT]["revision"] == 0


async def test_each_configured_environment_must_have_loaded(world: World) -> None:
    async with running_relay("handover", world, env=(ENVIRONMENT, "staging")) as relay:
        body = await becomes(relay, 503, "flagrelay env create staging")
        assert f"{ENVIRONMENT}:" not in body["reason"]
        assert body["environments"][ENVIRONMENT]["source"] == "live"
        # What has loaded is served all the same.
        async with stream(relay.port, await relay.secret()) as opened:
            await opened.event("put")


async def test_a_relay_without_any_environment_is_not_ready_and_says_what_to_do(world: World) -> None:
    await destroy_environment(world.store, ENVIRONMENT)
    async with running_relay("handover", world, ready=False, env=()) as relay:
        await until(lambda: relay.context.keyring.live, "the keys are known")
        await becomes(relay, 503, "flagrelay env create")


async def test_without_redis_at_the_start_the_reason_is_redis(world: World, tmp_path: Path) -> None:
    for environments in ((ENVIRONMENT,), ()):
        settings = {"redis_url": f"unix://{tmp_path}/nobody.sock", "env": environments}
        async with running_relay("handover", world, ready=False, **settings) as relay:
            await until(lambda: "nobody.sock" in relay.context.keyring.reason, "Redis was tried")
            body = await becomes(relay, 503, "nobody.sock")
            assert "env create" not in body["reason"], "nobody knows whether there is one"
            assert (await ask(relay.port, "/livez")).status == 200


async def test_a_relay_stays_ready_while_stale_and_not_for_longer_than_it_may(world: World, tmp_path: Path) -> None:
    async with wired_relay("handover", world, tmp_path, max_stale=0.5) as (relay, wire):
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live, "Redis is lost")
        answer = await ready(relay)
        assert answer.status == 200
        assert answer.json["environments"][ENVIRONMENT]["source"] == "stale"
        assert "Redis" in answer.json["environments"][ENVIRONMENT]["reason"]
        await until(lambda: relay.pipeline.age > 0.5, "it is too old")
        await becomes(relay, 503, f"{ENVIRONMENT}: stale for")
        wire.refusing = False
        await until(lambda: relay.pipeline.live, "Redis is back")
        assert (await ready(relay)).status == 200


async def test_no_url_or_password_of_redis_is_shown(world: World, tmp_path: Path) -> None:
    url = f"unix://ada:pass4711@{tmp_path}/nobody.sock"
    async with running_relay("handover", world, ready=False, redis_url=url) as relay:
        assert "pass4711" not in str(await becomes(relay, 503))


async def test_health_takes_no_key_and_answers_head(world: World) -> None:
    await create_access_key(world.store, ENVIRONMENT, "server", "unused", None)
    async with running_relay("handover", world) as relay:
        for path in ("/livez", "/readyz", "/metrics"):
            answer = await ask(relay.port, path, method="HEAD")
            assert answer.status == 200
            assert answer.headers["content-type"].split(";")[0] in ("application/json", "text/plain")
