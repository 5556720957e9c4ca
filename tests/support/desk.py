"""Operations on an environment, as people and pipelines do them."""

from dataclasses import dataclass
from typing import Any

import msgspec

from flagrelay.control import table
from flagrelay.control.flagsets import Imported
from flagrelay.control.holding import Difference
from flagrelay.control.operation import Operation
from flagrelay.control.session import Session
from flagrelay.control.sync import Synced
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_flag_release
from support.stores import ENVIRONMENT

OFF = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
ON = {**OFF, "defaultVariant": "on"}
DISABLED = {**ON, "state": "DISABLED"}
BETA = {**OFF, "targeting": {"if": [{"$ref": "beta"}, "on", "off"]}}
POPULATIONS = {name: {"==": [{"var": "plan"}, name]} for name in ("dev", "beta")}
PLAN = {
    "flag": "x",
    "released": "on",
    "baseline": "off",
    "stages": [{"population": "dev"}, {"population": "beta"}, {"percent": 100}],
}


def flag_set(flags: Any = None, populations: Any = None, **members: Any) -> dict[str, Any]:
    """A file; with the usual populations, unless others are said."""
    return {"flags": flags or {}, "$evaluators": POPULATIONS if populations is None else populations, **members}


def wrote(answer: Synced | Imported) -> bool:
    """Whether a file has changed anything."""
    return answer.change is not None and answer.change.changed


@dataclass
class Desk:
    """Who works on the environment `production`."""

    store: Store

    def session(self, actor: str) -> Session:
        return Session(self.store, ENVIRONMENT, actor)

    async def do(self, operation: Operation[Any, Any], *, actor: str = "ada", **members: Any) -> Any:
        """An operation."""
        return await operation.run(self.session(actor), msgspec.convert(members, operation.request))

    async def sync(self, flags: Any = None, populations: Any = None, **members: Any) -> Synced:
        """A sync of a file, applied; by a pipeline."""
        document = flag_set(flags, populations, **members.pop("more", {}))
        synced: Synced = await self.do(table.SYNC, actor="ci", **{"document": document, "apply": True, **members})
        return synced

    async def put(self, key: str, definition: Any, *, force: bool = False, reason: str = "") -> None:
        await self.do(table.PUT_FLAG, key=key, definition=definition, force=force, reason=reason)

    async def release(self, *steps: Any) -> None:
        """The usual plan, stored; and actions, each with the members that it takes."""
        await self.do(table.PLAN, key="x", plan=PLAN)
        for step in steps:
            await self.act(*step if isinstance(step, tuple) else (step,))

    async def act(self, operation: Operation[Any, Any], members: Any = None) -> None:
        """An action on the release of `x`."""
        await self.do(operation, key="x", reason="errors", **(members or {}))

    async def definition(self, key: str) -> Any:
        """How a flag is served; None where there is none."""
        entry, _ = await read_flag_release(self.store, ENVIRONMENT, key)
        return entry.definition if entry else None


def only(synced: Synced) -> Difference:
    """The one difference."""
    [difference] = synced.differences
    return difference
