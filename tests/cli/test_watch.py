"""`flagrelay watch`."""

import json
import re
import subprocess
from typing import Any

import pytest

from flagrelay.cli.watch import Commentary, describe, signed
from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.states import SourceState
from support.cli import FLAG, Cli


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().rstrip("\n")


def said_by(process: "subprocess.Popen[str]") -> str:
    assert process.stderr
    return process.stderr.readline().rstrip("\n")


def edit(cli: Cli, redis_command: Any) -> None:
    """Every kind of change, and garbage on the channel, which is none."""
    cli.ok("flags", "put", "x", "--reason", "first", stdin=json.dumps(FLAG))
    assert redis_command("PUBLISH", "flagrelay:{production}:changes", "garbage") != b":0\r\n"
    cli.ok("kill", "x", "--reason", "error\x1b[31m\nrate", "--actor", "grace")
    cli.ok("revive", "x")
    cli.ok(
        "flags",
        "import",
        "-",
        stdin='{"flags": {}, "$evaluators": {"beta": {"==": [1, 1]}}, "metadata": {"team": "x"}}',
    )
    cli.ok("flags", "delete", "x")


def test_each_change_is_a_line_with_when_what_who_and_why(production: Cli, redis_command: Any) -> None:
    with production.process("watch") as process:
        assert said_by(process) == "0 flags at revision 0; waiting for changes"
        edit(production, redis_command)
        lines = [line_of(process) for _ in range(5)]
        assert "bad message" in said_by(process), "on standard error, beside the changes"
    moments = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC  ", "", line) for line in lines]
    assert moments == [
        "revision 1  x  (ada: first)",
        "revision 2  urgent  x DISABLED  (grace: error [31m rate)",
        "revision 3  urgent  x  (ada)",
        "revision 4  population beta, metadata  (ada)",
        "revision 5  x deleted  (ada)",
    ]


def test_with_json_each_change_is_a_line_of_json_and_nothing_else_is(production: Cli, redis_command: Any) -> None:
    with production.process("watch", "--json") as process:
        assert "waiting" in said_by(process)
        edit(production, redis_command)
        first, second, *_, fourth, fifth = (json.loads(line_of(process)) for _ in range(5))
    assert first["flags"] == {"x": FLAG}
    assert (first["revision"], first["actor"], first["reason"], first["urgent"]) == (1, "ada", "first", False)
    assert first["at"] > 1_700_000_000_000_000
    assert len(first["epoch"]) == 32
    assert (second["urgent"], second["reason"]) == (True, "error\x1b[31m\nrate")
    assert (fourth["$evaluators"], fourth["metadata"]) == ({"beta": {"==": [1, 1]}}, {"team": "x"})
    assert fifth["flags"] == {"x": None}


def test_an_environment_that_goes_away_and_comes_back_is_told(production: Cli) -> None:
    with production.process("watch") as process:
        assert "waiting" in said_by(process)
        production.ok("env", "destroy", "production", "--yes")
        assert said_by(process).startswith('lost: environment "production" does not exist')
        production.ok("env", "create", "production")
        assert said_by(process).startswith("read anew")
        assert said_by(process).startswith("back:")
        production.ok("flags", "put", "x", stdin=json.dumps(FLAG))
        assert "revision 1  x" in line_of(process)


def test_whoever_reads_the_changes_may_stop_reading(production: Cli) -> None:
    with production.process("watch") as process:
        assert "waiting" in said_by(process)
        assert process.stdout
        process.stdout.close()
        production.ok("flags", "put", "x", stdin=json.dumps(FLAG))
        assert process.wait(20) == 1
        assert process.stderr
        assert process.stderr.read() == ""


def test_a_redis_that_is_not_there_at_the_start_is_an_error(production: Cli) -> None:
    assert "127.0.0.1:1" in production.refused("watch", "--redis-url", "redis://127.0.0.1:1")


def change(**of: Any) -> Change:
    return Change(epoch="e", revision=1, nonce="n", previous="m", at=1, **of)


def test_a_change_of_very_many_flags_is_still_a_line() -> None:
    text = describe(change(flags={f"flag-{n:04}": None for n in range(5000)}))
    assert text.endswith("flag-0019 deleted, and 4980 more")
    assert describe(change()) == "nothing"
    assert signed(change()) == "unknown"


def test_a_loss_is_told_once_however_often_it_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    commentary = Commentary()
    commentary.loaded(Snapshot(Position("e", 0, "n")))
    for _ in range(3):
        commentary.moved(SourceState.STALE, "gone")
        commentary.moved(SourceState.LOADING, "subscribed")
    commentary.moved(SourceState.LIVE, "the same as Redis")
    assert capsys.readouterr().err.splitlines()[1:] == ["lost: gone", "back: the same as Redis"]
