"""Making an environment what files in Git say, but for what a person has taken away since."""

from functools import partial

from msgspec import Struct

from flagrelay.control.answers import AnyReason, Change, Request, change_of, unchanged_at
from flagrelay.control.flagsets import Document
from flagrelay.control.holding import Agreed, Comparison, Difference
from flagrelay.control.importing import plan_import
from flagrelay.control.past import read_past
from flagrelay.control.session import Session
from flagrelay.errors import Conflict
from flagrelay.flags.definition import check_flag_set
from flagrelay.store.history import note_agreement
from flagrelay.store.reading import read_state
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
    """What differs, and how much of it is held back; `change` is null where it was not to be written.

    `agreed` counts the flags and populations that people wrote, or deleted, last, and that are so in the file, too.
    With `apply`, history says so, and from then on they are the file's.
    """

    change: Change | None
    differences: list[Difference]
    held: int
    agreed: int


async def sync_flag_set(session: Session, request: SyncFlagSet) -> Synced:
    """Make the environment what a file says, but for what a person has taken away since."""
    for last in reversed(range(SYNC_TRIES)):
        comparison = await _compare(session, request)
        if not request.apply:
            return _synced(comparison, None)
        try:
            await _agree(session, request, comparison.agreed, comparison.state.position.revision)
            return _synced(comparison, await _apply(session, request, comparison))
        except Conflict:  # it may be an un-release: what is to be held back is found anew
            if not last:
                raise
    raise RuntimeError("the last try returns or raises")


async def _compare(session: Session, request: SyncFlagSet) -> Comparison:
    state = await read_state(session.store, session.environment)
    wanted = check_flag_set(request.document, () if request.prune else state.evaluators)
    plan = plan_import(state, wanted, prune=request.prune)
    changed = plan.evaluators.keys() & state.evaluators.keys()
    past = await read_past(session, state, wanted, changed, prune=request.prune)
    return Comparison(state, wanted, plan, past, request.prune, request.force)


async def _apply(session: Session, request: SyncFlagSet, comparison: Comparison) -> Change:
    position = comparison.state.position
    if comparison.applied.empty:
        return unchanged_at(position)
    draft = comparison.applied.draft(
        expected=position.revision,
        over_releases=request.force,
        action="sync",
        actor=session.actor,
        reason=request.reason,
    )
    return change_of(await session.write(lambda store: write_change(store, session.environment, draft)))


async def _agree(session: Session, request: SyncFlagSet, agreed: Agreed, revision: int) -> None:
    """Let history say that what people did is what the file says, too, so that it may be otherwise one day."""
    if agreed.count:
        note = partial(
            note_agreement,
            environment=session.environment,
            action="sync",
            flags=agreed.flags,
            populations=agreed.populations,
            deleted=agreed.deleted,
            expected=revision,
            actor=session.actor,
            reason=request.reason,
        )
        await session.write(note)


def _synced(comparison: Comparison, change: Change | None) -> Synced:
    held = sum(each.held for each in comparison.differences)
    return Synced(change=change, differences=comparison.differences, held=held, agreed=comparison.agreed.count)
