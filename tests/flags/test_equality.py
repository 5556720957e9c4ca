import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.flags.equality import same

SCALARS = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, 2.0, 0.5]) | st.sampled_from("ab")
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(JSON, JSON)
def test_two_values_are_the_same_where_their_json_is(one: Any, other: Any) -> None:
    texts = [orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in (one, other)]
    assert same(one, other) is (texts[0] == texts[1])
    assert same(one, copy.deepcopy(one))


@pytest.mark.parametrize("other", [["a", 1], ["a", True, None], ["a", 1.0, None], ["a", 1, None, "b"], ["a", 1, False]])
def test_lists_that_python_takes_for_equal_or_nearly_so_are_not_the_same(other: list[Any]) -> None:
    assert same(["a", 1, None], ["a", 1, None])
    assert not same(["a", 1, None], other)
    assert not same([["a", 1, None]], [other])
