"""Plans of releases, as YAML has them."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.cli.documents import parse_yaml, write_document
from flagrelay.errors import DefinitionError
from flagrelay.flags.definition import MAX_KEY_LENGTH, parse_json
from flagrelay.release.plan import (
    MAX_STAGES,
    MAX_TEXT,
    MAX_WEIGHT,
    WHOLE,
    Approval,
    Stage,
    check_plan,
    check_variants,
    percent,
)
from support.releases import plan_documents

PLAN: dict[str, Any] = {
    "flag": "checkout-v2",
    "released": "on",
    "baseline": "off",
    "stages": [
        {"population": "dev-team"},
        {"population": "beta", "percent": 12.5, "minimum": "1d", "approval": True},
        {"name": "canary", "percent": 1, "approval": ["ada", "grace"]},
        {"percent": 100, "approval": 3},
    ],
}


def plan(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in {**PLAN, **members}.items() if value is not ...}


def stages(*each: Any) -> dict[str, Any]:
    return plan(stages=list(each))


def test_a_plan_is_read() -> None:
    read = check_plan(plan(owner="ada", salt="2026", description="The new checkout"))
    assert (read.flag, read.owner, read.salt, read.description) == ("checkout-v2", "ada", "2026", "The new checkout")
    assert (read.released, read.baseline, read.variants) == ({"on": 1}, {"off": 1}, None)
    assert read.populations == ("dev-team", "beta")
    assert read.stages == (
        Stage("dev-team", "dev-team", WHOLE),
        Stage("beta-12.5%", "beta", 12_500, 86_400, Approval(1)),
        Stage("canary", None, 1_000, 0, Approval(1, ("ada", "grace"))),
        Stage("100%", None, WHOLE, 0, Approval(3)),
    )


def test_a_plan_says_whom_and_by_whom() -> None:
    read = check_plan(PLAN)
    assert [stage.whom for stage in read.stages] == ["dev-team", "12.5 % of beta", "1 % of everybody", "everybody"]
    approvals = [str(stage.approval) for stage in read.stages]
    assert approvals == ["", "by another person", "by ada or grace", "by 3 others"]
    assert [bool(stage.approval) for stage in read.stages] == [False, True, True, True]


def test_a_plan_says_what_goes_without_saying_no_more() -> None:
    document = check_plan(plan(released={"on": 7}, stages=[{"population": "beta", "percent": 100}])).as_json()
    assert document == {
        "flag": "checkout-v2",
        "released": "on",
        "baseline": "off",
        "stages": [{"name": "beta", "population": "beta"}],
    }


@settings(max_examples=80)
@given(plan_documents(), st.sampled_from(("yaml", "json")))
def test_a_plan_is_read_back_from_a_file_as_it_was(document: dict[str, Any], form: str) -> None:
    read = check_plan(document)
    assert check_plan(read.as_json()) == read
    parse: Any = {"yaml": parse_yaml, "json": parse_json}[form]
    assert check_plan(parse(write_document(read.as_json(), form).encode(), "plan")) == read
    assert check_plan(read.as_json()).as_json() == read.as_json()
    assert len(read.stages) == len(document["stages"])
    percentages = [[stage.get("percent", 100) for stage in each["stages"]] for each in (read.as_json(), document)]
    assert percentages[0] == percentages[1]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "plan: should be an object"),
        ([PLAN], "plan: should be an object"),
        (plan(flag=...), "plan: at flag: should be the key of a flag"),
        (plan(flag=""), "plan: at flag: should be the key of a flag"),
        (plan(flag=5), "plan: at flag: should be the key of a flag"),
        (plan(flag="x" * (MAX_KEY_LENGTH + 1)), "plan: at flag: should be the key of a flag"),
        (plan(flag="a\nb"), "plan: at flag: should be the key of a flag"),
        (plan(stage=[]), "plan: at stage: unknown; it has flag, description, owner, salt, variants, released"),
        (plan(released=...), "at released: missing"),
        (plan(baseline=...), "at baseline: missing"),
        (plan(stages=...), "at stages: missing"),
        (plan(owner=5), f"at owner: should be text of at most {MAX_TEXT} characters"),
        (plan(salt=None), "at salt: should be text"),
        (plan(salt="\ud800"), "at salt: should be text"),
        (plan(description="x" * (MAX_TEXT + 1)), "at description: should be text"),
        (plan(released=""), "at released: should be a variant's name, or several, each with its weight"),
        (plan(released={}), "at released: should be a variant's name"),
        (plan(baseline=True), "at baseline: is true, which YAML makes of on and yes without quotes"),
        (plan(baseline=["off"]), "at baseline: should be a variant's name"),
        (plan(released={"on": 0, "red": 1}), f"at released.on: 0 is no weight: a whole number from 1 to {MAX_WEIGHT}"),
        (plan(released={"on": MAX_WEIGHT + 1}), "at released.on: 1000001 is no weight"),
        (plan(released={"on": 1.5}), "at released.on: 1.5 is no weight"),
        (plan(released={"on": True}), "at released.on: True is no weight"),
        (plan(released={"": 1}), "at released: '' is no variant's name: a name is text"),
        (plan(released={"\ud800": 1}), r"at released: '\\ud800' is no variant's name: a name is text"),
        (plan(released="\ud800"), "at released: should be a variant's name"),
        (plan(released={True: 1, "off": 2}), "at released: True is no variant's name: a name is text"),
        (plan(released="off"), "at released: is the same as the baseline, so nothing would be released"),
        (plan(released={"off": 5}), "at released: is the same as the baseline"),
        (plan(variants={"on": True}), 'at baseline: "off" is none of on'),
        (plan(variants={"off": True}), 'at released: "on" is none of off'),
        (plan(variants={"on": 1, "off": "x"}), 'flag "checkout-v2": at variants.off: a string, while "on" is a number'),
        (plan(variants={}), 'flag "checkout-v2": at variants: empty'),
        (plan(stages=[]), f"at stages: should be a list of 1 to {MAX_STAGES} stages"),
        (plan(stages={}), "at stages: should be a list"),
        (stages(*({"percent": each + 1} for each in range(MAX_STAGES + 1))), "at stages: should be a list of 1 to 50"),
        (stages("beta"), r"at stages\[0\]: should be an object"),
        (stages({"percent": 1}, {"share": 5}), r"at stages\[1\].share: unknown; it has name, population, percent"),
        (stages({"minimum": "1h"}), r"at stages\[0\]: names neither a population nor a percentage"),
        (stages({"population": ""}), r"at stages\[0\].population: should be the name of a population"),
        (stages({"population": ["beta"]}), r"at stages\[0\].population: should be the name of a population"),
        (stages({"population": "a\x00"}), r"at stages\[0\].population: should be the name of a population"),
        (stages({"population": "x" * 257}), r"at stages\[0\].population: should be the name of a population"),
        (stages({"percent": 1, "name": ""}), r"at stages\[0\].name: should be a name of 1 to 100 characters"),
        (stages({"percent": 1, "name": "a\nb"}), r"at stages\[0\].name: should be a name"),
        (stages({"percent": 1, "name": 1}), r"at stages\[0\].name: should be a name"),
        (stages({"percent": 1, "minimum": "soon"}), r"at stages\[0\].minimum: 'soon' is no time such as 90s"),
        *(
            (stages({"percent": each}), r"at stages\[0\].percent: .* is no percentage: above 0, at most 100, of three")
            for each in (0, -1, 100.001, 0.0001, 0.0004, 33.3333, 1e-9, float("nan"), float("inf"), "10", True, None)
        ),
        *(
            (stages({"percent": 1, "approval": each}), r"at stages\[0\].approval: should be true, how many others")
            for each in (0, -1, 11, 1.5, "ada", [], [""], [1], [" "], ["\ud800"], {"by": "ada"})
        ),
    ],
)
def test_a_wrong_plan_is_refused_where_it_is_wrong(document: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as raised:
        check_plan(document)
    if isinstance(document, dict) and document.get("flag") == "checkout-v2" and "stage" not in document:
        assert 'flag "checkout-v2"' in raised.value.subject


@pytest.mark.parametrize(
    ("steps", "index", "reached"),
    [
        ([("beta", 50), ("beta", 50)], 1, "50 %"),
        ([("beta", 50), ("beta", 20)], 1, "50 %"),
        ([("beta", 100), ("beta", 100)], 1, "100 %"),
        ([(None, 10), (None, 10)], 1, "10 %"),
        ([(None, 10), ("beta", 10)], 1, "10 %"),
        ([(None, 10), ("beta", 5)], 1, "10 %"),
        ([(None, 100), ("beta", 100)], 1, "100 %"),
        ([("beta", 50), (None, 12.5), ("dev-team", 12.5)], 2, "12.5 %"),
    ],
)
def test_a_stage_that_adds_nobody_is_refused(steps: list[tuple[str | None, float]], index: int, reached: str) -> None:
    listed = [{"percent": share, **({"population": name} if name else {})} for name, share in steps]
    with pytest.raises(DefinitionError, match=rf"stages\[{index}\]: adds nobody: {reached} of them have it by then"):
        check_plan(plan(stages=listed))


def test_a_stage_adds_somebody_where_only_some_others_have_more() -> None:
    listed = [{"population": "beta", "percent": 50}, {"percent": 10}, {"population": "beta"}, {"percent": 50}]
    assert len(check_plan(plan(stages=listed)).stages) == 4


def test_two_stages_of_one_name_are_refused() -> None:
    named = [{"percent": 1, "name": "canary"}, {"percent": 2, "name": "canary"}]
    with pytest.raises(DefinitionError, match=r'stages\[1\]\.name: "canary" is the name of another stage'):
        check_plan(plan(stages=named))
    with pytest.raises(DefinitionError, match=r'stages\[1\]\.name: "2%" is the name of another stage'):
        check_plan(plan(stages=[{"percent": 1, "name": "2%"}, {"percent": 2}]))


def test_a_plan_without_variants_is_held_to_those_of_its_flag() -> None:
    check_variants(check_plan(PLAN), {"on": True, "off": False})
    with pytest.raises(DefinitionError, match='plan of flag "checkout-v2": at released: "on" is none of off, red'):
        check_variants(check_plan(PLAN), {"off": False, "red": True})


def test_people_who_approve_are_named_once() -> None:
    (stage,) = check_plan(stages({"percent": 1, "approval": ["ada", "ada"]})).stages
    assert stage.approval == Approval(1, ("ada",))


@pytest.mark.parametrize(
    ("share", "shown"), [(1, "0.001 %"), (12_500, "12.5 %"), (33_333, "33.333 %"), (1_000, "1 %"), (WHOLE, "100 %")]
)
def test_a_share_is_shown_with_as_many_decimals_as_it_has(share: int, shown: str) -> None:
    assert percent(share) == shown


@given(st.integers(1, WHOLE))
def test_every_share_of_three_decimals_can_be_written(share: int) -> None:
    (stage,) = check_plan(stages({"percent": share / 1000})).stages
    assert stage.share == share
    assert check_plan(stages(stage.as_json())).stages == (stage,)


JUNK: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(("\ud800", "\n")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=80)
@given(plan_documents(), st.data())
def test_a_plan_with_junk_in_it_is_refused_or_read_and_never_crashes(document: dict[str, Any], data: Any) -> None:
    target = data.draw(st.sampled_from([document, *document["stages"]]))
    target[data.draw(st.sampled_from([*target, "x", "approval", "minimum", "variants"]))] = data.draw(JUNK)
    try:
        read = check_plan(document)
    except DefinitionError as error:
        assert error.cause
    else:
        assert check_plan(orjson.loads(orjson.dumps(read.as_json()))) == read
