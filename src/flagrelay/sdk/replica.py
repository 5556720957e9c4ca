"""The flag set that the events of a stream make."""

from typing import Any

import orjson

from flagrelay.errors import StreamError
from flagrelay.wire.event_id import parse_event_id
from flagrelay.wire.sse import Event


class Replica:
    """Flags, populations and metadata as the relay has them; `id` is what to reconnect with."""

    def __init__(self) -> None:
        self.id = ""
        self.flags: dict[str, Any] = {}
        self.evaluators: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}

    def apply(self, event: Event) -> bool:
        """Take an event. Returns whether it changed anything.

        Raises:
            StreamError: a patch that does not follow what is held: something was lost, or came twice.
        """
        if event.type == "put":
            data = orjson.loads(event.data)
            self.flags, self.evaluators, self.metadata = data["flags"], data["$evaluators"], data["metadata"]
        elif event.type == "patch":
            self._check(event.id)
            data = orjson.loads(event.data)
            _merge(self.flags, data["flags"])
            _merge(self.evaluators, data["$evaluators"])
            self.metadata = data.get("metadata", self.metadata)
        else:
            return False
        self.id = event.id
        return True

    def _check(self, event_id: str) -> None:
        mine, theirs = parse_event_id(self.id), parse_event_id(event_id)
        if not mine or not theirs or theirs != (mine[0], mine[1] + 1):
            raise StreamError(f"the patch {event_id!r} does not follow {self.id!r}")


def _merge(entries: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, entry in patch.items():
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry
