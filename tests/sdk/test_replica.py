"""The flag set that the events of a stream make."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import StreamError
from flagrelay.sdk.replica import Replica
from flagrelay.wire.sse import Event


def put(revision: int, flags: dict[str, Any], *, epoch: str = "e", **more: Any) -> Event:
    data = {"flags": flags, "$evaluators": {}, "metadata": {}} | more
    return Event("put", json.dumps(data), f"{epoch}.{revision}")


def patch(revision: int, flags: dict[str, Any], *, epoch: str = "e", evaluators: object = None, **more: Any) -> Event:
    data = {"at": 1, "flags": flags, "$evaluators": {} if evaluators is None else evaluators} | more
    return Event("patch", json.dumps(data), f"{epoch}.{revision}")


def test_a_put_replaces_everything_and_a_patch_what_it_names() -> None:
    replica = Replica()
    assert replica.apply(put(3, {"a": {"n": 1}, "b": {"n": 2}}, metadata={"team": "x"}))
    assert replica.apply(patch(4, {"a": {"n": 3}, "b": None, "c": {"n": 4}}, evaluators={"beta": {"==": [1, 1]}}))
    assert replica.flags == {"a": {"n": 3}, "c": {"n": 4}}
    assert (replica.evaluators, replica.metadata, replica.id) == ({"beta": {"==": [1, 1]}}, {"team": "x"}, "e.4")
    assert replica.apply(patch(5, {"not there": None}, metadata={"team": "y"}, evaluators={"beta": None}))
    assert (replica.evaluators, replica.metadata) == ({}, {"team": "y"})
    assert replica.apply(put(0, {}, epoch="another"))
    assert (replica.flags, replica.metadata, replica.id) == ({}, {}, "another.0")


def test_what_says_nothing_about_flags_is_passed_over() -> None:
    replica = Replica()
    replica.apply(put(3, {"a": {}}))
    for kind in ("heartbeat", "goodbye", "message", "something-new"):
        assert not replica.apply(Event(kind, "no json", "e.9"))
    assert replica.id == "e.3"


@pytest.mark.parametrize(
    "event",
    [
        patch(3, {}),
        patch(2, {}),
        patch(5, {}),
        patch(4, {}, epoch="another"),
        Event("patch", "{}", ""),
        Event("patch", "{}", "nonsense"),
        Event("patch", "no json", "e.4"),
        Event("patch", "{}", "e.4"),
        Event("patch", "[]", "e.4"),
        patch(4, {"a": {}}, evaluators=7),
        Event("put", '{"flags": {}}', "e.4"),
        Event("put", '{"flags": [1], "$evaluators": {}, "metadata": {}}', "e.4"),
    ],
    ids=lambda event: f"{event.type} {event.id} {event.data}",
)
def test_what_does_not_follow_or_makes_no_sense_is_refused_and_changes_nothing(event: Event) -> None:
    replica = Replica()
    replica.apply(put(3, {"a": {"n": 1}}, metadata={"m": 1}))
    with pytest.raises(StreamError):
        replica.apply(event)
    assert (replica.flags, replica.evaluators, replica.metadata, replica.id) == ({"a": {"n": 1}}, {}, {"m": 1}, "e.3")


def test_a_patch_before_any_put_is_refused() -> None:
    with pytest.raises(StreamError, match="does not follow"):
        Replica().apply(patch(1, {}))


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.none() | st.just({"n": 1}), max_size=3), max_size=12))
def test_a_put_and_patches_make_what_they_add_up_to(patches: list[dict[str, Any]]) -> None:
    replica = Replica()
    expected: dict[str, Any] = {"a": {}}
    replica.apply(put(0, expected))
    for revision, changed in enumerate(patches, start=1):
        replica.apply(patch(revision, changed))
        expected = {key: flag for key, flag in (expected | changed).items() if flag is not None}
    assert replica.flags == expected
    assert replica.id == f"e.{len(patches)}"
