"""`fractional`: compiled so that mostly nothing but the hash is left to do."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flagrelay.flags.bucket import array_of_two, thresholds, weight_of
from flagrelay.flags.forms import Form
from flagrelay.flags.operators import is_data
from flagrelay.flags.sharing import is_share
from flagrelay.flags.values import CONTEXT, KEY, NONE, Constant, Dynamic, Value, constants, known, may_be_list

if TYPE_CHECKING:  # the compiler imports this; it is only named here
    from flagrelay.flags.compiler import Compiler


MOST_COMPUTED = 15
"""Results that are computed one by one, of which only the chosen one is; more are all computed."""


def _fractional(compiler: "Compiler", _operator: str, rules: list[Any]) -> Value:
    if not rules:
        return Constant(None)
    decides = None if isinstance(rules[0], list) else compiler.argument(0, rules[0])
    first = 0 if decides is None else 1
    shares = rules[first:]
    literal = all(isinstance(each, list) for each in shares)
    if literal and not all(is_share(each) for each in shares):
        compiler.arguments(shares)
        return Constant(None)
    unsure = decides is not None and may_be_list(decides)
    if not literal or isinstance(decides, Constant) or (unsure and not is_data(shares)):
        rest = [compiler.argument(first + index, each) for index, each in enumerate(shares)]
        return _split(compiler, [*([decides] if decides else []), *rest])
    if unsure:
        return _choose_or_split(compiler, decides, shares)
    pairs = [_share(compiler, first + index, each) for index, each in enumerate(shares)]
    if all(isinstance(weight, Constant) for _, weight in pairs):
        return _choose(compiler, decides, pairs)
    return _spread(compiler, decides, pairs)


def _choose_or_split(compiler: "Compiler", decides: Value | None, shares: list[list[Any]]) -> Value:
    """What decides comes from the context: a text, mostly; a list would make it the shorthand."""
    kept, got = compiler.keep(compiler.form(decides or Constant(None)))
    pairs = [_share(compiler, 1 + index, each) for index, each in enumerate(shares)]
    chosen = _choose(compiler, Dynamic(got, "str"), pairs)
    otherwise = _split(compiler, [Dynamic(got), *(compiler.list_of(each) for each in shares)])
    test: Form = ("is", ("class", kept), ("type", "str"))
    return Dynamic(("if", test, compiler.form(chosen), compiler.form(otherwise)))


def _share(compiler: "Compiler", index: int, share: list[Any]) -> tuple[Value, Value]:
    compiler.path.append(f"[{index}]")
    result = compiler.argument(0, share[0])
    weight = compiler.argument(1, share[1]) if len(share) > 1 else Constant(1)
    compiler.path.pop()
    return result, weight


def _targeting_key(compiler: "Compiler") -> Form:
    return ("call", "targeting_key", CONTEXT) if compiler.scoped else ("get", CONTEXT, compiler.hold("targetingKey"))


def _hash(compiler: "Compiler", value: Value | None) -> Form:
    if value is not None:
        return ("call", f"hash_{compiler.generation}", compiler.form(value))
    key: Form = ("hold", compiler.hold("")) if compiler.scoped else KEY
    return ("call", f"shorthand_{compiler.generation}", key, _targeting_key(compiler))


def _choose(compiler: "Compiler", value: Value | None, pairs: list[tuple[Value, Value]]) -> Value:
    """Weights that are known: only the hash is left to do."""
    weights = [weight_of(weight) for weight in constants([weight for _, weight in pairs])]
    whole = [weight for weight in weights if weight is not None]
    limits = thresholds(whole) if len(whole) == len(weights) else None
    if limits is None:
        return Constant(None)
    results = [result for result, _ in pairs]
    if not known(results):
        return _chain(compiler, ("call", "pick", _hash(compiler, value), ("hold", compiler.hold(limits))), results)
    values = tuple(constants(results))
    held: tuple[Form, Form] = ("hold", compiler.hold(limits)), ("hold", compiler.hold(values))
    if value is None and compiler.generation == "v3" and compiler.flag_key is not None and not compiler.scoped:
        prefix: Form = ("hold", compiler.hold(array_of_two(compiler.flag_key)))
        return Dynamic(("call", "share", prefix, KEY, _targeting_key(compiler), *held))
    return Dynamic(("call", "choose", _hash(compiler, value), *held))


def _spread(compiler: "Compiler", value: Value | None, pairs: list[tuple[Value, Value]]) -> Value:
    weights: Form = ("list", *(compiler.form(weight) for _, weight in pairs))
    return _chain(compiler, ("call", "spread", _hash(compiler, value), weights), [result for result, _ in pairs])


def _chain(compiler: "Compiler", index: Form, results: list[Value]) -> Value:
    """The result at an index; None at -1. Only that one is computed."""
    forms = [compiler.form(result) for result in results]
    if len(forms) > MOST_COMPUTED:
        return Dynamic(("call", "chosen", index, ("list", *forms)))
    kept, got = compiler.keep(index)
    chain: Form = NONE
    for place in reversed(range(len(forms))):
        chain = ("if", ("eq", got if place else kept, ("number", place)), forms[place], chain)
    return Dynamic(chain)


def _split(compiler: "Compiler", values: list[Value]) -> Dynamic:
    """Whether it is the shorthand shows only when a context comes."""
    key: Form = ("hold", compiler.hold("")) if compiler.scoped else KEY
    arguments: Form = ("list", *(compiler.form(value) for value in values))
    held: Form = ("hold", compiler.hold(compiler.generation))
    return Dynamic(("call", "split", held, key, _targeting_key(compiler), arguments))


SHARES: dict[str, Callable[["Compiler", str, list[Any]], Value]] = {
    "fractional": _fractional,
}
"""By operator: how it is compiled."""
