"""The kills that this relay holds by itself: put while Redis could not be told, and there until it has been."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import structlog

from flagrelay.disk.documents import kill_as_json, kill_from_json
from flagrelay.disk.state_dir import StateDir
from flagrelay.errors import Conflict, FlagMissing, LocalKillMissing, StateError, StoreError, StoreUnavailable
from flagrelay.flags.change import Change
from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.reconcile import KillState, Verdict, judge_kill
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_flag, read_position
from flagrelay.store.writing import kill_flag

log = structlog.get_logger()


@dataclass(slots=True)
class Standing:
    """A local kill, where it stands, and why; `seen_at` is where Redis had it, once it has."""

    kill: LocalKill
    state: KillState = KillState.LOCAL
    why: str = "Redis has not been told yet"
    seen_at: Position | None = None

    def as_json(self) -> dict[str, Any]:
        """As another process of the same node takes it over."""
        seen_at = [*self.seen_at] if self.seen_at else None
        return {"kill": kill_as_json(self.kill), "state": self.state.value, "why": self.why, "seen_at": seen_at}

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Self:
        """What another process of the same node holds."""
        seen_at = Position(*members["seen_at"]) if members["seen_at"] else None
        return cls(kill_from_json(members["kill"]), KillState(members["state"]), members["why"], seen_at)


class LocalKills:
    """The local kills of one environment.

    Args:
        store: where they are to be written.
        environment: its name.
        state_dir: where they are kept meanwhile; None for in memory only.
    """

    def __init__(self, store: Store, environment: str, state_dir: StateDir | None) -> None:
        self.held: dict[str, Standing] = {}
        self._store = store
        self._environment = environment
        self._state_dir = state_dir
        self.unkept = False
        """Whether what is held is not what is on disk."""
        self._writing = asyncio.Lock()

    @property
    def states(self) -> Counter[str]:
        """How many stand where."""
        return Counter(standing.state.value for standing in self.held.values())

    @property
    def unsettled(self) -> dict[str, str]:
        """Where each stands that Redis does not have: for those flags this relay does not show what Redis says."""
        held = self.held.items()
        return {key: standing.state.value for key, standing in held if standing.state is not KillState.WRITTEN}

    @property
    def _kills(self) -> dict[str, LocalKill]:
        return {key: standing.kill for key, standing in self.held.items()}

    # -- what this relay shows --------------------------------------------------------------------------------

    def over(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot as this relay shows it: with its own kills on top."""
        return snapshot.with_kills(self._kills) if self.held else snapshot

    def over_change(self, change: Change, snapshot: Snapshot) -> tuple[Change, Snapshot]:
        """A change and the snapshot that it makes, as this relay shows them."""
        if not self.held:
            return change, snapshot
        ended = self.end_written(snapshot.position)
        shown = self.over(snapshot)
        touched = {**change.flags, **dict.fromkeys(ended)}
        return replace(change, flags={key: shown.flags.get(key) for key in touched}), shown

    def end_written(self, position: Position) -> list[str]:
        """End the kills that Redis has, and that this relay has seen in what it follows. Returns the flags' keys."""
        ended = [
            key
            for key, standing in self.held.items()
            if standing.seen_at
            and standing.seen_at.epoch == position.epoch
            and standing.seen_at.revision <= position.revision
        ]
        for key in ended:
            log.info("local kill ended: Redis has it", environment=self._environment, flag=key)
            del self.held[key]
            self.unkept = True
        return ended

    def begin(self, snapshot: Snapshot) -> Snapshot:
        """What this relay shows where a history begins, or was read as a whole."""
        self.end_written(snapshot.position)
        for standing in self.held.values():
            if standing.seen_at and standing.seen_at.epoch != snapshot.position.epoch:
                standing.state, standing.seen_at = KillState.LOCAL, None
        return self.over(snapshot)

    # -- putting and withdrawing ------------------------------------------------------------------------------

    def put(self, kill: LocalKill) -> None:
        """Hold one more, or one in another way."""
        self.held[kill.key] = Standing(kill)
        self.unkept = True
        log.warning("local kill", environment=self._environment, flag=kill.key, to=kill.to, actor=kill.actor)

    def withdraw(self, key: str) -> LocalKill:
        """Hold one no longer.

        Raises:
            LocalKillMissing: there is none.
        """
        standing = self.held.pop(key, None)
        if standing is None:
            raise LocalKillMissing(self._environment, key)
        self.unkept = True
        log.warning("local kill withdrawn", environment=self._environment, flag=key)
        return standing.kill

    def restore(self, kills: Iterable[LocalKill]) -> None:
        """Hold again what was kept on disk."""
        for kill in kills:
            self.put(kill)
        self.unkept = False

    def inherit(self, standings: Iterable[Standing]) -> set[str]:
        """Hold exactly what others hold, whatever was on disk. Returns the flags for which that may be news."""
        before = self.held
        self.held = {standing.kill.key: standing for standing in standings}
        news = before.keys() | self.held.keys()
        self.unkept = bool(news)
        return news

    async def keep(self) -> bool:
        """Write what is held to disk. Returns whether it is there, and outlives this process."""
        async with self._writing:  # in the order in which they happened
            self.unkept = False
            if self._state_dir is None:
                return False
            with suppress(StateError):
                await asyncio.to_thread(self._state_dir.write_kills, self._environment, self._kills.values())
                return True
            self.unkept = True
        return False

    # -- telling Redis ----------------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Tell Redis of each that it can be told of; the others are tried again when this is called again."""
        try:
            await self._reconcile()
        except (StoreUnavailable, StoreError) as error:
            log.debug("local kills cannot be reconciled now", environment=self._environment, reason=str(error))

    async def _reconcile(self) -> None:
        for key, standing in list(self.held.items()):
            if standing.state is not KillState.WRITTEN:
                state, why, seen_at = await self._told(standing.kill)
                if (state, why) != (standing.state, standing.why):
                    about = {"environment": self._environment, "flag": key, "why": why}
                    (log.info if state is KillState.WRITTEN else log.warning)(f"local kill: {state.value}", **about)
                standing.state, standing.why, standing.seen_at = state, why, seen_at

    async def _told(self, kill: LocalKill) -> tuple[KillState, str, Position | None]:
        """Where a kill stands once Redis was asked and, where that is right, told."""
        position = await read_position(self._store, self._environment)
        try:
            entry = await read_flag(self._store, self._environment, kill.key)
        except FlagMissing:
            entry = None
        judgement = judge_kill(kill, position, entry)
        if judgement.verdict is Verdict.CONFLICT or entry is None:
            return KillState.CONFLICT, judgement.why, None
        if judgement.verdict is Verdict.DONE:
            return KillState.WRITTEN, judgement.why, position._replace(revision=entry.revision)
        try:
            written = await kill_flag(
                self._store,
                self._environment,
                kill.key,
                to=kill.to,
                actor=kill.actor,
                reason=kill.reason,
                expected=entry.revision,
            )
        except Conflict:
            return KillState.LOCAL, "somebody changed the flag just now: it is looked at again", None
        except (StoreError, StoreUnavailable) as error:  # it answered a moment ago
            return KillState.REFUSED, str(error), None
        return KillState.WRITTEN, "written to Redis", position._replace(revision=written.revision)
