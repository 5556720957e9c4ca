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
        "3\tplan\tcheckout\tada\twhy",
        "4\tput\tx\tgrace\tnew",
        "5\tkill\tx\tada\t5 %",
        "6\tdelete\tx deleted\tgrace\told",
        "7\tstart\tcheckout\tgrace\twhy",
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
        "detail": None,
    }
    assert len(production.ok("history").splitlines()) == 3


def test_a_large_import_names_a_few_and_counts_the_rest(production: Cli) -> None:
    flags = {f"f{number:04}": FLAG for number in range(1500)}
    production.ok("flags", "import", "-", "--reason", "all", stdin=json.dumps({"flags": flags}))
    [_, line] = production.ok("history").splitlines()
    assert "\timport\tf0000, f0001, f0002, f0003, f0004 and 1495 more\tada\tall" in line
    [entry] = production.json("history")
    assert (len(entry["flags"]), entry["left_out"]) == (1000, 500)


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
