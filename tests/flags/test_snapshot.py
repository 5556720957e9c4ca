from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import HistoryError
from flagrelay.flags.change import Change
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from support.fakes import definition, empty_snapshot, next_change

KEYS = st.sampled_from(["a", "b", "c", "d"])
FLAG_PATCH = st.dictionaries(KEYS, st.none() | st.integers(0, 9).map(definition), max_size=3)
RULE_PATCH = st.dictionaries(KEYS, st.none() | st.integers(0, 9).map(lambda n: {"==": [1, n]}), max_size=2)
EDITS = st.lists(st.tuples(FLAG_PATCH, RULE_PATCH, st.none() | st.just({"version": "2"})), max_size=30)


def merged(entries: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in {**entries, **patch}.items() if entry is not None}


@given(EDITS)
def test_a_snapshot_and_its_changes_make_the_state(edits: list[tuple[dict[str, Any], dict[str, Any], Any]]) -> None:
    snapshot = empty_snapshot()
    flags: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for flag_patch, rule_patch, new_metadata in edits:
        epoch, revision, nonce = snapshot.position
        change = Change(
            epoch, revision + 1, f"n{revision + 1}", nonce, 0,
            flags=flag_patch, evaluators=rule_patch, metadata=new_metadata,
        )  # fmt: skip
        before = (snapshot.position, dict(snapshot.flags), dict(snapshot.evaluators), dict(snapshot.metadata))
        later = snapshot.with_change(change)
        assert (snapshot.position, snapshot.flags, snapshot.evaluators, snapshot.metadata) == before
        flags, rules = merged(flags, flag_patch), merged(rules, rule_patch)
        metadata = metadata if new_metadata is None else new_metadata
        assert later == Snapshot(Position(epoch, revision + 1, f"n{revision + 1}"), flags, rules, metadata)
        snapshot = later


@pytest.mark.parametrize(
    ("epoch", "revision", "previous"),
    [("other", 1, "e0-0"), ("e0", 2, "e0-0"), ("e0", 0, "e0-0"), ("e0", 1, "another")],
)
def test_a_change_that_does_not_follow_is_refused(epoch: str, revision: int, previous: str) -> None:
    with pytest.raises(HistoryError, match="does not follow"):
        empty_snapshot().with_change(Change(epoch, revision, "n", previous, 0))


def test_what_a_change_does_not_touch_is_shared_and_not_copied() -> None:
    snapshot = empty_snapshot().with_change(next_change(empty_snapshot(), "a", 1))
    later = snapshot.with_change(next_change(snapshot, "b", 2))
    assert later.evaluators is snapshot.evaluators
    assert later.flags["a"] is snapshot.flags["a"]


POPULATION = {"==": [{"var": "plan"}, "pro"]}


def targeted(number: int, *, whole: bool = False) -> dict[str, Any]:
    """A definition with a rule, which differs for each number."""
    weight = 25.0 if whole else 25
    rule = {"if": [{"$ref": "a"}, "on", {"fractional": [["on", weight], ["off", number]]}]}
    return {**definition(number), "targeting": rule}


def test_a_population_is_compiled_once_until_it_changes() -> None:
    rule = {"in": [{"var": "targetingKey"}, ["u1", "u2"]]}
    first = Snapshot(Position("e0", 0, "n0"), {"a": targeted(1)}, {"a": rule})
    second = first.with_change(Change("e0", 1, "n1", "n0", 0, flags={"a": targeted(2), "b": targeted(3)}))
    third = second.reloaded(Position("e1", 7, "m"), {}, {"a": {"in": [{"var": "targetingKey"}, ["u1", "u2"]]}}, {},
                            second.settings)  # fmt: skip
    compiled = [each.compiled.populations["a"] for each in (first, second, third)]
    assert compiled[0] is compiled[1] is compiled[2]


@given(EDITS, st.lists(st.sampled_from(["", "u1", "u2", "u3"]), max_size=4))
def test_whatever_is_kept_of_what_was_compiled_it_resolves_as_if_all_of_it_were_compiled_anew(
    edits: list[tuple[dict[str, Any], dict[str, Any], Any]], targeting_keys: list[str]
) -> None:
    snapshot = empty_snapshot()
    for flag_patch, rule_patch, metadata in edits:
        flags = {key: flag and targeted(flag["metadata"]["n"]) for key, flag in flag_patch.items()}
        epoch, revision, nonce = snapshot.position
        change = Change(
            epoch, revision + 1, f"n{revision + 1}", nonce, 0, flags=flags, evaluators=rule_patch, metadata=metadata
        )
        earlier, snapshot = snapshot, snapshot.with_change(change)
        parts = (snapshot.position, snapshot.flags, snapshot.evaluators, snapshot.metadata, snapshot.settings)
        fresh, reloaded = Snapshot(*parts), earlier.reloaded(*parts)
        assert list(snapshot.compiled.flags) == list(fresh.compiled.flags) == list(reloaded.compiled.flags)
        for key in ("a", "b", "c", "d"):
            for targeting_key in targeting_keys:
                context = {"targetingKey": targeting_key, "plan": "pro"}
                said = [each.resolve(key, context) for each in (snapshot, fresh, reloaded)]
                assert len({(s.variant, s.reason, s.error_code, s.error_message, str(s.metadata)) for s in said}) == 1


def test_what_is_read_anew_and_is_the_same_is_not_compiled_again() -> None:
    flags = {"a": targeted(1), "b": targeted(2), "c": targeted(3)}
    snapshot = Snapshot(Position("e", 1, "n"), flags, {"a": POPULATION})
    changed = {"a": targeted(1), "b": targeted(9), "c": targeted(3, whole=True), "d": targeted(4)}
    later = snapshot.reloaded(Position("f", 9, "m"), changed, {"a": dict(POPULATION)}, {}, snapshot.settings)
    kept = [key for key, flag in later.compiled.flags.items() if flag is snapshot.compiled.flags.get(key)]
    assert kept == ["a"]
    other = snapshot.reloaded(Position("f", 9, "m"), flags, {"a": {"!": [POPULATION]}}, {}, snapshot.settings)
    assert not any(flag is snapshot.compiled.flags[key] for key, flag in other.compiled.flags.items())
