"""`flagrelay settings`."""

from itertools import groupby

import click

from flagrelay.cli.output import print_json, print_table
from flagrelay.settings import Setting, settings_table

MARKDOWN_HEAD = """\
# Settings

Each is an environment variable, and an option of `flagrelay serve` of the same name (`FLAGRELAY_MAX_STALE` is
`--max-stale`); the option wins. Those about Redis are options of every command. Several values are separated by spaces
in a variable, and given as repeated options. A variable that is empty counts as not set.

This page is printed by `flagrelay settings --markdown`; a test fails where it differs.
"""

ENV_FILE_HEAD = """\
# Settings of flagrelay; what is commented out is the default, and what is empty counts as not set.
# Printed by `flagrelay settings --env-file`; a test fails where it differs.
"""


@click.command(epilog="Example: flagrelay settings --env-file > flagrelay.env")
@click.option("--markdown", "shape", flag_value="markdown", help="As docs/settings.md.")
@click.option(
    "--env-file",
    "shape",
    flag_value="env-file",
    help="As a file of environment variables, all commented out.",
)
@click.option("--json", "shape", flag_value="json", help="Print JSON, for scripts.")
def settings(shape: str | None) -> None:
    """Show every setting: its environment variable, its default, and what it does."""
    table = list(settings_table())
    match shape:
        case "markdown":
            click.echo(as_markdown(table), nl=False)
        case "env-file":
            click.echo(as_env_file(table), nl=False)
        case "json":
            print_json(
                [
                    {
                        "name": s.name,
                        "variable": s.variable,
                        "option": s.option,
                        "type": s.type.__name__,
                        "default": s.default,
                        "group": s.group,
                        "about": s.about,
                        "unit": s.unit or None,
                        "least": s.least,
                        "most": s.most,
                        "choices": list(s.choices) or None,
                    }
                    for s in table
                ]
            )
        case _:
            rows = [(s.variable, s.shown_default, _about(s)) for s in table]
            print_table(("VARIABLE", "DEFAULT", "WHAT IT IS"), rows, empty="")


def as_markdown(table: list[Setting]) -> str:
    """docs/settings.md."""
    text = MARKDOWN_HEAD
    for group, members in groupby(table, key=lambda setting: setting.group):
        text += f"\n## {group}\n\n| variable | default | what it is |\n| --- | --- | --- |\n"
        for setting in members:
            default = f"`{setting.shown_default}`" if setting.shown_default else ""
            text += f"| `{setting.variable}` | {default} | {_about(setting)} |\n"
    return text


def as_env_file(table: list[Setting]) -> str:
    """deploy/flagrelay.env."""
    text = ENV_FILE_HEAD
    for group, members in groupby(table, key=lambda setting: setting.group):
        text += f"\n# -- {group}\n"
        for setting in members:
            text += f"\n# {_about(setting)}\n#{setting.variable}={setting.shown_default}\n"
    return text


def _about(setting: Setting) -> str:
    unit = f", in {setting.unit}" if setting.unit else ""
    bounds = f" [{setting.bounds}]" if setting.bounds else ""
    return f"{setting.about}{unit}{bounds}"
