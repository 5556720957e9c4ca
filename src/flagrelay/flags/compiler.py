"""Rules, compiled once into Python functions.

A function takes a context and a flag key and gives what the rule gives. Constants are folded, branches that cannot be
taken are left out, literal lists become sets, populations are compiled once and run by whoever names them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flagrelay.errors import DefinitionError, RuleTooLong
from flagrelay.flags import meter
from flagrelay.flags.bucket import array_of_two, thresholds, weight_of
from flagrelay.flags.forms import Form, function_of
from flagrelay.flags.javascript import to_string, truthy
from flagrelay.flags.lookup import PROVIDED
from flagrelay.flags.members import Members
from flagrelay.flags.operators import LOOPS, OPERATORS, REFERENCE, arguments_of, operator_of
from flagrelay.flags.sharing import choose, is_share

Function = Callable[[Any, str], Any]

METERED_NODES = 200
"""Nodes from which on a rule without loops is metered too: lists in contexts multiply with them."""


DEEPEST = 30
"""How deep the forms of one function nest, about; and below so many nodes nobody counts."""


LONGEST_INLINE_PATH = 3
"""Steps of a path that are compiled; more are walked."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule as a function of a context and a flag key.

    Args:
        function: gives what the rule gives.
        nodes: how large it is.
        loops: whether it has loops.
        timed: whether what it gives depends on the time.
        populations: those that it names.
    """

    function: Function
    nodes: int
    loops: bool
    timed: bool
    populations: frozenset[str]


Populations = Mapping[str, CompiledRule | DefinitionError]
"""Compiled populations by name, or what is wrong with them."""


def compile_rule(
    subject: str,
    path: str,
    rule: Any,
    *,
    generation: str,
    flag_key: str | None = None,
    populations: Populations | None = None,
    rules: Mapping[str, Any] | None = None,
) -> CompiledRule:
    """A rule, compiled.

    Args:
        subject: what it is about, for errors: `flag "checkout-v2"`.
        path: where in that the rule stands, for errors: `targeting`.
        rule: JsonLogic, as parsed JSON.
        generation: of `fractional`: v3 or v2.
        flag_key: the only flag that it is for; None where it is shared.
        populations: what `$ref` may name; None where it may not stand.
        rules: the same populations, as they are written.

    Raises:
        DefinitionError: it names an operator or a population that there is not.
    """
    compiler = _Compiler(subject, path, generation, flag_key, populations, rules or {})
    return compiler.finish(compiler.value(rule))


def metered(rule: CompiledRule) -> Function:
    """The function of a rule, bounded where it could run long."""
    if not rule.loops and rule.nodes < METERED_NODES:
        return rule.function

    def run(context: Any, key: str, function: Function = rule.function) -> Any:
        meter.start()
        try:
            return function(context, key)
        finally:
            meter.stop()

    return run


class _Dynamic(NamedTuple):
    """What is known only when a context comes: how to compute it, and of what kind it will be."""

    form: Form
    kind: str = ""


class _Constant(NamedTuple):
    """What is known already."""

    value: Any


_Value = _Dynamic | _Constant

_PLAIN_TRUTH = ("bool", "str", "list", "int")
"""Kinds whose truth is Python's."""

_RESULT_KINDS = {
    **dict.fromkeys(("==", "!=", "===", "!==", "<", "<=", ">", ">=", "!", "!!", "in", "all", "some", "none"), "bool"),
    **dict.fromkeys(("cat", "substr"), "str"),
    **dict.fromkeys(("merge", "missing", "missing_some", "map", "filter"), "list"),
}
_LOOP_HELPERS = {"map": "mapped", "filter": "kept", "all": "every", "some": "some", "none": "none"}
_ORDERS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_MIRRORED = {"<": "gt", "<=": "ge", ">": "lt", ">=": "le"}
_CONTEXT: Form = ("context",)
_KEY: Form = ("key",)
_NONE: Form = ("none",)


class _Compiler:
    """The compilation of one rule, or of the body of one loop in it (`scoped`), where `var` looks at the item."""

    def __init__(
        self,
        subject: str,
        path: str,
        generation: str,
        flag_key: str | None,
        populations: Populations | None,
        rules: Mapping[str, Any],
        *,
        scoped: bool = False,
    ) -> None:
        self._subject = subject
        self._path = [path] if path else []
        self._generation = generation
        self._flag_key = flag_key
        self._populations = populations
        self._rules = rules
        self._scoped = scoped
        self._held: list[Any] = []
        self._made: list[Function] = []
        self._locals = 0
        self._nodes = 0
        self._loops = False
        self._timed = False
        self._named: set[str] = set()
        self._depths: dict[int, tuple[Form, int]] = {}

    # -- what a compilation is made of ----------------------------------------------------------------

    def finish(self, value: _Value) -> CompiledRule:
        function = function_of(self._form(value), self._held, self._made, self._nodes)
        return CompiledRule(function, self._nodes, self._loops, self._timed, frozenset(self._named))

    def _fail(self, cause: str) -> DefinitionError:
        return DefinitionError(self._subject, "".join(self._path).removeprefix("."), cause)

    def _hold(self, constant: Any) -> int:
        self._held.append(constant)
        return len(self._held) - 1

    def _keep(self, form: Form) -> tuple[Form, Form]:
        """A form that keeps what it computes, and one that takes it again."""
        self._locals += 1
        return ("set", self._locals, form), ("got", self._locals)

    def _form(self, value: _Value) -> Form:
        if isinstance(value, _Dynamic):
            return value.form
        if value.value is None or isinstance(value.value, bool):
            return ({None: "none", True: "true", False: "false"}[value.value],)
        return ("hold", self._hold(value.value))

    def _call(self, helper: str, *values: _Value, kind: str = "") -> _Dynamic:
        return _Dynamic(("call", helper, *(self._form(value) for value in values)), kind)

    def _test(self, value: _Value) -> Form:
        """The truth of a value, for Python's `if`."""
        if isinstance(value, _Constant):
            return ("true",) if truthy(value.value) else ("false",)
        if value.kind in _PLAIN_TRUTH:
            return value.form
        kept, got = self._keep(value.form)
        return ("if", ("is", ("class", kept), ("type", "bool")), got, ("call", "truthy", got))

    def _settled(self, value: _Value) -> _Value:
        """A value whose form has become deep, moved into a function of its own: Python's compiler has its limits."""
        if isinstance(value, _Constant) or self._nodes < DEEPEST or self._depth(value.form) < DEEPEST:
            return value
        self._made.append(function_of(value.form, self._held, self._made, self._nodes))
        return _Dynamic(("run", ("made", len(self._made) - 1), _CONTEXT, _KEY), value.kind)

    def _depth(self, form: Form) -> int:
        known = self._depths.get(id(form))
        if known is None:
            depth = 1 + max((self._depth(part) for part in form if isinstance(part, tuple)), default=0)
            known = self._depths[id(form)] = (form, depth)  # held, so that no other form gets its id
        return known[1]

    # -- rules ----------------------------------------------------------------------------------------

    def value(self, rule: Any) -> _Value:
        """What a rule gives."""
        self._nodes += 1
        if isinstance(rule, list):
            return self._list(rule)
        operator = operator_of(rule)
        if operator is None:
            return _Constant(rule)
        self._path.append(f".{operator}")
        if operator == REFERENCE:
            value = self._reference(rule[REFERENCE])
        elif operator in OPERATORS:
            value = _BY_OPERATOR.get(operator, _Compiler._eager)(self, operator, arguments_of(rule))
        else:
            raise self._fail(f'"{operator:.80}" is no operator')
        self._path.pop()
        return self._settled(value)

    def _argument(self, index: int, rule: Any) -> _Value:
        self._path.append(f"[{index}]")
        value = self.value(rule)
        self._path.pop()
        return value

    def _arguments(self, rules: list[Any]) -> list[_Value]:
        return [self._argument(index, rule) for index, rule in enumerate(rules)]

    def _list(self, rules: list[Any]) -> _Value:
        values = self._arguments(rules)
        if _known(values):
            return _Constant([value.value for value in values if isinstance(value, _Constant)])
        return _Dynamic(("list", *(self._form(value) for value in values)), "list")

    def _eager(self, operator: str, rules: list[Any]) -> _Value:
        """An operator that looks at values only: folded where all of them are known."""
        values = self._arguments(rules)
        apply = OPERATORS[operator].apply
        if apply is None:
            raise RuntimeError(f"nothing says what {operator!r} does")
        if _known(values):
            try:
                return _Constant(apply(*(value.value for value in values if isinstance(value, _Constant))))
            except (RuleTooLong, ValueError, ArithmeticError, RecursionError):
                pass  # it will fail for every context as it failed here
        short = _SHORT.get(operator)
        value = short(self, operator, values) if short else None
        return value or self._call(apply.__name__, *values, kind=_RESULT_KINDS.get(operator, ""))

    # -- short forms of what stands in most rules -----------------------------------------------------

    def _equal(self, operator: str, values: list[_Value]) -> _Dynamic | None:
        """`x == "text"` and the like, without a call for a context that holds what one expects."""
        if len(values) != 2:  # noqa: PLR2004 - both sides
            return None
        dynamic, constant = values if isinstance(values[1], _Constant) else reversed(values)
        if not isinstance(constant, _Constant) or not isinstance(dynamic, _Dynamic):
            return None
        form = self._equal_to(dynamic, constant.value, strictly=len(operator) == 3)  # noqa: PLR2004 - === and !==
        if form is None:
            return None
        return _Dynamic(("not", form) if operator[0] == "!" else form, "bool")

    def _equal_to(self, dynamic: _Dynamic, constant: Any, *, strictly: bool) -> Form | None:
        if constant is None or (strictly and isinstance(constant, bool)):
            return ("is", dynamic.form, self._form(_Constant(constant)))
        if isinstance(constant, str) and (strictly or dynamic.kind == "str"):
            return ("eq", dynamic.form, ("hold", self._hold(constant)))
        if isinstance(constant, bool) or not isinstance(constant, str | int):
            return None
        kept, got = self._keep(dynamic.form)
        held: Form = ("hold", self._hold(constant))
        otherwise: Form = ("call", "identical" if strictly else "equal", got, held)
        name = "str" if isinstance(constant, str) else "int"
        return ("if", ("is", ("class", kept), ("type", name)), ("eq", got, held), otherwise)

    def _ordered(self, operator: str, values: list[_Value]) -> _Dynamic | None:
        """`x < 18`, without a call for a whole number."""
        if len(values) != 2:  # noqa: PLR2004 - both sides
            return None
        mirrored = isinstance(values[0], _Constant)
        dynamic, constant = reversed(values) if mirrored else values
        if not isinstance(constant, _Constant) or not isinstance(dynamic, _Dynamic):
            return None
        if not isinstance(constant.value, int | float) or isinstance(constant.value, bool):
            return None
        kept, got = self._keep(dynamic.form)
        held: Form = ("hold", self._hold(constant.value))
        compared: Form = ((_MIRRORED if mirrored else _ORDERS)[operator], got, held)
        apply = OPERATORS[operator].apply
        sides = (held, got) if mirrored else (got, held)
        otherwise: Form = ("call", getattr(apply, "__name__", ""), *sides)
        return _Dynamic(("if", ("is", ("class", kept), ("type", "int")), compared, otherwise), "bool")

    def _contains(self, _operator: str, values: list[_Value]) -> _Dynamic | None:
        """`in` a literal list, which becomes a set; and a literal text in a text."""
        if len(values) != 2:  # noqa: PLR2004 - needle and haystack
            return None
        needle, haystack = values
        if isinstance(haystack, _Constant) and isinstance(needle, _Dynamic) and isinstance(haystack.value, list):
            members = Members(haystack.value)
            kept, got = self._keep(needle.form)
            quick: Form = ("in", got, ("hold", self._hold(members.texts)))
            slow: Form = ("call", "has", ("hold", self._hold(members)), got)
            return _Dynamic(("if", ("is", ("class", kept), ("type", "str")), quick, slow), "bool")
        if isinstance(needle, _Constant) and isinstance(haystack, _Dynamic):
            if not isinstance(needle.value, str) or not needle.value:
                return None
            kept, got = self._keep(haystack.form)
            held: Form = ("hold", self._hold(needle.value))
            inside: Form = ("call", "contains", held, got)
            return _Dynamic(("if", ("is", ("class", kept), ("type", "str")), ("in", held, got), inside), "bool")
        return None

    def _negated(self, operator: str, values: list[_Value]) -> _Dynamic | None:
        """`!` and `!!`."""
        if not values or isinstance(values[0], _Constant):
            return None
        test = self._test(values[0])
        if operator == "!":
            return _Dynamic(("not", test), "bool")
        return _Dynamic(test if values[0].kind == "bool" else ("not", ("not", test)), "bool")

    # -- operators that decide what they evaluate -----------------------------------------------------

    def _if(self, _operator: str, rules: list[Any]) -> _Value:
        values = self._arguments(rules)
        result: _Value = values.pop() if len(values) % 2 else _Constant(None)
        while values:
            then, test = values.pop(), values.pop()
            if isinstance(test, _Constant):
                result = then if truthy(test.value) else result
            else:
                kind = _kind(then) if _kind(then) == _kind(result) else ""
                result = _Dynamic(("if", self._test(test), self._form(then), self._form(result)), kind)
                result = self._settled(result)
        return result

    def _all_or_any(self, operator: str, rules: list[Any]) -> _Value:
        """`and` gives the first that is false, `or` the first that is true, or else the last."""
        values = self._arguments(rules)
        if not values:
            return _Constant(None)
        result = values.pop()
        while values:
            value = values.pop()
            if isinstance(value, _Constant):
                result = value if truthy(value.value) == (operator == "or") else result
            elif value.kind in _PLAIN_TRUTH:
                kind = value.kind if value.kind == _kind(result) else ""
                result = _Dynamic((operator, value.form, self._form(result)), kind)
            else:
                kept, got = self._keep(value.form)
                test = self._test(_Dynamic(kept))
                first, second = (got, self._form(result)) if operator == "or" else (self._form(result), got)
                result = _Dynamic(("if", test, first, second))
            result = self._settled(result)
        return result

    def _reference(self, name: Any) -> _Value:
        if self._populations is None:
            raise self._fail("a population names no other: write its rule out")
        found = self._populations.get(name) if isinstance(name, str) else None
        if found is None:
            raise self._fail(f"there is no population {to_string(name)!r:.80}")
        self._named.add(name)
        if isinstance(found, DefinitionError):
            raise self._fail(f"population {name!r:.80} does not compile: at {found.path}: {found.cause}")
        self._nodes += found.nodes
        self._loops |= found.loops
        self._timed |= found.timed
        if self._scoped:
            return self._written_out(self._rules[name])
        self._made.append(found.function)
        return _Dynamic(("run", ("made", len(self._made) - 1), _CONTEXT, _KEY))

    def _written_out(self, rule: Any) -> _Value:
        """A population inside a loop looks at the item, as if its rule stood there."""
        populations, self._populations = self._populations, None
        value = self.value(rule)
        self._populations = populations
        return value

    def _var(self, _operator: str, rules: list[Any]) -> _Value:
        values = self._arguments(rules[:2])
        name = values[0] if values else _Constant("")
        default = values[1] if len(values) > 1 else _Constant(None)
        if isinstance(name, _Dynamic) or isinstance(name.value, list):
            return self._looked_up(name, default)
        if name.value is None or name.value == "":
            self._timed |= not self._scoped
            return _Dynamic(_CONTEXT if self._scoped else ("call", "whole", _CONTEXT, _KEY))
        first, *rest = to_string(name.value).split(".")
        if first == PROVIDED and not self._scoped:
            return self._provided(rest, default)
        return self._or_default(self._path_into(first, rest), default)

    def _looked_up(self, name: _Value, default: _Value) -> _Value:
        self._timed |= not self._scoped
        return _Dynamic(("call", "look", _CONTEXT, self._scope_key(), self._form(name), self._form(default)))

    def _scope_key(self) -> Form:
        """The flag key, for helpers that look things up; none inside a loop, where `$flagd` is not to be seen."""
        return _NONE if self._scoped else _KEY

    def _provided(self, rest: list[str], default: _Value) -> _Value:
        self._timed |= rest != ["flagKey"]
        if rest == ["timestamp"]:
            return _Dynamic(("call", "timestamp"), "int")
        if rest == ["flagKey"]:
            return _Constant(self._flag_key) if self._flag_key else _Dynamic(_KEY, "str")
        return self._or_default(self._down(("call", "provided", _KEY), rest), default)

    def _path_into(self, first: str, rest: list[str]) -> Form:
        if self._scoped:
            return self._down(("call", "item", _CONTEXT, ("hold", self._hold(first))), rest)
        return self._down(("get", _CONTEXT, self._hold(first)), rest)

    def _down(self, form: Form, rest: list[str]) -> Form:
        if len(rest) > LONGEST_INLINE_PATH:
            return ("call", "descend", form, ("hold", self._hold(rest)))
        for name in rest:
            kept, got = self._keep(form)
            held = self._hold(name)
            slow: Form = ("call", "item", got, ("hold", held))
            form = ("if", ("is", ("class", kept), ("type", "dict")), ("get", got, held), slow)
        return form

    def _or_default(self, form: Form, default: _Value) -> _Dynamic:
        if default == _Constant(None):
            return _Dynamic(form)
        kept, got = self._keep(form)
        return _Dynamic(("if", ("is", kept, _NONE), self._form(default), got))

    def _missing(self, _operator: str, rules: list[Any]) -> _Value:
        self._timed |= not self._scoped
        names = self._form(self._list(rules))
        return _Dynamic(("call", "missing", _CONTEXT, self._scope_key(), names), "list")

    def _missing_some(self, _operator: str, rules: list[Any]) -> _Value:
        self._timed |= not self._scoped
        needed, names, *_ = [*self._arguments(rules), _Constant(0), _Constant([])]
        forms = self._form(needed), self._form(names)
        return _Dynamic(("call", "missing_some", _CONTEXT, self._scope_key(), *forms), "list")

    def _loop(self, operator: str, rules: list[Any]) -> _Value:
        self._loops = True
        items = self._argument(0, rules[0]) if rules else _Constant(None)
        body = self._body(rules[1] if len(rules) > 1 else None)
        if operator == "reduce":
            initial = self._argument(2, rules[2]) if len(rules) > 2 else _Constant(None)  # noqa: PLR2004
            return _Dynamic(("call", "reduced", self._form(items), body, self._form(initial), _KEY))
        return _Dynamic(("call", _LOOP_HELPERS[operator], self._form(items), body, _KEY), _RESULT_KINDS[operator])

    def _body(self, rule: Any) -> Form:
        inner = _Compiler(
            self._subject,
            "".join([*self._path, "[1]"]),
            self._generation,
            self._flag_key,
            self._populations,
            self._rules,
            scoped=True,
        )
        compiled = inner.finish(inner.value(rule))
        # What a loop does is counted by items; an item's share is as large as its rule.
        compiled.function.weight = 1 + compiled.nodes // 8  # type: ignore[attr-defined]
        self._nodes += compiled.nodes
        self._timed |= compiled.timed
        self._named |= compiled.populations
        return ("hold", self._hold(compiled.function))

    # -- fractional -----------------------------------------------------------------------------------

    def _fractional(self, _operator: str, rules: list[Any]) -> _Value:
        if not rules:
            return _Constant(None)
        decides = None if isinstance(rules[0], list) else self._argument(0, rules[0])
        first = 0 if decides is None else 1
        shares = rules[first:]
        literal = all(isinstance(each, list) for each in shares)
        if literal and not all(is_share(each) for each in shares):
            self._arguments(shares)
            return _Constant(None)
        unsure = decides is not None and _may_be_list(decides)
        if not literal or (unsure and not _known([self._list(each) for each in shares])):
            rest = [self._argument(first + index, each) for index, each in enumerate(shares)]
            return self._split([*([decides] if decides else []), *rest])
        if unsure:
            return self._choose_or_split(decides, shares)
        pairs = [self._share(first + index, each) for index, each in enumerate(shares)]
        if all(isinstance(weight, _Constant) for _, weight in pairs):
            return self._choose(decides, pairs)
        return self._spread(decides, pairs)

    def _choose_or_split(self, decides: _Value | None, shares: list[list[Any]]) -> _Value:
        """What decides comes from the context: a text, mostly; a list would make it the shorthand."""
        kept, got = self._keep(self._form(decides or _Constant(None)))
        pairs = [self._share(1 + index, each) for index, each in enumerate(shares)]
        chosen = self._choose(_Dynamic(got, "str"), pairs)
        constants = [self._list(each) for each in shares]
        otherwise = self._split([_Dynamic(got), *constants])
        test: Form = ("is", ("class", kept), ("type", "str"))
        return _Dynamic(("if", test, self._form(chosen), self._form(otherwise)))

    def _share(self, index: int, share: list[Any]) -> tuple[_Value, _Value]:
        self._path.append(f"[{index}]")
        result = self._argument(0, share[0])
        weight = self._argument(1, share[1]) if len(share) > 1 else _Constant(1)
        self._path.pop()
        return result, weight

    def _targeting_key(self) -> Form:
        return ("call", "targeting_key", _CONTEXT) if self._scoped else ("get", _CONTEXT, self._hold("targetingKey"))

    def _hash(self, value: _Value | None) -> Form:
        if value is not None:
            return ("call", f"hash_{self._generation}", self._form(value))
        key: Form = ("hold", self._hold("")) if self._scoped else _KEY
        return ("call", f"shorthand_{self._generation}", key, self._targeting_key())

    def _choose(self, value: _Value | None, pairs: list[tuple[_Value, _Value]]) -> _Value:
        """Weights that are known: only the hash is left to do."""
        weights = [weight_of(weight.value) for _, weight in pairs if isinstance(weight, _Constant)]
        whole = [weight for weight in weights if weight is not None]
        limits = thresholds(whole) if len(whole) == len(weights) else None
        if limits is None:
            return _Constant(None)
        results = [result for result, _ in pairs]
        if not _known(results):
            return self._chain(("call", "pick", self._hash(value), ("hold", self._hold(limits))), results)
        known = tuple(result.value for result in results if isinstance(result, _Constant))
        held: tuple[Form, Form] = ("hold", self._hold(limits)), ("hold", self._hold(known))
        if value is None and self._generation == "v3" and self._flag_key is not None and not self._scoped:
            prefix: Form = ("hold", self._hold(array_of_two(self._flag_key)))
            return _Dynamic(("call", "share", prefix, _KEY, self._targeting_key(), *held))
        return _Dynamic(("call", choose.__name__, self._hash(value), *held))

    def _spread(self, value: _Value | None, pairs: list[tuple[_Value, _Value]]) -> _Value:
        weights: Form = ("list", *(self._form(weight) for _, weight in pairs))
        return self._chain(("call", "spread", self._hash(value), weights), [result for result, _ in pairs])

    def _chain(self, index: Form, results: list[_Value]) -> _Value:
        """The result at an index; None at -1. Only that one is computed."""
        forms = [self._form(result) for result in results]
        if len(forms) > DEEPEST // 2:
            return _Dynamic(("call", "chosen", index, ("list", *forms)))
        kept, got = self._keep(index)
        chain: Form = _NONE
        for place in reversed(range(len(forms))):
            chain = ("if", ("eq", got if place else kept, ("number", place)), forms[place], chain)
        return _Dynamic(chain)

    def _split(self, values: list[_Value]) -> _Dynamic:
        """Whether it is the shorthand shows only when a context comes."""
        key: Form = ("hold", self._hold("")) if self._scoped else _KEY
        arguments: Form = ("list", *(self._form(value) for value in values))
        held: Form = ("hold", self._hold(self._generation))
        return _Dynamic(("call", "split", held, key, self._targeting_key(), arguments))


def _known(values: list[_Value]) -> bool:
    return all(isinstance(value, _Constant) for value in values)


def _kind(value: _Value) -> str:
    if isinstance(value, _Dynamic):
        return value.kind
    return {bool: "bool", str: "str", list: "list", int: "int"}.get(type(value.value), "")


def _may_be_list(value: _Value) -> bool:
    return isinstance(value, _Dynamic) and value.kind in ("", "list")


_SHORT: dict[str, Callable[[_Compiler, str, list[_Value]], _Dynamic | None]] = {
    **dict.fromkeys(("==", "!=", "===", "!=="), _Compiler._equal),
    **dict.fromkeys(("<", "<=", ">", ">="), _Compiler._ordered),
    **dict.fromkeys(("!", "!!"), _Compiler._negated),
    "in": _Compiler._contains,
}

_BY_OPERATOR: dict[str, Callable[[_Compiler, str, list[Any]], _Value]] = {
    **dict.fromkeys(("if", "?:"), _Compiler._if),
    **dict.fromkeys(("and", "or"), _Compiler._all_or_any),
    "missing": _Compiler._missing,
    "missing_some": _Compiler._missing_some,
    **dict.fromkeys(LOOPS, _Compiler._loop),
    "var": _Compiler._var,
    "fractional": _Compiler._fractional,
}
