"""Strategies for releases, and a model of whom they expose that knows nothing of how they are compiled.

A `World` is a plan, populations whose members the model tells by itself, and people. Its people come from a seed:
hundreds of them for each example would take long to draw one by one.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cbor2
import mmh3
from hypothesis import strategies as st

from flagrelay.errors import FlagrelayError
from flagrelay.flags.change import Definition
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.release import actions
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import WHOLE, Plan, check_plan
from flagrelay.release.standing import Release
from flagrelay.release.states import State

Context = dict[str, Any]

START = Position("e0", 0, "e0-0")
VARIANTS: dict[str, Any] = {"on": "new", "off": "old", "red": "#f00", "green": "#0f0", "blue": "#00f"}
FLAG: Definition = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", "metadata": {"owner": "ada"}}
FLAG_KEYS = ("checkout-v2", "flag-é", "a/b c")

# -- populations ---------------------------------------------------------------------------------------------

PLANS, COUNTRIES, DOMAINS = ("free", "pro", "team"), ("DE", "FR", "US"), ("example.com", "example.org")
KEYS = 400
"""Different targeting keys of people: few enough that a list of keys has some of them in it."""


@dataclass(frozen=True)
class Population:
    """A population: its rule, and how the model tells who is in it."""

    name: str
    rule: Mapping[str, Any]
    attribute: str
    kind: str
    values: tuple[str, ...]

    def has(self, context: Context) -> bool:
        """Whether somebody is in it."""
        value = context.get(self.attribute)
        if not isinstance(value, str):
            return False
        if self.kind == "domains":
            return any(value.endswith(f"@{domain}") for domain in self.values)
        return value in self.values


def equals(name: str, attribute: str, value: str) -> Population:
    return Population(name, {"==": [{"var": attribute}, value]}, attribute, "equals", (value,))


def one_of(name: str, attribute: str, values: Sequence[str]) -> Population:
    return Population(name, {"in": [{"var": attribute}, list(values)]}, attribute, "in", tuple(values))


def at_domains(name: str, domains: Sequence[str]) -> Population:
    rules = [{"ends_with": [{"var": "email"}, f"@{domain}"]} for domain in domains]
    return Population(name, rules[0] if len(rules) == 1 else {"or": rules}, "email", "domains", tuple(domains))


def _some(values: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


def _population(name: str) -> st.SearchStrategy[Population]:
    key_lists = st.builds(
        lambda count, seed: [f"user-{each}" for each in random.Random(seed).sample(range(KEYS), count)],
        st.integers(1, 150),
        st.integers(0, 2**32),
    )
    return st.one_of(
        st.sampled_from(PLANS).map(lambda value: equals(name, "plan", value)),
        _some(COUNTRIES).map(lambda values: one_of(name, "country", values)),
        _some(DOMAINS).map(lambda domains: at_domains(name, domains)),
        key_lists.map(lambda keys: one_of(name, "targetingKey", keys)),
    )


POPULATION_NAMES = ("dev-team", "internal", "beta", "eu_west")


def populations() -> st.SearchStrategy[dict[str, Population]]:
    """Two to four, by name."""
    counted = st.integers(2, len(POPULATION_NAMES)).map(lambda count: POPULATION_NAMES[:count])
    return counted.flatmap(lambda names: st.fixed_dictionaries({name: _population(name) for name in names}))


# -- plans ---------------------------------------------------------------------------------------------------

SHARES = st.integers(1, WHOLE) | st.sampled_from((1, 1_000, 5_000, 12_500, 33_333, 50_000, 99_999, WHOLE))


def _mixes(names: Sequence[str]) -> st.SearchStrategy[Any]:
    weighted = st.lists(st.sampled_from(names), min_size=2, max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: st.integers(1, 100) for name in chosen})
    )
    return st.sampled_from(names) | weighted


def _roles(*, apart: bool) -> st.SearchStrategy[tuple[Any, Any]]:
    """The released mix and that of the baseline; `apart` where no variant may be in both."""
    if apart:
        orders = st.permutations(list(VARIANTS))
        return orders.flatmap(lambda names: st.tuples(_mixes(names[:2]), _mixes(names[2:])))
    mixes = _mixes(list(VARIANTS))
    return st.tuples(mixes, mixes).filter(lambda roles: roles[0] != roles[1])


def _stages(named: Sequence[str], *, gated: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    steps = st.tuples(st.sampled_from((*named, *named, None)), SHARES | st.just(WHOLE), st.booleans())
    gates = st.fixed_dictionaries(
        {},
        optional={
            "minimum": st.sampled_from(("90s", "1h", "1d12h", 5, 3_599, 93_784)),
            "approval": st.sampled_from((True, 1, 3, ["ada"], ["ada", "grace"])),
        },
    )
    few = st.lists(st.tuples(steps, gates if gated else st.just({})), min_size=1, max_size=8)
    many = st.lists(st.tuples(steps, gates if gated else st.just({})), min_size=4, max_size=8)
    return few.map(_that_add) | many.map(lambda drawn: _that_add(sorted(drawn, key=lambda each: each[0][1])))


def _that_add(drawn: list[tuple[tuple[str | None, int, bool], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Those stages that add somebody: eight at most."""
    stages: list[dict[str, Any]] = []
    reached: dict[str | None, int] = {}
    for number, ((population, share, named), gate) in enumerate(drawn):
        if share <= max(reached.get(None, 0), reached.get(population, 0)):
            continue
        reached[population] = share
        stage = {"population": population, "percent": share * 100 / WHOLE, **gate}
        if population is None:
            del stage["population"]
        elif share == WHOLE:
            del stage["percent"]
        stages.append({"name": f"stage {number}", **stage} if named else stage)
    return stages


@st.composite
def plan_documents(
    draw: st.DrawFn, named: Sequence[str] = POPULATION_NAMES, *, apart: bool = False, gated: bool = True
) -> dict[str, Any]:
    """Plans as YAML has them: `gated` with minimum times and approvals, `apart` with no variant in both roles."""
    released, baseline = draw(_roles(apart=apart))
    document = {"flag": draw(st.sampled_from(FLAG_KEYS)), "released": released, "baseline": baseline}
    document["stages"] = draw(_stages(named, gated=gated))
    for name, values in {
        "salt": st.sampled_from(("", "2026", "é:")),
        "owner": st.just("ada"),
        "description": st.text(max_size=20),
        "variants": st.just(VARIANTS),
    }.items():
        if draw(st.booleans()):
            document[name] = draw(values)
    return document


# -- people --------------------------------------------------------------------------------------------------


def contexts(seed: int, count: int) -> list[Context]:
    """So many evaluation contexts, some without a targeting key, some with attributes that are not what they should."""
    chance = random.Random(seed)
    return [_context(chance) for _ in range(count)]


def _context(chance: random.Random) -> Context:
    context: Context = {}
    if chance.random() < 0.9:
        few = chance.random() < 0.7
        context["targetingKey"] = f"user-{chance.randrange(KEYS)}" if few else f"{chance.getrandbits(64):x}-é"
    elif chance.random() < 0.3:
        context["targetingKey"] = ""
    for name, values in (("plan", PLANS), ("country", COUNTRIES)):
        if chance.random() < 0.8:
            context[name] = chance.choice((*values, *values, "elsewhere", None, 7, True))
    if chance.random() < 0.8:
        context["email"] = f"user{chance.randrange(9)}@{chance.choice((*DOMAINS, *DOMAINS, 'example.net', ''))}"
    if chance.random() < 0.3:
        context["shoe size"] = chance.randrange(30, 50)
    return context


@dataclass(frozen=True, slots=True)
class Person:
    """A context, and what the model knows of it."""

    context: Context
    groups: frozenset[str]
    bucket: int | None
    """Of `WHOLE`; None without a targeting key."""
    mixed: int
    """The hash that tells the variants of a mix apart."""


def _hash(value: Any, generation: str) -> int:
    if generation == "v2":
        data = ("".join(value) if isinstance(value, list) else value).encode()
    else:
        data = cbor2.dumps(value, canonical=True)
    return mmh3.hash(data, signed=False)


# -- a world, and the model of whom a release exposes in it --------------------------------------------------


@dataclass(frozen=True)
class World:
    plan: Plan
    populations: dict[str, Population]
    seed: int
    generation: str = "v3"
    blocks: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def planned(self) -> Release:
        """The release that is planned, and un-released already from its blocks, and to its limits."""
        return replace(actions.plan(None, self.plan, 0), blocks=self.blocks, only=self.only)

    @cached_property
    def evaluators(self) -> dict[str, Any]:
        return {name: population.rule for name, population in self.populations.items()}

    def people(self, count: int) -> list[Person]:
        """So many of them."""
        return [self.person(context) for context in contexts(self.seed, count)]

    def person(self, context: Context) -> Person:
        groups = frozenset(name for name, population in self.populations.items() if population.has(context))
        key = context.get("targetingKey")
        bucket = None
        if key:
            decides = self.plan.salt + key if self.plan.salt else [self.plan.flag, key]
            bucket = (_hash(decides, self.generation) * WHOLE) >> 32
        mixed = _hash(f"{self.plan.salt or self.plan.flag}/variants:{key or ''}", self.generation)
        return Person(context, groups, bucket, mixed)

    def snapshot(self, release: Release, flag: Definition = FLAG) -> Snapshot:
        """The flag as it is when its release stands so."""
        settings = EnvironmentSettings(self.generation)
        return Snapshot(START, {release.flag: compile_release(release, flag)}, self.evaluators, settings=settings)

    def variants(self, release: Release, people: Sequence[Person]) -> list[str | None]:
        """What each of them has, as our snapshots resolve it."""
        snapshot = self.snapshot(release)
        return [snapshot.resolve(release.flag, person.context).variant for person in people]

    def having(self, release: Release, people: Sequence[Person]) -> list[bool]:
        """Who has what was released, as our snapshots resolve it; for plans whose mixes are apart."""
        return [variant in release.plan.released for variant in self.variants(release, people)]


def is_exposed(release: Release, person: Person) -> bool:
    """Whether somebody is to have what was released."""
    if release.state is State.FINISHED:
        return True
    if release.state is State.ABANDONED:
        return False
    if any(name in person.groups for name in release.blocks) or any(name not in person.groups for name in release.only):
        return False
    return any(
        (stage.population is None or stage.population in person.groups)
        and (stage.share == WHOLE or (person.bucket is not None and person.bucket < stage.share))
        for stage in release.plan.stages[: release.position]
    )


def due(release: Release, person: Person) -> str:
    """The variant that somebody is to have."""
    mix = release.plan.released if is_exposed(release, person) else release.plan.baseline
    place = (person.mixed * sum(mix.values())) >> 32
    for name, weight in mix.items():
        place -= weight
        if place < 0:
            return name
    raise AssertionError("nobody is outside of a mix")


@st.composite
def worlds(draw: st.DrawFn, *, apart: bool = True) -> World:
    """Random plans without gates, populations, some of which no stage names, and people."""
    groups = draw(populations())
    named = tuple(groups)[: draw(st.integers(1, len(groups)))]
    plan = check_plan(draw(plan_documents(named, apart=apart, gated=False)))
    some = st.sampled_from(((), (), tuple(groups)[:1], tuple(groups)[:2], tuple(groups)[-2:]))
    generation = draw(st.sampled_from(("v3", "v3", "v3", "v2")))
    return World(plan, groups, draw(st.integers(0, 2**32)), generation, *(tuple(sorted(draw(some))) for _ in range(2)))


# -- actions -------------------------------------------------------------------------------------------------

Step = tuple[str, int, int]
"""An action, and two numbers that choose what it is about."""

WIDENING = ("start", "start to", "advance", "advance to", "restore", "lift")
NARROWING = ("retreat", "retreat to", "block", "block two", "to stage", "to population", "block and to", "from all")
NEUTRAL = ("shorten", "lengthen")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("advance", "advance", "start", "restore", "lift", *WIDENING, *NARROWING, *NEUTRAL)),
        st.integers(0, 7),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=10,
).map(lambda steps: [("start", 0, 0), *steps])


def _act(release: Release, step: Step, names: Sequence[str]) -> Release:
    action, one, two = step
    plan = release.plan
    stage, later = plan.stages[one % len(plan.stages)].name, plan.stages[-1 - two % len(plan.stages)].name
    name, other = names[one % len(names)], names[two % len(names)]
    now = release.since + 1_000_000
    shorter = replace(plan, stages=plan.stages[: max(1, release.position)])
    done: dict[str, Callable[[], Release]] = {
        "start": lambda: actions.start(release, None, now=now, actor="ada"),
        "start to": lambda: actions.start(release, stage, now=now, actor="ada"),
        "advance": lambda: actions.advance(release, None, now=now, actor="ada"),
        "advance to": lambda: actions.advance(release, later, now=now, actor="ada"),
        "retreat": lambda: actions.retreat(release, None, now=now),
        "retreat to": lambda: actions.retreat(release, stage, now=now),
        "block": lambda: actions.unrelease(release, [name], None, now=now),
        "block two": lambda: actions.unrelease(release, [name, other], None, now=now),
        "to stage": lambda: actions.unrelease(release, [], stage, now=now),
        "to population": lambda: actions.unrelease(release, [], name, now=now),
        "block and to": lambda: actions.unrelease(release, [name], other, now=now),
        "from all": lambda: actions.unrelease(release, [], None, now=now),
        "restore": lambda: actions.restore(release, name),
        "lift": lambda: actions.restore(release, (*release.only, *release.blocks, name)[0]),
        "shorten": lambda: actions.plan(release, shorter, now),
        "lengthen": lambda: actions.plan(release, replace(plan, description=f"{plan.description}."), now),
    }
    return done[action]()


def act(release: Release, step: Step, names: Sequence[str]) -> Release | None:
    """The release after an action; None where it was refused."""
    try:
        return _act(release, step, names)
    except FlagrelayError:
        return None


def walk(world: World, steps: Sequence[Step]) -> list[tuple[str, Release, Release]]:
    """The actions that were taken, each with the release before and after."""
    release = world.planned
    taken = []
    for step in steps:
        after = act(release, step, tuple(world.populations))
        if after is not None:
            taken.append((step[0], release, after))
            release = after
    return taken


def standing(world: World, steps: Sequence[Step]) -> Release:
    """Where the actions lead to."""
    taken = walk(world, steps)
    return taken[-1][2] if taken else world.planned
