"""A relay that starts without Redis: what it kept is served, for as long as nothing better is there."""

from pathlib import Path
from typing import Any

from flagrelay.store.access_keys import revoke_access_key
from support.fakes import definition
from support.relays import ENVIRONMENT, World, running_relay, wired_relay
from support.sources import until
from support.streams import Replica, ask, stream

KEEPING: dict[str, Any] = {"state_interval": 0.0, "state_wait": 0.05}


async def kept(world: World, folder: Path, *, discovers: bool = False) -> tuple[str, str, str]:
    """A relay has run, and ended: the secrets of a key and of a revoked one, and the event id of what it kept."""
    environments: dict[str, Any] = {"env": ()} if discovers else {}
    async with running_relay("handover", world, state_dir=str(folder), **KEEPING, **environments) as relay:
        secret = await relay.secret()
        revoked, old = await relay.key()
        await revoke_access_key(world.store, revoked.id)
        await until(lambda: revoked.digest not in relay.context.keyring._keys, "it is revoked")
        await until(lambda: secret and "access.keys" in (relay.context.state_dir.written_at), "keys are kept")  # type: ignore[union-attr]  # there is one
        await until(lambda: f'"{revoked.id}"' not in (folder / "access.keys").read_text(), "so is the revocation")
        return secret, old, await world.event_id()


async def test_flags_and_keys_are_served_from_disk_and_revoked_ones_are_not(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for discovers in (False, True):
        secret, old, event_id = await kept(world, folder, discovers=discovers)
        environments: dict[str, Any] = {"env": ()} if discovers else {}
        settings: dict[str, Any] = {
            "state_dir": str(folder),
            **KEEPING,
            **environments,
            "redis_url": "unix:///nowhere/redis.sock",
        }
        async with running_relay("handover", world, ready=False, **settings) as relay:
            await until(
                lambda relay=relay: ENVIRONMENT in relay.context.relay.pipelines and relay.pipeline.hub.loaded,  # type: ignore[misc]  # bound on purpose
                "it serves what was kept",
            )
            await until(lambda relay=relay: relay.context.keyring.loaded, "it knows the keys")  # type: ignore[misc]  # bound on purpose
            async with stream(relay.port, secret) as opened:
                put = await opened.event("put")
                assert put.id == event_id
                replica = Replica()
                replica.take(put)
                assert set(replica.flags) == {"flag", "old"}
            answer = await ask(relay.port, "/v1/stream", old)
            assert (answer.status, answer.json["errorCode"]) == (503, "KEYS_UNAVAILABLE")
            report = (await ask(relay.port, "/readyz")).json["environments"][ENVIRONMENT]
            assert (report["source"], report["served_from"]) == ("stale", "disk")
            assert report["age_ms"] > 0


async def test_redis_that_comes_in_time_makes_the_disk_superfluous(world: World, tmp_path: Path) -> None:
    await kept(world, tmp_path / "state")
    await world.tick(5)
    async with running_relay("handover", world, state_dir=str(tmp_path / "state"), state_wait=3600.0) as relay:
        await relay.at(4)
        assert not relay.pipeline.restored


async def test_what_is_served_from_disk_goes_on_as_changes_once_redis_is_back(world: World, tmp_path: Path) -> None:
    secret, _, event_id = await kept(world, tmp_path / "state")
    settings: dict[str, Any] = {"state_dir": str(tmp_path / "state"), **KEEPING}
    async with wired_relay("handover", world, tmp_path, ready=False, **settings) as (relay, wire):
        wire.refusing = True
        wire.cut()
        await until(lambda: relay.pipeline.hub.loaded and relay.context.keyring.loaded, "something is served")
        async with stream(relay.port, secret, event_id) as opened:
            assert opened.resume == "current"
            await world.tick(9)
            wire.refusing = False
            replica = Replica(event_id=event_id)
            await replica.follow(opened, 4)
            assert replica.patches == 1, "not everything anew"
        await until(lambda: relay.pipeline.live, "Redis is back")
        assert not relay.pipeline.restored


async def test_a_relay_that_was_restarted_gives_clients_only_what_they_lack(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret()
        seen = await world.event_id()
    await world.tick(5)
    await world.tick(6)
    async with running_relay("handover", world) as relay:
        async with stream(relay.port, secret, seen) as opened:
            assert opened.resume == "delta"
            replica = Replica(event_id=seen)
            await replica.follow(opened, 5)
            assert (replica.patches, replica.flags["flag"]) == (2, definition(6))
        status = (await ask(relay.port, "/statusz")).json["environments"][ENVIRONMENT]
        assert status["last_change"]["revision"] == 5
    async with (
        running_relay("handover", world, changes_held=1) as relay,
        stream(relay.port, secret, seen) as opened,
    ):
        assert opened.resume == "full", "as far as changes are held"
