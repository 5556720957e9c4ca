import importlib
import operator
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from flagrelay.flags.version import COMPARISONS, LONGEST, compare_versions, parse_version

flagd = importlib.import_module("openfeature.contrib.tools.flagd.core.targeting.custom_ops")


@pytest.fixture(autouse=True, scope="module")
def unlogged() -> Iterator[None]:
    """flagd-core logs what it refuses."""
    with mock.patch.object(flagd.logger, "disabled", new=True):
        yield


NUMBERS = st.integers(0, 3) | st.integers(0, 10**20)
WORDS = st.from_regex(r"\A(0|[1-9][0-9]{0,2}|[0-9]?[a-zA-Z-][0-9a-zA-Z-]{0,2})\Z")
PRERELEASES = st.lists(WORDS, min_size=1, max_size=3).map(lambda words: "-" + ".".join(words))
BUILDS = st.lists(st.from_regex(r"\A[0-9a-zA-Z-]{1,3}\Z"), min_size=1, max_size=2).map(
    lambda words: "+" + ".".join(words)
)
VERSIONS = st.builds(
    lambda numbers, prerelease, build: ".".join(map(str, numbers)) + prerelease + build,
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.just("") | PRERELEASES,
    st.just("") | BUILDS,
)

ASCENDING = (  # the first eight are semver.org's, section 11
    "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
    "1.0.0",
    "1.0.1-0", "1.0.1-9", "1.0.1-10", "1.0.1--", "1.0.1-A", "1.0.1-a", "1.0.1", "1.0.2", "1.0.10", "1.1.0", "1.10.0",
    "2.0.0", "2.1.0", "2.1.1",
    "10.0.0",
)  # fmt: skip


@pytest.mark.parametrize(("lower", "higher"), list(combinations(ASCENDING, 2)))
def test_versions_are_in_the_order_of_semver_org(lower: str, higher: str) -> None:
    given_order = {
        name: (compare_versions(lower, name, higher), compare_versions(higher, name, lower)) for name in COMPARISONS
    }
    assert given_order["="] == (False, False)
    assert given_order["!="] == (True, True)
    assert given_order["<"] == given_order["<="] == (True, False)
    assert given_order[">"] == given_order[">="] == (False, True)


ORDERS: dict[str, Callable[[int, int], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@given(VERSIONS, VERSIONS)
def test_any_two_versions_are_in_the_order_of_the_library(left: str, right: str) -> None:
    order = Version.parse(left).compare(right)
    for name, compare in ORDERS.items():
        assert compare_versions(left, name, right) is compare(order, 0), name


LOOSE = st.builds(
    lambda head, numbers, tail: head + ".".join(map(str, numbers)) + tail,
    st.sampled_from(["", "v", "V"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.sampled_from(["", "-rc", "-rc.1", "-1", "+b", "-a+b-c", "-", "+", "-01"]),
)


@given(LOOSE | VERSIONS, st.sampled_from([*COMPARISONS, "==", "*", ""]), LOOSE | VERSIONS)
def test_versions_compare_as_in_flagd_core(left: str, name: str, right: str) -> None:
    assert compare_versions(left, name, right) is flagd.sem_ver({}, left, name, right)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("v1.2.3", "1.2.3"), ("V1.2.3", "1.2.3"), ("1", "1.0.0"), ("1.2", "1.2.0"), ("v1", "1.0.0"),
        ("1-rc.1", "1.0.0-rc.1"),
        ("1.2-rc", "1.2.0-rc"), ("1.2.3+build.7", "1.2.3"), ("1+b-1", "1.0.0"), ("1.2.3-rc+b", "1.2.3-rc"),
        (1, "1.0.0"), (1.5, "1.5.0"), (2.0, "2.0.0"), (0, "0.0.0"), (10, "10.0.0"), (0.1, "0.1.0"),
    ],
)  # fmt: skip
def test_a_version_may_be_written_in_other_ways(written: Any, meant: str) -> None:
    assert parse_version(written) == parse_version(meant) is not None
    assert compare_versions(written, "=", meant) is True


@pytest.mark.parametrize(
    "value",
    [
        "", "v", "vv1.0.0", "1.2.3.4", "2.0.0.0", "1.", ".1", "1..2", "a", "1.x", "1.2.x", "*", "=1.2.3", "^1.2.3",
        "01.2.3", "1.02.3",
        "1.2.3-", "1.2.3+", "1.2.3-01", "1.2.3-a..b", "1.2.3-é", "1.2.3-a+b+c", " 1.2.3", "1.2.3 ", "1.2.3\n", "1\n",
        "-1", "+1",
        "1.2.٣", "١", "1.2.3-²", "1,2", "Infinity", "\ud800", "1.0.0-\x00",
        None, True, False, [], ["1.2.3"], {}, {"1": 2}, -1, -0.5, float("nan"), float("inf"), 1e21, 1e-7, object(),
    ],
)  # fmt: skip
def test_what_is_no_version_compares_to_null(value: Any) -> None:
    assert parse_version(value) is None
    for name in COMPARISONS:
        assert compare_versions(value, name, "1.0.0") is None
        assert compare_versions("1.0.0", name, value) is None


@pytest.mark.parametrize("name", ["==", "", "<>", "=>", "!", "~>", None, 1, True, ["="], {"=": 1}, "= "])
def test_what_is_no_comparison_gives_null(name: Any) -> None:
    assert compare_versions("1.0.0", name, "1.0.0") is None


@pytest.mark.parametrize(
    ("left", "name", "right", "result"),
    [
        ("1.2.3", "^", "1.9.0", True), ("1.2.3", "^", "2.2.3", False), ("0.1.0", "^", "0.9.0", True),
        ("1", "^", "1.5.0-rc", True),
        ("1.2.3", "~", "1.2.9", True), ("1.2.3", "~", "1.3.3", False), ("1.2.3", "~", "2.2.3", False),
        ("v1.2", "~", 1.2, True),
    ],
)  # fmt: skip
def test_a_caret_is_the_same_major_and_a_tilde_the_same_minor_version(
    left: Any,
    name: str,
    right: Any,
    result: bool,  # noqa: FBT001
) -> None:
    assert compare_versions(left, name, right) is result


@given(VERSIONS, BUILDS)
def test_build_metadata_says_nothing(version: str, build: str) -> None:
    assert compare_versions(version, "=", version.partition("+")[0] + build) is True


def test_a_version_that_is_too_long_is_none() -> None:
    longest = "1.2.3-" + "a" * (LONGEST - 6)
    assert len(longest) == LONGEST
    assert parse_version(longest) is not None
    assert parse_version(longest + "a") is None
    assert parse_version("9" * 10_000) is None


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.binary())
def test_parsing_takes_anything(value: Any) -> None:
    found = parse_version(value)
    assert found is None or found == parse_version(value)
