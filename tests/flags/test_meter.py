import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import RuleTooLong
from flagrelay.flags import meter
from flagrelay.flags.compiler import compile_rule, metered


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    yield
    meter.stop()


def test_outside_of_evaluations_nothing_is_counted() -> None:
    for _ in range(3):
        meter.charge(meter.LIMIT * 10)


def test_an_evaluation_may_do_as_much_as_the_limit_and_no_more() -> None:
    meter.start()
    meter.charge(meter.LIMIT)
    with pytest.raises(RuleTooLong, match=f"visits more than {meter.LIMIT} items"):
        meter.charge(1)


@given(st.lists(st.integers(0, meter.LIMIT), max_size=20))
def test_what_is_charged_adds_up(charges: list[int]) -> None:
    meter.start()
    total = 0
    for charge in charges:
        total += charge
        if total <= meter.LIMIT:
            meter.charge(charge)
        else:
            with pytest.raises(RuleTooLong):
                meter.charge(charge)


def test_the_next_evaluation_starts_from_nothing() -> None:
    for _ in range(3):
        meter.start()
        meter.charge(meter.LIMIT)


def test_what_has_ended_is_counted_no_longer() -> None:
    meter.start()
    meter.stop()
    meter.charge(meter.LIMIT + 1)
    assert math.isinf(meter._meter.left)


def test_a_rule_that_failed_leaves_nothing_behind() -> None:
    rule = compile_rule("flag", "", {"map": [{"var": "x"}, {"var": ""}]}, generation="v3")
    with pytest.raises(RuleTooLong):
        metered(rule)({"x": [0] * (meter.LIMIT + 1)}, "flag")
    assert math.isinf(meter._meter.left)


def test_each_thread_counts_for_itself() -> None:
    together = threading.Barrier(2, timeout=10)

    def work(charges: int) -> bool:
        meter.start()
        together.wait()
        try:
            for _ in range(charges):
                meter.charge(meter.LIMIT // 4)
        except RuleTooLong:
            return False
        finally:
            together.wait()
            meter.stop()
        return True

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, [4, 5])) == [True, False]


@pytest.mark.parametrize("loop", ["map", "filter", "all", "some", "none", "reduce"])
def test_every_loop_is_counted_by_items_and_by_the_size_of_its_body(loop: str) -> None:
    false = {"none": False, "some": False, "all": True}.get(loop, True)
    small = metered(compile_rule("flag", "", {loop: [{"var": "x"}, false]}, generation="v3"))
    body = {"and": [{"or": [{"==": [{"var": "y"}, index]}, false]} for index in range(20)]}
    large = metered(compile_rule("flag", "", {loop: [{"var": "x"}, body]}, generation="v3"))
    context: Any = {"x": [{}] * (meter.LIMIT // 2)}
    small(context, "flag")
    with pytest.raises(RuleTooLong):
        large(context, "flag")
    with pytest.raises(RuleTooLong):
        small({"x": [{}] * (meter.LIMIT + 1)}, "flag")


def test_loops_in_loops_are_counted_together() -> None:
    rule = {"map": [{"var": "x"}, {"map": [{"var": "y"}, {"var": ""}]}]}
    function = metered(compile_rule("flag", "", rule, generation="v3"))
    rows = [{"y": [0] * 100}] * 1000
    assert len(function({"x": rows}, "flag")) == 1000
    with pytest.raises(RuleTooLong):
        function({"x": rows * 3}, "flag")
