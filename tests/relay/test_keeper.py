"""What keeps the last snapshot on disk: soon after a change, not too often, and again before its age is told wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flagrelay.disk.state_dir import StateDir
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay import keeper as keeper_module
from flagrelay.relay.keeper import Keeper, Kept
from support.fakes import empty_snapshot, next_change
from support.sources import until


class Disk(StateDir):
    """A folder that notes what is written to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "flagrelay")
        self.revisions: list[int] = []

    def write_snapshot(self, environment: str, snapshot: Snapshot, confirmed: float) -> None:
        super().write_snapshot(environment, snapshot, confirmed)
        self.revisions.append(snapshot.position.revision)


class Current:
    """What there is to be kept."""

    def __init__(self) -> None:
        self.kept: Kept | None = None

    def __call__(self) -> Kept | None:
        return self.kept

    def change(self) -> None:
        snapshot, confirmed = self.kept or (empty_snapshot(), 0.0)
        self.kept = snapshot.with_change(next_change(snapshot, "flag", 1)), confirmed


@contextlib.asynccontextmanager
async def keeping(disk: Disk, current: Current, interval: float) -> AsyncIterator[Keeper]:
    keeper = Keeper(disk, "production", interval, current)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_change_is_kept_at_once_and_those_that_follow_as_one(tmp_path: Path) -> None:
    disk, current = Disk(tmp_path), Current()
    async with keeping(disk, current, 0.2) as keeper:
        current.change()
        keeper.changed()
        await until(lambda: disk.revisions == [1], "the first is kept")
        for _ in range(5):
            current.change()
            keeper.changed()
        await until(lambda: len(disk.revisions) > 1, "the others are kept")
        assert disk.revisions == [1, 6]
    saved = disk.read_snapshot("production")
    assert saved
    assert saved.position.revision == 6


async def test_nothing_is_written_where_there_is_nothing_or_nothing_new(tmp_path: Path) -> None:
    disk, current = Disk(tmp_path), Current()
    async with keeping(disk, current, 0.0) as keeper:
        await keeper.keep()
        current.change()
        for _ in range(3):
            await keeper.keep()
    assert disk.revisions == [1]


async def test_the_same_is_kept_again_once_its_age_would_be_told_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "REFRESH", 0.05)
    disk, current = Disk(tmp_path), Current()
    current.change()
    async with keeping(disk, current, 0.0):
        await until(lambda: disk.revisions == [1], "it is kept without a change")
        assert current.kept
        current.kept = current.kept[0], 1000.0
        await until(lambda: disk.revisions == [1, 1], "it is kept again, since it is fresher")
    saved = disk.read_snapshot("production")
    assert saved
    assert saved.confirmed == 1000.0


async def test_a_disk_that_fails_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way")
    disk, current = Disk(folder), Current()
    async with keeping(disk, current, 0.0) as keeper:
        current.change()
        await keeper.keep()
        assert disk.revisions == []
        folder.unlink()
        await keeper.keep()
        assert disk.revisions == [1]
