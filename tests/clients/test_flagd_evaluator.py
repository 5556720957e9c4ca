"""Our snapshots behind the interface of flagd's Python kits, next to what those kits come with themselves."""

import copy
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime
from itertools import count
from types import MappingProxyType
from typing import Any

import pytest
from openfeature.contrib.tools.flagd.api import Evaluator
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import (
    FlagNotFoundError,
    GeneralError,
    InvalidContextError,
    OpenFeatureError,
    ParseError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import Reason

from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.sdk.evaluator import SnapshotEvaluator

METHODS = tuple(name for name in vars(Evaluator) if not name.startswith("_"))

DEFAULTS: dict[str, Any] = {
    "boolean": True,
    "string": "default",
    "integer": -7,
    "float": -7.5,
    "object": {"the": "default"},
}


def flag(variants: dict[str, Any], default: Any = "it", **more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": variants, "defaultVariant": default, **more}


BETA: dict[str, Any] = {"if": [{"$ref": "beta"}, "on", "off"]}
SWITCH: dict[str, Any] = {"on": True, "off": False}

FLAGS: dict[str, Any] = {
    "yes": flag({"it": True}),
    "no": flag({"it": False}),
    "text": flag({"it": "text"}),
    "empty": flag({"it": ""}),
    "one": flag({"it": 1}),
    "zero": flag({"it": 0}),
    "big": flag({"it": 2**62}),
    "half": flag({"it": 0.5}),
    "one-point-zero": flag({"it": 1.0}),
    "object": flag({"it": {"a": [1, {"b": None}]}}),
    "list": flag({"it": [1, 2]}),
    "own metadata": flag({"it": "x"}, metadata={"owner": "ada", "team": "search"}),
    "disabled": flag({"it": 1}, state="DISABLED", metadata={"owner": "ada"}),
    "without a default": {"state": "ENABLED", "variants": {"it": "x"}},
    "null default": flag({"it": "x"}, None),
    "empty default": flag({"it": "x"}, ""),
    "default true": flag({"true": 1, "false": 2}, True),
    "default elsewhere": flag({"it": 1}, "other"),
    "empty targeting": flag({"it": 1}, targeting={}),
    "beta": flag(SWITCH, "off", targeting=BETA),
    "nested/key with spaces é": flag(SWITCH, "off", targeting=BETA),
    "null without a default": flag(SWITCH, None, targeting={"if": [{"$ref": "beta"}, "on"]}),
    "boolean names": flag({"true": "yes", "false": "no"}, "false", targeting={"$ref": "beta"}),
    "no such variant": flag(SWITCH, "off", targeting={"if": [True, "elsewhere"]}),
    "no such population": flag(SWITCH, "off", targeting={"$ref": "nobody"}),
    "no such operator": flag(SWITCH, "off", targeting={"wish": [True]}),
    "by key": flag({"u1": 1, "other": 2}, "other", targeting={"var": "targetingKey"}),
    "its own name": flag({"yes": 1, "no": 2}, "no", targeting={"if": [
        {"==": [{"var": "$flagd.flagKey"}, "its own name"]}, "yes", "no",
    ]}),
    "share": flag({"a": "A", "b": "B"}, "a", targeting={"fractional": [["a", 50], ["b", 50]]}),
    "share of mails": flag({"a": 1.5, "b": 2}, "a", targeting={"fractional": [{"var": "email"}, ["a", 1], ["b", 9]]}),
    "version": flag(SWITCH, "off", targeting={"if": [{"sem_ver": [{"var": "version"}, "^", "1.2.0"]}, "on"]}),
    "deep": flag(SWITCH, "off", targeting={"if": [{"in": ["DE", {"var": "user.countries"}]}, "on"]}),
}  # fmt: skip

DOCUMENT: dict[str, Any] = {
    "flags": FLAGS,
    "$evaluators": {"beta": {"ends_with": [{"var": "email"}, "@example.com"]}},
    "metadata": {"team": "checkout", "version": 3, "live": True},
}

CONTEXTS: list[EvaluationContext | None] = [
    None,
    EvaluationContext(),
    EvaluationContext("u1"),
    EvaluationContext("u2", {"email": "ada@example.com", "version": "1.4", "user": {"countries": ["FR", "DE"]}}),
    EvaluationContext("", {"email": "eve@example.org", "version": 2, "targetingKey": "u1", "$flagd": {"flagKey": "x"}}),
    *(EvaluationContext(f"user-{number}", {"email": f"{number}@example.com"}) for number in range(20)),
]


def evaluator(document: str | dict[str, Any], *, settings: EnvironmentSettings | None = None) -> SnapshotEvaluator:
    made = SnapshotEvaluator(settings)
    made.set_flags(document)
    return made


def outcome(of: Evaluator, kind: str, key: str, ctx: EvaluationContext | None = None) -> Any:
    """What it says, as something that can be compared: what was raised, or details down to the types in them."""
    try:
        details = getattr(of, f"resolve_{kind}_value")(key, copy.deepcopy(DEFAULTS[kind]), ctx)
    except OpenFeatureError as error:
        return type(error), error.error_code
    assert details.error_code is None
    assert details.error_message is None
    return repr(details.value), details.variant, details.reason, dict(details.flag_metadata)


# -- the protocol -----------------------------------------------------------------------------------------------


def test_it_is_an_evaluator() -> None:
    # mypy has its say about this line.
    ours: Evaluator = SnapshotEvaluator()
    for name in METHODS:
        expected, got = (inspect.signature(getattr(each, name)).parameters for each in (Evaluator, type(ours)))
        assert [(p.name, p.kind, p.default) for p in got.values()] == [
            (p.name, p.kind, p.default) for p in expected.values()
        ]


def test_our_sdk_goes_without_openfeature() -> None:
    modules = "flagrelay.sdk, flagrelay.sdk.asking, flagrelay.sdk.replica, flagrelay.sdk.stream, sys"
    check = f"import {modules}; sys.exit(any(name.partition('.')[0] == 'openfeature' for name in sys.modules))"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


# -- next to flagd's own ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both() -> tuple[Evaluator, Evaluator]:
    """Ours and theirs with the same flags."""
    theirs: Evaluator = FlagdCore()
    theirs.set_flags(json.dumps(DOCUMENT))
    return evaluator(json.dumps(DOCUMENT)), theirs


BOOLEANS = {
    key for key, definition in FLAGS.items() if all(type(value) is bool for value in definition["variants"].values())
}


@pytest.mark.parametrize(
    ("key", "kind"),
    [(key, kind) for key in (*FLAGS, "nowhere") for kind in DEFAULTS if not (kind == "float" and key in BOOLEANS)],
)
def test_it_says_what_flagds_own_says(both: tuple[Evaluator, Evaluator], key: str, kind: str) -> None:
    ours, theirs = both
    for ctx in CONTEXTS:
        assert outcome(ours, kind, key, ctx) == outcome(theirs, kind, key, ctx), ctx


@pytest.mark.parametrize("key", sorted(BOOLEANS))
def test_a_boolean_is_no_float_though_flagds_own_makes_it_one(both: tuple[Evaluator, Evaluator], key: str) -> None:
    ours, theirs = both
    for ctx in CONTEXTS:
        their_outcome = outcome(theirs, "float", key, ctx)
        if their_outcome[0] in ("1.0", "0.0"):
            with pytest.raises(TypeMismatchError):
                ours.resolve_float_value(key, 0.5, ctx)
        else:  # the caller's default, or an error
            assert outcome(ours, "float", key, ctx) == their_outcome


def test_the_table_reaches_every_reason_and_error(both: tuple[Evaluator, Evaluator]) -> None:
    _, theirs = both
    seen: set[Any] = set()
    for key in (*FLAGS, "nowhere"):
        for kind in DEFAULTS:
            seen |= {
                part for ctx in CONTEXTS for part in outcome(theirs, kind, key, ctx)[:3] if isinstance(part, Hashable)
            }
    assert seen >= {Reason.STATIC, Reason.DEFAULT, Reason.DISABLED, Reason.TARGETING_MATCH}
    assert seen >= {FlagNotFoundError, GeneralError, ParseError, TypeMismatchError}


def test_errors_say_what_is_wrong() -> None:
    ours = evaluator(DOCUMENT)
    for kind, key, words in (
        ("boolean", "nowhere", ("nowhere", "no flag")),
        ("string", "yes", ("yes", "string")),
        ("boolean", "no such variant", ("no such variant", "elsewhere")),
        ("boolean", "no such population", ("no such population", "nobody")),
    ):
        with pytest.raises(OpenFeatureError) as raised:
            getattr(ours, f"resolve_{kind}_value")(key, DEFAULTS[kind])
        assert all(word in (raised.value.error_message or "") for word in words)


def test_the_generation_of_fractional_is_a_setting() -> None:
    # The same users, in other shares.
    shares = {"flags": {"share": FLAGS["share"]}}
    third, second = evaluator(shares), evaluator(shares, settings=EnvironmentSettings(fractional="v2"))
    contexts = [EvaluationContext(f"user-{number}") for number in range(100)]
    answers = [[each.resolve_string_value("share", "", ctx).value for ctx in contexts] for each in (third, second)]
    assert answers[0] != answers[1]


# -- contexts ---------------------------------------------------------------------------------------------------


def seen_by_rules(ctx: EvaluationContext, path: str, expected: Any) -> bool:
    """Whether a rule that looks at a path of a context finds exactly that."""
    targeting = {"if": [{"===": [{"var": path}, expected]}, "on", "off"]}
    return (
        evaluator({"flags": {"f": flag(SWITCH, "off", targeting=targeting)}})
        .resolve_boolean_value("f", False, ctx)
        .value
    )


def test_attributes_reach_rules_as_json_has_them() -> None:
    # Wider than the SDK's types: callers from elsewhere bring dates and nulls too.
    attributes: dict[str, Any] = {
        "at": datetime(2025, 11, 24, 12, 30, tzinfo=UTC),
        "days": (date(2025, 11, 24), datetime(2025, 11, 25, 1, 2, 3, 456)),  # noqa: DTZ001 - naive ones come too
        "user": MappingProxyType({"tags": ("a", ("b",)), "age": 7, "quota": 0.5, "beta": True, "none": None}),
        "targetingKey": "another",
    }
    ctx = EvaluationContext("u1", attributes)
    for path, expected in {
        "at": "2025-11-24T12:30:00+00:00",
        "days.0": "2025-11-24",
        "days.1": "2025-11-25T01:02:03.000456",
        "user.tags.0": "a",
        "user.tags.1.0": "b",
        "user.age": 7,
        "user.quota": 0.5,
        "user.beta": True,
        "user.none": None,
        "targetingKey": "u1",
    }.items():
        assert seen_by_rules(ctx, path, expected), path


def test_what_came_as_a_tuple_is_a_list_to_operators() -> None:
    targeting = {"if": [{"in": ["b", {"merge": [{"var": "tags"}, []]}]}, "on", "off"]}
    ours = evaluator({"flags": {"f": flag(SWITCH, "off", targeting=targeting)}})
    assert ours.resolve_boolean_value("f", False, EvaluationContext("u", {"tags": ("a", "b")})).value


def test_without_a_targeting_key_there_is_none() -> None:
    ctx = EvaluationContext(None, {"targetingKey": "an attribute of that name"})
    assert seen_by_rules(ctx, "targetingKey", None)


def test_a_context_that_contains_itself_is_an_invalid_one() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidContextError, match="deep"):
        evaluator(DOCUMENT).resolve_boolean_value("yes", False, EvaluationContext("u", {"endless": endless}))


# -- taking flag sets -------------------------------------------------------------------------------------------


NO_FLAG_SETS: list[Any] = [
    "",
    "{",
    "null",
    "[]",
    '"flags"',
    '{"flags": []}',
    '{"flags": null}',
    '{"flags": {"f": true}}',
    '{"flags": {"f": [1]}}',
    '{"flags": {}, "$evaluators": []}',
    '{"flags": {}, "metadata": []}',
    '{"flags": {}, "metadata": {"a": null}}',
    '{"flags": {}, "metadata": {"a": {}}}',
    '{"flags": {"f": {}, "f": {}}}',
    '{"flags": {"f": {"variants": {"a": NaN}}}}',
    "[" * 100_000,
    {"flags": [FLAGS["yes"]]},
    {"flags": {"f": {"variants": {"a": float("inf")}}}},
    {"flags": {"f": {"variants": {"a": datetime(2025, 11, 24, tzinfo=UTC)}}}},
    {"flags": {"f": {"variants": {"a": 10**5000}}}},
    {"flags": {("a", "tuple"): {}}},
]


@pytest.mark.parametrize("document", NO_FLAG_SETS, ids=count())
def test_what_is_no_flag_set_is_refused_and_what_was_held_stays(document: Any) -> None:
    ours = evaluator(DOCUMENT)
    for take in (ours.set_flags, ours.set_flags_and_get_changed_keys):
        with pytest.raises(ParseError) as raised:
            take(document)
        assert raised.value.error_message
    assert ours.resolve_boolean_value("yes", False).value is True
    assert ours.get_flag_set_metadata() == DOCUMENT["metadata"]


def test_a_flag_that_is_broken_takes_no_other_with_it() -> None:
    broken = {
        "no state": {"variants": {"it": True}, "defaultVariant": "it"},
        "another state": flag({"it": True}) | {"state": "ON"},
        "no variants": {"state": "ENABLED", "defaultVariant": "it"},
        "variants of nothing": flag({}),
        "a list of variants": flag({}) | {"variants": [True]},
        "a rule of text": flag({"it": True}, targeting="on"),
        "no such operator": flag({"it": True}, targeting={"wish": [True]}),
    }
    ours = evaluator({"flags": {**broken, "whole": flag({"it": True})}})
    assert ours.resolve_boolean_value("whole", False).value is True
    for key in broken:
        with pytest.raises(ParseError):
            ours.resolve_boolean_value(key, False)


def test_it_takes_flags_that_our_own_files_may_not_hold() -> None:
    lenient = {
        "mixed": flag({"it": 1, "text": "a", "list": []}),
        "more": flag({"it": 1}, source="a file", selector="x", whatever=True),
        "": flag({"it": 1}),
        "k" * 1000: flag({"it": 1}),
    }
    ours = evaluator({"flags": lenient, "$schema": "x", "whatever": 1})
    assert all(ours.resolve_integer_value(key, 0).value == 1 for key in lenient)


def test_a_document_without_flags_has_none() -> None:
    ours = evaluator(DOCUMENT)
    assert ours.set_flags_and_get_changed_keys({}) == sorted(FLAGS)
    assert ours.get_flag_set_metadata() == {}
    with pytest.raises(FlagNotFoundError):
        ours.resolve_boolean_value("yes", False)


def test_before_it_is_given_any_flags_it_has_none() -> None:
    assert SnapshotEvaluator().get_flag_set_metadata() == {}
    with pytest.raises(FlagNotFoundError):
        SnapshotEvaluator().resolve_object_value("yes", {})


def test_it_keeps_nothing_of_the_callers_and_gives_nothing_of_its_own_metadata_away() -> None:
    document = copy.deepcopy(DOCUMENT)
    ours = evaluator(document)
    assert document == DOCUMENT
    document["flags"]["yes"]["variants"]["it"] = False
    document["metadata"].clear()
    assert ours.resolve_boolean_value("yes", False).value is True
    for given in (ours.get_flag_set_metadata(), ours.resolve_boolean_value("yes", False).flag_metadata):
        assert isinstance(given, dict)
        given.clear()
    assert (
        ours.get_flag_set_metadata() == ours.resolve_boolean_value("yes", False).flag_metadata == DOCUMENT["metadata"]
    )


def changed(change: Callable[[dict[str, Any]], Any]) -> tuple[list[str], list[str]]:
    """The keys that change with a document: to us, and to flagd's own."""
    after = copy.deepcopy(DOCUMENT)
    change(after)
    theirs = FlagdCore()
    theirs.set_flags(json.dumps(DOCUMENT))
    return (
        evaluator(DOCUMENT).set_flags_and_get_changed_keys(after),
        sorted(theirs.set_flags_and_get_changed_keys(json.dumps(after))),
    )


def remove_and_add(document: dict[str, Any]) -> None:
    del document["flags"]["no"]
    document["flags"]["new"] = flag({"it": 1})
    document["flags"]["yes"]["state"] = "DISABLED"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _: None, []),
        (remove_and_add, ["new", "no", "yes"]),
        (lambda document: document.update(metadata={}), []),
        (lambda document: document["flags"].update(yes=dict(reversed(FLAGS["yes"].items()))), []),
        (lambda document: document["flags"]["yes"].update(metadata={"a": 1}), ["yes"]),
        (
            lambda document: document["$evaluators"].update(beta={"==": [1, {"var": "n"}]}),
            ["beta", "boolean names", "nested/key with spaces é", "null without a default"],
        ),
        (lambda document: document["$evaluators"].update(nobody={"==": [1, 1]}), ["no such population"]),
        (lambda document: document["$evaluators"].update(unused={"==": [1, 1]}), []),
        (lambda document: document["flags"]["share"]["targeting"]["fractional"].reverse(), ["share"]),
    ],
)
def test_the_keys_that_changed_are_those_that_came_went_or_differ(
    change: Callable[[dict[str, Any]], Any], expected: list[str]
) -> None:
    assert changed(change) == (expected, expected)


def test_a_number_that_becomes_a_boolean_has_changed_though_python_calls_them_equal() -> None:
    ours = evaluator({"flags": {"f": flag({"it": 1})}})
    assert ours.set_flags_and_get_changed_keys({"flags": {"f": flag({"it": True})}}) == ["f"]
    assert ours.set_flags_and_get_changed_keys({"flags": {"f": flag({"it": 1.0})}}) == ["f"]


def test_a_population_that_appears_changes_the_flags_that_lacked_it() -> None:
    flags = {"f": flag(SWITCH, "off", targeting=BETA), "g": flag(SWITCH, "off")}
    ours = evaluator({"flags": flags})
    assert ours.set_flags_and_get_changed_keys({"flags": flags, "$evaluators": {"beta": {"==": [1, 1]}}}) == ["f"]


def test_whoever_resolves_while_flags_are_replaced_sees_one_flag_set_or_the_other() -> None:
    ours, done, torn = SnapshotEvaluator(), threading.Event(), []

    def document(number: int) -> dict[str, Any]:
        targeting = {"if": [{"==": [{"var": "n"}, 1]}, "it"]}
        return {
            "flags": {"f": flag({"it": number}, targeting=targeting, metadata={"own": number})},
            "metadata": {"set": number},
        }

    ours.set_flags(document(0))

    def resolve() -> None:
        while not done.is_set():
            details = ours.resolve_integer_value("f", -1, EvaluationContext("u", {"n": 1}))
            if {*details.flag_metadata.values()} != {details.value}:
                torn.append(details)

    threads = [threading.Thread(target=resolve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 300):
        assert ours.set_flags_and_get_changed_keys(json.dumps(document(number))) == ["f"]
    done.set()
    for thread in threads:
        thread.join(10)
    assert not torn
