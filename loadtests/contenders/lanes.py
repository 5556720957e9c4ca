"""Contenders that run, each with its streams open, ready to take turns."""

import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import spread
from rich.console import Console
from rig.companion import until_idle
from rig.cores import keep_servers_apart
from rig.crowd import Crowd, crowd
from rig.event import FIRST, Event
from rig.posting import Sent
from rig.processes import family, family_cpu, family_memory, family_waited

from contenders import Missing, Server
from contenders.roster import CONTENDERS

PAUSE = 0.05
"""Seconds between two changes: what a server puts off until it has time belongs to the change before."""


@dataclass(slots=True)
class Lane:
    """One contender and its streams.

    Args:
        name: the contender's.
        server: what runs.
        crowd: its streams.
        streams: how many.
        memory: what each costs the server's processes while nothing happens, in bytes.
    """

    name: str
    server: Server
    crowd: Crowd
    streams: int
    memory: float
    _published: list[int] = field(default_factory=list)

    def warm_up(self) -> None:
        """Publish what shows how events end, and a few more."""
        self._publish()
        self.crowd.learn()
        self.turn(3)

    def turn(self, changes: int) -> dict[str, float]:
        """Publish changes with a pause behind each. Milliseconds are medians over them, the rest are means."""
        cpu, waited = family_cpu(self.server.pid), family_waited(self.server.pid)
        each = []
        for _ in range(changes):
            each.append(self.change())
            time.sleep(PAUSE)
        for pid in family(self.server.pid):
            until_idle(pid)
        used, waited = family_cpu(self.server.pid) - cpu, family_waited(self.server.pid) - waited
        figures = {name: statistics.median(one[name] for one in each) for name in each[0]}
        deliveries = changes * self.streams
        return {**figures, "server_us": used / deliveries * 1e6, "waited_us": waited / deliveries * 1e6}

    def change(self) -> dict[str, float]:
        """Publish one change. Times are in milliseconds."""
        self.crowd.begin()
        sent = self._publish()
        arrivals = self.crowd.arrivals()
        figures = spread(arrivals.times, lambda: sent.began)
        figures |= {
            "us_per_stream": figures["last"] * 1000 / self.streams,
            "bytes": arrivals.bytes_each,
            "receiver_us": arrivals.cpu / self.streams * 1e6,
        }
        if sent.at is not None:
            figures["first_since_redis"] = (arrivals.times[0] - sent.at) * 1000
            figures["last_since_redis"] = (arrivals.times[-1] - sent.at) * 1000
        return figures

    def ceiling(self) -> float:
        """How many deliveries a second the receiver takes when all are there before it begins to read."""
        self._publish()
        self.crowd.begin()
        arrivals = self.crowd.arrivals()
        return self.streams / (arrivals.times[-1] - arrivals.began)

    def verify(self) -> None:
        """See that streams have got all that was published, once and in order."""
        self.crowd.verify(self._published)

    def _publish(self) -> Sent:
        number = FIRST + len(self._published)
        self._published.append(number)
        sent: Sent = self.server.publisher.ask(number)
        return sent


@contextmanager
def lanes(
    names: Iterable[str], event: Event, streams: int, console: Console, *, apart: bool
) -> Iterator[tuple[dict[str, Lane], dict[str, str]]]:
    """Contenders that are warm, and why others are left out, both by name."""
    running: dict[str, Lane] = {}
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        for name in names:
            try:
                server = stack.enter_context(CONTENDERS[name].running(event))
            except Missing as reason:
                left_out[name] = str(reason)
                console.log(f"{name} is left out: {reason}")
                continue
            if apart and not server.spread:
                keep_servers_apart(family(server.pid))
            before = family_memory(server.pid)
            held = stack.enter_context(
                crowd(server.port, server.request, streams, tls=server.tls, at_once=server.at_once, apart=apart)
            )
            time.sleep(1)  # let it free what the requests used
            memory = (family_memory(server.pid) - before) / streams
            running[name] = Lane(name, server, held, streams, memory)
            running[name].warm_up()
            again = f"; it had refused or closed {held.asked_again} others" if held.asked_again else ""
            console.log(f"{name}: {streams} streams{again}")
        yield running, left_out
        for lane in running.values():
            lane.verify()
