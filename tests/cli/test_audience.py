"""Many streams at once, and when each hears of a change."""

import resource
from collections.abc import AsyncIterator

import pytest

from flagrelay.cli import audience as module
from flagrelay.cli.audience import MAX_REVISIONS, Arrivals, Audience, audience
from flagrelay.errors import FlagrelayError
from flagrelay.store.access_keys import revoke_access_key
from flagrelay.store.connection import Store
from support.relays import RunningRelay, World, make_world, running_relay
from support.sources import until


@pytest.fixture
async def relay(store: Store) -> AsyncIterator[RunningRelay]:
    world: World = await make_world(store, store.address.url)
    async with running_relay("handover", world, stream_lifetime=3600.0) as relay:
        yield relay


def url_of(relay: RunningRelay) -> str:
    return f"http://127.0.0.1:{relay.port}"


async def test_every_stream_hears_of_every_change(relay: RunningRelay) -> None:
    progress: list[int] = []
    async with audience(url_of(relay), await relay.secret(), 20, progress.append) as heard:
        assert progress[-1] == 20
        assert progress == sorted(progress)
        for number in range(3):
            written = await relay.world.tick(number)
            arrivals = await heard.arrivals(await relay.world.event_id(), written.at)
            assert len(arrivals.milliseconds) == arrivals.streams == 20
            assert 0 < arrivals.first <= arrivals.median <= arrivals.p99 <= arrivals.last < 5000


async def test_a_change_that_nobody_hears_of_is_not_waited_for(relay: RunningRelay) -> None:
    async with audience(url_of(relay), await relay.secret(), 2, lambda _: None) as heard:
        arrivals = await heard.arrivals("e.99", 0, patience=0.05)
        assert (arrivals.milliseconds, arrivals.streams) == ([], 2)


async def test_streams_that_end_are_opened_again_where_they_were(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT", (0.01, 0.02))
    async with audience(url_of(relay), await relay.secret(), 3, lambda _: None) as heard:
        hub = relay.pipeline.hub
        for subscriber in list(hub.subscribers):
            subscriber.transport.abort()
        await until(lambda: len(hub.subscribers) == 0, "they are gone")
        written = await relay.world.tick(1)
        arrivals = await heard.arrivals(await relay.world.event_id(), written.at)
        assert len(arrivals.milliseconds) == 3, "as a patch, since each said what it had"


async def test_streams_whose_key_is_revoked_stay_away(relay: RunningRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT", (0.01, 0.02))
    key, secret = await relay.key()
    async with audience(url_of(relay), secret, 3, lambda _: None) as heard:
        await revoke_access_key(relay.world.store, key.id)
        await until(lambda: "401" in heard._trouble, "they are refused")
        written = await relay.world.tick(1)
        assert (await heard.arrivals(await relay.world.event_id(), written.at, patience=0.2)).milliseconds == []


async def test_streams_that_do_not_open_are_an_error_that_says_why(
    relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_TIMEOUT", 0.3)
    with pytest.raises(FlagrelayError, match=r"only 0 of 2 streams .*: .*401 UNAUTHORIZED"):
        async with audience(url_of(relay), "wrong", 2, lambda _: None):
            pass
    with pytest.raises(FlagrelayError, match=r"only 0 of 2 streams .*: .*127\.0\.0\.1:1"):
        async with audience("http://127.0.0.1:1", "k", 2, lambda _: None):
            pass


async def test_more_streams_than_files_are_refused_before_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    with pytest.raises(FlagrelayError, match=r"200 streams need 264 open files, and the limit is 256: .*ulimit"):
        async with audience("http://127.0.0.1:1", "k", 200, lambda _: None):
            pass


async def test_what_nobody_asks_for_is_forgotten() -> None:
    heard = Audience(1)
    for revision in range(MAX_REVISIONS + 10):
        heard._note(f"e.{revision}", 1.0)
    assert len(heard._heard) == MAX_REVISIONS
    assert (await heard.arrivals(f"e.{MAX_REVISIONS + 9}", 0)).milliseconds == [1000.0]


def test_figures_of_one_stream_and_of_a_hundred() -> None:
    one = Arrivals([2.0], 1)
    assert one.first == one.median == one.p99 == one.last == 2.0
    hundred = Arrivals([float(n) for n in range(1, 101)], 100)
    assert (hundred.first, hundred.median, hundred.p99, hundred.last) == (1.0, 51.0, 100.0, 100.0)


async def test_a_bug_in_a_stream_is_not_hidden(relay: RunningRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    async def meet_a_bug() -> None:
        async with audience(url_of(relay), await relay.secret(), 1, lambda _: None) as heard:
            monkeypatch.setattr(heard, "_note", lambda *_: 1 / 0)
            await relay.world.tick(1)
            await until(lambda: len(relay.pipeline.hub.subscribers) == 0, "its stream has ended")

    with pytest.raises(ZeroDivisionError):
        await meet_a_bug()
