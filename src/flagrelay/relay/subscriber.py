"""One open stream, the relay's side of it."""

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from flagrelay.wire.frame import Framing

if TYPE_CHECKING:  # the two know each other; only one can import the other
    from flagrelay.relay.evaluations import View
    from flagrelay.relay.hub import Hub

GONE = sys.maxsize
"""The position of a stream that wants nothing more: no head is ever ahead of it."""


class StreamTransport(Protocol):
    """What a subscriber writes to: an asyncio transport, or what stands in for one under another server."""

    def write(self, data: bytes) -> None:
        """Send, or buffer and call the subscriber's `pause_writing` above the high-water mark."""

    def get_write_buffer_size(self) -> int:
        """How many bytes it holds that are not sent."""

    def close(self) -> None:
        """Flush what is buffered, then close."""

    def abort(self) -> None:
        """Close at once."""


class Subscriber(asyncio.Protocol):
    """A transport, and the position that it has.

    It is the connection's asyncio protocol itself, so that an idle stream costs one small object: on a
    connection that was handed over nothing else of the request remains.

    Args:
        hub: where it belongs.
        transport: where its bytes go.
        framing: which bytes of a frame it takes.
        key_id: the id of the access key that opened it.
        address: the IP address that it was opened from; empty where that is unknown.
        ends_at: when its lifetime is over, in the event loop's time.
        view: the evaluation context that it is evaluated for; None for one that gets definitions.
    """

    __slots__ = ("address", "ends_at", "framing", "hub", "key_id", "paused_at", "position", "transport", "view")

    def __init__(
        self,
        hub: "Hub",
        transport: StreamTransport,
        *,
        framing: Framing,
        key_id: str,
        address: str = "",
        ends_at: float,
        view: "View | None" = None,
    ) -> None:
        self.hub = hub
        self.transport = transport
        self.framing = framing
        self.key_id = key_id
        self.address = sys.intern(address)
        self.ends_at = ends_at
        self.view = view
        self.position = GONE
        self.paused_at = 0.0

    @property
    def unsent(self) -> bool:
        """Whether there is something for it that is not with the kernel yet."""
        return self.position != GONE and (self.paused_at > 0 or self.transport.get_write_buffer_size() > 0)

    def pause_writing(self) -> None:
        """The transport holds enough: the pump passes by until it has drained."""
        self.hub.lag(self)

    def resume_writing(self) -> None:
        """The transport has drained: write what was missed, in one piece."""
        self.hub.catch_up(self)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        """A stream is the last thing on its connection; whoever sends more has lost track of the protocol."""
        self.hub.drop(self, "garbage")

    def eof_received(self) -> None:
        """Half-closed is closed: asyncio closes the transport when this returns nothing."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is no more, whoever ended it."""
        self.hub.leave(self, "gone")
