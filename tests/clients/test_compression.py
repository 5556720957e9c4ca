"""Real clients take compressed streams: each event as soon as it is sent, and an end without gzip's trailer."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.store.access_keys import revoke_access_key, stream_token
from flagrelay.store.writing import Draft, write_change
from support.fakes import definition
from support.relays import ENVIRONMENT, KINDS, RunningRelay, World, running_relay

PATIENCE = 20.0
READ_WITH_NODE = """
const [url, key] = process.argv.slice(1);
const response = await fetch(url, { headers: { authorization: `Bearer ${key}` } });
console.log(`${response.status} ${response.headers.get("content-encoding")}`);
for await (const piece of response.body.pipeThrough(new TextDecoderStream())) process.stdout.write(piece);
console.log("the end");
"""
PAGE = """<script>
const tell = (what) => fetch("/told", { method: "POST", body: what });
const source = new EventSource(decodeURIComponent(location.hash.slice(1)));
for (const type of ["put", "patch", "goodbye"]) source.addEventListener(type, (event) => tell(`${type} ${event.data}`));
source.onerror = () => { tell("error"); source.close(); };
</script>"""


@pytest.fixture(params=KINDS)
async def relay(request: pytest.FixtureRequest, world: World) -> AsyncIterator[RunningRelay]:
    await world.put({"flag": definition(0)})
    async with running_relay(request.param, world) as running:
        yield running


async def test_aiohttp_has_each_event_at_once(relay: RunningRelay, world: World) -> None:
    key, secret = await relay.key()
    headers = {"authorization": f"Bearer {secret}"}
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession() as session,
        session.get(f"{relay.url}/v1/stream", headers=headers) as response,
    ):
        assert response.headers["content-encoding"] == "gzip"
        await seen(response.content, b"event: put")
        for round_ in range(3):
            await world.put({"flag": definition(round_ + 1)})
            await seen(response.content, b"event: patch")
        await revoke_access_key(world.store, key.id)
        rest = await response.content.read()
        assert b'{"reason":"revoked"}' in rest


async def seen(content: aiohttp.StreamReader | asyncio.StreamReader, wanted: bytes) -> None:
    while wanted not in await content.readline():
        pass


@pytest.mark.parametrize(
    ("program", "arguments", "begins"),
    [
        ("curl", ("-sS", "-N", "--compressed", "-H", "Authorization: Bearer {key}", "{url}"), b""),
        ("node", ("--input-type=module", "-e", READ_WITH_NODE, "{url}", "{key}"), b"200 gzip"),
    ],
)
async def test_programs_have_each_event_at_once_and_take_the_end_for_an_end(
    relay: RunningRelay, world: World, program: str, arguments: tuple[str, ...], begins: bytes
) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed: nothing is known of how it takes compressed streams")
    key, secret = await relay.key()
    filled = [
        each if each is READ_WITH_NODE else each.format(url=f"{relay.url}/v1/stream", key=secret) for each in arguments
    ]
    process = await asyncio.create_subprocess_exec(program, *filled, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE):
            assert process.stdout
            if begins:
                assert begins in await process.stdout.readline()
            await seen(process.stdout, b"event: put")
            for round_ in range(3):
                await world.put({"flag": definition(round_ + 1)})
                await seen(process.stdout, b"event: patch")
            await revoke_access_key(world.store, key.id)
            assert b'{"reason":"revoked"}' in await process.stdout.read()
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_browser_has_each_event_at_once(world: World, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium is installed: nothing is known of how its EventSource takes compressed streams")
    told: asyncio.Queue[str] = asyncio.Queue()
    await world.put({"flag": definition(0)})
    await write_change(world.store, ENVIRONMENT, Draft(settings=EnvironmentSettings(origins=("*",))))
    async with running_relay("handover", world) as relay, page(told) as address:
        key, _ = await relay.key("client")
        stream = f"{relay.url}/v1/evaluations/stream?token={stream_token(key)}"
        process = await asyncio.create_subprocess_exec(
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}"),
            f"{address}/#{quote(stream, safe='')}",
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                assert (await told.get()).startswith("put ")
                for round_ in range(3):
                    await world.put({"flag": definition(round_ + 1)})
                    assert (await told.get()).startswith("patch ")
                await revoke_access_key(world.store, key.id)
                assert json.loads((await told.get()).removeprefix("goodbye ")) == {"reason": "revoked"}
        finally:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def page(told: asyncio.Queue[str]) -> AsyncIterator[str]:
    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def hear(request: web.Request) -> web.Response:
        await told.put(await request.text())
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", show), web.post("/told", hear)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
