"""`flagrelay populations`."""

import json
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli.populations import MAX_KEYS_BYTES
from support.cli import AT_A_TERMINAL, FLAG, Cli
from support.released import HOSTILE, quiet

RULE = {"==": [{"var": "plan"}, "beta"]}


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def rules(cli: Cli) -> Any:
    return json.loads(cli.ok("flags", "export")).get("$evaluators", {})


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--equals", "plan=beta"], RULE),
        (["--equals", "user.plan=a=b"], {"==": [{"var": "user.plan"}, "a=b"]}),
        (["--equals", "plan="], {"==": [{"var": "plan"}, ""]}),
        (["--equals", "age=18"], {"==": [{"var": "age"}, 18]}),
        (["--equals", "age=1.0"], {"==": [{"var": "age"}, 1.0]}),
        (["--equals", "beta=true"], {"==": [{"var": "beta"}, True]}),
        (["--equals", "plan=null"], {"==": [{"var": "plan"}, "null"]}),
        (["--equals", 'plan={"a"'], {"==": [{"var": "plan"}, '{"a"']}),
        (["--in", "region=de,fr,1"], {"in": [{"var": "region"}, ["de", "fr", 1]]}),
        (["--email-domain", "@Example.com"], {"ends_with": [{"var": "email"}, "@example.com"]}),
        (
            ["--email-domain", "example.com", "--email-domain", "example.org"],
            {"or": [{"ends_with": [{"var": "email"}, f"@example.{end}"]} for end in ("com", "org")]},
        ),
    ],
    ids=str,
)
def test_a_population_is_put_in_its_simple_forms(production: Cli, words: list[str], rule: Any) -> None:
    assert production.ok("populations", "put", "p", *words) == 'population "p" is written (revision 1)\n'
    assert json.dumps(rules(production)) == json.dumps({"p": rule})


def test_a_rule_comes_from_a_file_or_standard_input_as_json_or_yaml(production: Cli, tmp_path: Path) -> None:
    put = ("populations", "put")
    production.ok(*put, "a", "--rule", written(tmp_path / "rule.json", json.dumps(RULE)))
    production.ok(*put, "b", "--rule", written(tmp_path / "rule.yaml", '"==": [{var: plan}, beta]'))
    production.ok(*put, "c", "--rule", "-", stdin=json.dumps(RULE))
    production.ok(*put, "d", "--rule", "-", "--format", "yaml", stdin='"==": [{var: plan}, beta]')
    assert rules(production) == dict.fromkeys("abcd", RULE)
    assert "not JSON" in production.refused(*put, "e", "--rule", "-", stdin="{")
    assert "nonsense" in production.refused(*put, "e", "--rule", "-", stdin='{"nonsense": 1}')
    assert "object" in production.refused(*put, "e", "--rule", "-", stdin="[]")
    assert "No such file" in production.refused(*put, "e", "--rule", str(tmp_path / "none.json"))


def test_targeting_keys_come_from_a_file_one_a_line(production: Cli, tmp_path: Path) -> None:
    keys = written(tmp_path / "keys.txt", "\ufeff# the team\r\nu2\r\n\n  u1\t\nu2\nü 😀\n")
    said = production.json("populations", "put", "p", "--keys", keys, "--risk", "1", "--reason", "new")
    assert (said["revision"], said["changed"], len(said["epoch"])) == (1, True, 32)
    assert rules(production) == {"p": {"in": [{"var": "targetingKey"}, ["u1", "u2", "ü 😀"]]}}
    assert production.ok("populations", "members", "p") == "u1\nu2\nü 😀\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"u1\nu2\xff\n", "line 2: not UTF-8"),
        (b"u1\n\na\x07b\n", "line 3: a targeting key has no control characters"),
        (b"x" * 257, "line 1: a targeting key has 1 to 256 characters, and this one 257"),
        (b"# nobody\n\n", "has no targeting keys"),
        (b"", "has no targeting keys"),
        (b"#" * (MAX_KEYS_BYTES + 1), "has more than 16 MiB"),
    ],
    ids=["no UTF-8", "control characters", "too long", "comments alone", "nothing", "too large"],
)
def test_a_list_of_keys_that_is_none_is_refused_with_file_and_line(
    production: Cli, tmp_path: Path, text: bytes, why: str
) -> None:
    production.ok("populations", "put", "p", "--equals", "plan=beta")
    path = written(tmp_path / "keys.txt", text)
    said = production.refused("populations", "put", "p", "--keys", path)
    assert said.startswith(path)
    assert why in said
    assert rules(production) == {"p": RULE}
    assert production.json("env", "list")[0]["revision"] == 1


def test_too_many_keys_are_refused(production: Cli, tmp_path: Path) -> None:
    path = written(tmp_path / "keys.txt", "".join(f"u{number}\n" for number in range(100_001)))
    said = production.refused("populations", "put", "p", "--keys", path)
    assert said.startswith(f"{path}: has 100,001 targeting keys, and the most is 100,000")
    assert "No such file" in production.refused("populations", "put", "p", "--keys", str(tmp_path / "none"))
    assert "directory" in production.refused("populations", "put", "p", "--keys", str(tmp_path))


def test_without_a_form_only_what_is_said_of_it_changes(production: Cli) -> None:
    assert "it is not there yet" in production.refused("populations", "put", "p", "--description", "who")
    production.ok("populations", "put", "p", "--equals", "plan=beta", "--description", "who", "--risk", "7")
    production.ok("populations", "put", "p", "--risk", "8")
    production.ok("populations", "put", "p", "--description", "")
    [found] = production.json("populations", "list")
    assert (found["description"], found["risk"], found["shown"]) == ("", 8, 'plan is "beta"')
    assert rules(production) == {"p": RULE}


def test_what_makes_no_population_is_refused(production: Cli) -> None:
    put = ("populations", "put", "p")
    assert "and not several" in production.refused(*put, "--equals", "a=1", "--in", "a=1,2")
    for words in (("--equals", "plan"), ("--in", "=a"), ("--equals", "=")):
        assert "takes ATTRIBUTE=VALUE" in production.misused(*put, *words)
    assert "is no domain" in production.refused(*put, "--email-domain", "a b")
    assert "1001 is not in the range" in production.misused(*put, "--equals", "a=1", "--risk", "1001")
    assert "it is empty" in production.misused("populations", "put", " ", "--equals", "a=1")
    assert "control characters" in production.refused("populations", "put", "a\tb", "--equals", "a=1")
    assert production.json("env", "list")[0]["revision"] == 0


def test_populations_are_listed_for_people_and_for_scripts(production: Cli) -> None:
    assert "no populations yet: flagrelay populations put NAME" in production.run("populations", "list").err
    production.ok("populations", "put", "b", "--equals", "plan=beta", "--risk", "20", "--description", "two\nlines")
    production.ok("populations", "put", "a", "--in", "region=de,fr")
    production.ok("populations", "put", "c", "--email-domain", "example.com", "--risk", "0")
    uses = {**FLAG, "targeting": {"if": [{"$ref": "b"}, "on", "off"]}}
    for number in range(7):
        production.ok("flags", "put", f"f{number}", stdin=json.dumps(uses))
    users = ", ".join(f'flag "f{number}"' for number in range(5))
    assert production.ok("populations", "list").split("\n") == [
        "NAME\tRISK\tWHO IS IN IT\tUSED BY\tDESCRIPTION",
        "c\t0\temail at example.com\t-\t-",
        f'b\t20\tplan is "beta"\t{users} and 2 more\ttwo lines',
        'a\t-\tregion is one of "de", "fr"\t-\t-',
        "",
    ]
    listed = production.json("populations", "list")
    assert [each["name"] for each in listed] == ["c", "b", "a"]
    assert listed[0] == {
        "name": "c",
        "revision": 3,
        "description": "",
        "risk": 0,
        "kind": "email",
        "shown": "email at example.com",
        "keys": None,
        "used_by": [],
    }
    assert len(listed[1]["used_by"]) == 7


def test_members_are_told_and_counted_over_a_sample(production: Cli, tmp_path: Path) -> None:
    production.ok("populations", "put", "keys", "--keys", written(tmp_path / "keys", "u1\nu2\n"))
    production.ok("populations", "put", "beta", "--equals", "plan=beta")
    sample = written(tmp_path / "s.jsonl", '{"targetingKey": "u1"}\n\n{"plan": "beta"}\n{"plan": "free"}\n')
    members = ("populations", "members")
    assert production.ok(*members, "beta") == 'population "beta": plan is "beta"\n'
    outcome = production.run(*members, "keys", "--sample", sample)
    assert (outcome.out, outcome.err) == ("u1\nu2\n", "1 of 3 contexts are in it (33.33%)\n")
    outcome = production.run(*members, "beta", "--sample", "-", stdin=Path(sample).read_bytes())
    assert outcome.out == "1 of 3 contexts are in it (33.33%)\n"
    assert outcome.err == 'population "beta": plan is "beta"\n'
    assert production.json(*members, "keys", "--sample", sample) == {
        "name": "keys",
        "shown": "2 targeting keys",
        "keys": ["u1", "u2"],
        "contexts": 3,
        "members": 1,
    }
    assert 'no population "none"' in production.refused(*members, "none")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}\nwhat\n", "line 2 is not JSON"),
        ("{}\n\n[1]\n", "line 3 is no context"),
        ('"x"', "line 1 is no context"),
        ("\n", "no contexts"),
    ],
)
def test_a_sample_that_is_none_is_refused_with_file_and_line(
    production: Cli, tmp_path: Path, text: str, why: str
) -> None:
    production.ok("populations", "put", "p", "--equals", "plan=beta")
    path = written(tmp_path / "s.jsonl", text)
    said = production.refused("populations", "members", "p", "--sample", path)
    assert said.startswith(path)
    assert why in said
    assert "No such file" in production.refused("populations", "members", "p", "--sample", str(tmp_path / "none"))


def test_a_population_is_deleted_once_nobody_uses_it(production: Cli) -> None:
    production.ok("populations", "put", "p", "--equals", "plan=beta")
    uses = {**FLAG, "targeting": {"if": [{"$ref": "p"}, "on", "off"]}}
    production.ok("flags", "put", "x", stdin=json.dumps(uses))
    said = production.refused("populations", "delete", "p")
    assert said == 'population "p" is used by flag "x"; nothing was changed'
    production.ok("flags", "delete", "x")
    assert (
        production.ok("populations", "delete", "p", "--reason", "closed") == 'population "p" is deleted (revision 4)\n'
    )
    assert 'no population "p"' in production.refused("populations", "delete", "p")
    assert production.json("populations", "list") == []


def test_what_others_wrote_is_seen_and_does_nothing(production: Cli, redis_command: Any) -> None:
    keys = {"in": [{"var": "targetingKey"}, ["u\x1b[31m1\u0085", "u\n2"]]}
    production.ok("populations", "put", HOSTILE, "--rule", "-", stdin=json.dumps(keys))
    production.ok("populations", "put", "other", "--equals", "a=\x9b[bold]\u2028", "--description", HOSTILE)
    redis_command("HSET", "flagrelay:{production}:populations", "other", '{"description":"\\u001b[31m[red]\\nx"}')
    for words in (("list",), ("members", HOSTILE), ("members", "other")):
        for terminal in (production, Cli({**production.environment, **AT_A_TERMINAL})):
            outcome = terminal.run("populations", *words)
            assert outcome.status == 0
            assert quiet(outcome.out + outcome.err)
            shown = {"list": "[bold]a[/bold]", HOSTILE: "u [31m1", "other": "[bold]"}[words[-1]]
            assert shown in outcome.out
    assert len(production.ok("populations", "list").splitlines()) == 3
    assert len(production.ok("populations", "members", HOSTILE).splitlines()) == 2
    assert quiet(production.ok("populations", "put", HOSTILE, "--risk", "1"))
