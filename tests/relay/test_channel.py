"""Listening for good, with a subscription that says what a test puts into it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import cast

import pytest

from flagrelay.errors import EnvironmentMissing, StoreUnavailable
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.channel import SILENCE, YIELD_EVERY, Listener, listen
from flagrelay.store.subscription import Subscription
from support.sources import NEVER, until


class Line:
    """What stands in for Redis: subscriptions can be refused, fed, answered or left silent."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.refusals = 0
        self.open = 0
        self.pings = 0
        self.answering = True
        self.last_heard = 0.0
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self._queue.put_nowait(message)

    def hang_up(self) -> None:
        self._queue.put_nowait(None)

    @contextlib.asynccontextmanager
    async def subscribe(self) -> AsyncIterator["Line"]:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("refused")
        self.open += 1
        self.told.append("subscribed")
        self.last_heard = asyncio.get_running_loop().time()
        try:
            yield self
        finally:
            self.open -= 1

    async def next(self, timeout: float) -> bytes | None:  # noqa: ASYNC109 - the store's signature
        try:
            async with asyncio.timeout(timeout):
                message = await self._queue.get()
        except TimeoutError:
            return None
        if message is None:
            raise StoreUnavailable("hung up")
        self.last_heard = asyncio.get_running_loop().time()
        return message

    async def ping(self) -> None:
        self.pings += 1
        if self.answering:
            self.last_heard = asyncio.get_running_loop().time()

    # -- as a listener ----------------------------------------------------------------------------------------

    async def connected(self) -> None:
        self.told.append("connected")

    async def received(self, data: bytes) -> None:
        self.told.append(data.decode())

    async def compare(self) -> None:
        self.told.append("compare")

    def lost(self, reason: str) -> None:
        self.told.append(f"lost: {reason}")

    def listen(self, *, interval: float = NEVER, backoff: Backoff | None = None) -> asyncio.Task[None]:
        """Start to listen. Ends with `end`."""
        subscribe = cast("Callable[[], AbstractAsyncContextManager[Subscription]]", self.subscribe)
        listener = Listener(self.connected, self.received, self.compare, self.lost)
        return asyncio.create_task(
            listen(subscribe, listener, interval=interval, backoff=backoff or Backoff(0.001, 0.002))
        )


class CountedBackoff(Backoff):
    """A backoff that keeps what it gave, and gives it as next to nothing."""

    def __init__(self) -> None:
        super().__init__(1.0, 64.0)
        self.steps: list[int] = []
        self._step = 0

    def next(self) -> float:
        self._step += 1
        self.steps.append(self._step)
        return 0.001

    def reset(self) -> None:
        self._step = 0


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()


async def test_loading_follows_the_subscription_and_the_messages_follow_loading() -> None:
    line = Line()
    line.say(b"one", b"two")
    task = line.listen()
    await until(lambda: "two" in line.told, "both messages")
    assert line.told == ["subscribed", "connected", "one", "two"]
    await end(task)


async def test_what_is_said_while_loading_is_heard_after_it() -> None:
    line = Line()

    async def load() -> None:
        line.say(b"early")
        await asyncio.sleep(0)
        line.told.append("loaded")

    line.connected = load  # type: ignore[method-assign]  # the listener of this test
    task = line.listen()
    await until(lambda: "early" in line.told, "the message")
    assert line.told == ["subscribed", "loaded", "early"]
    await end(task)


async def test_without_any_news_it_compares_and_pings_at_every_interval() -> None:
    line = Line()
    task = line.listen(interval=0.01)
    await until(lambda: line.told.count("compare") >= 5, "five comparisons")
    assert set(line.told) == {"subscribed", "connected", "compare"}
    assert line.pings >= 5
    await end(task)


async def test_a_flood_of_messages_keeps_nobody_from_running_and_delays_no_comparison() -> None:
    line = Line()
    line.say(*[b"flood"] * 20 * YIELD_EVERY)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    task = line.listen(interval=0.0)
    await until(lambda: line.told.count("flood") == 20 * YIELD_EVERY, "the flood is over")
    assert turns >= 10
    assert line.told.count("compare") >= 20
    await end(task)
    other.cancel()


async def test_a_connection_that_breaks_is_told_once_and_made_again() -> None:
    line = Line()
    task = line.listen()
    await until(lambda: line.open, "the first subscription")
    line.hang_up()
    line.say(b"again")
    await until(lambda: "again" in line.told, "the message on the second subscription")
    assert line.told == ["subscribed", "connected", "lost: hung up", "subscribed", "connected", "again"]
    assert line.open == 1
    await end(task)


async def test_the_waits_grow_while_it_fails_and_start_anew_once_it_has_connected() -> None:
    line = Line()
    line.refusals = 4
    backoff = CountedBackoff()
    task = line.listen(backoff=backoff)
    await until(lambda: line.open, "a subscription")
    assert backoff.steps == [1, 2, 3, 4]
    line.hang_up()
    await until(lambda: line.told.count("connected") == 2, "a second subscription")
    assert backoff.steps == [1, 2, 3, 4, 1]
    await end(task)


async def test_a_redis_that_answers_but_has_nothing_to_load_makes_the_waits_grow_too() -> None:
    line = Line()
    backoff = CountedBackoff()

    async def missing() -> None:
        raise EnvironmentMissing("production")

    line.connected = missing  # type: ignore[method-assign]  # the listener of this test
    task = line.listen(backoff=backoff)
    await until(lambda: len(backoff.steps) >= 4, "four tries")
    assert backoff.steps[:4] == [1, 2, 3, 4]
    assert any("env create production" in told for told in line.told)
    assert line.open <= 1
    await end(task)


@pytest.mark.parametrize("where", ["received", "compare"])
async def test_whatever_fails_while_listening_closes_the_connection_and_opens_another(where: str) -> None:
    line = Line()

    async def fail(*_: object) -> None:
        setattr(line, where, lambda *_: asyncio.sleep(0))
        raise StoreUnavailable("away")

    setattr(line, where, fail)
    listened = line.listen(interval=0.01)
    line.say(b"message")
    await until(lambda: line.told.count("subscribed") == 2 and line.open == 1, "another connection")
    assert line.told.count("lost: away") == 1
    await end(listened)


async def test_a_connection_that_answers_no_ping_is_given_up() -> None:
    line = Line()
    line.answering = False
    task = line.listen(interval=0.01)
    await until(lambda: any(told.startswith("lost: ") for told in line.told), "the silence is noticed")
    assert next(told for told in line.told if told.startswith("lost: ")).startswith(
        "lost: the subscription to Redis has been silent for "
    )
    assert line.told.count("compare") >= SILENCE - 1, "it had its chances"
    await end(task)


async def test_pongs_alone_keep_a_connection() -> None:
    line = Line()
    task = line.listen(interval=0.005)
    await until(lambda: line.told.count("compare") > 5 * SILENCE, "many comparisons")
    assert not any(told.startswith("lost") for told in line.told)
    await end(task)


@pytest.mark.parametrize("where", ["connected", "received", "compare"])
async def test_a_slow_load_is_not_the_connections_silence(where: str) -> None:
    line = Line()
    original = getattr(line, where)
    slow = True

    async def slowly(*arguments: bytes) -> None:
        nonlocal slow
        if slow:
            slow = False
            await asyncio.sleep(0.01 * (SILENCE + 2))
        await original(*arguments)

    setattr(line, where, slowly)
    line.say(b"message")
    task = line.listen(interval=0.01)
    await until(lambda: line.told.count("compare") > SILENCE + 1, "a few comparisons")
    assert not any(told.startswith("lost") for told in line.told)
    await end(task)


async def test_a_bug_is_not_taken_for_a_lost_connection() -> None:
    line = Line()

    async def bug(data: bytes) -> None:
        raise RuntimeError(f"a bug in {data!r}")

    line.received = bug  # type: ignore[method-assign]  # the listener of this test
    line.say(b"message")
    with pytest.raises(RuntimeError, match="a bug"):
        await line.listen()
    assert not line.open


@pytest.mark.parametrize("where", ["connected", "received", "compare", "lost"])
async def test_a_cancellation_that_a_library_has_swallowed_is_heeded_nevertheless(where: str) -> None:
    line = Line()
    asked = asyncio.Event()

    async def deaf(*_: object) -> None:
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(NEVER)
        if where == "lost":
            raise StoreUnavailable("away")

    setattr(line, "connected" if where == "lost" else where, deaf)
    line.say(b"message")
    task = line.listen(interval=0.01, backoff=Backoff(NEVER, NEVER))
    await asked.wait()
    await end(task)
    assert line.open == 0


@pytest.mark.parametrize("refusals", [0, 1_000_000])
async def test_cancelling_it_closes_the_subscription(refusals: int) -> None:
    line = Line()
    line.refusals = refusals
    task = line.listen(interval=0.01)
    await until(lambda: len(line.told) > 3, "it is under way")
    await end(task)
    assert line.open == 0
