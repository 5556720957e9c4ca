"""What people write first: Starlette and sse-starlette, with a queue for each stream. Prints its address."""

import asyncio
import socket
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue[ServerSentEvent]] = set()


async def stream(_request: Request) -> Response:
    """A stream of everything that is published from now on."""

    async def events() -> AsyncIterator[ServerSentEvent]:
        queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(events(), ping=3600)


async def publish(request: Request) -> Response:
    """Give an event to every stream."""
    event = ServerSentEvent((await request.body()).decode(), event="patch")
    for queue in queues:
        queue.put_nowait(event)
    return Response(status_code=204)


def main() -> None:
    """Serve, as uvicorn does it fastest: uvloop, httptools, no access log."""
    app = Starlette(routes=[Route("/stream", stream), Route("/publish", publish, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", access_log=False, log_level="warning", backlog=4096
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
