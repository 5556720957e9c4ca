"""Populations: named predicates over evaluation contexts."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from flagrelay.control.answers import AnyReason, Change, Name, Request, Revision, Sample, change_of
from flagrelay.control.flags import check_revision
from flagrelay.control.session import Session
from flagrelay.errors import Conflict, DefinitionError, PopulationMissing, PopulationUsed, PopulationWithheld
from flagrelay.flags.change import Rule
from flagrelay.flags.definition import check_population
from flagrelay.flags.equality import same
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release.plan import EVERYBODY
from flagrelay.release.population import (
    MAX_DESCRIPTION,
    MAX_KEYS,
    MAX_RISK,
    About,
    at_domains,
    check_about,
    describe,
    equals,
    form_of,
    keys_of,
    of_keys,
    one_of,
    references,
)
from flagrelay.store.reading import FlagEntry, State, read_state
from flagrelay.store.writing import Draft, write_change

DELETE_TRIES = 20
"""How often a deletion looks anew who uses the population, because somebody has written the environment meanwhile."""

Value = str | int | float | bool
Attribute = Annotated[str, Meta(min_length=1, max_length=256)]


class Population(Struct, kw_only=True):
    """A population: what is to be known of it, its rule in words, how many targeting keys it lists, and who uses it.

    `kind` is `equals`, `in`, `email`, `keys`, or `rule` for any other. `risk` orders them: the lower, the earlier.
    """

    name: str
    revision: int
    description: str
    risk: int | None
    kind: str
    shown: str
    keys: int | None
    used_by: list[str]


class WholePopulation(Population, kw_only=True):
    """The same, with its rule."""

    rule: dict[str, Any]


class Equals(Request, kw_only=True):
    """Those whose attribute is a value."""

    attribute: Attribute
    value: Value


class OneOf(Request, kw_only=True):
    """Those whose attribute is one of some values."""

    attribute: Attribute
    values: Annotated[list[Value], Meta(min_length=1, max_length=MAX_KEYS)]


class ListPopulations(Request, kw_only=True):
    """Nothing is asked for but the list."""


class GetPopulation(Request, kw_only=True):
    """Which population."""

    name: Name


class PutPopulation(Request, kw_only=True):
    """A population by its rule, or by one of the simple forms; by none of them, to change what is said of it.

    What is left out of `description` and `risk` stays as it is. `force`: although a release is un-released from it, or
    limited to it, and others would be in it.
    """

    name: Name
    rule: dict[str, Any] | None = None
    equals: Equals | None = None
    one_of: OneOf | None = None
    email_domains: Annotated[list[str], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    keys: Annotated[list[str], Meta(min_length=1, max_length=MAX_KEYS)] | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] | UnsetType = UNSET
    risk: Annotated[int, Meta(ge=0, le=MAX_RISK)] | UnsetType | None = UNSET
    force: bool = False
    reason: AnyReason = ""
    if_revision: Revision | None = None


class DeletePopulation(Request, kw_only=True):
    """Which population is to go."""

    name: Name
    reason: AnyReason = ""
    if_revision: Revision | None = None


class CountMembers(Request, kw_only=True):
    """Which population, and over which contexts its members are to be counted."""

    name: Name
    sample: Sample = field(default_factory=list)


class Members(Struct, kw_only=True):
    """Who is in a population: the targeting keys that it lists, or null, and how many of a sample are in it."""

    name: str
    shown: str
    keys: list[str] | None
    contexts: int
    members: int


async def list_populations(session: Session, _request: ListPopulations) -> list[Population]:
    """List the populations of the environment, those of least risk first."""
    state = await read_state(session.store, session.environment)
    users = users_of(state)
    found = [_population(state, name, users) for name in state.evaluators]
    return sorted(found, key=lambda each: (MAX_RISK + 1 if each.risk is None else each.risk, each.name))


async def get_population(session: Session, request: GetPopulation) -> WholePopulation:
    """Get a population, with its rule and who uses it."""
    state = await read_state(session.store, session.environment)
    rule = _rule(session, state, request.name)
    found = _population(state, request.name, users_of(state))
    return WholePopulation(**{name: getattr(found, name) for name in found.__struct_fields__}, rule=rule)


async def put_population(session: Session, request: PutPopulation) -> Change:
    """Create a population, or change it."""
    name = request.name
    if name == EVERYBODY:
        raise DefinitionError(f'population "{name}"', "", "that is what everybody is called who is in no population")
    state = await read_state(session.store, session.environment)
    revision, held = state.evaluators.get(name, (0, None))
    check_revision(f'population "{name}"', request.if_revision, revision)
    rule = _wanted_rule(request)
    if rule is None and held is None:
        raise DefinitionError(f'population "{name}"', "", "it is not there yet, so it takes a rule, or a simple form")
    another = rule is not None and not (held is not None and same(rule, held))
    if another and not request.force and (why := withheld_from(state, name, rule)):
        raise PopulationWithheld(name, why)
    before = state.about.get(name, {})
    about = check_about(
        name,
        About(
            before.get("description", "") if request.description is UNSET else request.description,
            before.get("risk") if request.risk is UNSET else request.risk,
        ),
    )
    draft = Draft(
        evaluators={name: held if rule is None else rule},
        expected_evaluators={name: revision},
        about={name: about.as_json()},
        action="populations put" if another else "populations describe",
        actor=session.actor,
        reason=request.reason,
    )
    return change_of(await session.write(lambda store: write_change(store, session.environment, draft)))


async def delete_population(session: Session, request: DeletePopulation) -> Change:
    """Delete a population that no flag and no release uses."""
    name = request.name
    for last in reversed(range(DELETE_TRIES)):
        state = await read_state(session.store, session.environment)
        _rule(session, state, name)
        check_revision(f'population "{name}"', request.if_revision, state.evaluators[name][0])
        users = users_of(state).get(name, [])
        if users:
            raise PopulationUsed(name, users)
        draft = Draft(
            evaluators={name: None},
            expected=state.position.revision,
            action="populations delete",
            actor=session.actor,
            reason=request.reason,
        )
        try:
            return change_of(await session.write(partial(write_change, environment=session.environment, draft=draft)))
        except Conflict:
            if not last:
                raise
    raise RuntimeError("the last try returns or raises")


async def count_members(session: Session, request: CountMembers) -> Members:
    """Tell who is in a population: its targeting keys, and how many of a sample, or of open streams, are in it."""
    state = await read_state(session.store, session.environment)
    rule = _rule(session, state, request.name)
    contexts: list[Mapping[str, Any]] = [*request.sample] or [*session.contexts()]
    inside = await asyncio.to_thread(lambda: sum(_inside(state, request.name, contexts)))
    return Members(name=request.name, shown=describe(rule), keys=keys_of(rule), contexts=len(contexts), members=inside)


def _inside(state: State, name: str, contexts: Iterable[Mapping[str, Any]]) -> Iterable[bool]:
    probe = {
        "state": "ENABLED",
        "variants": {"in": True, "out": False},
        "targeting": {"if": [{"$ref": name}, "in", "out"]},
    }
    evaluators = {name: state.evaluators[name][1]}
    snapshot = Snapshot(state.position, flags={"member": probe}, evaluators=evaluators, settings=state.settings)
    return (snapshot.resolve("member", context).value is True for context in contexts)


def _rule(session: Session, state: State, name: str) -> Rule:
    if name not in state.evaluators:
        raise PopulationMissing(session.environment, name)
    return state.evaluators[name][1]


def _wanted_rule(request: PutPopulation) -> Rule | None:
    """The rule that a request gives, in whichever form; None where it gives none.

    Raises:
        DefinitionError: it gives several, or one that is none.
    """
    name = request.name
    given: list[Rule] = []
    if request.rule is not None:
        given.append(check_population(name, request.rule))
    if request.equals is not None:
        given.append(equals(name, request.equals.attribute, request.equals.value))
    if request.one_of is not None:
        given.append(one_of(name, request.one_of.attribute, request.one_of.values))
    if request.email_domains is not UNSET:
        given.append(at_domains(name, request.email_domains))
    if request.keys is not UNSET:
        given.append(of_keys(name, request.keys))
    if len(given) > 1:
        raise DefinitionError(f'population "{name}"', "", "it takes one rule, or one simple form, and not several")
    return given[0] if given else None


def named_by(entry: FlagEntry) -> set[str]:
    """The populations that a flag names; one that is killed, in what it returns to, too."""
    named = references(entry.definition.get("targeting"))
    return named | references(entry.killed.original.get("targeting")) if entry.killed else named


def users_of(state: State) -> dict[str, list[str]]:
    """What names each population, as a person names it. A killed flag counts as what it returns to, too."""
    users: dict[str, list[str]] = {}
    for key, entry in sorted(state.flags.items()):
        for name in named_by(entry):
            users.setdefault(name, []).append(f'flag "{key}"')
    for key, held in sorted(state.releases.items()):
        for name in held.release.populations:
            users.setdefault(name, []).append(f'the release of flag "{key}"')
    return users


def withheld_from(state: State, name: str, rule: Rule | None) -> str:
    """Which flag was taken from a population, or is limited to it, so that by another rule somebody may have it again.

    Empty for none, and for lists of targeting keys between which nobody gets it.
    """
    standing = (entry.release for entry in state.releases.values())
    releases = [release for release in standing if name in release.blocks or name in release.only]
    if not releases:
        return ""
    held = state.evaluators[name][1] if name in state.evaluators else None
    before, after = ({*(keys_of(each) or ())} for each in (held, rule))
    for release in sorted(releases, key=lambda each: each.flag):
        if name in release.blocks and not (before and before <= after):
            return f'flag "{release.flag}" is un-released from it'
        if name in release.only and not (after and after <= before):
            return f'flag "{release.flag}" is limited to it'
    return ""


def _population(state: State, name: str, users: Mapping[str, list[str]]) -> Population:
    revision, rule = state.evaluators[name]
    form, about = form_of(rule), state.about.get(name, {})
    return Population(
        name=name,
        revision=revision,
        description=about.get("description", ""),
        risk=about.get("risk"),
        kind=form.kind,
        shown=describe(rule),
        keys=len(form.values) if form.kind == "keys" else None,
        used_by=users.get(name, []),
    )
