"""What is known of who touched flags and populations last, read from history.

Everything here goes back in time: the newest entry comes first.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flagrelay.control.populations import named_by
from flagrelay.control.session import Session
from flagrelay.flags.definition import FlagSet
from flagrelay.release.standing import DARK
from flagrelay.store.history import HistoryEntry, read_actions, read_history
from flagrelay.store.reading import State

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


@dataclass(frozen=True, slots=True)
class Edits:
    """What is known of the newest edits of flags, or of populations.

    Args:
        newest: the newest edit of each, as far back as history goes; of flags that are no more, too.
        by_hand: those of them that somebody made by hand after files had been applied.
        doubtful: those of them that were made by hand, and nobody knows whether that was after files.
    """

    newest: Mapping[str, HistoryEntry] = field(default_factory=dict)
    by_hand: Mapping[str, HistoryEntry] = field(default_factory=dict)
    doubtful: Mapping[str, HistoryEntry] = field(default_factory=dict)

    def decided(self, name: str) -> bool:
        """Whether files decided last; what they agreed to counts as well."""
        entry = self.newest.get(name)
        return entry is not None and entry.action in OURS


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of who touched what last.

    Args:
        taken: the action that took a flag away, where nothing has given it back, or written it, since.
        flags: the edits of flags.
        populations: the edits of populations.
    """

    taken: Mapping[str, HistoryEntry] = field(default_factory=dict)
    flags: Edits = field(default_factory=Edits)
    populations: Edits = field(default_factory=Edits)


async def read_past(session: Session, state: State, wanted: FlagSet, changed: Collection[str], *, prune: bool) -> Past:
    """Read who touched last what a file names, and the flags that name a population which it changes.

    Args:
        session: whose history.
        state: the environment, as it was read; what was done since is left out.
        wanted: the file.
        changed: the populations that it changes.
        prune: whether what the file lacks is to go: then of all flags that are no more.
    """
    there = state.flags.keys() if prune else state.flags.keys() & wanted.flags.keys()
    naming = {key for key, entry in state.flags.items() if changed and not named_by(entry).isdisjoint(changed)}
    flags = _Trail(
        {key: state.flags[key].revision for key in there | naming},
        gone=wanted.flags.keys() - state.flags.keys(),
        all_gone=prune,
    )
    names = state.evaluators.keys() if prune else state.evaluators.keys() & wanted.evaluators.keys()
    populations = _Trail({name: state.evaluators[name][0] for name in names})
    await _go_back(session, state, flags, populations)
    return Past(await _read_taken(session, state, there | naming, flags.newest), flags.edits, populations.edits)


class _Trail:
    """The newest edit of each of some things, until it is known of all whether it was by hand, after files.

    Args:
        there: those that there are, with the revision that last changed each.
        gone: those that are no more.
        all_gone: whether everything else that is no more is wanted, too, whatever it was.
    """

    def __init__(self, there: Mapping[str, int], *, gone: Collection[str] = (), all_gone: bool = False) -> None:
        self._unknown = {*there, *gone}
        self._at: dict[int, list[str]] = {}
        for name, revision in there.items():
            self._at.setdefault(revision, []).append(name)
        self._all_gone = all_gone
        self._unsure: dict[str, HistoryEntry] = {}
        self._by_hand: dict[str, HistoryEntry] = {}
        self.newest: dict[str, HistoryEntry] = {}

    @property
    def settled(self) -> bool:
        return not (self._unknown or self._unsure or self._all_gone)

    def see(self, entry: HistoryEntry, touched: Collection[str], deleted: Collection[str] = ()) -> None:
        """The next older entry."""
        if entry.action in NEUTRAL:
            return
        if entry.action in OURS:
            self._by_hand |= self._unsure
            self._unsure.clear()
        found = self._unknown.intersection(touched)
        if entry.left_out:  # more than it names; those are known by their revision
            found |= self._unknown.intersection(self._at.get(entry.revision, ()))
        self._unknown -= found
        edited = dict.fromkeys(found, entry)
        if self._all_gone:
            edited |= {name: entry for name in deleted if name not in self.newest}
        self.newest |= edited
        if entry.action in BY_HAND:
            self._unsure |= dict.fromkeys(found, entry)

    def end(self, *, whole: bool) -> None:
        """There is no older one; `whole`: there never was."""
        if whole:
            self._unsure.clear()

    @property
    def edits(self) -> Edits:
        return Edits(self.newest, self._by_hand, self._unsure)


async def _go_back(session: Session, state: State, flags: _Trail, populations: _Trail) -> None:
    """Go back in history, as far as is needed to know who edited what, or as it goes."""
    if flags.settled and populations.settled:
        return
    oldest = state.position.revision
    async for entry in read_history(session.store, session.environment):
        if entry.revision <= state.position.revision:
            flags.see(entry, entry.flags, entry.deleted)
            populations.see(entry, entry.populations)
        oldest = min(oldest, entry.revision)
        if flags.settled and populations.settled:
            return
    for trail in (flags, populations):
        trail.end(whole=oldest <= 1)


async def _read_taken(
    session: Session, state: State, keys: Collection[str], newest: Mapping[str, HistoryEntry]
) -> dict[str, HistoryEntry]:
    """The actions that took flags away, of those that nothing has given back, or written otherwise, since."""
    decided = {key: entry.revision for key, entry in newest.items() if entry.action in OURS}
    taken: dict[str, HistoryEntry] = {}
    left = {key for key in keys if decided.get(key, -1) < state.flags[key].revision}
    seen, restored = set[str](), dict[str, set[str]]()
    if not left:
        return taken
    async for entry in read_actions(session.store, session.environment):
        for key in left.intersection(entry.flags):
            if entry.revision > state.position.revision:
                continue
            written = key not in seen and entry.revision != state.flags[key].revision
            if written or entry.revision <= decided.get(key, -1):
                left.discard(key)
                continue
            seen.add(key)
            taking = takes(entry, restored.setdefault(key, set()))
            if taking is not None:
                left.discard(key)
            if taking:
                taken[key] = entry
        if not left:
            break
    return taken


def takes(entry: HistoryEntry, restored: set[str]) -> bool | None:
    """Whether an action on a release takes something away; None where it is neutral.

    `restored` are the populations to which later actions gave it back, and nothing more than that; this adds to them.
    """
    detail = entry.detail or {}
    if entry.action == "restore":
        restored.add(str(detail.get("population")))
        return None
    if entry.action == "unrelease" and _is_given_back(detail, restored):
        return None
    withheld = bool(detail.get("blocks") or detail.get("only")) or detail.get("from_stage") == DARK
    if entry.action in NEUTRAL:
        return True if entry.action == "detach" and withheld else None
    return entry.action in TAKING


def _is_given_back(detail: Mapping[str, object], restored: Collection[str]) -> bool:
    """Whether all that an un-release took away was given back since. Of a stage that it left, nobody knows."""
    blocked, to = detail.get("from"), detail.get("to")
    names = [*(blocked if isinstance(blocked, list) else ()), *(() if to is None else (to,))]
    return bool(names) and detail.get("stage") == detail.get("from_stage") and all(name in restored for name in names)
