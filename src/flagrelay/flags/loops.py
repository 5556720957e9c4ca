"""`map`, `filter`, `reduce`, `all`, `some`, `none`: rules for each item of a list."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flagrelay.flags.forms import Form
from flagrelay.flags.values import KEY, Constant, Dynamic, Value

if TYPE_CHECKING:  # the compiler imports this; it is only named here
    from flagrelay.flags.compiler import Compiler


_HELPERS = {
    "map": ("mapped", "list"),
    "filter": ("kept", "list"),
    "all": ("every", "bool"),
    "some": ("some", "bool"),
    "none": ("none", "bool"),
}
"""By operator: what runs it, and the kind of what it gives."""


def _loop(compiler: "Compiler", operator: str, rules: list[Any]) -> Value:
    compiler.loops = True
    items = compiler.argument(0, rules[0]) if rules else Constant(None)
    body = _body(compiler, rules[1] if len(rules) > 1 else None)
    rest = [compiler.argument(index, rule) for index, rule in enumerate(rules) if index > 1]
    if operator == "reduce":
        initial = rest[0] if rest else Constant(None)
        return Dynamic(("call", "reduced", compiler.form(items), body, compiler.form(initial), KEY))
    helper, kind = _HELPERS[operator]
    return Dynamic(("call", helper, compiler.form(items), body, KEY), kind)


def _body(compiler: "Compiler", rule: Any) -> Form:
    compiled = compiler.body(rule)
    # What a loop does is counted by items; an item's share is as large as its rule.
    compiled.function.weight = 1 + compiled.nodes // 8  # type: ignore[attr-defined]  # functions take attributes
    return ("hold", compiler.hold(compiled.function))


LOOPS: dict[str, Callable[["Compiler", str, list[Any]], Value]] = {
    **dict.fromkeys((*_HELPERS, "reduce"), _loop),
}
"""By operator: how it is compiled."""
