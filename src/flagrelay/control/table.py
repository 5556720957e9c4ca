"""Every operation there is. The routes of the control API, its OpenAPI document and the command line follow from it."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from flagrelay.control import flags, flagsets, history, populations, relays, releases, sync
from flagrelay.control.answers import Change
from flagrelay.control.operation import Operation
from flagrelay.control.planning import PutPlan, put_plan
from flagrelay.control.reach import CountReach, Reach, count_reach
from flagrelay.control.releases import (
    Approve,
    End,
    Finish,
    Restore,
    RetreatTo,
    StepTo,
    Unrelease,
)
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted, ReleaseAnswer
from flagrelay.store.history import HistoryEntry

Run = Callable[[Session, Any], Awaitable[Any]]

OPERATIONS: dict[str, Operation[Any, Any]] = {}
"""All of them, by name."""


def _operation(
    name: str, method: str, path: str, request: type[Struct], answer: object, run: Run, *, counts: bool = False
) -> Operation[Any, Any]:
    """One more of them."""
    made: Operation[Any, Any] = Operation(name, method, path, request, answer, run, counts)
    OPERATIONS[name] = made
    return made


LIST_FLAGS = _operation("flags.list", "GET", "/flags", flags.ListFlags, list[flags.FlagSummary], flags.list_flags)
GET_FLAG = _operation("flags.get", "GET", "/flags/{key}", flags.GetFlag, flags.Flag, flags.get_flag)
PUT_FLAG = _operation("flags.put", "PUT", "/flags/{key}", flags.PutFlag, Change, flags.put_flag)
DELETE_FLAG = _operation("flags.delete", "DELETE", "/flags/{key}", flags.DeleteFlag, Change, flags.delete_flag)
KILL = _operation("flags.kill", "POST", "/flags/{key}/kill", flags.KillFlag, Change, flags.kill)
REVIVE = _operation("flags.revive", "POST", "/flags/{key}/revive", flags.ReviveFlag, Change, flags.revive)

EXPORT = _operation(
    "flagset.export", "GET", "/flag-set", flagsets.ExportFlagSet, flagsets.Exported, flagsets.export_flag_set
)
IMPORT = _operation(
    "flagset.import", "POST", "/flag-set/import", flagsets.ImportFlagSet, flagsets.Imported, flagsets.import_flag_set
)
SYNC = _operation("flagset.sync", "POST", "/flag-set/sync", sync.SyncFlagSet, sync.Synced, sync.sync_flag_set)

LIST_RELEASES = _operation(
    "releases.list", "GET", "/releases", releases.ListReleases, list[ReleaseAnswer], releases.list_releases
)
GET_RELEASE = _operation(
    "releases.get", "GET", "/releases/{key}", releases.GetRelease, ReleaseAnswer, releases.get_release
)
PLAN = _operation("releases.plan", "PUT", "/releases/{key}", PutPlan, Acted, put_plan)
START = _operation("releases.start", "POST", "/releases/{key}/start", StepTo, Acted, releases.start)
ADVANCE = _operation("releases.advance", "POST", "/releases/{key}/advance", StepTo, Acted, releases.advance)
RETREAT = _operation("releases.retreat", "POST", "/releases/{key}/retreat", RetreatTo, Acted, releases.retreat)
UNRELEASE = _operation("releases.unrelease", "POST", "/releases/{key}/unrelease", Unrelease, Acted, releases.unrelease)
RESTORE = _operation("releases.restore", "POST", "/releases/{key}/restore", Restore, Acted, releases.restore)
APPROVE = _operation("releases.approve", "POST", "/releases/{key}/approve", Approve, Acted, releases.approve)
FINISH = _operation("releases.finish", "POST", "/releases/{key}/finish", Finish, Acted, releases.finish)
ABANDON = _operation("releases.abandon", "POST", "/releases/{key}/abandon", End, Acted, releases.abandon)
DETACH = _operation("releases.detach", "POST", "/releases/{key}/detach", End, Acted, releases.detach)
REACH = _operation("releases.reach", "POST", "/releases/{key}/reach", CountReach, Reach, count_reach, counts=True)
RELEASE_HISTORY = _operation(
    "releases.history",
    "GET",
    "/release-history/{key}",
    history.GetReleaseHistory,
    list[HistoryEntry],
    history.get_release_history,
)

LIST_POPULATIONS = _operation(
    "populations.list",
    "GET",
    "/populations",
    populations.ListPopulations,
    list[populations.Population],
    populations.list_populations,
)
GET_POPULATION = _operation(
    "populations.get",
    "GET",
    "/populations/{name}",
    populations.GetPopulation,
    populations.WholePopulation,
    populations.get_population,
)
PUT_POPULATION = _operation(
    "populations.put",
    "PUT",
    "/populations/{name}",
    populations.PutPopulation,
    Change,
    populations.put_population,
)
DELETE_POPULATION = _operation(
    "populations.delete",
    "DELETE",
    "/populations/{name}",
    populations.DeletePopulation,
    Change,
    populations.delete_population,
)
MEMBERS = _operation(
    "populations.members",
    "POST",
    "/populations/{name}/members",
    populations.CountMembers,
    populations.Members,
    populations.count_members,
    counts=True,
)

HISTORY = _operation("history.list", "GET", "/history", history.GetHistory, list[HistoryEntry], history.get_history)

LIST_RELAYS = _operation("relays.list", "GET", "/relays", relays.ListRelays, relays.RelayReports, relays.list_relays)
PROVE = _operation("relays.proof", "GET", "/proof", relays.ProveChange, relays.ProofAnswer, relays.prove_change)
FORGET_RELAY = _operation(
    "relays.forget", "DELETE", "/relays/{relay}", relays.ForgetRelay, relays.Forgotten, relays.forget_relay
)
