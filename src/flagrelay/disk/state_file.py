"""One file of a state directory: written atomically, checked when it is read.

    flagrelay-state 1 snapshot 5f2c…(SHA-256) 48213
    {"environment": "production", …}

The first line says what this is, in which version, of which kind, and what the rest must be.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path

from flagrelay.errors import StateDamaged, StateError

VERSION = 1
"""The version of what is written. What has another one is foreign."""

_FIRST_LINE = re.compile(rb"flagrelay-state ([0-9]{1,9}) ([a-z]{1,32}) ([0-9a-f]{64}) ([0-9]{1,15})\n")
_LONGEST_FIRST_LINE = 256

LEFTOVER = ".tmp"
"""What the name of a file ends with while it is written."""


def write_state(path: Path, kind: str, body: bytes) -> None:
    """Write a file whole, and durably: after this it is there even if the machine fails.

    Raises:
        StateError: it cannot be written; what was there before still is.
    """
    checksum = hashlib.sha256(body).hexdigest()
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=LEFTOVER)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(f"flagrelay-state {VERSION} {kind} {checksum} {len(body)}\n".encode())
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - as plain as it is
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror or error}") from error


def read_state(path: Path, kind: str) -> bytes | None:
    """The body of a file; None where there is no such file.

    Raises:
        StateDamaged: it is not what was written, of another kind, or of another version.
        StateError: it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror or error}") from error
    found = _FIRST_LINE.match(data[:_LONGEST_FIRST_LINE])
    if not found:
        raise StateDamaged(f"{path} is no file of flagrelay's: its first line is not one")
    version, found_kind, checksum, size = found.groups()
    if int(version) != VERSION:
        raise StateDamaged(f"{path} is of version {int(version)}; this flagrelay reads version {VERSION}")
    if found_kind.decode() != kind:
        raise StateDamaged(f"{path} holds {found_kind.decode()}, and not {kind}")
    body = data[found.end() :]
    if len(body) != int(size):
        raise StateDamaged(
            f"{path} is damaged: it should have {int(size)} bytes after its first line, and has {len(body)}"
        )
    if hashlib.sha256(body).hexdigest() != checksum.decode():
        raise StateDamaged(f"{path} is damaged: its checksum is another one")
    return body


def set_aside(path: Path) -> Path | None:
    """Move a file out of the way, for a person to look at. Returns where it is; None where it cannot be moved."""
    aside = path.with_name(path.name + ".damaged")
    try:
        os.replace(path, aside)  # noqa: PTH105
    except OSError:
        return None
    return aside


def _sync_folder(folder: Path) -> None:
    """A name is in the folder for good once the folder is written, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
