"""Flag sets in files, as Git keeps them."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli.flag_files import read_flag_files
from flagrelay.errors import InputError
from support.cli import FLAG

PLAN = {"flag": "a", "released": "on", "baseline": "off", "stages": [{"percent": 100}]}
BETA = {"==": [{"var": "plan"}, "beta"]}


def write(folder: Path, **files: object) -> str:
    """Files by their paths, with `__` for a slash, and JSON unless they are text."""
    for name, document in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(folder)


def flags(*keys: str) -> dict[str, Any]:
    return {"flags": dict.fromkeys(keys, FLAG)}


def test_a_file_of_populations_alone_is_one_of_several(tmp_path: Path) -> None:
    merged, _ = read_flag_files(write(tmp_path, a_json=flags("a"), beta_json={"$evaluators": {"beta": BETA}}))
    assert (merged["flags"], merged["$evaluators"]) == ({"a": FLAG}, {"beta": BETA})


def test_all_files_below_a_folder_are_one_flag_set(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        one_json={**flags("a"), "$evaluators": {"beta": BETA}},
        team__two_yml=f"flags: {{b: {json.dumps(FLAG)}}}\nmetadata: {{team: shop}}\n",
        team__deeper__three_YAML=f"flags: [{json.dumps({'key': 'c', **FLAG})}]\n",
        README_md="not a flag set",
        team__notes_txt="neither",
    )
    document, plans = read_flag_files(folder)
    assert document == {**flags("a", "b", "c"), "$evaluators": {"beta": BETA}, "metadata": {"team": "shop"}}
    assert plans == []


def test_a_single_file_is_one_too(tmp_path: Path) -> None:
    write(tmp_path, one_json={"$schema": "https://flagd.dev/schema/v0/flags.json", **flags("a")}, two_json=flags("b"))
    document, _ = read_flag_files(str(tmp_path / "one.json"))
    assert document["flags"].keys() == {"a"}


def test_what_is_hidden_is_not_read_and_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "ci.yml").write_text("on: push")
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "flags.json").write_text(json.dumps(flags("a")))
    (tmp_path / "flags.json").symlink_to("..data/flags.json")
    assert read_flag_files(str(tmp_path))[0]["flags"] == {"a": FLAG}


def test_a_link_to_a_folder_is_followed_and_what_is_met_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, flags__one_json=flags("a"), flags__team__two_json=flags("b"), shared__three_json=flags("c"))
    for name, target in {"linked": "../shared", "team/up": "..", "again": "team", ".hidden": "../elsewhere"}.items():
        (tmp_path / "flags" / name).symlink_to(target)
    assert read_flag_files(str(tmp_path / "flags"))[0]["flags"].keys() == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["two.json", "two.YAML", "team"])
def test_a_link_that_leads_nowhere_is_refused_where_flags_may_have_been_there(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, one_json=flags("a"))
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    assert read_flag_files(folder)[0]["flags"].keys() == {"a"}
    (tmp_path / name).symlink_to("gone")
    with pytest.raises(InputError, match=f"cannot read {folder}/{name}: No such file"):
        read_flag_files(folder)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, iterdir = write(tmp_path, one_json=flags("a"), team__two_json=flags("b")), Path.iterdir

    def refusing(path: Path) -> Iterator[Path]:
        if path.name == "team":  # as root may read everything
            raise PermissionError(errno.EACCES, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(InputError, match=f"cannot read {folder}/team: Permission denied"):
        read_flag_files(folder)


@pytest.mark.parametrize(
    ("part", "document"),
    [
        ('flag "a"', flags("a")),
        ('population "beta"', {"flags": {}, "$evaluators": {"beta": BETA}}),
        ('metadata member "team"', {"flags": {}, "metadata": {"team": "shop"}}),
    ],
)
def test_what_stands_in_two_files_is_refused_with_both(tmp_path: Path, part: str, document: object) -> None:
    folder = write(tmp_path, one_json=document, two_json=document)
    with pytest.raises(InputError) as refused:
        read_flag_files(folder)
    assert str(refused.value) == f"{part} stands in two files: {folder}/one.json and {folder}/two.json"


def test_plans_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path, one_json=flags("a"), plans__a_json=PLAN)
    document, plans = read_flag_files(folder)
    assert document["flags"].keys() == {"a"}
    assert plans == [f"{folder}/plans/a.json"]


@pytest.mark.parametrize("files", [{}, {"plan_json": PLAN}, {"flags_txt": "{}"}])
def test_a_folder_without_a_flag_set_is_a_mistake(tmp_path: Path, files: dict[str, object]) -> None:
    with pytest.raises(InputError, match="has no flag set"):
        read_flag_files(write(tmp_path, **files))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "should be an object and is an array"),
        ('{"flags": {"a": {}}}', "at state: missing"),
        ('{"flags": {}, "stages": []}', "unknown member"),
    ],
)
def test_a_file_that_is_no_flag_set_is_refused_by_its_name(tmp_path: Path, text: str, why: str) -> None:
    folder = write(tmp_path, one_json=flags("b"), two_json=text)
    with pytest.raises(InputError) as refused:
        read_flag_files(folder)
    assert str(refused.value).startswith(f"{folder}/two.json")
    assert why in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_flag_files(str(tmp_path / "none"))
