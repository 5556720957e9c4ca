"""`flagrelay unrelease`: at once, from anybody, and never asked."""

import json
from pathlib import Path

import pytest

from support.cli import FLAG, Cli
from support.shop import Shop


@pytest.fixture
def shop(production: Cli, tmp_path: Path) -> Shop:
    """A flag that everybody has."""
    return Shop(production, tmp_path).populate().started("100%")


def unrelease(shop: Shop, *words: str) -> str:
    return shop.cli.ok("unrelease", "checkout", *words, "--reason", "error rate")


def test_it_takes_it_from_a_population_and_never_asks(shop: Shop) -> None:
    outcome = shop.run("unrelease", "checkout", "--from", "beta", "--reason", "error rate", stdin="n\n", terminal=True)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == (
        "\tWHO\tBEFORE\tAFTER\n"
        "- loses\tbeta\tall\tun-released\n"
        'flag "checkout" is un-released: running, stage 100% (revision 5)\n'
    )
    assert (shop.served(plan="beta", targetingKey="d1"), shop.served()) == (False, True)
    shop.release("restore", "--population", "beta")
    assert shop.served(plan="beta") is True


def test_it_takes_it_from_several_at_once(shop: Shop) -> None:
    unrelease(shop, "--from", "beta", "--from", "dev")
    assert shop.revision == 5
    assert [shop.served(plan="beta"), shop.served(targetingKey="d1"), shop.served()] == [False, False, True]


def test_it_takes_it_from_all_but_a_stage_or_a_population(shop: Shop) -> None:
    assert "running, stage beta-50% (revision 5)" in unrelease(shop, "--to", "2")
    assert "running, stage dev (revision 6)" in unrelease(shop, "--to", "dev")
    shop.release("advance", "--to", "100%")
    shop.cli.ok("populations", "put", "eu", "--equals", "region=eu")
    assert "- loses\teverybody\tall\tlimited to eu" in unrelease(shop, "--to", "eu")
    assert [shop.served(region="eu"), shop.served()] == [True, False]
    assert "\tall but eu\n" in shop.cli.ok("release", "status")


def test_it_takes_it_from_everybody(shop: Shop) -> None:
    assert 'flag "checkout" is un-released: withdrawn, stage dark (revision 5)\n' in unrelease(shop)
    assert shop.served() is False
    assert shop.release("advance").endswith("running, stage dev (revision 6)\n")


def test_what_is_so_already_is_no_error_and_says_so(shop: Shop) -> None:
    for words in (("--from", "beta"), ("--to", "dev"), ()):
        unrelease(shop, *words)
        before = shop.revision
        again = unrelease(shop, *words)
        assert again == 'flag "checkout" stays as it is: there is nothing to be un-released\n'
        said = shop.cli.json("unrelease", "checkout", *words, "--reason", "why")
        assert (said["changed"], said["at"], said["revision"]) == (False, None, before)
        assert said["effect"] == {"shifts": [], "counted": None}
        assert shop.revision == before


def test_scripts_get_what_it_did_as_json(shop: Shop) -> None:
    said = shop.cli.json("unrelease", "checkout", "--from", "beta", "--reason", "why", "--sample", shop.sample)
    assert (said["revision"], said["changed"], said["release"]["blocks"]) == (5, True, ["beta"])
    assert said["effect"]["shifts"][0]["loses"] is True
    assert said["effect"]["counted"] == {
        "over": "sample",
        "contexts": 4,
        "before": 4,
        "after": 3,
        "gain": 0,
        "lose": 1,
    }
    assert "proof" not in said


def test_without_a_relay_a_proof_is_none_and_the_status_says_so(shop: Shop) -> None:
    outcome = shop.run("unrelease", "checkout", "--from", "beta", "--reason", "why", "--wait=0.2")
    assert outcome.status == 3
    assert 'flag "checkout" is un-released' in outcome.out
    assert outcome.out.endswith("un-released, but nobody knows where: no relay reports here\n")
    assert shop.revision == 5


def test_a_flag_without_a_release_is_killed_instead(shop: Shop) -> None:
    assert 'no flag "x"' in shop.cli.refused("unrelease", "x", "--reason", "why")
    shop.cli.ok("flags", "put", "x", stdin=json.dumps(FLAG))
    said = shop.cli.refused("unrelease", "x", "--reason", "why")
    assert "take the flag back from everybody with `flagrelay kill x`" in said
    assert "`flagrelay kill x`" in shop.cli.refused("unrelease", "x", "--from", "beta", "--reason", "why")
    assert "`flagrelay kill x`" in shop.cli.refused("unrelease", "x", "--from", "nobody", "--reason", "why")


def test_what_there_is_not_is_refused_since_it_would_take_it_from_nobody(shop: Shop) -> None:
    for words in (("--from", "nobody"), ("--from", "beta", "--from", "nobody"), ("--to", "nobody")):
        said = shop.cli.refused("unrelease", "checkout", *words, "--reason", "why")
        assert 'no population "nobody": `flagrelay populations list` shows what it has' in said
    assert "Missing option '--reason'" in shop.cli.misused("unrelease", "checkout")
    for words in (("--from", ""), ("--from", " "), ("--to", "")):
        assert "it is empty" in shop.cli.misused("unrelease", "checkout", *words, "--reason", "why")
    assert shop.revision == 4


def test_to_go_back_to_a_stage_ahead_takes_it_from_nobody_and_says_so(shop: Shop) -> None:
    shop.cli.ok("unrelease", "checkout", "--to", "beta-50%", "--reason", "why")
    outcome = shop.run("unrelease", "checkout", "--to", "10%", "--reason", "why")
    assert outcome.status == 0
    assert outcome.out == 'flag "checkout" stays as it is: there is nothing to be un-released\n'
    assert outcome.err == (
        'note: it is at stage "beta-50%", which comes before "10%": whoever was released to by then keeps it; '
        "--from takes it from a population\n"
    )
    assert shop.run("unrelease", "checkout", "--to", "dev", "--reason", "why").err == ""


def test_a_killed_flag_is_un_released_and_stays_killed(shop: Shop) -> None:
    shop.cli.ok("kill", "checkout", "--to", "off", "--reason", "why")
    outcome = shop.run("unrelease", "checkout", "--to", "dev", "--reason", "why")
    assert outcome.status == 0
    assert outcome.err == (
        'while it is killed, everybody has "off": `flagrelay revive checkout` brings it back to this\n'
    )
    assert shop.served(targetingKey="d1") is False
    shop.cli.ok("revive", "checkout")
    assert [shop.served(targetingKey="d1"), shop.served()] == [True, False]
