"""A herd: taken in portions, up to what may wait; the rest is told when to come back."""

import asyncio

import pytest

from flagrelay.server.pace import Pace, Turn
from support.relays import World, running_relay
from support.sources import until
from support.streams import ask, stream

pytestmark = pytest.mark.parametrize("kind", ["handover", "hypercorn"])


async def test_whoever_comes_when_too_many_wait_is_told_when_to_come_back(
    kind: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_relay(kind, world) as relay:
        secret = await relay.secret()
        waits = set()
        monkeypatch.setattr(Pace, "enter", lambda _self, _start: Turn.NEVER)
        for _ in range(30):
            answer = await ask(relay.port, "/v1/stream", secret)
            assert (answer.status, answer.json["errorCode"]) == (503, "OVERLOADED")
            waits.add(int(answer.headers["retry-after"]))
        assert len(waits) > 1, "not all at the same time"
        assert waits <= set(range(2, 11))
        assert relay.context.relay.refused == {"herd": 30}
        assert (await ask(relay.port, "/livez")).status == 200, "what opens no stream passes by"
        metrics = (await ask(relay.port, "/metrics")).body.decode()
        assert 'flagrelay_streams_refused_total{limit="herd"} 30.0' in metrics


async def test_a_herd_that_may_wait_is_all_let_in(kind: str, world: World) -> None:
    async with running_relay(kind, world) as relay:
        secret = await relay.secret()

        async def one(ready: asyncio.Event) -> None:
            async with stream(relay.port, secret) as opened:
                await opened.event("put")
                await ready.wait()

        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(one(ready))
            await until(lambda: relay.context.relay.streams == 100, "all are let in")
            ready.set()
        assert relay.context.pace.waiting == 0


async def test_an_address_has_a_limit_of_its_own(kind: str, world: World) -> None:
    async with running_relay(kind, world, max_streams_per_address=2) as relay:
        secret = await relay.secret()
        async with stream(relay.port, secret), stream(relay.port, secret):
            answer = await ask(relay.port, "/v1/stream", secret)
            assert (answer.status, answer.json["errorCode"]) == (503, "OVERLOADED")
            assert "your address has 2 streams open" in answer.json["errorDetails"]
            assert relay.context.relay.refused == {"address": 1}
        await relay.streams(0)
        async with stream(relay.port, secret):
            assert relay.context.relay.streams_from("127.0.0.1") == 1
