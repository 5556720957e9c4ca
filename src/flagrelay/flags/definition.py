"""What a flag, a population and a flag set may look like: flagd's flag definitions, checked on the way in.

What is taken is carried as it is; rules are checked by `targeting`, and compiled when a snapshot takes them in.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson

from flagrelay.errors import DefinitionError
from flagrelay.flags.change import Definition, Rule
from flagrelay.flags.operators import is_plain
from flagrelay.flags.targeting import check_rule

MAX_KEY_LENGTH = 256
MAX_DEFINITION_BYTES = 256 * 1024
MAX_POPULATION_BYTES = 8 * 1024 * 1024
"""Of a population with the literal lists that `in` looks into: 100,000 targeting keys. Without them it is held to
`MAX_DEFINITION_BYTES` like every rule: lists become sets, all else becomes code."""

MAX_DEPTH = 32
MAX_FLAGS = 50_000
MAX_NESTING = 200
"""How deep a document may nest before it is parsed at all; what is in it is held to `MAX_DEPTH` afterwards."""

_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STATES = ("ENABLED", "DISABLED")


@dataclass(frozen=True, slots=True)
class FlagSet:
    """A whole flagd file: flags by key, populations by name, and the flag set's metadata."""

    flags: Mapping[str, Definition] = field(default_factory=dict)
    evaluators: Mapping[str, Rule] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def check_environment_name(name: str) -> str:
    """The name of an environment: it becomes a part of Redis keys and file names.

    Raises:
        DefinitionError: it is none.
    """
    if not _ENVIRONMENT.fullmatch(name):
        raise DefinitionError(
            f"environment {name!r:.100}",
            "",
            "a name has 1 to 64 letters, digits, dots, hyphens or underscores, and begins with a letter or digit",
        )
    return name


def check_flag(key: object, definition: object, populations: Collection[str] | None = None) -> Definition:
    """A flag's definition, as it came.

    Args:
        key: its key.
        definition: what is said to be one.
        populations: the names that its targeting may refer to; None where they are not known.

    Raises:
        DefinitionError: it is none; says where and why.
    """
    subject = f"flag {_shown(key)}"
    _check_key(subject, key)
    checked = _object(subject, "", definition)
    unknown = [name for name in checked if name not in _MEMBERS]
    if unknown:
        raise DefinitionError(
            subject, _shown(unknown[0]).strip('"'), f"unknown member; a flag has {', '.join(_MEMBERS)}"
        )
    for name in ("state", "variants"):
        if name not in checked:
            raise DefinitionError(subject, name, "missing")
    _check_size(subject, checked)
    for name, check in _MEMBERS.items():
        if name in checked:
            check(subject, checked)
    if "targeting" in checked:
        check_rule(subject, "targeting", checked["targeting"], populations=populations)
    return checked


def check_population(name: object, rule: object) -> Rule:
    """A population's rule, as it came.

    Raises:
        DefinitionError: it is none.
    """
    subject = f"population {_shown(name)}"
    _check_key(subject, name)
    _object(subject, "", rule)
    if _check_size(subject, rule, MAX_POPULATION_BYTES) > MAX_DEFINITION_BYTES:
        size = len(orjson.dumps(_without_lists(rule)))
        if size > MAX_DEFINITION_BYTES:
            cause = f"has {size} bytes as JSON beside the lists that `in` looks into"
            raise DefinitionError(subject, "", f"{cause}; the most is {MAX_DEFINITION_BYTES}")
    check_rule(subject, "", rule, refers=False)
    return rule


def check_metadata(metadata: object) -> Mapping[str, Any]:
    """The metadata of a flag set, as it came.

    Raises:
        DefinitionError: it is none.
    """
    return _flat("flag set", metadata)


def check_flag_set(document: object, populations: Collection[str] | None = None) -> FlagSet:
    """A whole flagd file, parsed: flags as an object by key or as an array with keys.

    `populations` are names that its flags may refer to beside its own; None where it is not known which there are.

    Members that neither flagd nor we know are refused, but for `$schema` and `$comment`, which say
    nothing about flags.

    Raises:
        DefinitionError: something in it is wrong; the first that was found.
    """
    checked = _object("flag set", "", document)
    known = ("flags", "$evaluators", "metadata", "$schema", "$comment")
    unknown = [name for name in checked if name not in known]
    if unknown:
        raise DefinitionError("flag set", _shown(unknown[0]).strip('"'), f"unknown member; it has {', '.join(known)}")
    if "flags" not in checked:
        raise DefinitionError("flag set", "flags", "missing")
    evaluators = _object("flag set", "$evaluators", checked.get("$evaluators", {}))
    for name, rule in evaluators.items():
        check_population(name, rule)
    named = None if populations is None else {*populations, *evaluators}
    flags: dict[str, Definition] = {}
    for key, definition in _entries(checked["flags"]):
        flag = check_flag(key, definition, named)  # first: in an array a key may be anything
        if key in flags:
            raise DefinitionError(f"flag {_shown(key)}", "", "stands twice in the array")
        flags[key] = flag
    if len(flags) > MAX_FLAGS:
        raise DefinitionError("flag set", "flags", f"has {len(flags)} flags; the most is {MAX_FLAGS}")
    return FlagSet(flags, evaluators, check_metadata(checked.get("metadata", {})))


def parse_json(text: bytes | str, subject: str) -> object:
    """JSON as strict as flags need it: no key twice, no NaN, no infinity, valid UTF-8, bounded nesting.

    Raises:
        DefinitionError: it is not; says where.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise DefinitionError(subject, "", f"not UTF-8, at byte {error.start}") from error
    _check_nesting(subject, decoded)
    try:
        return json.loads(
            decoded.removeprefix("\ufeff"),
            object_pairs_hook=_unique(subject),
            parse_constant=_refuse_constant(subject),
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise DefinitionError(subject, "", f"not JSON: {error.msg} at {where}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise DefinitionError(subject, "", f"not usable as JSON: {error}") from error


def _unique(subject: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            names = sorted(name for name, _ in pairs)
            twice = next(name for name, following in pairwise(names) if name == following)
            raise DefinitionError(subject, "", f"the key {_shown(twice)} stands twice in one object")
        return members

    return unique


def _refuse_constant(subject: str) -> Callable[[str], object]:
    def refuse(constant: str) -> object:
        raise DefinitionError(subject, "", f"{constant} is no JSON number")

    return refuse


def _check_nesting(subject: str, text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return
    depth = 0
    # A string without an end is one too, and nothing is tried twice: or a file of many `\"` would take hours.
    for found in re.finditer(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', text, re.DOTALL):
        if found[0] in "[{":
            depth += 1
        elif found[0] in "]}":
            depth -= 1
        if depth > MAX_NESTING:
            raise DefinitionError(subject, "", f"nests deeper than {MAX_NESTING} levels")


def _entries(flags: object) -> Iterator[tuple[Any, object]]:
    if isinstance(flags, list):
        for index, flag in enumerate(flags):
            members = _object("flag set", f"flags[{index}]", flag)
            if "key" not in members:
                raise DefinitionError("flag set", f"flags[{index}].key", "missing")
            yield members["key"], {name: value for name, value in members.items() if name != "key"}
    else:
        yield from _object("flag set", "flags", flags).items()


def _check_key(subject: str, key: object) -> None:
    if not isinstance(key, str):
        raise DefinitionError(subject, "", f"a key is a string, not {_kind(key)}")
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise DefinitionError(subject, "", f"a key has 1 to {MAX_KEY_LENGTH} characters; this one has {len(key)}")
    if _CONTROL.search(key):
        raise DefinitionError(subject, "", "a key has no control characters and no lone surrogates")


def _without_lists(rule: Any) -> Any:
    """A rule without its literal lists of plain values that `in` looks into."""
    if isinstance(rule, list):
        return [_without_lists(each) for each in rule]
    if not isinstance(rule, dict):
        return rule
    match rule:
        case {"in": [needle, [*items]]} if len(rule) == 1 and is_plain(items):
            return {"in": [_without_lists(needle), []]}
    return {name: _without_lists(each) for name, each in rule.items()}


def _check_size(subject: str, definition: object, most: int = MAX_DEFINITION_BYTES) -> int:
    """How many bytes it has as JSON."""
    _check_depth(subject, definition)
    try:
        size = len(orjson.dumps(definition))
    except (TypeError, ValueError) as error:
        raise DefinitionError(subject, "", f"cannot be written as JSON: {error}") from error
    if size > most:
        raise DefinitionError(subject, "", f"has {size} bytes as JSON; the most is {most}")
    return size


def _check_depth(subject: str, definition: object) -> None:
    level: list[tuple[str, Any]] = [("", definition)]
    for depth in range(MAX_DEPTH + 2):
        deeper = []
        for path, value in level:
            if isinstance(value, dict):
                for name, member in value.items():
                    if not isinstance(name, str):
                        raise DefinitionError(subject, path, f"a member's name is a string, not {_kind(name)}")
                    deeper.append((f"{path}.{name}".removeprefix("."), member))
            elif isinstance(value, list):
                # Texts are all alike: in a list of them, the first stands for the others.
                items = [(index, item) for index, item in enumerate(value) if not index or item.__class__ is not str]
                deeper += [(f"{path}[{index}]", item) for index, item in items]
            else:
                _check_scalar(subject, path, value)
        if not deeper:
            return
        if depth >= MAX_DEPTH:
            raise DefinitionError(subject, f"{deeper[0][0]:.120}", f"nests deeper than {MAX_DEPTH} levels")
        level = deeper


def _check_scalar(subject: str, path: str, value: object) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124 - NaN
        raise DefinitionError(subject, path, f"{value} is no JSON number")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise DefinitionError(subject, path, "an integer of more than 64 bits")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise DefinitionError(subject, path, f"{_kind(value)} is no JSON value; write it as a string")


def _check_state(subject: str, definition: Definition) -> None:
    if definition["state"] not in _STATES:
        raise DefinitionError(subject, "state", f"{_shown(definition['state'])} is neither ENABLED nor DISABLED")


def _check_variants(subject: str, definition: Definition) -> None:
    variants = _object(subject, "variants", definition["variants"])
    if not variants:
        raise DefinitionError(subject, "variants", "empty; a flag has at least one variant")
    kinds: dict[str, str] = {}
    for name, value in variants.items():
        if not name:
            raise DefinitionError(subject, "variants", "a variant's name is empty")
        kind = _kind(value)
        if kind not in ("a boolean", "a string", "a number", "an object"):
            raise DefinitionError(
                subject,
                f"variants.{name}",
                f"{kind}; a variant is a boolean, a string, a number or an object",
            )
        kinds.setdefault(kind, name)
    if len(kinds) > 1:
        (kind, name), (other_kind, other) = list(kinds.items())[:2]
        raise DefinitionError(
            subject, f"variants.{other}", f"{other_kind}, while {_shown(name)} is {kind}; all are of one type"
        )


def _check_default(subject: str, definition: Definition) -> None:
    default = definition["defaultVariant"]
    if default is None:
        return
    if not isinstance(default, str):
        raise DefinitionError(subject, "defaultVariant", f"{_kind(default)}; it is a variant's name, or null")
    variants = definition["variants"]
    if isinstance(variants, dict) and default not in variants:
        names = ", ".join(list(variants)[:10])
        raise DefinitionError(subject, "defaultVariant", f"{_shown(default)} is none of the variants: {names}")


def _check_targeting(subject: str, definition: Definition) -> None:
    _object(subject, "targeting", definition["targeting"])


def _check_flag_metadata(subject: str, definition: Definition) -> None:
    _flat(subject, definition["metadata"])


_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "an array",
}

_MEMBERS: Mapping[str, Callable[[str, Definition], None]] = {
    "state": _check_state,
    "variants": _check_variants,
    "defaultVariant": _check_default,
    "targeting": _check_targeting,
    "metadata": _check_flag_metadata,
}


def _flat(subject: str, metadata: object) -> Mapping[str, Any]:
    members = _object(subject, "metadata", metadata)
    _check_size(subject, members)
    for name, value in members.items():
        if _kind(value) not in ("a boolean", "a string", "a number"):
            raise DefinitionError(
                subject, f"metadata.{name}", f"{_kind(value)}; metadata is flat: strings, numbers, booleans"
            )
    return members


def _object(subject: str, path: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DefinitionError(subject, path, f"should be an object and is {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _shown(value: object) -> str:
    """A value for a message: as JSON where it can be, and never long."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


MAX_SHOWN = 80
