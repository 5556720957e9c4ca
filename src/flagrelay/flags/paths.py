"""`var` and `missing`: what looks into the context."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flagrelay.flags.forms import Form
from flagrelay.flags.javascript import to_string
from flagrelay.flags.lookup import PROVIDED
from flagrelay.flags.values import CONTEXT, KEY, NONE, Constant, Dynamic, Value

if TYPE_CHECKING:  # the compiler imports this; it is only named here
    from flagrelay.flags.compiler import Compiler


LONGEST_INLINE_PATH = 3
"""Steps of a path that are compiled; more are walked."""


def _var(compiler: "Compiler", _operator: str, rules: list[Any]) -> Value:
    values = compiler.arguments(rules)
    name = values[0] if values else Constant("")
    default = values[1] if len(values) > 1 else Constant(None)
    if isinstance(name, Dynamic) or isinstance(name.value, list):
        return _looked_up(compiler, name, default)
    if name.value is None or name.value == "":
        compiler.timed |= not compiler.scoped
        return Dynamic(CONTEXT if compiler.scoped else ("call", "whole", CONTEXT, KEY))
    first, *rest = to_string(name.value).split(".")
    if first == PROVIDED and not compiler.scoped:
        return _provided(compiler, rest, default)
    return _or_default(compiler, _path_into(compiler, first, rest), default)


def _looked_up(compiler: "Compiler", name: Value, default: Value) -> Value:
    compiler.timed |= not compiler.scoped
    return Dynamic(("call", "look", CONTEXT, _scope_key(compiler), compiler.form(name), compiler.form(default)))


def _scope_key(compiler: "Compiler") -> Form:
    """The flag key, for helpers that look things up; none inside a loop, where `$flagd` is not to be seen."""
    return NONE if compiler.scoped else KEY


def _provided(compiler: "Compiler", rest: list[str], default: Value) -> Value:
    compiler.timed |= rest != ["flagKey"]
    if rest == ["timestamp"]:
        return Dynamic(("call", "timestamp"), "int")
    if rest == ["flagKey"]:
        return Constant(compiler.flag_key) if compiler.flag_key else Dynamic(KEY, "str")
    return _or_default(compiler, _down(compiler, ("call", "provided", KEY), rest), default)


def _path_into(compiler: "Compiler", first: str, rest: list[str]) -> Form:
    if compiler.scoped:
        return _down(compiler, ("call", "item", CONTEXT, ("hold", compiler.hold(first))), rest)
    return _down(compiler, ("get", CONTEXT, compiler.hold(first)), rest)


def _down(compiler: "Compiler", form: Form, rest: list[str]) -> Form:
    if len(rest) > LONGEST_INLINE_PATH:
        return ("call", "descend", form, ("hold", compiler.hold(rest)))
    for name in rest:
        kept, got = compiler.keep(form)
        held = compiler.hold(name)
        slow: Form = ("call", "item", got, ("hold", held))
        form = ("if", ("is", ("class", kept), ("type", "dict")), ("get", got, held), slow)
    return form


def _or_default(compiler: "Compiler", form: Form, default: Value) -> Dynamic:
    if default == Constant(None):
        return Dynamic(form)
    kept, got = compiler.keep(form)
    return Dynamic(("if", ("is", kept, NONE), compiler.form(default), got))


def _missing(compiler: "Compiler", _operator: str, rules: list[Any]) -> Value:
    compiler.timed |= not compiler.scoped
    names = compiler.form(compiler.list_of(rules))
    return Dynamic(("call", "missing", CONTEXT, _scope_key(compiler), names), "list")


def _missing_some(compiler: "Compiler", _operator: str, rules: list[Any]) -> Value:
    compiler.timed |= not compiler.scoped
    needed, names, *_ = [*compiler.arguments(rules), Constant(0), Constant([])]
    forms = compiler.form(needed), compiler.form(names)
    return Dynamic(("call", "missing_some", CONTEXT, _scope_key(compiler), *forms), "list")


PATHS: dict[str, Callable[["Compiler", str, list[Any]], Value]] = {
    "var": _var,
    "missing": _missing,
    "missing_some": _missing_some,
}
"""By operator: how it is compiled."""
