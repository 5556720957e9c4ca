"""How a supervisor and a worker speak: over a socket pair, asked and answered, one JSON document a line.

    {"ask": 7, "what": "report", "of": "status"}
    {"answer": 7, "gives": {…}}            or  {"answer": 7, "error": "why not"}

Either end asks. No question waits longer than its limit, whatever the other end does; an answer that comes later is
dropped, and a question that nobody waits for any more is still done when it is read. Both ends are the same code, so
nothing says which version this is.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import orjson
import structlog

from flagrelay.errors import FlagrelayError, NoAnswer

LONGEST = 64 * 1024 * 1024
"""Bytes of a line; the metrics of all workers for thousands of environments are some."""

MOST_UNREAD = 1024 * 1024
"""Bytes that wait for an end which does not read, before it is asked nothing more."""

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""What answers a question, from its members."""

log = structlog.get_logger()


class Channel:
    """One end.

    Args:
        reader: what the other end says.
        writer: what we say.
        handlers: what answers each question.
        on_lost: told when the other end is gone, before anybody else notices.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler],
        on_lost: Callable[[], None],
    ) -> None:
        self.closed = asyncio.Event()
        """The other end is gone, or we have closed."""
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._on_lost = on_lost
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self._answering: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, end: socket.socket, handlers: Mapping[str, Handler], on_lost: Callable[[], None] = lambda: None
    ) -> Self:
        """Speak over one end of a socket pair, which is the channel's from now on."""
        end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=LONGEST)
        return cls(reader, writer, handlers, on_lost)

    async def ask(self, what: str, /, *, within: float, **members: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Ask the other end.

        Args:
            what: the question.
            within: seconds that it may take.
            members: what the question is about.

        Raises:
            NoAnswer: the other end says no, says nothing in time, or is gone.
        """
        if self._gone:
            raise NoAnswer("it is gone")
        if self._writer.transport.get_write_buffer_size() > MOST_UNREAD:
            raise NoAnswer("it does not read what it is asked")
        self._asked += 1
        number = self._asked
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(_line({"ask": number, "what": what, **members}))
            async with asyncio.timeout(within):
                gives: dict[str, Any] = await answer
                return gives
        except TimeoutError:
            raise NoAnswer(f"it does not answer within {within:g} s") from None
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        """Say nothing more, and hear nothing more."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def _gone(self) -> bool:
        """Whether nothing can be said any more.

        From the moment that a connection is lost, some turns before whoever reads hears of it, uvloop refuses to write
        to it, with a RuntimeError.
        """
        return self.closed.is_set() or self._writer.is_closing()

    async def _read(self) -> None:
        try:
            await self._hear()
            self._on_lost()
        finally:
            self.closed.set()
            self._writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(NoAnswer("it is gone"))
            for task in self._answering:
                task.cancel()

    async def _hear(self) -> None:
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                self._take(orjson.loads(line))
        except ConnectionError:  # the end, as well
            with suppress(ConnectionError):
                await self._writer.wait_closed()  # else asyncio says, with a traceback, that nobody heard of it
        except (ValueError, KeyError, TypeError):
            log.exception("what came over the control channel is none of ours")

    def _take(self, message: dict[str, Any]) -> None:
        if "ask" in message:
            task = asyncio.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        waiting = self._waiting.get(message["answer"])
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(NoAnswer(message["error"]))
        else:
            waiting.set_result(message["gives"])

    async def _answer(self, message: dict[str, Any]) -> None:
        number = message["ask"]
        try:
            line = _line({"answer": number, "gives": await self._handlers[message["what"]](message)})
        except FlagrelayError as error:
            line = _line({"answer": number, "error": str(error)})
        except Exception as error:
            log.exception("a question cannot be answered", what=message.get("what"))
            line = _line({"answer": number, "error": f"it fails: {error!r}"})
        if not self._gone:
            self._writer.write(line)


def tell(end: socket.socket, what: str, /, **members: Any) -> None:  # noqa: ANN401 - JSON
    """Say something before there is an event loop, or after it; no answer is waited for."""
    end.sendall(_line({"ask": 0, "what": what, **members}))


def hear(end: socket.socket) -> dict[str, Any] | None:
    """Wait for what the other end `tell`s, which must be all that it says; None where it is gone."""
    line = b""
    while not line.endswith(b"\n"):
        more = end.recv(65536)
        if not more:
            return None
        line += more
    message: dict[str, Any] = orjson.loads(line)
    return message


def _line(message: dict[str, Any]) -> bytes:
    line = orjson.dumps(message) + b"\n"
    if len(line) > LONGEST:
        raise NoAnswer(f"it would take {len(line)} bytes to say, and {LONGEST} are the most")
    return line
