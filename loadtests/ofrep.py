"""OFREP under load: bulk evaluations of 500 flags, and single evaluations per second.

    python loadtests/ofrep.py --rounds 7

Bulk: the relay's own processor time per request (from /proc), and the time until the answer is there, beside flagd's
Python evaluator resolving the same flags in a loop, in this process, without any HTTP. Both take turns. Single
evaluations: requests per second as `wrk` counts them, where it is installed, over 32 connections.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from bench import finish, options, ready, relay_process, summary
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from rich.console import Console
from rich.table import Table

from flagrelay.cli.private_redis import private_redis
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, open_store
from flagrelay.store.environments import create_environment
from flagrelay.store.writing import Draft, write_change

ENVIRONMENT = "bench"
REQUESTS = 40
POPULATIONS = {"dev-team": {"in": [{"var": "email"}, ["ada@example.com", "bob@example.com"]]}}
RULE = {
    "if": [
        {"$ref": "dev-team"},
        "on",
        {"==": [{"var": "plan"}, "pro"]},
        "on",
        {"fractional": [["on", 10], ["off", 90]]},
    ]
}


def main() -> None:
    chosen = options(
        __doc__,
        rounds=7,
        flags=(500, "flags of a bulk evaluation"),
        seconds=(5, "of single evaluations, in each round of wrk"),
    )
    finish(asyncio.run(_measure(chosen)), _show, as_json=chosen.json)


def _flags(count: int) -> dict[str, Any]:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": RULE}
    return {f"flag-{number}": flag for number in range(count)}


async def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    core = FlagdCore()
    core.set_flags(json.dumps({"flags": _flags(chosen.flags), "$evaluators": POPULATIONS}))
    bulk: list[dict[str, float]] = []
    with private_redis() as redis:
        async with open_store(RedisAddress(redis.url)) as store:
            await create_environment(store, ENVIRONMENT)
            await write_change(store, ENVIRONMENT, Draft(flags=_flags(chosen.flags), evaluators=POPULATIONS))
            _, secret = await create_access_key(store, ENVIRONMENT, "server", "bench", None)
        with relay_process(redis.url, ENVIRONMENT, "--max-evaluations-per-second", "0") as (relay, port):
            await ready(port)
            for number in range(chosen.rounds + 1):
                one = await _bulk(relay.pid, port, secret, number)
                one["flagd_core_ms"] = _flagd_core(core, chosen.flags, number)
                if number:  # the first one warms up
                    bulk.append(one)
                console.log(f"bulk {number}: {one['server_ms']:.2f} ms, flagd-core {one['flagd_core_ms']:.2f} ms")
            single = [_single(port, secret, chosen.seconds) for _ in range(3)]
    rates = [rate for rate in single if rate]
    return {
        "flags": chosen.flags,
        "rounds": chosen.rounds,
        "bulk": {name: summary([each[name] for each in bulk]) for name in bulk[0]},
        "flagd_core_over_server": summary([each["flagd_core_ms"] / each["server_ms"] for each in bulk]),
        "single_per_second": summary(rates) if rates else None,
    }


async def _bulk(pid: int, port: int, secret: str, number: int) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}/ofrep/v1/evaluate/flags"
    headers = {"authorization": f"Bearer {secret}"}
    times = []
    async with aiohttp.ClientSession(headers=headers) as session:
        before = _processor_ms(pid)
        for request in range(REQUESTS):
            started = time.perf_counter()
            async with session.post(url, json={"context": _context(number * REQUESTS + request)}) as response:
                await response.read()
                assert response.status == 200
            times.append((time.perf_counter() - started) * 1000)
        used = _processor_ms(pid) - before
    return {"server_ms": used / REQUESTS, "answer_ms": statistics.median(times)}


def _context(number: int) -> dict[str, str]:
    return {"targetingKey": f"user-{number}", "email": f"user-{number}@example.com", "plan": "free", "country": "CH"}


def _processor_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _flagd_core(core: FlagdCore, flags: int, number: int) -> float:
    """Milliseconds to resolve all flags once and write them as JSON."""
    attributes = _context(number)
    context = EvaluationContext(attributes.pop("targetingKey"), attributes)
    started = time.perf_counter()
    answers = []
    for index in range(flags):
        details = core.resolve_boolean_value(f"flag-{index}", False, context)
        answer = {"value": details.value, "variant": details.variant, "reason": details.reason}
        answers.append({"key": f"flag-{index}", **answer})
    json.dumps({"flags": answers})
    return (time.perf_counter() - started) * 1000


def _single(port: int, secret: str, seconds: int) -> float | None:
    """Single evaluations per second; None without wrk."""
    if shutil.which("wrk") is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method = "POST"\n'
            f"wrk.body = {json.dumps(json.dumps({'context': _context(1)}))}\n"
            f'wrk.headers["Authorization"] = "Bearer {secret}"\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
        )
        script.flush()
        url = f"http://127.0.0.1:{port}/ofrep/v1/evaluate/flags/flag-7"
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", script.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in output:
        sys.exit(f"the relay refused:\n{output}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    return float(found[1]) if found else None


def _show(result: dict[str, Any]) -> None:
    table = Table("bulk", "median", "lowest", "highest", title=f"{result['flags']} flags, {result['rounds']} rounds")
    names = {
        "server_ms": "relay, processor ms per request",
        "answer_ms": "relay, ms until the answer",
        "flagd_core_ms": "flagd-core in a loop, ms",
    }
    for key, name in names.items():
        table.add_row(name, *(f"{value:.2f}" for value in result["bulk"][key].values()))
    table.add_row("flagd-core over relay", *(f"{value:.1f}" for value in result["flagd_core_over_server"].values()))
    console = Console()
    console.print(table)
    single = result["single_per_second"]
    console.print(
        f"single evaluations per second: {single['median']:.0f} ({single['lowest']:.0f} to {single['highest']:.0f})"
        if single
        else "single evaluations per second: not measured, wrk is not installed"
    )


if __name__ == "__main__":
    main()
