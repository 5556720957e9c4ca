"""Whole flag sets, as flagd files: export, import."""

from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct

from flagrelay.control.answers import AnyReason, Change, Killed, Request, change_of, killed_of, unchanged_at
from flagrelay.control.flags import check_revision, refuse_killed
from flagrelay.control.importing import Plan, plan_import, written_over
from flagrelay.control.populations import users_of, withheld_from
from flagrelay.control.session import Session
from flagrelay.errors import Conflict, PopulationUsed, PopulationWithheld, Released
from flagrelay.flags.definition import check_flag_set
from flagrelay.store.reading import State, read_state
from flagrelay.store.writing import write_change

PRUNE_TRIES = 20
"""How often an import looks anew who uses the populations that it deletes, because somebody has written meanwhile."""

SCHEMA = "https://flagd.dev/schema/v0/flags.json"

Document = Annotated[dict[str, Any], Meta(description="A flagd flag set: flags, $evaluators, metadata")]


class ExportFlagSet(Request, kw_only=True):
    """How killed flags are wanted: as they are served, or with `originals` as they were before."""

    originals: bool = False


class Exported(Struct, kw_only=True):
    """The whole environment as a flagd flag set, which an import takes back; and which of its flags are killed."""

    document: dict[str, Any]
    killed: dict[str, Killed]


class ImportFlagSet(Request, kw_only=True):
    """A flagd flag set.

    `prune` deletes the flags and populations that it lacks, `force` ends the kills of flags that it has otherwise, or
    that it lacks. With `dry_run` nothing is written, and the answer says what would be.
    """

    document: Document
    prune: bool = False
    dry_run: bool = False
    force: bool = False
    reason: AnyReason = ""


class Imported(Struct, kw_only=True):
    """What an import changed, or would change; `change` is null for a dry run."""

    change: Change | None
    added: list[str]
    replaced: list[str]
    deleted: list[str]
    populations: list[str]
    metadata: bool
    unchanged: int


async def export_flag_set(session: Session, request: ExportFlagSet) -> Exported:
    """Export the whole environment as a flagd flag set."""
    state = await read_state(session.store, session.environment)
    document: dict[str, Any] = {"$schema": SCHEMA, "flags": {}}
    killed = {}
    for key, entry in sorted(state.flags.items()):
        document["flags"][key] = entry.killed.original if entry.killed and request.originals else entry.definition
        kill = killed_of(entry.killed)
        if kill:
            killed[key] = kill
    if state.evaluators:
        document["$evaluators"] = {name: rule for name, (_, rule) in sorted(state.evaluators.items())}
    if state.metadata:
        document["metadata"] = dict(state.metadata)
    return Exported(document=document, killed=killed)


async def import_flag_set(session: Session, request: ImportFlagSet) -> Imported:
    """Write a whole flagd flag set as one change: all of it, or nothing."""
    store, environment = session.store, session.environment
    state = await read_state(store, environment)
    wanted = check_flag_set(request.document, () if request.prune else state.evaluators)
    plan = plan_import(state, wanted, prune=request.prune)
    released = plan.flags.keys() & state.releases.keys()
    if released:  # the write would be refused: a dry run is to say so too
        raise Released(environment, min(released))
    refuse_killed([state.flags[key] for key in plan.flags if key in state.flags], force=request.force)
    if not request.force:
        _refuse_withheld(state, plan)
    _refuse_used(state, plan)
    if request.dry_run:
        return _imported(plan, None)
    change = unchanged_at(state.position) if plan.empty else await _write(session, request, plan, state)
    return _imported(plan, change)


async def _write(session: Session, request: ImportFlagSet, plan: Plan, state: State) -> Change:
    """Write an import. Nobody may come to name a population unseen that it deletes."""
    deletes = None in plan.evaluators.values()
    for last in reversed(range(PRUNE_TRIES if deletes else 1)):
        expected = state.position.revision if deletes else None
        draft = plan.draft(action="import", expected=expected, actor=session.actor, reason=request.reason)
        try:
            return change_of(await session.write(partial(write_change, environment=session.environment, draft=draft)))
        except Conflict:
            if last == 0:
                raise
            state = await read_state(session.store, session.environment)
            _refuse_moved(state, plan)
            _refuse_used(state, plan)
    raise RuntimeError("the last try returns or raises")


def _refuse_moved(state: State, plan: Plan) -> None:
    """Refuse what was planned from what somebody has written since.

    Raises:
        Conflict: it was.
    """
    for key, revision in plan.flag_revisions.items():
        check_revision(f'flag "{key}"', revision, state.flags[key].revision if key in state.flags else 0)
    for name, revision in plan.evaluator_revisions.items():
        check_revision(f'population "{name}"', revision, state.evaluators.get(name, (0, None))[0])


def _refuse_used(state: State, plan: Plan) -> None:
    """Refuse to delete populations that flags and releases name once all is written.

    Raises:
        PopulationUsed: one of them is.
    """
    users = users_of(written_over(state, plan.flags)) if None in plan.evaluators.values() else {}
    for name, rule in plan.evaluators.items():
        if rule is None and name in users:
            raise PopulationUsed(name, users[name])


def _refuse_withheld(state: State, plan: Plan) -> None:
    """Refuse to give a flag back to people by an edit of the population from which it was taken.

    Raises:
        PopulationWithheld: it would.
    """
    for name, rule in plan.evaluators.items():
        if rule is not None and (why := withheld_from(state, name, rule)):
            raise PopulationWithheld(name, why)


def _imported(plan: Plan, change: Change | None) -> Imported:
    there = {key for key, revision in plan.flag_revisions.items() if revision}
    return Imported(
        change=change,
        added=sorted(plan.flags.keys() - there),
        replaced=sorted(key for key in there if plan.flags[key] is not None),
        deleted=sorted(key for key in there if plan.flags[key] is None),
        populations=sorted(plan.evaluators),
        metadata=plan.metadata is not None,
        unchanged=plan.unchanged,
    )
