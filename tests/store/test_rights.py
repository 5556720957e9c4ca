"""Users of Redis who may not do everything: a write happens whole, or not at all."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from flagrelay.errors import StoreUnavailable
from flagrelay.release.actions import plan
from flagrelay.store.access_keys import create_access_key, list_access_keys, revoke_access_key
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, destroy_environment, list_environments
from flagrelay.store.history import read_actions, read_history
from flagrelay.store.idempotency import Mark, claim, forget, settle
from flagrelay.store.reading import read_clock, read_flag, read_position, read_state
from flagrelay.store.reports import Report, drop_report, read_reports, write_report
from flagrelay.store.subscription import subscribe
from flagrelay.store.writing import Draft, kill_flag, renew_epoch, revive_flag, write_change
from support.released import KEY, PLAN, populate, started
from support.released import write as write_standing
from support.stores import ENVIRONMENT, everything, flag, put, stored

EVERYTHING = ("~*", "&*", "+@all")

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "redis.md"


async def user(admin: Store, *rights: str) -> RedisAddress:
    """The address of a user with these rights alone."""
    await admin.client.execute_command("ACL", "SETUSER", "limited", "reset", "resetchannels", "on", ">pass", *rights)
    return RedisAddress(admin.address.url.replace("unix://", "unix://limited:pass@"))


async def can_be_asked(admin: Store) -> bool:
    """Whether scripts of this Redis can ask what a user may do."""
    return bool(await admin.client.eval("return redis.acl_check_cmd and 1 or 0", 0))


async def test_a_write_that_is_not_allowed_to_its_end_does_not_begin(doomed: Store) -> None:
    await write_change(doomed, ENVIRONMENT, Draft(flags={"a": flag(1), "killed": flag(2)}))
    await kill_flag(doomed, ENVIRONMENT, "killed")
    key, _ = await create_access_key(doomed, ENVIRONMENT, "server", "web", None)
    position = await read_position(doomed, ENVIRONMENT)
    await populate(doomed)
    release = plan(None, PLAN, 0)
    writes: dict[str, tuple[str, Callable[[Store], Awaitable[object]]]] = {
        "change": ("PUBLISH HDEL HSET XADD", lambda limited: put(limited, "a")),
        "kill": ("PUBLISH HDEL HSET XADD", lambda limited: kill_flag(limited, ENVIRONMENT, "a")),
        "revive": ("PUBLISH HDEL HSET XADD", lambda limited: revive_flag(limited, ENVIRONMENT, "killed")),
        "release": ("PUBLISH HDEL HSET XADD", lambda limited: write_standing(limited, release, (None, None))),
        "renew": ("PUBLISH HSET", lambda limited: renew_epoch(limited, ENVIRONMENT, position)),
        "create a key": ("PUBLISH", lambda limited: create_access_key(limited, ENVIRONMENT, "server", "x", None)),
        "revoke a key": ("PUBLISH", lambda limited: revoke_access_key(limited, key.id)),
    }
    # Redis 6.2 cannot be asked: there only what is written first is refused before anything is written.
    asked = await can_be_asked(doomed)
    refusal = "no permission to {} .*; nothing was changed" if asked else "can't run this command"
    before = await everything(doomed)
    for command in ("PUBLISH", "HDEL", "HSET", "XADD") if asked else ("XADD",):
        async with open_store(await user(doomed, *EVERYTHING, f"-{command.lower()}")) as limited:
            for name, (needed, write) in writes.items():
                if command in needed:
                    with pytest.raises(StoreUnavailable, match=refusal.format(command)):
                        await write(limited)
                    assert await everything(doomed) == before, name


async def test_an_environment_is_created_whole_or_not_at_all(doomed: Store) -> None:
    asked = await can_be_asked(doomed)
    async with open_store(await user(doomed, *EVERYTHING, "-del" if asked else "-hset")) as limited:
        with pytest.raises(StoreUnavailable, match="no permission to DEL" if asked else "can't run this command"):
            await create_environment(limited, "staging")
    assert not await doomed.client.exists(doomed.keys.state("staging"))


async def test_a_user_as_redis_makes_them_breaks_nothing(doomed: Store) -> None:
    """Since Redis 7 one who was given all keys and all commands may still publish nowhere."""
    await put(doomed, "a", 1)
    original = await stored(doomed, "a")
    async with open_store(await user(doomed, "~*", "+@all")) as limited:
        with pytest.raises(StoreUnavailable, match=r"(?i)publish"):
            await kill_flag(limited, ENVIRONMENT, "a")
        read = await read_flag(doomed, ENVIRONMENT, "a")
        if await can_be_asked(doomed):
            assert (read.revision, read.killed) == (1, None)
        else:
            assert (read.revision, read.definition["state"]) == (2, "DISABLED")
            assert read.killed, "what it was is kept"
            with pytest.raises(StoreUnavailable, match="publish"):
                await revive_flag(limited, ENVIRONMENT, "a")
            assert not (await read_flag(doomed, ENVIRONMENT, "a")).killed
    assert (await stored(doomed, "a")) == original


def documented(who: str) -> list[str]:
    """The rights to commands that docs/redis.md lists for somebody."""
    table = DOCUMENTATION.read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| {who} \| (.*) \|$", table, re.MULTILINE)
    return [f"+{command.lower()}" for command in re.findall(r"`([A-Z]+)`", row)]


async def test_the_rights_that_the_documentation_lists_are_enough(doomed: Store) -> None:
    rights = ["~flagrelay:*", "&flagrelay:*", *documented("everybody, to connect"), *documented("relays")]
    await put(doomed, "a")
    async with open_store(await user(doomed, *rights)) as relay:
        async with subscribe(relay, ENVIRONMENT) as subscription:
            await put(doomed, "a")
            assert await subscription.next(5)
            await subscription.ping()
        assert (await read_state(relay, ENVIRONMENT)).flags.keys() == {"a"}
        assert [each.flags for each in await list_environments(relay)] == [1]
        assert len(await read_changes(relay, ENVIRONMENT, 0)) == 2
        await read_clock(relay, ENVIRONMENT)
    rights += documented("relays, to report what their streams have")
    async with open_store(await user(doomed, *rights)) as relay:
        report = Report(relay="r", epoch="e", revision=1, source="live", streams=0, written=0, lagging=0, interval=5.0)
        assert await write_report(relay, ENVIRONMENT, report, sweep=True)
        assert len((await read_reports(relay, ENVIRONMENT)).reports) == 1
        assert await drop_report(relay, ENVIRONMENT, "r")
    rights += documented("relays, to renew an epoch after a failover")
    async with open_store(await user(doomed, *rights)) as relay:
        await renew_epoch(relay, ENVIRONMENT, await read_position(relay, ENVIRONMENT))
    rights += documented("whoever writes flags")
    async with open_store(await user(doomed, *rights)) as writer:
        await put(writer, "a", 2)
        await kill_flag(writer, ENVIRONMENT, "a", to="off")
        await revive_flag(writer, ENVIRONMENT, "a")
        await write_change(writer, ENVIRONMENT, Draft(flags={"a": None}))
        await started(writer)
        await write_change(writer, ENVIRONMENT, Draft(flags={KEY: None}, evaluators={"eu": None}, over_releases=True))
        assert [entry.action async for entry in read_actions(writer, ENVIRONMENT)][-1] == "kill"
        assert len([entry async for entry in read_history(writer, ENVIRONMENT)]) == 10
    rights += documented("relays, to take idempotency keys")
    async with open_store(await user(doomed, *rights)) as relay:
        for end in (forget, partial(settle, outcome="done")):
            mark = await claim(relay, ENVIRONMENT, "digest", "fingerprint")
            assert isinstance(mark, Mark)
            await end(relay, ENVIRONMENT, "digest", mark)
    rights += documented("whoever creates environments and access keys")
    async with open_store(await user(doomed, *rights)) as administrator:
        await create_environment(administrator, "staging")
        key, _ = await create_access_key(administrator, "staging", "server", "web", None)
        assert await revoke_access_key(administrator, key.id) == key
        assert await list_access_keys(administrator) == []
        await destroy_environment(administrator, "staging")
