"""`flagrelay kill` and `flagrelay revive`."""

import json
from getpass import getuser
from typing import Any

from support.cli import FLAG, Cli

TARGETED = {**FLAG, "targeting": {"if": [{"var": "beta"}, "on", "off"]}, "metadata": {"n": 1.0}}


def get(cli: Cli, key: str = "x") -> Any:
    return cli.json("flags", "get", key)


def put(cli: Cli) -> None:
    cli.ok("flags", "put", "x", stdin=json.dumps(TARGETED))


def test_a_kill_disables_and_touches_nothing_else_and_revive_undoes_it_exactly(production: Cli) -> None:
    put(production)
    before = production.ok("flags", "get", "x")
    assert production.ok("kill", "x", "--reason", "error rate") == 'flag "x" is killed (revision 2)\n'
    assert production.run("flags", "get", "x", "--json").out == before.replace('"ENABLED"', '"DISABLED"')
    assert production.ok("revive", "x", "--reason", "fixed") == 'flag "x" is what it was before (revision 3)\n'
    assert production.ok("flags", "get", "x") == before


def test_a_kill_may_serve_one_variant_to_everybody(production: Cli) -> None:
    put(production)
    assert production.ok("kill", "x", "--to", "on", "--reason", "y") == 'flag "x" is "on" for everybody (revision 2)\n'
    assert get(production) == {**TARGETED, "defaultVariant": "on", "targeting": {}}
    production.ok("revive", "x")
    assert get(production) == TARGETED
    assert 'no variant "blue"' in production.refused("kill", "x", "--to", "blue", "--reason", "y")
    assert "it is empty" in production.misused("kill", "x", "--to", "", "--reason", "y")
    assert get(production) == TARGETED


def test_killing_twice_is_no_error_and_says_so(production: Cli) -> None:
    put(production)
    killed = production.json("kill", "x", "--reason", "y")
    assert killed["changed"] is True
    again = production.json("kill", "x", "--reason", "y")
    assert again == {"revision": 2, "epoch": killed["epoch"], "at": None, "changed": False}
    assert "already; nothing was changed" in production.ok("kill", "x", "--reason", "y")


def test_what_cannot_be_killed_or_revived_is_refused(production: Cli) -> None:
    assert 'no flag "x"' in production.refused("kill", "x", "--reason", "y")
    assert 'no flag "x"' in production.refused("revive", "x")
    put(production)
    assert "is not killed" in production.refused("revive", "x")
    assert "it is empty" in production.misused("kill", "x", "--reason", " ")


def test_a_kill_is_kept_with_who_and_why(production: Cli, redis_command: Any) -> None:
    put(production)
    production.ok("kill", "x", "--reason", "error rate", "--actor", "grace")
    production.ok("revive", "x", FLAGRELAY_ACTOR="linus")
    production.ok("kill", "x", "--reason", "again", FLAGRELAY_ACTOR="")
    changes = redis_command("XRANGE", "flagrelay:{production}:changes", "-", "+").decode()
    assert '"actor":"grace","reason":"error rate","urgent":true' in changes
    assert '"actor":"linus","reason":"","urgent":true' in changes
    assert f'"actor":"{getuser()}","reason":"again"' in changes, "the login name, where nothing else is said"
