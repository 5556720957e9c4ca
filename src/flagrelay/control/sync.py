"""Making an environment what files in Git say, but for what a person has taken away since."""

from collections.abc import Collection

from msgspec import Struct

from flagrelay.control.answers import AnyReason, Change, Request, change_of
from flagrelay.control.flagsets import Document
from flagrelay.control.holding import BY_HAND, NEUTRAL, OURS, Comparison, Difference, Past, takes
from flagrelay.control.importing import Plan, plan_import
from flagrelay.control.session import Session
from flagrelay.errors import Conflict
from flagrelay.flags.definition import check_flag_set
from flagrelay.release.population import references
from flagrelay.store.history import HistoryEntry, read_actions, read_history
from flagrelay.store.reading import State, read_state
from flagrelay.store.writing import write_change

SYNC_TRIES = 20
"""How often file and environment are compared anew, because somebody has written the environment meanwhile."""


class SyncFlagSet(Request, kw_only=True):
    """A flagd flag set.

    `prune` deletes the flags and populations that it lacks. `force` applies what would be held back, too: it ends kills
    and releases. Without `apply` nothing is written, and the answer says what would be.
    """

    document: Document
    prune: bool = False
    force: bool = False
    apply: bool = False
    reason: AnyReason = ""


class Synced(Struct, kw_only=True):
    """What differs, and how much of it is held back; `change` is null where nothing was written."""

    change: Change | None
    differences: list[Difference]
    held: int


async def sync_flag_set(session: Session, request: SyncFlagSet) -> Synced:
    """Make the environment what a file says, but for what a person has taken away since."""
    for last in reversed(range(SYNC_TRIES)):
        comparison = await _compare(session, request)
        if not request.apply or comparison.applied.empty:
            return _synced(comparison, None)
        try:
            return _synced(comparison, await _apply(session, request, comparison))
        except Conflict:  # it may be an un-release: what is to be held back is found anew
            if not last:
                raise
    raise RuntimeError("the last try returns or raises")


async def _compare(session: Session, request: SyncFlagSet) -> Comparison:
    state = await read_state(session.store, session.environment)
    wanted = check_flag_set(request.document, () if request.prune else state.evaluators)
    plan = plan_import(state, wanted, prune=request.prune, over_kills=request.force)
    return Comparison(state, wanted, plan, await _read_past(session, state, plan), request.force)


async def _apply(session: Session, request: SyncFlagSet, comparison: Comparison) -> Change:
    draft = comparison.applied.draft(
        expected=comparison.state.position.revision,
        over_releases=request.force,
        action="sync",
        actor=session.actor,
        reason=request.reason,
    )
    return change_of(await session.write(lambda store: write_change(store, session.environment, draft)))


async def _read_past(session: Session, state: State, plan: Plan) -> Past:
    changed = plan.evaluators.keys() & state.evaluators.keys()
    naming = {
        key
        for key, entry in state.flags.items()
        if changed and not changed.isdisjoint(references(entry.definition.get("targeting")))
    }
    taken = await _read_taken(session, state, naming | (plan.flags.keys() & state.flags.keys()))
    last = _Last(state, plan.flags.keys())
    flags, populations = _Newest(plan.flags.keys() & state.flags.keys()), _Newest(changed)
    await _go_back(session, state, last, flags, populations)
    return Past(taken, last.found, flags.by_hand, populations.by_hand)


async def _read_taken(session: Session, state: State, keys: Collection[str]) -> dict[str, HistoryEntry]:
    """The actions that took flags away, of those that nothing has given back, or written otherwise, since."""
    taken: dict[str, HistoryEntry] = {}
    left, seen = set(keys), set[str]()
    if not left:
        return taken
    async for entry in read_actions(session.store, session.environment):
        for key in left.intersection(entry.flags):
            if entry.revision > state.position.revision:
                continue
            if key not in seen and entry.revision != state.flags[key].revision:
                left.discard(key)
                continue
            seen.add(key)
            taking = takes(entry)
            if taking is not None:
                left.discard(key)
            if taking:
                taken[key] = entry
        if not left:
            break
    return taken


class _Last:
    """The newest change of each of some flags; of one that is no more, too."""

    def __init__(self, state: State, keys: Collection[str]) -> None:
        self._there: dict[int, list[str]] = {}
        for key in state.flags.keys() & keys:
            self._there.setdefault(state.flags[key].revision, []).append(key)
        self._oldest = min(self._there, default=0)
        self._passed = not self._there
        self._gone = set(keys - state.flags.keys())
        self.found: dict[str, HistoryEntry] = {}

    @property
    def settled(self) -> bool:
        return self._passed and not self._gone

    def see(self, entry: HistoryEntry) -> None:
        """The next older entry."""
        if not entry.flags:  # it may stand at the revision of another one
            return
        touched = [*self._there.get(entry.revision, ()), *self._gone.intersection(entry.flags)]
        self.found |= dict.fromkeys(touched, entry)
        self._gone.difference_update(touched)
        self._passed = self._passed or entry.revision <= self._oldest


class _Newest:
    """The newest edit of each of some things, until it is known of all whether it was by hand, after files."""

    def __init__(self, names: Collection[str]) -> None:
        self._unknown = set(names)
        self._unsure: dict[str, HistoryEntry] = {}
        self.by_hand: dict[str, HistoryEntry] = {}

    @property
    def settled(self) -> bool:
        return not (self._unknown or self._unsure)

    def see(self, entry: HistoryEntry, touched: Collection[str]) -> None:
        """The next older entry."""
        if entry.action in OURS:
            self.by_hand |= self._unsure
            self._unsure.clear()
        found = self._unknown.intersection(touched) if entry.action not in NEUTRAL else set()
        self._unknown -= found
        if entry.action in BY_HAND:
            self._unsure |= dict.fromkeys(found, entry)


async def _go_back(session: Session, state: State, last: _Last, flags: _Newest, populations: _Newest) -> None:
    """Go back in history, as far as is needed to know who touched and who edited what, or as it goes."""
    if last.settled and flags.settled and populations.settled:
        return
    async for entry in read_history(session.store, session.environment):
        if entry.revision <= state.position.revision:
            last.see(entry)
            flags.see(entry, entry.flags)
            populations.see(entry, entry.populations)
        if last.settled and flags.settled and populations.settled:
            return


def _synced(comparison: Comparison, change: Change | None) -> Synced:
    held = sum(each.held for each in comparison.differences)
    return Synced(change=change, differences=comparison.differences, held=held)
