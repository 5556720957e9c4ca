"""How a load test reads a stream, and what it finds wrong with one."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import load_stream
import pytest
import trustme
from load_stream import Arrival, Broken, Order, Stream, Target, Wire

from flagrelay.wire.sse import Event
from support.relays import RunningRelay, World, running_relay


class Reading:
    """A stream that is read in threads, since its reads block."""

    def __init__(self, target: Target, last_event_id: str = "") -> None:
        self._wire = Wire(target)
        self._wire.send(target.request(last_event_id))
        self.stream = Stream(self._wire)
        self._arrivals = self.stream.arrivals()

    @classmethod
    async def of(cls, relay: RunningRelay, *, secret: str = "", url: str = "", verify: bool = True) -> "Reading":
        headers = {"authorization": f"Bearer {secret or await relay.secret()}", "accept-encoding": "gzip"}
        return await asyncio.to_thread(cls, Target((url or relay.url) + "/v1/stream", headers, verify=verify))

    async def next(self, *types: str) -> Arrival:
        """The next event, heartbeats aside."""
        while (arrival := await asyncio.to_thread(next, self._arrivals)).event.type == "heartbeat":
            pass
        assert arrival.event.type in types
        return arrival

    async def end(self) -> list[Arrival]:
        return await asyncio.to_thread(list, self._arrivals)

    def close(self) -> None:
        self._wire.__exit__()


async def test_events_come_with_the_time_of_their_arrival_and_not_of_their_reading(world: World) -> None:
    async with running_relay("handover", world) as relay:
        with closing(await Reading.of(relay)) as reading:
            put = await reading.next("put")
            before = time.time()
            await world.tick(1)
            await relay.at(4)
            after = time.time()
            await asyncio.sleep(0.3)  # nobody reads meanwhile, and the arrival is no later for that
            patch = await reading.next("patch")
    assert put.event.id.endswith(".3")
    assert patch.event.id.endswith(".4")
    assert patch.size > 0
    assert before <= patch.at
    if load_stream.SO_TIMESTAMPNS is not None:
        assert patch.at < after + 0.2


async def test_a_goodbye_ends_the_stream_in_order_and_says_when_to_come_back(world: World) -> None:
    async with running_relay("handover", world) as relay:
        reading = await Reading.of(relay)
        await reading.next("put")
        assert relay.server
        relay.server.should_exit = True
        with closing(reading):
            await reading.next("goodbye")
            assert await reading.end() == []
            assert reading.stream.retry is not None


async def test_a_refusal_says_why_and_whether_to_try_again(world: World) -> None:
    async with running_relay("handover", world) as relay:
        with closing(await Reading.of(relay, secret="nobody's")) as reading:
            with pytest.raises(Broken, match=r"401.*UNAUTHORIZED") as refused:
                await reading.next("put")
            assert refused.value.final


async def test_a_stream_is_read_over_tls_where_its_certificate_is_trusted_or_not_looked_at(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    async with running_relay("handover", world, tls_cert=str(cert), tls_key=str(key)) as relay:
        url = f"https://127.0.0.1:{relay.port}"
        with pytest.raises(ssl.SSLCertVerificationError):
            await Reading.of(relay, url=url)
        with closing(await Reading.of(relay, url=url, verify=False)) as reading:
            await reading.next("put")
            await world.tick(1)
            await reading.next("patch")


@pytest.mark.parametrize(
    ("ids", "holes", "problem"),
    [
        (["put e.3", "patch e.4", "patch e.5"], False, ""),
        (["put e.3", "patch e.5"], False, "revision skipped"),
        (["put e.3", "patch e.5"], True, ""),
        (["put e.3", "patch e.4", "patch e.4"], False, "revision repeated"),
        (["put e.3", "patch e.4", "patch e.4"], True, "revision repeated"),
        (["put e.3", "patch e.3~a1", "patch e.3"], False, ""),
        (["put e.3", "patch e.4", "put e.9", "patch e.10"], False, ""),
        (["put e.3", "put e.2"], False, "revision went back"),
        (["put e.3", "put f.1", "patch f.2"], False, ""),
        (["put e.3", "patch f.1"], False, "another history began without a put"),
        (["put e"], False, "a put without a valid id"),
    ],
)
def test_events_out_of_order_are_found(ids: list[str], *, holes: bool, problem: str) -> None:
    order = Order(holes=holes)
    assert list(_problems(order, ids)) == ["" for _ in ids[:-1]] + [problem]


def _problems(order: Order, ids: list[str]) -> Iterator[str]:
    for each in ids:
        kind, _, event_id = each.partition(" ")
        yield order.problem(Event(kind, "", event_id))
