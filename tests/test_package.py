"""The package as it is installed: its version, what it ships, what it needs, and what its documents say of it."""

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path
from typing import Any

import click
import pytest

import flagrelay
from flagrelay.cli.main import COMMANDS, cli, main
from support.cli import Cli

ROOT = Path(__file__).parent.parent
SOURCE = Path(flagrelay.__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")

IMPORTED_BY_OTHERS = {"httptools", "uvloop"}
"""What uvicorn imports, once they are installed."""

SHARED_NAMES = {"openfeature": ["openfeature-flagd-api"]}
"""Names that several distributions share: which of them we need, as what it needs itself comes with it."""


def test_the_version_is_in_one_place() -> None:
    assert distribution("flagrelay").version == flagrelay.__version__
    assert "version" in PROJECT["dynamic"]
    assert Cli().ok("--version") == f"flagrelay, version {flagrelay.__version__}\n"
    elsewhere = [path for path in SOURCE.rglob("*.py") if f'"{flagrelay.__version__}"' in path.read_text("utf-8")]
    assert elsewhere == [SOURCE / "__init__.py"]


def test_it_ships_its_types_and_the_files_that_it_reads() -> None:
    assert (SOURCE / "py.typed").is_file()
    assert (SOURCE / "cli" / "demo_flags.yaml").is_file()
    assert (SOURCE / "store" / "write.lua").is_file()
    assert (ROOT / "LICENSE").read_text("utf-8").lstrip().startswith("Apache License")


def test_its_command_is_its_entry_point() -> None:
    [script] = entry_points(group="console_scripts", name="flagrelay")
    assert script.load() is main


def imported(path: Path) -> Iterator[str]:
    """The top names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=;~! ]", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_needs_what_it_imports_and_imports_what_it_needs() -> None:
    modules = {module for path in SOURCE.rglob("*.py") for module in imported(path)}
    foreign = modules - set(sys.stdlib_module_names) - {"flagrelay"}
    providers = {**packages_distributions(), **SHARED_NAMES}
    used = {normal(provider) for module in foreign for provider in providers[module]}
    needed, extra = (
        names(PROJECT["dependencies"]),
        names([each for more in PROJECT["optional-dependencies"].values() for each in more]),
    )
    assert used <= needed | extra
    assert needed - used <= IMPORTED_BY_OTHERS
    assert extra <= used


@pytest.mark.parametrize("package", ["flags", "wire", "release", "errors", "sdk"])
def test_what_others_may_import_alone_needs_no_server_and_no_redis(package: str) -> None:
    files = [SOURCE / f"{package}.py"] if package == "errors" else sorted((SOURCE / package).glob("*.py"))
    assert files
    assert not {"redis", "starlette", "uvicorn", "click"} & {module for path in files for module in imported(path)}


def documented() -> set[tuple[str, ...]]:
    """Every command of README's table."""
    found = set()
    for row in re.findall(r"^\| (`flagrelay .*?) \|", README, re.MULTILINE):
        first, *others = [part.split() for part in re.findall(r"`([^`]+)`", row)]
        words = first[1:]
        found.add(tuple(words))
        found |= {(*words[:-1], *other) for other in others}
    return found


def real(group: click.Group = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from real(command, (*words, name))
        else:
            yield (*words, name)


def test_the_readmes_table_has_exactly_the_commands_that_there_are() -> None:
    assert documented() == set(real())
    assert {words[0] for words in documented()} == COMMANDS.keys()


def examples() -> list[str]:
    """The lines of the documents' shell blocks that run flagrelay."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [block for file in files for block in re.findall(r"```sh\n(.*?)```", file.read_text("utf-8"), re.DOTALL)]
    return [line for block in blocks for line in block.splitlines() if line.startswith("flagrelay ")]


@pytest.mark.parametrize("line", examples())
def test_the_commands_of_the_documents_have_the_options_that_they_are_shown_with(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    # --help wins over everything, but an option that does not exist is wrong usage before that.
    assert Cli().run(*words, "--help").status == 0


def test_the_documents_link_to_files_that_are_there() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"
