"""One file on disk: what was written comes back, and nothing else is ever believed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.disk.state_file import LEFTOVER, VERSION, read_state, set_aside, write_state
from flagrelay.errors import StateDamaged, StateError

BODY = b'{"environment":"production"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "production.snapshot"


@given(st.binary(max_size=500))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "file"
    write_state(path, "snapshot", body)
    assert read_state(path, "snapshot") == body


def test_a_file_that_is_not_there_is_none(path: Path) -> None:
    assert read_state(path, "snapshot") is None


def test_only_its_owner_may_read_it(path: Path) -> None:
    write_state(path, "keys", BODY)
    assert path.stat().st_mode & 0o777 == 0o600


@given(st.data())
def test_a_file_with_any_byte_changed_lost_or_added_is_not_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    write_state(path, "snapshot", BODY)
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    match data.draw(st.sampled_from(["change", "cut", "add", "lose"])):
        case "change":
            bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
        case "cut":
            bad = good[:at]
        case "add":
            bad = good[:at] + data.draw(st.binary(min_size=1, max_size=5)) + good[at:]
        case _:
            bad = good[:at] + good[at + 1 :]
    path.write_bytes(bad)
    if bad != good:
        with pytest.raises(StateDamaged, match="damaged"):  # the file's name, at least
            read_state(path, "snapshot")


def test_another_version_another_kind_and_no_file_of_ours_are_told_apart(path: Path) -> None:
    write_state(path, "snapshot", BODY)
    with pytest.raises(StateDamaged, match="holds snapshot, and not keys"):
        read_state(path, "keys")
    path.write_bytes(
        path.read_bytes().replace(b"flagrelay-state %d " % VERSION, b"flagrelay-state %d " % (VERSION + 1))
    )
    with pytest.raises(StateDamaged, match=f"is of version {VERSION + 1}; this flagrelay reads version {VERSION}"):
        read_state(path, "snapshot")
    path.write_bytes(b"something else\n")
    with pytest.raises(StateDamaged, match="no file of flagrelay's"):
        read_state(path, "snapshot")


def test_what_cannot_be_read_says_why(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StateError, match="cannot be read: Is a directory"):
        read_state(path, "snapshot")


@pytest.mark.parametrize(("call", "error"), [("fsync", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EROFS)])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    path: Path, call: str, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(path, "snapshot", BODY)

    def fail(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StateError, match=os.strerror(error)):
        write_state(path, "snapshot", b"newer")
    monkeypatch.undo()
    assert read_state(path, "snapshot") == BODY
    assert list(path.parent.iterdir()) == [path]


def test_it_is_on_disk_before_it_has_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str) -> Callable[..., None]:
        real = getattr(os, name)

        def call(*arguments: Any) -> None:
            calls.append(name)
            real(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    write_state(path, "snapshot", BODY)
    assert calls == ["fsync", "replace", "fsync"], "the file, its name, the folder that has the name"


def test_what_is_set_aside_is_out_of_the_way_and_still_there(path: Path) -> None:
    path.write_bytes(b"damaged")
    aside = set_aside(path)
    assert aside
    assert aside.read_bytes() == b"damaged"
    assert read_state(path, "snapshot") is None
    assert set_aside(path) is None, "there is nothing left to move"
    assert LEFTOVER not in aside.name
