"""`flagrelay populations`: named predicates over evaluation contexts."""

from typing import Any

import click
import orjson

from flagrelay.cli.acting import change
from flagrelay.cli.asking import sample_option
from flagrelay.cli.documents import format_option, read_bytes, read_document
from flagrelay.cli.options import checked_text, json_option, who_options
from flagrelay.cli.output import one_line, print_json, print_table
from flagrelay.cli.proof import wait_option
from flagrelay.cli.target import Target, target_options
from flagrelay.control import table
from flagrelay.errors import InputError
from flagrelay.flags.definition import MAX_KEY_LENGTH, MAX_POPULATION_BYTES, check_population
from flagrelay.release.population import parse_keys

MAX_KEYS_BYTES = 2 * MAX_POPULATION_BYTES
"""Of a file of targeting keys; it may have comments."""

MAX_SHOWN = 5
"""Users of a population that the list names."""

name_argument = click.argument("name", callback=checked_text(MAX_KEY_LENGTH))


@click.group(epilog="Example: flagrelay populations put beta --env production --equals plan=beta --risk 20")
def populations() -> None:
    """Populations: named predicates over evaluation contexts, which flags and releases refer to."""


@populations.command("list", epilog="Example: flagrelay populations list --env production")
@json_option
@target_options()
def list_(as_json: bool, target: Target) -> None:
    """List the populations of an environment, those of least risk first."""
    found = target.do(table.LIST_POPULATIONS)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.name,
            "-" if each.risk is None else str(each.risk),
            each.shown,
            _some(each.used_by),
            each.description or "-",
        )
        for each in found
    ]
    columns = ("NAME", "RISK", "WHO IS IN IT", "USED BY", "DESCRIPTION")
    print_table(columns, rows, empty="no populations yet: flagrelay populations put NAME")


@populations.command(
    epilog="Example: flagrelay populations put beta --env production --keys beta.txt --risk 20 "
    "--description 'who asked for it'"
)
@name_argument
@click.option("--rule", "path", metavar="FILE", help="A JsonLogic rule, as JSON or YAML; - for standard input.")
@format_option
@click.option("--equals", metavar="ATTRIBUTE=VALUE", callback=checked_text(), help="Whose attribute is this.")
@click.option(
    "--in", "in_", metavar="ATTRIBUTE=A,B,C", callback=checked_text(), help="Whose attribute is one of these."
)
@click.option(
    "--email-domain", "domains", multiple=True, metavar="DOMAIN", help="Whose email is at it; several may be given."
)
@click.option(
    "--keys",
    "keys_path",
    metavar="FILE",
    help="Targeting keys, one a line, up to 100,000, comments after `# `; - for standard input.",
)
@click.option("--description", callback=checked_text(may_be_empty=True), metavar="TEXT", help="Who they are.")
@click.option(
    "--risk", type=click.IntRange(0, 1000), metavar="NUMBER", help="The lower, the earlier one releases to them."
)
@click.option("--force", is_flag=True, help="Although a flag is un-released from it, and others would be in it.")
@who_options()
@wait_option
@json_option
@target_options(replicas=True)
def put(
    name: str,
    path: str | None,
    document_format: str | None,
    equals: str | None,
    in_: str | None,
    domains: tuple[str, ...],
    keys_path: str | None,
    description: str | None,
    risk: int | None,
    force: bool,
    reason: str,
    wait: float,
    as_json: bool,
    target: Target,
) -> None:
    """Create a population, or change it; by a rule, or in one of the simple forms.

    Without any of them, only what is said of it changes. A VALUE is JSON where it is a number, true or false, and text
    otherwise.
    """
    members: dict[str, Any] = {
        "rule": None if path is None else check_population(name, read_document(path, document_format)),
        "equals": _pair("--equals", equals, "value", _value),
        "one_of": _pair("--in", in_, "values", lambda text: [_value(each) for each in text.split(",")]),
        "email_domains": list(domains) or None,
        "keys": None if keys_path is None else _keys(keys_path),
        "description": description,
        "risk": risk,
        "force": force or None,
    }
    what = f'population "{name}" is written'
    change(
        target,
        table.PUT_POPULATION,
        what,
        verb="written",
        wait=wait,
        as_json=as_json,
        name=name,
        reason=reason,
        **members,
    )


@populations.command(epilog="Example: flagrelay populations delete beta --env production --reason 'closed'")
@name_argument
@who_options()
@wait_option
@json_option
@target_options(replicas=True)
def delete(name: str, reason: str, wait: float, as_json: bool, target: Target) -> None:
    """Delete a population that no flag and no release uses."""
    what = f'population "{name}" is deleted'
    change(target, table.DELETE_POPULATION, what, verb="deleted", wait=wait, as_json=as_json, name=name, reason=reason)


@populations.command(epilog="Example: flagrelay populations members beta --env production --sample contexts.jsonl")
@name_argument
@sample_option
@json_option
@target_options()
def members(name: str, sample: list[dict[str, Any]] | None, as_json: bool, target: Target) -> None:
    """Tell who is in a population: its targeting keys, a line each, and how many contexts of a sample are in it."""
    found = target.do(table.MEMBERS, name=name, sample=sample)
    if as_json:
        print_json(found)
        return
    for key in found.keys or ():
        click.echo(one_line(key))
    if found.keys is None:
        click.echo(f'population "{one_line(name)}": {one_line(found.shown)}', err=found.contexts > 0)
    if found.contexts:
        share = found.members / found.contexts
        click.echo(
            f"{found.members:,} of {found.contexts:,} contexts are in it ({share:.2%})", err=found.keys is not None
        )


def _pair(option: str, text: str | None, member: str, read: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    attribute, equals, value = text.partition("=")
    if not (attribute and equals):
        raise click.UsageError(f"{option} takes ATTRIBUTE=VALUE, and not {text!r}.")
    return {"attribute": attribute, member: read(value)}


def _value(text: str) -> str | float | bool:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) else text


def _keys(path: str) -> list[str]:
    keys = parse_keys(read_bytes(path, MAX_KEYS_BYTES), path)
    if not keys:  # which would say that only the description is to change
        raise InputError(f"{path} has no targeting keys: one a line")
    return keys


def _some(names: list[str]) -> str:
    more = len(names) - MAX_SHOWN
    return (", ".join(names[:MAX_SHOWN]) or "-") + (f" and {more} more" if more > 0 else "")
