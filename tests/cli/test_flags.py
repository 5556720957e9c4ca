"""`flagrelay flags`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli.private_redis import PrivateRedis
from support.cli import FLAG, Cli
from support.served import served

TEXT = json.dumps(FLAG)
OTHER = {**FLAG, "defaultVariant": "on"}


def put(cli: Cli, key: str, definition: object = FLAG, *words: str) -> Any:
    return cli.json("flags", "put", key, *words, stdin=json.dumps(definition))


def get(cli: Cli, key: str) -> Any:
    return cli.json("flags", "get", key)


def test_a_flag_is_put_and_got_and_deleted(production: Cli) -> None:
    written = put(production, "checkout-v2", FLAG, "--reason", "ready")
    assert (written["revision"], written["changed"]) == (1, True)
    assert written["at"] > 1_700_000_000_000_000, "microseconds since 1970"
    assert get(production, "checkout-v2") == FLAG
    assert json.loads(production.ok("flags", "get", "checkout-v2")) == FLAG
    assert put(production, "checkout-v2", OTHER)["revision"] == 2
    assert get(production, "checkout-v2") == OTHER
    assert production.json("flags", "delete", "checkout-v2", "--reason", "done")["revision"] == 3
    assert 'no flag "checkout-v2"' in production.refused("flags", "get", "checkout-v2")
    assert 'no flag "checkout-v2"' in production.refused("flags", "delete", "checkout-v2")


def test_what_is_stored_is_what_was_given(production: Cli) -> None:
    definition = {
        "state": "ENABLED",
        "variants": {"a": 1.0, "b": 2, "c": 1e300, "d": 18446744073709551615, "e": -0.0},
        "targeting": {"if": [{"==": [{"var": "größe"}, "\u2028\x7f\U0001f600"]}, [], {}]},
        "metadata": {"owner": "søk", "on": True, "n": 1.5},
    }
    put(production, "søk/größe", definition)
    got = production.ok("flags", "get", "søk/größe")
    assert json.dumps(json.loads(got)) == json.dumps(definition), "1.0 is not 1, and the order is kept"


def test_a_definition_comes_from_a_file_as_json_or_yaml(production: Cli, tmp_path: Path) -> None:
    plain, yaml = tmp_path / "flag.json", tmp_path / "flag.yml"
    plain.write_text(TEXT)
    yaml.write_text('state: ENABLED\nvariants: {"on": true, "off": false}\ndefaultVariant: "on"\n')
    production.ok("flags", "put", "a", "--file", str(plain))
    production.ok("flags", "put", "b", "--file", str(yaml))
    production.ok("flags", "put", "c", "--format", "yaml", stdin=yaml.read_text())
    assert [get(production, key) for key in "abc"] == [FLAG, OTHER, OTHER]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "should be an object and is an array"),
        ("{}", "at state: missing"),
        ('{"state": "ENABLED", "state": "DISABLED", "variants": {"on": true}}', '"state" stands twice'),
        ('{"state": "ENABLED", "variants": {"on": NaN}}', "NaN is no JSON number"),
        ('{"state": "ENABLED", "variants": {"on": 1e999}}', "variants.on: inf is no JSON number"),
        ('{"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "of"}', '"of" is none of the variants: on'),
        ('{"state": "ENABLED", "variants": {"on": true}, "colour": 1}', "colour: unknown member"),
        ('{"state": "ON", "variants": {"on": true}}', "neither ENABLED nor DISABLED"),
        ('{"state": "ENABLED", "variants": {"on": "' + "x" * 300_000 + '"}}', "the most is 262144"),
        ('{"state": "ENABLED", "variants": {"on": ' + '{"a":' * 40 + "1" + "}" * 40 + "}}", "nests deeper than 32"),
        ("[" * 100_000, "nests deeper than 200"),
        ('{"' + '\\"' * 500_000, "not JSON: Unterminated string"),
        ("[" * 201 + '"]', "nests deeper than 200"),
        (b"\xff", "not UTF-8, at byte 0"),
    ],
)
def test_a_definition_that_is_wrong_is_refused_with_where_and_why(production: Cli, text: str | bytes, why: str) -> None:
    assert why in production.refused("flags", "put", "x", stdin=text)
    assert production.json("env", "list")[0]["revision"] == 0


def test_a_key_that_is_none_is_refused(production: Cli) -> None:
    assert "control characters" in production.refused("flags", "put", "a\tb", stdin=TEXT)
    assert "257 characters" in production.misused("flags", "put", "x" * 257, stdin=TEXT)
    put(production, "x" * 256)


def test_a_file_that_is_not_there_is_refused(production: Cli, tmp_path: Path) -> None:
    assert "No such file" in production.refused("flags", "put", "x", "--file", str(tmp_path / "none.json"))
    assert "directory" in production.refused("flags", "import", str(tmp_path))


def test_a_terminal_is_told_that_it_is_waited_for(production: Cli) -> None:
    outcome = production.run("flags", "put", "x", stdin=TEXT, terminal=True)
    assert outcome.status == 0
    assert "Ctrl-D" in outcome.err


def test_a_flag_may_be_written_at_a_known_revision_only(production: Cli) -> None:
    assert put(production, "x", FLAG, "--if-revision", "0")["revision"] == 1
    assert "is at revision 1" in production.refused("flags", "put", "x", "--if-revision", "0", stdin=TEXT)
    assert put(production, "x", OTHER, "--if-revision", "1")["revision"] == 2
    assert "made from revision 7" in production.refused("flags", "put", "x", "--if-revision", "7", stdin=TEXT)
    assert "does not exist" in production.refused("flags", "put", "y", "--if-revision", "7", stdin=TEXT)
    assert get(production, "x") == OTHER


def test_flags_are_listed_for_people_and_for_scripts(production: Cli) -> None:
    assert "no flags yet" in production.run("flags", "list").err
    put(production, "b", {"state": "DISABLED", "variants": {"low": 0.1, "high": 2}})
    put(production, "a", {"state": "ENABLED", "variants": {"x": "text"}, "defaultVariant": "x"})
    put(production, "c", {"state": "ENABLED", "variants": {"x": {"k": 1}}, "defaultVariant": None})
    put(production, "d")
    production.ok("kill", "d", "--reason", "broken")
    put(production, "e")
    production.ok("kill", "e", "--to", "on", "--reason", "wanted")
    assert production.ok("flags", "list").splitlines() == [
        "KEY\tSTATE\tTYPE\tVARIANTS\tDEFAULT\tREVISION\tRELEASE",
        "a\tENABLED\tstring\tx\tx\t2\t-",
        "b\tDISABLED\tnumber\tlow, high\t-\t1\t-",
        "c\tENABLED\tobject\tx\t-\t3\t-",
        "d\tKILLED\tboolean\ton, off\toff\t5\t-",
        "e\tKILLED: on\tboolean\ton, off\ton\t7\t-",
    ]
    listed = {each["key"]: each for each in production.json("flags", "list")}
    assert listed["b"] == {
        "key": "b",
        "revision": 1,
        "state": "DISABLED",
        "type": "number",
        "variants": ["low", "high"],
        "defaultVariant": None,
        "killed": None,
        "stage": None,
    }
    assert listed["d"]["killed"] == {
        "at": listed["d"]["killed"]["at"],
        "actor": "ada",
        "reason": "broken",
        "to": None,
    }
    assert listed["e"]["killed"]["to"] == "on"


@pytest.mark.parametrize("words", [("put", "x"), ("delete", "x"), ("import", "-")], ids=lambda words: words[0])
def test_an_edit_does_not_bring_back_a_killed_flag_by_itself(production: Cli, words: tuple[str, ...]) -> None:
    put(production, "x")
    put(production, "other")
    production.ok("kill", "x", "--reason", "error rate", "--actor", "grace")
    document = {"flags": {"x": OTHER, "other": OTHER}} if words[0] == "import" else OTHER
    line = production.refused("flags", *words, stdin=json.dumps(document))
    assert 'flag "x" is killed by grace' in line
    assert "error rate" in line
    assert "revive" in line
    assert get(production, "x")["state"] == "DISABLED"
    assert get(production, "other") == FLAG, "all or nothing"
    production.ok("flags", *words, "--force", stdin=json.dumps(document))
    assert "not killed" in production.run("revive", "x").err or words[0] == "delete"


def test_get_says_that_a_flag_is_killed_beside_what_is_served(production: Cli) -> None:
    put(production, "x")
    production.ok("kill", "x", "--reason", "error\nrate")
    outcome = production.run("flags", "get", "x")
    assert json.loads(outcome.out) == {**FLAG, "state": "DISABLED"}
    assert "killed by ada since 2" in outcome.err
    assert "UTC (error rate)" in outcome.err
    assert production.run("flags", "get", "x", "--json").err == ""


def test_a_flag_that_something_else_wrote_does_not_break_the_list(production: Cli, redis_command: Any) -> None:
    put(production, "x")
    redis_command("HSET", "flagrelay:{production}:flags", "x", '{"revision":1,"flag":{"state":7}}')
    assert production.ok("flags", "list").splitlines()[1] == "x\tINVALID\t\t\t-\t1\t-"
    assert production.json("flags", "list")[0]["state"] == "INVALID"


@pytest.mark.parametrize(
    "words",
    [
        ("flags", "list"),
        ("flags", "get", "x"),
        ("flags", "put", "x"),
        ("flags", "delete", "x"),
        ("flags", "import", "-"),
        ("flags", "export"),
        ("kill", "x", "--reason", "y"),
        ("revive", "x"),
        ("watch",),
        ("keys", "create", "--kind", "server", "--name", "x"),
    ],
    ids=" ".join,
)
def test_an_environment_that_does_not_exist_is_never_made_by_the_way(cli: Cli, words: tuple[str, ...]) -> None:
    text = '{"flags": {}}' if "import" in words else TEXT
    assert '"nowhere" does not exist' in cli.refused(*words, "--env", "nowhere", stdin=text)
    assert cli.json("env", "list") == []


def test_a_table_at_a_terminal_shows_what_is_there_and_no_markup_of_its_own(production: Cli) -> None:
    put(production, "[red]x[/red]", {"state": "ENABLED", "variants": {"[b]": 1}, "defaultVariant": "[b]"})
    table = production.ok("flags", "list", FORCE_COLOR="1", COLUMNS="100")
    assert "\x1b[1m" in table, "a bold header"
    assert "\t" not in table
    assert "[red]x[/red]  ENABLED  number  [b]       [b]      1" in table


@pytest.mark.parametrize("columns", ["80", "30"])
@pytest.mark.parametrize("length", [1, 24, 38, 41, 100, 256])
def test_a_table_cuts_nothing_off_however_narrow_the_terminal_is(production: Cli, columns: str, length: int) -> None:
    variants = {f"variant-number-{number}": number for number in range(9)}
    put(production, "k" * length, {"state": "ENABLED", "variants": variants, "defaultVariant": "variant-number-8"})
    table = production.ok("flags", "list", FORCE_COLOR="1", COLUMNS=columns)
    assert "…" not in table
    cells = "".join(table.replace("\x1b[1m", "").replace("\x1b[0m", "").split())
    assert cells.count("k") == length
    if columns == "80" and length <= 38:
        assert "k" * length in table, "a key that is not very long can be copied"


async def test_all_of_it_is_done_by_a_relays_control_api_too(
    production: Cli, redis_server: PrivateRedis, tmp_path: Path
) -> None:
    async def told(cli: Cli, *words: str, stdin: object = None) -> str:
        return await asyncio.to_thread(cli.ok, *words, stdin=json.dumps(stdin))

    key = json.loads(await told(production, "keys", "create", "--kind", "admin", "--name", "grace", "--json"))["key"]
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {"z": FLAG}}))
    async with served(redis_server.url, tmp_path, "--env", "production", "--admin-api") as relay:
        far = Cli({"FLAGRELAY_URL": f"http://127.0.0.1:{relay.port}", "FLAGRELAY_ADMIN_KEY": key})
        assert "written in" in await told(far, "flags", "put", "x/ö", "--wait", stdin=OTHER)
        document = {"flags": {"y": {**FLAG, "variants": {"off": 1.0}}}}
        assert (await told(far, "flags", "import", "-", stdin=document)).startswith("flags: 1 added, 0 replaced")
        assert "1 applied (revision 3)" in await told(far, "sync", str(path), "--apply")
        assert [line.split("\t")[0] for line in (await told(far, "flags", "list")).splitlines()[1:]] == [
            "x/ö",
            "y",
            "z",
        ]
        assert json.loads(await told(far, "flags", "get", "x/ö")) == OTHER
        assert '"off": 1.0' in await told(far, "flags", "export")
        await told(far, "flags", "delete", "x/ö")
        refused = [await asyncio.to_thread(cli.refused, "flags", "get", "x/ö") for cli in (far, production)]
    assert refused[0] == refused[1]
    history = json.loads(await told(production, "history", "--json"))
    assert [(each["action"], each["actor"]) for each in history] == [
        *(("delete", "grace"), ("sync", "grace"), ("import", "grace"), ("put", "grace"), ("keys create", "ada")),
    ]
