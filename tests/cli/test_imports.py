"""`flagrelay flags import` and `export`."""

import json
from pathlib import Path

import pytest

import flagrelay.cli
from support.cli import FLAG, Cli

DEMO = Path(flagrelay.cli.__file__).parent / "demo_flags.yaml"
OTHER = {**FLAG, "defaultVariant": "on"}


def write(folder: Path, document: object, name: str = "flags.json") -> str:
    (folder / name).write_text(json.dumps(document))
    return str(folder / name)


def test_an_import_is_one_change_with_a_summary(production: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, {"flags": {"a": FLAG, "b": FLAG}, "$evaluators": {"beta": {"in": ["x", {"var": "y"}]}}})
    assert production.ok("flags", "import", path) == (
        "flags: 2 added, 0 replaced, 0 deleted, 0 unchanged, 1 populations (revision 1)\n"
    )
    path = write(tmp_path, {"flags": {"b": OTHER, "c": FLAG}, "metadata": {"team": "x"}})
    summary = production.json("flags", "import", path, "--reason", "nightly")
    assert summary.pop("at") > 0
    assert summary.pop("epoch") == production.json("env", "list")[0]["epoch"]
    assert summary == {
        "revision": 2,
        "changed": True,
        "added": ["c"],
        "replaced": ["b"],
        "deleted": [],
        "populations": [],
        "metadata": True,
        "unchanged": 0,
    }
    assert [flag["key"] for flag in production.json("flags", "list")] == ["a", "b", "c"]


def test_what_is_equal_is_not_written(production: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, {"flags": {"a": FLAG, "b": {"state": "ENABLED", "variants": {"x": 1.0}}}})
    production.ok("flags", "import", path)
    assert production.json("flags", "import", path)["changed"] is False
    reordered = {"flags": {"b": {"variants": {"x": 1.0}, "state": "ENABLED"}, "a": FLAG}}
    assert production.json("flags", "import", write(tmp_path, reordered))["unchanged"] == 2
    assert production.ok("flags", "import", path).endswith("2 unchanged; nothing was written\n")
    another = {"flags": {"b": {"state": "ENABLED", "variants": {"x": 1}}}}
    assert production.json("flags", "import", write(tmp_path, another))["replaced"] == ["b"], "1 is not 1.0"
    assert production.json("env", "list")[0]["revision"] == 2


def test_only_prune_deletes_and_a_dry_run_shows_it(production: Cli, tmp_path: Path) -> None:
    both = {"flags": {"a": FLAG, "b": FLAG}, "$evaluators": {"beta": {"==": [1, 1]}}, "metadata": {"team": "x"}}
    production.ok("flags", "import", write(tmp_path, both))
    path = write(tmp_path, {"flags": {"a": FLAG}})
    assert production.json("flags", "import", path)["changed"] is False
    dry = production.json("flags", "import", path, "--prune", "--dry-run")
    assert (dry["changed"], dry["revision"], dry["deleted"], dry["populations"]) == (False, None, ["b"], ["beta"])
    assert production.json("env", "list")[0]["revision"] == 1
    assert production.json("flags", "import", path, "--prune")["deleted"] == ["b"]
    assert json.loads(production.ok("flags", "export")) == {
        "$schema": "https://flagd.dev/schema/v0/flags.json",
        "flags": {"a": FLAG},
    }


def test_a_file_with_one_wrong_flag_changes_nothing(production: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, {"flags": {"a": FLAG, "b": {"state": "ENABLED"}}})
    assert production.refused("flags", "import", path) == 'flag "b": at variants: missing'
    assert production.json("flags", "list") == []


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "should be an object and is an array"),
        ({}, "at flags: missing"),
        ({"flags": {}, "flag": {}}, "unknown member"),
        ({"flags": [FLAG]}, "flags[0].key: missing"),
        ({"flags": [{"key": "a", **FLAG}, {"key": "a", **FLAG}]}, "stands twice in the array"),
        ({"flags": {"a": FLAG}, "$evaluators": {"beta": 7}}, "should be an object and is a number"),
        ({"flags": {"a": FLAG}, "metadata": {"a": []}}, "metadata is flat"),
        ({"flags": {"": FLAG}}, "1 to 256 characters"),
    ],
)
def test_a_file_of_a_wrong_shape_is_refused(production: Cli, tmp_path: Path, document: object, why: str) -> None:
    assert why in production.refused("flags", "import", write(tmp_path, document))


def test_a_file_may_be_yaml_and_have_its_flags_in_an_array(production: Cli, tmp_path: Path) -> None:
    assert production.json("flags", "import", str(DEMO))["populations"] == ["beta", "dev-team", "internal"]
    array = {"flags": [{"key": "a", **FLAG}]}
    assert production.json("flags", "import", write(tmp_path, array))["added"] == ["a"]
    assert production.json("flags", "import", "-", stdin=json.dumps(array))["unchanged"] == 1


HOSTILE = {
    "flags": {
        "on": {"state": "ENABLED", "variants": {"on": True, "null": False, "1": True}, "defaultVariant": "on"},
        "größe/\u2028 '\"{}": {"state": "DISABLED", "variants": {"a": 1.0, "b": 2**63, "c": 1e-7, "d": -0.0}},
        "text": {"state": "ENABLED", "variants": {"a": "yes", "b": "12:30", "c": "~", "d": " x\n\ty ", "e": ""}},
        "empty": {"state": "ENABLED", "variants": {"a": {"x": []}, "b": {}}, "targeting": {}, "metadata": {}},
    },
    "$evaluators": {"no": {"in": ["\U0001f600", {"var": ["a", None]}]}},
    "metadata": {"version": "1", "n": 1.0},
}


@pytest.mark.parametrize("document_format", ["json", "yaml"])
def test_an_export_is_taken_back_and_means_the_same(production: Cli, tmp_path: Path, document_format: str) -> None:
    production.ok("flags", "import", "-", stdin=json.dumps(HOSTILE))
    exported = production.ok("flags", "export", "--format", document_format)
    (tmp_path / f"all.{document_format}").write_text(exported)
    again = production.json("flags", "import", str(tmp_path / f"all.{document_format}"), "--prune")
    assert (again["changed"], again["unchanged"]) == (False, 4)
    production.ok("env", "create", "copy")
    production.ok("flags", "import", str(tmp_path / f"all.{document_format}"), "--env", "copy")
    assert production.ok("flags", "export", "--env", "copy", "--format", document_format) == exported


def test_a_killed_flag_is_exported_as_it_is_served_unless_its_original_is_asked_for(production: Cli) -> None:
    production.ok("flags", "put", "a", stdin=json.dumps(OTHER))
    production.ok("flags", "put", "b", stdin=json.dumps(FLAG))
    production.ok("kill", "a", "--to", "off", "--reason", "errors")
    outcome = production.run("flags", "export")
    served = {**FLAG, "targeting": {}}
    flags = json.loads(outcome.out)["flags"]
    assert flags["a"] in (FLAG, served)
    assert 'flag "a" is killed by ada' in outcome.err
    assert "exported as it is served" in outcome.err
    assert production.json("flags", "import", "-", stdin=outcome.out)["changed"] is False, "the kill stands"
    originals = production.run("flags", "export", "--originals")
    assert json.loads(originals.out)["flags"] == {"a": OTHER, "b": FLAG}
    assert "as it was before" in originals.err


def test_an_import_of_a_killed_flags_original_leaves_it_killed_and_writes_the_rest(production: Cli) -> None:
    production.ok("flags", "put", "a", stdin=json.dumps(OTHER))
    production.ok("kill", "a", "--reason", "errors")
    nightly = json.dumps({"flags": {"a": OTHER, "b": FLAG}})
    written = production.json("flags", "import", "-", stdin=nightly)
    assert (written["added"], written["replaced"], written["unchanged"]) == (["b"], [], 1)
    assert production.json("flags", "get", "a")["state"] == "DISABLED"
    edited = json.dumps({"flags": {"a": {**OTHER, "metadata": {"edited": True}}}})
    assert "killed by ada" in production.refused("flags", "import", "-", stdin=edited)
    assert production.json("flags", "import", "-", "--force", stdin=nightly)["changed"] is False
    assert production.json("flags", "import", "-", "--force", stdin=edited)["replaced"] == ["a"]
    assert production.json("flags", "get", "a") == json.loads(edited)["flags"]["a"]


def test_prune_does_not_delete_a_killed_flag_by_itself(production: Cli) -> None:
    production.ok("flags", "put", "a", stdin=json.dumps(FLAG))
    production.ok("kill", "a", "--reason", "errors")
    assert "killed by ada" in production.refused("flags", "import", "-", "--prune", stdin='{"flags": {}}')
    assert production.json("flags", "import", "-", "--prune", "--force", stdin='{"flags": {}}')["deleted"] == ["a"]
