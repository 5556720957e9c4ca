"""Flag sets in files, as Git keeps them: one file, or all below a folder, as one flag set."""

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
        path: a file, or a folder: then every JSON and YAML file below it, but for those whose names begin with a dot.

    Raises:
        InputError: a file cannot be read or is no flag set, the same thing stands in two of them, or there is none.
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
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    files = (each for each in folder.rglob("*") if each.suffix.lower() in ENDINGS and each.is_file())
    return sorted(str(each) for each in files if not _is_hidden(each.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_plan(document: object) -> bool:
    return isinstance(document, dict) and "stages" in document and "flag" in document


def _checked(file: str, document: object) -> FlagSet:
    try:
        return check_flag_set(document)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _entries(flag_set: FlagSet) -> Iterator[tuple[str, str, Any]]:
    parts = {"flags": flag_set.flags, "$evaluators": flag_set.evaluators, "metadata": flag_set.metadata}
    return ((part, name, value) for part, entries in parts.items() for name, value in entries.items())
