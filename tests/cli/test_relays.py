"""`flagrelay relays`, in front of reports that a test has written."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from flagrelay.store.reports import Report
from support.cli import FLAG, Cli

Say = Callable[..., None]


@pytest.fixture
def say(production: Cli, redis_command: Callable[..., bytes]) -> Say:
    """Writes what a relay has said some seconds ago; of a later version, which says more."""
    production.ok("flags", "put", "x", stdin=json.dumps(FLAG))
    [environment] = production.json("env", "list")

    def write(relay: str, *, ago: float = 0.0, **different: Any) -> None:
        members: dict[str, Any] = {
            "relay": relay,
            "epoch": environment["epoch"],
            "revision": 1,
            "source": "live",
            "streams": 10_000,
            "written": 9_990,
            "lagging": 10,
            "ms": 38.25,
            "interval": 5.0,
            "seen": round((time.time() - ago) * 1e6),
        }
        report = Report(**{**members, **different})
        text = json.dumps({**report.as_json(), "of a later version": True})
        assert redis_command("HSET", "flagrelay:{production}:relays", report.field, text) in (b":0\r\n", b":1\r\n")

    return write


def rows(cli: Cli, *words: str) -> list[list[str]]:
    header, *lines = cli.ok("relays", *words).splitlines()
    assert header.split("\t") == [
        *("RELAY", "ENVIRONMENT", "STATE", "REVISION", "STREAMS", "LAGGING", "MS", "LAST HEARD"),
    ]
    return [line.split("\t") for line in lines]


def test_it_shows_who_has_what_and_who_was_not_heard_of(production: Cli, say: Say) -> None:
    say("relay-1")
    say("relay-2", revision=0, ms=None, source="stale")
    say("relay-3", ago=60.0)
    say("relay-4", epoch="another")
    say("node", worker=2, workers=2)
    found = rows(production)
    assert [row[:4] for row in found] == [
        ["node worker 2", "production", "live", "1"],
        ["relay-1", "production", "live", "1"],
        ["relay-2", "production", "stale", "0 (1 behind)"],
        ["relay-3", "production", "silent", "1"],
        ["relay-4", "production", "live", "1 of another history"],
    ]
    assert found[1][4:7] == ["10,000", "10", "38.2"]
    assert found[2][6] == "-"
    assert found[3][7].startswith("60.")
    assert found[3][7].endswith(" s ago")


def test_it_shows_what_a_relay_shows_by_kills_of_its_own(production: Cli, say: Say) -> None:
    say("relay-1", kills={"x": "conflict"})
    say("relay-2", kills={str(number): "local" for number in range(5)}, more_kills=7)
    assert [row[2] for row in rows(production)] == [
        'live (kills of its own: "x": conflict)',
        'live (kills of its own: "0": local, "1": local, "2": local and 9 more)',
    ]
    assert production.json("relays")[0]["kills"] == {"x": "conflict"}


def test_scripts_get_every_member(production: Cli, say: Say) -> None:
    say("relay-1", revision=0, ago=60.0)
    say("relay-2", epoch="another")
    one, other = production.json("relays")
    assert (one["environment"], one["relay"], one["state"], one["source"]) == (
        "production",
        "relay-1",
        "silent",
        "live",
    )
    assert (one["behind"], other["behind"]) == (1, None)
    assert 60_000 <= one["age_ms"] < 90_000
    assert (one["streams"], one["written"], one["lagging"], one["ms"]) == (10_000, 9_990, 10, 38.25)


def test_without_an_environment_it_shows_all(production: Cli, say: Say) -> None:
    say("relay-1")
    production.ok("env", "create", "staging")
    assert [row[:2] for row in rows(production, *(), "--env", "production")] == [["relay-1", "production"]]
    production.environment["FLAGRELAY_ENV"] = ""
    assert [row[:2] for row in rows(production)] == [["relay-1", "production"]]


def test_where_nobody_reports_it_says_so(production: Cli) -> None:
    outcome = production.run("relays")
    assert (outcome.status, outcome.out) == (0, "")
    assert "no relay reports here" in outcome.err
    assert production.json("relays") == []
    assert 'environment "nowhere" does not exist' in production.refused("relays", "--env", "nowhere")


def test_a_relay_that_is_gone_is_forgotten_with_its_workers(production: Cli, say: Say) -> None:
    say("relay-1")
    for worker in (1, 2):
        say("node", worker=worker, workers=2)
    assert production.ok("relays", "forget", "node") == 'relay "node" is forgotten\n'
    assert [row[0] for row in rows(production)] == ["relay-1"]
    assert 'no relay "node" reports in environment "production"' in production.refused("relays", "forget", "node")
    assert 'environment "nowhere" does not exist' in production.refused("relays", "forget", "x", "--env", "nowhere")


def test_an_option_before_the_subcommand_is_refused_since_it_would_not_count(production: Cli, say: Say) -> None:
    say("relay-1")
    production.ok("env", "create", "staging")
    said = production.misused("relays", "--env", "staging", "forget", "relay-1")
    assert "--env belongs behind `forget`" in said
    assert len(rows(production)) == 1


def test_what_a_relay_calls_itself_cannot_speak_to_the_terminal(production: Cli, say: Say) -> None:
    say("relay\x1b[31m\n-1")
    assert rows(production)[0][0] == "relay [31m -1"
