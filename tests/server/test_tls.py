"""TLS on the relay's own port: streams handed over the same, certificates renewed without an end to anything."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme
from structlog.testing import capture_logs

from flagrelay.errors import SettingError
from flagrelay.sdk.replica import Replica
from flagrelay.sdk.stream import follow
from flagrelay.server import tls as tls_module
from flagrelay.server.tls import Certificate
from flagrelay.settings import Settings
from support.relays import RunningRelay, World, running_relay
from support.sources import until

AUTHORITY = trustme.CA()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of this test's own, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    issued = AUTHORITY.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(key))
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(cert), append=number > 0)
    return cert, key


@pytest.fixture
async def secured(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RunningRelay, Path]]:
    """A relay that serves TLS, and looks at its certificate often."""
    monkeypatch.setattr(tls_module, "LOOK_INTERVAL", 0.02)
    monkeypatch.setattr(Certificate.follow, "__defaults__", (0.02,))
    cert, key = certificate(tmp_path)
    async with running_relay("handover", world, tls_cert=str(cert), tls_key=str(key)) as relay:
        yield relay, cert


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def subject(port: int) -> bytes:
    """The certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert isinstance(found, bytes)
    return found


async def test_a_stream_is_handed_over_and_follows_changes(secured: tuple[RunningRelay, Path]) -> None:
    relay, _ = secured
    secret = await relay.secret()
    connector = aiohttp.TCPConnector(ssl=trusting())
    async with aiohttp.ClientSession(connector=connector) as session:
        replica = Replica()
        events = follow(session, f"https://127.0.0.1:{relay.port}", secret)
        async with contextlib.aclosing(events):
            async for event in events:
                if replica.apply(event) and event.type == "put":
                    assert relay.connections == 0, "nothing is left in uvicorn's hands"
                    await relay.world.tick(5)
                elif event.type == "patch":
                    break
        assert replica.flags["flag"]["metadata"]["n"] == 5
    await relay.streams(0)


async def test_plain_http_on_the_port_of_tls_is_no_stream(secured: tuple[RunningRelay, Path]) -> None:
    relay, _ = secured
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{relay.port}/livez")


async def test_what_is_refused_is_told_within_tls_as_well(secured: tuple[RunningRelay, Path]) -> None:
    relay, _ = secured
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, ssl=trusting())
    writer.write(b"GET / HTTP/1.1\r\nbroken header\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    writer.close()


async def test_a_renewed_certificate_is_used_for_new_connections(secured: tuple[RunningRelay, Path]) -> None:
    relay, cert = secured
    before = await subject(relay.port)
    certificate(cert.parent)
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ssl.SSLError):
                if await subject(relay.port) != before:
                    break
            await asyncio.sleep(0.01)


async def test_a_renewal_that_cannot_be_used_changes_nothing(
    secured: tuple[RunningRelay, Path], tmp_path: Path
) -> None:
    relay, cert = secured
    before = await subject(relay.port)
    with capture_logs() as logs:
        cert.write_text("no certificate")
        await until(lambda: any("cannot be used" in entry["event"] for entry in logs), "it says so")
        assert await subject(relay.port) == before


def test_a_certificate_that_is_none_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be used: No such file or directory"):
        Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    cert, key = certificate(tmp_path)
    key.write_text("no key")
    with pytest.raises(SettingError, match=r"FLAGRELAY_TLS_CERT, FLAGRELAY_TLS_KEY"):
        Certificate(cert, key)


def test_a_certificate_without_its_key_is_no_setting() -> None:
    with pytest.raises(SettingError, match="are set both, or neither"):
        Settings(tls_cert="cert.pem")
