from hypothesis import given
from hypothesis import strategies as st

from flagrelay.relay.held import Held


@given(st.integers(1, 8), st.integers(20, 200), st.lists(st.integers(5, 60) | st.none(), max_size=40))
def test_what_is_held_is_everything_after_the_start_and_never_more_than_allowed(
    most: int, most_bytes: int, steps: list[int | None]
) -> None:
    held: Held[int] = Held(most, most_bytes)
    after: dict[int, tuple[int, int]] = {}
    for number, size in enumerate(steps):
        if size is None:
            held.reset("another")
            after.clear()
            assert held.start == held.head
        else:
            held.append(number, size, str(number))
            after[held.head] = (number, size)
        kept = [after[position] for position in range(held.start + 1, held.head + 1)]
        assert len(kept) <= most
        assert len(kept) <= 1 or sum(size for _, size in kept) <= most_bytes
        assert [held.find(str(known)) for known, _ in kept] == list(range(held.start + 1, held.head + 1))
        for position in range(held.start, held.head + 1):
            assert held.after(position) == [after[later][0] for later in range(position + 1, held.head + 1)]
        assert held.after(held.start - 1) is None


def test_after_a_reset_nobody_can_catch_up() -> None:
    held: Held[str] = Held(10, 1000)
    held.append("item", 10, "e.1")
    before = held.head
    held.reset("another")
    assert held.after(before) is None
    assert held.after(held.head) == []
    assert (held.find("e.1"), held.find("another")) == (None, held.head)


def test_a_state_that_comes_again_is_found_where_it_came_last() -> None:
    held: Held[str] = Held(2, 1000)
    for event_id in ("e.1~a", "e.1", "e.1~a", "e.2"):
        held.append(event_id, 10, event_id)
    assert held.find("e.1~a") == 3
    assert held.after(3) == ["e.2"]
    assert held.find("e.1") == 2, "the oldest that is held is caught up from"
