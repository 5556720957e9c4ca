"""A source under test: what it says is checked as it says it; and ways to make Redis misbehave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from structlog.testing import capture_logs

from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.backoff import Backoff
from flagrelay.relay.source import Source
from flagrelay.relay.states import TRANSITIONS, SourceState
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_snapshot
from flagrelay.store.subscription import Subscription, subscribe
from flagrelay.store.writing import Draft, Written, write_change
from support.fakes import definition

ENVIRONMENT = "production"

MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()}
"""Every step from one state to another that the table knows."""

NEVER = 3600.0
"""An interval that does not come round within a test."""


async def put(store: Store, key: str = "flag", number: int = 1, *, environment: str = ENVIRONMENT) -> Written:
    """Write one flag, whatever is there."""
    draft = Draft(flags={key: definition(number)}, actor="ada", reason="a test")
    return await write_change(store, environment, draft)


async def publish(store: Store, data: bytes, *, environment: str = ENVIRONMENT) -> None:
    """Say something on an environment's channel that no writer said."""
    assert await store.client.publish(store.keys.changes(environment), data) > 0, "nobody listens"


async def until(condition: Callable[[], Any], what: str, *, within: float = 10.0) -> None:
    """Wait for something to hold, and say what it was where it does not."""
    try:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"not within {within} s: {what}")


async def end(task: "asyncio.Task[Any]", before: "set[asyncio.Task[Any]]", *, failing: bool) -> None:
    """Cancel a task, which must end by that alone, and leave nothing running that was not there `before`."""
    task.cancel()
    _, pending = await asyncio.wait([task], timeout=10)
    if failing:
        return
    assert not pending, f"cancelled, and still running: {task}"
    if not task.cancelled():
        task.result()

    def left() -> list[asyncio.Task[Any]]:
        new = asyncio.all_tasks() - before
        return [each for each in new if not each.done() and Wire.__name__ not in repr(each.get_coro())]

    # What others run may have short-lived tasks of its own.
    await until(lambda: not left(), f"nothing is left running: {left()}", within=2.0)


class Followed:
    """A source that runs, and everything that it tells, checked as it tells it.

    Changes come in order and without holes, a load begins a history, states move as the table says, reasons are
    sentences, ids never go down within an epoch, and after the end nothing is left running.
    """

    def __init__(
        self,
        store: Store,
        *,
        environment: str = ENVIRONMENT,
        verify_interval: float = 0.05,
        longest_wait: float = 0.05,
    ) -> None:
        self.store = store
        self.environment = environment
        self.changes: list[Change] = []
        self.loads: list[Snapshot] = []
        self.states: list[tuple[SourceState, str]] = []
        self.seen: dict[str, int] = {}
        self.source = Source(
            store,
            environment,
            on_load=self._load,
            on_change=self._change,
            on_state=self._state,
            verify_interval=verify_interval,
            backoff=Backoff(0.01, longest_wait),
        )
        self.stats = self.source.stats
        self._model: Snapshot | None = None
        self._at = SourceState.CONNECTING

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        self._task = asyncio.create_task(self.source.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._task, self._before, failing=kind is not None)

    # -- what it tells ----------------------------------------------------------------------------------------

    def _load(self, snapshot: Snapshot) -> None:
        assert self._at is SourceState.LOADING
        self._advance(snapshot.position)
        self.loads.append(snapshot)
        self._model = snapshot

    def _change(self, change: Change, snapshot: Snapshot) -> None:
        assert self._model is not None
        self._advance(change.position)
        self._model = self._model.with_change(change)
        assert snapshot == self._model
        self.changes.append(change)

    def _advance(self, position: Position) -> None:
        assert position.revision > self.seen.get(position.epoch, -1), "an id that does not grow"
        self.seen[position.epoch] = position.revision

    def _state(self, state: SourceState, reason: str) -> None:
        assert (self._at, state) in MOVES
        assert reason
        assert "\n" not in reason
        for unreadable in ("Traceback", "Error(", " 0x", "None"):
            assert unreadable not in reason
        self._at = state
        self.states.append((state, reason))

    # -- what a test waits for --------------------------------------------------------------------------------

    @property
    def held(self) -> Snapshot:
        assert self.source.snapshot is not None, "nothing was loaded"
        return self.source.snapshot

    @property
    def revision(self) -> int:
        return self.source.snapshot.position.revision if self.source.snapshot else -1

    @property
    def moves(self) -> list[SourceState]:
        """The states it went through, each once in a row."""
        return [
            state for number, (state, _) in enumerate(self.states) if not number or self.states[number - 1][0] != state
        ]

    async def until(self, condition: Callable[[], Any], what: str, *, within: float = 10.0) -> None:
        """Wait for something to hold while the source runs."""
        await until(lambda: self._task.done() or condition(), what, within=within)
        if self._task.done():
            self._task.result()

    async def live(self, revision: int | None = None) -> None:
        """Wait until it is LIVE, at a revision where one is given."""
        await self.until(
            lambda: self.source.state is SourceState.LIVE and revision in (None, self.revision),
            f"live at {revision}; it is {self.source.state} at {self.revision}: {self.source.reason}",
        )

    async def epochs(self, count: int) -> None:
        """Wait until it has seen that many histories, and stands in the last of them."""
        await self.until(lambda: len(self.seen) >= count, f"{count} epochs; there were {len(self.seen)}")

    async def beyond(self, revision: int) -> None:
        """Wait until it is past a revision."""
        await self.until(lambda: self.revision > revision, f"past {revision}")

    async def stale(self) -> str:
        """Wait until it is STALE; the reason that it gives."""
        await self.until(lambda: self.source.state is SourceState.STALE, "stale")
        return next(reason for state, reason in reversed(self.states) if state is SourceState.STALE)

    async def same_as_redis(self, store: Store | None = None) -> None:
        """Wait until it stands where Redis stands; then every flag must be the same."""
        theirs = await read_snapshot(store or self.store, self.environment)
        await self.until(lambda: self.held.position == theirs.position, "where Redis stands")
        assert self.held == theirs
        await self.live()


class Hands:
    """A subscription whose messages pass through a test's hands before a source hears them.

    `pass_on` gets each message and returns what is heard instead of it; `subscribed` runs between Redis's
    confirmation and the source's load.
    """

    def __init__(self) -> None:
        self.pass_on: Callable[[bytes], list[bytes]] = lambda data: [data]
        self.opened = 0
        self.awaited = 0

    async def reopened(self, followed: Followed) -> None:
        """Wait until a source has made its connection anew, once more than when this was last asked."""
        self.awaited += 1
        await followed.until(lambda: self.opened > self.awaited, "another connection")

    async def subscribed(self) -> None:
        """Nothing, unless a test puts something here."""

    @contextlib.asynccontextmanager
    async def subscribe(self, store: Store, environment: str) -> AsyncIterator["HandledSubscription"]:
        """Stands in for the store's `subscribe`."""
        async with subscribe(store, environment) as subscription:
            self.opened += 1
            await self.subscribed()
            yield HandledSubscription(subscription, self)


class HandledSubscription:
    """What `Hands` gives to a source."""

    def __init__(self, real: Subscription, hands: Hands) -> None:
        self._real = real
        self._hands = hands
        self._heard: list[bytes] = []

    @property
    def last_heard(self) -> float:
        return self._real.last_heard

    async def ping(self) -> None:
        await self._real.ping()

    async def next(self, timeout: float) -> bytes | None:  # noqa: ASYNC109 - the store's signature
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while not self._heard:
            data = await self._real.next(max(0.0, end - loop.time()))
            if data is None:
                return None
            self._heard.extend(self._hands.pass_on(data))
        return self._heard.pop(0)


class Wire:
    """A socket in front of a Redis: what a network does to a relay can be done to whoever connects through it."""

    def __init__(self, path: Path, backend: Path) -> None:
        self.path = path
        self.backend = backend
        self.refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._subscriptions_only = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.thaw()
        self.cut()
        await self._server.wait_closed()
        await until(lambda: not self._writers, "every connection through the wire is closed")

    def cut(self) -> None:
        """Every connection breaks."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self, *, subscriptions_only: bool = False) -> None:
        """Nothing passes any more, and nobody is told."""
        self._subscriptions_only = subscriptions_only
        self._flowing.clear()

    def thaw(self) -> None:
        """What was held back arrives."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self.backend)
        except OSError:
            writer.transport.abort()
            return
        traits: set[str] = set()
        both = {writer, far_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(reader, far_writer, traits))
                tasks.create_task(self._carry(far_reader, writer, traits))
        finally:
            for each in both:
                each.transport.abort()
            self._writers -= both

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, traits: set[str]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if b"SUBSCRIBE" in data:
                    traits.add("subscription")
                if not self._subscriptions_only or traits:
                    await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.contextmanager
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What was logged meanwhile, none of which may be a traceback or an error of the event loop."""
    with capture_logs() as entries:
        yield entries
    assert not [entry for entry in entries if entry.get("exc_info") or entry["log_level"] in ("error", "critical")]
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]
