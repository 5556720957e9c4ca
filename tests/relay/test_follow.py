import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.flags.change import Change, Hint
from flagrelay.flags.position import Position
from flagrelay.relay.follow import Repair, Step, compare, judge

MINE = Position("e", 5, "n5")


def change(epoch: str = "e", revision: int = 6, nonce: str = "n6", previous: str = "n5") -> Change:
    return Change(epoch=epoch, revision=revision, nonce=nonce, previous=previous, at=0)


@pytest.mark.parametrize(
    ("message", "step"),
    [
        (change(), Step.APPLY),
        (Hint("e", 6, "n6", "n5"), Step.REPAIR),
        (change(revision=7), Step.REPAIR),
        (change(revision=5, nonce="n5", previous="n4"), Step.DROP),
        (change(revision=4, nonce="n4", previous="n3"), Step.DROP),
        (change(revision=5, nonce="x5", previous="n4"), Step.REPAIR),
        (change(previous="x5"), Step.REPAIR),
        (change(epoch="f"), Step.REPAIR),
        (change(epoch="f", revision=3), Step.REPAIR),
    ],
)
def test_only_the_very_next_change_of_our_history_is_applied(message: Change | Hint, step: Step) -> None:
    assert judge(MINE, message) is step


@pytest.mark.parametrize(
    ("theirs", "repair"),
    [
        (MINE, Repair.NONE),
        (Position("e", 9, "n9"), Repair.FILL),
        (Position("e", 4, "n4"), Repair.RELOAD),
        (Position("e", 5, "x5"), Repair.RELOAD),
        (Position("f", 5, "n5"), Repair.RELOAD),
        (Position("f", 9, "n9"), Repair.RELOAD),
    ],
)
def test_another_history_in_redis_is_reloaded_and_a_longer_one_filled(theirs: Position, repair: Repair) -> None:
    assert compare(MINE, theirs) is repair


@given(st.lists(st.integers(0, 12), max_size=40))
def test_whatever_order_messages_come_in_only_an_unbroken_chain_is_applied(order: list[int]) -> None:
    history = [change(revision=n, nonce=f"n{n}", previous=f"n{n - 1}") for n in range(1, 13)]
    mine = Position("e", 0, "n0")
    for index in order:
        message = history[index - 1]
        if judge(mine, message) is Step.APPLY:
            assert message.revision == mine.revision + 1
            mine = message.position
        elif judge(mine, message) is Step.DROP:
            assert message.revision <= mine.revision
        else:
            assert message.revision > mine.revision + 1
