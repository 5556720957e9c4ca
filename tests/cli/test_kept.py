"""Processes that end when we do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flagrelay.cli.kept import kept
from flagrelay.errors import FlagrelayError

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)"]


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_runs_while_the_block_lasts_and_its_folder_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with kept(SLEEPER, log=folder / "log", remove=folder) as process:
        assert process.output.readline() == "up\n"
        assert runs(process.pid)
    assert not runs(process.pid)
    assert not folder.exists()


def test_it_ends_with_a_block_that_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), kept(SLEEPER, log=tmp_path / "log") as process:
        raise KeyboardInterrupt
    assert not runs(process.pid)
    assert tmp_path.exists()


def test_one_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    stubborn = f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEPER[2]}"
    with kept([sys.executable, "-c", stubborn], log=tmp_path / "log", patience=0.2) as process:
        assert process.output.readline() == "up\n"
    assert not runs(process.pid)


def test_the_end_of_one_that_ends_by_itself_is_seen_and_its_words_are_in_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with kept(command, log=tmp_path / "log") as process:
        assert process.output.readline() == "", "or whoever waits for its first line would wait for good"
        assert "no such thing" in (tmp_path / "log").read_text()


def test_what_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FlagrelayError, match="cannot run"), kept([str(tmp_path / "none")], log=tmp_path / "log"):
        pass


def test_its_environment_may_be_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.environ.get('HOME'), os.environ['X'])"]
    with kept(command, log=tmp_path / "log", environment={"X": "1"}) as process:
        assert process.output.readline() == "None 1\n"


def test_it_ends_even_where_we_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    script = (
        "import sys, time; from pathlib import Path; from flagrelay.cli.kept import kept\n"
        f"with kept({SLEEPER!r}, log=Path({str(folder / 'log')!r}), remove=Path({str(folder)!r})) as process:\n"
        "    print(process.pid, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert runs(pid)
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not runs(pid) and not folder.exists())
