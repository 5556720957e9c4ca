"""`Idempotency-Key`: the same request, sent again, is done once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from flagrelay.control.session import Session
from flagrelay.errors import StoreUnavailable
from flagrelay.server import idempotency
from flagrelay.server.idempotency import Attempt
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.idempotency import KEPT, PENDING, Begun, Mark, claim, forget, settle
from flagrelay.store.reading import read_position
from flagrelay.store.writing import kill_flag, revive_flag
from support.admin import FLAG, Admin, administered
from support.relays import ENVIRONMENT, World

KILL = ("POST", "/flags/flag/kill", {"reason": "error rate"})


@pytest.fixture
async def admin(world: World) -> AsyncIterator[Admin]:
    async with administered(world) as someone:
        yield someone


async def names(store: Store) -> list[bytes]:
    """The keys in Redis that stand for idempotency keys."""
    return sorted(await store.client.keys("flagrelay:{production}:idempotency:*"))


async def test_the_same_request_is_done_once_and_answered_alike(admin: Admin, world: World) -> None:
    put = ("PUT", "/flags/new", {"definition": FLAG})
    first = await admin.ask(*put, if_none_match="*", idempotency_key='"8e03978e-40d5"')
    again = await admin.ask(*put, if_none_match="*", idempotency_key='"8e03978e-40d5"')
    assert (first.status, first.headers.get("idempotency-replayed")) == (200, None)
    assert (again.status, again.headers["idempotency-replayed"]) == (200, "true")
    assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])
    assert (await read_position(world.store, ENVIRONMENT)).revision == first.json["revision"]


async def test_another_request_with_the_same_key_is_refused(admin: Admin) -> None:
    await admin.ok(*KILL, idempotency_key="k")
    method, path, body = KILL
    others: tuple[tuple[str, str, Any, dict[str, str]], ...] = (
        (method, "/flags/old/kill", body, {}),
        (method, path, {**body, "to": "on"}, {}),
        (method, path, body, {"if_match": '"3"'}),
        (method, path + "?a=b", body, {}),
        ("PUT", path, body, {}),
    )
    for *other, headers in others:
        method, path, body = other
        why = await admin.refused(422, "IDEMPOTENCY_KEY_REUSED", method, path, body, **headers, idempotency_key="k")
        assert "came with another request" in why


async def test_the_keys_of_somebody_else_are_others(admin: Admin) -> None:
    await admin.ok(*KILL, idempotency_key="k")
    other = Admin(admin.relay, await admin.relay.secret("admin"))
    answer = await other.ask("POST", "/flags/flag/revive", idempotency_key="k")
    assert (answer.status, "idempotency-replayed" in answer.headers) == (200, False)


async def test_of_two_at_once_one_is_done_and_the_other_told_to_ask_again(
    admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, writing, go_on = Session.write, asyncio.Event(), asyncio.Event()

    async def slow(self: Session, body: Any) -> Any:
        writing.set()
        await go_on.wait()
        return await original(self, body)

    monkeypatch.setattr(Session, "write", slow)
    first = asyncio.create_task(admin.ask(*KILL, idempotency_key="k"))
    await writing.wait()
    second = await admin.ask(*KILL, idempotency_key="k")
    assert (second.status, second.json["errorCode"]) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert second.headers["retry-after"] == "1"
    go_on.set()
    done = await first
    assert done.status == 200
    assert (await admin.ok(*KILL, idempotency_key="k"))["revision"] == done.json["revision"]
    assert (await read_position(world.store, ENVIRONMENT)).revision == done.json["revision"]


async def test_many_at_once_change_one_thing(admin: Admin, world: World) -> None:
    before = (await read_position(world.store, ENVIRONMENT)).revision
    put = ("PUT", "/flags/new", {"definition": FLAG})
    answers = await asyncio.gather(*(admin.ask(*put, idempotency_key="k") for _ in range(10)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert any(answer.status == 200 for answer in answers)
    assert (await read_position(world.store, ENVIRONMENT)).revision == before + 1


async def test_what_was_refused_may_be_asked_again_with_the_same_key(admin: Admin, world: World) -> None:
    revive = ("POST", "/flags/flag/revive")
    await admin.refused(409, "NOT_KILLED", *revive, idempotency_key="k")
    assert await names(world.store) == []
    await admin.ok(*KILL)
    await admin.ok(*revive, idempotency_key="k")


async def test_what_fails_before_anything_is_written_is_not_remembered(
    admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, status in ((StoreUnavailable("Redis is away"), 503), (RuntimeError("a mistake"), 500)):

        async def fail(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Session, "write", fail)  # which a session does its writes through
            assert (await admin.ask(*KILL, idempotency_key="k")).status == status
        assert await names(world.store) == []
    await admin.ok(*KILL, idempotency_key="k")


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailable("no answer", unsure=True), 503), (RuntimeError("oh"), 500)]
)
async def test_what_may_have_been_written_is_not_done_again(
    error: Exception, status: int, admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*words: Any, **members: Any) -> None:
        await kill_flag(*words, **members)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("flagrelay.control.flags.kill_flag", lost)
        assert (await admin.ask(*KILL, idempotency_key="k")).status == status
    await revive_flag(world.store, ENVIRONMENT, "flag")
    revision = (await read_position(world.store, ENVIRONMENT)).revision
    why = await admin.refused(409, "OUTCOME_UNKNOWN", *KILL, idempotency_key="k")
    assert "may have been done" in why
    assert (await read_position(world.store, ENVIRONMENT)).revision == revision
    await admin.refused(422, "IDEMPOTENCY_KEY_REUSED", "POST", "/flags/flag/revive", idempotency_key="k")
    [name] = await names(world.store)
    assert PENDING < await world.store.client.ttl(name) <= KEPT
    await admin.ok(*KILL, idempotency_key="another")


async def test_what_was_being_written_as_its_relay_ended_is_not_done_again(world: World) -> None:
    attempt, writing = Attempt(), asyncio.Event()

    async def write(_store: Store) -> None:
        writing.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(attempt.around(world.store, write))
    await writing.wait()
    task.cancel()
    await asyncio.wait([task])
    assert attempt.may_have_written


async def test_the_outcome_of_an_environment_that_is_no_more_is_not_told_of_its_successor(
    admin: Admin, world: World
) -> None:
    put = ("PUT", "/flags/new", {"definition": FLAG})
    await admin.ok(*put, idempotency_key="k")
    await destroy_environment(world.store, ENVIRONMENT)
    await create_environment(world.store, ENVIRONMENT)
    why = await admin.refused(409, "OUTCOME_UNKNOWN", *put, idempotency_key="k")
    assert "another history" in why
    await admin.refused(404, "FLAG_NOT_FOUND", "GET", "/flags/new")
    await admin.ok(*put, idempotency_key="another")


async def test_what_was_done_is_done_though_redis_is_lost_before_it_is_remembered(
    admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> None:
        raise StoreUnavailable("Redis is away")

    monkeypatch.setattr(idempotency, "settle", lost)
    with structlog.testing.capture_logs() as logs:
        await admin.ok(*KILL, idempotency_key="k")
    assert any("not remembered" in line["event"] for line in logs)
    await admin.refused(409, "IDEMPOTENCY_IN_PROGRESS", *KILL, idempotency_key="k")


async def test_redis_holds_neither_the_key_nor_the_request_and_forgets_by_itself(admin: Admin, world: World) -> None:
    await admin.ok(*KILL, idempotency_key="key-of-ours")
    [name] = await names(world.store)
    assert PENDING < await world.store.client.ttl(name) <= KEPT
    held = await world.store.client.get(name)
    for text in (b"key-of-ours", b"error rate", admin.secret.encode()):
        assert text not in name + held


async def test_a_request_whose_relay_died_is_waited_for_no_longer_than_a_minute_and_not_done_again(
    world: World,
) -> None:
    store = world.store
    mark = await claim(store, ENVIRONMENT, "digest", "fingerprint")
    assert isinstance(mark, Mark)
    [name] = await names(store)
    begun = Begun(fingerprint="fingerprint", outcome="", pending=True)
    assert await claim(store, ENVIRONMENT, "digest", "fingerprint") == begun
    await store.client.expire(name, KEPT - PENDING)
    assert await claim(store, ENVIRONMENT, "digest", "fingerprint") == replace(begun, pending=False)
    await store.client.delete(name)
    other = await claim(store, ENVIRONMENT, "digest", "fingerprint")
    assert isinstance(other, Mark)
    assert other != mark
    await settle(store, ENVIRONMENT, "digest", mark, "done")
    await forget(store, ENVIRONMENT, "digest", mark)
    assert await store.client.get(name) == other.text, "what came late leaves another's mark alone"


async def test_what_something_else_left_there_is_no_outcome(admin: Admin, world: World) -> None:
    await admin.ok(*KILL, idempotency_key="k")
    [name] = await names(world.store)
    await world.store.client.set(name, b"nonsense")
    await admin.refused(500, "STORE_ERROR", *KILL, idempotency_key="k")


async def test_a_read_takes_no_notice_of_it(admin: Admin, world: World) -> None:
    await admin.ok("GET", "/flags/flag", idempotency_key="k")
    assert await names(world.store) == []
