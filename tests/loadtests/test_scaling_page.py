"""docs/scaling.md and what it was printed from belong together."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from scale.document import PART, filled, parts
from scale.report import number, size

DOCS = Path(__file__).parent.parent.parent / "docs"
PERFORMANCE = DOCS / "performance"


def _page() -> str:
    return (DOCS / "scaling.md").read_text(encoding="utf-8")


def _json(name: str) -> Any:
    return json.loads((PERFORMANCE / name).read_text(encoding="utf-8"))


def _generated() -> dict[str, str]:
    return parts(_json("constants.json"), _json("scaling.json"))


def test_the_page_says_what_the_last_run_found() -> None:
    assert filled(_page(), _generated()) == _page(), (
        "run `python loadtests/scaling.py simulate --keep`, then `check --keep`"
    )


def test_the_page_has_every_part_that_is_generated() -> None:
    assert {match["name"] for match in PART.finditer(_page())} == _generated().keys()


@pytest.mark.parametrize("part", ["simulation", "check"])
def test_what_was_simulated_and_checked_comes_from_the_constants_that_are_there(part: str) -> None:
    digest = hashlib.sha256((PERFORMANCE / "constants.json").read_bytes()).hexdigest()

    assert digest.startswith(_json("scaling.json")[part]["constants"]), (
        "the constants are newer: simulate and check again"
    )


def test_the_plots_of_the_page_are_there() -> None:
    plots = re.findall(r"\((performance/[^)]+\.svg)\)", _page())

    assert plots
    assert all((DOCS / plot).read_text(encoding="utf-8").startswith("<?xml") for plot in plots)


def test_a_part_is_replaced_and_what_is_around_it_stays() -> None:
    page = "a\n<!-- generated: one -->\nold\n<!-- end -->\nb\n"

    assert filled(page, {"one": "new"}) == "a\n<!-- generated: one -->\nnew\n<!-- end -->\nb\n"


def test_a_part_that_nothing_generates_is_an_error() -> None:
    with pytest.raises(KeyError):
        filled("<!-- generated: other -->\n<!-- end -->", {"one": "new"})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.0123, "0.012"),
        (0.5, "0.5"),
        (9.996, "10.0"),
        (1.5, "1.50"),
        (12.34, "12.3"),
        (123.4, "123"),
        (999.6, "1,000"),
        (1234, "1,230"),
        (1_234_567, "1,230,000"),
    ],
)
def test_figures_are_said_with_three_digits(value: float, said: str) -> None:
    assert number(value) == said


@pytest.mark.parametrize(("value", "said"), [(424, "424 bytes"), (1820, "1.82 KB"), (9.3e12, "9.30 TB")])
def test_bytes_are_said_in_units(value: float, said: str) -> None:
    assert size(value) == said
