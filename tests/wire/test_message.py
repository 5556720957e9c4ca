import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import MessageError
from flagrelay.flags.change import Change, Hint
from flagrelay.wire.message import decode_change, decode_message, encode_change

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
CHANGES = st.builds(
    Change,
    epoch=TEXT, revision=st.integers(0, 2**53), nonce=TEXT, previous=TEXT, at=st.integers(0, 2**53),
    actor=TEXT, reason=TEXT, urgent=st.booleans(),
    flags=st.dictionaries(TEXT, st.none() | st.dictionaries(TEXT, JSON, max_size=3), max_size=3),
    evaluators=st.dictionaries(TEXT, JSON, max_size=3),
    metadata=st.none() | st.dictionaries(TEXT, JSON, max_size=3),
)  # fmt: skip

HEADER: dict[str, Any] = {"epoch": "e", "revision": 1, "nonce": "n1", "previous": "n0"}
WHOLE: dict[str, Any] = {**HEADER, "at": 5, "actor": "a", "reason": "r", "urgent": False, "flags": {}}


@given(CHANGES)
def test_a_change_comes_back_as_it_went(change: Change) -> None:
    assert decode_message(encode_change(change)) == change
    assert decode_change(encode_change(change)) == change


def test_a_message_without_a_body_is_a_hint() -> None:
    assert decode_message(json.dumps({**HEADER, "at": 5}).encode()) == Hint("e", 1, "n1", "n0")


@pytest.mark.parametrize("member", ["flags", "$evaluators", "metadata"])
def test_a_message_with_any_part_of_a_body_is_a_change(member: str) -> None:
    assert isinstance(decode_message(json.dumps({**HEADER, member: {}}).encode()), Change)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"revision": "1"}, "'revision' should be int and is '1'"),
        ({"revision": True}, "'revision' should be int and is True"),
        ({"revision": 1.0}, "'revision' should be int and is 1.0"),
        ({"revision": -1}, "'revision' is -1, below 0"),
        ({"epoch": None}, "'epoch' should be str and is None"),
        ({"nonce": 5}, "'nonce' should be str and is 5"),
        ({"at": "now"}, "'at' should be int and is 'now'"),
        ({"urgent": 1}, "'urgent' should be bool and is 1"),
        ({"flags": []}, r"'flags' should be an object and is \[\]"),
        ({"flags": {"a": 5}}, "flag 'a' should be an object or null and is 5"),
        ({"$evaluators": None}, "'\\$evaluators' should be an object and is None"),
        ({"metadata": [1]}, r"'metadata' should be an object and is \[1\]"),
    ],
)
def test_a_message_with_a_wrong_member_says_which(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(MessageError, match=message):
        decode_message(json.dumps({**WHOLE, **wrong}).encode())


@pytest.mark.parametrize("missing", list(HEADER))
def test_a_message_without_its_place_in_history_is_refused(missing: str) -> None:
    message = {name: value for name, value in WHOLE.items() if name != missing}
    with pytest.raises(MessageError, match=missing):
        decode_message(json.dumps(message).encode())


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_message_raise_nothing_else(data: bytes) -> None:
    for decode in (decode_message, decode_change):
        with pytest.raises(MessageError):
            decode(data)


@given(st.dictionaries(st.sampled_from([*WHOLE, "$evaluators", "metadata"]), JSON))
def test_members_of_any_kind_raise_nothing_else(members: dict[str, Any]) -> None:
    try:
        decode_message(json.dumps({**WHOLE, **members}).encode())
    except MessageError as error:
        assert str(error)
