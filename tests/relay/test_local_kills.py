"""What a relay holds by itself, as one worker of a node gives it to another."""

from typing import cast

import orjson
import pytest

from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.relay.local_kills import LocalKills, Standing
from flagrelay.relay.reconcile import KillState
from flagrelay.store.connection import Store
from support.fakes import definition


def kill(key: str, to: str | None = None) -> LocalKill:
    over = Position("e", 10, "n10")
    return LocalKill(key=key, to=to, actor="ada", reason="errors", at=1, over=over, original=definition(1))


@pytest.mark.parametrize("state", KillState)
@pytest.mark.parametrize("to", [None, "on"])
@pytest.mark.parametrize("seen_at", [None, Position("e", 11, "n11")])
def test_a_standing_is_the_same_after_its_way_to_another_worker(
    state: KillState, to: str | None, seen_at: Position | None
) -> None:
    standing = Standing(kill("flag", to), state, "a reason \U0001f600", seen_at)
    assert Standing.from_json(orjson.loads(orjson.dumps(standing.as_json()))) == standing


def test_what_is_taken_over_replaces_what_was_held() -> None:
    kills = LocalKills(cast("Store", None), "production", None)
    for key in ("withdrawn", "both"):
        kills.put(kill(key))
    both, new = Standing(kill("both", "on"), KillState.WRITTEN, "written"), Standing(kill("new"))
    assert kills.inherit([both, new]) == {"withdrawn", "both", "new"}
    assert kills.held == {"both": both, "new": new}
    assert kills.unkept


def test_where_nothing_is_held_and_nothing_taken_over_there_is_nothing_to_keep() -> None:
    kills = LocalKills(cast("Store", None), "production", None)
    assert kills.inherit([]) == set()
    assert not kills.unkept
