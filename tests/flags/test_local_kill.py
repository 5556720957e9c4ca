"""A kill that one relay holds by itself, on top of a snapshot."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagrelay.flags.change import Change
from flagrelay.flags.local_kill import MARKER, LocalKill, mark_of
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import Reason
from flagrelay.flags.snapshot import Snapshot

POSITION = Position("e", 1, "n1")
FLAG = {
    "state": "ENABLED",
    "variants": {"on": True, "off": False},
    "defaultVariant": "off",
    "targeting": {"if": [{"==": [{"var": "targetingKey"}, "ada"]}, "on", "off"]},
    "metadata": {"team": "checkout"},
}
KEYS = ("a", "b", "c")


def kill(key: str = "a", to: str | None = None) -> LocalKill:
    return LocalKill(key=key, to=to, actor="ada", reason="errors", at=1, over=POSITION, original=FLAG)


def test_a_killed_flag_is_disabled_and_says_that_this_relay_did_it() -> None:
    shown = Snapshot(POSITION, {"a": FLAG, "b": FLAG}).with_kills({"a": kill()})
    resolved = shown.resolve("a", {"targetingKey": "ada"})
    assert (resolved.reason, resolved.variant) == (Reason.DISABLED, None)
    assert resolved.metadata == {"team": "checkout", MARKER: True}
    assert shown.resolve("b", {"targetingKey": "ada"}).value is True
    assert shown.position == POSITION


def test_a_flag_killed_to_a_variant_gives_it_to_everybody() -> None:
    shown = Snapshot(POSITION, {"a": {**FLAG, "state": "DISABLED"}}).with_kills({"a": kill(to="on")})
    assert [shown.resolve("a", {"targetingKey": who}).value for who in ("ada", "bob")] == [True, True]


def test_a_variant_that_the_flag_has_lost_leaves_it_disabled() -> None:
    assert kill(to="gone").applied(FLAG)["state"] == "DISABLED"
    assert kill(to="on").applied({**FLAG, "variants": None, "metadata": 3})["state"] == "DISABLED"


def test_without_kills_it_is_the_same_snapshot() -> None:
    snapshot = Snapshot(POSITION, {"a": FLAG})
    assert snapshot.with_kills({}) is snapshot
    assert snapshot.mark == mark_of({}) == ""


@given(st.dictionaries(st.sampled_from(KEYS), st.none() | st.sampled_from(["on", "off", ""]), max_size=3), st.data())
def test_the_mark_tells_sets_of_kills_apart_and_nothing_else(kills: dict[str, Any], data: st.DataObject) -> None:
    others = data.draw(
        st.dictionaries(st.sampled_from(KEYS), st.none() | st.sampled_from(["on", "off", ""]), max_size=3)
    )
    marks = [mark_of({key: kill(key, to) for key, to in each.items()}) for each in (kills, others)]
    assert (marks[0] == marks[1]) == (kills == others)
    reordered = dict(reversed(kills.items()))
    assert mark_of({key: kill(key, to) for key, to in reordered.items()}) == marks[0]


@given(
    st.sets(st.sampled_from(KEYS)),
    st.dictionaries(st.sampled_from(KEYS), st.none() | st.sampled_from(["on", "off"]), max_size=3),
    st.dictionaries(st.sampled_from(KEYS), st.none() | st.just({**FLAG, "defaultVariant": "on"}), min_size=1),
)
def test_a_kill_holds_over_every_change_and_ends_without_a_trace(
    present: set[str], killed: dict[str, Any], changed: dict[str, Any]
) -> None:
    snapshot = Snapshot(POSITION, dict.fromkeys(sorted(present), FLAG))
    kills = {key: kill(key, to) for key, to in killed.items()}
    later = snapshot.with_change(Change("e", 2, "n2", "n1", 0, flags=changed))
    for base in (snapshot, later):
        shown = base.with_kills(kills)
        assert shown.flags.keys() == base.flags.keys() == shown.compiled.flags.keys()
        for key in base.flags:
            expected = kills[key].applied(base.flags[key]) if key in kills else base.flags[key]
            assert shown.flags[key] == expected
            alone = Snapshot(POSITION, {key: expected}).resolve(key, {"targetingKey": "ada"})
            there = shown.resolve(key, {"targetingKey": "ada"})
            assert (there.value, there.reason, there.metadata) == (alone.value, alone.reason, alone.metadata)
        assert shown.with_kills({}) == shown
        assert base.mark == ""
