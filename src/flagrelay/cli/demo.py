"""`flagrelay demo`: a private Redis, a relay, many streams, and one flag un-released in front of your eyes."""

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.resources import files
from pathlib import Path

import aiohttp
import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from flagrelay.cli.audience import Arrivals, Audience, audience
from flagrelay.cli.kept import kept
from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.cli.watch import describe, signed
from flagrelay.errors import FlagrelayError
from flagrelay.flags.change import Change
from flagrelay.flags.definition import check_flag_set
from flagrelay.relay.source import Source
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, kill_flag, write_change

ENVIRONMENT = "demo"
VICTIM = "checkout-v2"
READY_TIMEOUT = 20.0
"""Seconds in which the relay must be ready."""

BAR = 40
"""Columns of the longest bar of a histogram."""


@click.command(epilog="Example: flagrelay demo --streams 500 --seconds 10")
@click.option("--streams", type=click.IntRange(1, 5000), default=200, show_default=True, help="How many to open.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so long. Default: at Ctrl-C.")
def demo(streams: int, seconds: float | None) -> None:
    """See the main job run, with a real Redis and real connections.

    Starts a private Redis and a relay, opens streams, un-releases a flag, and shows when each stream heard of it.
    Nothing is left behind.
    """
    console = Console(highlight=False, soft_wrap=True)
    with _interruptible(), private_redis() as redis, _relay(redis) as url:
        console.print(f"Redis: a private server at {redis.url}\nrelay: {url}")
        asyncio.run(_show(console, redis, url, streams, seconds))


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that it cleans up."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _relay(redis: PrivateRedis) -> Iterator[str]:
    """A relay as a process of its own, on a port of the system's choice. Gives its URL."""
    options = ["--redis-url", redis.url, "--env", ENVIRONMENT, "--host", "127.0.0.1", "--port", "0"]
    command = [sys.executable, "-m", "flagrelay", "serve", *options, "--drain-timeout", "2"]
    log = redis.folder / "relay.log"
    with kept(command, log=log) as process:
        line = process.output.readline()
        if not line.startswith("listening on "):
            raise FlagrelayError(f"the relay did not start: {log.read_text(encoding='utf-8')[-1000:]}")
        yield line.removeprefix("listening on ").strip()


async def _show(console: Console, redis: PrivateRedis, url: str, streams: int, seconds: float | None) -> None:
    ends_at = None if seconds is None else time.monotonic() + seconds
    async with open_store(RedisAddress(redis.url)) as store:
        await create_environment(store, ENVIRONMENT)
        key = await _load(store)
        await _ready(url)
        async with _streams(console, url, key, streams) as heard:
            written = await kill_flag(store, ENVIRONMENT, VICTIM, actor="demo", reason="error rate is up")
            arrivals = await heard.arrivals(written.revision, written.at)
            _histogram(console, arrivals)
            _lines_to_try(console, redis, url, key)
            with suppress(KeyboardInterrupt, asyncio.CancelledError):
                await _live(console, store, heard, ends_at)


async def _load(store: Store) -> str:
    """The demo's flags and an access key, whose secret is given."""
    text = files(__package__).joinpath("demo_flags.yaml").read_text(encoding="utf-8")
    wanted = check_flag_set(yaml.safe_load(text))
    draft = Draft(flags=wanted.flags, evaluators=wanted.evaluators, metadata=wanted.metadata, actor="demo")
    await write_change(store, ENVIRONMENT, draft)
    _, secret = await create_access_key(store, ENVIRONMENT, "server", "demo", None)
    return secret


async def _ready(url: str) -> None:
    """Wait until the relay has loaded everything."""
    deadline = time.monotonic() + READY_TIMEOUT
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/readyz") as response:
                if response.ok:
                    return
                answer = await response.json()
            if time.monotonic() > deadline:
                raise FlagrelayError(f"the relay is not ready: {answer['reason']}")
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _streams(console: Console, url: str, key: str, streams: int) -> AsyncIterator[Audience]:
    columns = (TextColumn("opening streams"), BarColumn(bar_width=BAR), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=streams)
        async with audience(url, key, streams, lambda count: progress.update(task, completed=count)) as heard:
            progress.stop()
            console.print(f"streams: {streams}, each a connection of its own, each with all flags\n")
            yield heard


def _histogram(console: Console, arrivals: Arrivals) -> None:
    """When the streams heard of the kill, by the clock that stamped it in Redis."""
    reached = f"{len(arrivals.milliseconds)} of {arrivals.streams}"
    console.print(f"[bold]{VICTIM}[/bold] was killed. When each stream had it, in milliseconds after the write:\n")
    width = max((arrivals.last - arrivals.first) / 10, 0.05)
    counts = [0] * 10
    for wait in arrivals.milliseconds:
        counts[min(int((wait - arrivals.first) / width), 9)] += 1
    table = Table("ms", "streams", "", box=None, pad_edge=False, header_style="dim")
    for index, count in enumerate(counts):
        bar = "█" * max(round(count / max(counts) * BAR), 1 if count else 0)
        table.add_row(f"{arrivals.first + index * width:6.1f}", f"{count:5}", f"[green]{bar}[/green]")
    console.print(table)
    console.print(
        f"\n[bold]un-released[/bold] on {reached} streams: "
        f"first {arrivals.first:.1f} ms, median {arrivals.median:.1f} ms, p99 {arrivals.p99:.1f} ms, "
        f"[bold]last {arrivals.last:.1f} ms[/bold]\n"
    )


def _lines_to_try(console: Console, redis: PrivateRedis, url: str, key: str) -> None:
    """What to type in another terminal; printed so that it can be pasted."""
    script = Path(sys.argv[0])
    program = str(script.resolve()) if script.name == "flagrelay" else f"{sys.executable} -m flagrelay"
    console.print("In another terminal:\n")
    for line in (
        f"export FLAGRELAY_REDIS_URL={shlex.quote(redis.url)} FLAGRELAY_ENV={ENVIRONMENT}",
        f"curl -N -H 'Authorization: Bearer {key}' {url}/v1/stream",
        f"{program} flags list",
        f"{program} kill new-search --reason 'trying it'",
        f"{program} revive {VICTIM} --reason 'fixed'",
        f"curl -s {url}/metrics | grep flagrelay_propagation",
    ):
        click.echo(f"  {line}")
    click.echo()


async def _live(console: Console, store: Store, heard: Audience, ends_at: float | None) -> None:
    """Show each change as it happens, with how long it took to everybody."""
    until = "Ctrl-C" if ends_at is None else "the end"
    console.print(f"Changes, as they happen, until {until}:")
    changes: asyncio.Queue[Change] = asyncio.Queue()
    source = Source(
        store, ENVIRONMENT, on_load=lambda _snapshot: None, on_change=lambda change, _: changes.put_nowait(change)
    )
    following = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(None if ends_at is None else max(0.0, ends_at - time.monotonic())):
            while True:
                change = await changes.get()
                arrivals = await heard.arrivals(change.revision, change.at)
                console.print(
                    f"  revision {change.revision}  {describe(change)}  ({signed(change)})  "
                    f"{len(arrivals.milliseconds)} of {arrivals.streams} streams, last {arrivals.last:.1f} ms",
                    markup=False,
                )
    except TimeoutError:
        pass
    finally:
        following.cancel()
