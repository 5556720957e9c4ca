"""`flagrelay env`."""

import json

from support.cli import FLAG, Cli


def test_an_environment_is_created_listed_and_destroyed(cli: Cli) -> None:
    assert cli.run("env", "list").err == "no environment yet: flagrelay env create NAME\n"
    assert "created" in cli.ok("env", "create", "production")
    created = cli.json("env", "create", "staging.eu-1")
    assert created == {"name": "staging.eu-1", "epoch": created["epoch"], "revision": 0}
    listed = cli.json("env", "list")
    assert [(each["name"], each["revision"], each["flags"]) for each in listed] == [
        ("production", 0, 0),
        ("staging.eu-1", 0, 0),
    ]
    assert cli.ok("env", "list").splitlines()[1].split("\t")[:3] == ["production", "0", "0"]
    assert cli.json("env", "destroy", "production", "--yes") == {"name": "production", "destroyed": True}
    assert [each["name"] for each in cli.json("env", "list")] == ["staging.eu-1"]


def test_one_that_exists_is_not_created_again(production: Cli) -> None:
    production.ok("flags", "put", "kept", stdin='{"state": "ENABLED", "variants": {"on": true}}')
    assert production.refused("env", "create", "production") == (
        'environment "production" exists already; nothing was changed'
    )
    assert production.json("env", "list")[0]["flags"] == 1


def test_a_name_that_is_none_is_refused(cli: Cli) -> None:
    for name in ("", " ", "a b", "-x", "a/b", "{a}", "x" * 65, "ä"):
        assert cli.run("env", "create", "--", name).status == 1
    assert cli.json("env", "list") == []


def test_one_that_is_missing_is_not_destroyed(cli: Cli) -> None:
    assert '"nowhere" does not exist' in cli.refused("env", "destroy", "nowhere", "--yes")


def test_destroying_asks_at_a_terminal_and_elsewhere_wants_to_be_told(production: Cli) -> None:
    assert "--yes" in production.misused("env", "destroy", "production", stdin="y\n")
    no = production.run("env", "destroy", "production", stdin="n\n", terminal=True)
    assert no.status == 1
    assert 'Destroy the environment "production"' in no.out
    assert "nothing was changed" in no.err
    assert production.run("env", "destroy", "production", stdin="", terminal=True).status == 130
    assert len(production.json("env", "list")) == 1
    assert production.run("env", "destroy", "production", stdin="y\n", terminal=True).status == 0
    assert production.json("env", "list") == []


def test_prefixes_keep_relays_of_one_redis_apart(cli: Cli) -> None:
    cli.ok("env", "create", "production")
    cli.ok("env", "create", "production", "--prefix", "other")
    cli.ok("flags", "put", "x", "--env", "production", stdin=json.dumps(FLAG))
    assert cli.json("env", "list")[0]["flags"] == 1
    assert cli.json("env", "list", FLAGRELAY_PREFIX="other")[0]["flags"] == 0


def test_settings_are_shown_changed_one_by_one_and_kept(production: Cli) -> None:
    assert production.ok("env", "set", "production") == "fractional: v3\norigins: none\n"
    out = production.ok(
        "env", "set", "production", "--origin", "https://a.example", "--origin", "http://b.example:8080"
    )
    assert "origins: https://a.example http://b.example:8080" in out
    assert "(revision 1)" in out
    settings = production.json("env", "set", "production", "--fractional", "v2", "--reason", "as our SDKs have it")
    assert settings["fractional"] == "v2"
    assert settings["origins"] == ["https://a.example", "http://b.example:8080"]
    assert settings["revision"] == 2
    assert production.json("env", "set", "production", "--no-origins")["origins"] == []
    assert production.ok("env", "set", "production") == "fractional: v2\norigins: none\n"


def test_history_says_which_settings_were_set(production: Cli) -> None:
    production.ok("env", "set", "production", "--fractional", "v2", "--no-origins", "--reason", "old SDKs")
    [entry] = production.json("history")
    assert (entry["action"], entry["detail"]) == ("env set", {"settings": ["fractional", "origins"]})
    [_, line] = production.ok("history").splitlines()
    assert line.split("\t")[1:] == ["1", "env set", "setting fractional, setting origins", "ada", "old SDKs"]


def test_what_is_no_setting_is_refused(production: Cli) -> None:
    for origin in ("www.example.com", "https://a.example/path", "https://", "https://user@a.example", "null"):
        assert "is no origin" in production.refused("env", "set", "production", "--origin", origin)
    assert "Invalid value" in production.misused("env", "set", "production", "--fractional", "v9")
    assert "does not exist" in production.refused("env", "set", "nope", "--fractional", "v2")
    assert production.ok("env", "set", "production") == "fractional: v3\norigins: none\n"
