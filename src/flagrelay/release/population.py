"""The simple forms of populations: made from a few words, and known again in a rule. What people should know of one.

Each form is plain JsonLogic and compares as that does: capitals matter, an attribute that a context lacks is in no
population, `==` takes "1" for 1 and `in` does not.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from flagrelay.errors import DefinitionError
from flagrelay.flags.change import Rule
from flagrelay.flags.definition import check_population
from flagrelay.flags.operators import REFERENCE, operator_of

MAX_KEYS = 100_000
MAX_TEXT = 256
"""Characters of a targeting key, and of an attribute's name."""
MAX_DOMAINS = 100
MAX_DESCRIPTION = 1000
MAX_RISK = 1000
MOST_SHOWN = 3
"""Values of a list that its description names."""
LONGEST_SHOWN = 60
"""Characters of a rule, or of a value, that its description shows."""

TARGETING_KEY = "targetingKey"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){0,8}[\w-]{1,63}")

Kind = Literal["equals", "in", "email", "keys", "rule"]


@dataclass(frozen=True, slots=True)
class Form:
    """Which of the simple forms a rule has; `rule` where it has none.

    Args:
        kind: the form.
        attribute: the attribute of the context that it looks at: a path such as `user.plan`.
        values: what that may be; for `email` the domains, without the @.
    """

    kind: Kind
    attribute: str = ""
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """What people should know of a population.

    Args:
        description: who is in it; of several lines, where one is not enough.
        risk: from 0 to 1000; the lower, the less harm is done there, and the earlier it is released to. None where
            nobody has said.
    """

    description: str = ""
    risk: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As it is stored, without what goes without saying."""
        document: dict[str, Any] = {"description": self.description} if self.description else {}
        return document if self.risk is None else {**document, "risk": self.risk}


# -- from words to rules -------------------------------------------------------------------------------------------


def equals(name: str, attribute: str, value: object) -> Rule:
    """The rule of those whose attribute is a value: a text, a number or a boolean.

    Args:
        name: the population's.
        attribute: a path in the context: `plan`, `user.plan`.
        value: what it is.

    Raises:
        DefinitionError: it makes no rule.
    """
    subject = _subject(name)
    return check_population(name, {"==": [_var(subject, attribute), _value(subject, "value", value)]})


def one_of(name: str, attribute: str, values: Iterable[object]) -> Rule:
    """The rule of those whose attribute is one of some values; one that stands there twice counts once.

    Raises:
        DefinitionError: it makes no rule.
    """
    subject = _subject(name)
    checked = [_value(subject, f"values[{index}]", value) for index, value in enumerate(values)]
    if not checked:
        raise DefinitionError(subject, "values", "empty; there is at least one")
    different = {(isinstance(value, bool), value): value for value in checked}  # Python takes true for 1
    return check_population(name, {"in": [_var(subject, attribute), [*different.values()]]})


def at_domains(name: str, domains: Iterable[str], attribute: str = "email") -> Rule:
    """The rule of those whose email address ends with one of some domains.

    Domains are taken in small letters, and addresses as they come: one in capitals is in no such population. A
    subdomain is another domain.

    Args:
        name: the population's.
        domains: `example.com` or `@example.com`.
        attribute: the one that holds the address.

    Raises:
        DefinitionError: it makes no rule.
    """
    subject = _subject(name)
    looked_at = _var(subject, attribute)
    named = [_domain(subject, index, domain) for index, domain in enumerate(domains)]
    found = list(dict.fromkeys(named))
    if not 1 <= len(found) <= MAX_DOMAINS:
        raise DefinitionError(subject, "domains", f"there are {len(found)}; it should be 1 to {MAX_DOMAINS}")
    rules: list[Rule] = [{"ends_with": [looked_at, f"@{domain}"]} for domain in found]
    return check_population(name, rules[0] if len(rules) == 1 else {"or": rules})


def of_keys(name: str, keys: Iterable[str]) -> Rule:
    """The rule of a list of targeting keys, in order and each once.

    Raises:
        DefinitionError: there are none or too many, or one of them is none.
    """
    subject = _subject(name)
    found = set()
    for index, key in enumerate(keys):
        _check_key(subject, f"keys[{index}]", key)
        found.add(key)
    if not 1 <= len(found) <= MAX_KEYS:
        raise DefinitionError(subject, "keys", f"there are {len(found):,}; it should be 1 to {MAX_KEYS:,}")
    return check_population(name, {"in": [{"var": TARGETING_KEY}, sorted(found)]})


def parse_keys(text: bytes, subject: str) -> list[str]:
    """The targeting keys of a file that has one a line, each once; empty lines and comments are left out.

    A comment is `#` alone, or `#` and a blank before anything else: keys may begin with #, and whoever is left out in
    silence is left out of an un-release too.

    Raises:
        DefinitionError: it is no UTF-8, or a line is no targeting key, and which; or there are too many.
    """
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text.count(b"\n", 0, error.start)
        raise DefinitionError(subject, f"line {before + 1}", "not UTF-8") from error
    keys: dict[str, None] = {}
    for number, line in enumerate(decoded.split("\n"), 1):
        key = line.strip(" \t\r")
        if key and key != "#" and not key.startswith(("# ", "#\t")):
            _check_key(subject, f"line {number}", key)
            keys[key] = None
    if len(keys) > MAX_KEYS:
        cause = f"has {len(keys):,} targeting keys, and the most is {MAX_KEYS:,}"
        raise DefinitionError(
            subject, "", f"{cause}: describe who is in it by an attribute, or make several populations"
        )
    return list(keys)


def _subject(name: object) -> str:
    return f'population "{name!s:.80}"'


def _check_key(subject: str, path: str, key: object) -> None:
    if not isinstance(key, str):
        raise DefinitionError(subject, path, "should be a text: a targeting key")
    if not 1 <= len(key) <= MAX_TEXT:
        raise DefinitionError(subject, path, f"a targeting key has 1 to {MAX_TEXT} characters, and this one {len(key)}")
    if _CONTROL.search(key):
        raise DefinitionError(subject, path, "a targeting key has no control characters")


def _var(subject: str, attribute: object) -> Rule:
    if not isinstance(attribute, str) or not 1 <= len(attribute) <= MAX_TEXT or _CONTROL.search(attribute):
        cause = f"should be the name of an attribute: 1 to {MAX_TEXT} characters, no control characters"
        raise DefinitionError(subject, "attribute", cause)
    return {"var": attribute}


def _value(subject: str, path: str, value: object) -> object:
    if not isinstance(value, str | int | float):
        raise DefinitionError(subject, path, "should be a text, a number or a boolean")
    return value


def _domain(subject: str, index: int, domain: object) -> str:
    found = domain.strip().removeprefix("@").lower() if isinstance(domain, str) else ""
    if not _DOMAIN.fullmatch(found):
        raise DefinitionError(
            subject, f"domains[{index}]", f"{domain!r:.80} is no domain: it should be like example.com or @example.com"
        )
    return found


# -- from rules to words -------------------------------------------------------------------------------------------


def form_of(rule: object) -> Form:
    """Which of the simple forms a rule has, and with what."""
    operator = operator_of(rule)
    if operator is None or not isinstance(rule, dict):
        return Form("rule")
    recognise = _FORMS.get(operator)
    found = recognise(rule[operator]) if recognise else None
    return found or Form("rule")


def keys_of(rule: object) -> list[str] | None:
    """The targeting keys of a rule that is a list of them; None for any other."""
    form = form_of(rule)
    return list(form.values) if form.kind == "keys" else None


def describe(rule: object) -> str:
    """A rule in one short line, for people: `plan is "beta"`, `1,200 targeting keys`; JSON where it has no simple form.

    What is in it was written by others: whoever prints it to a terminal makes it harmless.
    """
    form = form_of(rule)
    match form.kind:
        case "equals":
            return f"{form.attribute} is {_shown(form.values[0])}"
        case "in":
            return f"{form.attribute} is one of {_some([_shown(value) for value in form.values[:MOST_SHOWN]], form)}"
        case "email":
            return f"{form.attribute} at {_some([*form.values[:MOST_SHOWN]], form)}"
        case "keys":
            return f"{len(form.values):,} targeting key{'s' if len(form.values) > 1 else ''}"
    return _shown(rule)


def references(rule: object) -> set[str]:
    """The populations that a rule names, wherever in it."""
    found: set[str] = set()
    left = [rule]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += [each for each in part if isinstance(each, dict | list)]
        elif isinstance(part, dict) and len(part) == 1:  # an object of several members is data
            ((operator, argument),) = part.items()
            if operator == REFERENCE and isinstance(argument, str):
                found.add(argument)
            left.append(argument)
    return found


def _some(shown: list[str], form: Form) -> str:
    more = len(form.values) - len(shown)
    return f"{', '.join(shown)} and {more:,} more" if more else ", ".join(shown)


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:  # in Redis stands whatever somebody has written there
        return "a rule that nests too deep to be shown"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _attribute(rule: object) -> str | None:
    """The attribute that a rule looks at, where it does nothing else."""
    name = rule["var"] if isinstance(rule, dict) and operator_of(rule) == "var" else None
    return name if isinstance(name, str) else None


def _equals_form(arguments: object) -> Form | None:
    match arguments:
        case [looked_at, str() | int() | float() as value] if attribute := _attribute(looked_at):
            return Form("equals", attribute, (value,))
    return None


def _in_form(arguments: object) -> Form | None:
    match arguments:
        case [looked_at, [_, *_] as values] if attribute := _attribute(looked_at):
            kinds = {*map(type, values)}
            if kinds <= {str, int, float, bool}:
                keys = attribute == TARGETING_KEY and kinds == {str}
                return Form("keys" if keys else "in", attribute, tuple(values))
    return None


def _email_form(arguments: object) -> Form | None:
    match arguments:
        case [looked_at, str(ending)] if attribute := _attribute(looked_at):
            domain = ending.removeprefix("@")
            if ending == f"@{domain.lower()}" and _DOMAIN.fullmatch(domain):
                return Form("email", attribute, (domain,))
    return None


def _emails_form(arguments: object) -> Form | None:
    if not isinstance(arguments, list):
        return None
    forms = [form_of(each) for each in arguments if operator_of(each) == "ends_with"]
    if not forms or len(forms) < len(arguments) or any(each.attribute != forms[0].attribute for each in forms):
        return None
    domains = [domain for each in forms for domain in each.values]
    return Form("email", forms[0].attribute, tuple(domains)) if domains else None


_FORMS: dict[str, Callable[[object], Form | None]] = {
    "==": _equals_form,
    "in": _in_form,
    "ends_with": _email_form,
    "or": _emails_form,
}
"""By operator: which form its arguments make."""


# -- what people should know ---------------------------------------------------------------------------------------


def check_about(name: str, about: About) -> About:
    """What people should know of a population, as it came.

    Raises:
        DefinitionError: the description is too long or would speak to a terminal, or the risk is out of its range.
    """
    return _about(_subject(name), about.description, about.risk)


def about_from_json(name: str, document: object) -> About:
    """What people should know of a population, from parsed JSON.

    Raises:
        DefinitionError: it is nothing of the kind.
    """
    subject = _subject(name)
    if not isinstance(document, dict):
        raise DefinitionError(subject, "", "what is to be known of it should be an object")
    for member in document:
        if member not in ("description", "risk"):
            raise DefinitionError(subject, f"{member!s:.80}", "unknown; there are description, risk")
    return _about(subject, document.get("description", ""), document.get("risk"))


def _about(subject: str, description: object, risk: object) -> About:
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
        raise DefinitionError(subject, "description", f"should be text of at most {MAX_DESCRIPTION} characters")
    if _CONTROL.search(description.replace("\n", "")):
        raise DefinitionError(subject, "description", "has control characters other than line breaks")
    if risk is not None and (not isinstance(risk, int) or isinstance(risk, bool) or not 0 <= risk <= MAX_RISK):
        raise DefinitionError(subject, "risk", f"{risk!r:.80} is no risk: a whole number from 0 to {MAX_RISK}")
    return About(description, risk)
