"""Telling relays directly: `kill --relay`, `revive --relay`, `kills`, `status`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli import status as status_command
from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.cli.proof import NOT_PROVEN
from flagrelay.errors import StoreUnavailable
from flagrelay.store.writing import kill_flag
from support.cli import FLAG, Cli


@pytest.fixture
def relay(production: Cli, redis_server: PrivateRedis, tmp_path: Path) -> Iterator[str]:
    """A relay in a process of its own, and its URL."""
    production.ok("flags", "put", "flag", stdin=json.dumps(FLAG))
    production.environment["FLAGRELAY_ADMIN_KEY"] = production.json("keys", "create", "--kind", "admin", "--name", "a")[
        "key"
    ]
    words = ("serve", "--port", "0", "--state-dir", str(tmp_path / "state"), "--log-level", "error")
    with production.process(*words, FLAGRELAY_REDIS_URL=redis_server.url) as process:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        for _ in range(200):
            if production.run("status", "--relay", url).status == 0:
                break
        yield url


def test_a_relay_is_told_directly_and_says_what_came_of_it(production: Cli, relay: str) -> None:
    outcome = production.run("kill", "flag", "--relay", relay, "--to", "on", "--reason", "errors")
    assert outcome.status == 0, outcome
    header, line = outcome.out.splitlines()
    assert header.split("\t") == ["RELAY", "ENVIRONMENT", "REVISION", "STREAMS", "SOURCE", "KEPT ON DISK"]
    url, environment, revision, *rest = line.split("\t")
    assert (url, environment, rest) == (relay, "production", ["0", "live", "yes"])
    assert revision in ("1", "2"), "Redis is there, and may have it already"
    assert outcome.err == 'flag "flag" is killed on 1 of 1 relays\n'
    killed = None
    for _ in range(200):  # Redis is there, so it is written at once
        [entry] = production.json("flags", "list")
        killed = entry["killed"]
        if killed:
            break
    assert killed
    assert killed["to"] == "on"


def test_kills_are_listed_and_withdrawn(production: Cli, relay: str) -> None:
    assert production.run("kills", "--relay", relay).err == "no relay holds a kill by itself\n"
    assert production.json("kills", "--relay", relay)[relay]["kills"] == []
    error = production.run("revive", "flag", "--relay", relay)
    assert error.status == 1
    assert "holds no kill of flag" in error.err


def test_relays_that_cannot_be_reached_are_named_and_the_others_told(production: Cli, relay: str) -> None:
    away = "http://127.0.0.1:1"
    outcome = production.run("kill", "flag", "--relay", relay, "--relay", away, "--reason", "errors")
    assert outcome.status == 1
    assert outcome.out.splitlines()[2].split("\t")[:2] == [away, "failed"]
    assert "is killed on 1 of 2 relays" in outcome.err
    assert f"{away} cannot be reached" in outcome.err
    scripted = production.run("kill", "flag", "--relay", f"{relay} {away}", "--reason", "errors", "--json")
    assert scripted.status == 1
    answers = json.loads(scripted.out)
    assert answers[relay]["flag"] == "flag"
    assert "cannot be reached" in answers[away]["error"]


def test_status_is_a_table_and_json(production: Cli, relay: str) -> None:
    header, line = production.ok("status", "--relay", relay).splitlines()
    row = dict(zip(header.split("\t"), line.split("\t"), strict=True))
    assert (row["ENVIRONMENT"], row["REVISION"], row["SOURCE"], row["STREAMS"]) == ("production", "1", "live", "0")
    status = production.json("status", "--relay", relay)[relay]
    assert status["environments"]["production"]["revision"] == 1
    away = production.run("status", "--relay", relay, "--relay", "http://127.0.0.1:1")
    assert away.status == 1
    assert "production" in away.out
    assert "http://127.0.0.1:1 cannot be reached" in away.err


def test_what_is_missing_is_asked_for(production: Cli) -> None:
    keyless = Cli({**production.environment, "FLAGRELAY_ADMIN_KEY": ""})
    assert "takes an access key of kind admin" in keyless.misused("kill", "f", "--relay", "http://r", "--reason", "x")
    assert "is no URL of a relay" in production.misused("kill", "f", "--relay", "relay-1:8080", "--reason", "x")
    assert "Missing option '--relay'" in production.misused("kills")
    homeless = Cli({k: v for k, v in production.environment.items() if k != "FLAGRELAY_ENV"})
    assert "Missing option '--env'" in homeless.misused("kill", "f", "--reason", "x")
    assert "Missing option '--env'" in homeless.misused("revive", "f")


def test_a_write_that_too_few_replicas_have_is_one_that_is_not_proven(
    production: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagrelay.store.replicas.PATIENCE", 0.05)
    outcome = production.run("flags", "put", "flag", "--replicas", "1", "--wait", stdin=json.dumps(FLAG))
    assert outcome.status == NOT_PROVEN
    assert outcome.err.startswith("warning: written, but only 0 of 1 replicas had it")
    assert outcome.out == (
        'flag "flag" is written (revision 1)\nwritten, but nobody knows where: no relay reports here\n'
    )
    assert production.run("revive", "flag", "--replicas", "1").status == 1, "nothing was written"
    settings = production.run("env", "set", "production", "--fractional", "v2", "--replicas", "1")
    assert settings.status == NOT_PROVEN


def test_a_write_whose_answer_is_lost_may_have_been_done_and_says_so(
    production: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    production.ok("flags", "put", "flag", stdin=json.dumps(FLAG))

    async def lost(*words: Any, **members: Any) -> None:
        await kill_flag(*words, **members)
        raise StoreUnavailable("Redis at x: the connection was lost", unsure=True)

    monkeypatch.setattr("flagrelay.control.flags.kill_flag", lost)
    outcome = production.run("kill", "flag", "--reason", "x")
    assert outcome.status == 1
    assert "the connection was lost; it may have been written all the same: look how things stand" in outcome.err
    away = Cli({**production.environment, "FLAGRELAY_REDIS_URL": "redis://127.0.0.1:1"})
    outcome = away.run("kill", "flag", "--reason", "x")
    assert (outcome.status, "may have been written" in outcome.err) == (1, False), "nobody was asked"


def test_status_of_several_workers_is_a_line_for_all_and_one_for_each_that_stands_elsewhere(
    production: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def environment(revision: int, source: str, streams: int) -> dict[str, Any]:
        return {
            "source": source,
            "reason": "no connection",
            "streams": {"definitions": streams},
            "lagging": 0,
            "histories_lost": 0,
            "local_kills": {},
            "last_change": None,
            "epoch": "e" * 32,
            "revision": revision,
            "age_ms": 1500,
            "served_from": "redis",
        }

    status = {
        "ready": False,
        "reason": "worker 3: it does not answer within 1 s",
        "environments": {"production": environment(6, "stale", 12)},
        "workers": [
            {"worker": 1, "environments": {"production": environment(7, "live", 8)}},
            {"worker": 2, "environments": {"production": environment(6, "stale", 4)}},
            {"worker": 3, "error": "it does not answer within 1 s"},
        ],
    }

    async def answered(_url: str) -> dict[str, Any]:
        return status

    monkeypatch.setattr(status_command, "read_status", answered)
    outcome = production.run("status", "--relay", "http://r")
    assert outcome.status == 1
    assert "http://r is not ready: worker 3: it does not answer" in outcome.err
    _, *rows = [line.split("\t") for line in outcome.out.splitlines()]
    shown = [(row[0], row[1], row[2], row[4], row[6], row[9]) for row in rows]
    assert shown == [
        ("http://r", "production", "6", "stale", "12", "of 3 workers; no connection"),
        ("http://r worker 1", "production", "7", "live", "8", ""),
        ("http://r worker 3", "-", "-", "-", "-", "it does not answer within 1 s"),
    ]
