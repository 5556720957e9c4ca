"""`flagrelay flags`: read, write, import and export flags."""

from functools import partial
from typing import Any

import click

from flagrelay.cli.acting import change, members_of, prove_change
from flagrelay.cli.documents import FORMATS, format_option, read_document, write_document
from flagrelay.cli.options import json_option, key_argument, who_options
from flagrelay.cli.output import one_line, print_json, print_table
from flagrelay.cli.proof import end_with, wait_option
from flagrelay.cli.target import Perform, Target, target_options
from flagrelay.control import table
from flagrelay.control.flags import FlagSummary, killed_by
from flagrelay.control.flagsets import Imported
from flagrelay.control.proof import Proof
from flagrelay.flags.definition import check_flag, check_flag_set

force_option = click.option("--force", is_flag=True, help="Also over a killed flag; this ends the kill.")


@click.group(epilog="Example: flagrelay flags import flags.json --env production")
def flags() -> None:
    """Flags: flagd flag definitions, as JSON or YAML."""


@flags.command("list", epilog="Example: flagrelay flags list --env production")
@json_option
@target_options()
def list_(as_json: bool, target: Target) -> None:
    """List the flags of an environment. RELEASE is the stage that a flag's release is at."""
    found = target.do(table.LIST_FLAGS)
    if as_json:
        print_json(found)
        return
    columns = ("KEY", "STATE", "TYPE", "VARIANTS", "DEFAULT", "REVISION", "RELEASE")
    empty = f"no flags yet: flagrelay flags import FILE --env {target.environment or 'NAME'}"
    print_table(columns, [_row(each) for each in found], empty=empty)


@flags.command(epilog="Example: flagrelay flags get checkout-v2 --env production")
@key_argument
@json_option
@target_options()
def get(key: str, as_json: bool, target: Target) -> None:
    """Print the definition of a flag, as it is stored."""
    flag = target.do(table.GET_FLAG, key=key)
    print_json(flag.definition)
    if flag.killed and not as_json:
        click.echo(
            f"{one_line(killed_by(key, flag.killed))}; `flagrelay revive {key}` puts the original back", err=True
        )


@flags.command(epilog="Example: flagrelay flags put checkout-v2 --env production --file flag.json --reason 'add beta'")
@key_argument
@click.option("--file", "path", default="-", show_default="standard input", metavar="FILE", help="The definition.")
@format_option
@click.option(
    "--if-revision",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only if the flag is at this revision (0: does not exist).",
)
@force_option
@who_options()
@wait_option
@json_option
@target_options(replicas=True)
def put(
    key: str,
    path: str,
    document_format: str | None,
    if_revision: int | None,
    force: bool,
    reason: str,
    wait: float,
    as_json: bool,
    target: Target,
) -> None:
    """Create a flag, or replace its whole definition.

    The flag must not change between reading and writing; if it does, this is a conflict, and nothing is written. One
    that has a release is detached from it first: `flagrelay release detach`.

    Exits with 0, or with 3 where it is written, and not every relay has it within --wait.
    """
    document = read_document(path, document_format)
    check_flag(key, document)  # what is wrong by itself is told without asking Redis
    change(
        target,
        table.PUT_FLAG,
        f'flag "{key}" is written',
        verb="written",
        wait=wait,
        as_json=as_json,
        key=key,
        definition=document,
        if_revision=if_revision,
        force=force,
        reason=reason,
    )


@flags.command(epilog="Example: flagrelay flags delete old-banner --env production --reason 'no longer read'")
@key_argument
@force_option
@who_options()
@wait_option
@json_option
@target_options(replicas=True)
def delete(key: str, force: bool, reason: str, wait: float, as_json: bool, target: Target) -> None:
    """Delete a flag. Callers then get the default in their own code.

    Exits with 0, or with 3 where it is done, and not every relay has it within --wait.
    """
    what = f'flag "{key}" is deleted'
    members = {"key": key, "force": force, "reason": reason}
    change(target, table.DELETE_FLAG, what, verb="deleted", wait=wait, as_json=as_json, **members)


@flags.command("import", epilog="Example: flagrelay flags import flags.json --env production --dry-run")
@click.argument("path", metavar="FILE")
@format_option
@click.option("--prune", is_flag=True, help="Delete the flags and populations that the file lacks.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@force_option
@who_options()
@wait_option
@json_option
@target_options(replicas=True)
def import_(
    path: str,
    document_format: str | None,
    prune: bool,
    dry_run: bool,
    force: bool,
    reason: str,
    wait: float,
    as_json: bool,
    target: Target,
) -> None:
    """Write a whole flagd file as one change: all of it, or nothing.

    What is equal already is not touched, and a killed flag stays killed where the file has its original. FILE is `-`
    for standard input. For files that are kept in Git there is `flagrelay sync`.

    Exits with 0, or with 3 where it is written, and not every relay has it within --wait.
    """
    document = read_document(path, document_format)
    check_flag_set(document)  # what is wrong by itself is told without asking Redis
    members = {"document": document, "prune": prune, "dry_run": dry_run, "force": force, "reason": reason}

    async def run(perform: Perform) -> tuple[Imported, Proof | None]:
        imported: Imported = await perform(table.IMPORT, **members)
        if not as_json:
            click.echo(_line(imported))
        unproven = partial(_json, imported, None)
        return imported, await prove_change(
            perform, imported.change, verb="written", wait=wait, as_json=as_json, unproven=unproven
        )

    imported, proof = target.run(run)
    if as_json:
        print_json(_json(imported, proof))
    end_with(proof)


@flags.command(epilog="Example: flagrelay flags export --env production --format yaml > flags.yaml")
@click.option(
    "--format", "document_format", type=click.Choice(FORMATS), default="json", show_default=True, help="Of the output."
)
@click.option(
    "--originals", is_flag=True, help="Killed flags as they were before, and as `revive` would put them back."
)
@target_options()
def export(document_format: str, originals: bool, target: Target) -> None:
    """Print the whole environment as a flagd file, which `flags import` takes back.

    Killed flags are exported as they are served: a backup that is restored must not bring back what somebody took away.
    The file does not say that they are killed; standard error does.
    """
    exported = target.do(table.EXPORT, originals=originals)
    how = "as it was before" if originals else "as it is served"
    for key, kill in exported.killed.items():
        click.echo(f"{one_line(killed_by(key, kill))}; it is exported {how}", err=True)
    click.echo(write_document(exported.document, document_format), nl=False)


def _json(imported: Imported, proof: Proof | None) -> dict[str, Any]:
    summary = {name: getattr(imported, name) for name in imported.__struct_fields__ if name != "change"}
    return {**members_of(imported.change, proof), **summary}


def _row(flag: FlagSummary) -> tuple[str, ...]:
    """What a person sees of a flag."""
    state = flag.state
    if flag.killed:
        state = "KILLED" if flag.killed.to is None else f"KILLED: {flag.killed.to}"
    default = "-" if flag.defaultVariant is None else flag.defaultVariant
    stage = "-" if flag.stage is None else flag.stage
    return flag.key, state, flag.type, ", ".join(flag.variants), default, str(flag.revision), stage


def _line(imported: Imported) -> str:
    """What an import did, or would do, for people."""
    parts = [f"{len(getattr(imported, name))} {name}" for name in ("added", "replaced", "deleted")]
    parts.append(f"{imported.unchanged} unchanged")
    if imported.populations:
        parts.append(f"{len(imported.populations)} populations")
    if imported.metadata:
        parts.append("metadata")
    written = imported.change if imported.change and imported.change.changed else None
    end = f" (revision {written.revision})" if written else "; nothing was written"
    return f"flags: {', '.join(parts)}{end}"
