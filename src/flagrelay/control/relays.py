"""Which relays there are, and which of them have a change."""

from typing import Annotated

from msgspec import Meta, Struct, convert

from flagrelay.control.answers import Key, Request, Revision
from flagrelay.control.proof import Standing, prove
from flagrelay.control.session import Session
from flagrelay.errors import RelayMissing
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position
from flagrelay.store.reports import Report, Reports, drop_report, read_reports
from flagrelay.store.writing import Written

MAX_WAIT = 60


class RelayReports(Struct, kw_only=True):
    """What all relays said last, as of `now`; and where the environment stands."""

    environment: str
    epoch: str
    revision: int
    now: int
    reports: list[Report]


class ListRelays(Request):
    """Nothing is asked for but the list."""


class ProveChange(Request, kw_only=True):
    """Which change: its revision and epoch, as the write gave them; and how many seconds to wait for it.

    `flag` is the one that it touches, where it is but one: kills of relays' own of other flags then say nothing.
    """

    revision: Revision
    epoch: Annotated[str, Meta(max_length=64)]
    at: Annotated[int, Meta(ge=0)] = 0
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = 0.0
    flag: Key | None = None


class ProofAnswer(Struct, kw_only=True):
    """Who has a change; `complete` where every relay has. `ms` and `waited` are milliseconds."""

    complete: bool
    ms: float | None
    revision: int
    at: int
    waited: float
    error: str
    relays: list[Standing]


class ForgetRelay(Request, kw_only=True):
    """Which relay is no more."""

    relay: Annotated[str, Meta(min_length=1, max_length=200)]


class Forgotten(Struct, kw_only=True):
    """Which relay is forgotten."""

    relay: str


async def list_relays(session: Session, _request: ListRelays) -> RelayReports:
    """List what each relay reported last."""
    position = await read_position(session.store, session.environment)
    reports = await read_reports(session.store, session.environment)
    where = {"environment": session.environment, "epoch": position.epoch, "revision": position.revision}
    return convert({**where, **reports.as_json()}, RelayReports)


async def prove_change(session: Session, request: ProveChange) -> ProofAnswer:
    """Tell which relays have written a change to their streams; wait for it where that is asked for."""
    written = Written(request.revision, request.at, epoch=request.epoch)

    async def read() -> Reports:
        return await read_reports(session.store, session.environment)

    return convert((await prove(read, written, within=request.wait, flag=request.flag)).as_json(), ProofAnswer)


async def forget_relay(session: Session, request: ForgetRelay) -> Forgotten:
    """Forget a relay that is no more; one that runs reports again by itself."""
    await read_position(session.store, session.environment)

    async def drop(store: Store) -> None:
        # Within the write: a refusal says that nothing was written.
        if not await drop_report(store, session.environment, request.relay):
            raise RelayMissing(session.environment, request.relay)

    await session.write(drop)
    return Forgotten(relay=request.relay)


def reports_of(answer: RelayReports) -> Reports:
    """The reports that an answer tells of."""
    return Reports(answer.now, tuple(answer.reports))
