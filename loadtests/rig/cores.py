"""Who runs where: the receiver on the last core, servers on the others.

Left alone on two cores, servers were ready to run and had no core for a part of the time (`waited_us` in the results):
with 1,000 streams 4 to 5 of the 11 to 14 microseconds that a bare loop took for each, with 8,000 next to nothing for
that loop and up to 1 for a relay. `--unpinned` shows the difference, which is not the same for everybody.
"""

import os
from collections.abc import Iterable
from pathlib import Path


def keep_receiver_apart() -> None:
    """Give this process, which holds streams, the last core."""
    os.sched_setaffinity(0, {_last()})


def keep_servers_apart(pids: Iterable[int]) -> None:
    """Keep processes off that core, with all their threads. A machine with one core has no such choice."""
    others = os.sched_getaffinity(0) - {_last()}
    if not others:
        return
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), others)


def _last() -> int:
    return max(os.sched_getaffinity(0))
