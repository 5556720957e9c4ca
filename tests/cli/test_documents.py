"""Definitions as JSON and YAML."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.cli.documents import FORMATS, MAX_DOCUMENT_BYTES, parse_yaml, read_document, write_document
from flagrelay.errors import DefinitionError, InputError
from flagrelay.flags.definition import parse_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(
        [
            "on",
            "off",
            "yes",
            "NO",
            "~",
            "null",
            "1",
            "1.0",
            "0x1f",
            "1e3",
            "12:30:00",
            "2026-01-01",
            "<<",
            "=",
            "- a",
            "a\x85b",
            "\u2028",
            "\u2029 ",
        ]
    ),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.sampled_from(["on", "1", "null"]), inner, max_size=4)
    ),
    max_leaves=15,
)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # tells 1 from 1.0 from True, and 0.0 from -0.0


@given(DOCUMENTS, st.sampled_from(FORMATS))
def test_what_is_written_is_read_back_as_it_was(document: Any, document_format: str) -> None:
    text = write_document(document, document_format).encode()
    assert text.endswith(b"\n")
    parsed = parse_yaml(text, "it") if document_format == "yaml" else parse_json(text, "it")
    assert same(parsed, document)


@given(st.binary(max_size=60) | TEXTS.map(str.encode))
def test_any_bytes_are_a_document_or_an_error_that_names_them(data: bytes) -> None:
    try:
        parse_yaml(data, "the file")
    except DefinitionError as error:
        assert str(error).startswith("the file: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2", 'the key "a" stands twice in one mapping at line 2 column 1'),
        ("{b: {a: 1, 'a': 2}}", 'the key "a" stands twice'),
        ("on: 1", 'write "on" in quotes at line 1 column 1'),
        ("variants: {on: true}", 'write "on" in quotes at line 1 column 12'),
        ("1: a", 'write "1" in quotes'),
        ("? [a]\n: b", "a collection"),
        ("a: &x 1\nb: *x", "aliases"),
        ("a: &x {b: 1}\nc: {<<: *x}", "aliases"),
        ("<<: {a: 1}", "in quotes"),
        ("a: b: c", "at line 1 column 5"),
        ("a: [", "at line 1"),
        ("--- 1\n--- 2", "another document"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !tag b", "could not determine a constructor"),
        ("a: 2026-99-99", "not usable as YAML"),
        ("a: !!bool maybe", "not usable as YAML"),
        ("a: !!timestamp soon", "not usable as YAML"),
        ("a: !!int ''", "not usable as YAML"),
        ("a: !!map [1]", "not usable as YAML"),
        ("? " * 5000, "nests deeper than 200 levels"),
        ("a: \x01", "not YAML"),
        ("[" * 5000, "nests deeper than 200 levels"),
        ("a: {" * 5000, "nests deeper than 200 levels"),
        ("- " * 5000 + "1", "nests deeper than 200 levels"),
    ],
)
def test_yaml_that_json_could_not_say_is_refused_with_where(text: str, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        parse_yaml(text.encode(), "flags.yaml")
    assert str(refused.value).startswith("flags.yaml: ")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_yaml_is_utf_8_with_or_without_its_mark() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: \xc3\xa4", "it") == {"a": "ä"}
    with pytest.raises(DefinitionError, match="not UTF-8, at byte 3"):
        parse_yaml(b"a: \xff", "it")
    with pytest.raises(DefinitionError, match="not UTF-8"):
        parse_yaml("a: 1".encode("utf-16"), "it")


def test_the_format_is_given_or_told_by_the_ending(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "a: 1"), ("b.YML", "a: 1"), ("c.json", '{"a": 1}'), ("d", '{"a": 1}')):
        (tmp_path / name).write_text(text)
        assert read_document(str(tmp_path / name), None) == {"a": 1}
    assert read_document(str(tmp_path / "d"), "yaml") == {"a": 1}
    with pytest.raises(DefinitionError, match="not JSON"):
        read_document(str(tmp_path / "a.yaml"), "json")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(InputError, match="more than 64 MiB"):
        read_document(str(tmp_path / "large.json"), None)
