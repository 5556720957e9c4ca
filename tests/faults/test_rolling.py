"""Two relays behind a load balancer, rolled one after the other: no SDK is ever without flags."""

import asyncio
import signal
from pathlib import Path

from flagrelay.sdk.client import ClientState
from support.balancer import balancer
from support.faults import Sdk, World, broken_world
from support.sources import until
from support.stores import free_ports

SDKS = 30
SPREAD = 1.0
"""Seconds over which a relay that stops spreads the reconnections."""


async def streams(world: World) -> list[int]:
    """Open streams of each relay."""
    counts = []
    for relay in world.relays:
        metrics = (await relay.get("/metrics"))[1]
        line = next(line for line in metrics.splitlines() if line.startswith("flagrelay_streams_open{"))
        counts.append(int(float(line.split()[-1])))
    return counts


async def test_relays_are_rolled_and_no_sdk_notices_more_than_a_reconnection(tmp_path: Path) -> None:
    ports = free_ports(2)
    settings = {"stream-lifetime": "3", "drain-spread": str(SPREAD), "drain-delay": "0.3"}
    async with broken_world(tmp_path, relays=2, sdks=0, settings=settings) as world, balancer(ports, tmp_path) as port:
        for relay, fixed in zip(world.relays, ports, strict=True):
            await relay.end(signal.SIGTERM)
            relay.settings = {**relay.settings, "port": str(fixed)}
            await relay.start()
        for _ in range(SDKS):
            world.sdks.append(Sdk(f"http://127.0.0.1:{port}", world.secret))
        try:
            await until(lambda: all(sdk.flags for sdk in world.sdks), "every SDK has flags")
            back: list[float] = []
            async with world.writing():
                for relay in world.relays:
                    begun = asyncio.get_running_loop().time()
                    await relay.end(signal.SIGTERM)
                    assert all(sdk.flags for sdk in world.sdks), "nobody is ever without flags"
                    await until(
                        lambda: all(sdk.client.state is ClientState.READY for sdk in world.sdks),
                        "everybody is back, at the other relay",
                    )
                    back.append(_spread([at for sdk in world.sdks for at in sdk.ready_at if at > begun]))
                    await relay.start()
            await world.settled()
            assert min(back) > SPREAD / 4, "reconnections are spread over the window"
            async with asyncio.timeout(20):
                while min(await streams(world)) < SDKS / 4:
                    await asyncio.sleep(0.1)  # lifetimes end, and the balancer evens out
            assert all(sdk.flags for sdk in world.sdks)
        finally:
            await asyncio.gather(*(sdk.close() for sdk in world.sdks))


def _spread(moments: list[float]) -> float:
    """Seconds between the first and the last."""
    return max(moments) - min(moments)
