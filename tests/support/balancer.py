"""A TCP load balancer in front of relays: haproxy where the machine has it, else a small one of the tests' own."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path

from flagrelay.cli.kept import kept
from support.stores import free_ports

HAPROXY = """
defaults
  mode tcp
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  option redispatch
  retries 3
frontend sdks
  bind 127.0.0.1:{port}
  default_backend relays
backend relays
  balance leastconn
{servers}
"""


@contextlib.asynccontextmanager
async def balancer(ports: Sequence[int], folder: Path) -> AsyncIterator[int]:
    """A balancer over relays on fixed ports; its own port. One that refuses is passed over."""
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        async with _own(ports) as port:
            yield port
        return
    [port] = free_ports(1)
    check = "check inter 100ms fall 1 rise 1"
    servers = "\n".join(f"  server relay{number} 127.0.0.1:{each} {check}" for number, each in enumerate(ports))
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, servers=servers))
    with kept([haproxy, "-db", "-f", str(config)], log=folder / "haproxy.log", quiet=True):
        yield port


@contextlib.asynccontextmanager
async def _own(ports: Sequence[int]) -> AsyncIterator[int]:
    turns = count()
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            turn = next(turns)
            for each in range(len(ports)):
                with contextlib.suppress(OSError):
                    far_reader, far_writer = await asyncio.open_connection(
                        "127.0.0.1", ports[(turn + each) % len(ports)]
                    )
                    await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
                    return
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
