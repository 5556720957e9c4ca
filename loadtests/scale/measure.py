"""Measures what the model is made of, on this machine: about two minutes.

Everything is measured between real processes over loopback. A send over loopback does the receiver's half of TCP as
well, in the sender's time: that makes streams dearer here than they are on a network card.
"""

import os
import platform
import re
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import Receiver, free_port, resident, spread, summary
from rich.console import Console
from rig.companion import cpu_seconds, starved_seconds

from flagrelay import __version__
from flagrelay.cli.private_redis import PrivateRedis, private_redis
from scale.lab import (
    Lab,
    Writer,
    busy_share,
    kernel_bytes,
    lab,
    relay,
    settled,
    writer,
)
from scale.sdks import Sdks

Document = dict[str, Any]
Rounds = list[dict[str, float]]

STREAMS = (500, 1000, 2000, 4000)
ROUNDS = 20
HERD = 2000
SUBSCRIBERS = (1, 10, 100, 500)
MESSAGES = 100
BEAT = 0.5
SLOW_BEAT = 1.5
PAUSE = 0.1
"""Seconds of silence that end a piece of what is sent: far less than a slow beat."""

VERIFY = 0.05


def measure(console: Console) -> Document:
    """Every constant of the model, with what it was measured on."""
    began, on = time.monotonic(), machine()
    with lab() as here:
        sizes = _sizes(here, console)
        document = _fan_out(here, console)
        document |= {
            "bytes": sizes,
            "heartbeat": _heartbeats(here, sizes["plain"]["heartbeat"], console),
            "joins": {kind: _joins(here, kind, console) for kind in ("full", "current")},
            "redis": _redis(here, sizes["plain"]["patch"], console),
        }
    console.log(f"measured in {time.monotonic() - began:.0f} s")
    return {"measured": datetime.now(UTC).date().isoformat(), "machine": on, **document}


def machine() -> Document:
    """What is about to be measured on, and how busy others keep it."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "flagrelay": __version__,
        "busy_before": round(busy_share(), 3),
    }


# -- the relay --------------------------------------------------------------------------------------------------------


def _fan_out(here: Lab, console: Console) -> Document:
    """A change to more and more streams of one relay: when each has it, and what it costs."""
    rounds: dict[str, Rounds] = {}
    with relay(here) as (pid, port), writer(here) as writes:
        settled(pid)
        empty, kernel, streams = resident(pid), kernel_bytes(), Receiver()
        opened = 0
        for count in STREAMS:
            streams.connect(port, count - opened, here.request, b"event: put")
            opened = count
            settled(pid)
            rounds[str(count)] = undisturbed_rounds([pid], streams, writes, ROUNDS)
            slope = statistics.median(each["us_per_stream"] for each in rounds[str(count)])
            console.log(f"{count} streams: {slope:.1f} µs per stream")
        per_stream = (resident(pid) - empty) / opened
        in_kernel = (kernel_bytes() - kernel) / opened / 2  # both ends of each connection are here
        streams.close()
    return {
        "fan_out": {"rounds": rounds},
        "memory": {
            "relay_without_streams": empty,
            "per_idle_stream": round(per_stream),
            "per_idle_stream_in_the_kernel": round(in_kernel),
        },
    }


def undisturbed_rounds(pids: Sequence[int], streams: Receiver, writes: Writer, count: int) -> Rounds:
    """Of twice as many rounds those in which relays waited least for a core: each has one in a fleet, and few here."""
    rounds = [measured_round(pids, streams, writes) for _ in range(2 * count)]
    return sorted(rounds, key=lambda each: each["waited_ms"] / each["last"])[:count]


def measured_round(pids: Sequence[int], streams: Receiver, writes: Writer) -> dict[str, float]:
    """One change to all streams of some relays: milliseconds until they have it, and microseconds of each delivery."""
    used, ours, waited = sum(map(cpu_seconds, pids)), time.process_time(), sum(map(starved_seconds, pids))
    writes.write(1)
    came = streams.collect(b"event: patch")
    ours, waited = time.process_time() - ours, sum(map(starved_seconds, pids)) - waited
    [at] = writes.written().values()
    time.sleep(0.05)
    used = sum(map(cpu_seconds, pids)) - used
    times = spread(came, lambda: at)
    return {
        **{name: round(value, 4) for name, value in times.items()},
        "us_per_stream": round((times["last"] - times["first"]) * 1000 / (len(came) - 1), 3),
        "cpu_us": round(used * 1e6 / len(came), 3),
        "receiver_cpu_us": round(ours * 1e6 / len(came), 3),
        "waited_ms": round(waited * 1000, 3),
    }


def _heartbeats(here: Lab, size: int, console: Console) -> Document:
    """What a heartbeat costs, where a relay does little else."""
    count, seconds = 2000, 4.0
    with relay(here, "--heartbeat-interval", str(BEAT)) as (pid, port):
        streams = Sdks(here.request)
        streams.come(count, [port])
        streams.until(lambda: len(streams.opened) == count)
        before, used = _delivered_bytes(port), cpu_seconds(pid)
        streams.during(seconds)
        used = cpu_seconds(pid) - used
        beats = (_delivered_bytes(port) - before) / size
        streams.close()
    cost = used * 1e6 / beats
    console.log(f"heartbeat: {cost:.1f} µs of CPU, of {beats:.0f}")
    return {"cpu_us": round(cost, 2), "of": round(beats)}


def _joins(here: Lab, kind: str, console: Console) -> Document:
    """Streams that open all at once: how many a second, and the CPU of each. `current`: they have everything."""
    rounds = []
    with relay(here) as (pid, port):
        last_id = _last_id(here, port) if kind == "current" else b""
        for _ in range(4):
            settled(pid)
            herd, used, began = Sdks(here.request), cpu_seconds(pid), time.time()
            herd.come(HERD, [port], last_id=last_id)
            herd.until(lambda herd=herd: len(herd.opened) == HERD)  # type: ignore[misc]  # bound for this round
            settled(pid)
            rounds.append(
                {
                    "per_second": round(HERD / (max(herd.opened) - began)),
                    "cpu_us": round((cpu_seconds(pid) - used) * 1e6 / HERD, 1),
                }
            )
            herd.close()
    rounds = rounds[1:]  # the first one warms up
    console.log(f"new streams, {kind}: {[each['per_second'] for each in rounds]} per second")
    return {"rounds": rounds}


# -- bytes ------------------------------------------------------------------------------------------------------------


def _sizes(here: Lab, console: Console) -> Document:
    """Bytes of what is sent, as they are on a connection; and with compression, where the relay has it."""
    with relay(here, "--heartbeat-interval", str(SLOW_BEAT)) as (_, port), writer(here) as writes:
        plain = _stream_sizes(here, port, writes)
        with _stream(here, port, gzip=True) as sock:
            compressed = b"content-encoding: gzip" in _receive(sock, b"\r\n\r\n").lower()
        gzip = _stream_sizes(here, port, writes, gzip=True) if compressed else None
    sizes = {"plain": plain, "gzip": gzip}
    console.log(f"bytes: {sizes}")
    return sizes


def _stream_sizes(here: Lab, port: int, writes: Writer, *, gzip: bool = False) -> dict[str, int]:
    """The beginning of a stream (`put` and all), the beginning of one that is current, a heartbeat, and a change.

    Pieces are told apart by the pauses between them, so it all begins just behind a heartbeat.
    """
    with _stream(here, port) as scout:
        _piece(scout)
        _piece(scout)
        last_id = _last_id(here, port)
        with _stream(here, port, gzip=gzip) as full, _stream(here, port, last_id, gzip=gzip) as current:
            sizes = {"full": len(_piece(full)), "current": len(_piece(current)), "heartbeat": len(_piece(full))}
            writes.write(1)
            sizes["patch"] = len(_piece(full))
            writes.written()
    return sizes


@contextmanager
def _stream(here: Lab, port: int, last_id: bytes = b"", *, gzip: bool = False) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(here.request(last_id, gzip=gzip))
        yield sock


def _receive(sock: socket.socket, until: bytes) -> bytes:
    data = b""
    while until not in data:
        piece = sock.recv(262_144)
        if not piece:
            sys.exit("the relay has closed a stream")
        data += piece
    return data


def _piece(sock: socket.socket) -> bytes:
    """What comes next, up to a pause."""
    data = sock.recv(262_144)
    more = select.poll()
    more.register(sock, select.POLLIN)
    while more.poll(PAUSE * 1000):
        data += sock.recv(262_144)
    return data


def _last_id(here: Lab, port: int) -> bytes:
    """The event id at which the environment stands."""
    with _stream(here, port) as sock:
        named = re.search(rb"\nid: ([^\n]+)\n", _receive(sock, b"event: put"))
    if not named:
        sys.exit("a stream begins with no event id")
    return named[1]


def _delivered_bytes(port: int) -> int:
    """What a relay says that it has sent to streams."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nhost: scale\r\nconnection: close\r\n\r\n")
        page = b""
        while piece := sock.recv(65536):
            page += piece
    return sum(int(float(value)) for value in re.findall(rb"\nflagrelay_sent_bytes_total\{[^}]*\} (\S+)", page))


# -- Redis ------------------------------------------------------------------------------------------------------------


def _redis(here: Lab, size: int, console: Console) -> Document:
    message = b"x" * size
    fan_out = {}
    with private_redis(port=free_port()) as redis:
        for count in SUBSCRIBERS:
            fan_out[str(count)] = _published(redis, count, message)
            console.log(f"Redis, {count} subscribers: {fan_out[str(count)]}")
    document = {
        "version": _version(here.redis),
        "subscribers": fan_out,
        "replica_hop_ms": _replica_hop(message),
        "cpu_us_per_change": _cost_of_writing(here),
        "cpu_us_per_verification": _cost_of_verifying(here),
    }
    console.log(f"Redis: { ({name: value for name, value in document.items() if name != 'subscribers'}) }")
    return document


def _published(redis: PrivateRedis, count: int, message: bytes) -> Document:
    """Messages to so many subscribers: when the first and the last have each, in milliseconds, and Redis's CPU."""
    with _subscribers(redis.port, count) as subscribers, _connection(redis.port) as publisher:
        for _ in range(5):
            subscribers.publish(publisher, message)
        used = cpu_seconds(redis.pid)
        times = [subscribers.publish(publisher, message) for _ in range(MESSAGES)]
        used = cpu_seconds(redis.pid) - used
    return {
        "first_ms": summary([first for first, _ in times], 4),
        "last_ms": summary([last for _, last in times], 4),
        "cpu_us": round(used * 1e6 / MESSAGES, 2),
    }


def _replica_hop(message: bytes) -> dict[str, float]:
    """How much later a message comes from a replica than from the primary, in milliseconds."""
    with private_redis(port=free_port()) as primary:
        follow = ("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
        with private_redis(*follow, port=free_port()) as replica:
            _until_in_sync(replica)
            with (
                _subscribers(primary.port, 1) as near,
                _subscribers(replica.port, 1) as far,
                _connection(primary.port) as publisher,
            ):
                hops = []
                for _ in range(MESSAGES):
                    began = time.perf_counter()
                    near.publish(publisher, message)
                    far.collect()
                    hops.append((time.perf_counter() - began) * 1000)
                    hops[-1] -= near.publish(publisher, message)[1]
                    far.collect()
    return summary(hops, 4)


def _until_in_sync(replica: PrivateRedis) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with _connection(replica.port) as sock:
            sock.sendall(_command(b"INFO", b"replication"))
            if b"master_link_status:up" in sock.recv(65536):
                return
        time.sleep(0.05)
    sys.exit("the replica is not in sync after 20 s")


def _cost_of_writing(here: Lab) -> float:
    """Redis's CPU for one change that is written, in microseconds."""
    changes = 200
    with writer(here) as writes:
        used = cpu_seconds(here.redis.pid)
        for _ in range(changes):
            writes.write(1)
            writes.written()
        return round((cpu_seconds(here.redis.pid) - used) * 1e6 / changes, 1)


def _cost_of_verifying(here: Lab) -> float:
    """Redis's CPU each time that a relay compares where it stands, in microseconds."""
    seconds = 3.0
    idle = _used_during(here.redis.pid, seconds)
    with relay(here, "--verify-interval", str(VERIFY)) as _:
        time.sleep(0.5)  # what a start asks for is over
        busy = _used_during(here.redis.pid, seconds)
    return round(max(0.0, busy - idle) * 1e6 / (seconds / VERIFY), 1)


def _used_during(pid: int, seconds: float) -> float:
    used = cpu_seconds(pid)
    time.sleep(seconds)
    return cpu_seconds(pid) - used


def _version(redis: PrivateRedis) -> str:
    with _connection(redis.port) as sock:
        sock.sendall(_command(b"INFO", b"server"))
        found = re.search(rb"redis_version:(\S+)", sock.recv(65536))
    return found[1].decode() if found else "unknown"


class _Subscribers:
    """Connections that subscribe to one channel, in one epoll."""

    def __init__(self, port: int, count: int) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            sock.sendall(_command(b"SUBSCRIBE", b"news"))
            sock.recv(4096)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def publish(self, publisher: socket.socket, message: bytes) -> tuple[float, float]:
        """Publish; when the first and when the last have it, in milliseconds."""
        began = time.perf_counter()
        publisher.sendall(_command(b"PUBLISH", b"news", message))
        came = self.collect()
        publisher.recv(4096)
        return (came[0] - began) * 1000, (came[-1] - began) * 1000

    def collect(self) -> list[float]:
        """When each has a message."""
        waiting, came = set(self._sockets), []
        deadline = time.monotonic() + 10
        while waiting:
            if time.monotonic() > deadline:
                sys.exit(f"{len(waiting)} subscribers have no message after 10 s")
            for descriptor, _ in self._epoll.poll(1, 512):
                self._sockets[descriptor].recv(65536)
                came.append(time.perf_counter())
                waiting.discard(descriptor)
        return came

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._epoll.close()


@contextmanager
def _subscribers(port: int, count: int) -> Iterator[_Subscribers]:
    subscribers = _Subscribers(port, count)
    try:
        yield subscribers
    finally:
        subscribers.close()


@contextmanager
def _connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        yield sock


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
