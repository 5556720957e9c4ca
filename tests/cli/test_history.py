"""`flagrelay history`."""

import json
import re
from pathlib import Path

import pytest

from support.cli import FLAG, Cli
from support.shop import Shop


@pytest.fixture
def busy(production: Cli, tmp_path: Path) -> Cli:
    """An environment where ada and grace did something."""
    shop = Shop(production, tmp_path).populate().stored()
    production.ok("flags", "put", "x", "--reason", "new", "--actor", "grace", stdin=json.dumps(FLAG))
    production.ok("kill", "x", "--reason", "5 %")
    production.ok("flags", "delete", "x", "--force", "--reason", "old", "--actor", "grace")
    shop.release("start", FLAGRELAY_ACTOR="grace")
    return production


def test_every_change_is_shown_newest_last_with_who_and_why(busy: Cli) -> None:
    [head, *lines] = busy.ok("history").splitlines()
    assert head == "WHEN (UTC)\tREVISION\tACTION\tWHAT\tWHO\tWHY"
    assert [line.partition("\t")[2] for line in lines] == [
        "1\tpopulations put\tpopulation dev\tada\t",
        "2\tpopulations put\tpopulation beta\tada\t",
        "3\tplan\tcheckout: dark\tada\twhy",
        "4\tput\tx\tgrace\tnew",
        "5\tkill\tx: disabled\tada\t5 %",
        "6\tdelete\tx deleted\tgrace\told",
        "7\tstart\tcheckout: dark → dev\tgrace\twhy",
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\t", line) for line in lines)


@pytest.mark.parametrize(
    ("words", "revisions"),
    [
        (("--flag", "x"), [6, 5, 4]),
        (("--actor", "grace"), [7, 6, 4]),
        (("--actor", "grace", "--flag", "x"), [6, 4]),
        (("--actor", "nobody"), []),
        (("--limit", "2"), [7, 6]),
        (("--since", "1h"), [7, 6, 5, 4, 3, 2, 1]),
        (("--since", "0s"), []),
    ],
    ids=str,
)
def test_it_can_be_asked_for_less(busy: Cli, words: tuple[str, ...], revisions: list[int]) -> None:
    assert [each["revision"] for each in busy.json("history", *words)] == revisions
    lines = busy.ok("history", "--jsonl", *words).splitlines()
    assert [json.loads(line)["revision"] for line in lines] == revisions
    shown = busy.run("history", *words)
    assert (len(shown.out.splitlines()), shown.err) == (
        (len(revisions) + 1, "") if revisions else (0, "nothing was changed\n")
    )


def test_whoever_asks_is_not_whom_is_asked_for(busy: Cli) -> None:
    assert len(busy.json("history", FLAGRELAY_ACTOR="grace")) == 7
    assert len(busy.json("history", FLAGRELAY_HISTORY_ACTOR="grace")) == 3


def test_json_lines_are_an_object_a_line_whatever_was_written(production: Cli) -> None:
    reason = 'line\nbreak\r\u2028\u0085 "quoted" \x1b[31m'
    production.ok("flags", "put", "x", "--reason", reason, stdin=json.dumps(FLAG))
    production.ok("kill", "x", "--reason", reason)
    text = production.ok("history", "--jsonl")
    assert text.count("\n") == 2
    entries = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [each["reason"] for each in entries] == [reason, reason]
    assert entries == production.json("history")
    assert entries[0] == {
        "revision": 2,
        "at": entries[0]["at"],
        "action": "kill",
        "actor": "ada",
        "reason": reason,
        "urgent": True,
        "flags": ["x"],
        "populations": [],
        "deleted": [],
        "left_out": 0,
        "detail": {"to": None},
        "id": entries[0]["id"],
    }
    assert len(production.ok("history").splitlines()) == 3


def test_a_large_import_names_a_few_and_counts_the_rest(production: Cli) -> None:
    flags = {f"f{number:04}": FLAG for number in range(1500)}
    production.ok("flags", "import", "-", "--reason", "all", stdin=json.dumps({"flags": flags}))
    [_, line] = production.ok("history").splitlines()
    assert "\timport\tf0000, f0001, f0002, f0003, f0004 and 1495 more\tada\tall" in line
    [entry] = production.json("history")
    assert (len(entry["flags"]), entry["left_out"]) == (1000, 500)


def test_the_export_says_what_was_done_to_a_release(busy: Cli) -> None:
    busy.ok("unrelease", "checkout", "--from", "beta", "--reason", "5 %")
    [entry, *_] = map(json.loads, busy.ok("history", "--flag", "checkout", "--jsonl").splitlines())
    assert (entry["action"], entry["detail"]["from"], entry["detail"]["stage"]) == ("unrelease", ["beta"], "dev")
    assert busy.ok("history").endswith("\tunrelease\tcheckout: from beta; dev\tada\t5 %\n")


def test_the_newest_hundred_are_shown_and_that_there_are_older_ones(
    production: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagrelay.cli.history.SHOWN", 5)
    for number in range(5):
        production.ok("flags", "put", f"f{number}", stdin=json.dumps(FLAG))
    assert production.run("history").err == ""
    production.ok("flags", "put", "f5", stdin=json.dumps(FLAG))
    for words in ((), ("--json",)):
        said = production.run("history", *words)
        assert said.err == "there are older ones than these 5: --limit, --since or --jsonl shows them\n"
        assert ("f0" in said.out, "f1" in said.out) == (False, True)


def test_nothing_is_left_out_of_an_export_or_since_a_time_unless_it_is_said(
    production: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagrelay.cli.history.SHOWN", 2)
    monkeypatch.setattr("flagrelay.cli.history.PAGE", 3)
    for number in range(7):
        production.ok("flags", "put", f"f{number}", stdin=json.dumps(FLAG))
    for words, count in (((), 7), (("--limit", "4"), 4), (("--limit", "3"), 3), (("--limit", "9"), 7)):
        exported = production.run("history", "--jsonl", *words)
        revisions = [json.loads(line)["revision"] for line in exported.out.splitlines()]
        assert (revisions, exported.err) == ([7, 6, 5, 4, 3, 2, 1][:count], "")
        since = production.run("history", "--since", "1h", *words)
        assert (len(since.out.splitlines()), since.err) == (count + 1, "")


def test_of_one_flag_a_change_that_does_not_name_all_of_its_flags_is_shown_as_perhaps(production: Cli) -> None:
    flags = {f"f{number:04}": FLAG for number in range(1001)}
    production.ok("flags", "import", "-", stdin=json.dumps({"flags": flags, "metadata": {"team": "shop"}}))
    production.ok("flags", "put", "other", stdin=json.dumps(FLAG))
    [_, line] = production.ok("history", "--flag", "f1000").splitlines()
    assert "\tf0000, f0001, f0002, f0003, f0004 and 997 more, perhaps f1000\t" in line
    [_, line] = production.ok("history", "--flag", "f0999").splitlines()
    assert "\tf0000, f0001, f0002, f0003, f0004 and 997 more\t" in line


def test_other_metadata_are_shown(production: Cli) -> None:
    document = {"flags": {"x": FLAG}, "metadata": {"team": "shop"}}
    production.ok("flags", "import", "-", stdin=json.dumps(document))
    assert production.ok("history").splitlines()[1].split("\t")[3] == "x, metadata"


def test_what_cannot_be_asked_is_refused(production: Cli) -> None:
    assert "such as 90s, 30m, 1h, 1d12h" in production.refused("history", "--since", "yesterday")
    assert "is not in the range" in production.misused("history", "--limit", "0")
    assert "it is empty" in production.misused("history", "--actor", "")
    assert "does not exist" in production.refused("history", "--env", "nowhere")
    assert "nothing was changed" in production.run("history").err


def test_what_another_tool_wrote_there_is_named(production: Cli, redis_command: object) -> None:
    assert callable(redis_command)
    redis_command("XADD", "flagrelay:{production}:history", "7-1", "entry", "\x1b[31m")
    said = production.refused("history")
    assert "entry 7-1 of flagrelay:{production}:history" in said
    assert "cannot be read" in said
