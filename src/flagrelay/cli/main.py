"""The entry point: which commands there are, and how each ends."""

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

import click

from flagrelay import __version__
from flagrelay.errors import FlagrelayError, ReplicasMissing
from flagrelay.settings import PREFIX

COMMANDS = {
    "serve": "Run a relay.",
    "env": "Environments: create, list, destroy.",
    "flags": "Flags: list, get, put, delete, import, export.",
    "sync": "Make an environment what files in Git say.",
    "populations": "Populations: list, put, delete, members.",
    "release": "Release a flag to one population after another.",
    "unrelease": "Take a release back from any population, at once.",
    "kill": "Take a flag back from everybody, at once.",
    "revive": "Undo a kill, exactly.",
    "kills": "Kills that relays hold by themselves.",
    "relays": "Show what relays report of what their streams have; forget one.",
    "status": "Show how relays and their environments stand.",
    "eval": "Say what a flag says for a context.",
    "explain": "Show the way through a flag's rule.",
    "history": "Show who changed what, when and why.",
    "watch": "Follow the changes of an environment as they happen.",
    "keys": "Access keys: create, list, revoke.",
    "settings": "Show every setting.",
    "openapi": "Print the OpenAPI document of the control API.",
    "demo": "See the main job run: a relay, many streams, one un-release.",
}

ELSEWHERE = {
    "revive": ("kill", "revive"),
    "unrelease": ("release", "unrelease"),
    "eval": ("evaluate", "eval_"),
    "explain": ("evaluate", "explain"),
}
"""The module and the name in it of commands that are not alone in a module of their name."""

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
        module, name = ELSEWHERE.get(cmd_name, (cmd_name, cmd_name))
        command: click.Command = getattr(import_module(f"flagrelay.cli.{module}"), name)
        _name_variables(command, f"{PREFIX}{cmd_name.upper()}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Example: flagrelay kill checkout-v2 --env production --reason 'error rate'",
)
@click.version_option(__version__, prog_name="flagrelay")
def cli() -> None:
    """Feature flags from Redis to every connected SDK, within milliseconds.

    Every option of a command has an environment variable, which its --help names. Those that commands share are
    settings, listed by `flagrelay settings`; the others are named like FLAGRELAY_KEYS_CREATE_EXPIRES.
    """


def _name_variables(command: click.Command, prefix: str) -> None:
    """Give every option a variable, and show it in --help.

    click's `auto_envvar_prefix` would name them after the parameters of our functions: FLAGRELAY_FLAGS_PUT_PATH is not
    what one looks for beside --file.
    """
    for option in command.params:
        if isinstance(option, click.Option) and not option.envvar:
            option.envvar = f"{prefix}_{option.opts[0].removeprefix('--').replace('-', '_').upper()}"
            option.show_envvar = True
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            _name_variables(each, f"{prefix}_{name.upper()}")


def main() -> NoReturn:
    """Run a command, and exit with 0, or 1 for what failed, 2 for wrong usage, 130 after Ctrl-C.

    3 is for what was written, and is not proven to be everywhere: see `proof`; 4 for what `sync` held back.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what somebody wrote into a flag may be in no terminal's charset
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    try:
        status = cli.main(standalone_mode=False, prog_name="flagrelay")
        if sys.stdout:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ReplicasMissing as error:
        from flagrelay.cli.proof import NOT_PROVEN  # noqa: PLC0415 - most commands do without

        _tell(error)
        return NOT_PROVEN
    except FlagrelayError as error:
        _tell(error)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OSError as error:
        _discard_output()
        if not isinstance(error, BrokenPipeError):  # else whoever read our output has had enough
            _tell(error)
        return 1
    return status if isinstance(status, int) else 0


def _tell(error: Exception) -> None:
    line = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", err=True)


def _discard_output() -> None:
    """What could not be written must not be tried again, and complained of, when Python exits."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
