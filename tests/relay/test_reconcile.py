"""What Redis says to a local kill: written where nobody has changed the flag since, and never over a newer change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.relay.reconcile import Verdict, judge_kill
from flagrelay.store.reading import FlagEntry, Kill
from support.fakes import definition

OVER = Position("e", 10, "n10")
WAS, OTHER = definition(1), definition(2)


def kill(to: str | None = None) -> LocalKill:
    return LocalKill(key="flag", to=to, actor="ada", reason="errors", at=1, over=OVER, original=WAS)


def entry(revision: int, flag: dict[str, object] = WAS, killed_to: str | None = "not killed") -> FlagEntry:
    done = None if killed_to == "not killed" else Kill(1, "bob", "errors", killed_to, WAS)
    return FlagEntry("flag", revision, flag, done)


HERE, ELSEWHERE = Position("e", 30, "n30"), Position("f", 30, "n30")


@pytest.mark.parametrize(
    ("what", "position", "found", "verdict"),
    [
        ("nobody has changed it", HERE, entry(10), Verdict.WRITE),
        ("it was last changed long before", HERE, entry(3), Verdict.WRITE),
        ("somebody has changed it since", HERE, entry(11, OTHER), Verdict.CONFLICT),
        ("somebody has changed it and changed it back", HERE, entry(12), Verdict.CONFLICT),
        ("somebody has deleted it", HERE, None, Verdict.CONFLICT),
        ("somebody has killed it the same way", HERE, entry(11, OTHER, None), Verdict.DONE),
        ("it was killed the same way before", HERE, entry(9, OTHER, None), Verdict.DONE),
        ("somebody has killed it to a variant since", HERE, entry(11, OTHER, "on"), Verdict.CONFLICT),
        ("it was killed to a variant before", HERE, entry(9, WAS, "on"), Verdict.WRITE),
        ("another history, the same flag", ELSEWHERE, entry(5), Verdict.WRITE),
        ("another history, another flag", ELSEWHERE, entry(5, OTHER), Verdict.CONFLICT),
        ("another history, the same flag, but later", ELSEWHERE, entry(11), Verdict.CONFLICT),
        ("another history, no such flag", ELSEWHERE, None, Verdict.CONFLICT),
    ],
)
def test_a_kill_is_written_only_over_what_it_was_put_over(
    what: str, position: Position, found: FlagEntry | None, verdict: Verdict
) -> None:
    judgement = judge_kill(kill(), position, found)
    assert judgement.verdict is verdict, what
    assert judgement.why


def test_a_kill_to_a_variant_is_done_only_by_one_to_the_same() -> None:
    assert judge_kill(kill("on"), HERE, entry(11, OTHER, "on")).verdict is Verdict.DONE
    assert judge_kill(kill("on"), HERE, entry(11, OTHER, None)).verdict is Verdict.CONFLICT


@given(
    st.sampled_from([HERE, ELSEWHERE]),
    st.integers(0, 20),
    st.sampled_from([WAS, OTHER]),
    st.sampled_from(["not killed", None, "on"]),
    st.sampled_from([None, "on"]),
)
def test_nothing_is_ever_written_over_a_change_that_may_be_newer(
    position: Position, revision: int, flag: dict[str, object], killed_to: str | None, to: str | None
) -> None:
    verdict = judge_kill(kill(to), position, entry(revision, flag, killed_to)).verdict
    if verdict is Verdict.WRITE:
        assert revision <= OVER.revision
        assert position.epoch == OVER.epoch or flag == WAS
    if verdict is Verdict.DONE:
        assert killed_to == to
