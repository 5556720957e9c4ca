"""The folder in which a relay keeps what it needs for a start without Redis."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from time import time
from typing import TypeVar

import structlog

from flagrelay.disk.documents import (
    SavedSnapshot,
    decode_keys,
    decode_kills,
    decode_snapshot,
    encode_keys,
    encode_kills,
    encode_snapshot,
)
from flagrelay.disk.state_file import LEFTOVER, read_state, set_aside, write_state
from flagrelay.errors import DefinitionError, StateDamaged, StateError
from flagrelay.flags.definition import check_environment_name
from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.access_keys import KeysSnapshot

Saved = TypeVar("Saved")

LEFT_BEHIND = 600.0
"""Seconds after which nobody is still writing a file: another relay may be ending in the same folder."""

log = structlog.get_logger()


class StateDir:
    """A folder, and which of its files holds what. Every method blocks, and belongs in a thread of its own.

    What cannot be read is no reason not to start: it is logged, set aside where it is damaged or foreign, and
    counts as not there.

    Args:
        folder: where; made where it is missing.
        prefix: what the relay's keys in Redis begin with: files of another are somebody else's.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.failing: dict[str, str] = {}
        """Files that could not be written when it was last tried, and why."""
        self.written_at: dict[str, float] = {}
        """When each file was last written by this process, in seconds since 1970."""
        self._prefix = prefix

    def as_json(self) -> dict[str, object]:
        """How it stands, for people: when each file was last written, and what could not be."""
        return {"written_at": self.written_at, "failing": self.failing}

    def sweep(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for path in self.folder.glob(f".*{LEFTOVER}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time() - LEFT_BEHIND:
                    path.unlink()

    def environments(self) -> list[str]:
        """The environments of which something is kept."""
        names = []
        for path in sorted(self.folder.glob("*.snapshot")):
            try:
                names.append(check_environment_name(path.stem))
            except DefinitionError:
                continue
        return names

    def read_snapshot(self, environment: str) -> SavedSnapshot | None:
        """The last snapshot of an environment that was kept."""
        owner = self._owner(environment)
        return self._read(f"{environment}.snapshot", "snapshot", lambda body: decode_snapshot(owner, body))

    def write_snapshot(self, environment: str, snapshot: Snapshot, confirmed: float) -> None:
        """Keep a snapshot.

        Raises:
            StateError: it cannot be written; the last one is still there.
        """
        owner = self._owner(environment)
        self._write(f"{environment}.snapshot", "snapshot", lambda: encode_snapshot(owner, snapshot, confirmed))

    def read_keys(self) -> KeysSnapshot | None:
        """The access keys that were kept."""
        return self._read("access.keys", "keys", lambda body: decode_keys(self._owner(), body))

    def write_keys(self, keys: KeysSnapshot) -> None:
        """Keep the access keys.

        Raises:
            StateError: they cannot be written; the last ones are still there.
        """
        self._write("access.keys", "keys", lambda: encode_keys(self._owner(), keys))

    def read_kills(self, environment: str) -> dict[str, LocalKill]:
        """The local kills of an environment, by flag key."""
        owner = self._owner(environment)
        return self._read(f"{environment}.kills", "kills", lambda body: decode_kills(owner, body)) or {}

    def write_kills(self, environment: str, kills: Iterable[LocalKill]) -> None:
        """Keep local kills.

        Raises:
            StateError: they cannot be written; the last ones are still there.
        """
        self._write(f"{environment}.kills", "kills", lambda: encode_kills(self._owner(environment), kills))

    def _owner(self, environment: str = "") -> dict[str, str]:
        return {"prefix": self._prefix, "environment": environment}

    def _write(self, name: str, kind: str, encode: Callable[[], bytes]) -> None:
        try:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StateError(f"{self.folder} cannot be made: {error.strerror or error}") from error
            write_state(self.folder / name, kind, encode())
        except StateError as error:
            if name not in self.failing:
                log.warning("the state directory cannot be written; serving goes on", error=str(error))
            self.failing[name] = str(error)
            raise
        self.written_at[name] = time()
        if self.failing.pop(name, None):
            log.info("the state directory can be written again", file=name)

    def _read(self, name: str, kind: str, decode: Callable[[bytes], Saved]) -> Saved | None:
        path = self.folder / name
        try:
            body = read_state(path, kind)
            return None if body is None else decode(body)
        except StateDamaged as error:
            aside = set_aside(path)
            log.warning(
                "a file in the state directory is damaged or foreign, and is not used",
                file=str(path),
                error=str(error),
                set_aside=str(aside) if aside else "no: it cannot be moved",
            )
        except StateError as error:
            log.warning("a file in the state directory cannot be read, and is not used", error=str(error))
        return None
