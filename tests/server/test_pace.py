"""So many a turn, in order, and no more than may wait."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from flagrelay.server.pace import Pace, Turn


@given(st.integers(1, 5), st.integers(0, 20), st.lists(st.integers(0, 12), max_size=8))
def test_everybody_has_a_turn_in_order_and_no_turn_has_too_many(per_turn: int, most: int, arrivals: list[int]) -> None:
    async def run() -> None:
        pace = Pace(per_turn, most)
        started: list[int] = []
        expected: list[int] = []
        number = 0
        for arriving in arrivals:
            before = len(started)
            for _ in range(arriving):
                waiting = pace.waiting
                match pace.enter(lambda mine=number: started.append(mine)):  # type: ignore[misc]  # bound on purpose
                    case Turn.NOW:
                        started.append(number)
                        expected.append(number)
                        assert waiting == 0, "nobody overtakes"
                    case Turn.LATER:
                        expected.append(number)
                    case Turn.NEVER:
                        assert waiting == most
                assert pace.waiting <= most
                number += 1
            assert len(started) - before <= per_turn
            before = len(started)
            await asyncio.sleep(0)
            assert len(started) - before <= per_turn
        for _ in range(len(expected) + 2):
            await asyncio.sleep(0)
        assert started == expected
        assert pace.waiting == 0

    asyncio.run(run())
