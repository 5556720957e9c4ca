"""The floor: a bare loop of `socket.send` with the same bytes to as many sockets. Nothing is parsed or decided."""

import gc
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from bench import need_descriptors
from rig.companion import companion
from rig.event import Event
from rig.posting import Sent

from contenders import Contender, Server, request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@contextmanager
def _running(event: Event) -> Iterator[Server]:
    with companion(_serve, event) as process:
        yield Server(process.pid, process.receive(), request("/"), process)


def _serve(pipe: Connection, event: Event) -> None:
    """Accept, answer any request with a head, and send when told to."""
    need_descriptors(0)
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        pipe.send(listener.getsockname()[1])
        while listener.fileno() in select.select([pipe.fileno(), listener.fileno()], [], [])[0]:
            connection = listener.accept()[0]
            connection.recv(4096)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(HEAD)
            connections.append(connection)
    gc.freeze()
    gc.disable()
    while True:
        frame = event.framed(pipe.recv())
        began = time.time()
        for connection in connections:
            connection.send(frame)
        pipe.send(Sent(began))


CONTENDERS = (Contender("floor", _running),)
