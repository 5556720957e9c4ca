"""What a sync holds back, and why: whatever could give again what a person took away. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from msgspec import Struct

from flagrelay.control.flags import moment, told_of_kill
from flagrelay.control.importing import Plan, written_over
from flagrelay.control.past import OURS, TAKING, Edits, Past
from flagrelay.control.populations import named_by, users_of, withheld_from
from flagrelay.flags.definition import FlagSet
from flagrelay.flags.equality import same
from flagrelay.release.population import references
from flagrelay.release.standing import Release
from flagrelay.store.history import HistoryEntry
from flagrelay.store.reading import FlagEntry, State


class Difference(Struct, kw_only=True):
    """What a sync changes, or holds back: `held`; `note` says why, or what it does beside.

    To `keep` is no change: the flag is killed, and what it returns to is what the file has.
    """

    kind: Literal["flag", "population", "metadata"]
    name: str
    what: Literal["add", "replace", "delete", "keep"]
    note: str
    held: bool


@dataclass(frozen=True, slots=True)
class Agreed:
    """What people had written, or deleted, last, and a file has so, too: from then on it is the file's decision."""

    flags: Sequence[str]
    populations: Sequence[str]
    deleted: Sequence[str]

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.flags) + len(self.populations) + len(self.deleted)


@dataclass(frozen=True)
class Comparison:
    """A file beside an environment.

    Args:
        state: the environment.
        wanted: the file.
        plan: what differs.
        past: who touched the flags last.
        prune: whether what the file lacks is to go.
        force: whether what would be held back is wanted in spite of that.
    """

    state: State
    wanted: FlagSet
    plan: Plan
    past: Past
    prune: bool
    force: bool

    @cached_property
    def differences(self) -> list[Difference]:
        """All of it: flags, then populations, then metadata."""
        metadata = Difference(kind="metadata", name="", what="replace", note="", held=False)
        return [*self._flags, *self._populations, *([] if self.plan.metadata is None else [metadata])]

    @cached_property
    def applied(self) -> Plan:
        """What is not held back."""
        held = {kind: {each.name for each in self.differences if each.held and each.kind == kind} for kind in _NAMED}
        return self.plan.without(held["flag"], held["population"])

    @cached_property
    def agreed(self) -> Agreed:
        """What the file has as it is here, though its last editor was a person, as far as is known.

        A flag that is deleted is the file's only where the file lacks it and says all that is wanted.
        """
        flags = [key for key in self.wanted.flags if self._is_equal(key) and not self.past.flags.decided(key)]
        populations = [
            name
            for name in self.wanted.evaluators
            if name not in self.plan.evaluators and not self.past.populations.decided(name)
        ]
        deleted = [key for key in self.past.flags.newest if self.prune and self._is_gone(key)]
        return Agreed(sorted(flags), sorted(populations), sorted(deleted))

    def _is_equal(self, key: str) -> bool:
        """Whether a flag is what the file has, but for a kill. With a release, where that stands decides."""
        if key in self.plan.flags or key in self.state.releases:
            return False
        killed = self.state.flags[key].killed
        return killed is None or same(killed.original, self.wanted.flags[key])

    def _is_gone(self, key: str) -> bool:
        """Whether somebody deleted a flag, and the file lacks it."""
        there = key in self.state.flags or key in self.wanted.flags
        return not there and not self.past.flags.decided(key) and key in self.past.flags.newest[key].deleted

    @cached_property
    def _flags(self) -> list[Difference]:
        return sorted([*map(self._flag, self.plan.flags), *self._kept()], key=lambda each: each.name)

    @cached_property
    def _populations(self) -> list[Difference]:
        return [self._population(name) for name in sorted(self.plan.evaluators)]

    @cached_property
    def _reasons(self) -> tuple[dict[str, str], dict[str, str]]:
        """What stands against flags, and what against populations.

        A population that is held back holds the flags that would name it, and a flag that is held back populations
        that it names: from one round to the next there are more of them, until nothing comes of it any more.
        """
        flags: dict[str, str] = {}
        populations: dict[str, str] = {}
        while True:
            rules = {} if self.force else populations
            more = {key: why for key in self.plan.flags if (why := self._why_not(key) or self._names_held(key, rules))}
            decided = {*self.agreed.flags, *self.plan.flags} - (set() if self.force else more.keys())
            others = {name: why for name in self.plan.evaluators if (why := self._why_not_population(name, decided))}
            if (more, others) == (flags, populations):
                return flags, populations
            flags, populations = more, others

    def _names_held(self, key: str, held: Collection[str]) -> str:
        """That a flag would name a population that stays another than in the file."""
        wanted = self.plan.flags[key]
        if wanted is None or wanted["state"] == "DISABLED":
            return ""
        named = [name for name in sorted(references(wanted.get("targeting"))) if name in held]
        return f'it names population "{named[0]}", which is held back' if named else ""

    def _flag(self, key: str) -> Difference:
        there, goes = key in self.state.flags, self.plan.flags[key] is None
        why = self._reasons[0].get(key, "")
        return Difference(
            kind="flag",
            name=key,
            what="delete" if goes else "replace" if there else "add",
            note=self._note(why) or ("" if goes or not there else self._undone(key)),
            held=bool(why) and not self.force,
        )

    def _population(self, name: str) -> Difference:
        there, goes = name in self.state.evaluators, self.plan.evaluators[name] is None
        users = self._users.get(name, []) if goes else []
        why = self._reasons[1].get(name, "")
        return Difference(
            kind="population",
            name=name,
            what="delete" if goes else "replace" if there else "add",
            note=f"it is used by {', '.join(users)}" if users else self._note(why),
            held=bool(users) or (bool(why) and not self.force),
        )

    def _note(self, why: str) -> str:
        return f"forced, though {why}" if why and self.force else why

    def _kept(self) -> Iterator[Difference]:
        for key, flag in self.wanted.flags.items():
            entry = self.state.flags.get(key)
            if key not in self.plan.flags and entry and entry.killed and not same(entry.definition, flag):
                note = f"it stays {told_of_kill(entry.killed)}"
                yield Difference(kind="flag", name=key, what="keep", note=note, held=False)

    def _why_not(self, key: str) -> str:
        """What stands against a flag's difference; empty where nothing does."""
        entry, wanted = self.state.flags.get(key), self.plan.flags[key]
        release = self.state.releases.get(key)
        if entry and entry.killed:
            return f"it is {told_of_kill(entry.killed)}"
        if release:
            taken = f"; {self._taken(key)}" if key in self.past.taken else ""
            return f"it has a release, {_stands(release.release)}{taken}"
        if wanted is None:
            return self._edited(key)
        return "" if wanted["state"] == "DISABLED" else self._why_not_given(key)  # where it gives nobody anything

    def _why_not_given(self, key: str) -> str:
        """What stands against that a flag, which is as good as anybody's, is given to whom the file says."""
        entry = self.state.flags.get(key)
        if entry is None:
            last = self.past.flags.newest.get(key)
            deleted = last and key in last.deleted and last.action not in OURS
            return f"it was deleted {_by(last)}" if last and deleted else ""
        if key in self.past.taken:
            return self._taken(key)
        return self._switched_off(entry) or self._edited(key)

    def _switched_off(self, entry: FlagEntry) -> str:
        if entry.definition.get("state") != "DISABLED" or self.past.flags.decided(entry.key):
            return ""
        last = self.past.flags.newest.get(entry.key)
        if last is None:
            return "it is switched off, and history does not reach back to who did that"
        return f"it was switched off {_by(last)}"

    def _taken(self, key: str) -> str:
        entry = self.past.taken[key]
        return f"{TAKING[entry.action]} {_by(entry)}"

    def _edited(self, key: str) -> str:
        return _edited(self.past.flags, key)

    def _undone(self, key: str) -> str:
        last = self.past.flags.newest.get(key)
        return "" if last is None or last.action in OURS else f"it was last changed {_by(last)}"

    def _why_not_population(self, name: str, decided: Collection[str]) -> str:
        """What stands against a population's difference: people from whom a flag was taken would be others.

        `decided` are the flags of which the file itself says who has them.
        """
        if name not in self.state.evaluators:
            return ""
        withheld = withheld_from(self.state, name, self.plan.evaluators[name])
        if withheld:
            return withheld
        for key, why in self._narrowed.get(name, ()):
            if key not in decided:
                return f'flag "{key}" names it, and {why}'
        return _edited(self.past.populations, name)

    @cached_property
    def _narrowed(self) -> Mapping[str, list[tuple[str, str]]]:
        """By population: the flags that somebody left to fewer people, or may have, and to whom exactly it decides."""
        found: dict[str, list[tuple[str, str]]] = {}
        edits = self.past.flags
        for key in sorted(self.state.flags.keys() & {*self.past.taken, *edits.by_hand, *edits.doubtful}):
            entry = self.state.flags[key]
            definition = entry.killed.original if entry.killed else entry.definition
            off = definition.get("state") == "DISABLED"
            why = self._taken(key) if key in self.past.taken else "" if off else self._edited(key)
            for name in named_by(entry) if why else ():
                found.setdefault(name, []).append((key, why))
        return found

    @cached_property
    def _users(self) -> Mapping[str, list[str]]:
        """Who names each population once all is applied that is not held back."""
        held = () if self.force else self._reasons[0]
        written = {key: flag for key, flag in self.plan.flags.items() if key not in held}
        return users_of(written_over(self.state, written))


_NAMED = ("flag", "population")


def _stands(release: Release) -> str:
    """Where a release is, and who has nothing of it all the same."""
    withheld = [f"un-released from {', '.join(release.blocks)}"] if release.blocks else []
    withheld += [f"limited to {' and '.join(release.only)}"] if release.only else []
    return ", ".join([f'at stage "{release.stage_name}"', *withheld])


def _edited(edits: Edits, name: str) -> str:
    if name in edits.by_hand:
        return f"it was edited {_by(edits.by_hand[name])}, after files had been applied"
    if name in edits.doubtful:
        said = f"it was edited {_by(edits.doubtful[name])}"
        return f"{said}, and history does not reach back to whether files had been applied before"
    return ""


def _by(entry: HistoryEntry) -> str:
    return f"by {entry.actor or 'unknown'} at {moment(entry.at)} ({entry.reason or 'no reason'})"
