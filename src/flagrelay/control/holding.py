"""What a sync holds back, and why: whatever could give again what a person took away. Pure.

Who touched a flag last is known by its revision: it is that of an entry of the history.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from msgspec import Struct

from flagrelay.control.flags import moment, told_of_kill
from flagrelay.control.importing import Plan
from flagrelay.control.populations import users_of
from flagrelay.flags.definition import FlagSet
from flagrelay.flags.equality import same
from flagrelay.release.population import references
from flagrelay.release.standing import DARK
from flagrelay.store.history import HistoryEntry
from flagrelay.store.reading import FlagEntry, State

OURS = ("sync", "import")
"""What files do. Everything else is somebody's own doing."""

TAKING = {
    "unrelease": "it was un-released",
    "retreat": "its release was taken back a stage",
    "abandon": "its release was abandoned",
    "detach": "its release was detached as it was taken back",
}
"""Actions that take a flag away, as a sentence begins that says so. A kill is seen in the flag itself."""

BY_HAND = ("put", "populations put", "write")
"""Edits of one flag or population. Nobody can tell whether one was made to take something away."""

NEUTRAL = ("plan", "approve", "detach", "kill", "revive")
"""Actions that neither give nor take, or undo each other: what was done before them holds on."""


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
class Past:
    """What is known of who touched flags last.

    Args:
        taken: the action that took a flag away, where nothing has given it back, or written it, since.
        last: the newest change of a flag, as far back as history goes; of one that is no more, too.
        edited: the newest edit of a flag, where somebody made it by hand after files had been applied.
        edited_populations: the same of populations.
    """

    taken: Mapping[str, HistoryEntry] = field(default_factory=dict)
    last: Mapping[str, HistoryEntry] = field(default_factory=dict)
    edited: Mapping[str, HistoryEntry] = field(default_factory=dict)
    edited_populations: Mapping[str, HistoryEntry] = field(default_factory=dict)


def takes(entry: HistoryEntry) -> bool | None:
    """Whether an action on a release takes something away; None where it is neutral."""
    detail = entry.detail or {}
    withheld = bool(detail.get("blocks") or detail.get("only")) or detail.get("from_stage") == DARK
    if entry.action in NEUTRAL:
        return True if entry.action == "detach" and withheld else None
    return entry.action in TAKING


@dataclass(frozen=True)
class Comparison:
    """A file beside an environment.

    Args:
        state: the environment.
        wanted: the file.
        plan: what differs.
        past: who touched the flags last.
        force: whether what would be held back is wanted in spite of that.
    """

    state: State
    wanted: FlagSet
    plan: Plan
    past: Past
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
    def _flags(self) -> list[Difference]:
        return sorted([*map(self._flag, self.plan.flags), *self._kept()], key=lambda each: each.name)

    @cached_property
    def _populations(self) -> list[Difference]:
        return [self._population(name) for name in sorted(self.plan.evaluators)]

    def _flag(self, key: str) -> Difference:
        there, goes = key in self.state.flags, self.plan.flags[key] is None
        why = self._why_not(key)
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
        why = self._why_not_population(name)
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
            return f'it has a release, at stage "{release.release.stage_name}"'
        if wanted is None or wanted["state"] == "DISABLED":  # it gives nobody anything
            return ""
        if entry is None:
            last = self.past.last.get(key)
            deleted = last and key in last.deleted and last.action not in OURS
            return f"it was deleted {_by(last)}" if last and deleted else ""
        if key in self.past.taken:
            return self._taken(key)
        return self._switched_off(entry) or _edited(self.past.edited.get(key))

    def _switched_off(self, entry: FlagEntry) -> str:
        if entry.definition.get("state") != "DISABLED":
            return ""
        last = self.past.last.get(entry.key)
        if last is None:
            return "it is switched off, and history does not reach back to who did that"
        return "" if last.action in OURS else f"it was switched off {_by(last)}"

    def _taken(self, key: str) -> str:
        entry = self.past.taken[key]
        return f"{TAKING[entry.action]} {_by(entry)}"

    def _undone(self, key: str) -> str:
        last = self.past.last.get(key)
        return "" if last is None or last.action in OURS else f"it was last changed {_by(last)}"

    def _why_not_population(self, name: str) -> str:
        """What stands against a population's difference: people from whom a flag was taken would be others."""
        if name not in self.state.evaluators:
            return ""
        for key, held in sorted(self.state.releases.items()):
            if name in held.release.blocks:
                return f'flag "{key}" is un-released from it'
            if name in held.release.only:
                return f'flag "{key}" is limited to it'
        decided = {each.name for each in self._flags if not each.held}  # the file has them off, or not at all
        for key in sorted(self.past.taken.keys() - decided):
            entry = self.state.flags[key]
            if not entry.killed and name in references(entry.definition.get("targeting")):
                return f'flag "{key}" names it, and {self._taken(key)}'
        return _edited(self.past.edited_populations.get(name))

    @cached_property
    def _users(self) -> Mapping[str, list[str]]:
        """Who names each population once all is applied that is not held back."""
        held = {each.name for each in self._flags if each.held}
        written = {key: flag for key, flag in self.plan.flags.items() if key not in held}
        flags = {key: entry for key, entry in self.state.flags.items() if key not in written}
        flags |= {key: FlagEntry(key, 0, flag) for key, flag in written.items() if flag is not None}
        releases = {key: entry for key, entry in self.state.releases.items() if key not in written}
        return users_of(replace(self.state, flags=flags, releases=releases))


_NAMED = ("flag", "population")


def _edited(entry: HistoryEntry | None) -> str:
    return "" if entry is None else f"it was edited {_by(entry)}, after files had been applied"


def _by(entry: HistoryEntry) -> str:
    return f"by {entry.actor or 'unknown'} at {moment(entry.at)} ({entry.reason or 'no reason'})"
