"""aiohttp in the obvious way: a set of responses, and a loop that awaits a write to each. Prints its address."""

import asyncio
import socket

import uvloop
from aiohttp import web

streams: set[web.StreamResponse] = set()


async def stream(request: web.Request) -> web.StreamResponse:
    """A stream of everything that is published from now on."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    streams.add(response)
    try:
        await asyncio.Event().wait()
    finally:
        streams.discard(response)
    return response


async def publish(request: web.Request) -> web.Response:
    """Write an event to every stream, one after another."""
    event = b"event: patch\ndata: %b\n\n" % await request.read()
    for response in list(streams):
        await response.write(event)
    return web.Response(status=204)


def main() -> None:
    """Serve, on uvloop as the others."""
    app = web.Application()
    app.add_routes([web.get("/stream", stream), web.post("/publish", publish)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        loop = uvloop.new_event_loop()
        web.run_app(app, sock=listener, access_log=None, backlog=4096, loop=loop, print=None, shutdown_timeout=0.5)


if __name__ == "__main__":
    main()
