"""Doing an operation that changes something: said at once, then proven, with one exit status for both."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click

from flagrelay.cli.output import one_line, print_json
from flagrelay.cli.proof import end_with, show_proof
from flagrelay.cli.target import Perform, Target
from flagrelay.control.answers import Change, written_of
from flagrelay.control.operation import Operation
from flagrelay.control.proof import Proof
from flagrelay.control.relays import reports_of
from flagrelay.control.table import LIST_RELAYS
from flagrelay.store.reports import Reports


def change(
    target: Target, operation: Operation[Any, Any], what: str, *, verb: str, wait: float, as_json: bool, **members: Any
) -> None:
    """Do an operation whose answer is a change: say what is so now, and then which relays have it.

    Args:
        target: where.
        operation: what.
        what: what is so once it is written, as in `flag "x" is killed`.
        verb: what relays have done with it, as in `killed in 38 ms`.
        wait: seconds, as `wait_option` gave them; 0 for no proof.
        as_json: whether to print one JSON document, with the proof as its member `proof`, rather than sentences.
        members: of the request.

    Raises:
        FlagrelayError: it was not written.
    """

    async def run(perform: Perform) -> tuple[Change, Proof | None]:
        made: Change = await perform(operation, **members)
        if not as_json:
            say(made, what)
        unproven, flag = partial(members_of, made, None), members.get("key")
        proven = prove_change(perform, made, verb=verb, wait=wait, as_json=as_json, unproven=unproven, flag=flag)
        return made, await proven

    made, proof = target.run(run)
    if as_json:
        print_json(members_of(made, proof))
    end_with(proof)


async def prove_change(
    perform: Perform,
    made: Change | None,
    *,
    verb: str,
    wait: float,
    as_json: bool,
    unproven: Callable[[], Mapping[str, Any]],
    flag: str | None = None,
) -> Proof | None:
    """Wait until every relay has a change, and say so; None where that is not wanted, or there is none.

    It is written by then: scripts whose wait is ended by Ctrl-C get what is `unproven` all the same. With `flag`, the
    one that the change touches, kills of relays' own of other flags say nothing.
    """
    if not wait or made is None:
        return None

    async def read() -> Reports:
        return reports_of(await perform(LIST_RELAYS))

    try:
        return await show_proof(read, written_of(made), within=wait, verb=verb, as_json=as_json, flag=flag)
    except asyncio.CancelledError:
        if as_json:
            print_json(unproven())
        raise


def say(made: Change, what: str) -> None:
    """That something was written, and at which revision."""
    what = one_line(what)
    if made.changed:
        click.echo(f"{what} (revision {made.revision})")
    else:
        click.echo(f"{what} already; nothing was changed (revision {made.revision})")


def members_of(made: Change | None, proof: Proof | None) -> dict[str, Any]:
    """What scripts get of a write; `revision` is null where nothing was to be written."""
    members: dict[str, Any] = {
        "revision": made.revision if made else None,
        "epoch": made.epoch if made else None,
        "at": made.at if made else None,
        "changed": made is not None and made.changed,
    }
    return {**members, "proof": proof.as_json()} if proof else members
