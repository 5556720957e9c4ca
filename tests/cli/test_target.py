"""The same operations in Redis and over a relay's control API: the same answers, the same sentences."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import click
import pytest

from flagrelay.cli.target import Target
from flagrelay.control.answers import Change
from flagrelay.control.operation import Operation
from flagrelay.control.table import OPERATIONS
from flagrelay.errors import FlagrelayError, InputError
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.reading import read_flag
from support.admin import FLAG, PLAN, Admin, administered
from support.cli import Cli
from support.relays import ENVIRONMENT, make_world, running_relay

ACTOR = "a test's"
"""As the keys of tests are named."""


@pytest.fixture
async def admin(store: Store) -> AsyncIterator[Admin]:
    async with administered(await make_world(store, store.address.url)) as someone:
        yield someone


def in_redis(store: Store, **members: Any) -> Target:
    redis: dict[str, Any] = {
        "redis_url": store.address.url,
        "redis_sentinels": (),
        "redis_sentinel_master": "",
        "redis_cluster": False,
        "prefix": store.keys.prefix,
    }
    given: dict[str, Any] = {"environment": ENVIRONMENT, "url": "", "admin_key": "", "actor": ACTOR, "replicas": 0}
    return Target(**given | members, redis=redis)


def over_http(admin: Admin, **members: Any) -> Target:
    given = {"url": admin.relay.url, "admin_key": admin.secret, "actor": "nobody", **members}
    return in_redis(admin.relay.world.store, **given)


async def do(target: Target, operation: Operation[Any, Any], **members: Any) -> Any:
    """Do an operation, in a thread, as a command has no event loop yet."""
    return await asyncio.to_thread(target.do, operation, **members)


STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("flags.put", {"key": "checkout", "definition": FLAG, "reason": "new", "if_revision": 0}),
    ("flags.put", {"key": "a/kill", "definition": FLAG}),
    ("flags.put", {"key": "%2F ä", "definition": FLAG}),
    ("populations.put", {"name": "devs", "equals": {"attribute": "team", "value": "dev"}, "description": "us"}),
    ("populations.put", {"name": "beta", "email_domains": ["example.com"], "risk": 2}),
    ("populations.put", {"name": "beta", "risk": 3}),
    ("populations.members", {"name": "devs", "sample": [{"team": "dev"}, {}]}),
    ("releases.plan", {"key": "checkout", "plan": PLAN, "preview": True}),
    ("releases.plan", {"key": "checkout", "plan": PLAN, "reason": "ship it"}),
    ("releases.start", {"key": "checkout", "reason": "go"}),
    ("releases.advance", {"key": "checkout", "reason": "go on", "to": "3", "if_revision": 8}),
    ("releases.unrelease", {"key": "checkout", "from": ["beta"], "reason": "error rate"}),
    ("releases.reach", {"key": "checkout", "sample": [{"team": "dev"}]}),
    ("releases.get", {"key": "checkout"}),
    ("releases.list", {}),
    ("flags.kill", {"key": "a/kill", "reason": "error rate", "to": "on"}),
    ("flags.kill", {"key": "%2F ä", "reason": "error rate"}),
    ("flags.list", {}),
    ("flags.revive", {"key": "a/kill"}),
    ("flags.get", {"key": "%2F ä"}),
    ("flags.delete", {"key": "%2F ä", "force": True, "reason": "no more"}),
    ("populations.list", {}),
    ("populations.get", {"name": "devs"}),
    ("flagset.export", {"originals": True}),
    ("history.list", {"limit": 3, "actor": ACTOR, "since": "1h"}),
    ("releases.history", {"key": "checkout", "limit": 2}),
    ("relays.proof", {"revision": 1, "epoch": "another", "wait": 0.01}),
    ("relays.list", {}),
)


def told(answer: Any) -> Any:
    """An answer without what is of its moment and place."""
    if isinstance(answer, list):
        return [told(each) for each in answer]
    members = {}
    for name in _fields(answer):
        value = getattr(answer, name)
        if name in ("at", "id", "epoch", "since", "now", "reports", "relays", "waited", "ms"):
            value = type(value)
        members[name] = told(value) if _fields(value) or _structs(value) else value
    return type(answer), members


def _fields(value: Any) -> tuple[str, ...]:
    """The members of a struct or a dataclass; none of anything else."""
    return getattr(value, "__struct_fields__", ()) or tuple(getattr(value, "__dataclass_fields__", ()))


def _structs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and bool(_fields(value[0]))


async def test_the_same_steps_give_the_same_answers(admin: Admin, store: Store) -> None:
    answers = []
    for target in (in_redis(store), over_http(admin)):
        await destroy_environment(store, ENVIRONMENT)
        await create_environment(store, ENVIRONMENT)
        answers.append([told(await do(target, OPERATIONS[name], **members)) for name, members in STEPS])
    for (name, _), here, there in zip(STEPS, *answers, strict=True):
        assert there == here, name


FAILURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("flags.get", {"key": "no"}),
    ("flags.get", {"key": ""}),
    ("flags.put", {"key": "flag", "definition": {}}),
    ("flags.put", {"key": "flag", "definition": FLAG, "if_revision": 0}),
    ("flags.put", {"key": "flag", "definition": FLAG, "if_revision": 77}),
    ("flags.put", {"key": "flag", "definition": FLAG, "reason": "x" * 1001}),
    ("flags.delete", {"key": "a/b"}),
    ("flags.kill", {"key": "flag", "to": "no", "reason": "x"}),
    ("flags.revive", {"key": "flag"}),
    ("releases.start", {"key": "flag", "reason": "x"}),
    ("releases.plan", {"key": "flag", "plan": {"flag": "flag"}}),
    ("populations.get", {"name": "no"}),
    ("populations.put", {"name": "beta", "rule": {}, "keys": ["u1"]}),
    ("history.list", {"since": "yesterday"}),
    ("relays.forget", {"relay": "no/1"}),
)


@pytest.mark.parametrize(("name", "members"), FAILURES, ids=lambda value: value if isinstance(value, str) else "")
async def test_what_fails_says_the_same_sentence(
    name: str, members: dict[str, Any], admin: Admin, store: Store
) -> None:
    sentences = []
    for target in (in_redis(store), over_http(admin)):
        with pytest.raises(FlagrelayError) as failure:
            await do(target, OPERATIONS[name], **members)
        sentences.append(str(failure.value))
    assert sentences[0] == sentences[1]


async def test_several_operations_go_over_one_target(admin: Admin) -> None:
    async def body(perform: Any) -> Change:
        await perform(OPERATIONS["flags.kill"], key="flag", reason="error rate")
        change: Change = await perform(OPERATIONS["flags.revive"], key="flag", reason="fixed")
        return change

    change = await asyncio.to_thread(over_http(admin, environment=None).run, body)
    assert change.changed


async def test_over_http_the_actor_is_the_key(admin: Admin, store: Store) -> None:
    await do(over_http(admin), OPERATIONS["flags.kill"], key="flag", reason="error rate")
    entry = await read_flag(store, ENVIRONMENT, "flag")
    assert entry.killed
    assert entry.killed.actor == ACTOR


async def test_what_is_no_operation_s_fault_says_who_refuses(admin: Admin) -> None:
    key = {"key": "flag"}
    with pytest.raises(FlagrelayError, match=r"^http://.* refuses: 401 UNAUTHORIZED: "):
        await do(over_http(admin, admin_key="fr_admin_no"), OPERATIONS["flags.get"], **key)
    with pytest.raises(FlagrelayError, match=r"^http://.* refuses: 403 WRONG_ENVIRONMENT: .*\"staging\""):
        await do(over_http(admin, environment="staging"), OPERATIONS["flags.delete"], **key)
    with pytest.raises(FlagrelayError, match=r"^http://127.0.0.1:1 cannot be reached: "):
        await do(over_http(admin, url="http://127.0.0.1:1"), OPERATIONS["flags.get"], **key)
    with pytest.raises(click.UsageError, match="--admin-key"):
        await do(over_http(admin, admin_key=""), OPERATIONS["flags.get"], **key)
    with pytest.raises(click.UsageError, match="--replicas"):
        await do(over_http(admin, replicas=1), OPERATIONS["flags.get"], **key)


async def test_where_the_control_api_is_off_it_says_so_and_how_it_is_turned_on(store: Store) -> None:
    async with running_relay("handover", await make_world(store, store.address.url)) as relay:
        target = in_redis(store, url=relay.url, admin_key="fr_admin_no")
        for operation in ("releases.list", "flags.kill"):
            with pytest.raises(FlagrelayError) as failure:
                await do(
                    target, OPERATIONS[operation], **({"key": "flag", "reason": "x"} if "kill" in operation else {})
                )
            said = str(failure.value)
            assert said.startswith(f"{relay.url} has no control API: it is off there")
            assert "`flagrelay serve --admin-api`" in said
            assert "FLAGRELAY_ADMIN_API=1" in said


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (float("inf"), "inf is no JSON number"),
        (float("nan"), "nan is no JSON number"),
        (date(2024, 1, 1), "2024-01-01 is a date, which JSON does not have; write it as a string"),
        ({1: 2}, "a member's name is a string in JSON, and not 1"),
    ],
)
async def test_what_json_has_no_word_for_is_refused_and_not_changed(wrong: Any, why: str, admin: Admin) -> None:
    flag = {**FLAG, "variants": {"on": {"a": [wrong]}, "off": {}}}
    with pytest.raises(InputError) as failure:
        await do(over_http(admin), OPERATIONS["flags.put"], key="new", definition=flag)
    where = "flags.put.definition.variants.on.a"
    assert str(failure.value) == f"{where}: {why}"


@pytest.mark.parametrize("wrong", [10**30, "\ud800"])
async def test_what_the_relay_refuses_of_json_it_refuses_in_a_sentence(wrong: Any, admin: Admin) -> None:
    flag = {**FLAG, "variants": {"on": wrong, "off": wrong}}
    with pytest.raises(FlagrelayError, match=r"integer|surrogate|character"):
        await do(over_http(admin), OPERATIONS["flags.put"], key="new", definition=flag)


async def test_text_in_a_query_is_as_it_was_written(admin: Admin, store: Store) -> None:
    await do(over_http(admin), OPERATIONS["flags.put"], key="True", definition=FLAG)
    await do(over_http(admin), OPERATIONS["flags.delete"], key="True", force=True, reason="False")
    [entry] = await do(over_http(admin), OPERATIONS["history.list"], limit=1, flag="True")
    assert (entry.reason, entry.flags) == ("False", ("True",))


async def test_a_write_whose_answer_does_not_come_may_have_been_done_and_says_so() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        target = Target(None, url, "k", ACTOR, 0, {})
        with pytest.raises(FlagrelayError, match="it may have been written all the same"):
            await do(target, OPERATIONS["flags.kill"], key="x", reason="y")
        with pytest.raises(FlagrelayError, match=r"cannot be reached: ") as unread:
            await do(target, OPERATIONS["flags.get"], key="x")
        assert "written" not in str(unread.value)


async def test_a_host_that_no_name_can_be_is_one_that_cannot_be_reached() -> None:
    target = Target(None, f"http://{'a' * 70}.example", "k", ACTOR, 0, {})
    with pytest.raises(FlagrelayError, match=r"^http://a+\.example cannot be reached: "):
        await do(target, OPERATIONS["flags.list"])


def test_a_key_is_read_without_the_newline_that_ends_its_file(production: Cli) -> None:
    production.environment["FLAGRELAY_URL"] = "http://127.0.0.1:1"
    production.environment["FLAGRELAY_ADMIN_KEY"] = "fr_admin_k\n"
    assert "http://127.0.0.1:1 cannot be reached" in production.refused("flags", "list")
    production.environment["FLAGRELAY_ADMIN_KEY"] = "fr_\nadmin"
    assert "characters that no access key has" in production.misused("flags", "list")


def test_neither_a_url_nor_an_environment_is_not_enough() -> None:
    target = Target(None, "", "", ACTOR, 0, {})
    with pytest.raises(click.UsageError, match="--env"):
        target.do(OPERATIONS["flags.list"])
