"""The OFREP provider for browsers, as it is published on npm, under Node: what it makes of our answers and events.

What runs is node/provider.mjs; its packages are installed beside it when they are not there yet.
"""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from flagrelay.store.writing import kill_flag
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay
from support.sources import until
from support.streams import PATIENCE

FOLDER = Path(__file__).parent / "node"
LOCK = FOLDER / "package-lock.json"
INSTALLED = FOLDER / "node_modules" / ".package-lock.json"

EVALUATE = "/ofrep/v1/evaluate/flags"

ADA = {"targetingKey": "ada", "email": "ada@example.com"}
EVE = {"targetingKey": "eve", "email": "eve@example.org"}


def flag(variants: dict[str, Any], default: str | None = "it", **more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": variants, "defaultVariant": default, **more}


FLAGS: dict[str, dict[str, Any]] = {
    "boolean": flag({"it": True}),
    "string": flag({"it": "text é"}),
    "integer": flag({"it": 7}),
    "float": flag({"it": 0.5, "one": 1}, metadata={"owner": "ada"}),
    "object": flag({"it": {"a": [1, None, {"b": 0.5}]}}),
    "disabled": flag({"it": True}, state="DISABLED"),
    "null default": flag({"it": True}, None),
    "team/checkout é": flag({"it": True}),
    "beta": flag({"on": True, "off": False}, "off", targeting={"if": [{"$ref": "beta"}, "on"]}),
    "no such variant": flag({"on": True, "off": False}, "off", targeting={"if": [True, "elsewhere"]}),
    "hidden": flag({"it": True}, metadata={"serverOnly": True}),
}


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the packages installed."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if not program or not npm:
        pytest.skip(f"{'npm' if program else 'node'} is not installed: the OFREP web provider is not tested")
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
    return program


DEFAULTS: dict[str, Any] = {"boolean": False, "string": "default", "number": -1, "object": {"the": "default"}}


class WebProvider:
    """The provider in a process of its own, and every line that it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = process

    async def heard(self, what: str, **wanted: Any) -> dict[str, Any]:
        """The next line about something, which holds what is wanted; others before it are passed over."""
        assert self._process.stdout
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while data := await self._process.stdout.readline():
                    line: dict[str, Any] = json.loads(data)
                    self.lines.append(line)
                    if line["what"] == what and wanted.items() <= line.items():
                        return line
        pytest.fail(f"it said no {what} with {wanted}; it said {self.lines}")

    def said(self, what: str) -> list[dict[str, Any]]:
        """What it has said about something, as far as it was heard."""
        return [line for line in self.lines if line["what"] == what]

    def order(self, command: str, **options: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"command": command, **options}).encode() + b"\n")

    async def details(self, kind: str, key: str, otherwise: Any = None) -> dict[str, Any]:
        """What a flag says to it."""
        self.order("get", type=kind, key=key, otherwise=DEFAULTS[kind] if otherwise is None else otherwise)
        return await self.heard("details", flagKey=key)


@contextlib.asynccontextmanager
async def web_provider(
    node: str, url: str, secret: str, context: dict[str, Any] | None = None
) -> AsyncIterator[WebProvider]:
    """A running provider, which must end in order when its input does."""
    pipe = asyncio.subprocess.PIPE
    arguments = (url, secret, json.dumps(context or ADA))
    process = await asyncio.create_subprocess_exec(
        node, "provider.mjs", *arguments, cwd=FOLDER, stdin=pipe, stdout=pipe
    )
    try:
        yield WebProvider(process)
        assert process.stdin
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


class Proxy:
    """A port in front of a relay's, at which event streams can be cut, and refused, while all else passes."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.refusing = False
        self.refused = 0
        self._relay_port = port
        self._streams: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Every event stream breaks."""
        for writer in self._streams:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._relay_port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(reader, far_writer, writer))
                tasks.create_task(_carry(far_reader, writer))
        finally:
            writer.transport.abort()
            far_writer.transport.abort()
            self._streams.discard(writer)
            self._connections.discard(task)

    async def _requests(
        self, reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                # A connection that has carried other requests may become a stream.
                if data.startswith(b"GET /ofrep/v1/events"):
                    if self.refusing:
                        self.refused += 1
                        writer.transport.abort()
                        break
                    self._streams.add(writer)
                far_writer.write(data)
                await far_writer.drain()
        far_writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def proxied(world: World) -> AsyncIterator[tuple[RunningRelay, Proxy]]:
    """A relay with the flags, and a proxy in front of it; broken streams are taken up again soon."""
    async with (
        running_relay("handover", world, refetch_spread=0.0, retry=0.05) as relay,
        Proxy(relay.port) as proxy,
    ):
        await relay.at((await world.put(FLAGS)).revision)
        yield relay, proxy


@pytest.fixture
async def provider(node: str, relay: RunningRelay, world: World) -> AsyncIterator[WebProvider]:
    """A provider for Ada that has the flags and an open event stream, and has asked again because of that."""
    await relay.at((await world.put(FLAGS)).revision)
    async with web_provider(node, relay.url, await relay.secret("client")) as started:
        await started.heard("ready")
        await started.heard("fetch", status=304)
        yield started


# -- how it begins ----------------------------------------------------------------------------------------------


async def test_it_asks_once_for_the_values_and_once_more_when_its_stream_opens(
    provider: WebProvider, relay: RunningRelay
) -> None:
    first, second = provider.said("fetch")
    assert (first["path"], first["status"], first["ifNoneMatch"], first["flagConfigEtag"]) == (
        EVALUATE,
        200,
        None,
        None,
    )
    # It knows that this is the configuration which it has: no body comes twice.
    assert (second["path"], second["status"], second["ifNoneMatch"]) == (EVALUATE, 304, first["etag"])
    assert second["flagConfigEtag"] == await relay.world.event_id()
    await provider.details("boolean", "boolean")
    assert not provider.said("changed")
    await relay.streams(1)


async def test_a_key_that_the_relay_does_not_know_is_a_fatal_error(node: str, relay: RunningRelay) -> None:
    async with web_provider(node, relay.url, "fr_nobody") as refused:
        await refused.heard("fetch", status=401)
        await refused.heard("error")
        details = await refused.details("boolean", "flag", otherwise=True)
        assert (details["value"], details["errorCode"]) == (True, "PROVIDER_FATAL")


# -- values -----------------------------------------------------------------------------------------------------


async def test_every_type_arrives(provider: WebProvider) -> None:
    for kind, key, value in (
        ("boolean", "boolean", True),
        ("string", "string", "text é"),
        ("number", "integer", 7),
        ("number", "float", 0.5),
        ("object", "object", {"a": [1, None, {"b": 0.5}]}),
        ("boolean", "team/checkout é", True),
    ):
        details = await provider.details(kind, key)
        assert (details["value"], details["variant"], details["reason"]) == (value, "it", "STATIC"), key
        assert "errorCode" not in details
    details = await provider.details("number", "float")
    assert details["flagMetadata"] == {"team": "checkout", "owner": "ada"}


async def test_without_a_value_the_callers_default_is_one(provider: WebProvider) -> None:
    for key, reason in (("disabled", "DISABLED"), ("null default", "UNKNOWN")):
        for kind, default in DEFAULTS.items():
            details = await provider.details(kind, key)
            assert (details["value"], details["reason"]) == (default, reason)
            assert "errorCode" not in details


async def test_errors_are_openfeatures_and_give_the_default(provider: WebProvider) -> None:
    for kind, key, code in (
        ("boolean", "nowhere", "FLAG_NOT_FOUND"),
        ("boolean", "hidden", "FLAG_NOT_FOUND"),
        ("boolean", "string", "TYPE_MISMATCH"),
        ("boolean", "no such variant", "GENERAL"),
    ):
        details = await provider.details(kind, key, otherwise=True)
        assert (details["value"], details["reason"], details["errorCode"]) == (True, "ERROR", code), key


async def test_another_context_gets_values_of_its_own(provider: WebProvider) -> None:
    assert (await provider.details("boolean", "beta"))["value"] is True
    provider.order("context", context=EVE)
    await provider.heard("fetch", status=200)
    await provider.heard("context")
    details = await provider.details("boolean", "beta")
    assert (details["value"], details["variant"], details["reason"]) == (False, "off", "UNKNOWN")


# -- changes ----------------------------------------------------------------------------------------------------


async def test_it_follows_a_change_through_the_event_stream(provider: WebProvider, world: World) -> None:
    await world.put({"integer": flag({"it": 8}), "new": flag({"it": "new"}), "string": None})
    changed = await provider.heard("changed")
    assert sorted(changed["flagsChanged"]) == ["integer", "new", "string"]
    assert (await provider.details("number", "integer"))["value"] == 8
    assert (await provider.details("string", "new"))["value"] == "new"
    assert (await provider.details("string", "string"))["errorCode"] == "FLAG_NOT_FOUND"


async def test_it_follows_a_kill(provider: WebProvider, world: World) -> None:
    assert (await provider.details("boolean", "boolean"))["value"] is True
    await kill_flag(world.store, ENVIRONMENT, "boolean")
    assert (await provider.heard("changed"))["flagsChanged"] == ["boolean"]
    details = await provider.details("boolean", "boolean")
    assert (details["value"], details["reason"]) == (False, "DISABLED")


async def test_a_change_that_is_none_for_its_context_is_not_sent_to_it(provider: WebProvider, world: World) -> None:
    before = provider.said("fetch")[-1]
    await world.put({"beta": FLAGS["beta"] | {"targeting": {"if": [{"==": [{"var": "targetingKey"}, "ada"]}, "on"]}}})
    after = await provider.heard("fetch")
    assert (after["status"], after["ifNoneMatch"]) == (304, before["ifNoneMatch"])
    assert after["flagConfigEtag"] == await world.event_id() != before["flagConfigEtag"]
    await provider.details("boolean", "beta")
    assert not provider.said("changed")


# -- streams that break -----------------------------------------------------------------------------------------


async def test_a_change_during_a_dropped_stream_is_there_once_it_is_back(node: str, world: World) -> None:
    async with (
        proxied(world) as (relay, proxy),
        web_provider(node, f"http://127.0.0.1:{proxy.port}", await relay.secret("client")) as provider,
    ):
        await provider.heard("ready")
        await provider.heard("fetch", status=304)
        proxy.refusing = True
        proxy.cut()
        await provider.heard("stale")
        await relay.streams(0)
        await world.put({"integer": flag({"it": 8})})
        await relay.at((await kill_flag(world.store, ENVIRONMENT, "boolean")).revision)
        await until(lambda: proxy.refused > 1, "it tries to have its stream back")
        assert (await provider.details("number", "integer"))["value"] == 7, "nothing has told it"
        asked = len(provider.said("fetch"))
        proxy.refusing = False
        changed = await provider.heard("changed")
        assert sorted(changed["flagsChanged"]) == ["boolean", "integer"]
        assert (await provider.details("number", "integer"))["value"] == 8
        assert (await provider.details("boolean", "boolean"))["reason"] == "DISABLED"
        assert [line["status"] for line in provider.said("fetch")[asked:]] == [200], "asked because it was told to"
        await relay.streams(1)


async def test_a_stream_that_is_back_without_having_missed_anything_asks_nothing(node: str, world: World) -> None:
    async with (
        proxied(world) as (relay, proxy),
        web_provider(node, f"http://127.0.0.1:{proxy.port}", await relay.secret("client")) as provider,
    ):
        await provider.heard("ready")
        await provider.heard("fetch", status=304)
        proxy.cut()
        await provider.heard("stale")
        await until(lambda: relay.pipeline.stats.closed.total() == 1, "the relay has lost the first stream")
        await relay.streams(1)
        await world.put({"integer": flag({"it": 8})})
        await provider.heard("changed", flagsChanged=["integer"])
        assert [line["status"] for line in provider.said("fetch")] == [200, 304, 200]


async def test_a_stream_that_the_relay_ends_in_order_is_taken_up_again(node: str, world: World) -> None:
    async with (
        running_relay("handover", world, refetch_spread=0.0, retry=0.05, stream_lifetime=0.3) as relay,
        web_provider(node, relay.url, await relay.secret("client")) as provider,
    ):
        await provider.heard("ready")
        await until(lambda: relay.pipeline.stats.closed["lifetime"] > 1, "two streams have lived their time")
        await world.put({"integer": flag({"it": 8})})
        await provider.heard("changed", flagsChanged=["integer"])
        assert (await provider.details("number", "integer"))["value"] == 8
