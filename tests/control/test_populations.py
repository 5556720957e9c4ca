"""Populations as operations: their forms, what is said of them, who uses them, who is in them."""

import asyncio
from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.populations import DELETE_TRIES, Members, Population, WholePopulation
from flagrelay.control.session import Session
from flagrelay.errors import (
    Conflict,
    DefinitionError,
    EnvironmentMissing,
    InputError,
    PopulationMissing,
    PopulationUsed,
    PopulationWithheld,
)
from flagrelay.store.connection import Store
from flagrelay.store.history import read_history
from flagrelay.store.reading import read_snapshot, read_state
from flagrelay.store.writing import Draft, write_change
from support.released import DOCUMENT, KEY, POPULATIONS, do, populate, unchanged
from support.stores import ENVIRONMENT, everything, flag, put

pytestmark = pytest.mark.usefixtures("desk")

RULE = {"==": [{"var": "plan"}, "beta"]}
OTHER = {"==": [{"var": "plan"}, "free"]}


async def rule(store: Store, name: str) -> Any:
    return (await do(store, table.GET_POPULATION, name=name)).rule


# -- put ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "made", "kind", "shown"),
    [
        ({"rule": {"!": [{"var": "x"}]}}, {"!": [{"var": "x"}]}, "rule", '{"!": [{"var": "x"}]}'),
        ({"equals": {"attribute": "plan", "value": "beta"}}, RULE, "equals", 'plan is "beta"'),
        ({"equals": {"attribute": "n", "value": 1.0}}, {"==": [{"var": "n"}, 1.0]}, "equals", "n is 1.0"),
        ({"equals": {"attribute": "b", "value": True}}, {"==": [{"var": "b"}, True]}, "equals", "b is true"),
        (
            {"one_of": {"attribute": "plan", "values": ["a", "b", "a"]}},
            {"in": [{"var": "plan"}, ["a", "b"]]},
            "in",
            'plan is one of "a", "b"',
        ),
        (
            {"email_domains": ["@Example.com", "example.org"]},
            {"or": [{"ends_with": [{"var": "email"}, f"@example.{end}"]} for end in ("com", "org")]},
            "email",
            "email at example.com, example.org",
        ),
        ({"keys": ["u2", "u1", "u2"]}, {"in": [{"var": "targetingKey"}, ["u1", "u2"]]}, "keys", "2 targeting keys"),
    ],
)
async def test_a_population_is_put_in_any_of_its_forms(
    store: Store, form: dict[str, Any], made: Any, kind: str, shown: str
) -> None:
    change = await do(store, table.PUT_POPULATION, name="p", description="who", risk=7, reason="new", **form)
    assert (change.revision, change.changed) == (1, True)
    assert await do(store, table.GET_POPULATION, name="p") == WholePopulation(
        name="p",
        revision=1,
        description="who",
        risk=7,
        kind=kind,
        shown=shown,
        keys=2 if kind == "keys" else None,
        used_by=[],
        rule=made,
    )
    assert (await read_snapshot(store, ENVIRONMENT)).evaluators == {"p": made}
    [entry] = [each async for each in read_history(store, ENVIRONMENT)]
    assert (entry.action, entry.actor, entry.reason, entry.populations) == ("populations put", "ada", "new", ("p",))


async def test_what_is_left_out_of_what_is_said_stays(store: Store) -> None:
    await do(store, table.PUT_POPULATION, name="p", rule=RULE, description="who", risk=7)

    async def said() -> tuple[str, int | None, Any]:
        found = await do(store, table.GET_POPULATION, name="p")
        return found.description, found.risk, found.rule

    other = {"==": [1, 1]}
    await do(store, table.PUT_POPULATION, name="p", rule=other)
    assert await said() == ("who", 7, other)
    await do(store, table.PUT_POPULATION, name="p", risk=8)
    assert await said() == ("who", 8, other)
    await do(store, table.PUT_POPULATION, name="p", description="")
    assert await said() == ("", 8, other)
    session = Session(store, ENVIRONMENT, "ada")
    await table.PUT_POPULATION.run(session, table.PUT_POPULATION.request(name="p", risk=None))
    assert await said() == ("", None, other)
    assert (await read_state(store, ENVIRONMENT)).about == {"p": {}}


async def test_a_population_that_is_none_is_refused(store: Store) -> None:
    put_it = table.PUT_POPULATION
    no_definitions: list[tuple[dict[str, Any], str]] = [
        ({}, 'population "p": it is not there yet, so it takes a rule'),
        ({"description": "who"}, "it is not there yet"),
        ({"rule": RULE, "keys": ["a"]}, "it takes one rule, or one simple form, and not several"),
        ({"email_domains": ["a.b"], "equals": {"attribute": "a", "value": 1}}, "and not several"),
        ({"rule": {"nonsense": 1}}, "nonsense"),
        ({"rule": {"$ref": "q"}}, "q"),
        ({"email_domains": ["no domain"]}, "is no domain"),
        ({"keys": ["a\nb"]}, "control characters"),
        ({"rule": RULE, "description": "bell\x07"}, "control characters"),
    ]
    for members, why in no_definitions:
        await unchanged(store, DefinitionError, why, put_it, name="p", **members)
    no_requests: list[tuple[dict[str, Any], str]] = [
        ({"keys": []}, "keys"),
        ({"email_domains": []}, "email_domains"),
        ({"equals": {"attribute": "a"}}, "value"),
        ({"equals": {"attribute": "", "value": 1}}, "length"),
        ({"equals": {"attribute": "a", "value": [1]}}, "value"),
        ({"one_of": {"attribute": "a", "values": []}}, "length"),
        ({"rule": []}, "object"),
        ({"rule": RULE, "risk": -1}, "risk"),
        ({"rule": RULE, "risk": 1001}, "risk"),
        ({"rule": RULE, "description": "x" * 1001}, "description"),
        ({"name": "x" * 257, "rule": RULE}, "name"),
    ]
    for members, why in no_requests:
        await unchanged(store, InputError, why, put_it, **{"name": "p", **members})


async def test_a_population_is_written_only_at_the_revision_that_was_seen(store: Store) -> None:
    await do(store, table.PUT_POPULATION, name="p", rule=RULE, if_revision=0)
    for revision in (0, 2):
        sentence = 'population "p" is at revision 1'
        for operation, members in ((table.PUT_POPULATION, {"risk": 1}), (table.DELETE_POPULATION, {})):
            await unchanged(store, Conflict, sentence, operation, name="p", if_revision=revision, **members)
    await do(store, table.PUT_POPULATION, name="p", risk=1, if_revision=1)
    await do(store, table.DELETE_POPULATION, name="p", if_revision=2)
    sentence = 'population "p" does not exist'
    await unchanged(store, Conflict, sentence, table.PUT_POPULATION, name="p", rule=RULE, if_revision=2)


async def test_of_many_who_put_it_at_once_nobody_is_overwritten_unseen(store: Store) -> None:
    await do(store, table.PUT_POPULATION, name="p", rule=RULE)
    puts = (do(store, table.PUT_POPULATION, name="p", risk=number) for number in range(10))
    ends = await asyncio.gather(*puts, return_exceptions=True)
    assert {type(end).__name__ for end in ends} <= {"Change", "Conflict"}
    written = sum(not isinstance(end, Conflict) for end in ends)
    assert (await do(store, table.GET_POPULATION, name="p")).revision == 1 + written


# -- list, and who uses it ----------------------------------------------------------------------------------------


async def test_populations_are_listed_by_risk_and_those_of_unknown_risk_last(store: Store) -> None:
    for name, risk in (("a", None), ("b", 20), ("c", 0), ("d", 20), ("e", 1000)):
        await do(store, table.PUT_POPULATION, name=name, rule=RULE, risk=risk)
    listed = await do(store, table.LIST_POPULATIONS)
    assert [(each.name, each.risk) for each in listed] == [("c", 0), ("b", 20), ("d", 20), ("e", 1000), ("a", None)]
    assert listed[0] == Population(
        name="c", revision=3, description="", risk=0, kind="equals", shown='plan is "beta"', keys=None, used_by=[]
    )


async def test_whoever_uses_it_is_told_and_keeps_it_from_being_deleted(store: Store) -> None:
    await populate(store)
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT)
    await do(store, table.START, key=KEY, reason="why")
    await do(store, table.UNRELEASE, key=KEY, to="eu", reason="why")
    rule_of_flag = {"if": [{"or": [{"$ref": "beta"}, {"!": [{"$ref": "eu"}]}]}, "on", "off"]}
    await write_change(store, ENVIRONMENT, Draft(flags={"plain": flag(1, targeting=rule_of_flag)}))
    await do(store, table.KILL, key="plain", to="on", reason="why")
    users = {each.name: each.used_by for each in await do(store, table.LIST_POPULATIONS)}
    release = f'the release of flag "{KEY}"'
    assert users == {
        "dev": [f'flag "{KEY}"', release],
        "beta": ['flag "plain"', release],
        "eu": [f'flag "{KEY}"', 'flag "plain"', release],
    }
    for name, used_by in users.items():
        sentence = f'population "{name}" is used by {", ".join(used_by)}; nothing was changed'
        await unchanged(store, PopulationUsed, sentence, table.DELETE_POPULATION, name=name)
    await do(store, table.ABANDON, key=KEY)
    await do(store, table.DELETE_POPULATION, name="dev", reason="closed")
    assert (await read_snapshot(store, ENVIRONMENT)).evaluators.keys() == {"beta", "eu"}
    assert (await anext(read_history(store, ENVIRONMENT))).action == "populations delete"


async def test_a_population_that_is_not_there_is_missing(store: Store) -> None:
    for operation in (table.GET_POPULATION, table.DELETE_POPULATION, table.MEMBERS):
        await unchanged(store, PopulationMissing, 'has no population "p"', operation, name="p")
    await store.client.flushall()
    for operation in (table.GET_POPULATION, table.DELETE_POPULATION, table.MEMBERS, table.LIST_POPULATIONS):
        name = None if operation is table.LIST_POPULATIONS else "p"
        await unchanged(store, EnvironmentMissing, "does not exist", operation, name=name)
    await unchanged(store, EnvironmentMissing, "does not exist", table.PUT_POPULATION, name="p", rule=RULE)


class Meddler:
    """Writes something before each write of somebody else, as often as it is told."""

    def __init__(self, times: int, flags: dict[str, Any]) -> None:
        self.left = times
        self.flags = flags

    async def __call__(self, store: Store, environment: str, draft: Draft) -> Any:
        if self.left:
            self.left -= 1
            await write_change(store, ENVIRONMENT, Draft(flags=self.flags))
        return await write_change(store, environment, draft)


async def test_a_deletion_looks_anew_who_uses_it_when_somebody_has_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await do(store, table.PUT_POPULATION, name="p", rule=RULE)
    monkeypatch.setattr("flagrelay.control.populations.write_change", Meddler(DELETE_TRIES - 1, {"a": flag(1)}))
    await do(store, table.DELETE_POPULATION, name="p")
    await write_change(store, ENVIRONMENT, Draft(evaluators={"p": RULE}))
    monkeypatch.setattr("flagrelay.control.populations.write_change", Meddler(DELETE_TRIES, {"a": flag(1)}))
    with pytest.raises(Conflict, match='environment "production" is at revision'):
        await do(store, table.DELETE_POPULATION, name="p")
    uses = flag(1, targeting={"if": [{"$ref": "p"}, "on", "off"]})
    monkeypatch.setattr("flagrelay.control.populations.write_change", Meddler(1, {"b": uses}))
    with pytest.raises(PopulationUsed, match='used by flag "b"'):
        await do(store, table.DELETE_POPULATION, name="p")
    assert await rule(store, "p") == RULE


# -- who is in it -------------------------------------------------------------------------------------------------


async def test_members_are_the_keys_that_it_lists_and_counted_over_a_sample_or_open_streams(store: Store) -> None:
    await do(store, table.PUT_POPULATION, name="keys", keys=["u2", "u1"])
    await do(store, table.PUT_POPULATION, name="plan", rule=RULE)
    before = await everything(store)
    found = await do(store, table.MEMBERS, name="keys")
    assert found == Members(name="keys", shown="2 targeting keys", keys=["u1", "u2"], contexts=0, members=0)
    sample = [{"plan": "beta"}, {"plan": "free", "targetingKey": "u1"}, {"plan": "beta", "targetingKey": "u2"}]
    found = await do(store, table.MEMBERS, name="plan", sample=sample)
    assert found == Members(name="plan", shown='plan is "beta"', keys=None, contexts=3, members=2)
    found = await do(store, table.MEMBERS, contexts=sample[:2], name="keys")
    assert (found.contexts, found.members) == (2, 1)
    assert await everything(store) == before


async def test_a_rule_that_fails_for_somebody_counts_them_out(store: Store) -> None:
    await do(store, table.PUT_POPULATION, name="p", rule={"in": [{"var": "a"}, {"var": "list"}]})
    found = await do(store, table.MEMBERS, name="p", sample=[{"a": 1, "list": 7}, {"a": 1, "list": [1]}, {}])
    assert (found.contexts, found.members) == (3, 1)


async def test_the_largest_list_of_keys_is_put_and_told(store: Store) -> None:
    keys = [f"user-{number:06}" for number in range(100_000)]
    await do(store, table.PUT_POPULATION, name="p", keys=keys)
    found = await do(store, table.MEMBERS, name="p", sample=[{"targetingKey": keys[-1]}, {"targetingKey": "x"}])
    assert (found.keys, found.members) == (keys, 1)
    sentence = "length <= 100000"
    await unchanged(store, InputError, sentence, table.PUT_POPULATION, name="p", keys=[*keys, "one"])
    await put(store, "a")
    await do(store, table.DELETE_POPULATION, name="p")


# -- what was taken from a population ------------------------------------------------------------------------------


async def test_nobody_gets_a_flag_again_that_was_taken_from_a_population_by_an_edit_of_that_population(
    store: Store,
) -> None:
    await populate(store, keys={"in": [{"var": "targetingKey"}, ["a", "b"]]})
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT)
    unrelease: dict[str, Any] = {"key": KEY, "from": ["beta", "keys"], "reason": "why"}
    await do(store, table.UNRELEASE, **unrelease)
    await do(store, table.UNRELEASE, key=KEY, to="eu", reason="why")
    put_it = table.PUT_POPULATION
    sentence = f'flag "{KEY}" is un-released from it, so that .* restore it first, or say --force'
    await unchanged(store, PopulationWithheld, sentence, put_it, name="beta", rule=OTHER)
    await unchanged(store, PopulationWithheld, sentence, put_it, name="keys", keys=["a", "c"])
    await unchanged(store, PopulationWithheld, f'flag "{KEY}" is limited to it', put_it, name="eu", keys=["a"])
    nothing_to_them: list[dict[str, Any]] = [
        {"name": "keys", "keys": ["a", "b", "c"]},
        {"name": "beta", "rule": POPULATIONS["beta"], "risk": 3},
        {"name": "dev", "rule": OTHER},
    ]
    for members in nothing_to_them:
        assert (await do(store, put_it, **members)).changed, "this gives nothing to anybody from whom it was taken"
    assert (await do(store, put_it, name="beta", rule=OTHER, force=True)).changed
    await do(store, table.RESTORE, key=KEY, population="keys", reason="why")
    assert (await do(store, put_it, name="keys", keys=["c"])).changed


async def test_history_tells_an_edit_of_who_is_in_it_from_one_of_what_is_said_of_it(store: Store) -> None:
    await do(store, table.PUT_POPULATION, name="p", rule=RULE)
    await do(store, table.PUT_POPULATION, name="p", rule=RULE, description="who")
    await do(store, table.PUT_POPULATION, name="p", risk=8)
    actions = [entry.action async for entry in read_history(store, ENVIRONMENT)]
    assert actions == ["populations describe", "populations describe", "populations put"]


async def test_no_population_is_called_everybody(store: Store) -> None:
    why = "that is what everybody is called who is in no population"
    await unchanged(store, DefinitionError, why, table.PUT_POPULATION, name="everybody", rule=RULE)
