"""What rules may look like on their way in. The measure is flagd's schema, with its own examples."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError
from flagrelay.flags.bucket import MAX_TOTAL
from flagrelay.flags.compiled_flag import compile_population
from flagrelay.flags.compiler import CompiledRule, compile_rule
from flagrelay.flags.definition import check_flag, check_flag_set, check_population, parse_json
from flagrelay.flags.operators import OPERATORS
from flagrelay.flags.targeting import check_rule
from flagrelay.flags.version import COMPARISONS
from support.rules import POPULATIONS, WILD, rules

SCHEMAS = Path(__file__).parents[1] / "data" / "flagd-schemas" / "json"
POSITIVE = sorted(SCHEMAS.glob("test/*/positive/*.json"))
NEGATIVE = sorted(SCHEMAS.glob("test/*/negative/*.json"))
EXAMPLES = sorted(SCHEMAS.glob("examples/*.json"))

DIFFERENT: dict[str, tuple[bool, str]] = {
    "test/flags/negative/with-array-flags.json": (
        True,
        "an array is refused by flags.json and taken by flagd.json; a file that flagd takes can be imported",
    ),
    "examples/full.json": (
        False,
        "its starts-ends-flag has `ends_with` of a number, which flagd's own schema of rules refuses",
    ),
}
"""Where we decide otherwise than the folder says: whether we take it, and why."""

GONE = {"nope": 1}


def name_of(path: Path) -> str:
    return path.relative_to(SCHEMAS).as_posix()


def check_file(path: Path) -> None:
    document = parse_json(path.read_bytes(), path.name)
    if "targeting" in path.parts:
        flag = {"state": "ENABLED", "variants": {"on": True}, "targeting": document}
        check_flag("flag", flag)
    else:
        check_flag_set(document)


def test_there_are_examples_of_all_kinds() -> None:
    assert (len(POSITIVE), len(NEGATIVE), len(EXAMPLES)) == (18, 18, 2)
    assert DIFFERENT.keys() <= {name_of(path) for path in [*POSITIVE, *NEGATIVE, *EXAMPLES]}


@pytest.mark.parametrize("path", [*POSITIVE, *EXAMPLES, *NEGATIVE], ids=name_of)
def test_flagds_examples_are_taken_and_refused_as_its_schemas_say(path: Path) -> None:
    taken, _ = DIFFERENT.get(name_of(path), (path not in NEGATIVE, ""))
    if taken:
        check_file(path)
    else:
        with pytest.raises(DefinitionError) as caught:
            check_file(path)
        assert caught.value.subject
        assert caught.value.path


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("flags/negative/empty-variants.json", 'flag "myBoolFlag": at variants: '),
        ("flags/negative/malformed-flag.json", 'flag "not-a-flag": at state: '),
        ("flags/negative/missing-variants.json", 'flag "myBoolFlag": at variants: '),
        ("flags/negative/mixed-variant-types.ffconfig.json", 'flag "myBoolFlag": at variants.off: '),
        ("flags/negative/state-set-incorrectly.json", 'flag "myBoolFlag": at state: '),
        ("flags/negative/with-invalid-flag-metadata.json", 'flag "myBoolFlag": at metadata.invalid: '),
        ("flags/negative/with-invalid-flag-set-metadata.json", "flag set: at metadata.invalid: "),
        ("flags/negative/with-invalid-targeting.json", 'flag "targetedFlag": at targeting.not-a-real-rule: '),
        ("targeting/negative/fractional-decimal-weighting.json", 'flag "flag": at targeting.fractional[1][1]: '),
        ("targeting/negative/fractional-invalid-bucketing.json", 'flag "flag": at targeting.fractional[0]: '),
        ("targeting/negative/fractional-invalid-weighting.json", 'flag "flag": at targeting.fractional[1][1]: '),
        ("targeting/negative/fractional-negative-weighting.json", 'flag "flag": at targeting.fractional[1][1]: '),
        ("targeting/negative/invalid-ends-with-param.json", 'flag "flag": at targeting.if[0].ends_with[1]: '),
        ("targeting/negative/invalid-flagd-props.json", 'flag "flag": at targeting.if[0].==[0].var: '),
        ("targeting/negative/invalid-starts-with-param.json", 'flag "flag": at targeting.if[0].starts_with[1]: '),
        ("targeting/negative/sem-ver-invalid-range-specifier.json", 'flag "flag": at targeting.if[0].sem_ver[1]: '),
        ("targeting/negative/sem-ver-invalid-ver-expression.json", 'flag "flag": at targeting.if[0].sem_ver[2]: '),
    ],
)
def test_a_refusal_of_an_example_names_what_is_wrong_in_it(name: str, where: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        check_file(SCHEMAS / "test" / name)
    assert str(caught.value).startswith(where)


def test_the_example_that_is_refused_whole_is_refused_for_its_one_flag() -> None:
    document = json.loads((SCHEMAS / "examples" / "full.json").read_text(encoding="utf-8"))
    with pytest.raises(DefinitionError, match=r"starts-ends-flag.*ends_with\[1\]: should be a text"):
        check_flag_set(document)
    del document["flags"]["starts-ends-flag"]
    with pytest.raises(DefinitionError, match=r"equal-greater-lesser.*sem_ver\[2\]: '2.0.0.0' is no version"):
        check_flag_set(document)
    del document["flags"]["equal-greater-lesser-version-flag"]
    check_flag_set(document)


# -- rules -------------------------------------------------------------------------------------------------------


def var(name: str) -> dict[str, Any]:
    return {"var": name}


@pytest.mark.parametrize(
    "rule",
    [
        {},
        var("plan"),
        {"var": ["plan", "free"]},
        {"var": []},
        {"var": ""},
        var("$flagd"),
        var("$flagd.flagKey"),
        {"var": ["$flagd.timestamp"]},
        {"if": [var("a"), "on"]},
        {"if": [var("a"), "on", {}]},
        {"starts_with": [var("a"), "x"]},
        {"ends_with": ["x", {"cat": ["x", var("b")]}]},
        {"sem_ver": [var("a"), "^", "1.2.3-rc.1+b"]},
        {"fractional": [["on"], ["off", 0]]},
        {"fractional": [["on", MAX_TOTAL]]},
        {"fractional": [["on", 25.0], ["off", 75]]},
        {"fractional": [var("email"), ["on", 1], [{"if": [var("x"), "off"]}, {"+": [1, 2]}]]},
        {"fractional": [var("email"), {"var": "shares"}]},
        {"==": [var("a"), [1, {"+": [1, 2]}, []]]},
    ],
)
def test_a_rule_of_flagd_is_taken(rule: Any) -> None:
    check_rule("rule", "targeting", rule)


TAKEN_BEYOND_THE_SCHEMA: dict[str, list[Any]] = {
    "every evaluator takes versions written in other ways": [
        {"sem_ver": ["v1.2", "=", 1]}, {"sem_ver": [1.5, "~", "1"]},
        {"sem_ver": [{"cat": ["1.", var("minor")]}, "<", "V2"]},
    ],
    "JsonLogic's own cases have one argument where the schema wants two": [{"*": ["2"]}, {"*": 2}, {"+": "3.14"}],
    "JsonLogic has them": [{"?:": [True, 1, 2]}, {"log": "text"}, {"log": [var("a")]}],
    "JsonLogic takes nothing, and does without a start": [
        {"merge": []}, {"missing": []}, {"reduce": [[1], var("current")]}, {"missing": "a"},
        {"missing_some": [1, var("names")]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("why", "rule"), [(why, rule) for why, taken in TAKEN_BEYOND_THE_SCHEMA.items() for rule in taken]
)
def test_what_the_schema_refuses_and_every_evaluator_takes_is_taken(why: str, rule: Any) -> None:
    check_rule("rule", "targeting", rule)


REFUSED: list[tuple[Any, str, str]] = [
    ({"startswith": ["a", "b"]}, "startswith", '"startswith" is no operator; did you mean "starts_with"?'),
    ({"IF": [1, 2]}, "IF", '"IF" is no operator'),
    ({"": 1}, "", '"" is no operator; there are =='),
    ({"n" * 500: 1}, "n" * 500, f'"{"n" * 80}" is no operator'),
    ({"==": [1, 1], "!=": [1, 1]}, "", r"an object with several members (==, !=) is no rule"),
    ({"if": [{"a": 1, "b": 2}, 1]}, "if[0]", "several members (a, b)"),
    ({"==": [1]}, "==", "takes 2 arguments, and has 1"),
    ({"==": 1}, "==", "takes 2 arguments, and has 1"),
    ({"==": [1, 2, 3]}, "==", "takes 2 arguments, and has 3"),
    ({"!": []}, "!", "takes 1 argument, and has 0"),
    ({"<": [1, 2, 3, 4]}, "<", "takes 2 to 3 arguments, and has 4"),
    ({"+": []}, "+", "takes 1 or more arguments, and has 0"),
    ({"var": ["a", 1, 2]}, "var", "takes 0 to 2 arguments, and has 3"),
    ({"map": [[1]]}, "map", "takes 2 arguments, and has 1"),
    ({"and": [True, {"cat": []}]}, "and[1].cat", "takes 1 or more arguments"),
    ({"!": {"!": {"!": []}}}, "!.!.!", "takes 1 argument"),
    ([{"!": 1}, {"nope": 1}], "[1].nope", "no operator"),
    (var("$flagd.other"), "var", 'there is no "$flagd.other": $flagd has flagKey and timestamp'),
    ({"var": ["$flagd.flagkey", "x"]}, "var", 'there is no "$flagd.flagkey"'),
    (var("$flagd.flagKey.x"), "var", "$flagd has flagKey and timestamp"),
    ({"starts_with": [var("a"), 5]}, "starts_with[1]", "should be a text, or a rule that gives one"),
    ({"ends_with": [None, "a"]}, "ends_with[0]", "should be a text"),
    ({"ends_with": [["a"], "a"]}, "ends_with[0]", "should be a text"),
    ({"starts_with": ["a"]}, "starts_with", "takes 2 arguments, and has 1"),
    ({"sem_ver": [var("a"), "==", "1.0.0"]}, "sem_ver[1]", f"should be one of {' '.join(COMPARISONS)}"),
    ({"sem_ver": [var("a"), var("op"), "1.0.0"]}, "sem_ver[1]", "should be one of"),
    ({"sem_ver": [var("a"), "=", "1.x"]}, "sem_ver[2]", "'1.x' is no version like 1.2.3"),
    ({"sem_ver": [True, "=", "1"]}, "sem_ver[0]", "True is no version"),
    ({"sem_ver": [var("a"), "="]}, "sem_ver", "takes 3 arguments, and has 2"),
    ({"fractional": []}, "fractional", "takes 1 or more arguments, and has 0"),
    ({"fractional": [var("a")]}, "fractional", "has no shares: [variant, weight]"),
    ({"fractional": ["text", ["a", 1]]}, "fractional[0]", "should be a rule that gives what decides, or a share"),
    ({"fractional": [["a", 1], "b"]}, "fractional[1]", "should be a share"),
    ({"fractional": [["a", 1], []]}, "fractional[1]", "should be a share"),
    ({"fractional": [["a", 1, 2]]}, "fractional[0]", "should be a share"),
    ({"fractional": [["a", "1"]]}, "fractional[0][1]", "'1' is no weight: it should be a whole number, 0 or more"),
    ({"fractional": [["a", True]]}, "fractional[0][1]", "True is no weight"),
    ({"fractional": [["a", None]]}, "fractional[0][1]", "None is no weight"),
    ({"fractional": [["a", -1]]}, "fractional[0][1]", "-1 is no weight"),
    ({"fractional": [["a", 0.5]]}, "fractional[0][1]", "0.5 is no weight"),
    ({"fractional": [["a", MAX_TOTAL], ["b"]]}, "fractional", "the weights come to 2147483648; the most is 2147483647"),
    ({"fractional": [[GONE, 1]]}, "fractional[0][0].nope", "no operator"),
    ({"fractional": [["a", GONE]]}, "fractional[0][1].nope", "no operator"),
    ({"fractional": [GONE, ["a", 1]]}, "fractional[0].nope", "no operator"),
    ({"$ref": 5}, "$ref", "should be the name of a population"),
    ({"if": [{"$ref": "gone"}, 1]}, "if[0].$ref", 'there is no population "gone"; there are beta, staff'),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "cause"), REFUSED)
def test_what_can_only_be_a_mistake_is_refused_with_its_place_and_cause(rule: Any, path: str, cause: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        check_rule('flag "f"', "targeting", rule, populations=POPULATIONS)
    separator = "" if path.startswith("[") or (not path and "several" in cause) else "."
    assert caught.value.path == f"targeting{separator}{path}"
    assert cause in caught.value.cause
    assert str(caught.value) == f'flag "f": at {caught.value.path}: {caught.value.cause}'


@pytest.mark.parametrize("name", ["$flagdata", "$flagd2.x", "flagd.x", "user.$flagd.x", "$"])
def test_a_name_that_only_looks_like_the_evaluators_own_is_taken(name: str) -> None:
    check_rule("rule", "targeting", var(name))


def test_a_population_may_be_named_where_nobody_knows_which_there_are() -> None:
    check_rule("rule", "targeting", {"$ref": "any"}, populations=None)
    with pytest.raises(DefinitionError, match=r'at \$ref: a population cannot refer to another one \("any"\)'):
        check_population("outer", {"$ref": "any"})


def test_a_population_is_named_in_a_flag_set_before_or_after_it_stands_there() -> None:
    flag = {"state": "ENABLED", "variants": {"on": True}, "targeting": {"if": [{"$ref": "beta"}, "on"]}}
    check_flag_set({"flags": {"a": flag}, "$evaluators": {"beta": {"!": 1}}}, populations=())
    check_flag_set({"flags": {"a": flag}}, populations=("beta",))
    check_flag_set({"flags": {"a": flag}})
    with pytest.raises(DefinitionError, match=r'flag "a": at targeting.if\[0\].\$ref: there is no population "beta"'):
        check_flag_set({"flags": {"a": flag}}, populations=())


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_wrong_is_found_in_every_argument(operator: str) -> None:
    known = OPERATORS[operator]
    count = max(1, int(min(known.most, 4)))
    special: dict[str, list[Any]] = {"sem_ver": ["1", "=", "1"], "fractional": [["a"]] * count}
    good = special.get(operator, ["a"] * count)
    check_rule("rule", "t", {operator: good})
    for index in range(count):
        arguments = [*good[:index], [GONE] if operator == "fractional" else GONE, *good[index + 1 :]]
        with pytest.raises(DefinitionError) as caught:
            check_rule("rule", "t", {operator: arguments})
        assert caught.value.path.startswith(f"t.{operator}[{index}]")


# -- what holds for all rules ---------------------------------------------------------------------------------------


ANY_RULE = WILD | rules("any", 2)


def refused(rule: Any, populations: Any = POPULATIONS) -> DefinitionError | None:
    try:
        check_rule('flag "f"', "targeting", rule, populations=populations)
    except DefinitionError as error:
        return error
    return None


def broken(rule: Any) -> DefinitionError | None:
    populations = {name: compile_population(name, {"!": 1}, generation="v3") for name in POPULATIONS}
    try:
        compile_rule(
            'flag "f"',
            "targeting",
            rule,
            generation="v3",
            populations=populations,
            rules={name: {"!": 1} for name in POPULATIONS},
        )
    except DefinitionError as error:
        return error
    return None


BREAKING = st.sampled_from([{"nope": 1}, {"$ref": "gone"}, {"$ref": None}, {"": []}, {"cat.x": "a"}])
MAYBE_BROKEN = st.one_of(
    ANY_RULE,
    st.builds(lambda rule, worse: {"if": [rule, worse, rule]}, ANY_RULE, BREAKING),
    st.builds(lambda rule, worse: {"map": [rule, {"and": [rule, worse]}]}, ANY_RULE, BREAKING),
    st.builds(lambda worse: {"fractional": [["a", 1], [worse, 1]]}, BREAKING),
)


@given(MAYBE_BROKEN)
def test_what_does_not_compile_is_refused_and_what_is_refused_says_where(rule: Any) -> None:
    refusal = refused(rule)
    if broken(rule):
        assert refusal
    if refusal:
        assert refusal.subject == 'flag "f"'
        assert refusal.path.startswith("targeting")
        assert refusal.cause
        assert str(refusal) == f'flag "f": at {refusal.path}: {refusal.cause}'


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*OPERATORS, "$ref", "state"]) | st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(JUNK)
def test_whatever_stands_where_a_rule_should_an_error_names_flag_and_path(rule: Any) -> None:
    flag = {"state": "ENABLED", "variants": {"on": True}, "targeting": rule}
    try:
        taken = check_flag("checkout-v2", flag, POPULATIONS)
    except DefinitionError as error:
        assert error.subject == 'flag "checkout-v2"'
        assert error.path.startswith("targeting")
        assert str(error).startswith('flag "checkout-v2": at targeting')
    else:
        assert taken is flag
        assert broken(rule) is None


@given(JUNK)
def test_whatever_stands_where_a_population_should_an_error_names_it(rule: Any) -> None:
    try:
        check_population("beta", rule)
    except DefinitionError as error:
        assert error.subject == 'population "beta"'
        assert str(error).startswith('population "beta": ')
    else:
        assert isinstance(compile_population("beta", rule, generation="v3"), CompiledRule)
