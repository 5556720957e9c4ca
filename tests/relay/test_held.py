from hypothesis import given
from hypothesis import strategies as st

from flagrelay.relay.held import Held
from flagrelay.wire.frame import Frame, Framing


def frame(number: int, size: int = 10) -> Frame:
    body = b"%d," % number
    return Frame(body, body.rjust(size, b"."))


@given(st.integers(1, 8), st.integers(20, 200), st.lists(st.integers(5, 60) | st.none(), max_size=40))
def test_what_is_held_is_everything_after_the_start_and_never_more_than_allowed(
    most: int, most_bytes: int, steps: list[int | None]
) -> None:
    held = Held(most, most_bytes)
    after: dict[int, Frame] = {}
    for number, size in enumerate(steps):
        if size is None:
            held.reset()
            after.clear()
            assert held.start == held.head
        else:
            held.append(frame(number, size))
            after[held.head] = frame(number, size)
        kept = [after[position] for position in range(held.start + 1, held.head + 1)]
        assert len(kept) <= most
        assert len(kept) <= 1 or sum(len(each.chunked) for each in kept) <= most_bytes
        for position in range(held.start, held.head + 1):
            expected = b"".join(after[later].plain for later in range(position + 1, held.head + 1))
            assert held.after(position, Framing.PLAIN) == expected
        assert held.after(held.start - 1, Framing.PLAIN) is None


def test_after_a_reset_nobody_can_catch_up_by_frames() -> None:
    held = Held(10, 1000)
    held.append(frame(1))
    before = held.head
    held.reset()
    assert held.after(before, Framing.CHUNKED) is None
    assert held.after(held.head, Framing.CHUNKED) == b""
