"""What a rule may look like on its way in: what would not compile is refused, and so is what can only be a mistake.

Stricter than the compiler, which takes whatever flagd's evaluators take: here flagd's own schema of rules is the
measure. Where this goes its own way stands in docs/targeting.md.
"""

import difflib
from collections.abc import Callable, Collection
from typing import Any

from flagrelay.errors import DefinitionError
from flagrelay.flags.bucket import MAX_TOTAL
from flagrelay.flags.operators import OPERATORS, REFERENCE, arguments_of, operator_of
from flagrelay.flags.version import COMPARISONS, parse_version

_PROVIDED = ("$flagd.flagKey", "$flagd.timestamp")


class _Checker:
    """The check of one rule.

    Args:
        subject: what it belongs to, for errors.
        populations: the names that `$ref` may take; None where that is not known, and empty for none.
        refers: whether it may refer to populations at all.
    """

    def __init__(self, subject: str, populations: Collection[str] | None, *, refers: bool) -> None:
        self._subject = subject
        self._populations = populations
        self._refers = refers

    def fail(self, path: str, cause: str) -> DefinitionError:
        return DefinitionError(self._subject, path.removeprefix("."), cause)

    def rule(self, path: str, rule: Any) -> None:
        if isinstance(rule, list):
            self.items(path, rule)
            return
        if not isinstance(rule, dict) or not rule:
            return
        operator = operator_of(rule)
        if operator is None:
            names = ", ".join(list(rule)[:5])
            raise self.fail(path, f"an object with several members ({names:.80}) is no rule: a rule has one operator")
        path = f"{path}.{operator}"
        if operator == REFERENCE:
            self.reference(path, rule[REFERENCE])
            return
        known = OPERATORS.get(operator)
        if known is None:
            close = difflib.get_close_matches(operator, OPERATORS, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(OPERATORS)}"
            raise self.fail(path, f'"{operator:.80}" is no operator; {hint}')
        arguments = arguments_of(rule)
        if not known.least <= len(arguments) <= known.most:
            raise self.fail(path, f"takes {_count(known.least, known.most)}, and has {len(arguments)}")
        special = _CHECKS.get(operator)
        if special:
            special(self, path, arguments)
        for index, each in enumerate(arguments):
            self.rule(f"{path}[{index}]" if isinstance(rule[operator], list) else path, each)

    def items(self, path: str, rules: list[Any]) -> None:
        for index, each in enumerate(rules):
            if each.__class__ is not str:
                self.rule(f"{path}[{index}]", each)

    def reference(self, path: str, name: Any) -> None:
        if not isinstance(name, str):
            raise self.fail(path, "should be the name of a population")
        if not self._refers:
            raise self.fail(path, f'a population cannot refer to another one ("{name:.80}"): write its rule out')
        if self._populations is not None and name not in self._populations:
            known = ", ".join(sorted(self._populations)[:10])
            cause = f"there are {known:.200}" if known else "there are none yet"
            raise self.fail(path, f'there is no population "{name:.80}"; {cause}')

    def var(self, path: str, arguments: list[Any]) -> None:
        name = arguments[0] if arguments else ""
        if isinstance(name, str) and name.startswith("$flagd.") and name not in _PROVIDED:
            raise self.fail(path, f'there is no "{name:.80}": $flagd has flagKey and timestamp')

    def two_texts(self, path: str, arguments: list[Any]) -> None:
        for index, each in enumerate(arguments):
            if not isinstance(each, str | dict):
                raise self.fail(f"{path}[{index}]", "should be a text, or a rule that gives one")

    def version(self, path: str, arguments: list[Any]) -> None:
        if not isinstance(arguments[1], str) or arguments[1] not in COMPARISONS:
            raise self.fail(f"{path}[1]", f"should be one of {' '.join(COMPARISONS)}")
        for index in (0, 2):
            each = arguments[index]
            if not isinstance(each, dict) and parse_version(each) is None:
                raise self.fail(f"{path}[{index}]", f"{each!r:.80} is no version like 1.2.3")

    def fractional(self, path: str, arguments: list[Any]) -> None:
        shorthand = isinstance(arguments[0], list)
        if not shorthand and not isinstance(arguments[0], dict):
            raise self.fail(f"{path}[0]", "should be a rule that gives what decides, or a share: [variant, weight]")
        first = 0 if shorthand else 1
        total = 0
        for index, share in enumerate(arguments[first:], first):
            total += self.share(f"{path}[{index}]", share)
        if len(arguments) == first:
            raise self.fail(path, "has no shares: [variant, weight]")
        if total > MAX_TOTAL:
            raise self.fail(path, f"the weights come to {total}; the most is {MAX_TOTAL}")

    def share(self, path: str, share: Any) -> int:
        """The weight of a share, as far as it is known."""
        if isinstance(share, dict):
            return 0
        if not isinstance(share, list) or not 1 <= len(share) <= 2:  # noqa: PLR2004 - variant and weight
            raise self.fail(path, "should be a share: [variant, weight], or [variant] for a weight of 1")
        weight = share[1] if len(share) > 1 else 1
        if isinstance(weight, dict):
            return 0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight != int(weight) or weight < 0:
            raise self.fail(f"{path}[1]", f"{weight!r:.80} is no weight: it should be a whole number, 0 or more")
        return int(weight)


_CHECKS: dict[str, Callable[[_Checker, str, list[Any]], None]] = {
    "var": _Checker.var,
    "starts_with": _Checker.two_texts,
    "ends_with": _Checker.two_texts,
    "sem_ver": _Checker.version,
    "fractional": _Checker.fractional,
}


def check_rule(
    subject: str, path: str, rule: Any, *, populations: Collection[str] | None = None, refers: bool = True
) -> None:
    """Refuse a rule that would not compile, or can only be a mistake.

    Args:
        subject: what it belongs to, for errors: `flag "checkout-v2"`.
        path: where it stands in that: `targeting`.
        rule: JsonLogic, as parsed JSON, of bounded depth.
        populations: the names that `$ref` may take; None where that is not known.
        refers: whether it may refer to populations at all.

    Raises:
        DefinitionError: it is such a rule; says where.
    """
    _Checker(subject, populations, refers=refers).rule(path, rule)


def _count(least: int, most: float) -> str:
    if least == most:
        return f"{least} argument{'s' if least != 1 else ''}"
    return f"{least} or more arguments" if most == float("inf") else f"{least} to {most:g} arguments"
