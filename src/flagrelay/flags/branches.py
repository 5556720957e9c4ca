"""`if`, `and`, `or`: what decides itself which of its arguments is computed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flagrelay.flags.javascript import truthy
from flagrelay.flags.values import PLAIN_TRUTH, Constant, Dynamic, Value, kind_of

if TYPE_CHECKING:  # the compiler imports this; it is only named here
    from flagrelay.flags.compiler import Compiler


def _if(compiler: "Compiler", _operator: str, rules: list[Any]) -> Value:
    values = compiler.arguments(rules)
    result: Value = values.pop() if len(values) % 2 else Constant(None)
    while values:
        then, test = values.pop(), values.pop()
        if isinstance(test, Constant):
            result = then if truthy(test.value) else result
        else:
            kind = kind_of(then) if kind_of(then) == kind_of(result) else ""
            result = Dynamic(("if", compiler.test(test), compiler.form(then), compiler.form(result)), kind)
            result = compiler.settled(result)
    return result


def _all_or_any(compiler: "Compiler", operator: str, rules: list[Any]) -> Value:
    """`and` gives the first that is false, `or` the first that is true, or else the last."""
    values = compiler.arguments(rules)
    if not values:
        return Constant(None)
    result = values.pop()
    while values:
        value = values.pop()
        if isinstance(value, Constant):
            result = value if truthy(value.value) == (operator == "or") else result
        elif value.kind in PLAIN_TRUTH:
            kind = value.kind if value.kind == kind_of(result) else ""
            result = Dynamic((operator, value.form, compiler.form(result)), kind)
        else:
            kept, got = compiler.keep(value.form)
            test = compiler.test(Dynamic(kept))
            first, second = (got, compiler.form(result)) if operator == "or" else (compiler.form(result), got)
            result = Dynamic(("if", test, first, second))
        result = compiler.settled(result)
    return result


BRANCHES: dict[str, Callable[["Compiler", str, list[Any]], Value]] = {
    **dict.fromkeys(("if", "?:"), _if),
    **dict.fromkeys(("and", "or"), _all_or_any),
}
"""By operator: how it is compiled."""
