"""Short forms of what stands in most rules: no call where a context holds what one expects."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flagrelay.flags.forms import Form
from flagrelay.flags.members import Members
from flagrelay.flags.operators import OPERATORS
from flagrelay.flags.values import Constant, Dynamic, Value

if TYPE_CHECKING:  # the compiler imports this; it is only named here
    from flagrelay.flags.compiler import Compiler


_ORDERS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_MIRRORED = {"<": "gt", "<=": "ge", ">": "lt", ">=": "le"}


def _equal(compiler: "Compiler", operator: str, values: list[Value]) -> Dynamic | None:
    """`x == "text"` and the like, without a call for a context that holds what one expects."""
    if len(values) != 2:  # noqa: PLR2004 - both sides
        return None
    dynamic, constant = values if isinstance(values[1], Constant) else reversed(values)
    if not isinstance(constant, Constant) or not isinstance(dynamic, Dynamic):
        return None
    form = _equal_to(compiler, dynamic, constant.value, strictly=len(operator) == 3)  # noqa: PLR2004 - === and !==
    if form is None:
        return None
    return Dynamic(("not", form) if operator[0] == "!" else form, "bool")


def _equal_to(compiler: "Compiler", dynamic: Dynamic, constant: Any, *, strictly: bool) -> Form | None:
    if constant is None or (strictly and isinstance(constant, bool)):
        return ("is", dynamic.form, compiler.form(Constant(constant)))
    if isinstance(constant, str) and (strictly or dynamic.kind == "str"):
        return ("eq", dynamic.form, ("hold", compiler.hold(constant)))
    if isinstance(constant, bool) or not isinstance(constant, str | int):
        return None
    kept, got = compiler.keep(dynamic.form)
    held: Form = ("hold", compiler.hold(constant))
    otherwise: Form = ("call", "identical" if strictly else "equal", got, held)
    name = "str" if isinstance(constant, str) else "int"
    return ("if", ("is", ("class", kept), ("type", name)), ("eq", got, held), otherwise)


def _ordered(compiler: "Compiler", operator: str, values: list[Value]) -> Dynamic | None:
    """`x < 18`, without a call for a whole number."""
    if len(values) != 2:  # noqa: PLR2004 - both sides
        return None
    mirrored = isinstance(values[0], Constant)
    dynamic, constant = reversed(values) if mirrored else values
    if not isinstance(constant, Constant) or not isinstance(dynamic, Dynamic):
        return None
    if not isinstance(constant.value, int | float) or isinstance(constant.value, bool):
        return None
    kept, got = compiler.keep(dynamic.form)
    held: Form = ("hold", compiler.hold(constant.value))
    compared: Form = ((_MIRRORED if mirrored else _ORDERS)[operator], got, held)
    apply = OPERATORS[operator].apply
    sides = (held, got) if mirrored else (got, held)
    otherwise: Form = ("call", getattr(apply, "__name__", ""), *sides)
    return Dynamic(("if", ("is", ("class", kept), ("type", "int")), compared, otherwise), "bool")


def _contains(compiler: "Compiler", _operator: str, values: list[Value]) -> Dynamic | None:
    """`in` a literal list, which becomes a set; and a literal text in a text."""
    if len(values) != 2:  # noqa: PLR2004 - needle and haystack
        return None
    needle, haystack = values
    if isinstance(haystack, Constant) and isinstance(needle, Dynamic) and isinstance(haystack.value, list):
        members = Members(haystack.value)
        compiler.nodes -= len(haystack.value)  # looking into a set takes as long, whatever is in it
        kept, got = compiler.keep(needle.form)
        quick: Form = ("in", got, ("hold", compiler.hold(members.texts)))
        slow: Form = ("call", "has", ("hold", compiler.hold(members)), got)
        return Dynamic(("if", ("is", ("class", kept), ("type", "str")), quick, slow), "bool")
    if isinstance(needle, Constant) and isinstance(haystack, Dynamic):
        if not isinstance(needle.value, str) or not needle.value:
            return None
        kept, got = compiler.keep(haystack.form)
        held: Form = ("hold", compiler.hold(needle.value))
        inside: Form = ("call", "contains", held, got)
        return Dynamic(("if", ("is", ("class", kept), ("type", "str")), ("in", held, got), inside), "bool")
    return None


def _negated(compiler: "Compiler", operator: str, values: list[Value]) -> Dynamic | None:
    """`!` and `!!`."""
    if not values or isinstance(values[0], Constant):
        return None
    test = compiler.test(values[0])
    if operator == "!":
        return Dynamic(("not", test), "bool")
    return Dynamic(test if values[0].kind == "bool" else ("not", ("not", test)), "bool")


SHORTCUTS: dict[str, Callable[["Compiler", str, list[Value]], Dynamic | None]] = {
    **dict.fromkeys(("==", "!=", "===", "!=="), _equal),
    **dict.fromkeys(_ORDERS, _ordered),
    **dict.fromkeys(("!", "!!"), _negated),
    "in": _contains,
}
"""By operator: the short form of values of which some are known, or None where there is none."""
