"""`flagrelay demo`: the main job, as a person sees it."""

import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]  # it ships no type information
import pytest

import flagrelay.cli
from flagrelay.cli.documents import parse_yaml
from flagrelay.flags.definition import check_flag_set
from support.cli import Cli

FIGURES = re.compile(r"first ([\d.]+) ms, median ([\d.]+) ms, p99 ([\d.]+) ms, last ([\d.]+) ms")


@pytest.fixture
def outside() -> Cli:
    """A shell with settings that are meant for a real relay, and would keep the demo's from starting."""
    return Cli({"FLAGRELAY_BACKOFF_MAX": "0.01", "FLAGRELAY_MAX_STREAMS": "1", "FLAGRELAY_REDIS_URL": "nonsense"})


class Shown:
    """What a demo has shown, and what it has started."""

    def __init__(self, text: str) -> None:
        self.text = text
        found = re.search(r"a private server at unix://(\S+)", text), re.search(r"relay: (http://\S+)", text)
        assert found[0], text
        assert found[1], text
        self.socket = Path(found[0][1])
        self.url = found[1][1]

    def gone(self) -> bool:
        """Whether nothing is left of it."""
        address = urlsplit(self.url)
        with socket.socket() as probe:
            refused = probe.connect_ex((address.hostname, address.port)) != 0
        return refused and not self.socket.parent.exists()

    def lines_to_try(self) -> list[str]:
        part = self.text.partition("In another terminal:\n")[2].partition("Changes, as they happen")[0]
        return [line.strip() for line in part.splitlines() if line.strip()]


def until(condition: Callable[[], bool], what: str, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@contextmanager
def live(cli: Cli, *words: str) -> Iterator[tuple["subprocess.Popen[str]", Shown]]:
    """A demo that shows changes as they happen."""
    with cli.process("demo", *words) as process:
        assert process.stdout
        text = ""
        while "as they happen" not in text:
            line = process.stdout.readline()
            assert line, f"it ended: {text}{process.stderr and process.stderr.read()}"
            text += line
        yield process, Shown(text)


def test_two_hundred_streams_hear_of_the_kill_and_it_ends_by_itself(outside: Cli) -> None:
    with outside.process("demo", "--seconds", "1") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out, "plain lines, without a terminal"
    assert "un-released on 200 of 200 streams" in out
    scene = [line.split() for line in out.partition("ships dark")[2].splitlines() if "of 1,000" in line]
    assert [" ".join(words).partition(" of 1,000")[0] for words in scene] == [
        "release plan nobody 0",
        "release start + dev-team: all 3",
        "release advance + internal: all 43",
        "release advance + beta: 50 % 96",
        "unrelease --from beta - beta: un-released 43",
    ]
    assert all(line[-1] == "200/200" for line in scene)
    figures = FIGURES.search(out)
    assert figures
    first, median, p99, last = map(float, figures.groups())
    assert 0 < first <= median <= p99 <= last
    bars = re.findall(r"^ *[\d.]+ +[\d.]+ +(\d+)  █*", out, re.MULTILINE)
    assert len(bars) == 10
    assert sum(map(int, bars)) == 200
    assert Shown(out).gone()


CURL = """\
#!{python}
import sys, urllib.request
words = sys.argv[1:]
headers = dict(value.split(": ", 1) for name, value in zip(words, words[1:]) if name == "-H")
[url] = [word for word in words if word.startswith("http")]
with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
    while data := response.read1():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
"""
"""As much of curl as the lines need, for a machine that has none."""


@pytest.fixture
def curl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("curl"):
        (tmp_path / "curl").write_text(CURL.format(python=sys.executable), encoding="utf-8")
        (tmp_path / "curl").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_the_lines_that_it_prints_work_and_what_they_do_is_shown(outside: Cli, curl: None) -> None:
    with live(outside, "--streams", "20") as (process, shown):
        export, *commands, stream = shown.lines_to_try()
        assert export.startswith("export ")
        answers = {}
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", f"{export}\n{command}"], capture_output=True, text=True, timeout=20, check=False
            )
            assert (done.returncode, done.stderr.partition("%")[0].strip()) == (0, ""), command
            answers[command.rpartition("/")[2].removeprefix("python -m ")] = done.stdout
        assert "checkout-v2\tKILLED" in answers["flagrelay flags list"]
        assert any("bucket" in answer for answer in answers.values())
        assert any("flagrelay_propagation" in answer for answer in answers.values())
        with subprocess.Popen(
            ["bash", "-c", f"exec {stream}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as following:
            assert following.stdout
            seen = b""
            while b"event: put" not in seen:
                line = following.stdout.readline()
                assert line, f"the stream ended: {seen!r}"
                seen += line
            following.kill()
        assert process.stdout
        changes = [process.stdout.readline().strip() for _ in range(4)]
        for change, expected in zip(
            changes,
            (
                r"revision 8  one-page-checkout  \(.*: fixed\)",
                r"revision 9  one-page-checkout  \(.*: trying it\)",
                r"revision 10  new-search DISABLED  \(.*: trying it\)",
                r"revision 11  checkout-v2  \(.*: fixed\)",
            ),
            strict=True,
        ):
            assert re.fullmatch(rf"{expected}  20 of 20 streams, last .* ms", change), change
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, "Ctrl-C is how it is meant to end"
        assert "files are gone" in process.stdout.read()
        assert process.stderr
        assert process.stderr.read() == ""
    assert shown.gone()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, -1), (signal.SIGKILL, -9)])
def test_nothing_is_left_behind_however_it_ends(outside: Cli, number: signal.Signals, status: int) -> None:
    with live(outside, "--streams", "3") as (process, shown):
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) == 4, "Redis, the relay, and for each who ends it"
        process.send_signal(number)
        assert process.wait(20) == status
        until(lambda: shown.gone() and not any(each.is_running() for each in started), "all of it is gone")


@pytest.mark.parametrize("at", ["starting", "opening streams", "as they happen"])
def test_at_a_terminal_it_shows_progress_and_ctrl_c_ends_it(outside: Cli, at: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flagrelay", "demo", "--streams", "500" if at == "opening streams" else "5"]
    environment = outside.environment_for({"TERM": "xterm-256color", "COLUMNS": "100"})
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            text = ""
            while at not in text:
                text += os.read(ours, 65536).decode(errors="replace")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == (0 if at == "as they happen" else 130)
        finally:
            process.kill()
            os.close(ours)
    assert "starting a private Redis" in text
    assert "\x1b[" in text
    assert ("\x1b[32m█" in text) == (at == "as they happen"), "the histogram"
    assert "Traceback" not in text


def test_more_streams_than_the_system_allows_is_one_line(outside: Cli) -> None:
    command = f"ulimit -n 100; exec {shlex.quote(sys.executable)} -m flagrelay demo --seconds 1"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        env=outside.environment_for({}),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: 200 streams need 264 open files")
    assert done.stderr.count("\n") == 1
    assert Shown(done.stdout).gone()


def test_its_flags_are_a_dozen_of_several_types_with_populations() -> None:
    path = Path(flagrelay.cli.__file__).parent / "demo_flags.yaml"
    flag_set = check_flag_set(parse_yaml(path.read_bytes(), "it"))
    assert len(flag_set.flags) == 12
    assert flag_set.evaluators.keys() == {"dev-team", "internal", "beta"}
    kinds = {type(next(iter(flag["variants"].values()))) for flag in flag_set.flags.values()}
    assert kinds == {bool, str, int, float, dict}


def test_options_that_make_no_sense_are_refused(outside: Cli) -> None:
    for words in (("--streams", "0"), ("--streams", "5001"), ("--seconds", "-1"), ("--seconds", "nan")):
        outside.misused("demo", *words)
