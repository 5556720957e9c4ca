"""Rules, compiled once into Python functions.

A function takes a context and a flag key and gives what the rule gives. Constants are folded, branches that cannot be
taken are left out, literal lists become sets, populations are compiled once and run by whoever names them. What an
operator becomes stands in `branches`, `paths`, `loops`, `shares` and `shortcuts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flagrelay.errors import DefinitionError, RuleTooLong
from flagrelay.flags import meter
from flagrelay.flags.branches import BRANCHES
from flagrelay.flags.forms import Form, function_of
from flagrelay.flags.javascript import to_string, truthy
from flagrelay.flags.loops import LOOPS
from flagrelay.flags.operators import OPERATORS, REFERENCE, arguments_of, is_plain, operator_of
from flagrelay.flags.paths import PATHS
from flagrelay.flags.shares import SHARES
from flagrelay.flags.shortcuts import SHORTCUTS
from flagrelay.flags.values import CONTEXT, KEY, PLAIN_TRUTH, Constant, Dynamic, Value, constants, known

Function = Callable[[Any, str], Any]

METERED_NODES = 200
"""Nodes from which on a rule without loops is metered too: lists in contexts multiply with them."""

DEEPEST = 30
"""How deep the forms of one function nest, about; and below so many nodes nobody counts."""


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
    compiler = Compiler(subject, path, generation, flag_key, populations, rules or {})
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


class Compiler:
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
        self.subject = subject
        self.path = [path] if path else []
        self.generation = generation
        self.flag_key = flag_key
        self.populations = populations
        self.rules = rules
        self.scoped = scoped
        self.held: list[Any] = []
        self.made: list[Function] = []
        self._locals = 0
        self.nodes = 0
        self.loops = False
        self.timed = False
        self.named: set[str] = set()
        self._depths: dict[int, tuple[Form, int]] = {}

    def finish(self, value: Value) -> CompiledRule:
        """The rule that gives a value."""
        function = function_of(self.form(value), self.held, self.made, self.nodes)
        return CompiledRule(function, self.nodes, self.loops, self.timed, frozenset(self.named))

    def fail(self, cause: str) -> DefinitionError:
        """The error of a rule that cannot be compiled, at the place that is being looked at."""
        return DefinitionError(self.subject, "".join(self.path).removeprefix("."), cause)

    def hold(self, constant: Any) -> int:
        """The place of a constant of the rule."""
        self.held.append(constant)
        return len(self.held) - 1

    def keep(self, form: Form) -> tuple[Form, Form]:
        """A form that keeps what it computes, and one that takes it again."""
        self._locals += 1
        return ("set", self._locals, form), ("got", self._locals)

    def form(self, value: Value) -> Form:
        """The form that computes a value."""
        if isinstance(value, Dynamic):
            return value.form
        if value.value is None or isinstance(value.value, bool):
            return ({None: "none", True: "true", False: "false"}[value.value],)
        return ("hold", self.hold(value.value))

    def call(self, helper: str, *values: Value, kind: str = "") -> Dynamic:
        """What a helper gives for values."""
        return Dynamic(("call", helper, *(self.form(value) for value in values)), kind)

    def test(self, value: Value) -> Form:
        """The truth of a value, for Python's `if`."""
        if isinstance(value, Constant):
            return ("true",) if truthy(value.value) else ("false",)
        if value.kind in PLAIN_TRUTH:
            return value.form
        kept, got = self.keep(value.form)
        return ("if", ("is", ("class", kept), ("type", "bool")), got, ("call", "truthy", got))

    def settled(self, value: Value) -> Value:
        """A value whose form has become deep, moved into a function of its own: Python's compiler has its limits."""
        if isinstance(value, Constant) or self.nodes < DEEPEST or self._depth(value.form) < DEEPEST:
            return value
        self.made.append(function_of(value.form, self.held, self.made, self.nodes))
        return Dynamic(("run", ("made", len(self.made) - 1), CONTEXT, KEY), value.kind)

    def _depth(self, form: Form) -> int:
        known = self._depths.get(id(form))
        if known is None:
            depth = 1 + max((self._depth(part) for part in form if isinstance(part, tuple)), default=0)
            known = self._depths[id(form)] = (form, depth)  # held, so that no other form gets its id
        return known[1]

    def value(self, rule: Any) -> Value:
        """What a rule gives."""
        self.nodes += 1
        if isinstance(rule, list):
            return self.list_of(rule)
        operator = operator_of(rule)
        if operator is None:
            return Constant(rule)
        self.path.append(f".{operator}")
        if operator == REFERENCE:
            value = _reference(self, rule[REFERENCE])
        elif operator in OPERATORS:
            value = _DECIDING.get(operator, _eager)(self, operator, arguments_of(rule))
        else:
            raise self.fail(f'"{operator:.80}" is no operator')
        self.path.pop()
        return self.settled(value)

    def argument(self, index: int, rule: Any) -> Value:
        """What an argument of the operator gives that is being looked at."""
        self.path.append(f"[{index}]")
        value = self.value(rule)
        self.path.pop()
        return value

    def arguments(self, rules: list[Any]) -> list[Value]:
        """What all its arguments give."""
        return [self.argument(index, rule) for index, rule in enumerate(rules)]

    def list_of(self, rules: list[Any]) -> Value:
        """A list of what rules give."""
        if is_plain(rules):
            self.nodes += len(rules)
            return Constant(rules)
        values = self.arguments(rules)
        if known(values):
            return Constant(constants(values))
        return Dynamic(("list", *(self.form(value) for value in values)), "list")

    def body(self, rule: Any) -> CompiledRule:
        """The body of a loop: a rule that looks at an item."""
        inner = Compiler(
            self.subject,
            "".join([*self.path, "[1]"]),
            self.generation,
            self.flag_key,
            self.populations,
            self.rules,
            scoped=True,
        )
        compiled = inner.finish(inner.value(rule))
        self.take_over(compiled)
        return compiled

    def take_over(self, part: CompiledRule) -> None:
        """What is true of a part of a rule is true of the rule."""
        self.nodes += part.nodes
        self.loops |= part.loops
        self.timed |= part.timed
        self.named |= part.populations


_RESULT_KINDS = {
    **dict.fromkeys(("==", "!=", "===", "!==", "<", "<=", ">", ">=", "!", "!!", "in"), "bool"),
    **dict.fromkeys(("cat", "substr"), "str"),
    "merge": "list",
}


def _eager(compiler: Compiler, operator: str, rules: list[Any]) -> Value:
    """An operator that looks at values only: folded where all of them are known."""
    values = compiler.arguments(rules)
    apply = OPERATORS[operator].apply
    if apply is None:
        raise RuntimeError(f"nothing says what {operator!r} does")
    if known(values):
        try:
            return Constant(apply(*constants(values)))
        except (RuleTooLong, ValueError, ArithmeticError, RecursionError):
            pass  # it will fail for every context as it failed here
    short = SHORTCUTS.get(operator)
    value = short(compiler, operator, values) if short else None
    return value or compiler.call(apply.__name__, *values, kind=_RESULT_KINDS.get(operator, ""))


def _reference(compiler: Compiler, name: Any) -> Value:
    if compiler.populations is None:
        raise compiler.fail("a population names no other: write its rule out")
    found = compiler.populations.get(name) if isinstance(name, str) else None
    if found is None:
        raise compiler.fail(f"there is no population {to_string(name)!r:.80}")
    compiler.named.add(name)
    if isinstance(found, DefinitionError):
        raise compiler.fail(f"population {name!r:.80} does not compile: at {found.path}: {found.cause}")
    if compiler.scoped:
        return _written_out(compiler, compiler.rules[name])
    compiler.take_over(found)
    compiler.made.append(found.function)
    return Dynamic(("run", ("made", len(compiler.made) - 1), CONTEXT, KEY))


def _written_out(compiler: Compiler, rule: Any) -> Value:
    """A population inside a loop looks at the item, as if its rule stood there."""
    populations, compiler.populations = compiler.populations, None
    value = compiler.value(rule)
    compiler.populations = populations
    return value


_DECIDING: dict[str, Callable[[Compiler, str, list[Any]], Value]] = {**BRANCHES, **PATHS, **LOOPS, **SHARES}
"""The operators that decide themselves what they evaluate; all others look at values only."""
