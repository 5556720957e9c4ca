"""What talks to Redis runs on uvloop, as the relay does; what is about the ends of tasks on asyncio's own loop too."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_UVLOOP = {"test_source.py", "test_pipeline.py", "test_relay.py"}
ON_BOTH = {
    "test_channel.py",
    "test_it_ends_when_it_is_cancelled_whatever_it_is_doing",
    "test_connections_that_break_at_any_moment_end_nothing",
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    names = {item.path.name, getattr(item, "originalname", None)}
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}
    if names & (ON_UVLOOP | ON_BOTH):
        loops["uvloop"] = uvloop.new_event_loop
    if names & ON_BOTH or not loops:
        loops["asyncio"] = asyncio.SelectorEventLoop
    return loops
