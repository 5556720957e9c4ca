"""`flagrelay release`: from a plan to everybody, and back."""

import asyncio
import base64
import json
import re
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli.private_redis import PrivateRedis
from support.cli import AT_A_TERMINAL, FLAG, Cli
from support.released import HOSTILE, quiet
from support.served import served
from support.shop import PLAN, Shop
from support.streams import connection, request

BAR = "█" * 3, "░" * 3


@pytest.fixture
def shop(production: Cli, tmp_path: Path) -> Shop:
    return Shop(production, tmp_path).populate()


def without_times(text: str) -> str:
    """A table of what was done, without when."""
    return re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\t", "", text, flags=re.MULTILINE)


# -- the whole way ------------------------------------------------------------------------------------------------


def test_a_flag_goes_from_a_plan_to_everybody(shop: Shop) -> None:
    assert shop.release("plan", "--file", shop.plan, "--apply") == (
        'flag "checkout" is stored: planned, stage dark (revision 3)\n'
    )
    assert shop.served(targetingKey="d1") is False
    assert shop.release("start") == (
        "\tWHO\tBEFORE\tAFTER\tOF ITS KEYS\n"
        "+ gains\tdev\tnone\tall\t2 gain (100.00%) of 2\n"
        'flag "checkout" is released: running, stage dev (revision 4)\n'
    )
    assert (shop.served(targetingKey="d1"), shop.served(targetingKey="u")) == (True, False)
    assert shop.release("advance", "--sample", shop.sample) == (
        "\tWHO\tBEFORE\tAFTER\n"
        "+ gains\tbeta\tnone\t50 %\n"
        "of 4 contexts of the sample: nobody gains or loses\n"
        'flag "checkout" is released: running, stage beta-50% (revision 5)\n'
    )
    assert shop.release("advance", "--to", "100%").endswith("running, stage 100% (revision 6)\n")
    assert shop.served() is True
    assert shop.release("retreat", "--to", "1") == (
        "\tWHO\tBEFORE\tAFTER\n"
        "- loses\tbeta\tall\tnone\n"
        "- loses\teverybody\tall\tnone\n"
        'flag "checkout" is taken back: running, stage dev (revision 7)\n'
    )
    assert (shop.served(targetingKey="d1"), shop.served()) == (True, False)
    shop.release("advance", "--to", "4")
    assert shop.release("finish").endswith(
        'flag "checkout" is finished: everybody has it, and it is a plain flag again (revision 9)\n'
    )
    assert shop.cli.json("flags", "get", "checkout") == {**FLAG, "defaultVariant": "on"}
    assert "no flag has a release" in shop.run("release", "status").err
    shown = without_times(shop.cli.ok("release", "history", "checkout"))
    assert shown == (
        "WHEN (UTC)\tREVISION\tACTION\tWHAT\tWHO\tWHY\n"
        "3\tplan\tdark\tada\twhy\n"
        "4\tstart\tdark → dev\tada\twhy\n"
        "5\tadvance\tdev → beta-50%\tada\twhy\n"
        "6\tadvance\tbeta-50% → 100%\tada\twhy\n"
        "7\tretreat\t100% → dev\tada\twhy\n"
        "8\tadvance\tdev → 100%\tada\twhy\n"
        "9\tfinish\t100%\tada\twhy\n"
    )


@pytest.mark.parametrize(
    ("action", "said", "left"),
    [
        ("abandon", "everybody has the baseline", FLAG),
        ("detach", "it stays as it is", {**FLAG, "targeting": {"if": [{"$ref": "dev"}, "on", "off"]}}),
    ],
)
def test_a_release_may_end_otherwise(shop: Shop, action: str, said: str, left: Any) -> None:
    shop.started()
    assert f'flag "checkout" is {action}ed: {said}, and ' in shop.release(action)
    assert shop.cli.json("flags", "get", "checkout") == left
    [newest, *_] = shop.cli.json("release", "history", "checkout")
    assert newest["detail"]["plan"]["owner"] == "grace"


# -- plans --------------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_with_what_each_stage_exposes_and_not_stored(shop: Shop) -> None:
    outcome = shop.run("release", "plan", "checkout", "--file", shop.plan, "--sample", shop.sample)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        'plan of flag "checkout": "on" over "off"',
        "owner: grace",
        "description: the new checkout",
        "\tSTAGE\tRELEASES TO\tAT LEAST\tAPPROVED\tDEV\tBETA\tEVERYBODY\tOF THE SAMPLE",
        "1\tdev\tdev\t-\t-\tall (2 of 2 keys)\tnone\tnone\t2 of 4 (50.00%)",
        "2\tbeta-50%\t50 % of beta\t-\t-\tall (2 of 2 keys)\t50 %\tnone\t2 of 4 (50.00%)",
        "3\t10%\t10 % of everybody\t-\t-\tall (2 of 2 keys)\t50 %\t10 %\t2 of 4 (50.00%)",
        "4\t100%\teverybody\t-\t-\tall (2 of 2 keys)\tall\tall\t4 of 4 (100.00%)",
        "",
        "nothing was written: --apply stores it",
    ]
    assert shop.revision == 2
    assert shop.cli.json("flags", "list") == []


def test_a_plan_comes_as_json_too_and_from_standard_input(shop: Shop) -> None:
    plan = json.dumps({"flag": "checkout", "variants": FLAG["variants"], "released": "on", "baseline": "off"})
    plan = f'{plan[:-1]}, "stages": [{{"percent": 100}}]}}'
    shown = shop.cli.ok("release", "plan", "checkout", stdin=plan)
    assert "1\t100%\teverybody\t-\t-\tall\n" in shown
    assert shop.cli.ok("release", "plan", "checkout", "--format", "yaml", stdin=PLAN).startswith("plan of flag")
    said = shop.cli.json("release", "plan", "checkout", "--file", shop.plan)
    assert (said["changed"], said["revision"], said["notes"]) == (False, None, [])
    assert [stage["stage"] for stage in said["reach"]["stages"]] == ["dev", "beta-50%", "10%", "100%"]
    assert said["reach"]["stages"][0]["keys"] == [{"population": "dev", "keys": 2, "have": 2}]
    assert said["definition"]["variants"] == FLAG["variants"]
    assert shop.revision == 2


def test_a_plan_from_standard_input_is_yaml_unless_it_begins_like_json(shop: Shop) -> None:
    for text in (PLAN, "\ufeff\n# a comment\n" + PLAN):
        assert 'plan of flag "checkout"' in shop.cli.ok("release", "plan", "checkout", stdin=text)
    for text in ("{", '\n [{"flag": }]', ""):
        assert "standard input: not JSON: " in shop.cli.refused("release", "plan", "checkout", stdin=text)
    assert "not usable as YAML" in shop.cli.refused("release", "plan", "checkout", stdin="flag: [")


def test_a_plan_for_a_new_flag_says_what_creates_it(shop: Shop) -> None:
    text = PLAN.replace('variants: {"on": true, "off": false}\n', "")
    said = shop.cli.refused("release", "plan", "checkout", stdin=text)
    assert said.startswith('environment "production" has no flag "checkout": `variants` in the plan creates it, and ')


def test_a_plan_out_of_the_order_of_risks_is_noted(shop: Shop) -> None:
    shop.cli.ok("populations", "put", "dev", "--risk", "9")
    shop.cli.ok("populations", "put", "beta", "--risk", "1")
    note = 'stage "dev" (risk 9) comes before stage "beta-50%" (risk 1): less risk is released to first'
    for words in ((), ("--apply", "--yes")):
        outcome = shop.run("release", "plan", "checkout", "--file", shop.plan, *words)
        assert f"note: {note}\n" in outcome.err
        assert outcome.status == 0
    assert shop.cli.json("release", "plan", "checkout", "--file", shop.plan)["notes"] == [note]


def test_a_plan_over_targeting_says_who_loses_what_they_have(shop: Shop) -> None:
    targeted = {**FLAG, "targeting": {"if": [{"$ref": "dev"}, "on", "off"]}}
    shop.cli.ok("flags", "put", "checkout", stdin=json.dumps(targeted))
    plan = ("release", "plan", "checkout", "--file", shop.plan)
    assert "say --replace-targeting" in shop.cli.refused(*plan)
    shown = shop.cli.ok(*plan, "--replace-targeting", "--sample", shop.sample)
    assert "of 4 contexts of the sample: 2 lose (50.00%)\n" in shown
    shop.release("plan", "--file", shop.plan, "--replace-targeting", "--apply")
    assert shop.served(targetingKey="d1") is False


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("flag: checkout\n  released: x", "line 2 column 11"),
        ("flag: checkout\nflag: other", 'the key "flag" stands twice in one mapping at line 2'),
        (PLAN.replace('"on": true, "off": false', "on: true"), 'write "on" in quotes at line 2'),
        (
            PLAN.replace('released: "on"', "released: on"),
            'at released: is true, which YAML makes of on and yes without quotes: write it in quotes, "on"',
        ),
        (PLAN.replace('baseline: "off"', "baseline: off"), "at baseline: is false, which YAML makes of off and no"),
        (PLAN.replace('released: "on"', "released: 1"), "at released: should be"),
        (PLAN.replace("percent: 50", "percent: 500"), "at stages[1].percent: 500 is no percentage"),
        (PLAN.replace("  - percent: 100", "  - percent: 5"), "at stages[3]: adds nobody"),
        (PLAN.replace("population: dev", "populations: dev"), "at stages[0].populations: unknown"),
        (PLAN.replace('released: "on"', "released: red"), 'at released: "red" is none of on, off'),
        ("[]", "plan: should be an object"),
        ("flag: checkout", "at released: missing"),
    ],
)
def test_a_plan_that_is_wrong_is_refused_with_file_and_where_and_why(shop: Shop, text: str, why: str) -> None:
    path = shop.file("broken.yaml", text)
    for words in ((), ("--apply", "--yes")):
        said = shop.cli.refused("release", "plan", "checkout", "--file", path, *words)
        assert said.startswith(path)
        assert why in said
    assert shop.cli.refused("release", "plan", "checkout", "--format", "yaml", stdin=text).startswith("standard input")
    assert shop.revision == 2


def test_a_plan_that_does_not_fit_what_there_is_is_refused(shop: Shop) -> None:
    plan = ("release", "plan", "checkout", "--file")
    nobody = shop.file("nobody.yaml", PLAN.replace("beta", "nobody"))
    assert 'no population "nobody": `flagrelay populations list`' in shop.cli.refused(*plan, nobody)
    assert 'the plan is for flag "checkout"' in shop.cli.refused("release", "plan", "other", "--file", shop.plan)
    plain = shop.file("plain.yaml", PLAN.replace('variants: {"on": true, "off": false}\n', ""))
    assert 'no flag "checkout"' in shop.cli.refused(*plan, plain)
    assert "No such file" in shop.cli.refused(*plan, str(shop.folder / "none.yaml"))
    shop.started("beta-50%")
    other = shop.file("other.yaml", PLAN.replace("population: dev", "percent: 1"))
    assert 'the stages up to "beta-50%" are reached' in shop.cli.refused(*plan, other)


# -- asking -------------------------------------------------------------------------------------------------------

ASKING = [
    (("start",), ""),
    (("advance",), "dev"),
    (("retreat",), "dev"),
    (("finish", "--force"), "dev"),
    (("abandon",), "dev"),
    (("detach",), "dev"),
    (("restore", "--population", "beta"), "dev"),
    (("plan", "--apply"), "dev"),
]


@pytest.mark.parametrize(("words", "stage"), ASKING, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_an_action_shows_what_it_does_and_asks_and_a_no_changes_nothing(
    shop: Shop, words: tuple[str, ...], stage: str
) -> None:
    shop.started(stage) if stage else shop.stored()
    if words[0] == "restore":
        shop.cli.ok("unrelease", "checkout", "--from", "beta", "--reason", "why")
    if words[0] == "plan":
        words = (*words, "--file", shop.plan)
    before = shop.revision
    command = ("release", words[0], "checkout", *words[1:], "--reason", "why")
    outcome = shop.run(*command)
    assert outcome.status == 2
    assert "nobody is at a terminal to be asked: say --yes; nothing was changed" in outcome.err
    for answer in ("n\n", "\n", "no\n"):
        outcome = shop.run(*command, stdin=answer, terminal=True)
        assert outcome.status == 1
        assert re.search(r'^\w.* flag "checkout".*\? \[y/N\]: ', outcome.err, re.MULTILINE)
        assert "not confirmed; nothing was changed" in outcome.err
    outcome = shop.run(*command, stdin="", terminal=True)
    assert outcome.status in (1, 130)
    assert shop.revision == before
    assert shop.run(*command, stdin="y\n", terminal=True).status == 0
    assert shop.revision == before + 1


def test_an_answer_for_scripts_stays_whole_where_somebody_is_asked(shop: Shop) -> None:
    shop.stored()
    outcome = shop.run("release", "start", "checkout", "--reason", "why", "--json", stdin="y\n", terminal=True)
    assert json.loads(outcome.out)["release"]["stage"] == "dev"


def test_what_somebody_did_while_one_was_asked_is_a_conflict(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.started()

    def meanwhile(*_: object, **__: object) -> bool:
        shop.cli.ok("unrelease", "checkout", "--from", "beta", "--reason", "error rate")
        return True

    monkeypatch.setattr("click.confirm", meanwhile)
    outcome = shop.run("release", "advance", "checkout", "--reason", "why", terminal=True)
    assert outcome.status == 1
    assert 'release "checkout" is at revision 5, but the edit was made from revision 4' in outcome.err
    assert shop.revision == 5


def test_an_approval_asks_nobody(shop: Shop) -> None:
    shop.file("plan.yaml", "")
    gated = shop.file("gated.yaml", PLAN.replace("percent: 50", "percent: 50, approval: true"))
    shop.release("plan", "--file", gated, "--apply")
    shop.release("start")
    said = shop.cli.refused("release", "advance", "checkout", "--reason", "why", "--yes")
    assert "must be approved by another person, and was approved by nobody" in said
    assert "`flagrelay release approve checkout --stage 'beta-50%'`" in said
    approve = ("release", "approve", "checkout", "--stage", "beta-50%")
    assert shop.cli.ok(*approve) == (
        'stage "beta-50%" of flag "checkout" is approved: running, stage dev (revision 5)\n'
    )
    assert "must be approved" in shop.cli.refused("release", "advance", "checkout", "--reason", "why", "--yes")
    shop.cli.ok(*approve, "--reason", "looked at it", "--actor", "grace")
    assert shop.release("advance").endswith("running, stage beta-50% (revision 7)\n")
    status = shop.cli.ok("release", "status", "checkout")
    assert "\tby ada, grace\n" in status
    assert "\t6\tapprove\tbeta-50% approved\tgrace\tlooked at it\n" in status


def test_an_approval_names_the_stage_that_is_agreed_to_however_it_was_asked_for(shop: Shop) -> None:
    gated = PLAN.replace("percent: 50", "percent: 50, approval: true").replace(
        "- percent: 100", "- {percent: 100, approval: true}"
    )
    shop.release("plan", "--file", shop.file("gated.yaml", gated), "--apply")
    shop.release("start")
    for words, stage in (((), "beta-50%"), (("--stage", "4"), "100%"), (("--stage", "100%"), "100%")):
        assert f'stage "{stage}" of flag "checkout" is approved: running, stage dev' in shop.cli.ok(
            "release", "approve", "checkout", *words, "--actor", f"eve{len(words)}{stage}"
        )
        assert shop.cli.json("release", "history", "checkout")[0]["detail"]["approves"] == stage
    assert "\tapprove\tcheckout: 100% approved\t" in shop.cli.ok("history")


def test_a_minimum_time_is_kept_unless_it_is_forced(shop: Shop) -> None:
    slow = shop.file("slow.yaml", PLAN.replace("population: dev", "{population: dev, minimum: 1d12h}"))
    assert "1\tdev\tdev\t1d12h\t-" in shop.cli.ok("release", "plan", "checkout", "--file", slow)
    shop.release("plan", "--file", slow, "--apply")
    shop.release("start")
    said = shop.cli.refused("release", "advance", "checkout", "--reason", "why", "--yes")
    assert 'has been at stage "dev" for' in said
    assert "the plan says 1d12h at least: wait 1d12h, or say --force; nothing was changed" in said
    assert shop.release("advance", "--force").endswith("running, stage beta-50% (revision 5)\n")


# -- refusals -----------------------------------------------------------------------------------------------------


def test_what_does_not_fit_says_what_would(shop: Shop) -> None:
    shop.stored()
    why = ("--reason", "why", "--yes")
    said = shop.cli.refused("release", "advance", "checkout", *why)
    assert said == (
        'advance: the release of flag "checkout" is planned; what fits now: plan, start, approve, unrelease, restore, '
        "abandon, detach; nothing was changed"
    )
    shop.release("start")
    for words, instead in (
        (("start",), "what fits now: plan, advance, retreat"),
        (("advance", "--to", "dev"), 'stage "dev" is reached already'),
        (("advance", "--to", "gone"), 'none is named "gone"; it has dev, beta-50%, 10%, 100%'),
        (("retreat", "--to", "4"), "is no earlier one"),
        (("finish",), "advance first, or say --force"),
        (("restore", "--population", "beta"), "un-released are: none"),
    ):
        assert instead in shop.cli.refused("release", words[0], "checkout", *words[1:], *why)
    shop.cli.ok("kill", "checkout", "--reason", "error rate")
    said = shop.cli.refused("release", "advance", "checkout", *why)
    assert "killed by ada" in said
    assert "it goes nowhere before `flagrelay revive checkout`" in said
    assert shop.revision == 5


@pytest.mark.parametrize("action", ["start", "advance", "retreat", "restore", "finish", "abandon", "detach", "approve"])
def test_a_flag_without_a_release_says_how_it_gets_one(shop: Shop, action: str) -> None:
    words = ["release", action, "x", "--reason", "why"]
    words += [] if action == "approve" else ["--yes"]
    words += ["--population", "beta"] if action == "restore" else []
    assert 'no flag "x"' in shop.cli.refused(*words)
    shop.cli.ok("flags", "put", "x", stdin=json.dumps(FLAG))
    assert "store a plan with `flagrelay release plan`" in shop.cli.refused(*words)


def test_who_moves_a_release_says_why(shop: Shop) -> None:
    for action in ("start", "advance", "retreat"):
        assert "Missing option '--reason'" in shop.cli.misused("release", action, "checkout")
        assert "it is empty" in shop.cli.misused("release", action, "checkout", "--reason", " ")


def test_a_flag_with_a_release_is_not_edited_as_plain_json_before_it_is_detached(shop: Shop) -> None:
    shop.started()
    said = shop.cli.refused("flags", "put", "checkout", stdin=json.dumps(FLAG))
    assert "`flagrelay release detach checkout --env production --reason WHY`" in said
    assert "has a release" in shop.cli.refused("flags", "delete", "checkout")
    assert shop.revision == 4
    shop.release("detach")
    shop.cli.ok("flags", "put", "checkout", stdin=json.dumps(FLAG))


# -- how it stands ------------------------------------------------------------------------------------------------


def test_all_releases_are_shown_a_line_each(shop: Shop) -> None:
    assert "no flag has a release: flagrelay release plan KEY" in shop.run("release", "status").err
    shop.started("10%")
    shop.cli.ok("unrelease", "checkout", "--from", "beta", "--to", "dev", "--reason", "why")
    [head, line] = shop.cli.ok("release", "status").splitlines()
    assert head == "FLAG\tSTATE\tSTAGES\tAT\tFOR\tUN-RELEASED FROM"
    bar = BAR[0] + 3 * BAR[1]
    assert re.fullmatch(rf"checkout\trunning\t{bar} 1/4\tdev\t\d+s\tbeta", line)
    shop.cli.ok("kill", "checkout", "--reason", "why")
    assert "checkout\tkilled\t" in shop.cli.ok("release", "status")
    [answer] = shop.cli.json("release", "status")
    assert (answer["flag"], answer["stage"], answer["blocks"], answer["killed"]["reason"]) == (
        "checkout",
        "dev",
        ["beta"],
        "why",
    )


def test_one_release_is_shown_whole(shop: Shop) -> None:
    shop.started("beta-50%")
    shop.cli.ok("unrelease", "checkout", "--from", "beta", "--reason", "error rate")
    shop.cli.ok("kill", "checkout", "--reason", "worse", "--actor", "eve")
    shown = shop.cli.ok("release", "status", "checkout", "--sample", shop.sample).splitlines()
    bar = 2 * BAR[0] + 2 * BAR[1]
    assert re.fullmatch(rf"checkout  {bar}  2/4 beta-50%  running for \d+s", shown[0])
    assert re.fullmatch(
        r"killed by eve since .*: worse; while it is killed, nobody has it: `flagrelay revive checkout` .* this",
        shown[1],
    )
    assert shown[2:4] == ["description: the new checkout", "owner: grace"]
    assert "█\tdev\tdev\t-\t-" in shown
    assert "░\t10%\t10 % of everybody\t-\t-" in shown
    assert shown[shown.index("WHO\tHAS IT ONCE IT IS REVIVED") + 1 :][:4] == [
        "dev\tall (2 of 2 keys)",
        "beta\tun-released",
        "everybody\tnone",
        "of the contexts of the sample: 2 of 4 (50.00%) have it once it is revived",
    ]
    last = [without_times(line) for line in shown if line.startswith("20")]
    assert last == [
        "3\tplan\tdark\tada\twhy",
        "4\tstart\tdark → beta-50%\tada\twhy",
        "5\tunrelease\tfrom beta; beta-50%\tada\terror rate",
        "6\tkill\tdisabled\teve\tworse",
    ]
    assert shown[-1] == "what fits now: retreat, unrelease, abandon, detach"
    answer = shop.cli.json("release", "status", "checkout")
    assert (answer["stage"], answer["reach"]["over"], len(answer["last"])) == ("beta-50%", "", 4)
    assert "has no flag" in shop.cli.refused("release", "status", "other")


def test_the_history_of_a_release_shows_what_was_taken_back_and_to_whom(shop: Shop) -> None:
    assert "nothing was ever done to a release" in shop.run("release", "history", "checkout").err
    shop.started("100%")
    shop.cli.ok("unrelease", "checkout", "--from", "beta", "--to", "100%", "--reason", "why")
    shop.cli.ok("kill", "checkout", "--to", "off", "--reason", "why")
    shop.cli.ok("revive", "checkout")
    shown = without_times(shop.cli.ok("release", "history", "checkout", "--limit", "3"))
    assert shown.splitlines()[1:] == [
        "5\tunrelease\tfrom beta, to 100%; 100%\tada\twhy",
        "6\tkill\teverybody has off\tada\twhy",
        "7\trevive\t-\tada\t",
    ]
    entries = shop.cli.json("release", "history", "checkout")
    assert [each["action"] for each in entries] == ["revive", "kill", "unrelease", "start", "plan"]
    assert "nothing was ever done" in shop.run("release", "history", "other").err


def test_the_history_of_a_release_shows_what_was_taken_given_back_and_agreed_to(shop: Shop) -> None:
    shop.started("10%")
    for words in (("--from", "dev"), ("--from", "beta"), ("--to", "beta-50%")):
        shop.cli.ok("unrelease", "checkout", *words, "--reason", "why")
    shop.release("restore", "--population", "dev")
    shop.cli.ok("populations", "put", "debug", "--equals", "debug=1")
    shop.cli.ok("unrelease", "checkout", "--to", "debug", "--reason", "why")
    shop.cli.ok("unrelease", "checkout", "--reason", "why")
    shown = without_times(shop.cli.ok("release", "history", "checkout")).splitlines()
    assert [line.split("\t")[1:3] for line in shown[3:]] == [
        ["unrelease", "from dev; 10%"],
        ["unrelease", "from beta; 10%, not dev"],
        ["unrelease", "to beta-50%; 10% → beta-50%, not beta, not dev"],
        ["restore", "dev restored; beta-50%, not beta"],
        ["unrelease", "to debug; beta-50%, not beta"],
        ["unrelease", "from everybody; beta-50% → dark, not beta, only debug"],
    ]


# -- what others wrote --------------------------------------------------------------------------------------------


def test_what_others_wrote_is_seen_and_does_nothing(shop: Shop) -> None:
    cli, evil = shop.cli, "\x1b[31m\r\n\x9b2J[red]"
    terminal = Cli({**cli.environment, **AT_A_TERMINAL})
    cli.ok("populations", "put", HOSTILE, "--equals", "a=1", "--risk", "0")
    cli.ok("populations", "put", "dev", "--risk", "9")
    plan = {
        "flag": HOSTILE,
        "variants": FLAG["variants"],
        "released": "on",
        "baseline": "off",
        "owner": evil,
        "description": evil,
        "stages": [{"population": "dev"}, {"name": f"{HOSTILE}!", "population": HOSTILE, "approval": [HOSTILE]}],
    }
    path = shop.file("hostile.json", json.dumps(plan))
    why = ("--yes", "--reason", evil)
    by = ("--actor", evil)
    actions: list[tuple[str, ...]] = [
        ("plan", HOSTILE, "--file", path),
        ("plan", HOSTILE, "--file", path, "--apply", *why, *by),
        ("status",),
        ("start", HOSTILE, *why, *by),
        ("approve", HOSTILE, "--reason", evil, "--actor", HOSTILE),
        ("status", HOSTILE),
        ("advance", HOSTILE, *why),
        ("status", HOSTILE),
        ("history", HOSTILE),
        ("advance", HOSTILE, *why),
    ]
    for words in actions:
        shown = Shop(terminal, shop.folder).run("release", *words)
        assert quiet(shown.out + shown.err), words
        assert "[bold]a[/bold]" in (shown.out + shown.err) or "[BOLD]A[/BOLD]" in shown.out, words
    cli.ok("unrelease", HOSTILE, "--from", HOSTILE, "--reason", evil)
    cli.ok("kill", HOSTILE, "--reason", evil, *by)
    for words in [("release", "status", HOSTILE), ("release", "status"), ("unrelease", HOSTILE, "--reason", evil)]:
        for command in (cli, terminal):
            outcome = command.run(*words)
            assert outcome.status == 0
            assert quiet(outcome.out + outcome.err), words
    for words in [("release", "history", HOSTILE), ("history",)]:
        lines = cli.ok(*words).splitlines()
        entries = cli.json(*words)
        assert len(lines) == 1 + len(entries)
        assert quiet("\n".join(lines))


# -- over HTTP ----------------------------------------------------------------------------------------------------


async def test_over_http_it_is_the_same_and_counts_over_the_contexts_of_open_streams(
    shop: Shop, redis_server: PrivateRedis, tmp_path: Path
) -> None:
    async def key(kind: str) -> str:
        words = ("keys", "create", "--kind", kind, "--name", "grace", "--json")
        created: str = json.loads(await asyncio.to_thread(shop.cli.ok, *words))["key"]
        return created

    admin, client = await key("admin"), await key("client")
    async with (
        served(redis_server.url, tmp_path, "--env", "production", "--admin-api") as relay,
        AsyncExitStack() as streams,
    ):
        for person in ("d1", "d2", "u"):
            context = base64.urlsafe_b64encode(json.dumps({"targetingKey": person}).encode()).decode()
            opened = await streams.enter_async_context(connection(relay.port))
            opened.send(request(f"/v1/evaluations/stream?context={context}", client))
            assert (await opened.head()).status == 200
        far = replace(shop, cli=Cli({"FLAGRELAY_URL": f"http://127.0.0.1:{relay.port}", "FLAGRELAY_ADMIN_KEY": admin}))
        planned = await asyncio.to_thread(far.release, "plan", "--file", shop.plan)
        head, first, *_ = planned.partition("\tSTAGE")[2].splitlines()
        assert head.endswith("\tOF OPEN STREAMS")
        assert first.endswith("\t2 of 3 (66.67%)")
        await asyncio.to_thread(far.release, "plan", "--file", shop.plan, "--apply")
        started = await asyncio.to_thread(far.release, "start", "--wait")
        assert "of 3 contexts of open streams: 2 gain (66.67%)\n" in started
        assert "released in " in started
        assert ": 1 of 1 relays, 3 of 3 streams written, 0 lagging\n" in started
        status = await asyncio.to_thread(far.cli.ok, "release", "status", "checkout")
        assert "of the contexts of open streams: 2 of 3 (66.67%) have it\n" in status
    history = await asyncio.to_thread(shop.cli.ok, "release", "history", "checkout")
    assert history.count("\tgrace\twhy\n") == 2, "the key's name is the actor"
