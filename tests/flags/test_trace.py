"""The way through a rule: what it says of each step. That it gives what the compiled rule gives is tested there."""

import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.errors import RuleTooLong
from flagrelay.flags import lookup
from flagrelay.flags.bucket import SHORTHANDS, hash_v3
from flagrelay.flags.meter import LIMIT
from flagrelay.flags.trace import Step, trace_rule
from support.rules import CONTEXTS, POPULATIONS, rules

KEY = "checkout-v2"


def trace(
    rule: Any, context: Any = None, *, populations: Mapping[str, Any] | None = None, generation: str = "v3"
) -> Step:
    context = {} if context is None else context
    return trace_rule(rule, context, KEY, generation=generation, rules=populations or {})


def var(name: str) -> dict[str, Any]:
    return {"var": name}


def walked(step: Step) -> Iterator[Step]:
    yield step
    for inner in step.steps:
        yield from walked(inner)


def standing_still() -> Any:
    """The clock, for `$flagd.timestamp`."""
    return mock.patch.object(lookup, "time", SimpleNamespace(time=lambda: 1_700_000_000.9))


def paths(step: Step) -> list[tuple[str, Any]]:
    return [(each.path, each.gave) for each in walked(step)]


# -- branches ------------------------------------------------------------------------------------------------------


def by_plan(operator: str = "if") -> dict[str, Any]:
    return {operator: [{"==": [var("plan"), "pro"]}, "on", {"==": [var("plan"), "free"]}, "off", "other"]}


@pytest.mark.parametrize("operator", ["if", "?:"])
@pytest.mark.parametrize(
    ("plan", "gave", "note", "looked_at"),
    [("pro", "on", "branch 1", 2), ("free", "off", "branch 2", 3), ("x", "other", "else", 3)],
)
def test_the_branch_that_was_taken_is_named_and_the_others_are_not_looked_at(
    operator: str, plan: str, gave: str, note: str, looked_at: int
) -> None:
    step = trace(by_plan(operator), {"plan": plan})
    assert (step.operator, step.gave, step.note) == (operator, gave, note)
    assert len(step.steps) == looked_at
    assert [each.gave for each in step.steps][-1] == gave


def test_where_no_branch_is_taken_that_is_said() -> None:
    step = trace({"if": [var("x"), "on"]})
    assert (step.gave, step.note) == (None, "no branch")
    assert paths(step) == [("targeting.if", None), ("targeting.if[0].var", None)]


def test_each_step_says_where_it_stands_what_it_saw_and_what_it_gave() -> None:
    rule = {"if": [{"and": [{"==": [var("plan"), "pro"]}, {">=": [var("age"), 18]}]}, {"cat": ["o", "n"]}]}
    assert paths(trace(rule, {"plan": "pro", "age": 20})) == [
        ("targeting.if", "on"),
        ("targeting.if[0].and", True),
        ("targeting.if[0].and[0].==", True),
        ("targeting.if[0].and[0].==[0].var", "pro"),
        ("targeting.if[0].and[0].==[1]", "pro"),
        ("targeting.if[0].and[1].>=", True),
        ("targeting.if[0].and[1].>=[0].var", 20),
        ("targeting.if[0].and[1].>=[1]", 18),
        ("targeting.if[1].cat", "on"),
        ("targeting.if[1].cat[0]", "o"),
        ("targeting.if[1].cat[1]", "n"),
    ]


@pytest.mark.parametrize(
    ("rule", "gave", "looked_at"),
    [
        ({"and": [var("a"), var("b")]}, 0, 1),
        ({"and": [var("b"), var("a"), var("c")]}, 0, 2),
        ({"and": [var("b"), var("c")]}, "see", 2),
        ({"or": [var("a"), var("b"), var("c")]}, 1, 2),
        ({"or": [var("a"), var("d")]}, [], 2),
        ({"or": []}, None, 0),
    ],
)
def test_and_and_or_stop_where_they_are_decided(rule: Any, gave: Any, looked_at: int) -> None:
    step = trace(rule, {"a": 0, "b": 1, "c": "see", "d": []})
    assert step.gave == gave
    assert len(step.steps) == looked_at


# -- data, loops, populations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "note", "gave"),
    [
        (var("plan"), "plan", "pro"),
        (var("user.age"), "user.age", 20),
        ({"var": ["gone", 5]}, "gone", 5),
        ({"var": [{"cat": ["pl", "an"]}]}, "plan", "pro"),
        ({"var": 1}, "1", None),
        (var("$flagd.flagKey"), "$flagd.flagKey", KEY),
    ],
)
def test_what_was_looked_up_is_named(rule: Any, note: str, gave: Any) -> None:
    step = trace(rule, {"plan": "pro", "user": {"age": 20}})
    assert (step.path, step.operator, step.note, step.gave) == ("targeting.var", "var", note, gave)
    assert step.steps == []


def test_the_whole_context_has_what_the_evaluator_provides() -> None:
    with standing_still():
        step = trace(var(""), {"a": 1, "$flagd": "mine"})
    assert step.gave == {"a": 1, "$flagd": {"flagKey": KEY, "timestamp": 1_700_000_000}}


@pytest.mark.parametrize(
    ("rule", "gave", "note"),
    [
        ({"map": [var("n"), {"*": [var(""), 2]}]}, [2, 4, 6], "3 items"),
        ({"filter": [var("n"), {">": [var(""), 1]}]}, [2, 3], "3 items"),
        ({"reduce": [var("n"), {"+": [var("current"), var("accumulator")]}, 10]}, 16, "3 items"),
        ({"all": [var("n"), var("")]}, True, "3 items"),
        ({"some": [[], var("")]}, False, "0 items"),
        ({"none": [var("gone"), var("")]}, True, "nothing to visit"),
        ({"map": [var("text"), var("")]}, [], "nothing to visit"),
        ({"reduce": [var("gone"), var(""), "start"]}, "start", "nothing to visit"),
    ],
)
def test_a_loop_says_how_many_items_it_had(rule: Any, gave: Any, note: str) -> None:
    step = trace(rule, {"n": [1, 2, 3], "text": "abc"})
    assert (step.gave, step.note) == (gave, note)


def test_a_population_is_shown_with_its_own_steps() -> None:
    step = trace(
        {"if": [{"$ref": "beta"}, "on"]}, {"plan": "pro"}, populations={"beta": {"in": [var("plan"), ["pro"]]}}
    )
    assert [(each.path, each.gave, each.note) for each in walked(step)][:4] == [
        ("targeting.if", "on", "branch 1"),
        ("targeting.if[0].$ref", True, 'population "beta"'),
        ("$evaluators.beta.in", True, ""),
        ("$evaluators.beta.in[0].var", "pro", "plan"),
    ]


def test_a_list_shows_the_steps_in_it() -> None:
    step = trace({"merge": [[var("a"), 1, {"+": [1, 1]}]]}, {"a": "x"})
    assert step.gave == ["x", 1, 2]
    assert [each.path for each in walked(step) if each.operator] == [
        "targeting.merge",
        "targeting.merge[0][0].var",
        "targeting.merge[0][2].+",
    ]


def test_missing_shows_the_names_it_was_asked_for() -> None:
    step = trace({"missing": ["a", {"cat": ["b"]}]}, {"a": 1})
    assert step.gave == ["b"]
    assert [each.gave for each in step.steps] == ["a", "b"]
    assert trace({"missing_some": [1, ["a", "b"]]}, {"a": 1}).gave == []
    assert trace({"missing_some": []}, {"a": 1}).gave == []


# -- buckets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["v3", "v2"])
@pytest.mark.parametrize("user", [f"user-{number}" for number in range(20)])
def test_a_share_says_which_bucket_it_was_and_what_stood_there(generation: str, user: str) -> None:
    step = trace({"fractional": [["a", 10], ["b"], ["c", 0], ["d", 89]]}, {"targetingKey": user}, generation=generation)
    hashed = SHORTHANDS[generation](KEY, user)
    assert hashed is not None
    bucket = (hashed * 100) >> 32
    assert step.note == (f"bucket {bucket} of 100: a 0-9, b 10-10, d 11-99; by targeting key {user!r} ({generation})")
    assert step.gave == ("a" if bucket < 10 else "b" if bucket == 10 else "d")


def test_what_decides_is_shown() -> None:
    hashed = hash_v3("ada@example.com")
    assert hashed is not None
    rule = {"fractional": [var("email"), ["on", {"+": [20, 5]}], [var("else"), 75]]}
    step = trace(rule, {"email": "ada@example.com", "else": "off"})
    bucket = (hashed * 100) >> 32
    assert step.note == f"bucket {bucket} of 100: on 0-24, off 25-99; by 'ada@example.com' (v3)"
    assert step.gave == ("on" if bucket < 25 else "off")
    assert [each.path for each in step.steps][:1] == ["targeting.fractional[0].var"]


@pytest.mark.parametrize(
    ("rule", "context", "note"),
    [
        ({"fractional": [["a"], ["b"]]}, {}, "nothing to hash, so no bucket; by targeting key None (v3)"),
        ({"fractional": [["a"]]}, {"targetingKey": ""}, "nothing to hash, so no bucket; by targeting key '' (v3)"),
        ({"fractional": [var("x"), ["a"]]}, {}, "nothing to hash, so no bucket; by None (v3)"),
        ({"fractional": []}, {"targetingKey": "u"}, ""),
    ],
)
def test_why_there_is_no_bucket_is_said(rule: Any, context: Any, note: str) -> None:
    step = trace(rule, context)
    assert step.gave is None
    assert step.note == note


@pytest.mark.parametrize(
    "shares",
    [[["a", 0]], [["a", "1"]], [["a", 1.5], ["b"]], [["a", 1, 2], ["b"]], [["a"], "b"], [["a", 2**31 - 1], ["b"]]],
)
def test_weights_that_cannot_be_used_are_said_to_be_such(shares: Any) -> None:
    step = trace({"fractional": shares}, {"targetingKey": "u"})
    assert step.gave is None
    assert step.note == "the weights cannot be used; by targeting key 'u' (v3)"


def test_long_values_are_cut_in_notes() -> None:
    step = trace({"fractional": [var("id"), ["v" * 100]]}, {"id": "x" * 1000})
    assert len(step.note) < 250
    assert step.gave == "v" * 100


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-3, 50)).map(list), min_size=1, max_size=5),
    st.text(min_size=1, max_size=10),
)
def test_the_bucket_lies_within_what_is_said_of_the_result(shares: list[Any], user: str) -> None:
    step = trace({"fractional": shares}, {"targetingKey": user})
    found = re.match(r"bucket (\d+) of (\d+): ([^;]*);", step.note)
    if not found:
        assert step.gave is None
        return
    bucket, total = int(found[1]), int(found[2])
    assert total == sum(max(0, weight) for _, weight in shares)
    ranges = [re.fullmatch(r"(\w) (\d+)-(\d+)", part) for part in found[3].split(", ")]
    within = [part[1] for part in ranges if part and int(part[2]) <= bucket <= int(part[3])]
    assert within == [step.gave]


# -- what fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{"nope": 1}, {"if": [{"nope": 1}, 1]}, {"map": [[1], {"": 1}]}])
def test_what_is_no_operator_is_an_error(rule: Any) -> None:
    with pytest.raises(ValueError, match="is no operator"):
        trace(rule)


def test_texts_that_grow_too_long_are_an_error() -> None:
    with pytest.raises(RuleTooLong):
        trace({"cat": [var("x"), var("x")]}, {"x": "y" * 200_000})


def test_a_long_literal_list_is_no_reason_to_stop() -> None:
    listed = [str(number) for number in range(LIMIT // 4)]
    rule = {"or": [{"in": [var("x"), [*listed, name]]} for name in "abcdefg"]}
    step = trace(rule, {"x": "g"})
    assert step.gave is True
    assert [each.gave for each in step.steps] == [False] * 6 + [True]
    assert [each.path for each in step.steps[0].steps] == ["targeting.or[0].in[0].var", "targeting.or[0].in[1]"]


@settings(max_examples=150)
@given(rules("any", 3), CONTEXTS)
def test_every_step_has_a_path_below_its_parents(rule: Any, context: dict[str, Any]) -> None:
    populations = {name: {"==": [var("plan"), "pro"]} for name in POPULATIONS}
    with standing_still():
        step = trace(rule, context, populations=populations)
    for parent in walked(step):
        for child in parent.steps:
            assert child.path.startswith((parent.path, "$evaluators."))
            assert len(child.path) > len(parent.path) or child.path.startswith("$evaluators.")
