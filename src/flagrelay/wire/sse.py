"""The other direction: an incremental parser of `text/event-stream`, as the WHATWG's HTML standard has it."""

from dataclasses import dataclass

from flagrelay.errors import MessageError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type, its data, and the stream's last event id at that point ("" for none)."""

    type: str
    data: str
    id: str
    retry: int | None = None


class EventParser:
    """Bytes in any pieces go in, events come out.

    Args:
        max_event_bytes: the most that an event, or a line, may hold before it is complete.
    """

    def __init__(self, max_event_bytes: int = 64 * 1024 * 1024) -> None:
        self.last_event_id = ""
        """The id to reconnect with."""
        self.retry: int | None = None
        """The reconnection time that the stream asked for last, in milliseconds."""
        self._most = max_event_bytes
        self._rest = b""
        self._started = False
        self._type = ""
        self._data: list[str] = []
        self._size = 0
        self._id: str | None = None
        self._event_retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now.

        Raises:
            MessageError: an event is larger than allowed.
        """
        buffered = self._rest + data
        if not self._started:
            if len(buffered) < len(BOM) and BOM.startswith(buffered):
                self._rest = buffered
                return []
            self._started = True
            buffered = buffered.removeprefix(BOM)
        events = []
        lines, self._rest = _split(buffered)
        for line in lines:
            event = self._line(line)
            if event:
                events.append(event)
        if len(self._rest) + self._size > self._most:
            raise MessageError(f"an event of more than {self._most} bytes")
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode(errors="replace")
        match name:
            case b"data":
                self._data.append(text)
                self._size += len(line)
            case b"event":
                self._type = text
            case b"id" if "\0" not in text:
                self._id = text
            case b"retry" if value.removeprefix(b" ").isdigit():
                self.retry = self._event_retry = int(text)
        return None

    def _dispatch(self) -> Event | None:
        if self._id is not None:
            self.last_event_id = self._id
        event = None
        if self._data:
            event = Event(self._type or "message", "\n".join(self._data), self.last_event_id, self._event_retry)
        self._type, self._data, self._size, self._event_retry = "", [], 0, None
        return event


def _split(buffered: bytes) -> tuple[list[bytes], bytes]:
    """The complete lines, and what is left. A CR at the end waits: an LF may follow."""
    held_back = b""
    if buffered.endswith(b"\r"):
        buffered, held_back = buffered[:-1], b"\r"
    *lines, rest = buffered.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return lines, rest + held_back
