"""Strategies for what is resolved: JSON, contexts, rules, populations, flags.

Two kinds of rules: `targetings`, in which operators mostly get what they were made for, so that they come to more than
null; and `WILD`, in which every operator gets anything, in any number.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

POPULATIONS = ("beta", "staff")
VARIANTS = ("on", "off", "true", "false", "1", "0", "-3", "0.5", "pro", "é", "a😀b", "null", "None", "1,2", "5e-324")


def _choice(*strategies: Strategy) -> Strategy:
    """Each as likely as the others, where `one_of` would count the parts of each."""
    return st.integers(0, len(strategies) - 1).flatmap(strategies.__getitem__)


TEXTS: Strategy = (
    st.sampled_from(("pro", "free", "a", "DE", "on", "off", "x,y", "true", "null", "constructor", "__proto__"))
    | st.sampled_from(("1", "10", "0.5", "-3", "1e3", " 7 ", "+2", ".5", "12abc", "1.2.3", "v2", "2.0.0-rc.1", "1.10"))
    | st.sampled_from(
        ("", "é", "😀", "a😀b", "\uff21", "0x10", "1_000", "٣", "Infinity", "inf", "nan", "\x1c5", "\ud800")
    )
    | st.text(max_size=5)
)
NUMBERS: Strategy = (
    st.integers(-20, 40)
    | st.integers(0, 3)
    | st.sampled_from((0.5, 1.0, -0.0, 2.0000000000000004, 0.1, 2.5, 3.9999999999999996, 1e-7))
    | st.sampled_from((2**53, 2**53 + 1, -(2**63), 2**64 - 1, 10**20, 10**21, 10**400, 1e21, 1e308))
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS: Strategy = st.none() | st.booleans() | NUMBERS | TEXTS
NAMES: dict[str, tuple[str, ...]] = {
    "text": ("plan", "country", "user.plan", "people.0.plan", "tags.0", "$flagd.flagKey", "targetingKey", "tags.0.0"),
    "number": ("age", "n", "user.age", "numbers.0", "people.1.age", "tags.length", "plan.length", "current"),
    "bool": ("beta", "user.beta"),
    "list": ("tags", "numbers", "people", "mixed"),
    "object": ("user", "people.0", "$flagd", ""),
    "nothing": ("nothing", "nothing.at.all", "user.nothing", "", "accumulator", "current.plan", "age.plan", "tags.9"),
}
ALL_NAMES = tuple(name for names in NAMES.values() for name in names)

JSON: Strategy = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ALL_NAMES) | TEXTS, inner, max_size=3),
    max_leaves=6,
)

LITERALS: Strategy = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.just({})
        | st.dictionaries(st.sampled_from(ALL_NAMES) | TEXTS, inner, min_size=2, max_size=3)
    ),
    max_leaves=6,
)
"""JSON in which nothing looks like an operator: no object has one member."""

# -- contexts -----------------------------------------------------------------------------------------


_ABSENT = object()


def _mostly(expected: Strategy) -> Strategy:
    """What is expected; now and then null, nothing at all, or something else."""
    return _choice(*[expected] * 8, st.none(), st.just(_ABSENT), SCALARS, JSON)


def _object(members: dict[str, Strategy]) -> Strategy:
    every = st.fixed_dictionaries(members)
    return every.map(lambda found: {name: value for name, value in found.items() if value is not _ABSENT})


_PERSON = _object({"plan": _mostly(TEXTS), "age": _mostly(NUMBERS), "beta": _mostly(st.booleans())})
CONTEXTS = _object(
    {
        "targetingKey": _choice(TEXTS, st.uuids().map(str), st.uuids().map(str), st.none(), st.just(_ABSENT)),
        "plan": _mostly(TEXTS),
        "country": _mostly(TEXTS),
        "age": _mostly(NUMBERS),
        "n": _mostly(NUMBERS),
        "beta": _mostly(st.booleans()),
        "tags": _mostly(st.lists(TEXTS, max_size=4)),
        "numbers": _mostly(st.lists(NUMBERS, max_size=4)),
        "people": _mostly(st.lists(_PERSON, max_size=3)),
        "mixed": _mostly(st.lists(SCALARS, max_size=4)),
        "user": _mostly(_PERSON),
        "$flagd": _choice(st.just(_ABSENT), JSON),
    }
)

# -- rules in which operators mostly get what they were made for ---------------------------------------


def _rule(operators: str, *arguments: Strategy) -> Strategy:
    """One of the operators (separated by spaces), with these arguments."""
    return st.builds(
        lambda name, values: {name: list(values)}, st.sampled_from(operators.split()), st.tuples(*arguments)
    )


def _many(operators: str, argument: Strategy, least: int = 1) -> Strategy:
    return st.builds(
        lambda name, values: {name: values},
        st.sampled_from(operators.split()),
        st.lists(argument, min_size=least, max_size=3),
    )


@cache
def _var(kind: str) -> Strategy:
    names = st.sampled_from(NAMES[kind])
    return names.map(lambda name: {"var": name}) | st.builds(
        lambda name, default: {"var": [name, default]}, names, SCALARS
    )


def _common(result: Strategy, test: Strategy) -> list[Strategy]:
    """What gives anything, as long as its arguments do."""
    return [
        _rule("if ?:", test, result, result),
        _rule("if", test, result, test, result, result),
        _rule("and or", result, result),
        result.map(lambda value: {"log": [value]}),
    ]


def _loose(depth: int, *kinds: str) -> Strategy:
    """Of these kinds, mostly."""
    expected = [rules(kind, depth) for kind in kinds]
    return _choice(*expected * (6 // len(expected)), rules("any", depth))


@cache
def rules(kind: str, depth: int) -> Strategy:
    """Rules that give a text, a number, a bool, a list, or anything, so many operators deep."""
    if kind == "any":
        return _choice(
            SCALARS, LITERALS, _var("object") | _var("nothing"),
            *(rules(each, depth) for each in ("text", "number", "bool", "list")),
            *([_fractional(depth - 1), st.sampled_from(POPULATIONS).map(lambda name: {"$ref": name})] if depth else []),
        )  # fmt: skip
    leaves = {"text": TEXTS, "number": NUMBERS, "bool": st.booleans(), "list": st.lists(SCALARS, max_size=3)}[kind]
    if not depth:
        return _choice(leaves, _var(kind), _var(kind))
    return _choice(leaves, _var(kind), _var(kind), *_OPERATIONS[kind](depth - 1))


def _texts(depth: int) -> list[Strategy]:
    text, number = _loose(depth, "text"), _loose(depth, "number")
    return [
        *_common(_loose(depth, "text"), _loose(depth, "bool")),
        _many("cat", _loose(depth, "text", "number"), 0),
        _rule("substr", text, number),
        _rule("substr", text, number, number),
        _rule("reduce", _loose(depth, "list"), st.just({"cat": [{"var": "accumulator"}, {"var": "current"}]}), TEXTS),
    ]


def _numbers(depth: int) -> list[Strategy]:
    number = _loose(depth, "number")
    total = st.just({"+": [{"var": "current"}, {"var": "accumulator"}]})
    return [
        *_common(number, _loose(depth, "bool")),
        _many("+ * min max", number, 0),
        _rule("- / %", number, number),
        _rule("-", number),
        _rule("reduce", _loose(depth, "list"), total | _loose(depth, "number"), NUMBERS),
    ]


def _bools(depth: int) -> list[Strategy]:
    text, number, anything = _loose(depth, "text"), _loose(depth, "number"), rules("any", depth)
    same = st.sampled_from(("text", "number", "bool", "any"))
    compared = same.flatmap(lambda kind: _rule("== != === !==", _loose(depth, kind), _loose(depth, kind)))
    return [
        compared,
        compared,
        _rule("< <= > >=", number, number),
        _rule("< <= > >=", text, text),
        _rule("< <= > >=", number, text),
        _rule("< <=", number, number, number),
        _rule("! !!", anything),
        _rule("in", text, text),
        _rule("in", _loose(depth, "text", "number"), _loose(depth, "list")),
        _rule("starts_with ends_with", text, text),
        _rule(
            "sem_ver", _versions(depth), st.sampled_from(("=", "!=", "<", "<=", ">", ">=", "^", "~")), _versions(depth)
        ),
        _rule("all some none", _loose(depth, "list"), _loose(depth, "bool")),
        *_common(_loose(depth, "bool"), _loose(depth, "bool")),
    ]


def _versions(depth: int) -> Strategy:
    parts = st.lists(st.integers(0, 3).map(str), min_size=1, max_size=3).map(".".join)
    tails = st.sampled_from(("", "", "-rc", "-rc.1", "-1", "+b", "-a.b+c"))
    versions = st.builds(
        lambda head, version, tail: head + version + tail, st.sampled_from(("", "", "v", "V")), parts, tails
    )
    return _choice(versions, versions, NUMBERS, _loose(depth, "text"))


def _lists(depth: int) -> list[Strategy]:
    listed, anything = _loose(depth, "list"), rules("any", depth)
    names = st.lists(st.sampled_from(ALL_NAMES) | rules("any", 0), max_size=3)
    return [
        st.lists(anything, max_size=3),
        _rule("map", listed, anything),
        _rule("filter", listed, _loose(depth, "bool")),
        _many("merge", anything, 0),
        names.map(lambda each: {"missing": each}),
        _rule("missing_some", st.integers(0, 2), names),
        *_common(listed, _loose(depth, "bool")),
    ]


def _fractional(depth: int) -> Strategy:
    results = _choice(*[st.sampled_from(VARIANTS)] * 3, rules("any", depth))
    weights = _choice(*[st.integers(-2, 100)] * 6, st.sampled_from((2**30, 2**31 - 1, 2.5)), rules("number", depth))
    shares = st.lists(
        _choice(*[st.tuples(results, weights).map(list)] * 4, st.tuples(results).map(list), rules("any", depth)),
        min_size=1,
        max_size=4,
    )
    decides = _choice(rules("text", depth), _var("text"), _var("number"), rules("any", depth))
    return shares.map(lambda each: {"fractional": each}) | st.builds(
        lambda by, each: {"fractional": [by, *each]}, decides, shares
    )


_OPERATIONS = {"text": _texts, "number": _numbers, "bool": _bools, "list": _lists}

# -- rules in which every operator gets anything --------------------------------------------------------

OPERATORS = (
    *("==", "!=", "===", "!==", "<", "<=", ">", ">=", "!", "!!", "+", "*", "-", "/", "%", "min", "max", "in", "cat"),
    *("substr", "merge", "log", "starts_with", "ends_with", "sem_ver", "if", "?:", "and", "or", "var", "missing"),
    *("missing_some", "map", "filter", "reduce", "all", "some", "none", "fractional"),
)


def _wild(inner: Strategy) -> Strategy:
    arguments = st.lists(inner, max_size=4) | inner
    return st.builds(lambda name, values: {name: values}, st.sampled_from(OPERATORS), arguments) | st.lists(
        inner, max_size=3
    )


WILD: Strategy = st.recursive(
    st.one_of(
        SCALARS,
        LITERALS,
        st.sampled_from(ALL_NAMES).map(lambda name: {"var": name}),
        st.sampled_from(POPULATIONS).map(lambda name: {"$ref": name}),
    ),
    _wild,
    max_leaves=12,
)

# -- flags ----------------------------------------------------------------------------------------------


def targetings(depth: int = 3) -> Strategy:
    """What stands in flags: rules that come to the name of a variant, often."""
    names = st.sampled_from(VARIANTS)
    results = _choice(*[names] * 4, _fractional(0), rules("any", 1))
    return _choice(
        _rule("if", rules("bool", depth), results, results),
        _rule("if", rules("bool", depth), results, rules("bool", depth), results, results),
        rules("bool", depth),
        _fractional(1),
        rules("any", depth),
    ).filter(lambda rule: isinstance(rule, dict))


def flags(targeting: Strategy, variants: Sequence[str] = VARIANTS) -> Strategy:
    """Definitions that flagd's evaluators take: any default variant, null values too, metadata."""
    names = st.sampled_from(variants)
    values = SCALARS | JSON
    return st.fixed_dictionaries(
        {
            "state": st.sampled_from(("ENABLED",) * 9 + ("DISABLED",)),
            "variants": _choice(
                *[st.just({name: f"value of {name}" for name in variants})] * 3,
                st.dictionaries(names, values, min_size=1, max_size=4),
            ),
            "targeting": _choice(*[targeting] * 12, st.none(), st.just({})),
        },
        optional={
            "defaultVariant": _choice(names, names, st.none(), st.booleans(), st.just(""), TEXTS),
            "metadata": st.dictionaries(TEXTS.filter(bool), st.booleans() | NUMBERS | TEXTS, max_size=2),
        },
    )
