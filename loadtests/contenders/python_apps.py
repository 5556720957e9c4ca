"""Two applications as people write them, under the fastest server that each has (`apps/`)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rig.event import Event
from rig.posting import poster

from contenders import Contender, Server, program, request

APPS = Path(__file__).with_name("apps")


@contextmanager
def _running(event: Event, *, app: str) -> Iterator[Server]:
    with program(sys.executable, APPS / app) as (pid, port), poster(event, port, "/publish") as publisher:
        yield Server(pid, port, request("/stream"), publisher)


CONTENDERS = (
    Contender("sse-starlette", partial(_running, app="queue_per_stream.py")),
    Contender("aiohttp", partial(_running, app="aiohttp_loop.py")),
)
