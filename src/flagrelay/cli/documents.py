"""Reading and writing flag definitions, as JSON or YAML."""

import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import orjson
import yaml

from flagrelay.errors import DefinitionError, InputError
from flagrelay.flags.definition import parse_json

FORMATS = ("json", "yaml")


def read_document(path: str, document_format: str | None) -> object:
    """A document from a file, or from standard input for `-`.

    Its format is given, or told by the file's ending, or is JSON.

    Raises:
        InputError: there is no such file, or it cannot be read.
        DefinitionError: it is not of its format; says where.
    """
    try:
        text = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    subject = "standard input" if path == "-" else path
    told = "yaml" if Path(path).suffix.lower() in (".yaml", ".yml") else "json"
    if (document_format or told) == "yaml":
        return _parse_yaml(text, subject)
    return parse_json(text, subject)


def write_document(document: Any, document_format: str) -> str:
    """A document as text, with a line break at its end."""
    if document_format == "yaml":
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        return text
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, which would keep the last of two members of one name and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT002 - PyYAML's signature
        """A mapping whose keys are all different."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f'the key "{key_node.value}" stands twice', problem_mark=key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def _parse_yaml(text: bytes, subject: str) -> object:
    loader = _UniqueKeys(text)
    try:
        # Anchors may repeat a node a billion times over; definitions need none.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise DefinitionError(subject, "", "YAML aliases (*name) are not taken here; write the value out")
        return loader.get_single_data()
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise DefinitionError(subject, "", f"not YAML: {problem}") from error
    except (RecursionError, ValueError) as error:
        raise DefinitionError(subject, "", f"not usable as YAML: {error}") from error
    finally:
        loader.dispose()
