"""`flagrelay flags`: read, write, import and export flags."""

from contextlib import suppress
from typing import Any

import click

from flagrelay.cli.documents import FORMATS, read_document, write_document
from flagrelay.cli.imports import Plan, plan_import
from flagrelay.cli.options import (
    env_option,
    json_option,
    key_argument,
    redis_options,
    replicas_option,
    who_options,
    with_store,
)
from flagrelay.cli.output import as_members, clock, one_line, print_json, print_table, print_written
from flagrelay.errors import DefinitionError, FlagMissing, StoreError
from flagrelay.flags.change import Definition
from flagrelay.flags.definition import check_flag, check_flag_set
from flagrelay.store.connection import Store
from flagrelay.store.reading import FlagEntry, read_flag, read_populations, read_position, read_state
from flagrelay.store.replicas import replicated
from flagrelay.store.writing import Draft, Written, write_change

force_option = click.option("--force", is_flag=True, help="Also over a killed flag; this ends the kill.")
format_option = click.option(
    "--format",
    "document_format",
    type=click.Choice(FORMATS),
    help="Default: by the file's ending, else JSON.",
)


@click.group(epilog="Example: flagrelay flags import flags.json --env production")
def flags() -> None:
    """Flags: flagd flag definitions, as JSON or YAML."""


@flags.command("list", epilog="Example: flagrelay flags list --env production")
@env_option()
@json_option
@redis_options
def list_(environment: str, as_json: bool, **redis: Any) -> None:
    """List the flags of an environment."""
    entries = sorted(with_store(redis, lambda store: read_state(store, environment)).flags.items())
    if as_json:
        print_json([_summary(entry) for _, entry in entries])
        return
    rows = [_row(entry) for _, entry in entries]
    columns = ("KEY", "STATE", "TYPE", "VARIANTS", "DEFAULT", "REVISION")
    print_table(columns, rows, empty=f"no flags yet: flagrelay flags import FILE --env {environment}")


@flags.command(epilog="Example: flagrelay flags get checkout-v2 --env production")
@key_argument
@env_option()
@json_option
@redis_options
def get(key: str, environment: str, as_json: bool, **redis: Any) -> None:
    """Print the definition of a flag, as it is stored."""
    entry = with_store(redis, lambda store: read_flag(store, environment, key))
    print_json(entry.definition)
    if entry.killed and not as_json:
        click.echo(f"{_killed(entry)}; `flagrelay revive {key}` puts the original back", err=True)


@flags.command(epilog="Example: flagrelay flags put checkout-v2 --env production --file flag.json --reason 'add beta'")
@key_argument
@env_option()
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
@replicas_option
@json_option
@redis_options
def put(
    key: str,
    environment: str,
    path: str,
    document_format: str | None,
    if_revision: int | None,
    force: bool,
    actor: str,
    reason: str,
    replicas: int,
    as_json: bool,
    **redis: Any,
) -> None:
    """Create a flag, or replace its whole definition.

    The flag must not change between reading and writing; if it does, this is a conflict, and nothing is written.
    """
    document = read_document(path, document_format)
    check_flag(key, document)  # what is wrong by itself is told without asking Redis

    async def write(store: Store) -> Written:
        definition = check_flag(key, document, await read_populations(store, environment))
        entry = await _existing(store, environment, key)
        _refuse_killed([entry] if entry else [], force=force)
        found = entry.revision if entry else 0
        draft = Draft(
            flags={key: definition},
            expected_flags={key: found if if_revision is None else if_revision},
            actor=actor,
            reason=reason,
        )
        return await write_change(store, environment, draft)

    print_written(with_store(redis, replicated(replicas, write)), f'flag "{key}" is written', as_json=as_json)


@flags.command(epilog="Example: flagrelay flags delete old-banner --env production --reason 'no longer read'")
@key_argument
@env_option()
@force_option
@who_options()
@replicas_option
@json_option
@redis_options
def delete(
    key: str,
    environment: str,
    force: bool,
    actor: str,
    reason: str,
    replicas: int,
    as_json: bool,
    **redis: Any,
) -> None:
    """Delete a flag. Callers then get the default in their own code."""

    async def write(store: Store) -> Written:
        entry = await read_flag(store, environment, key)
        _refuse_killed([entry], force=force)
        draft = Draft(flags={key: None}, expected_flags={key: entry.revision}, actor=actor, reason=reason)
        return await write_change(store, environment, draft)

    print_written(with_store(redis, replicated(replicas, write)), f'flag "{key}" is deleted', as_json=as_json)


@flags.command("import", epilog="Example: flagrelay flags import flags.json --env production --dry-run")
@click.argument("path", metavar="FILE")
@env_option()
@format_option
@click.option("--prune", is_flag=True, help="Delete the flags and populations that the file lacks.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@force_option
@who_options()
@replicas_option
@json_option
@redis_options
def import_(
    path: str,
    environment: str,
    document_format: str | None,
    prune: bool,
    dry_run: bool,
    force: bool,
    actor: str,
    reason: str,
    replicas: int,
    as_json: bool,
    **redis: Any,
) -> None:
    """Write a whole flagd file as one change: all of it, or nothing.

    What is equal already is not touched, and a killed flag stays killed where the file has its original. FILE is `-`
    for standard input.
    """
    document = read_document(path, document_format)
    check_flag_set(document)  # what is wrong by itself is told without asking Redis

    async def write(store: Store) -> tuple[Plan, Written | None]:
        state = await read_state(store, environment)
        wanted = check_flag_set(document, () if prune else state.evaluators)
        plan = plan_import(state, wanted, prune=prune, over_kills=force)
        _refuse_killed([state.flags[key] for key in plan.flags if key in state.flags], force=force)
        if dry_run or plan.empty:
            return plan, None
        return plan, await write_change(store, environment, plan.draft(actor=actor, reason=reason))

    plan, written = with_store(redis, replicated(replicas, write))
    if as_json:
        print_json({**as_members(written), **plan.summary()})
        return
    if written:
        click.echo(f"{plan} (revision {written.revision})")
    else:
        click.echo(f"{plan}; nothing was written")


@flags.command(epilog="Example: flagrelay flags export --env production --format yaml > flags.yaml")
@env_option()
@click.option(
    "--format", "document_format", type=click.Choice(FORMATS), default="json", show_default=True, help="Of the output."
)
@click.option(
    "--originals", is_flag=True, help="Killed flags as they were before, and as `revive` would put them back."
)
@redis_options
def export(environment: str, document_format: str, originals: bool, **redis: Any) -> None:
    """Print the whole environment as a flagd file, which `flags import` takes back.

    Killed flags are exported as they are served: a backup that is restored must not bring back what somebody took away.
    The file does not say that they are killed; standard error does.
    """
    state = with_store(redis, lambda store: read_state(store, environment))
    document: dict[str, Any] = {"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": {}}
    for key, entry in sorted(state.flags.items()):
        document["flags"][key] = entry.killed.original if entry.killed and originals else entry.definition
        if entry.killed:
            how = "as it was before" if originals else "as it is served"
            click.echo(f"{_killed(entry)}; it is exported {how}", err=True)
    if state.evaluators:
        document["$evaluators"] = {name: rule for name, (_, rule) in sorted(state.evaluators.items())}
    if state.metadata:
        document["metadata"] = dict(state.metadata)
    click.echo(write_document(document, document_format), nl=False)


async def _existing(store: Store, environment: str, key: str) -> FlagEntry | None:
    await read_position(store, environment)
    try:
        return await read_flag(store, environment, key)
    except FlagMissing:
        return None


def _refuse_killed(entries: list[FlagEntry], *, force: bool) -> None:
    killed = [entry for entry in entries if entry.killed]
    if killed and not force:
        raise StoreError(
            f"{'; '.join(_killed(entry) for entry in killed)}: an edit would end the kill. "
            "Revive first (`flagrelay revive`), or say --force; nothing was changed"
        )


def _killed(entry: FlagEntry) -> str:
    if entry.killed is None:
        return f'flag "{entry.key}" is not killed'
    kill = entry.killed
    since = f"since {clock(kill.at)} ({kill.reason or 'no reason'})"
    return one_line(f'flag "{entry.key}" is killed by {kill.actor or "unknown"} {since}')


def _row(entry: FlagEntry) -> tuple[str, ...]:
    """What a person sees of a flag."""
    summary = _summary(entry)
    state = summary["state"]
    if entry.killed:
        state = "KILLED" if entry.killed.to is None else f"KILLED: {entry.killed.to}"
    default = summary["defaultVariant"]
    variants = ", ".join(summary["variants"])
    return entry.key, state, summary["type"], variants, "-" if default is None else default, str(entry.revision)


def _summary(entry: FlagEntry) -> dict[str, Any]:
    """What a script gets of a flag. One that something else than flagrelay wrote may be of any shape."""
    kill = entry.killed
    summary = {"key": entry.key, "revision": entry.revision, "state": "INVALID", "type": "", "variants": []}
    summary |= {
        "defaultVariant": None,
        "killed": {"at": kill.at, "actor": kill.actor, "reason": kill.reason, "to": kill.to} if kill else None,
    }
    with suppress(DefinitionError):
        definition = check_flag(entry.key, entry.definition)
        summary |= {
            "state": definition["state"],
            "type": _type_of(definition),
            "variants": list(definition["variants"]),
            "defaultVariant": definition.get("defaultVariant"),
        }
    return summary


def _type_of(definition: Definition) -> str:
    match next(iter(definition["variants"].values())):
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case _:
            return "object"
