"""The entry point: which commands there are, and how each ends."""

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from flagrelay import __version__
from flagrelay.errors import FlagrelayError

COMMANDS = {
    "serve": "Run a relay.",
    "env": "Environments: create, list, destroy.",
    "flags": "Flags: list, get, put, delete, import, export.",
    "kill": "Take a flag back from everybody, at once.",
    "revive": "Undo a kill, exactly.",
    "watch": "Follow the changes of an environment as they happen.",
    "keys": "Access keys: create, list, revoke.",
    "settings": "Show every setting.",
    "demo": "See the main job run: a relay, many streams, one un-release.",
}

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class Commands(click.Group):
    """Commands that are imported when they are run: a kill should not wait for a web server to be imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands, in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of that name, from the module of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = {"revive": "kill"}.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f"flagrelay.cli.{module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "FLAGRELAY",
        "max_content_width": 100,
    },
    epilog="Example: flagrelay kill checkout-v2 --env production --reason 'error rate'",
)
@click.version_option(__version__, prog_name="flagrelay")
def cli() -> None:
    """Feature flags from Redis to every connected SDK, within milliseconds.

    Every option can be given as an environment variable; `flagrelay settings` lists those that all
    commands share.
    """


def main() -> NoReturn:
    """Run a command, and exit with 0, or 1 for what failed, 2 for wrong usage, 130 after Ctrl-C."""
    try:
        status = cli.main(standalone_mode=False, prog_name="flagrelay")
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except FlagrelayError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        status = 1
    except (KeyboardInterrupt, click.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)
