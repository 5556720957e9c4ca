"""`flagrelay demo`: a private Redis, a relay, many streams, one kill, and one release with its un-release."""

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from flagrelay.cli.audience import Arrivals, Audience, audience
from flagrelay.cli.demo_release import FLAG, show_release_scene
from flagrelay.cli.private_redis import PrivateRedis, private_redis
from flagrelay.cli.private_relay import load_demo_flags, private_relay
from flagrelay.cli.watch import Commentary, describe, signed
from flagrelay.errors import FlagrelayError
from flagrelay.flags.change import Change
from flagrelay.relay.channel import heed_cancellation
from flagrelay.relay.source import Source
from flagrelay.server.logs import configure_logs
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import kill_flag
from flagrelay.wire.event_id import format_event_id

ENVIRONMENT = "demo"
VICTIM = "checkout-v2"
READY_TIMEOUT = 20.0
"""Seconds in which the relay must be ready."""

BAR = 40
"""Columns of the longest bar of a histogram."""


BARS = 10
"""Lines of a histogram."""


@click.command(epilog="Example: flagrelay demo --streams 500 --seconds 10")
@click.option("--streams", type=click.IntRange(1, 5000), default=200, show_default=True, help="How many to open.")
@click.option("--seconds", type=click.IntRange(min=0), metavar="N", help="Stop after so long. Default: at Ctrl-C.")
def demo(streams: int, seconds: int | None) -> None:
    """See the main job run, with a real Redis and real connections.

    Starts a private Redis and a relay, opens streams, kills a flag, and shows when each stream heard of it. Releases
    another flag to one population after another, takes it back from one, and shows that every stream has that. Then it
    shows changes as they happen, until Ctrl-C. Nothing is left behind.
    """
    ends_at = None if seconds is None else time.monotonic() + seconds
    console = Console(highlight=False, soft_wrap=True)
    configure_logs("error", "console")  # what a person should know of Redis's fate, the demo says itself
    with _terminable(), ExitStack() as stack:
        with console.status("starting a private Redis and a relay"):
            redis = stack.enter_context(private_redis())
            url = stack.enter_context(private_relay(redis, ENVIRONMENT))
        console.print(f"Redis: a private server at {redis.url}\nrelay: {url}")
        asyncio.run(_in_order(_show(console, redis, url, streams, ends_at)))
    console.print("Stopped. The relay, Redis and their files are gone.")


TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, as shells have it."""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the demo in order, as Ctrl-C does."""

    def end(_number: int, _frame: object) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def _in_order(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM while the event loop runs: an exception out of a signal's handler could hit the loop itself."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    terminated = asyncio.Event()

    def end() -> None:
        terminated.set()
        task.cancel()

    outside = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        await task
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, outside)
    if terminated.is_set():
        sys.exit(TERMINATED)


async def _show(console: Console, redis: PrivateRedis, url: str, streams: int, ends_at: float | None) -> None:
    async with open_store(RedisAddress(redis.url)) as store:
        position = await create_environment(store, ENVIRONMENT)
        key = await load_demo_flags(store, ENVIRONMENT, "demo")
        heed_cancellation()
        await _ready(url, key)
        async with _streams(console, url, key, streams) as heard:
            written = await kill_flag(store, ENVIRONMENT, VICTIM, actor="demo", reason="error rate is up")
            heed_cancellation()
            arrivals = await heard.arrivals(format_event_id(position.epoch, written.revision), written.at)
            if not arrivals.milliseconds:
                raise FlagrelayError("not one stream heard of the kill")
            _histogram(console, arrivals)
            await show_release_scene(console, store, ENVIRONMENT)
            heed_cancellation()
            _lines_to_try(console, redis, url, key)
            with suppress(asyncio.CancelledError):  # Ctrl-C is how this is meant to end
                await _live(console, store, heard, ends_at)


async def _ready(url: str, key: str) -> None:
    """Wait until the relay has the flags and knows the key; it may be ready, by its own account, before both."""
    deadline = time.monotonic() + READY_TIMEOUT
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        while True:
            try:
                async with session.get(f"{url}/v1/flags") as response:
                    reason = (await response.text()).strip()
                    if response.ok and VICTIM in reason:
                        return
            except aiohttp.ClientError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise FlagrelayError(f"the relay is not ready after {READY_TIMEOUT:g} s: {reason}")
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
    console.print(f"[bold]{VICTIM}[/bold] was killed. When each stream had it, in milliseconds after the write:\n")
    width = max((arrivals.last - arrivals.first) / BARS, 0.05)
    counts = [0] * BARS
    for wait in arrivals.milliseconds:
        counts[min(int((wait - arrivals.first) / width), BARS - 1)] += 1
    table = Table("  from", "    to", "streams", "", box=None, pad_edge=False, header_style="dim")
    block = "#" if console.options.ascii_only else "█"
    for index, count in enumerate(counts):
        low = arrivals.first + index * width
        bar = block * max(round(count / max(counts) * BAR), 1 if count else 0)
        table.add_row(f"{low:6.1f}", f"{low + width:6.1f}", f"{count:7}", f"[green]{bar}[/green]")
    console.print(table)
    reached = f"{len(arrivals.milliseconds)} of {arrivals.streams}"
    console.print(
        f"\n[bold]un-released[/bold] on {reached} streams: "
        f"first {arrivals.first:.1f} ms, median {arrivals.median:.1f} ms, p99 {arrivals.p99:.1f} ms, "
        f"[bold]last {arrivals.last:.1f} ms[/bold]\n"
    )


def _lines_to_try(console: Console, redis: PrivateRedis, url: str, key: str) -> None:
    """What to type in another terminal; printed so that it can be pasted."""
    script = Path(sys.argv[0])
    program = [str(script.resolve())] if script.name == "flagrelay" else [sys.executable, "-m", "flagrelay"]
    flagrelay = shlex.join(program)
    console.print("In another terminal:\n")
    for line in (
        f"export FLAGRELAY_REDIS_URL={shlex.quote(redis.url)} FLAGRELAY_ENV={ENVIRONMENT}",
        f"{flagrelay} flags list",
        f"""{flagrelay} explain search-ranking --context '{{"targetingKey": "u1"}}'""",
        f"{flagrelay} release status {FLAG}",
        f"{flagrelay} release restore {FLAG} --population beta --reason 'fixed' --yes",
        f"{flagrelay} unrelease {FLAG} --to dev-team --reason 'trying it'",
        f"{flagrelay} kill new-search --reason 'trying it'",
        f"{flagrelay} revive {VICTIM} --reason 'fixed'",
        f"curl -s {url}/metrics | grep ^flagrelay_",
        f"curl -N -H 'Authorization: Bearer {key}' {url}/v1/stream",
    ):
        click.echo(f"  {line}")
    click.echo()


async def _live(console: Console, store: Store, heard: Audience, ends_at: float | None) -> None:
    """Show each change as it happens, with how long it took to everybody."""
    console.print(f"Changes, as they happen, {'until Ctrl-C' if ends_at is None else 'for a while'}:")
    changes: asyncio.Queue[Change] = asyncio.Queue()
    source = Source(
        store,
        ENVIRONMENT,
        on_load=lambda _snapshot: None,
        on_change=lambda change, _snapshot: changes.put_nowait(change),
        on_state=Commentary().moved,
    )
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(source.run())
        with suppress(TimeoutError):
            async with asyncio.timeout(None if ends_at is None else max(0.0, ends_at - time.monotonic())):
                while True:
                    change = await changes.get()
                    event_id = format_event_id(change.epoch, change.revision)
                    _show_change(console, change, await heard.arrivals(event_id, change.at))
        following.cancel()


def _show_change(console: Console, change: Change, arrivals: Arrivals) -> None:
    last = f", last {arrivals.last:.1f} ms" if arrivals.milliseconds else ""
    console.print(
        f"  revision {change.revision}  {describe(change)}  ({signed(change)})  "
        f"{len(arrivals.milliseconds)} of {arrivals.streams} streams{last}",
        markup=False,
    )
