"""`flagrelay sync`: make an environment what files in Git say, but for what a person has taken away since."""

from functools import partial
from typing import Any

import click

from flagrelay.cli.acting import members_of, prove_change
from flagrelay.cli.flag_files import read_flag_files
from flagrelay.cli.options import json_option, who_options
from flagrelay.cli.output import one_line, print_json, print_table
from flagrelay.cli.proof import end_with, wait_option
from flagrelay.cli.target import Perform, Target, target_options
from flagrelay.control.holding import Difference
from flagrelay.control.proof import Proof
from flagrelay.control.sync import Synced
from flagrelay.control.table import SYNC

HELD_BACK = 4
"""Exit status where something is held back: a person must look at it."""

COLUMNS = ("WHAT", "KIND", "NAME", "NOTE")


@click.command(
    epilog='Example: flagrelay sync flags/ --env production --prune --apply --reason "$(git rev-parse HEAD)"'
)
@click.argument("path", metavar="DIR|FILE")
@click.option("--prune", is_flag=True, help="Delete the flags and populations that the files lack.")
@click.option("--force", is_flag=True, help="Also what is shown as held back: this ends such kills and releases.")
@click.option("--apply", is_flag=True, help="Write it, as one change; else it is only shown.")
@who_options()
@wait_option
@json_option
@target_options(replicas=True)
def sync(
    path: str, prune: bool, force: bool, apply: bool, reason: str, wait: float, as_json: bool, target: Target
) -> None:
    """Show how an environment differs from files, and with --apply, make it what they say.

    Of a DIR, every .json, .yaml and .yml file below it counts, all as one flag set; plans of releases among them are
    left to `flagrelay release plan`. What a person took away is never silently given back: a flag that is killed, has
    a release, was un-released, or was edited by hand since files were applied, is held back, with who did that and
    why, until it is so in the files too, or --force is said.

    Exits with 0 where nothing is held back, and else with 4; or with 3 where it is written, and not every relay has it
    within --wait.
    """
    document, plans = read_flag_files(path)
    for plan in plans:
        click.echo(one_line(f"{plan}: a plan: apply it with `flagrelay release plan`"), err=True)
    members = {"document": document, "prune": prune, "force": force, "apply": apply, "reason": reason}

    async def run(perform: Perform) -> tuple[Synced, Proof | None]:
        synced: Synced = await perform(SYNC, **members)
        if not as_json:
            _show(synced, apply=apply)
        unproven = partial(_json, synced, None)
        return synced, await prove_change(
            perform, synced.change, verb="written", wait=wait, as_json=as_json, unproven=unproven
        )

    synced, proof = target.run(run)
    if as_json:
        print_json(_json(synced, proof))
    end_with(proof)
    if synced.held:
        click.get_current_context().exit(HELD_BACK)


def _json(synced: Synced, proof: Proof | None) -> dict[str, Any]:
    return {**members_of(synced.change, proof), "differences": synced.differences, "held": synced.held}


def _show(synced: Synced, *, apply: bool) -> None:
    """The differences as a table, and what came of them as a sentence."""
    if synced.differences:
        print_table(COLUMNS, [_row(each) for each in synced.differences], empty="")
    changes = sum(not each.held and each.what != "keep" for each in synced.differences)
    held = f"{synced.held} held back (--force applies them, too)" if synced.held else ""
    if synced.change and synced.change.changed:
        click.echo(f"{_and(f'{changes} applied', held)} (revision {synced.change.revision})")
    elif changes and not apply:
        click.echo(f"{_and(f'{changes} to apply', held)}; nothing was written: say --apply")
    else:
        click.echo(f"{held or 'in sync'}; nothing was written{_agreed(synced, apply=apply)}")


def _agreed(synced: Synced, *, apply: bool) -> str:
    """That the files have taken over what people did, where nothing else came of a sync."""
    return f", but history that the files have {synced.agreed} so as people did" if synced.agreed and apply else ""


def _and(told: str, held: str) -> str:
    return f"{told}, {held}" if held else told


def _row(difference: Difference) -> tuple[str, ...]:
    what = f"HELD BACK: {difference.what}" if difference.held else difference.what
    return what, difference.kind, difference.name or "-", difference.note or "-"
