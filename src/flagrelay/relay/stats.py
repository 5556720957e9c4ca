"""What happened in one environment, counted; whoever exports it reads it."""

from collections import Counter
from dataclasses import dataclass, field

from flagrelay.flags.position import Position


@dataclass(slots=True)
class Stats:
    """Counts since the process started."""

    opened: int = 0
    """Streams opened."""
    resumed: Counter[str] = field(default_factory=Counter)
    """Streams opened, by how: `full`, `delta`, `current`."""
    closed: Counter[str] = field(default_factory=Counter)
    """Streams closed, by reason."""
    evaluations: Counter[str] = field(default_factory=Counter)
    """OFREP evaluations answered, by kind: `single`, `bulk`, `bulk not modified`."""
    sent_bytes: int = 0
    """Bytes given to transports, framing included, response heads not."""
    changes: int = 0
    """Changes applied."""
    gaps: int = 0
    """Times that changes were missing and read from the changelog."""
    reloads: Counter[str] = field(default_factory=Counter)
    """Whole reads, by reason: `start`, `trimmed`, `epoch`, `fork`."""
    bad_messages: int = 0
    """Messages on the channel that could not be read, or told of what Redis knows nothing of."""
    histories_lost: int = 0
    """Times that Redis had lost changes which it had acknowledged."""
    last_change: tuple[int, int] | None = None
    """Revision and time (Redis's, µs) of the last change applied."""
    reports: Counter[str] = field(default_factory=Counter)
    """Reports to Redis of what streams have, by what came of it: `ok`, `failed`."""
    connection_losses: int = 0
    """Times that the connection to Redis, or what it held for us, was lost."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one change reached the streams that were open; times in seconds since 1970, this machine's clock.

    `position` is where the change leads to, and `at` its time in Redis, in microseconds; 0 where it is a whole state
    that was loaded. `first` and `last` are when its bytes were handed to the first and to the last stream's transport.
    """

    position: Position
    at: int
    first: float
    last: float
    streams: int
