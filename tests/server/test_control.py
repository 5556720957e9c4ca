"""How a supervisor and a worker speak: whatever the other end does, nobody waits for long."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from flagrelay.errors import FlagMissing, NoAnswer
from flagrelay.server import control
from flagrelay.server.control import Channel, Handler, hear, tell


@contextlib.asynccontextmanager
async def pair(**handlers: Handler) -> AsyncIterator[tuple[Channel, Channel]]:
    """An end that asks, and one that answers."""
    ends = socket.socketpair()
    asking, answering = await Channel.open(ends[0], {}), await Channel.open(ends[1], handlers)
    try:
        yield asking, answering
    finally:
        await asking.close()
        await answering.close()


async def echo(message: dict[str, Any]) -> dict[str, Any]:
    return {"heard": message["text"]}


async def never(_message: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def test_questions_are_answered_each_with_its_own_answer() -> None:
    release = asyncio.Event()

    async def late(message: dict[str, Any]) -> dict[str, Any]:
        await release.wait()
        return await echo(message)

    async with pair(echo=echo, late=late) as (asking, _):
        first = asyncio.create_task(asking.ask("late", within=5, text="first"))
        assert await asking.ask("echo", within=5, text="\n ü \U0001f600") == {"heard": "\n ü \U0001f600"}
        release.set()
        assert await first == {"heard": "first"}


async def test_either_end_asks() -> None:
    ends = socket.socketpair()
    one, other = [await Channel.open(end, {"echo": echo}) for end in ends]
    questions = [end.ask("echo", within=5, text=text) for end, text in ((one, "1"), (other, "2"))]
    heard = await asyncio.gather(*questions)
    assert heard == [{"heard": "1"}, {"heard": "2"}]
    await one.close()
    async with asyncio.timeout(5):
        await other.closed.wait()
    await other.close()


async def test_what_is_not_answered_in_time_is_no_answer_and_keeps_nobody_else_waiting() -> None:
    async with pair(echo=echo, never=never) as (asking, _):
        with pytest.raises(NoAnswer, match=r"within 0\.02 s"):
            await asking.ask("never", within=0.02)
        assert await asking.ask("echo", within=5, text="x") == {"heard": "x"}


async def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    release = asyncio.Event()

    async def late(_message: dict[str, Any]) -> dict[str, Any]:
        await release.wait()
        return {"for": "late"}

    async with pair(echo=echo, late=late) as (asking, _):
        with pytest.raises(NoAnswer):
            await asking.ask("late", within=0.02)
        release.set()
        assert await asking.ask("echo", within=5, text="x") == {"heard": "x"}


async def test_a_refusal_is_told_in_its_own_words_and_a_bug_as_one() -> None:
    async def refuse(_message: dict[str, Any]) -> dict[str, Any]:
        raise FlagMissing("production", "flag")

    async def broken(_message: dict[str, Any]) -> dict[str, Any]:
        raise TypeError("a bug")

    async with pair(refuse=refuse, broken=broken) as (asking, _):
        with pytest.raises(NoAnswer, match='has no flag "flag"'):
            await asking.ask("refuse", within=5)
        with capture_logs() as logged:
            for what in ("broken", "unheard_of"):
                with pytest.raises(NoAnswer, match="it fails"):
                    await asking.ask(what, within=5)
        assert [entry["what"] for entry in logged] == ["broken", "unheard_of"]


async def test_an_end_that_goes_ends_every_question() -> None:
    async with pair(never=never) as (asking, answering):
        question = asyncio.create_task(asking.ask("never", within=60))
        await asyncio.sleep(0)
        await answering.close()
        with pytest.raises(NoAnswer, match="it is gone"):
            await question
        with pytest.raises(NoAnswer, match="it is gone"):
            await asking.ask("never", within=60)


async def test_whoever_asks_in_the_turn_in_which_the_other_end_dies_is_told_that_it_is_gone() -> None:
    loop = asyncio.get_running_loop()
    untold: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: untold.append(context))
    ours, theirs = socket.socketpair()
    with theirs:
        asking = await Channel.open(ours, {"echo": echo})
        unread = asyncio.create_task(asking.ask("x", within=5))
        await asyncio.sleep(0)
        theirs.sendall(b'{"ask": 1, "what": "echo", "text": "answered to nobody"}\n')
    # Dead with something unread: a reset, of which the transport knows some turns before whoever reads.
    questions = [unread]
    for _ in range(10):
        questions.append(asyncio.create_task(asking.ask("x", within=5)))
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*questions, return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes] == [repr(NoAnswer("it is gone"))] * 11
    await asking.close()
    del asking
    gc.collect()
    assert untold == []


async def asked(asking: Channel) -> str:
    """Why a long question is not answered."""
    with pytest.raises(NoAnswer) as refused:
        await asking.ask("x", within=0, text="x" * 10_000)
    return str(refused.value)


async def test_an_end_that_does_not_read_is_asked_no_more_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "MOST_UNREAD", 100_000)
    ours, theirs = socket.socketpair()
    with theirs:
        asking = await Channel.open(ours, {})
        reasons = [await asked(asking) for _ in range(100)]
        assert "does not answer" in reasons[0]
        assert "does not read" in reasons[-1]
        await asking.close()


async def test_what_is_too_long_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LONGEST", 1000)

    async def talkative(_message: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 1000}

    async with pair(talkative=talkative, echo=echo) as (asking, _):
        with pytest.raises(NoAnswer, match="1000 are the most"):
            await asking.ask("echo", within=5, text="x" * 1000)
        with pytest.raises(NoAnswer, match="1000 are the most"):
            await asking.ask("talkative", within=5)
        assert await asking.ask("echo", within=5, text="x") == {"heard": "x"}


@pytest.mark.parametrize("garbage", [b"garbage\n", b"[]\n", b'{"neither": 1}\n', b"x" * 100_000, b'{"ask": 1'])
async def test_what_is_none_of_ours_ends_the_channel(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LONGEST", 10_000)
    ours, theirs = socket.socketpair()
    with theirs, capture_logs():
        hearing = await Channel.open(ours, {"echo": echo})
        theirs.sendall(garbage)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(5):
            await hearing.closed.wait()
        await hearing.close()


def test_what_is_told_before_there_is_a_loop_is_heard() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            tell(ours, "serve", settings={"env": ["production"]})
            assert hear(theirs) == {"ask": 0, "what": "serve", "settings": {"env": ["production"]}}
        assert hear(theirs) is None
