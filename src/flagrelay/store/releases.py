"""Writing a flag's release: the plan, its position, the flag that it compiles to, and what history says, as one."""

from collections.abc import Mapping
from typing import Any

import orjson

from flagrelay.flags.change import Definition
from flagrelay.flags.definition import MAX_FLAGS, check_flag
from flagrelay.release.standing import Release
from flagrelay.release.states import State
from flagrelay.store.connection import Store
from flagrelay.store.writing import Written, text_as_json, write

ENDS = (State.FINISHED, State.ABANDONED, State.DETACHED)
"""Where a release has ended, and nothing of it is kept beside the flag."""


async def write_release(
    store: Store,
    environment: str,
    release: Release,
    flag: Definition,
    *,
    expected: tuple[int, int],
    action: str,
    detail: Mapping[str, Any],
    actor: str,
    reason: str,
    urgent: bool,
) -> Written:
    """Write a release and its flag as one change, all or nothing. A killed flag stays killed.

    Args:
        store: where it is.
        environment: its name.
        release: how it stands from now on; at one of its ends it is forgotten.
        flag: what it compiles to.
        expected: the revisions at which flag and release were read; 0 where there was none.
        action: what was done, for the history.
        detail: what else the history should know.
        actor: who did it.
        reason: why.
        urgent: whether it must not wait: whatever takes a flag away.

    Raises:
        Conflict: flag or release have been written since.
        PopulationMissing: a population that it names is not there.
        EnvironmentMissing: there is no such environment.
        StoreUnavailable: Redis does not answer; it may have been written.
    """
    document = b"" if release.state in ENDS else orjson.dumps(release.as_json())
    return await write(
        store,
        environment,
        release.flag,
        "release",
        action,
        text_as_json(actor),
        text_as_json(reason),
        orjson.dumps(urgent),
        MAX_FLAGS,
        release.flag,
        *expected,
        orjson.dumps(check_flag(release.flag, flag)),
        document,
        orjson.dumps(detail),
        *(() if release.state in ENDS else release.populations),
    )
