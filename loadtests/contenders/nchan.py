"""nginx with nchan, a pub/sub module in C: one worker, as flagrelay is one process. Plain and in TLS."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import free_port
from rig.event import NAME, Event
from rig.posting import poster

from contenders import Contender, Missing, Server, request, until_listening
from contenders.flagrelay import certificate
from flagrelay.cli.kept import kept

INSTALL = "apt-get install nginx libnginx-mod-nchan"
MODULE = "ngx_nchan_module.so"

# No message is kept longer than it takes to send it, nothing is logged or buffered, and connections stay.
CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/log crit;
events {{ worker_connections 20000; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    nchan_shared_memory_size 128m;
    nchan_message_buffer_length 10;
    nchan_message_timeout 1h;
    server {{
        listen 127.0.0.1:{publish} backlog=4096;
        location = /publish {{ nchan_publisher; nchan_channel_id flags; }}
        location = /stream {{ {stream} }}
    }}
    {second}
}}
"""
STREAM = "nchan_subscriber eventsource; nchan_channel_id flags; nchan_subscriber_first_message newest;"
SECURE = """server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        location = /stream {{ {stream} }}
    }}"""


@contextmanager
def _plain(event: Event) -> Iterator[Server]:
    with _nginx(event, "", 0) as server:
        yield server


@contextmanager
def _secure(event: Event) -> Iterator[Server]:
    with certificate() as (cert, key):
        port = free_port()
        with _nginx(event, SECURE.format(port=port, cert=cert, key=key, stream=STREAM), port) as server:
            yield server


@contextmanager
def _nginx(event: Event, second: str, secure_port: int) -> Iterator[Server]:
    module = _module()
    with TemporaryDirectory(prefix="bench-") as place, ExitStack() as stack:
        folder, port = Path(place), free_port()
        file = folder / "nginx.conf"
        text = CONFIGURATION.format(module=module, folder=folder, publish=port, stream=STREAM, second=second)
        file.write_text(text, encoding="utf-8")
        log = folder / "start"
        command = ["nginx", "-p", place, "-c", str(file), "-e", str(folder / "log")]
        process = stack.enter_context(kept(command, log=log, quiet=True))
        until_listening(port, log)
        publisher = stack.enter_context(poster(event, port, "/publish", headers={"X-EventSource-Event": NAME}))
        yield Server(process.pid, secure_port or port, request("/stream"), publisher, tls=bool(second))


def _module() -> Path:
    """The module's file, where this nginx looks for modules."""
    if not shutil.which("nginx"):
        raise Missing(f"no nginx here: {INSTALL}")
    said = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    folder = re.search(r"--modules-path=(\S+)", said)
    module = Path(folder[1] if folder else "/usr/lib/nginx/modules", MODULE)
    if not module.exists():
        raise Missing(f"no nchan here: {INSTALL}")
    return module


CONTENDERS = (Contender("nchan", _plain), Contender("nchan-tls", _secure))
