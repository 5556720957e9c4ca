"""Everything at once, for as long as you like: streams come and go, changes flow, things break; nothing may be lost.

    python loadtests/soak.py --minutes 10 --streams 300 --seed 7

It starts a private Redis and two relays, each behind a proxy on either side, opens streams through them, writes changes
in bursts, and breaks something every few seconds. Then all faults end, everything settles, and every stream is compared
with Redis. Relay 1 is never killed, so that its memory and descriptors can be told over the whole run.

What is counted:

- A stream is one SDK from its first `put` until it leaves, over however many connections. Every revision between the
  one that it began with and the one that it ended with is a delivery expected, and must be covered exactly once, on a
  connection: by the patch of that revision, or by a `put` that leads from a lower one to it or beyond.
- Lost: a revision that a patch skips; a stream whose flags differ from what Redis's changelog makes of its revision,
  looked at whenever a connection ends; one whose final state is not Redis's; one that was refused for good (any 4xx);
  a change that a writer was told of and the changelog does not have.
- Duplicate: a patch with the id that the stream has already.
- Regression: an id that is lower than the stream's within an epoch, on one connection or on the next. Redis loses
  nothing here, so another epoch counts too.

The exit status is 1 if any of the three is not 0, or if a relay ends that nobody ended.

Columns: `streams` have a connection now, of all that are there; `lag` is for how long the next change has been there
for the stream that is furthest behind, connected or not; `loop` is how late this process itself was at worst; for each
relay memory (MB), descriptors, and the milliseconds of an answer to /livez.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import uvloop
from bench import finish, need_descriptors, ready, resident
from rich.console import Console
from rich.table import Table

from flagrelay.cli.kept import kept
from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.errors import Conflict, FlagMissing, MessageError, NotKilled, StoreUnavailable, StreamError
from flagrelay.sdk.replica import Replica
from flagrelay.settings import PREFIX
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import read_snapshot
from flagrelay.store.writing import Draft, Written, kill_flag, revive_flag, write_change
from flagrelay.wire.event_id import parse_event_id
from flagrelay.wire.sse import Event, EventParser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.proxy import Proxy
from support.streams import ChunkDecoder, ProtocolError, parse_head

ENVIRONMENT = "soak"
FLAGS = 40
BURSTS = (1, 2, 5, 20, 40, 60)
"""Changes at once."""

CHANGES = {"kill": 12, "revive": 12, "delete": 3, "population": 4, "single": 60, "bulk": 8, "large": 1}
"""Kinds of changes, and how often each comes."""

SIZES = {"single": (1, 100), "bulk": (10, 100), "large": (20, 4000)}
"""How many flags are put at once, and the padding of each (bytes); the last is too large for pub/sub."""

STAY = 40.0
"""Seconds for which a stream stays, on average."""

HEARTBEAT = 2.0
SILENCE = 3 * HEARTBEAT
"""Seconds after which an SDK takes a silent connection for dead."""

ANSWER = 3.0
"""Seconds in which a relay must have answered an SDK, or it tries elsewhere."""

SETTLE = 60.0
"""Seconds in which everything must be well again once all faults have ended."""

END = 20.0
"""Seconds in which a relay must have ended."""

TABLE_EVERY = 5.0
RELAY_OPTIONS = {
    "--env": ENVIRONMENT,
    "--log-level": "warning",
    "--log-format": "json",
    "--heartbeat-interval": HEARTBEAT,
    "--stream-lifetime": 60,
    "--retry": 1,
    "--verify-interval": 1,
    "--backoff-max": 0.5,
    "--lagging-timeout": 5,
    "--changes-held": 200,  # few enough that who was away for long gets a put
    "--drain-timeout": 4,
    "--drain-spread": 2,
    "--state-interval": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long, without settling (10)")
    parser.add_argument("--streams", type=int, default=300, help="streams at a time (300)")
    parser.add_argument("--seed", type=int, help="of everything that is drawn here; by default another each time")
    parser.add_argument("--json", action="store_true", help="print one JSON object; the table goes to stderr")
    chosen = parser.parse_args()
    chosen.seed = random.randrange(10**6) if chosen.seed is None else chosen.seed
    need_descriptors(chosen.streams * 10 + 200)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_soak(chosen))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finish(result, _show, as_json=chosen.json)
    sys.exit(1 if _failed(result) else 0)


async def _soak(chosen: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(chosen.seed)
    console = Console(stderr=chosen.json, highlight=False, soft_wrap=True)
    console.print(f"seed {chosen.seed}, {chosen.streams} streams, {chosen.minutes:g} minutes")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flagrelay-soak-")))
        redis = stack.enter_context(private_redis())
        store = await stack.enter_async_context(open_store(RedisAddress(redis.url)))
        await create_environment(store, ENVIRONMENT)
        _, secret = await create_access_key(store, ENVIRONMENT, "server", "soak", None)
        world = World(rng, store, redis, secret)
        await world.writer.begin()
        for number in (1, 2):
            world.relays.append(await stack.enter_async_context(Relay(number, folder, redis)))
        await asyncio.gather(*(ready(relay.port) for relay in world.relays))
        idle = {relay.pid: _descriptors(relay.pid) for relay in world.relays}
        settled, samples = await _run(world, chosen, console)
        relays = [await _after(relay, idle, samples) for relay in world.relays]
    return {
        "seed": chosen.seed,
        "minutes": chosen.minutes,
        "streams": chosen.streams,
        "streams_opened": world.tally.opened,
        "connections": world.tally.connections,
        "reconnects": world.tally.reconnects,
        "changes_published": world.ledger.revision,
        "deliveries_expected": world.tally.expected,
        "deliveries_made": world.tally.made,
        "by_patch": world.tally.patches,
        "lost": world.tally.lost,
        "duplicates": world.tally.duplicates,
        "regressions": world.tally.regressions,
        "states_compared": world.ledger.compared,
        "settled_seconds": None if settled is None else round(settled, 2),
        "faults": dict(sorted(world.faults.done.items())),
        "connections_ended": dict(world.tally.ended.most_common()),
        "refusals": dict(world.tally.refusals),
        "relays": relays,
        "problems": world.tally.problems,
    }


async def _run(
    world: "World", chosen: argparse.Namespace, console: Console
) -> tuple[float | None, dict[int, "Sample"]]:
    """Let everything happen, then let it settle. Returns how long that took, and how the relays were once warm."""
    minutes = chosen.minutes * 60
    watch = Watch(world, console)
    tasks = [
        asyncio.create_task(each) for each in (world.crowd.run(chosen.streams), world.ledger.follow(), watch.run())
    ]
    busy = [asyncio.create_task(each) for each in (world.writer.run(), world.faults.run())]
    try:
        await world.unless_failed(minutes * 0.2, tasks + busy)
        samples = {relay.pid: Sample.of(relay.pid) for relay in world.relays if not relay.ending}
        await world.unless_failed(minutes * 0.8, tasks + busy)
        world.ending.set()
        await asyncio.gather(*busy)
        settled = await world.settle()
        watch.line()
        for relay in world.relays:
            if relay.pid in samples:
                samples[relay.pid].at_end(relay.pid)
        await world.compare()
    finally:
        for task in tasks + busy:
            task.cancel()
        await asyncio.wait(tasks + busy)
        await world.crowd.leave_all()
    return settled, samples


@dataclass(slots=True)
class Tally:
    """What was counted, and the first of what went wrong."""

    opened: int = 0
    connections: int = 0
    reconnects: int = 0
    expected: int = 0
    made: int = 0
    patches: int = 0
    lost: int = 0
    duplicates: int = 0
    regressions: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Say what went wrong; the first few are enough."""
        if len(self.problems) < 20:
            self.problems.append(f"{time.strftime('%H:%M:%S')} {text}")


class World:
    """Everything that takes part."""

    def __init__(self, rng: random.Random, store: Store, redis: PrivateRedis, secret: str) -> None:
        self.rng = rng
        self.store = store
        self.redis = redis
        self.secret = secret
        self.ending = asyncio.Event()
        self.tally = Tally()
        self.relays: list[Relay] = []
        self.ledger = Ledger(store, self.tally)
        self.crowd = Crowd(self)
        self.writer = Writer(self)
        self.faults = Faults(self)

    async def hold(self, seconds: float) -> None:
        """Wait, but no longer than until everything is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ending.wait()

    async def unless_failed(self, seconds: float, tasks: list["asyncio.Task[None]"]) -> None:
        """Wait; a task that ends meanwhile has failed, and its error is raised."""
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def settle(self) -> float | None:
        """Wait until every stream has the last revision. Returns after how many seconds, or None if it never does."""
        started = time.monotonic()
        await self.crowd.close_the_door()
        last = (await read_snapshot(self.store, ENVIRONMENT)).position
        while time.monotonic() - started < SETTLE:
            if self.ledger.revision == last.revision and all(sdk.at(*last[:2]) for sdk in self.crowd.sdks):
                return time.monotonic() - started
            await asyncio.sleep(0.01)
        return None

    async def compare(self) -> None:
        """Every stream with Redis, flag by flag; and what writers were told with the changelog."""
        truth = await read_snapshot(self.store, ENVIRONMENT)
        theirs = (truth.flags, truth.evaluators, truth.metadata)
        for sdk in self.crowd.sdks:
            sdk.due = truth.position.revision
            mine = (sdk.replica.flags, sdk.replica.evaluators, sdk.replica.metadata)
            if mine != theirs or not sdk.at(*truth.position[:2]):
                behind = sdk.due - (sdk.due if sdk.revision is None else sdk.revision)
                sdk.lose(max(1, behind), f"it ended at {sdk.replica.id!r}, and Redis at {truth.position}")
        missing = self.writer.told - self.ledger.digests.keys()
        if missing:
            self.tally.lost += len(missing)
            self.tally.problem(f"changes that a writer was told of are not in the changelog: {sorted(missing)[:5]}")


# -- what is true ---------------------------------------------------------------------------------------------


class Ledger:
    """What Redis's changelog says, read past all proxies: a digest of the whole state at every revision."""

    def __init__(self, store: Store, tally: Tally) -> None:
        self.revision = 0
        self.at: dict[int, float] = {}
        self.digests: dict[int, int] = {0: 0}
        self.compared = 0
        self._store = store
        self._tally = tally
        self._entries: dict[tuple[str, str], int] = {}
        self._claims: list[tuple[int, int, str]] = []

    async def follow(self) -> None:
        """Read on until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(0.1)

    async def read(self) -> None:
        """Read on, and look at the claims that can be judged now."""
        for change in await read_changes(self._store, ENVIRONMENT, self.revision):
            digest = self.digests[self.revision]
            for kind, entries in (("flag", change.flags), ("population", change.evaluators)):
                for name, entry in entries.items():
                    digest -= self._entries.pop((kind, name), 0)
                    if entry is not None:
                        self._entries[kind, name] = _digest(kind, name, entry)
                        digest += self._entries[kind, name]
            self.revision = change.revision
            self.at[self.revision] = change.at / 1e6
            self.digests[self.revision] = digest
        self._judge()

    def _judge(self) -> None:
        claims, self._claims = self._claims, []
        for revision, digest, who in claims:
            if revision > self.revision:
                self._claims.append((revision, digest, who))
                continue
            self.compared += 1
            if self.digests[revision] != digest:
                self._tally.lost += 1
                self._tally.problem(f"{who}: its flags are not what Redis had at revision {revision}")

    def claim(self, replica: Replica, who: str) -> None:
        """Note what a stream has; it is compared as soon as the ledger is there."""
        known = parse_event_id(replica.id)
        if known:
            digest = sum(_digest("flag", *entry) for entry in replica.flags.items())
            digest += sum(_digest("population", *entry) for entry in replica.evaluators.items())
            self._claims.append((known.revision, digest, who))

    def waiting_since(self, revision: int) -> float | None:
        """When the change after a revision was made; None where there is none."""
        return self.at.get(revision + 1)


def _digest(kind: str, name: str, entry: object) -> int:
    return hash((kind, name, orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)))


class Writer:
    """Writes changes in bursts: single ones and many flags at once, kills and revivals, deletions."""

    def __init__(self, world: World) -> None:
        self.told: set[int] = set()
        self._world = world
        self._keys = [f"flag-{number}" for number in range(FLAGS)]
        self._count = 0

    async def begin(self) -> None:
        """Make all flags there are."""
        await self._put(self._keys, 100)

    async def run(self) -> None:
        """Write until everything is to end."""
        rng = self._world.rng
        while not self._world.ending.is_set():
            for _ in range(rng.choice(BURSTS)):
                # Redis may be paused for longer than a write waits, and may have done it all the same.
                with suppress(Conflict, FlagMissing, NotKilled, StoreUnavailable):
                    written = await self._write()
                    if written.changed:
                        self.told.add(written.revision)
            await self._world.hold(rng.uniform(0.2, 1.2))

    async def _write(self) -> Written:
        rng, store, key = self._world.rng, self._world.store, self._world.rng.choice(self._keys)
        (kind,) = rng.choices(list(CHANGES), list(CHANGES.values()))
        match kind:
            case "kill":
                return await kill_flag(store, ENVIRONMENT, key, to=rng.choice((None, "off")))
            case "revive":
                return await revive_flag(store, ENVIRONMENT, key)
            case "delete":
                return await write_change(store, ENVIRONMENT, Draft(flags={key: None}))
            case "population":
                rule = {"in": [f"@{rng.randrange(100)}.example.com", {"var": "email"}]}
                return await write_change(store, ENVIRONMENT, Draft(evaluators={"beta": rule}))
        count, padding = SIZES[kind]
        return await self._put(rng.sample(self._keys, count), padding)

    async def _put(self, keys: list[str], padding: int) -> Written:
        self._count += 1
        flag = {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "on",
            "targeting": {"if": [{"in": ["@example.com", {"var": "email"}]}, "on", "off"]},
            "metadata": {"number": self._count, "padding": "x" * padding},
        }
        return await write_change(self._world.store, ENVIRONMENT, Draft(flags=dict.fromkeys(keys, flag)))


# -- streams --------------------------------------------------------------------------------------------------


class Refused(StreamError):
    """A relay answered with an error."""


class Sdk:
    """One stream: a light SDK that forgives nothing and reconnects for as long as it is there."""

    def __init__(self, world: World, number: int) -> None:
        self.name = f"stream {number}"
        self.replica = Replica()
        self.connected = False
        self.due: int | None = None
        """The revision that it should have when it leaves, where that is known."""
        self._world = world
        self._tally = world.tally
        self._began: int | None = None
        self._retry = 1.0

    @property
    def revision(self) -> int | None:
        """What it has; None before its first put."""
        known = parse_event_id(self.replica.id)
        return known.revision if known else None

    def at(self, epoch: str, revision: int) -> bool:
        """Whether it is connected, and has all of that."""
        return self.connected and self.replica.id == f"{epoch}.{revision}"

    def lose(self, count: int, why: str) -> None:
        """It lacks something, or has what it should not."""
        self._tally.lost += count
        self._tally.problem(f"{self.name}: {why}")

    async def run(self) -> None:
        """Be there until cancelled."""
        try:
            while True:
                why = "broken"
                try:
                    why = await self._connection()
                except TimeoutError:
                    why = "silent"
                except Refused as error:
                    why = f"refused {error.status}"
                except OSError:
                    pass
                except EOFError:
                    why = "cut off"
                except (ProtocolError, MessageError) as error:
                    why = "unreadable"
                    self.lose(1, f"it got what cannot be read: {error}")
                self.connected = False
                self._tally.ended[why] += 1
                self._world.ledger.claim(self.replica, self.name)
                await asyncio.sleep(self._retry)
        finally:
            self.connected = False

    def leave(self) -> None:
        """It is gone: what it had must be what there was."""
        self._world.ledger.claim(self.replica, self.name)
        due = self.revision if self.due is None else self.due
        if self._began is not None and due is not None:
            self._tally.expected += due - self._began

    async def _connection(self) -> str:
        """One connection, until the relay ends it in order. Returns why."""
        port = self._world.rng.choice(self._world.relays).sdk_proxy.port
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(self._request())
            async with asyncio.timeout(ANSWER):
                head = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
            if head.status != 200:
                self._refused(head.status, head.headers.get("retry-after", "1"))
            self._tally.connections += 1
            self._tally.reconnects += bool(self.replica.id)
            self.connected = True
            return await self._follow(reader)
        finally:
            writer.transport.abort()

    def _request(self) -> bytes:
        resume = f"last-event-id: {self.replica.id}\r\n" if self.replica.id else ""
        head = f"host: soak\r\nauthorization: Bearer {self._world.secret}\r\n{resume}"
        return f"GET /v1/stream HTTP/1.1\r\n{head}\r\n".encode()

    def _refused(self, status: int, retry_after: str) -> None:
        self._tally.refusals[status] += 1
        self._retry = float(retry_after)
        if status < 500:
            self.lose(1, f"it was answered {status}, which would end an SDK for good")
        raise Refused(f"refused with {status}", status=status)

    async def _follow(self, reader: asyncio.StreamReader) -> str:
        decoder, parser = ChunkDecoder(), EventParser()
        why = "ended without a goodbye"
        while not decoder.ended:
            async with asyncio.timeout(SILENCE):
                data = await reader.read(65536)
            if not data:
                raise EOFError
            for event in parser.feed(decoder.feed(data)):
                if event.type == "goodbye":
                    why = f"goodbye: {json.loads(event.data)['reason']}"
                if not self._take(event):
                    return "broke the rules"
            if parser.retry is not None:
                self._retry = parser.retry / 1000
        return why

    def _take(self, event: Event) -> bool:
        """Apply an event. Returns whether the connection can go on."""
        if event.type not in ("put", "patch"):
            return True
        before, after = parse_event_id(self.replica.id), parse_event_id(event.id)
        if after is None:
            self.lose(1, f"a {event.type} without an id")
            return False
        same_epoch = before is not None and before.epoch == after.epoch
        if before and (not same_epoch or after.revision < before.revision):
            self._tally.regressions += 1
            self._tally.problem(f"{self.name}: {event.type} {event.id} after {self.replica.id}")
            return self._start_over()
        if event.type == "patch" and before and after == before:
            self._tally.duplicates += 1
            self._tally.problem(f"{self.name}: {event.id} twice")
            return True
        try:
            self.replica.apply(event)
        except StreamError as error:
            self.due = after.revision - 1
            self.lose(max(1, self.due - before.revision) if before else 1, str(error))
            return self._start_over()
        self._tally.patches += event.type == "patch"
        if before is None:
            self._began = after.revision
        else:
            self._tally.made += after.revision - before.revision
        return True

    def _start_over(self) -> bool:
        self.leave()
        self.replica, self._began, self.due = Replica(), None, None
        return False


class Crowd:
    """The streams that are there: as many as are wanted, though not the same for long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: dict[asyncio.Task[None], Sdk] = {}
        self._open = True
        self._changed = asyncio.Lock()

    @property
    def sdks(self) -> list[Sdk]:
        """Who is there now."""
        return list(self._tasks.values())

    async def run(self, wanted: int) -> None:
        """Keep as many as are wanted; every now and then one leaves, and others join."""
        rng = self._world.rng
        while True:
            async with self._changed:
                if self._open:
                    for task in list(self._tasks):
                        if task.done() or rng.random() < 0.1 / STAY:
                            await self._leave(task)
                    for _ in range(min(20, wanted - len(self._tasks))):
                        self._join()
            await asyncio.sleep(0.1)

    async def close_the_door(self) -> None:
        """From now on nobody joins and nobody leaves."""
        async with self._changed:
            self._open = False

    async def leave_all(self) -> None:
        """Everybody leaves; what each had is compared."""
        for task in list(self._tasks):
            await self._leave(task)
        await self._world.ledger.read()

    def _join(self) -> None:
        self._world.tally.opened += 1
        sdk = Sdk(self._world, self._world.tally.opened)
        self._tasks[asyncio.create_task(sdk.run())] = sdk

    async def _leave(self, task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()  # nothing ends a stream but we
        self._tasks.pop(task).leave()


# -- relays, and what happens to them -------------------------------------------------------------------------


class Relay:
    """A relay process between two proxies: one to Redis, one to SDKs. A process that follows it takes its place."""

    def __init__(self, number: int, folder: Path, redis: PrivateRedis) -> None:
        self.name = f"relay {number}"
        self.number = number
        self.pid = 0
        self.port = 0
        self.starts = 0
        self.ending = False
        """Whether its end is wanted."""
        self.log = folder / f"relay-{number}.log"
        self.redis_proxy = Proxy(f"unix:{redis.folder / 'redis.sock'}")
        self.sdk_proxy = Proxy("")
        self._state_dir = folder / f"state-{number}"
        self._process = ExitStack()

    async def __aenter__(self) -> Self:
        """Start the proxies, then the relay."""
        self._state_dir.mkdir()
        await self.redis_proxy.__aenter__()
        await self.sdk_proxy.__aenter__()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the relay, then the proxies."""
        self.ending = True
        await asyncio.to_thread(self._process.close)
        for proxy in (self.sdk_proxy, self.redis_proxy):
            await proxy.__aexit__(None, None, None)

    async def start(self) -> None:
        """Start a process, on a port of its own."""
        options = RELAY_OPTIONS | {"--state-dir": self._state_dir}
        command = [sys.executable, "-m", "flagrelay", "serve", "--port", "0"]
        command += ["--redis-url", f"redis://127.0.0.1:{self.redis_proxy.port}/0"]
        command += [str(word) for option in options.items() for word in option]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        process = kept(command, log=self.log, environment=environment)
        self._relay = await asyncio.to_thread(self._process.enter_context, process)
        line = await asyncio.to_thread(self._relay.output.readline)
        if not line:
            sys.exit(f"{self.name} did not start:\n{self.log.read_text(encoding='utf-8')[-2000:]}")
        self.pid, self.port = self._relay.pid, int(line.rsplit(":", 1)[1])
        self.sdk_proxy.backend = f"127.0.0.1:{self.port}"
        self.starts += 1
        self.ending = False

    async def end(self, number: signal.Signals) -> str:
        """End the process, and see it gone. Returns what was wrong with its end, if anything."""
        self.ending, wrong = True, ""
        os.kill(self.pid, number)
        deadline = time.monotonic() + END
        while not self._gone:
            if time.monotonic() > deadline:
                wrong = f"{self.name} has not ended within {END:g} s of {number.name}"
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self._process.close)  # kills it, if it has to
        return wrong

    @property
    def _gone(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        return state == "Z"

    @property
    def crashed(self) -> bool:
        """Whether it is gone, and nobody wanted that."""
        return not self.ending and self._gone

    def complaints(self) -> list[str]:
        """What it has logged that nothing which happens here excuses."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if re.search(r'Traceback|"level": ?"(error|critical)"', line)]


Fault = Callable[[], Awaitable[None]]


class Faults:
    """Breaks something every few seconds; what it broke in one place it mends before it breaks another thing there."""

    def __init__(self, world: World) -> None:
        self.done: Counter[str] = Counter()
        self._world = world
        self._rng = world.rng
        self._busy: set[str] = set()

    async def run(self) -> None:
        """Go on until everything is to end; returns once all is mended."""
        places = self._places()
        async with asyncio.TaskGroup() as tasks:
            while not self._world.ending.is_set():
                free = [place for place in places if place not in self._busy]
                if free:
                    # A relay that has just started has little to lose: it should live for a while.
                    rare = [0.4 if place.endswith("process") else 1.0 for place in free]
                    (place,) = self._rng.choices(free, rare)
                    name = self._rng.choice(list(places[place]))
                    self._busy.add(place)
                    tasks.create_task(self._inflict(place, name, places[place][name]))
                await self._world.hold(self._rng.uniform(0.5, 4))

    async def _inflict(self, place: str, name: str, fault: Fault) -> None:
        self.done[name] += 1
        try:
            await fault()
        finally:
            self._busy.discard(place)

    def _places(self) -> dict[str, Mapping[str, Fault]]:
        """What can be broken where."""
        places: dict[str, Mapping[str, Fault]] = {
            "redis": {
                "Redis paused": self._pause_redis,
                "CLIENT KILL TYPE pubsub": self._kill_subscriptions,
                "changelog trimmed": self._trim,
            }
        }
        for relay in self._world.relays:
            redis, sdks = relay.redis_proxy, relay.sdk_proxy
            places[f"{relay.name}, Redis"] = {
                "Redis connections cut": self._cut(redis),
                "Redis behind a blackhole": self._swallow(redis, 1, 8),
                "subscription behind a blackhole": self._swallow(redis, 1, 8, pubsub_only=True),
                "messages dropped": self._meddle(redis, lambda _frame: []),
                "messages doubled": self._meddle(redis, lambda frame: [frame, frame]),
                "messages out of order": self._shuffle(redis),
                "Redis slow": self._set(redis, "delay", 0.2),
            }
            places[f"{relay.name}, SDKs"] = {
                "SDK connections cut": self._cut(sdks),
                "SDKs half-open": self._swallow(sdks, 2, 10),
                "SDKs stalled": self._set(sdks, "stall", True),
                "SDKs slow": self._set(sdks, "throttle", 20_000),
                "SDKs refused": self._set(sdks, "refusing", True),
            }
        last = self._world.relays[-1]
        places[f"{last.name}, process"] = {
            "relay killed": lambda: self._replace(last, signal.SIGKILL),
            "relay drained": lambda: self._replace(last, signal.SIGTERM),
        }
        return places

    # -- what is done ---------------------------------------------------------------------------------------

    async def _pause_redis(self) -> None:
        redis = self._world.redis
        redis.signal(signal.SIGSTOP)
        try:
            await self._world.hold(self._rng.uniform(0.5, 2))
        finally:
            redis.signal(signal.SIGCONT)

    async def _kill_subscriptions(self) -> None:
        with self._world.store.talking():
            await self._world.store.client.client_kill_filter(_type="pubsub")

    async def _trim(self) -> None:
        """The changelog loses all that the ledger has read."""
        with suppress(StoreUnavailable), self._world.store.talking():
            changes = self._world.store.keys.changes(ENVIRONMENT)
            oldest = f"{self._world.ledger.revision}-0"
            await self._world.store.client.xtrim(changes, minid=oldest, approximate=False)

    async def _replace(self, relay: Relay, number: signal.Signals) -> None:
        wrong = await relay.end(number)
        if wrong:
            self._world.tally.problem(wrong)
        await self._world.hold(self._rng.uniform(0, 2))
        await relay.start()

    def _cut(self, proxy: Proxy) -> Fault:
        async def fault() -> None:
            proxy.cut()

        return fault

    def _swallow(self, proxy: Proxy, least: float, most: float, *, pubsub_only: bool = False) -> Fault:
        async def fault() -> None:
            up, down = self._rng.choice(((True, True), (True, False), (False, True)))
            proxy.blackhole(up=up, down=down, pubsub_only=pubsub_only)
            await self._world.hold(self._rng.uniform(least, most))
            proxy.restore(drop=self._rng.random() < 0.5)

        return fault

    def _set(self, proxy: Proxy, name: str, value: float) -> Fault:
        async def fault() -> None:
            setattr(proxy, name, value)
            await self._world.hold(self._rng.uniform(1, 8))
            proxy.restore()

        return fault

    def _meddle(self, proxy: Proxy, instead: Callable[[bytes], list[bytes]]) -> Fault:
        async def fault() -> None:
            proxy.on_message = lambda frame: instead(frame) if self._rng.random() < 0.3 else [frame]
            await self._world.hold(self._rng.uniform(1, 5))
            proxy.restore()

        return fault

    def _shuffle(self, proxy: Proxy) -> Fault:
        held: list[bytes] = []

        def later(frame: bytes) -> list[bytes]:
            held.append(frame)
            if len(held) < 3:
                return []
            self._rng.shuffle(held)
            frames = held[:]
            held.clear()
            return frames

        return self._meddle(proxy, later)


# -- what is seen ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sample:
    """The memory and descriptors of one relay process, once warm and at the end."""

    resident: int
    descriptors: int
    end: tuple[int, int] | None = None

    @classmethod
    def of(cls, pid: int) -> "Sample":
        """A process as it is now."""
        return cls(resident(pid), _descriptors(pid))

    def at_end(self, pid: int) -> None:
        """Note how it has ended up."""
        self.end = resident(pid), _descriptors(pid)


class Watch:
    """Prints a line every few seconds, and measures how late this process is."""

    COLUMNS = (
        "   time   streams   opened  changes  deliveries  reconnects    lag s  faults  loop ms"
        "   relay 1: MB  fds   ms   relay 2: MB  fds   ms"
    )

    def __init__(self, world: World, console: Console) -> None:
        self._world = world
        self._console = console
        self._started = time.monotonic()
        self._late = 0.0
        self._answers: dict[int, float] = {}

    async def run(self) -> None:
        """Print until cancelled."""
        self._console.print(self.COLUMNS, style="bold")
        while True:
            line_at = time.monotonic() + TABLE_EVERY
            while time.monotonic() < line_at:
                asked = time.monotonic()
                await asyncio.sleep(0.02)
                self._late = max(self._late, time.monotonic() - asked - 0.02)
            for relay in self._world.relays:
                self._answers[relay.number] = await _answer_time(relay)
                if relay.crashed:
                    self._world.tally.problem(f"{relay.name} has ended, and nobody ended it")
            self.line()

    def line(self) -> None:
        """Print how things stand."""
        world, tally, sdks = self._world, self._world.tally, self._world.crowd.sdks
        cells = [
            f"{time.monotonic() - self._started:7.0f}",
            f"{sum(sdk.connected for sdk in sdks):5}/{len(sdks):<4}",
            f"{tally.opened:7}",
            f"{world.ledger.revision:8}",
            f"{tally.made:11}",
            f"{tally.reconnects:11}",
            f"{self._lag(sdks):8.2f}",
            f"{world.faults.done.total():7}",
            f"{self._late * 1000:8.0f}",
        ]
        cells += [self._relay(relay) for relay in world.relays]
        self._console.print(" ".join(cells))
        self._late = 0.0

    def _lag(self, sdks: list[Sdk]) -> float:
        revisions = [sdk.revision for sdk in sdks if sdk.revision is not None]
        since = self._world.ledger.waiting_since(min(revisions)) if revisions else None
        return 0.0 if since is None else time.time() - since

    def _relay(self, relay: Relay) -> str:
        if relay.ending:
            return f"{'-':>13} {'-':>4} {'-':>4}"
        with suppress(OSError, IndexError):
            answer = self._answers.get(relay.number, 0.0)
            return f"{resident(relay.pid) / 1e6:13.1f} {_descriptors(relay.pid):4} {answer * 1000:4.0f}"
        return f"{'gone':>13} {'-':>4} {'-':>4}"


async def _answer_time(relay: Relay) -> float:
    """Seconds until a relay has answered, asked past its proxy: its loop is as late as that."""
    asked = time.monotonic()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            try:
                writer.write(b"GET /livez HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n\r\n")
                await reader.read()
            finally:
                writer.transport.abort()
    return time.monotonic() - asked


async def _after(relay: Relay, idle: dict[int, int], samples: dict[int, Sample]) -> dict[str, Any]:
    """What is to be told of a relay; its descriptors once more when all streams have gone."""
    report: dict[str, Any] = {"name": relay.name, "starts": relay.starts, "complaints": relay.complaints()}
    report["crashed"] = relay.crashed
    sample = samples.get(relay.pid)
    if relay.crashed or sample is None or sample.end is None:
        return report
    before = idle.get(relay.pid)
    for _ in range(50):  # until the ends of all streams have come through
        if before and _descriptors(relay.pid) > before:
            await asyncio.sleep(0.1)
    return report | {
        "resident": [sample.resident, sample.end[0]],
        "descriptors": [sample.descriptors, sample.end[1]],
        "descriptors_idle": [before, _descriptors(relay.pid)],
    }


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _failed(result: dict[str, Any]) -> bool:
    crashed = any(relay["crashed"] for relay in result["relays"])
    return bool(result["lost"] or result["duplicates"] or result["regressions"] or crashed)


def _show(result: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("what", "how many", title=f"{result['minutes']:g} minutes, seed {result['seed']}")
    names = ("streams_opened", "reconnects", "changes_published", "deliveries_expected", "deliveries_made", "by_patch")
    for name in (*names, "lost", "duplicates", "regressions", "states_compared"):
        table.add_row(name.replace("_", " "), str(result[name]))
    settled = result["settled_seconds"]
    table.add_row("settled after", f"not within {SETTLE:g} s" if settled is None else f"{settled} s")
    for relay in result["relays"]:
        if "resident" not in relay:
            table.add_row(relay["name"], f"{relay['starts']} processes, one after the other")
            continue
        start, end = (value / 1e6 for value in relay["resident"])
        table.add_row(f"{relay['name']}: memory, warm and at the end", f"{start:.1f} MB, {end:.1f} MB")
        table.add_row(f"{relay['name']}: descriptors, warm and at the end", "{}, {}".format(*relay["descriptors"]))
        table.add_row("   before any stream, after all", "{}, {}".format(*relay["descriptors_idle"]))
    console.print(table)
    for title in ("faults", "connections_ended", "refusals"):
        console.print(f"{title.replace('_', ' ')}: " + ", ".join(f"{k} {v}" for k, v in result[title].items()))
    for relay in result["relays"]:
        for line in relay["complaints"][:5]:
            console.print(f"{relay['name']} logged: {line}")
    for problem in result["problems"]:
        console.print(problem)


if __name__ == "__main__":
    main()
