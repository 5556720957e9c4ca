"""A flag with a release, in a store: what the tests of `store` and `control` share."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from flagrelay.control.operation import Operation, perform
from flagrelay.control.session import Session
from flagrelay.errors import FlagrelayError
from flagrelay.flags.change import Definition
from flagrelay.release import actions
from flagrelay.release.compiler import compile_release
from flagrelay.release.plan import check_plan
from flagrelay.release.standing import Release
from flagrelay.store.connection import Store
from flagrelay.store.reading import FlagEntry, ReleaseEntry, read_flag_release
from flagrelay.store.releases import write_release
from flagrelay.store.writing import Draft, Written, write_change
from support.stores import ENVIRONMENT, everything

KEY = "checkout"
VARIANTS: dict[str, Any] = {"on": {"n": 1.0}, "off": {"n": []}, "red": {"n": "#f00"}}
POPULATIONS = {
    "dev": {"in": [{"var": "targetingKey"}, ["d1", "d2"]]},
    "beta": {"==": [{"var": "plan"}, "beta"]},
    "eu": {"==": [{"var": "region"}, "eu"]},
}
DOCUMENT: dict[str, Any] = {
    "flag": KEY,
    "variants": VARIANTS,
    "released": "on",
    "baseline": "off",
    "stages": [{"population": "dev"}, {"population": "beta", "percent": 50}, {"percent": 10}, {"percent": 100}],
}
PLAN = check_plan(DOCUMENT)
BASE: Definition = {"variants": VARIANTS, "metadata": {"n": 1.0}}


def original(flag: FlagEntry | None) -> Definition:
    """What a flag is, but for a kill."""
    if flag is None:
        return BASE
    return flag.killed.original if flag.killed else flag.definition


def served(held: Definition, kill: str | None) -> Definition:
    """What a killed flag serves, given what it is and the variant that the kill names."""
    if kill is None or kill not in held["variants"]:
        return {**held, "state": "DISABLED"}
    pinned = {**held, "state": "ENABLED", "defaultVariant": kill}
    return pinned | {"targeting": {}} if "targeting" in held else pinned


async def write(
    store: Store,
    release: Release,
    read: tuple[FlagEntry | None, ReleaseEntry | None] | None = None,
    *,
    action: str = "advance",
    flag: Definition | None = None,
    expected: tuple[int, int] | None = None,
    detail: Mapping[str, Any] | None = None,
    urgent: bool = False,
) -> Written:
    """Write a release as it stands from now on; over what was read, or else over what there is."""
    held, entry = read or await read_flag_release(store, ENVIRONMENT, release.flag)
    return await write_release(
        store,
        ENVIRONMENT,
        release,
        flag if flag is not None else compile_release(release, original(held)),
        expected=expected or (held.revision if held else 0, entry.revision if entry else 0),
        action=action,
        detail=detail or {},
        actor="ada",
        reason="why",
        urgent=urgent,
    )


async def populate(store: Store, **rules: Any) -> Written:
    """The populations that plans here name."""
    return await write_change(store, ENVIRONMENT, Draft(evaluators=POPULATIONS | rules, actor="ada"))


async def planned(store: Store) -> Release:
    """A flag with a plan, and not started: at revision 2, of an environment that was empty."""
    await populate(store)
    release = actions.plan(None, PLAN, 0)
    await write(store, release, action="plan")
    return release


async def started(store: Store, position: int = 1) -> Release:
    """The same, at a stage: at revision 3."""
    stage = PLAN.stages[position - 1].name
    release = actions.start(await planned(store), stage, now=0, actor="ada")
    await write(store, release, action="start")
    return release


async def held(store: Store) -> tuple[FlagEntry, ReleaseEntry]:
    """The flag and its release, which there are."""
    flag, entry = await read_flag_release(store, ENVIRONMENT, KEY)
    assert flag
    assert entry
    return flag, entry


async def do(
    store: Store,
    operation: Operation[Any, Any],
    actor: str = "ada",
    contexts: Iterable[Mapping[str, Any]] = (),
    **members: Any,
) -> Any:
    """Do an operation, as somebody; with these contexts for those of open streams."""
    return await perform(Session(store, ENVIRONMENT, actor, contexts=lambda: contexts), operation, **members)


async def unchanged(
    store: Store, error: type[FlagrelayError], match: str, operation: Operation[Any, Any], **members: Any
) -> None:
    """An operation that is refused, and leaves every key byte for byte as it was."""
    before = await everything(store)
    with pytest.raises(error, match=match):
        await do(store, operation, **members)
    assert await everything(store) == before


async def aged(store: Store, seconds: int) -> None:
    """Make it so much longer ago that the release reached its stage."""
    flag, entry = await held(store)
    older = replace(entry.release, since=entry.release.since - seconds * 1_000_000)
    await write(store, older, flag=original(flag), action="test")


HOSTILE = "[bold]a[/bold] \u202e\u2028"
"""A name that is allowed, and that no terminal should be told as it is."""


def quiet(text: str) -> bool:
    """Whether a text, but for its line breaks and tabs, can only be seen."""
    return all(c.isprintable() or c in "\n\t" for c in text)
