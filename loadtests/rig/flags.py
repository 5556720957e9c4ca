"""Flags as teams have them: named in words, with rules of a few kinds; the same ones for the same number."""

import random
from typing import Any

AREAS = ("billing", "cart", "catalog", "checkout", "identity", "inbox", "ledger", "orders", "profile", "search")
THINGS = ("banner", "cache", "carousel", "editor", "export", "filter", "form", "invite", "layout", "menu", "quota")
TEAMS = ("atlas", "beacon", "comet", "delta", "ember", "falcon", "garnet", "harbor")
PLACES = ("at", "au", "br", "ca", "ch", "de", "es", "fi", "fr", "gb", "in", "it", "jp", "mx", "nl", "pl", "se", "us")


def flag_key(number: int) -> str:
    """The key of a flag."""
    words = random.Random(number)
    return f"{words.choice(AREAS)}-{words.choice(THINGS)}-v{number}"


def flag(number: int, version: int = 0) -> dict[str, Any]:
    """A flag's definition, about 350 bytes of JSON.

    Args:
        number: which flag.
        version: which edit of it; no two are alike.
    """
    chance = random.Random(number)
    definition = (_release, _experiment, _configuration)[number % 3](chance)
    definition["metadata"] = {
        "owner": f"{chance.choice(TEAMS)}@example.com",
        "ticket": f"{chance.choice(TEAMS).upper()}-{chance.randrange(9999)}",
        "edit": version,
    }
    return {"state": "ENABLED", **definition}


def flags(count: int, version: int = 0) -> dict[str, dict[str, Any]]:
    """The first flags, by key."""
    return {flag_key(number): flag(number, version) for number in range(count)}


def _release(chance: random.Random) -> dict[str, Any]:
    testers = [f"{chance.choice(TEAMS)}.{chance.randrange(999)}@example.com" for _ in range(3)]
    places = sorted(chance.sample(PLACES, 4))
    rule = {"if": [{"or": [{"in": [{"var": "email"}, testers]}, {"in": [{"var": "country"}, places]}]}, "on", "off"]}
    return {"variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": rule}


def _experiment(chance: random.Random) -> dict[str, Any]:
    colours = chance.sample(("amber", "blue", "coral", "green", "indigo", "teal"), 3)
    share = chance.randrange(5, 45)
    weights = [[colours[0], share], [colours[1], share], [colours[2], 100 - 2 * share]]
    rule = {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, *weights]}
    variants = {colour: f"#{chance.randrange(0x1000000):06x}" for colour in colours}
    return {"variants": variants, "defaultVariant": colours[0], "targeting": rule}


def _configuration(chance: random.Random) -> dict[str, Any]:
    variants = {
        name: {
            "size": chance.randrange(10, 500),
            "timeoutMs": chance.randrange(100, 9000),
            "retry": chance.random() < 0.5,
        }
        for name in ("small", "large")
    }
    version = f"{chance.randrange(9)}.{chance.randrange(30)}.0"
    rule = {"if": [{"sem_ver": [{"var": "appVersion"}, ">=", version]}, "large", "small"]}
    return {"variants": variants, "defaultVariant": "small", "targeting": rule}
