"""pushpin, a proxy that holds streams for an application behind it, and is told over HTTP what to send.

The application behind it is its own built-in test handler, which holds any stream.
"""

import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import free_port
from rig.event import NAME, Event
from rig.posting import poster

from contenders import Contender, Missing, Server, request, until_listening
from flagrelay.cli.kept import kept

# Without its limit of 2,500 deliveries a second, and without statistics.
CONFIGURATION = """
[global]
include=/usr/lib/pushpin/internal.conf
rundir={folder}
ipc_prefix=bench-
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={folder}
log_level=0
client_buffer_size=8192
client_maxconn=19000
[proxy]
routesfile={folder}/routes
[handler]
push_in_spec=ipc://{folder}/push
push_in_sub_specs=ipc://{folder}/sub
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
command_spec=ipc://{folder}/command
stats_spec=ipc://{folder}/stats
message_rate=0
message_hwm=1000000
stats_report_interval=0
"""

STREAM = request("/stream")
AT_ONCE = 10
"""More, and its processes lose the thread: "received message out of sequence"."""

IN_A_ROW = 50
"""Streams that it must have held before it is believed to hold all."""


@contextmanager
def _running(event: Event) -> Iterator[Server]:
    if not shutil.which("pushpin"):
        raise Missing("no pushpin here: apt-get install pushpin")
    with TemporaryDirectory(prefix="bench-") as place, ExitStack() as stack:
        folder, port, publish = Path(place), free_port(), free_port()
        file = folder / "pushpin.conf"
        file.write_text(CONFIGURATION.format(folder=folder, port=port, publish=publish), encoding="utf-8")
        (folder / "routes").write_text("* test\n", encoding="utf-8")
        process = stack.enter_context(kept(["pushpin", "--config", str(file)], log=folder / "start", quiet=True))
        until_listening(publish, folder / "start")
        _until_holding(port)
        publisher = stack.enter_context(poster(event, publish, "/publish/", body=_item))
        yield Server(process.pid, port, STREAM, publisher, spread=True, at_once=AT_ONCE)


def _until_holding(port: int) -> None:
    """Wait until its processes have found each other: until then it closes or refuses some of what comes."""
    deadline, held = time.monotonic() + 20, 0
    while held < IN_A_ROW:
        if time.monotonic() > deadline:
            raise RuntimeError("pushpin does not hold streams after 20 s")
        held = held + 1 if _holds(port) else 0


def _holds(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as sock:
        sock.sendall(STREAM)
        if sock.recv(1000).startswith(b"HTTP/1.1 200"):
            return True
    time.sleep(0.05)
    return False


def _item(data: bytes) -> bytes:
    content = f"event: {NAME}\ndata: {data.decode()}\n\n"
    return json.dumps({"items": [{"channel": "test", "formats": {"http-stream": {"content": content}}}]}).encode()


CONTENDERS = (Contender("pushpin", _running),)
