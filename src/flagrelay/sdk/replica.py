"""The flag set that the events of a stream make."""

from typing import Any

import orjson

from flagrelay.errors import StreamError
from flagrelay.flags.bucket import GENERATIONS
from flagrelay.wire.event_id import parse_event_id
from flagrelay.wire.sse import Event


class Replica:
    """Flags, populations and metadata as the relay has them; `id` is what to reconnect with.

    `fractional` is the generation of the operator of that name.
    """

    def __init__(self) -> None:
        self.id = ""
        self.flags: dict[str, Any] = {}
        self.evaluators: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.fractional = GENERATIONS[0]

    def apply(self, event: Event) -> bool:
        """Take an event. Returns whether it is one that says what flags are; others are passed over.

        A `put` replaces everything, whatever is held: a new stream may begin further back, where Redis lost
        changes. That ids only grow within one stream is for who reads the stream to see (`sdk.stream`).

        Raises:
            StreamError: a patch that does not follow what is held (something was lost, or came twice), or data that
                the protocol does not have. What is held stays as it was.
        """
        if event.type not in ("put", "patch"):
            return False
        if event.type == "patch":
            self._check_follows(event.id)
        try:
            data = orjson.loads(event.data)
            flags, evaluators = dict(data["flags"]), dict(data["$evaluators"])
            metadata = dict(data.get("metadata", self.metadata) if event.type == "patch" else data["metadata"])
            fractional = data.get("fractional", self.fractional if event.type == "patch" else GENERATIONS[0])
        except (ValueError, KeyError, TypeError) as error:
            raise StreamError(f"the {event.type} {event.id!r} holds no flag set: {error!r}") from error
        if event.type == "put":
            self.flags, self.evaluators = flags, evaluators
        else:
            _merge(self.flags, flags)
            _merge(self.evaluators, evaluators)
        self.id, self.metadata, self.fractional = event.id, metadata, fractional
        return True

    def _check_follows(self, event_id: str) -> None:
        mine, theirs = parse_event_id(self.id), parse_event_id(event_id)
        # A relay's own kill, and its end, change what a revision shows: the same revision with another mark.
        steps = (0, 1) if mine and theirs and mine.mark != theirs.mark else (1,)
        if not mine or not theirs or theirs.epoch != mine.epoch or theirs.revision - mine.revision not in steps:
            raise StreamError(f"the patch {event_id!r} does not follow {self.id!r}")


def _merge(entries: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, entry in patch.items():
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry
