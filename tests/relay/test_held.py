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
            held.reset()
            after.clear()
            assert held.start == held.head
        else:
            held.append(number, size)
            after[held.head] = (number, size)
        kept = [after[position] for position in range(held.start + 1, held.head + 1)]
        assert len(kept) <= most
        assert len(kept) <= 1 or sum(size for _, size in kept) <= most_bytes
        for position in range(held.start, held.head + 1):
            assert held.after(position) == [after[later][0] for later in range(position + 1, held.head + 1)]
        assert held.after(held.start - 1) is None


def test_after_a_reset_nobody_can_catch_up() -> None:
    held: Held[str] = Held(10, 1000)
    held.append("item", 10)
    before = held.head
    held.reset()
    assert held.after(before) is None
    assert held.after(held.head) == []
