"""The way through a rule, for people: each branch that was taken, what it saw, what it gave.

Rules are walked here, operator by operator, where `compiler` makes functions of them: slower, the same results, and
what one says is tested against the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.flags import lookup, meter
from flagrelay.flags.bucket import HASHES, MAX_TOTAL, SHORTHANDS, weight_of
from flagrelay.flags.javascript import to_string, truthy
from flagrelay.flags.members import Members
from flagrelay.flags.operators import OPERATORS, REFERENCE, arguments_of, is_plain, operator_of
from flagrelay.flags.sharing import is_share, split


@dataclass(slots=True)
class Step:
    """One operator at work.

    Args:
        path: where it stands in the flag: `targeting.if[0]`.
        operator: which it is; empty for what is no rule.
        gave: its result.
        note: what else there is to know, for people.
        steps: those of its arguments that were looked at, in order.
    """

    path: str
    operator: str = ""
    gave: Any = None
    note: str = ""
    steps: list["Step"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a rule can see: the context with its flag's key, or inside a loop an item without one."""

    data: Any
    flag_key: str | None


class _Tracer:
    def __init__(self, generation: str, rules: Mapping[str, Any]) -> None:
        self._generation = generation
        self._rules = rules

    def walk(self, path: str, rule: Any, scope: _Scope) -> Step:
        if isinstance(rule, list):
            if is_plain(rule):
                return Step(path, gave=rule)
            items = self.each(path, rule, scope)
            steps = [each for item in items for each in ([item] if item.operator else item.steps)]
            return Step(path, gave=[item.gave for item in items], steps=steps)
        operator = operator_of(rule)
        if operator is None:
            return Step(path, gave=rule)
        step = Step(f"{path}.{operator}".removeprefix("."), operator)
        if operator == REFERENCE:
            name = rule[REFERENCE]
            inner = self.walk(f"$evaluators.{name}", self._rules.get(name), scope)
            step.steps, step.gave, step.note = [inner], inner.gave, f'population "{name}"'
            return step
        _WALKS.get(operator, _Tracer.eager)(self, step, arguments_of(rule), scope)
        return step

    def each(self, path: str, rules: list[Any], scope: _Scope) -> list[Step]:
        return [self.walk(f"{path}[{index}]", rule, scope) for index, rule in enumerate(rules)]

    def take(self, step: Step, index: int, rule: Any, scope: _Scope) -> Any:
        taken = self.walk(f"{step.path}[{index}]", rule, scope)
        step.steps.append(taken)
        return taken.gave

    def eager(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        values = [self.take(step, index, rule, scope) for index, rule in enumerate(rules)]
        apply = OPERATORS[step.operator].apply if step.operator in OPERATORS else None
        if apply is None:
            raise ValueError(f"{step.operator!r:.80} is no operator")
        step.gave = apply(*values)

    def contains(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        """`in`: a literal list is no work that grows with the context, here as in what is compiled."""
        if len(rules) != 2 or not isinstance(rules[1], list) or not is_plain(rules[1]):  # noqa: PLR2004 - both sides
            self.eager(step, rules, scope)
            return
        needle, items = self.take(step, 0, rules[0], scope), self.take(step, 1, rules[1], scope)
        step.gave = Members(items).have(needle)

    def branches(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        for index in range(0, len(rules) - 1, 2):
            if truthy(self.take(step, index, rules[index], scope)):
                step.note = f"branch {index // 2 + 1}"
                step.gave = self.take(step, index + 1, rules[index + 1], scope)
                return
        if len(rules) % 2:
            step.note = "else"
            step.gave = self.take(step, len(rules) - 1, rules[-1], scope)
        else:
            step.note = "no branch"

    def and_or(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        for index, rule in enumerate(rules):
            step.gave = self.take(step, index, rule, scope)
            if truthy(step.gave) == (step.operator == "or"):
                return

    def var(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        values = [self.walk(step.path, rule, scope).gave for rule in rules[:2]]
        step.gave = lookup.look(scope.data, scope.flag_key, *(values or [None]))
        step.note = to_string(values[0]) if values else ""

    def missing(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        values = [self.take(step, index, rule, scope) for index, rule in enumerate(rules)]
        if step.operator == "missing":
            step.gave = lookup.missing(scope.data, scope.flag_key, values)
        else:
            needed, names, *_ = [*values, 0, []]
            step.gave = lookup.missing_some(scope.data, scope.flag_key, needed, names)

    def loop(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        items = self.take(step, 0, rules[0], scope) if rules else None

        def body(item: Any, _key: str) -> Any:
            return self.walk(f"{step.path}[1]", rules[1] if len(rules) > 1 else None, _Scope(item, None)).gave

        if step.operator == "reduce":
            initial = self.take(step, 2, rules[2], scope) if len(rules) > 2 else None  # noqa: PLR2004 - the third
            step.gave = lookup.reduced(items, body, initial, "")
        else:
            step.gave = _LOOPS[step.operator](items, body, "")
        step.note = f"{len(items)} items" if isinstance(items, list) else "nothing to visit"

    def fractional(self, step: Step, rules: list[Any], scope: _Scope) -> None:
        values = [self.take(step, index, rule, scope) for index, rule in enumerate(rules)]
        if not values:
            return
        flag_key = scope.flag_key or ""
        targeting_key = lookup.targeting_key(scope.data)
        step.gave = split(self._generation, flag_key, targeting_key, values)
        if isinstance(values[0], list):
            hashed, shares = SHORTHANDS[self._generation](flag_key, targeting_key), values
            by = f"targeting key {targeting_key!r}"
        else:
            hashed, shares = HASHES[self._generation](values[0]), values[1:]
            by = repr(values[0])
        step.note = f"{_bucket_note(hashed, shares)}; by {by:.120} ({self._generation})"


def _bucket_note(hashed: int | None, shares: list[Any]) -> str:
    if hashed is None:
        return "nothing to hash, so no bucket"
    weights = [weight_of(each[1] if len(each) > 1 else 1) for each in shares if is_share(each)]
    total = sum(weight or 0 for weight in weights)
    if len(weights) < len(shares) or None in weights or not 0 < total <= MAX_TOTAL:
        return "the weights cannot be used"
    reached, parts = 0, []
    for share, weight in zip(shares, weights, strict=True):
        parts.append(f"{to_string(share[0]):.40} {reached}-{reached + (weight or 0) - 1}" if weight else "")
        reached += weight or 0
    return f"bucket {(hashed * total) >> 32} of {total}: {', '.join(part for part in parts if part)}"


_LOOPS: dict[str, Callable[[Any, Any, str], Any]] = {
    "map": lookup.mapped,
    "filter": lookup.kept,
    "all": lookup.every,
    "some": lookup.some,
    "none": lookup.none,
}

_WALKS: dict[str, Callable[[_Tracer, Step, list[Any], _Scope], None]] = {
    **dict.fromkeys(("if", "?:"), _Tracer.branches),
    **dict.fromkeys(("and", "or"), _Tracer.and_or),
    **dict.fromkeys(("missing", "missing_some"), _Tracer.missing),
    **dict.fromkeys(("reduce", *_LOOPS), _Tracer.loop),
    "in": _Tracer.contains,
    "var": _Tracer.var,
    "fractional": _Tracer.fractional,
}


def trace_rule(rule: Any, context: Any, flag_key: str, *, generation: str, rules: Mapping[str, Any]) -> Step:
    """The way through a rule that compiles.

    Args:
        rule: JsonLogic, as parsed JSON.
        context: an object.
        flag_key: the flag that it belongs to.
        generation: of `fractional`.
        rules: the populations, as they are written.

    Raises:
        RuleTooLong, ValueError, ArithmeticError: the rule fails with this context.
    """
    meter.start()
    try:
        return _Tracer(generation, rules).walk("targeting", rule, _Scope(context, flag_key))
    finally:
        meter.stop()
