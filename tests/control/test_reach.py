"""How many people each stage of a release reaches, and the release as it stands."""

from typing import Any

import pytest

from flagrelay.control import table
from flagrelay.control.reach import Reach
from flagrelay.errors import ActionRefused, DefinitionError, EnvironmentMissing, FlagMissing, ReleaseMissing
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_snapshot
from support.released import DOCUMENT, KEY, do, populate, unchanged
from support.stores import ENVIRONMENT, everything, put

pytestmark = pytest.mark.usefixtures("desk")

SAMPLE = [{"targetingKey": f"u{number}", "plan": "beta" if number % 2 else "free"} for number in range(1000)]


@pytest.fixture
async def planned(store: Store) -> Store:
    """A plan, stored."""
    await populate(store)
    await do(store, table.PLAN, key=KEY, plan=DOCUMENT)
    return store


async def reach(store: Store, **members: Any) -> Reach:
    """What it reaches; nothing is written."""
    before = await everything(store)
    found: Reach = await do(store, table.REACH, key=KEY, **members)
    assert await everything(store) == before
    return found


async def test_each_stage_says_what_everybody_has_and_counts_listed_keys(planned: Store) -> None:
    found = await reach(planned)
    assert (found.over, found.contexts) == ("", 0)
    assert [(stage.stage, [each.shown for each in stage.exposures]) for stage in found.stages] == [
        ("dev", ["all", "none", "none"]),
        ("beta-50%", ["all", "50 %", "none"]),
        ("10%", ["all", "50 %", "10 %"]),
        ("100%", ["all", "all", "all"]),
    ]
    assert [each.scope for each in found.stages[0].exposures] == ["dev", "beta", "everybody"]
    assert [[(each.population, each.keys, each.have) for each in stage.keys] for stage in found.stages] == [
        [("dev", 2, 2)]
    ] * 4
    assert found.now
    assert (found.now.stage, found.now.keys[0].have) == ("dark", 0)


async def test_each_stage_is_counted_over_a_sample_and_none_reaches_fewer_than_the_one_before(planned: Store) -> None:
    found = await reach(planned, sample=SAMPLE)
    assert (found.over, found.contexts) == ("sample", 1000)
    counts = [stage.have for stage in found.stages]
    assert counts[0] == 0
    assert 150 < counts[1] < 350
    assert counts == sorted(counts)
    assert counts[-1] == 1000
    for stage in found.stages:
        await do(planned, table.ADVANCE if stage.stage != "dev" else table.START, key=KEY, reason="why")
        snapshot = await read_snapshot(planned, ENVIRONMENT)
        served = [snapshot.resolve(KEY, context).variant for context in SAMPLE]
        assert served.count("on") == stage.have
        now = (await reach(planned, sample=SAMPLE)).now
        assert now
        assert (now.stage, now.have) == (stage.stage, stage.have)


async def test_shares_of_the_same_variants_tell_nobody_who_has_what_so_that_nobody_is_counted(planned: Store) -> None:
    mixes = {"released": {"on": 1, "off": 9}, "baseline": {"on": 9, "off": 1}}
    found = await reach(planned, plan=DOCUMENT | mixes, sample=SAMPLE)
    assert (found.over, found.contexts, [stage.keys for stage in found.stages]) == ("", 0, [[]] * 4)
    shown = await do(planned, table.PLAN, key=KEY, plan=DOCUMENT | mixes, preview=True, sample=SAMPLE)
    assert shown.effect.counted is None
    assert shown.notes == [
        "released and baseline have the same variants, in other shares: who has what is released is not counted"
    ]


async def test_what_was_taken_back_shows_in_what_it_reaches_now_only(planned: Store) -> None:
    await do(planned, table.START, key=KEY, to="100%", reason="why")
    stages = (await reach(planned, sample=SAMPLE)).stages
    taken: dict[str, Any] = {"key": KEY, "from": ["beta", "dev"], "reason": "why"}
    await do(planned, table.UNRELEASE, **taken)
    found = await reach(planned, sample=SAMPLE)
    assert found.stages == stages
    assert found.now
    assert (found.now.have, found.now.keys[0].have) == (500, 0)
    assert [each.shown for each in found.now.exposures] == ["un-released", "un-released", "all"]


async def test_without_a_sample_the_contexts_of_open_streams_are_counted(planned: Store) -> None:
    found = await do(planned, table.REACH, contexts=[{"targetingKey": "d1"}, {}], key=KEY)
    assert (found.over, found.contexts) == ("streams", 2)
    assert [stage.have for stage in found.stages] == [1, 1, 1, 2]
    found = await do(planned, table.REACH, contexts=[{}], key=KEY, sample=SAMPLE)
    assert (found.over, found.contexts) == ("sample", 1000)


@pytest.mark.parametrize("there", [False, True])
async def test_a_plan_is_counted_before_it_is_stored_with_or_without_its_flag(store: Store, *, there: bool) -> None:
    await populate(store)
    plan = {name: value for name, value in DOCUMENT.items() if name != "variants"}
    if there:
        await put(store, KEY)
    found = await reach(store, plan=plan, sample=SAMPLE)
    assert found.now is None
    assert found.stages[-1].have == 1000
    assert found.stages == (await reach(store, plan=DOCUMENT, sample=SAMPLE)).stages


async def test_a_mix_counts_whoever_has_a_variant_that_only_it_has(store: Store) -> None:
    await populate(store)
    plan = DOCUMENT | {"released": {"on": 1, "red": 1}, "stages": [{"percent": 40}, {"percent": 100}]}
    found = await reach(store, plan=plan, sample=SAMPLE)
    assert 300 < found.stages[0].have < 500
    assert found.stages[1].have == 1000


async def test_a_population_of_a_plan_that_is_not_there_reaches_nobody(store: Store) -> None:
    found = await reach(store, plan=DOCUMENT, sample=SAMPLE)
    assert [stage.have for stage in found.stages[:2]] == [0, 0]
    assert found.stages[0].keys == []


async def test_what_cannot_be_counted_is_refused(store: Store) -> None:
    await unchanged(store, FlagMissing, "has no flag", table.REACH, key=KEY)
    await put(store, KEY)
    await unchanged(store, ReleaseMissing, "has no release", table.REACH, key=KEY)
    await unchanged(store, ActionRefused, "the plan is for flag", table.REACH, key="other", plan=DOCUMENT)
    await unchanged(store, DefinitionError, "stages", table.REACH, key=KEY, plan={**DOCUMENT, "stages": []})
    await store.client.flushall()
    await unchanged(store, EnvironmentMissing, "does not exist", table.REACH, key=KEY)
    await unchanged(store, EnvironmentMissing, "does not exist", table.REACH, key=KEY, plan=DOCUMENT)


async def test_a_killed_flag_is_counted_as_what_it_returns_to(planned: Store) -> None:
    await do(planned, table.START, key=KEY, reason="why")
    before = await reach(planned, sample=[{"targetingKey": "d1"}])
    await do(planned, table.KILL, key=KEY, reason="why")
    assert await reach(planned, sample=[{"targetingKey": "d1"}]) == before


async def test_a_flag_of_another_tool_is_counted_as_far_as_it_can_be(planned: Store) -> None:
    text = '{"revision":9,"flag":{"state":"ENABLED","variants":7}}'
    await planned.client.hset(planned.keys.flags(ENVIRONMENT), KEY, text)
    assert len((await reach(planned, sample=SAMPLE[:3])).stages) == 4
