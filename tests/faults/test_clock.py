"""The machine's clock is stepped, forwards and back: nothing that matters is measured by it."""

import time
from pathlib import Path

import pytest

from flagrelay.relay import pipeline, pump, source
from flagrelay.server import keyring
from flagrelay.store.connection import Store
from support.relays import World, make_world, running_relay
from support.sources import until
from support.streams import Replica, stream

HOUR = 3600.0


class Clock:
    """The wall clock, with a step."""

    def __init__(self) -> None:
        self.step = 0.0

    def __call__(self) -> float:
        return time.time() + self.step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (pipeline, pump, source, keyring):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize("step", [HOUR, -HOUR, 86400.0 * 365])
async def test_streams_go_on_and_ages_are_right_whatever_the_clock_says(
    step: float, clock: Clock, store: Store, tmp_path: Path
) -> None:
    world: World = await make_world(store, store.address.url)
    settings = {"heartbeat_interval": 0.05, "state_dir": str(tmp_path / "state"), "state_interval": 0.0}
    async with running_relay("handover", world, **settings) as relay:  # type: ignore[arg-type]  # settings of many types
        secret = await relay.secret()
        async with stream(relay.port, secret) as opened:
            replica = Replica()
            await replica.follow(opened, 3)
            clock.step = step
            await world.tick(1)
            await replica.follow(opened, 4)
            heartbeat = await opened.heartbeat(source="live")
            assert heartbeat["age_ms"] < 5000
            await until(lambda: abs(relay.pipeline.source.clock_offset + step) < 5, "Redis's clock is known again")
            await world.tick(2)
            await replica.follow(opened, 5)
            assert relay.context.relay.streams == 1
            assert relay.pipeline.live
        await relay.secret()  # keys made now are known, and old ones still are
        async with stream(relay.port, secret) as opened:
            assert opened.head.status == 200


async def test_what_was_kept_by_a_clock_ahead_of_ours_is_not_younger_than_nothing(
    clock: Clock, store: Store, tmp_path: Path
) -> None:
    world: World = await make_world(store, store.address.url)
    clock.step = HOUR
    kept = {"state_dir": str(tmp_path / "state"), "state_interval": 0.0, "state_wait": 0.0}
    async with running_relay("handover", world, **kept) as relay:  # type: ignore[arg-type]  # settings of many types
        await until((tmp_path / "state" / "production.snapshot").exists, "it is kept")
        await relay.secret()
    clock.step = 0.0
    nowhere = {**kept, "redis_url": "unix:///nowhere/redis.sock"}
    async with running_relay("handover", world, ready=False, **nowhere) as relay:
        await until(lambda: "production" in relay.context.relay.pipelines and relay.pipeline.hub.loaded, "it is served")
        assert relay.pipeline.age >= 0
