"""Flag sets in files, as Git keeps them: one file, or all below a folder, as one flag set."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flagrelay.cli.documents import read_document
from flagrelay.errors import InputError
from flagrelay.flags.definition import FlagSet, check_flag_set

ENDINGS = (".json", ".yaml", ".yml")

KINDS = {"flags": "flag", "$evaluators": "population", "metadata": "metadata member"}
"""The parts of a flag set, and what one entry of each is called."""


def read_flag_files(path: str) -> tuple[dict[str, Any], list[str]]:
    """What files say, as one flag set; and those of the files that are plans of releases, which say nothing of it.

    Args:
        path: a file, or a folder: then every JSON and YAML file below it, links followed, but for those whose names
            begin with a dot.

    Raises:
        InputError: a file or folder cannot be read, a file is no flag set, the same thing stands in two of them, or
            there is none.
    """
    merged: dict[str, Any] = {part: {} for part in KINDS}
    found: dict[tuple[str, str], str] = {}
    plans, sets = [], 0
    for file in _files(path):
        document = read_document(file, None)
        if _is_plan(document):
            plans.append(file)
            continue
        sets += 1
        for part, name, value in _entries(_checked(file, document)):
            first = found.setdefault((part, name), file)
            if first != file:
                raise InputError(f'{KINDS[part]} "{name}" stands in two files: {first} and {file}')
            merged[part][name] = value
    if not sets:  # an empty folder is a mistake, and no wish to delete everything
        raise InputError(f"{path} has no flag set: no {', '.join(ENDINGS)} file that holds one")
    return merged, plans


def _files(path: str) -> list[str]:
    return sorted(_below(Path(path), set())) if os.path.isdir(path) else [path]  # noqa: PTH112 - never raises


def _below(folder: Path, seen: set[str]) -> Iterator[str]:
    """The files below a folder. What is left out unread would be deleted by whoever prunes: it is an error instead."""
    real = os.path.realpath(folder)
    if real in seen:  # a link leads back to it, or there again
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        mode = _mode(entry)
        if stat.S_ISDIR(mode):
            yield from _below(entry, seen)
        elif stat.S_ISREG(mode) and entry.suffix.lower() in ENDINGS:
            yield str(entry)


def _mode(path: Path) -> int:
    """What a name stands for; 0 for nothing that could be of flags: a link to nowhere with an ending of its own."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if path.suffix.lower() in (*ENDINGS, "") or not path.is_symlink():  # without an ending it may be a folder
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        return 0


def _is_plan(document: object) -> bool:
    return isinstance(document, dict) and "stages" in document and "flag" in document


def _checked(file: str, document: object) -> FlagSet:
    if isinstance(document, dict) and "$evaluators" in document:  # a file of populations alone is one of several
        document = {"flags": {}, **document}
    try:
        return check_flag_set(document)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _entries(flag_set: FlagSet) -> Iterator[tuple[str, str, Any]]:
    parts = {"flags": flag_set.flags, "$evaluators": flag_set.evaluators, "metadata": flag_set.metadata}
    return ((part, name, value) for part, entries in parts.items() for name, value in entries.items())
