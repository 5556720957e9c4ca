"""The folder of a relay: what it keeps, and what it makes of what it finds there."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from flagrelay.disk.documents import decode_kills, encode_kills
from flagrelay.disk.state_dir import LEFT_BEHIND, StateDir
from flagrelay.disk.state_file import write_state
from flagrelay.errors import StateDamaged, StateError
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.access_keys import AccessKey, KeysSnapshot
from support.fakes import definition

POSITION = Position("e", 7, "n7")
SNAPSHOT = Snapshot(
    POSITION,
    flags={"flag": definition(1)},
    evaluators={"beta": {"in": ["@example.com", {"var": "email"}]}},
    metadata={"team": "checkout"},
    settings=EnvironmentSettings(fractional="v2", origins=("https://example.com",)),
)
KEY = AccessKey("id", "d" * 64, "production", "server", "name", 1, None)
KILL = LocalKill(key="flag", to=None, actor="ada", reason="errors", at=5, over=POSITION, original=definition(1))

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON_VALUES = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, st.lists, max_leaves=5)


@pytest.fixture
def folder(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "made" / "when-needed", "flagrelay")


def test_a_snapshot_comes_back_with_its_age(folder: StateDir) -> None:
    folder.write_snapshot("production", SNAPSHOT, 1234.5)
    saved = folder.read_snapshot("production")
    assert saved
    assert (saved.snapshot(), saved.confirmed) == (SNAPSHOT, 1234.5)
    assert folder.environments() == ["production"]
    assert folder.folder.stat().st_mode & 0o777 == 0o700


def test_keys_come_back_hashed_as_they_are(folder: StateDir) -> None:
    keys = KeysSnapshot(("k", 3), {KEY.digest: KEY}, 0)
    folder.write_keys(keys)
    assert folder.read_keys() == keys


@given(st.lists(st.tuples(TEXT, st.none() | TEXT, TEXT, st.dictionaries(TEXT, JSON_VALUES, max_size=3)), max_size=4))
def test_local_kills_come_back(kills: list[tuple[str, str | None, str, dict[str, Any]]]) -> None:
    held = {
        key: LocalKill(key=key, to=to, actor=text, reason=text, at=1, over=POSITION, original=original)
        for key, to, text, original in kills
    }
    owner = {"prefix": "flagrelay", "environment": "production"}
    assert decode_kills(owner, encode_kills(owner, held.values())) == held


def test_nothing_is_kept_of_who_has_never_written(folder: StateDir) -> None:
    assert folder.read_snapshot("production") is None
    assert folder.read_keys() is None
    assert folder.read_kills("production") == {}
    assert folder.environments() == []
    folder.sweep()


def test_what_is_somebody_elses_is_set_aside_and_not_used(folder: StateDir) -> None:
    StateDir(folder.folder, "other").write_snapshot("production", SNAPSHOT, 1.0)
    with capture_logs() as logs:
        assert folder.read_snapshot("production") is None
    assert "its prefix is 'other', and not 'flagrelay'" in logs[0]["error"]
    assert (folder.folder / "production.snapshot.damaged").exists()
    assert folder.read_snapshot("production") is None
    folder.write_snapshot("production", SNAPSHOT, 1.0)
    (folder.folder / "production.snapshot").rename(folder.folder / "staging.snapshot")
    assert folder.read_snapshot("staging") is None, "a file of another environment"


@given(st.recursive(JSON_VALUES, lambda inner: st.dictionaries(TEXT, inner, max_size=4), max_leaves=10))
@settings(max_examples=60)
def test_sound_json_that_is_no_state_is_set_aside_whatever_it_is(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    import orjson  # noqa: PLC0415 - only here

    folder = StateDir(tmp_path_factory.getbasetemp() / "odd", "flagrelay")
    folder.folder.mkdir(exist_ok=True)
    owner = {"prefix": "flagrelay", "environment": "production"}
    parts: dict[str, Any] = {"position": value, "flags": value, "$evaluators": {}, "metadata": {}, "settings": {}}
    documents = [
        value,
        {**owner, **parts, "confirmed": 1.0},
        {**owner, "position": ["e", 1, "n"], "flags": {"a": value}},
    ]
    for document in documents:
        write_state(folder.folder / "production.snapshot", "snapshot", orjson.dumps(document))
        write_state(folder.folder / "production.kills", "kills", orjson.dumps({**owner, "kills": document}))
        write_state(folder.folder / "access.keys", "keys", orjson.dumps({**owner, "environment": "", "keys": value}))
        assert folder.read_snapshot("production") is None
        assert folder.read_keys() is None
        assert folder.read_kills("production") == {} or document in ([], {})


def test_a_kills_file_that_is_damaged_holds_none() -> None:
    with pytest.raises(StateDamaged, match="no local kills"):
        decode_kills({}, b'{"kills":[{"key":1}]}')


def test_a_folder_that_cannot_be_written_is_told_once_and_when_it_can_be_again(tmp_path: Path) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file where the folder should be")
    folder = StateDir(in_the_way, "flagrelay")
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(StateError, match="cannot be made"):
                folder.write_snapshot("production", SNAPSHOT, 1.0)
        assert folder.environments() == []
        assert list(folder.as_json()["failing"]) == ["production.snapshot"]  # type: ignore[call-overload]  # a dict
        in_the_way.unlink()
        folder.write_snapshot("production", SNAPSHOT, 1.0)
    assert [entry["log_level"] for entry in logs] == ["warning", "info"]
    assert folder.failing == {}
    assert "production.snapshot" in folder.written_at


def test_what_cannot_be_json_is_an_error_of_the_folder_and_not_of_the_relay(folder: StateDir) -> None:
    odd = Snapshot(POSITION, metadata={"lone": "\ud800"})
    with pytest.raises(StateError, match="cannot be written as JSON"):
        folder.write_snapshot("production", odd, 1.0)


def test_what_a_killed_process_left_is_removed_once_nobody_can_be_writing_it(folder: StateDir) -> None:
    folder.write_snapshot("production", SNAPSHOT, 1.0)
    old, young = (folder.folder / f".production.snapshot.{name}.tmp" for name in ("old", "young"))
    for left in (old, young):
        left.write_bytes(b"half")
    long_ago = old.stat().st_mtime - LEFT_BEHIND - 1
    os.utime(old, (long_ago, long_ago))
    folder.sweep()
    assert [path.name for path in sorted(folder.folder.iterdir())] == [young.name, "production.snapshot"]
