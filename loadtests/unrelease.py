"""How long an un-release takes until it is proven: several relays, many streams each; and with one of them stopped.

    python loadtests/unrelease.py --relays 3 --streams 2000 --rounds 50

Each round takes a flag from one population and waits until every relay has reported that it has written the change to
all of its streams; then it gives the flag back. Then the same with one relay stopped (SIGSTOP), which has to be named:
how long the others take, and what is said. From before the call: reading the release, compiling it, writing it, and
reading reports until all are there. From Redis's clock: until the last stream was written, as the relays report it.
"""

import asyncio
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from bench import GROUP, finish, need_descriptors, options, summary
from rich.console import Console
from rich.table import Table
from rig.companion import companion
from scale.lab import ENVIRONMENT, Lab, lab, relay

from flagrelay.control.operation import perform
from flagrelay.control.proof import Proof, prove
from flagrelay.control.session import Session
from flagrelay.control.table import ADVANCE, PLAN, PUT_POPULATION, RESTORE, START, UNRELEASE
from flagrelay.store.connection import RedisAddress, open_store
from flagrelay.store.reports import Reports, read_reports
from flagrelay.store.writing import Written

FLAG = "checkout-v2"
PLANNED = {
    "flag": FLAG,
    "variants": {"on": True, "off": False},
    "released": "on",
    "baseline": "off",
    "stages": [{"population": "dev-team"}, {"population": "beta"}, {"percent": 10}],
}
WITHIN = 5.0
"""Seconds that are waited for all relays; with one of them stopped, `STOPPED_WITHIN`."""
STOPPED_WITHIN = 0.5
STOPPED_ROUNDS = 10
QUIET = 0.1
"""Seconds between two rounds: whoever un-releases has done nothing else just before."""


def main() -> None:
    chosen = options(__doc__, rounds=50, relays=(3, "relays"), streams=(2000, "streams of each"))
    need_descriptors(chosen.relays * chosen.streams + 64)
    with lab() as here, ExitStack() as stack:
        relays = [stack.enter_context(relay(here)) for _ in range(chosen.relays)]
        ports = [port for _, port in relays]
        held = stack.enter_context(companion(_hold, ports, chosen.streams, here.request()))
        held.pipe.recv()
        result = asyncio.run(_measure(here, chosen.rounds, [pid for pid, _ in relays]))
    finish({"relays": chosen.relays, "streams": chosen.streams, **result}, _show, as_json=chosen.json)


def _hold(pipe: Connection, ports: list[int], count: int, request: bytes) -> None:
    """Open streams, and read whatever comes until nobody is left who wants it."""
    epoll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for port in ports:
        for opened in range(count):
            each = socket.create_connection(("127.0.0.1", port))
            each.sendall(request)
            each.setblocking(False)
            sockets[each.fileno()] = each
            epoll.register(each.fileno(), select.EPOLLIN)
            if opened % GROUP == GROUP - 1:
                _read(epoll, sockets, 0.05)
    pipe.send("open")
    while not pipe.closed:
        _read(epoll, sockets, 1.0)


def _read(epoll: select.epoll, sockets: dict[int, socket.socket], within: float) -> None:
    for descriptor, _ in epoll.poll(within, 1024):
        if not sockets[descriptor].recv(65536):
            epoll.unregister(descriptor)


async def _measure(here: Lab, rounds: int, pids: list[int]) -> dict[str, Any]:
    async with open_store(RedisAddress(here.redis.tcp_url)) as store:
        session = Session(store, ENVIRONMENT, "benchmark")

        async def reports() -> Reports:
            return await read_reports(store, ENVIRONMENT)

        await _prepare(session)
        whole = [await _round(session, reports, WITHIN) for _ in range(rounds + 3)][3:]  # the first ones warm up
        os.kill(pids[-1], signal.SIGSTOP)
        try:
            stopped = [await _round(session, reports, STOPPED_WITHIN) for _ in range(STOPPED_ROUNDS)]
        finally:
            os.kill(pids[-1], signal.SIGCONT)
    return {
        "proven_ms": summary([took for took, _, _ in whole], 2),
        "written_ms": summary([proof.ms or 0.0 for _, _, proof in whole], 2),
        "call_ms": summary([called for _, called, _ in whole], 2),
        "complete": sum(proof.complete for _, _, proof in whole),
        "rounds": rounds,
        "said": whole[-1][2].sentence("un-released"),
        "stopped": {
            "rounds": STOPPED_ROUNDS,
            "named": sum(_named(proof) for _, _, proof in stopped),
            "others_ms": summary([proof.ms or 0.0 for _, _, proof in stopped], 2),
            "said": stopped[-1][2].sentence("un-released"),
        },
    }


async def _prepare(session: Session) -> None:
    """A flag at its last stage, which one of its populations has whole."""
    for name, value in (("dev-team", "dev"), ("beta", "beta")):
        await perform(session, PUT_POPULATION, name=name, equals={"attribute": "plan", "value": value})
    await perform(session, PLAN, key=FLAG, plan=PLANNED)
    await perform(session, START, key=FLAG, reason="benchmark")
    await perform(session, ADVANCE, key=FLAG, to="10%", reason="benchmark")


async def _round(session: Session, reports: Callable[[], Any], within: float) -> tuple[float, float, Proof]:
    """One un-release: milliseconds until it was proven and until it was written, and the proof."""
    began = time.perf_counter()
    acted = await perform(session, UNRELEASE, key=FLAG, reason="benchmark", **{"from": ["beta"]})
    called = time.perf_counter()
    written = Written(acted.change.revision, acted.change.at, epoch=acted.change.epoch)
    proof = await prove(reports, written, within=within)
    ended = time.perf_counter()
    given = await perform(session, RESTORE, key=FLAG, population="beta", reason="benchmark")
    back = Written(given.change.revision, given.change.at, epoch=given.change.epoch)
    await prove(reports, back, within=within)
    await asyncio.sleep(QUIET)
    return (ended - began) * 1000, (called - began) * 1000, proof


def _named(proof: Proof) -> bool:
    """Whether exactly one relay is named as one that has it not, and the others have it."""
    return not proof.complete and proof.done == len(proof.standings) - 1


def _show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table("un-release of one population", "median ms", "lowest", "highest", box=None, header_style="bold")
    for name, label in (
        ("proven_ms", "from before the call until proven"),
        ("call_ms", "of that: read, compile, write"),
        ("written_ms", "from Redis's clock until the last stream was written"),
    ):
        figure = result[name]
        table.add_row(label, *(f"{figure[which]:.2f}" for which in ("median", "lowest", "highest")))
    others = result["stopped"]["others_ms"]
    row = (f"{others[which]:.2f}" for which in ("median", "lowest", "highest"))
    table.add_row("the same of the others, with one relay stopped", *row)
    console.print(f"{result['relays']} relays, {result['streams']:,} streams each, {result['rounds']} rounds")
    console.print(table)
    console.print(f"proven whole in {result['complete']} of {result['rounds']} rounds: {result['said']}")
    stopped = result["stopped"]
    console.print(f"one stopped, named in {stopped['named']} of {stopped['rounds']} rounds: {stopped['said']}")


if __name__ == "__main__":
    main()
