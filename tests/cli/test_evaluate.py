"""`flagrelay eval` and `flagrelay explain`, from Redis and through a relay that runs as a process."""

import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli

RULE = {
    "if": [
        {"$ref": "dev-team"},
        "on",
        {"and": [{"==": [{"var": "plan"}, "pro"]}, {"sem_ver": [{"var": "version"}, ">=", "2.1.0"]}]},
        "on",
        {"fractional": [["on", 10], ["off", 90]]},
    ]
}
FLAGS: dict[str, Any] = {
    "flags": {
        "checkout-v2": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "off",
            "targeting": RULE,
            "metadata": {"owner": "shop"},
        },
        "static": {"state": "ENABLED", "variants": {"a": {"x": 1}}, "defaultVariant": "a"},
        "dark": {"state": "DISABLED", "variants": {"a": 1.0}, "defaultVariant": "a"},
        "lost": {"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [True, "nowhere"]}},
        "a/b c%": {"state": "ENABLED", "variants": {"a": "ä"}, "defaultVariant": "a"},
    },
    "$evaluators": {"dev-team": {"in": [{"var": "email"}, ["ada@example.com"]]}},
    "metadata": {"team": "checkout"},
}
ADA = json.dumps({"targetingKey": "u1", "email": "ada@example.com"})


@pytest.fixture
def flags(production: Cli) -> Cli:
    """With flags of every kind."""
    production.ok("flags", "import", "-", stdin=json.dumps(FLAGS))
    return production


@contextlib.contextmanager
def relay(cli: Cli) -> Iterator[str]:
    """The address of a relay that serves."""
    with cli.process("serve", "--port", "0", "--verify-interval", "0.1") as process:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{url}/readyz", timeout=5):
                break
            time.sleep(0.02)
        yield url


def key(cli: Cli, kind: str) -> str:
    secret: str = cli.json("keys", "create", "--kind", kind, "--name", "a test's")["key"]
    return secret


@pytest.mark.parametrize(
    ("flag", "context", "line"),
    [
        ("checkout-v2", ADA, 'true  (variant "on", TARGETING_MATCH)'),
        ("checkout-v2", '{"targetingKey": "u1"}', 'false  (variant "off", TARGETING_MATCH)'),
        ("checkout-v2", "{}", 'false  (variant "off", DEFAULT)'),
        ("static", "{}", '{"x":1}  (variant "a", STATIC)'),
        ("dark", "{}", "the caller's own default  (DISABLED)"),
        ("a/b c%", "{}", '"ä"  (variant "a", STATIC)'),
    ],
)
def test_eval_says_what_a_flag_says(flags: Cli, flag: str, context: str, line: str) -> None:
    assert flags.ok("eval", flag, "--context", context) == f"{line}\n"


def test_eval_prints_everything_as_json(flags: Cli) -> None:
    assert flags.json("eval", "checkout-v2", "--context", ADA) == {
        "key": "checkout-v2",
        "value": True,
        "variant": "on",
        "reason": "TARGETING_MATCH",
        "metadata": {"team": "checkout", "owner": "shop"},
    }
    assert "value" not in flags.json("eval", "dark")


def test_eval_fails_where_a_flag_says_nothing(flags: Cli) -> None:
    assert flags.refused("eval", "nope") == 'FLAG_NOT_FOUND: there is no flag "nope"'
    assert flags.refused("eval", "lost") == 'GENERAL: flag "lost" has no variant "nowhere"'
    outcome = flags.run("eval", "lost", "--json")
    assert outcome.status == 1
    assert json.loads(outcome.out)["errorCode"] == "GENERAL"


def test_a_context_comes_from_a_file_too(flags: Cli, tmp_path: Path) -> None:
    file = tmp_path / "context.json"
    file.write_text(ADA, encoding="utf-8")
    assert flags.ok("eval", "checkout-v2", "--context", f"@{file}").startswith("true")
    assert "cannot read" in flags.misused("eval", "checkout-v2", "--context", f"@{tmp_path}/none.json")


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ("{", "not JSON"),
        ("[]", "the context should be an object"),
        ('{"targetingKey": 1}', "targetingKey should be a string"),
        ('{"a": 1, "a": 2}', "stands twice"),
    ],
)
def test_what_is_no_context_is_refused(flags: Cli, context: str, why: str) -> None:
    assert why in flags.misused("eval", "checkout-v2", "--context", context)


def test_eval_keeps_to_the_generation_of_the_environment(flags: Cli) -> None:
    contexts = [json.dumps({"targetingKey": f"user-{number}"}) for number in range(40)]
    before = [flags.json("eval", "checkout-v2", "--context", context)["variant"] for context in contexts]
    flags.ok("env", "set", "production", "--fractional", "v2")
    after = [flags.json("eval", "checkout-v2", "--context", context)["variant"] for context in contexts]
    assert before != after


def test_explain_shows_the_way_through_the_rule(flags: Cli) -> None:
    lines = flags.ok("explain", "checkout-v2", "--context", '{"targetingKey": "u1", "plan": "pro"}').splitlines()
    text = "\n".join(lines)
    assert 'if → "off"  [else]' in lines[0]
    assert '$ref → false  [population "dev-team"]' in text
    assert "== → true" in text
    assert 'var → "pro"  [plan]' in text
    assert "sem_ver → null" in text
    assert re.search(r"bucket \d+ of 100: on 0-9, off 10-99; by targeting key 'u1' \(v3\)", text)
    assert lines[-1] == 'checkout-v2 = false  (variant "off", TARGETING_MATCH)'


def test_explain_stops_at_the_branch_that_was_taken(flags: Cli) -> None:
    text = flags.ok("explain", "checkout-v2", "--context", ADA)
    assert "[branch 1]" in text
    assert "sem_ver" not in text
    assert "fractional" not in text


def test_explain_gives_scripts_every_step_and_the_result(flags: Cli) -> None:
    explained = flags.json("explain", "checkout-v2", "--context", ADA)
    assert (explained["variant"], explained["reason"]) == ("on", "TARGETING_MATCH")
    assert explained["steps"]["operator"] == "if"
    assert explained["steps"]["steps"][0]["path"] == "targeting.if[0].$ref"


def test_explain_says_where_no_rule_was_run(flags: Cli) -> None:
    assert flags.ok("explain", "static").startswith("no rule was run\nstatic = ")
    assert flags.ok("explain", "dark").startswith("no rule was run\n")
    assert 'has no flag "nope"' in flags.refused("explain", "nope")
    outcome = flags.run("explain", "lost")
    assert outcome.status == 1
    assert "GENERAL" in outcome.out


def test_both_ask_a_relay(flags: Cli) -> None:
    server, client, admin = (key(flags, kind) for kind in ("server", "client", "admin"))
    with relay(flags) as url:
        for secret in (server, client):
            asked = ("eval", "checkout-v2", "--url", url, "--access-key", secret, "--context", ADA)
            assert flags.ok(*asked) == 'true  (variant "on", TARGETING_MATCH)\n'
        assert flags.ok("eval", "a/b c%", "--url", url, FLAGRELAY_ACCESS_KEY=client).startswith('"ä"')
        assert flags.refused("eval", "nope", "--url", url, "--access-key", client).startswith("FLAG_NOT_FOUND")
        assert "403 WRONG_KEY_KIND" in flags.refused("eval", "static", "--url", url, "--access-key", admin)
        explained = flags.ok("explain", "checkout-v2", "--url", url, "--access-key", server, "--context", ADA)
        assert explained.endswith('checkout-v2 = true  (variant "on", TARGETING_MATCH)\n')
        assert "403 WRONG_KEY_KIND" in flags.refused("explain", "static", "--url", url, "--access-key", client)
    assert "cannot be reached" in flags.refused("eval", "static", "--url", url, "--access-key", client)
    assert "--access-key" in flags.misused("eval", "static", "--url", url)


def test_somebody_must_be_asked(cli: Cli) -> None:
    assert "--env" in cli.misused("eval", "static")
    assert 'environment "nope" does not exist' in cli.refused("eval", "static", "--env", "nope")


def test_a_keys_token_is_printed_as_often_as_it_is_asked_for_and_is_not_the_key(production: Cli) -> None:
    created = production.json("keys", "create", "--kind", "client", "--name", "web")
    token = production.ok("keys", "token", created["id"]).strip()
    assert token == production.json("keys", "token", created["id"])["token"]
    assert token.startswith(created["id"])
    assert created["key"] not in token
    assert "no access key has the id" in production.refused("keys", "token", "nope")


def test_an_import_refuses_what_would_not_compile_and_names_the_place_in_the_rule(production: Cli) -> None:
    flag = {"state": "ENABLED", "variants": {"on": True}, "targeting": {"if": [{"startswith": ["a", "b"]}, "on"]}}
    refusal = production.refused("flags", "import", "-", stdin=json.dumps({"flags": {"x": flag}}))
    assert (
        'flag "x": at targeting.if[0].startswith: "startswith" is no operator; did you mean "starts_with"?' in refusal
    )
    missing = {**flag, "targeting": {"if": [{"$ref": "nobody"}, "on"]}}
    for words, document in (
        (("flags", "import", "-"), {"flags": {"x": missing}}),
        (("flags", "put", "x"), missing),
    ):
        refusal = production.refused(*words, stdin=json.dumps(document))
        assert 'flag "x": at targeting.if[0].$ref: there is no population "nobody"' in refusal
    assert production.json("flags", "list") == []


def test_a_flag_may_refer_to_a_population_that_the_environment_has(flags: Cli) -> None:
    flag = {"state": "ENABLED", "variants": {"on": True}, "targeting": {"if": [{"$ref": "dev-team"}, "on"]}}
    flags.ok("flags", "put", "y", stdin=json.dumps(flag))
    flags.ok("flags", "import", "-", stdin=json.dumps({"flags": {"z": flag}}))
    refusal = flags.refused("flags", "import", "-", "--prune", stdin=json.dumps({"flags": {"z": flag}}))
    assert "there is no population" in refusal


def test_explain_ends_whatever_a_rule_gives(production: Cli) -> None:
    doubling = {"reduce": [{"merge": [list(range(60))]}, {"map": [[1, 2], {"var": "accumulator"}]}, "x"]}
    doubled = {"reduce": [list(range(60)), [{"var": "accumulator"}, {"var": "accumulator"}], 1]}
    deep = {"reduce": [list(range(2000)), [{"var": "accumulator"}], {"/": [1, 0]}]}
    for rule in (doubling, doubled, deep):
        flag = {"state": "ENABLED", "variants": {"on": True}, "targeting": {"if": [rule, "on"]}, "defaultVariant": "on"}
        production.ok("flags", "put", "x", "--force", stdin=json.dumps(flag))
        assert production.ok("explain", "x").endswith("TARGETING_MATCH)\n")
        assert production.json("explain", "x")["variant"] == "on"
