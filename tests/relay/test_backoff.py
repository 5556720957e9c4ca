import random

from hypothesis import given
from hypothesis import strategies as st

from flagrelay.relay.backoff import Backoff


@given(st.integers())
def test_waits_double_up_to_the_longest_and_are_jittered_below_it(seed: int) -> None:
    backoff = Backoff(0.05, 5.0, random.Random(seed))
    ceiling = 0.05
    for _ in range(20):
        assert ceiling / 2 <= backoff.next() <= ceiling
        ceiling = min(ceiling * 2, 5.0)
    assert ceiling == 5.0


def test_after_a_reset_the_first_wait_is_short_again() -> None:
    backoff = Backoff(0.05, 5.0)
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.05


def test_a_fleet_does_not_wait_for_the_same_time() -> None:
    assert len({Backoff(0.05, 5.0).next() for _ in range(20)}) > 10
