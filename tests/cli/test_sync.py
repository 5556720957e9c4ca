"""`flagrelay sync`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli.proof import NOT_PROVEN
from flagrelay.cli.sync import HELD_BACK
from support.cli import FLAG, Cli

ON = {**FLAG, "defaultVariant": "on"}

Files = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writes flags, each into a file of its own, and says where."""

    def write(**flags: object) -> str:
        for path in tmp_path.iterdir():
            path.unlink()
        for key, flag in flags.items():
            (tmp_path / f"{key}.json").write_text(json.dumps({"flags": {key: flag}}))
        return str(tmp_path)

    return write


def definition(cli: Cli, key: str) -> Any:
    return cli.json("flags", "get", key)


def test_it_shows_the_difference_and_writes_it_only_when_told_to(production: Cli, files: Files) -> None:
    folder = files(a=FLAG, b=ON)
    table = "WHAT\tKIND\tNAME\tNOTE\nadd\tflag\ta\t-\nadd\tflag\tb\t-\n"
    assert production.ok("sync", folder) == table + "2 to apply; nothing was written: say --apply\n"
    assert production.json("flags", "list") == []
    assert production.ok("sync", folder, "--apply") == table + "2 applied (revision 1)\n"
    assert definition(production, "b") == ON
    for words in ((), ("--apply",)):
        assert production.ok("sync", folder, *words) == "in sync; nothing was written\n"
    [entry] = production.json("history")
    assert (entry["action"], entry["actor"]) == ("sync", "ada")


def test_what_is_held_back_is_marked_said_and_another_status(production: Cli, files: Files) -> None:
    production.ok("sync", files(a=FLAG, b=FLAG), "--apply")
    production.ok("kill", "a", "--reason", "error\nrate", "--actor", "grace")
    shown = production.run("sync", files(a=ON, b=ON))
    assert (shown.status, shown.err) == (HELD_BACK, "")
    _, first, second, end = shown.out.splitlines()
    assert first.startswith("HELD BACK: replace\tflag\ta\tit is killed by grace since 2")
    assert first.endswith("UTC (error rate)")
    assert second == "replace\tflag\tb\t-"
    assert end == "1 to apply, 1 held back (--force applies them, too); nothing was written: say --apply"
    done = production.run("sync", files(a=ON, b=ON), "--apply")
    assert (done.status, done.out.splitlines()[-1]) == (
        HELD_BACK,
        "1 applied, 1 held back (--force applies them, too) (revision 3)",
    )
    assert (definition(production, "a")["state"], definition(production, "b")) == ("DISABLED", ON)
    again = production.run("sync", files(a=ON, b=ON), "--apply")
    assert (again.status, again.out.splitlines()[-1]) == (
        HELD_BACK,
        "1 held back (--force applies them, too); nothing was written",
    )
    forced = production.ok("sync", files(a=ON, b=ON), "--apply", "--force")
    assert "replace\tflag\ta\tforced, though it is killed by grace" in forced
    assert definition(production, "a") == ON


def test_a_kill_that_the_files_know_nothing_of_is_said_and_in_sync(production: Cli, files: Files) -> None:
    folder = files(a=ON)
    production.ok("sync", folder, "--apply")
    production.ok("kill", "a", "--reason", "errors")
    said = production.ok("sync", folder, "--apply")
    assert "keep\tflag\ta\tit stays killed by ada since 2" in said
    assert said.endswith("in sync; nothing was written\n")


def test_what_people_did_is_agreed_to_and_said_once(production: Cli, files: Files) -> None:
    for key in "ab":
        production.ok("flags", "put", key, stdin=json.dumps(FLAG))
    production.ok("flags", "delete", "b")
    folder = files(a=FLAG)
    assert production.ok("sync", folder, "--prune") == "in sync; nothing was written\n"
    said = "in sync; nothing was written, but history that the files have 2 so as people did\n"
    assert production.ok("sync", folder, "--prune", "--apply", "--actor", "ci", "--reason", "first") == said
    assert production.ok("sync", folder, "--prune", "--apply") == "in sync; nothing was written\n"
    assert production.ok("history").splitlines()[-1].split("\t")[1:] == [
        *("3", "sync", "as it was: a, b deleted", "ci", "first")
    ]


def test_it_says_all_of_it_as_json(production: Cli, files: Files) -> None:
    production.ok("sync", files(a=FLAG), "--apply")
    production.ok("kill", "a", "--reason", "errors")
    outcome = production.run("sync", files(a=ON, b=ON), "--apply", "--json")
    assert outcome.status == HELD_BACK
    answer = json.loads(outcome.out)
    assert (answer["revision"], answer["changed"], answer["held"]) == (3, True, 1)
    assert [(each["name"], each["what"], each["held"]) for each in answer["differences"]] == [
        ("a", "replace", True),
        ("b", "add", False),
    ]
    assert production.run("sync", files(a=FLAG), "--json").status == 0


def test_prune_deletes_what_the_files_lack(production: Cli, files: Files) -> None:
    production.ok("sync", files(a=FLAG, b=FLAG), "--apply")
    assert production.ok("sync", files(a=FLAG), "--apply") == "in sync; nothing was written\n"
    assert "delete\tflag\tb\t-" in production.ok("sync", files(a=FLAG), "--apply", "--prune")
    assert [each["key"] for each in production.json("flags", "list")] == ["a"]
    assert "has no flag set" in production.refused("sync", files(), "--apply", "--prune")
    assert definition(production, "a") == FLAG


def test_plans_of_releases_are_skipped_and_said_so(production: Cli, files: Files, tmp_path: Path) -> None:
    folder = files(a=FLAG)
    plan = tmp_path / "plan.yaml"
    plan.write_text('flag: a\nreleased: "on"\nbaseline: "off"\nstages: [{percent: 100}]\n')
    outcome = production.run("sync", folder, "--apply")
    assert (outcome.status, outcome.err) == (0, f"{plan}: a plan: apply it with `flagrelay release plan`\n")
    production.ok("release", "plan", "a", "--file", str(plan), "--apply", "--yes")
    production.ok("release", "start", "a", "--yes", "--reason", "ready")
    outcome = production.run("sync", folder, "--apply")
    assert outcome.status == HELD_BACK
    assert "HELD BACK: replace\tflag\ta\tit has a release, at stage" in outcome.out
    assert production.ok("flags", "list").splitlines()[1].split("\t")[-1] == "100%"


def test_a_write_that_is_not_proven_is_that_status_and_what_is_held_back_is_still_said(
    production: Cli, files: Files
) -> None:
    production.ok("sync", files(a=FLAG), "--apply")
    production.ok("kill", "a", "--reason", "errors")
    outcome = production.run("sync", files(a=ON, b=FLAG), "--apply", "--wait=0.1")
    assert outcome.status == NOT_PROVEN
    assert "1 applied, 1 held back" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("written, but nobody knows where")
    again = production.run("sync", files(a=ON, b=FLAG), "--apply", "--wait=0.1")
    assert again.status == NOT_PROVEN, "a second try has nothing to write, and proves no more"
    assert "1 held back" in again.out
    assert production.run("sync", files(a=ON, b=FLAG), "--apply").status == HELD_BACK


def test_an_environment_that_does_not_exist_is_never_made_by_the_way(cli: Cli, files: Files) -> None:
    assert '"nowhere" does not exist' in cli.refused("sync", files(a=FLAG), "--apply", "--env", "nowhere")
    assert cli.json("env", "list") == []
