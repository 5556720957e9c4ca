"""`flagrelay keys`."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from time import time

import pytest

from support.cli import Cli

CREATE = ("keys", "create", "--kind", "server", "--name", "shop")


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(production: Cli) -> None:
    created = production.json(*CREATE)
    assert created["key"].startswith("fr_server_")
    assert (created["environment"], created["kind"], created["name"]) == ("production", "server", "shop")
    assert created["expires"] is None
    [listed] = production.json("keys", "list")
    assert listed == {name: value for name, value in created.items() if name != "key"}
    table = production.ok("keys", "list").splitlines()
    assert table[0].split("\t") == ["ID", "ENVIRONMENT", "KIND", "NAME", "CREATED (UTC)", "EXPIRES (UTC)"]
    assert table[1].split("\t")[:4] == [created["id"], "production", "server", "shop"]
    assert table[1].endswith("\tnever")
    assert production.json("keys", "revoke", created["id"])["revoked"] is True
    assert production.json("keys", "list") == []
    assert created["id"] in production.refused("keys", "revoke", created["id"])


def test_history_says_who_created_and_who_revoked_it_and_why_but_no_secret(production: Cli) -> None:
    created = production.json(*CREATE, "--expires", "1d", "--actor", "grace", "--reason", "new shop")
    production.ok("keys", "revoke", created["id"], "--reason", "leaked")
    text = production.ok("history", "--json")
    revoked, made = json.loads(text)
    assert (revoked["action"], revoked["actor"], revoked["reason"]) == ("keys revoke", "ada", "leaked")
    assert (made["action"], made["actor"], made["reason"], made["revision"]) == ("keys create", "grace", "new shop", 0)
    told = {"key": created["id"], "kind": "server", "name": "shop", "expires": created["expires"]}
    assert made["detail"] == revoked["detail"] == told
    assert created["key"] not in text
    table = production.ok("history").splitlines()
    assert [line.split("\t")[2:] for line in table[1:]] == [
        ["keys create", f'key {created["id"]} ("shop", server)', "grace", "new shop"],
        ["keys revoke", f'key {created["id"]} ("shop", server)', "ada", "leaked"],
    ]
    assert production.json("history", "--flag", "shop") == []


def test_a_key_is_told_all_the_same_where_history_cannot_have_it(
    production: Cli, redis_command: Callable[..., bytes]
) -> None:
    redis_command("SET", "flagrelay:{production}:history", "another tool's")
    outcome = production.run(*CREATE)
    assert (outcome.status, outcome.out.startswith("fr_server_")) == (0, True)
    assert "done, but the history does not have it: " in outcome.err


def test_without_json_standard_output_has_the_secret_and_nothing_else(production: Cli) -> None:
    outcome = production.run(*CREATE)
    assert outcome.out.strip().startswith("fr_server_")
    assert outcome.out.count("\n") == 1
    assert "not shown again" in outcome.err
    assert production.json("keys", "list")[0]["id"] in outcome.err


def test_keys_are_listed_of_all_environments_or_one(production: Cli) -> None:
    production.ok("env", "create", "staging")
    production.ok(*CREATE)
    production.ok(*CREATE, "--env", "staging")
    assert len(production.json("keys", "list")) == 1, "FLAGRELAY_ENV is production"
    assert len(production.json("keys", "list", "--env", "staging")) == 1
    assert len(production.json("keys", "list", FLAGRELAY_ENV="")) == 2
    assert "no access keys" in production.run("keys", "list", "--env", "nowhere").err


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30m", 1800), ("12h", 43200), ("90d", 7776000), ("2w", 1209600)]
)
def test_a_key_expires_after_a_time(production: Cli, text: str, seconds: int) -> None:
    expires = production.json(*CREATE, "--expires", text)["expires"]
    assert time() + seconds - 5 <= expires <= time() + seconds


def test_a_key_expires_at_a_date(production: Cli) -> None:
    for text in ("2199-03-31", "2199-03-31T00:00:00Z", "2199-03-31 02:00+02:00"):
        expires = production.json(*CREATE, "--expires", text)["expires"]
        assert datetime.fromtimestamp(expires, tz=UTC) == datetime(2199, 3, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "90",
        "d",
        "90 d",
        "-5d",
        "0d",
        "2020-01-01",
        "9" * 400 + "d",
        "99999999w",
        "9999999d",
        "0001-01-01",
        "2199-13-01",
        "1.5d",
    ],
)
def test_a_time_that_is_none_or_over_is_refused(production: Cli, text: str) -> None:
    assert "--expires" in production.misused(*CREATE, f"--expires={text}")
    assert production.json("keys", "list") == []


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59+12:00", "2900000d"])
def test_a_key_that_outlives_the_calendar_is_still_listed(production: Cli, text: str) -> None:
    expires = production.json(*CREATE, "--expires", text)["expires"]
    assert expires > 250_000_000_000
    assert production.json("keys", "list")[0]["expires"] == expires
    assert production.ok("keys", "list").splitlines()[1].rpartition("\t")[2] in (f"@{expires}", _local(expires))


def _local(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return ""


def test_what_somebody_called_a_key_cannot_speak_to_the_terminal(production: Cli) -> None:
    key = production.json("keys", "create", "--kind", "server", "--name", "a\x1b[31m\nb")
    assert production.ok("keys", "list").splitlines()[1].split("\t")[3] == "a [31m b"
    assert (
        production.ok("keys", "revoke", key["id"]) == f'key {key["id"]} ("a [31m b", server, production) is revoked\n'
    )


def test_an_expired_key_is_listed_as_such(production: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    production.ok(*CREATE, "--expires", "30s")
    monkeypatch.setattr("flagrelay.cli.keys.time", lambda: time() + 60)
    assert production.ok("keys", "list").endswith(" (expired)\n")


def test_what_a_key_is_for_must_be_said(production: Cli) -> None:
    for words in (("--kind", "server", "--name", ""), ("--kind", "root", "--name", "x"), ("--kind", "server")):
        production.misused("keys", "create", *words)
    assert production.run("keys", "create", "--kind", "server", "--name", "x" * 1001).status == 2
    assert production.json("keys", "list") == []
