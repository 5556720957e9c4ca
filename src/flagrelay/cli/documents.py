"""Reading and writing flag definitions, as JSON or YAML."""

import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import click
import orjson
import yaml

from flagrelay.errors import DefinitionError, InputError
from flagrelay.flags.definition import MAX_NESTING, parse_json

FORMATS = ("json", "yaml")

format_option = click.option(
    "--format",
    "document_format",
    type=click.Choice(FORMATS),
    help="Default: by the file's ending, or by how standard input begins; else JSON.",
)
"""Of a document that is read."""

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""The largest file that is read."""


def read_document(path: str, document_format: str | None) -> object:
    """A document from a file, or from standard input for `-`.

    Its format is given, or told by the file's ending, or is JSON. Standard input is YAML unless it begins like JSON.

    Raises:
        InputError: there is no such file, it cannot be read, or it is too large.
        DefinitionError: it is not of its format; says where.
    """
    text = read_bytes(path, MAX_DOCUMENT_BYTES)
    subject = subject_of(path)
    if (document_format or _told_format(path, text)) == "yaml":
        return parse_yaml(text, subject)
    return parse_json(text, subject)


def _told_format(path: str, text: bytes) -> str:
    if path == "-":  # the examples of everything are YAML, and what begins like JSON wants errors of JSON's
        return "json" if text.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"", b"{", b"[") else "yaml"
    return "yaml" if Path(path).suffix.lower() in (".yaml", ".yml") else "json"


def read_bytes(path: str, most: int) -> bytes:
    """What a file holds, or standard input for `-`; `most` is how many bytes that may be.

    Raises:
        InputError: there is no such file, it cannot be read, or it is too large.
    """
    try:
        if path == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed")
            if sys.stdin.isatty():
                click.echo("reading standard input; Ctrl-D ends it", err=True)
            text = sys.stdin.buffer.read(most + 1)
        else:
            with Path(path).open("rb") as file:
                text = file.read(most + 1)
    except OSError as error:
        raise InputError(f"cannot read {subject_of(path)}: {error.strerror}") from error
    if len(text) > most:
        raise InputError(f"{subject_of(path)} has more than {most >> 20} MiB, which is the most")
    return text


def subject_of(path: str) -> str:
    """What errors call the file of a path, which is standard input for `-`."""
    return "standard input" if path == "-" else path


def write_document(document: Any, document_format: str) -> str:
    """A document as text, with a line break at its end."""
    if document_format == "yaml":
        text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        return text
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which by itself writes some line breaks so that they are read back as a space."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    quoted = '"' if any(c in text for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quoted)


_Dumper.add_representer(str, _represent_text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, held to what JSON can say.

    By itself it keeps the last of two members of one name and says nothing, and takes names that are no strings.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node, unless it is an alias, or too deep."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave its types out
        if self.check_event(yaml.AliasEvent):
            # Aliases may repeat a node a billion times over; definitions need none.
            raise _problem("aliases (*name) are not taken here; write the value out", mark)
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise _problem(f"nests deeper than {MAX_NESTING} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT002 - PyYAML's signature
        """A mapping whose keys are strings, and all different."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                # Above all `on` and `off`, which are true and false in YAML.
                name = f'write "{key.value}" in quotes' if isinstance(key, yaml.ScalarNode) else "it is a collection"
                raise _problem(f"a key that is no string: {name}", key.start_mark)
            if key.value in seen:
                raise _problem(f'the key "{key.value}" stands twice in one mapping', key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _problem(what: str, mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(problem=what, problem_mark=mark)


def parse_yaml(text: bytes, subject: str) -> object:
    """YAML as strict as `parse_json`: keys are strings, none stands twice, nesting is bounded, no aliases.

    Raises:
        DefinitionError: it is not; says where.
    """
    try:
        loader = _Loader(text.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise DefinitionError(subject, "", f"not UTF-8, at byte {error.start}") from error
    except yaml.reader.ReaderError as error:
        raise DefinitionError(subject, "", f"not YAML: {error.reason}, at character {error.position}") from error
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise DefinitionError(subject, "", f"not usable as YAML: {error.problem or error.context}{where}") from error
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML takes a tag at its word: `!!bool maybe` is a KeyError, `!!timestamp soon` an AttributeError.
        raise DefinitionError(subject, "", f"not usable as YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
