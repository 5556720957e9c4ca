"""New streams per second, and what each costs the server, beside a bare asyncio server that writes the same bytes.

One client holds 64 connections on their way at any time, and counts a stream as open once it has its whole `put`. The
bare server (`rig/bare.py`) accepts, reads the request to its blank line, and writes head and events in one piece. All
take turns on fresh connections. Where the client is what limits (its ceiling is shown: what it could open if the
server cost nothing), the server's CPU per stream is the figure to look at.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import need_descriptors, relay_process, summary
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rig.bare import bare_server
from rig.companion import cpu_seconds, until_idle
from rig.opener import IN_FLIGHT, Opener, first_bytes
from rig.relays import create_all, portable_process, until_ready
from rig.streams import stream_request
from rig.strips import strips

from flagrelay.cli.private_redis import private_redis
from measures import Options

NAME = "new-streams"
SIZES = {100: 3000, 2000: 1000}
"""How many streams are opened in a round, for each number of flags in the `put`."""

QUICK = 10
"""A quick look opens so many times fewer."""

# All streams are told the same reconnection time, so that all begin with the same number of bytes.
SETTINGS = ("--heartbeat-interval", "3600", "--retry", "0", "--log-level", "warning")


@dataclass(frozen=True, slots=True)
class Server:
    """One that streams are opened at, and what each stream begins with."""

    pid: int
    port: int
    request: bytes
    start: bytes
    beside: str
    """The bare server that writes the same bytes; empty for one of those."""


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Open streams at each server in turns, for each size of the flag set."""
    need_descriptors(max(SIZES.values()) + 100)
    sizes = {}
    for flags, streams in SIZES.items():
        count = streams // QUICK if options.quick else streams
        with _servers(flags) as servers:
            sizes[str(flags)] = _rounds(servers, count, options.rounds, console, f"{flags} flags")
    return {"in_flight": IN_FLIGHT, "sizes": sizes}


@contextmanager
def _servers(flags: int) -> Iterator[dict[str, Server]]:
    """Relays of one environment, each way in which it can begin a stream, and the bare servers beside them."""
    with ExitStack() as stack:
        redis = stack.enter_context(private_redis())
        secret = create_all(redis.url, bench=flags)["bench"]
        relay, port = stack.enter_context(relay_process(redis.url, "bench", *SETTINGS))
        portable, portable_port = stack.enter_context(portable_process(redis.url, "--env", "bench", *SETTINGS))
        plain, gzip = stream_request(secret), stream_request(secret, "accept-encoding: gzip")
        ways = {
            "hand-over": (relay.pid, port, plain, "bare"),
            "hand-over, gzip": (relay.pid, port, gzip, "bare, gzip"),
            "portable": (portable.pid, portable_port, plain, "bare"),
        }
        servers = {}
        for name, (pid, port_, request, beside) in ways.items():
            until_ready(port_)
            start = first_bytes(port_, request)
            if request is gzip and b"content-encoding: gzip" not in start:
                continue  # this relay does not compress
            if beside not in servers:
                bare, bare_port = stack.enter_context(bare_server(start))
                servers[beside] = Server(bare.pid, bare_port, request, start, "")
            servers[name] = Server(pid, port_, request, start, beside)
        yield servers


def _rounds(servers: dict[str, Server], count: int, rounds: int, console: Console, label: str) -> dict[str, Any]:
    raw: list[dict[str, dict[str, float]]] = []
    for number in range(rounds + 1):
        figures = {name: _open(server, count) for name, server in servers.items()}
        if number:  # the first one warms up
            raw.append(figures)
            rates = ", ".join(f"{name} {each['per_second']:.0f}/s" for name, each in figures.items())
            console.log(f"new streams, {label}, round {number}: {rates}")
    return {
        "streams": count,
        "start_bytes": {name: len(server.start) for name, server in servers.items()},
        "rounds": raw,
        "servers": {
            name: {figure: summary([each[name][figure] for each in raw], 1) for figure in raw[0][name]}
            for name in servers
        },
        "over_bare": {
            name: {
                figure: summary([each[name][figure] / each[server.beside][figure] for each in raw])
                for figure in ("per_second", "server_us")
            }
            for name, server in servers.items()
            if server.beside
        },
    }


def _open(server: Server, count: int) -> dict[str, float]:
    """One server's part of a round: streams per second, MB per second, and microseconds of CPU per stream."""
    before = cpu_seconds(server.pid)
    opener = Opener(server.port, server.request, len(server.start))
    try:
        opened = opener.open(count)
        until_idle(server.pid)  # what it puts off belongs to the stream as well
        used = cpu_seconds(server.pid) - before
    finally:
        opener.close()
    until_idle(server.pid)  # what ends streams must not run beside whoever is next
    return {
        "per_second": count / opened.seconds,
        "mb_per_second": count * len(server.start) / opened.seconds / 1e6,
        "server_us": used / count * 1e6,
        "client_us": opened.client_cpu / count * 1e6,
        "client_ceiling": count / opened.client_cpu,
    }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table for each size."""
    columns = {
        "per_second": "per second",
        "mb_per_second": "MB/s",
        "server_us": "server µs each",
        "client_ceiling": "client's ceiling",
    }
    for flags, size in result["sizes"].items():
        title = (
            f"new streams, {flags} flags, {result['in_flight']} on their way; medians of {len(size['rounds'])} rounds"
        )
        table = Table("", "bytes", *columns.values(), "rate over bare", "CPU over bare", title=title)
        for name, figures in size["servers"].items():
            over = size["over_bare"].get(name)
            table.add_row(
                name,
                str(size["start_bytes"][name]),
                *(f"{figures[figure]['median']:.0f}" for figure in columns),
                *(_ranged(over[figure]) if over else "" for figure in ("per_second", "server_us")),
            )
        yield table


def _ranged(figure: dict[str, float]) -> str:
    return f"{figure['median']:.2f} ({figure['lowest']:.2f}-{figure['highest']:.2f})"


def plots(result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Streams per second, and CPU per stream, for each size."""
    for flags, size in result["sizes"].items():
        others = frozenset(size["servers"]) - frozenset(size["over_bare"])
        for figure, stem, unit in (
            ("per_second", "rate", "streams per second"),
            ("server_us", "cpu", "microseconds of the server's CPU per stream"),
        ):
            rows = {name: [each[name][figure] for each in size["rounds"]] for name in size["servers"]}
            yield f"{NAME}-{flags}-{stem}", strips(f"new streams, a put of {flags} flags", unit, rows, others=others)
