"""What a release compiles to: a plain flagd definition, the same for the same standing, as short as it can be.

    if   un-released from X, or not of the population it is limited to   baseline
         of a population that has it whole                               released
         of a population that has a share of it                          its share
    else                                                                 everybody's share, or baseline

One hash decides all shares of a release, so that they lie within each other: whoever is among 1 % is among 10 %.
"""

from typing import Any

from flagrelay.flags.change import Definition
from flagrelay.release.plan import WHOLE, Mix
from flagrelay.release.standing import Release
from flagrelay.release.states import State

Rule = Any

STAGE, REVISION = "releaseStage", "releaseRevision"
"""Members of a flag's metadata that say where its release stands."""

KEY: Rule = {"var": "targetingKey"}

KEY_OR_NOTHING: Rule = {"var": ["targetingKey", ""]}
"""For `cat`, which writes null in one evaluator as nothing, and in another as a word."""


def compile_release(release: Release, flag: Definition) -> Definition:
    """The definition of a flag whose release stands so.

    Args:
        release: how it stands; at one of its ends, what it leaves is a plain flag.
        flag: the definition before: its variants and metadata stay.
    """
    metadata = {name: value for name, value in flag.get("metadata", {}).items() if name not in (STAGE, REVISION)}
    otherwise = release.plan.baseline
    match release.state:
        case State.FINISHED:
            otherwise = release.plan.released
            rule: Rule = _serve(release, otherwise)
        case State.ABANDONED:
            rule = _serve(release, release.plan.baseline)
        case _:
            rule = targeting(release)
    if release.state in (State.PLANNED, State.RUNNING, State.WITHDRAWN):
        metadata |= {STAGE: release.stage_name, REVISION: release.revision}
    plain = isinstance(rule, str)
    definition: dict[str, Any] = {
        "state": "ENABLED",
        "variants": flag["variants"],
        "defaultVariant": rule if plain else _heaviest(otherwise),
    }
    if not plain:
        definition["targeting"] = rule
    if metadata:
        definition["metadata"] = metadata
    return definition


def shares(release: Release) -> tuple[list[str], dict[str, int], int]:
    """Whom the stages reached expose: populations whole, populations by share, and everybody's share.

    What another one covers is left out. Populations by share come largest first.
    """
    everybody = max((stage.share for stage in release.reached if stage.population is None), default=0)
    reached: dict[str, int] = {}
    for stage in release.reached:
        if stage.population is not None and stage.share > everybody:
            reached[stage.population] = max(stage.share, reached.get(stage.population, 0))
    whole = [name for name, share in reached.items() if share == WHOLE]
    some = {name: share for name, share in reached.items() if share < WHOLE}
    return whole, dict(sorted(some.items(), key=lambda item: -item[1])), everybody


def targeting(release: Release) -> Rule:
    """The rule of a release that is under way; a variant's name where everybody has the same."""
    released, baseline = (_serve(release, mix) for mix in (release.plan.released, release.plan.baseline))
    whole, some, everybody = shares(release)
    if not (whole or some or everybody):
        return baseline
    rest = released if everybody == WHOLE else _share(release, everybody) if everybody else baseline
    branches: list[Rule] = []
    withheld: list[Rule] = [{"!": [{"$ref": name}]} for name in release.only]
    withheld += [{"$ref": name} for name in release.blocks]
    if withheld:
        branches += [_any(withheld), baseline]
    if whole:
        branches += [_any([{"$ref": name} for name in whole]), released]
    for name, share in some.items():
        branches += [{"$ref": name}, _share(release, share)]
    return {"if": [*branches, rest]} if branches else rest


def _share(release: Release, share: int) -> Rule:
    """The released variant for a share of those who have a targeting key, else the baseline."""
    released, baseline = release.plan.released, release.plan.baseline
    decides = _decides(release)
    if len(released) == len(baseline) == 1:
        (to_some,), (to_others,) = released, baseline
        return {"fractional": [*decides, [to_some, share], [to_others, WHOLE - share]]}
    among = {"==": [{"fractional": [*decides, ["in", share], ["out", WHOLE - share]]}, "in"]}
    return {"if": [among, _serve(release, released), _serve(release, baseline)]}


def _decides(release: Release) -> list[Rule]:
    """What is hashed: the flag's key and the targeting key, or a salt in place of the former. Null without a key."""
    if not release.plan.salt:
        return []
    return [{"if": [KEY, {"cat": [release.plan.salt, KEY]}]}]


def _serve(release: Release, mix: Mix) -> Rule:
    """A variant; or several by weight, by a hash of their own: a growing share moves nobody between them."""
    if len(mix) == 1:
        return next(iter(mix))
    decides = {"cat": [f"{release.plan.salt or release.flag}/variants:", KEY_OR_NOTHING]}
    return {"fractional": [decides, *([name, weight] for name, weight in mix.items())]}


def _any(rules: list[Rule]) -> Rule:
    return rules[0] if len(rules) == 1 else {"or": rules}


def _heaviest(mix: Mix) -> str:
    return max(mix, key=lambda name: mix[name])
