"""The difference between a file and an environment."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagrelay.control.importing import plan_import
from flagrelay.flags.definition import FlagSet
from flagrelay.flags.position import Position
from flagrelay.store.reading import FlagEntry, State

VALUES = st.sampled_from([0, 1, 1.0, True, "1", [1], [True], {"a": 1}, {"a": 1.0}])
ENTRIES = st.dictionaries(st.sampled_from("abcd"), VALUES.map(lambda value: {"of": value}), max_size=4)
FLAG_SETS = st.builds(FlagSet, ENTRIES, ENTRIES, st.dictionaries(st.just("m"), st.sampled_from([1, 1.0, True, "1"])))


def state_of(flag_set: FlagSet, revision: int = 3) -> State:
    return State(
        Position("e", revision, "n"),
        {key: FlagEntry(key, revision, flag) for key, flag in flag_set.flags.items()},
        {name: (revision, rule) for name, rule in flag_set.evaluators.items()},
        flag_set.metadata,
    )


def after(entries: Any, patch: Any) -> dict[str, Any]:
    merged = {**entries, **patch}
    return {name: entry for name, entry in merged.items() if entry is not None}


@given(FLAG_SETS, FLAG_SETS, st.booleans())
def test_a_plan_makes_the_environment_what_the_file_says_and_touches_nothing_else(
    before: FlagSet,
    wanted: FlagSet,
    prune: bool,  # noqa: FBT001 - hypothesis gives it by position
) -> None:
    plan = plan_import(state_of(before), wanted, prune=prune)
    flags, evaluators = after(before.flags, plan.flags), after(before.evaluators, plan.evaluators)
    metadata = before.metadata if plan.metadata is None else plan.metadata
    if prune:
        expected = wanted
    else:
        expected = FlagSet(
            {**before.flags, **wanted.flags},
            {**before.evaluators, **wanted.evaluators},
            wanted.metadata or before.metadata,
        )
    # As JSON text, since Python holds True, 1 and 1.0 for the same.
    assert [json.dumps(each, sort_keys=True) for each in (flags, evaluators, metadata)] == [
        json.dumps(each, sort_keys=True) for each in (expected.flags, expected.evaluators, expected.metadata)
    ]
    for key, flag in plan.flags.items():
        assert json.dumps(before.flags.get(key)) != json.dumps(flag), "only what differs is touched"
        assert plan.flag_revisions[key] == (3 if key in before.flags else 0)
    assert plan.evaluator_revisions.keys() == plan.evaluators.keys()
    again = state_of(FlagSet(flags, evaluators, metadata))
    assert plan_import(again, wanted, prune=prune).empty
