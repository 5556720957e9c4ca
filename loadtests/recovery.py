"""How long a relay needs to be well again: Redis back → LIVE, and a lost message → repaired.

    python loadtests/recovery.py --rounds 20

One relay process with its default settings, between proxies, and a Redis that is killed and started again with what it
has on disk. `back`: from Redis's first answer to the relay's `live`. `repair`: from the write of a change
whose message is dropped to its arrival on an open stream; nothing else happens meanwhile, so only comparing finds it.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import finish, options, summary
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # what breaks things there breaks them here

from support.faults import World, broken_world
from support.sources import until


def main() -> None:
    chosen = options(__doc__, rounds=20, down=(2, "seconds for which Redis is away"))
    finish(asyncio.run(_measure(chosen)), _show, as_json=chosen.json)


async def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    defaults = {"verify-interval": "3", "backoff-min": "0.05", "backoff-max": "5", "heartbeat-interval": "15"}
    back, repair = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with broken_world(Path(folder), relays=1, sdks=1, settings=defaults) as world:
            for round_ in range(1, chosen.rounds + 1):
                back.append(await _back(world, chosen.down))
                repair.append(await _repair(world))
                console.log(f"round {round_}: back {back[-1]:.0f} ms, repair {repair[-1]:.0f} ms")
    return {
        "rounds": chosen.rounds,
        "down_s": chosen.down,
        "back_ms": {**summary(back, 0), "p99": round(sorted(back)[int(len(back) * 0.99)])},
        "repair_ms": {**summary(repair, 0), "p99": round(sorted(repair)[int(len(repair) * 0.99)])},
    }


async def _back(world: World, down: int) -> float:
    [relay] = world.relays
    world.redis.kill()
    await asyncio.sleep(down * world.rng.uniform(0.5, 1.5))
    world.redis.start()  # returns once it answers
    began = time.perf_counter()
    while (await relay.report()).get("source") != "live":  # each asks, and so waits
        pass
    return (time.perf_counter() - began) * 1000


async def _repair(world: World) -> float:
    [relay], [sdk] = world.relays, world.sdks
    await asyncio.sleep(world.rng.uniform(0, 3))
    relay.to_redis.on_message = lambda _frame: []
    began = time.perf_counter()
    await world.write()
    await until(lambda: sdk.client.replica.id.endswith(f".{world.revision_acknowledged}"), "it is repaired", within=30)
    took = (time.perf_counter() - began) * 1000
    relay.to_redis.restore()
    return took


def _show(result: dict[str, Any]) -> None:
    table = Table("milliseconds", "median", "lowest", "p99", "highest", title=f"{result['rounds']} rounds")
    for name in ("back_ms", "repair_ms"):
        row = result[name]
        table.add_row(
            name.removesuffix("_ms"), *(str(row[column]) for column in ("median", "lowest", "p99", "highest"))
        )
    Console().print(table)


if __name__ == "__main__":
    main()
