"""How often each key may ask, with a clock that a test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import Refusal
from flagrelay.server import rates
from flagrelay.server.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def admitted(limits: Rates, key_id: str = "k") -> bool:
    try:
        limits.admit(key_id)
    except Refusal as refusal:
        assert refusal.status == 429
        assert refusal.retry_after
        return False
    return True


@given(st.integers(1, 20), st.lists(st.floats(0, 0.5), max_size=60))
def test_no_key_asks_more_often_than_it_may_nor_less(per_second: int, waits: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(rates, "monotonic", clock)
        limits = Rates(per_second)
        allowed = sum(admitted(limits) for _ in range(per_second * 2))
        assert allowed == per_second, "a second's worth at once"
        for wait in waits:
            clock.now += wait
            allowed += admitted(limits)
        elapsed = clock.now - 50.0
        assert allowed <= per_second + elapsed * per_second + 1e-6


def test_after_the_time_that_it_was_told_a_key_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(rates, "monotonic", clock)
    limits = Rates(1)
    assert admitted(limits)
    with pytest.raises(Refusal) as refusal:
        limits.admit("k")
    assert admitted(limits, "another")
    clock.now += refusal.value.retry_after or 0
    assert admitted(limits)


def test_without_a_limit_nobody_is_counted() -> None:
    limits = Rates(0)
    assert all(admitted(limits) for _ in range(1000))
