"""Publishes by HTTP POST over a connection that is kept where the server keeps it, in a process of its own."""

import http.client
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from rig.companion import Companion, companion
from rig.event import Event


@dataclass(frozen=True, slots=True)
class Sent:
    """When an event was published, in seconds since 1970.

    Args:
        began: just before the call that publishes, in the publisher's process.
        at: by Redis's own clock, where Redis has part in it.
    """

    began: float
    at: float | None = None


@contextmanager
def poster(
    event: Event,
    port: int,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Callable[[bytes], bytes] = bytes,
) -> Iterator[Companion]:
    """A publisher that posts the event's data.

    Args:
        event: what to publish.
        port: of the server, on 127.0.0.1.
        path: where it takes what is published.
        headers: beside those that HTTP asks for.
        body: what is posted for the event's data; by default the data as it is.
    """
    with companion(_post, event, port, path, dict(headers or {}), body) as process:
        yield process


def _post(
    pipe: Connection, event: Event, port: int, path: str, headers: dict[str, str], body: Callable[[bytes], bytes]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    while True:
        content = body(event.data(pipe.recv()))
        if connection.sock is None or select.select([connection.sock], [], [], 0)[0]:  # closed while it was idle
            connection.close()
            connection.connect()
        began = time.time()
        connection.request("POST", path, content, headers)
        with connection.getresponse() as answer:
            answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{path} answered {answer.status}")
        pipe.send(Sent(began))
