"""Which variant goes to whom, in which stages: the plan of a release, as YAML or JSON has it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagrelay.errors import DefinitionError
from flagrelay.flags.definition import MAX_KEY_LENGTH, check_flag
from flagrelay.release.duration import format_duration, parse_duration

Mix = Mapping[str, int]
"""Variants by name, each with its weight; mostly one."""

WHOLE = 100_000
"""Parts of a population that percentages are counted in: 100 %, to three decimals."""

EVERYBODY = "everybody"
"""The scope of who is in no population that a release names; no population may be called so."""

MAX_STAGES = 50
MAX_WEIGHT = 1_000_000
MAX_TEXT = 1000
MAX_APPROVALS = 10

_MEMBERS = ("flag", "description", "owner", "salt", "variants", "released", "baseline", "stages")
_STAGE_MEMBERS = ("name", "population", "percent", "minimum", "approval")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,100}")
_KEY = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_KEY_LENGTH}}}")
_LONE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Approval:
    """Who must agree before a stage is entered: so many others than the one who enters it, or any of some people."""

    count: int = 0
    people: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anybody must."""
        return self.count > 0

    def __str__(self) -> str:
        """For people; empty for nobody."""
        if not self.count:
            return ""
        if self.people:
            return f"by {' or '.join(self.people)}"
        return "by another person" if self.count == 1 else f"by {self.count} others"

    def as_json(self) -> bool | int | list[str]:
        """As a plan has it."""
        return list(self.people) if self.people else self.count


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: a share (of `WHOLE`) of a population, or of everybody where it names none.

    `minimum` is how many seconds it lasts before the next may be entered.
    """

    name: str
    population: str | None
    share: int
    minimum: int = 0
    approval: Approval = field(default_factory=Approval)

    @property
    def whom(self) -> str:
        """Whom it releases to, for people: `50 % of beta`."""
        if self.population is None:
            return "everybody" if self.share == WHOLE else f"{percent(self.share)} of everybody"
        return self.population if self.share == WHOLE else f"{percent(self.share)} of {self.population}"

    def as_json(self) -> dict[str, Any]:
        """As a plan has it, without what goes without saying."""
        document: dict[str, Any] = {"name": self.name}
        if self.population is not None:
            document["population"] = self.population
        if self.share != WHOLE or self.population is None:
            document["percent"] = _number(self.share)
        if self.minimum:
            document["minimum"] = format_exact(self.minimum)
        if self.approval:
            document["approval"] = self.approval.as_json()
        return document


@dataclass(frozen=True, slots=True)
class Plan:
    """A release, planned: `released` goes to one population after another, `baseline` to everybody else.

    `salt` decides who comes first where a stage has a percentage, and never changes; the flag's key where it is empty.
    `variants` is what the flag is to have, where the plan says so.
    """

    flag: str
    released: Mix
    baseline: Mix
    stages: tuple[Stage, ...]
    variants: Mapping[str, Any] | None = None
    salt: str = ""
    owner: str = ""
    description: str = ""

    @property
    def populations(self) -> tuple[str, ...]:
        """The populations that its stages name, in order."""
        return tuple(dict.fromkeys(stage.population for stage in self.stages if stage.population is not None))

    def as_json(self) -> dict[str, Any]:
        """As it is stored, and as a file has it."""
        document: dict[str, Any] = {"flag": self.flag}
        for name in ("description", "owner", "salt"):
            if getattr(self, name):
                document[name] = getattr(self, name)
        if self.variants is not None:
            document["variants"] = dict(self.variants)
        document["released"] = _mix_as_json(self.released)
        document["baseline"] = _mix_as_json(self.baseline)
        document["stages"] = [stage.as_json() for stage in self.stages]
        return document


def check_plan(document: object) -> Plan:
    """A plan, as parsed YAML or JSON.

    Raises:
        DefinitionError: it is none; says where and why.
    """
    members = _object("plan", "", document, _MEMBERS)
    key = members.get("flag")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise DefinitionError("plan", "flag", "should be the key of a flag")
    subject = f'plan of flag "{key:.80}"'
    for name in ("released", "baseline", "stages"):
        if name not in members:
            raise DefinitionError(subject, name, "missing")
    texts = {name: _text(subject, name, members.get(name, "")) for name in ("description", "owner", "salt")}
    variants = members.get("variants")
    if variants is not None:
        check_flag(key, {"state": "ENABLED", "variants": variants})
    released, baseline = (_mix(subject, name, members[name]) for name in ("released", "baseline"))
    if dict(released) == dict(baseline):
        raise DefinitionError(subject, "released", "is the same as the baseline, so nothing would be released")
    plan = Plan(key, released, baseline, _stages(subject, members["stages"]), variants, **texts)
    if variants is not None:
        check_variants(plan, variants)
    return plan


def check_variants(plan: Plan, variants: Mapping[str, Any]) -> None:
    """Refuse a plan that names variants which a flag does not have.

    Raises:
        DefinitionError: it does.
    """
    for role, mix in (("released", plan.released), ("baseline", plan.baseline)):
        for name in mix:
            if name not in variants:
                has = ", ".join(list(variants)[:10])
                raise DefinitionError(f'plan of flag "{plan.flag}"', role, f'"{name:.80}" is none of {has:.200}')


def percent(share: int) -> str:
    """A share for people: `12.5 %`."""
    return f"{_number(share)} %"


def format_exact(seconds: int) -> str | int:
    """A time as a plan has it, in one unit where that is exact."""
    shown = format_duration(seconds)
    return shown if parse_duration("", "", shown) == seconds else seconds


def _number(share: int) -> int | float:
    whole, rest = divmod(share * 100, WHOLE)
    return share * 100 / WHOLE if rest else whole


def _stages(subject: str, value: object) -> tuple[Stage, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_STAGES:
        raise DefinitionError(subject, "stages", f"should be a list of 1 to {MAX_STAGES} stages")
    stages = tuple(_stage(subject, f"stages[{index}]", each) for index, each in enumerate(value))
    reached: dict[str | None, int] = {}
    for index, stage in enumerate(stages):
        path = f"stages[{index}]"
        before = max(reached.get(None, 0), reached.get(stage.population, 0))
        if stage.share <= before:
            raise DefinitionError(subject, path, f"adds nobody: {percent(before)} of them have it by then")
        if any(stage.name == other.name for other in stages[:index]):
            raise DefinitionError(subject, f"{path}.name", f'"{stage.name}" is the name of another stage')
        reached[stage.population] = stage.share
    return stages


def _stage(subject: str, path: str, value: object) -> Stage:
    members = _object(subject, path, value, _STAGE_MEMBERS)
    population = members.get("population")
    if population is not None and not (isinstance(population, str) and _KEY.fullmatch(population)):
        raise DefinitionError(subject, f"{path}.population", "should be the name of a population")
    if population == EVERYBODY:
        raise DefinitionError(
            subject, f"{path}.population", "everybody is no population: leave it out, and say percent"
        )
    if population is None and "percent" not in members:
        raise DefinitionError(subject, path, "names neither a population nor a percentage")
    share = _share(subject, f"{path}.percent", members.get("percent", 100))
    some = "" if share == WHOLE and population is not None else f"{_number(share)}%"
    name = members.get("name", "-".join(filter(None, (population, some))))
    if not _is_name(name):
        raise DefinitionError(subject, f"{path}.name", "should be a name of 1 to 100 characters")
    minimum = parse_duration(subject, f"{path}.minimum", members.get("minimum", 0))
    return Stage(name, population, share, minimum, _approval(subject, f"{path}.approval", members.get("approval")))


def _share(subject: str, path: str, value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 100:  # noqa: PLR2004 - per cent
        share = round(value * WHOLE / 100)
        if share and abs(share * 100 / WHOLE - value) < 1e-9:  # noqa: PLR2004 - what binary fractions leave
            return share
    raise DefinitionError(subject, path, f"{value!r:.80} is no percentage: above 0, at most 100, of three decimals")


def _approval(subject: str, path: str, value: object) -> Approval:
    match value:
        case None | False:
            return Approval()
        case True:
            return Approval(1)
        case int() if 0 < value <= MAX_APPROVALS:
            return Approval(value)
        case [*people] if people and all(map(_is_name, people)):
            return Approval(1, tuple(dict.fromkeys(map(str, people))))
    raise DefinitionError(subject, path, "should be true, how many others must agree (at most 10), or a list of people")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip() and _NAME.fullmatch(value))


def _mix(subject: str, path: str, value: object) -> Mix:
    if isinstance(value, str) and value and not _LONE.search(value):
        return {value: 1}
    if isinstance(value, bool):
        cause = f"is {str(value).lower()}, which YAML makes of {'on and yes' if value else 'off and no'} without quotes"
        raise DefinitionError(subject, path, f'{cause}: write it in quotes, "{"on" if value else "off"}"')
    if isinstance(value, dict) and value:
        for name, weight in value.items():
            if not isinstance(name, str) or not name or _LONE.search(name):
                raise DefinitionError(subject, path, f"{name!r:.80} is no variant's name: a name is text")
            if not isinstance(weight, int) or isinstance(weight, bool) or not 0 < weight <= MAX_WEIGHT:
                cause = f"{weight!r:.80} is no weight: a whole number from 1 to {MAX_WEIGHT}"
                raise DefinitionError(subject, f"{path}.{name}", cause)
        return value if len(value) > 1 else dict.fromkeys(value, 1)
    raise DefinitionError(subject, path, "should be a variant's name, or several, each with its weight")


def _mix_as_json(mix: Mix) -> str | dict[str, int]:
    return next(iter(mix)) if len(mix) == 1 else dict(mix)


def _text(subject: str, path: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or _LONE.search(value):
        raise DefinitionError(subject, path, f"should be text of at most {MAX_TEXT} characters")
    return value


def _object(subject: str, path: str, value: object, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DefinitionError(subject, path, "should be an object")
    for name in value:
        if name not in known:
            raise DefinitionError(
                subject, f"{path}.{name!s:.80}".removeprefix("."), f"unknown; it has {', '.join(known)}"
            )
    return value
