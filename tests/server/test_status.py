"""GET /statusz: what `flagrelay status` shows."""

import os
import socket
from pathlib import Path

from support.relays import ENVIRONMENT, World, running_relay, wired_relay
from support.sources import until
from support.streams import ask, stream


async def test_it_says_how_the_relay_and_each_environment_stand(world: World, tmp_path: Path) -> None:
    async with running_relay("handover", world, state_dir=str(tmp_path / "state"), state_interval=0.0) as relay:
        await world.tick(1)
        await relay.at(4)
        async with stream(relay.port, await relay.secret()):
            kept = relay.context.state_dir
            assert kept
            await until(lambda: len(kept.written_at) == 2, "snapshot and keys are kept")
            answer = await ask(relay.port, "/statusz")
        assert answer.status == 200
        status = answer.json
        assert (status["ready"], status["reason"], status["streams"], status["waiting"]) == (True, "", 1, 0)
        assert status["relay_id"] == f"{socket.gethostname()}:{os.getpid()}", "nobody has told it of its port"
        assert status["keys"] == {"live": True, "reason": ""}
        assert status["state_dir"]["failing"] == {}
        assert sorted(status["state_dir"]["written_at"]) == ["access.keys", "production.snapshot"]
        environment = status["environments"][ENVIRONMENT]
        assert (environment["source"], environment["revision"], environment["flags"]) == ("live", 4, 2)
        assert environment["streams"] == {"definitions": 1, "evaluations": 0, "events": 0}
        assert environment["served_from"] == "redis"
        assert environment["last_change"]["revision"] == 4
        assert environment["local_kills"] == {}
        assert await world.event_id() == f"{environment['epoch']}.{environment['revision']}"


async def test_it_says_what_is_wrong(world: World, tmp_path: Path) -> None:
    async with wired_relay("handover", world, tmp_path, max_stale=0.0) as (relay, wire):
        wire.refusing = True
        wire.cut()
        await until(lambda: not relay.pipeline.live and not relay.context.keyring.live, "Redis is lost")
        status = (await ask(relay.port, "/statusz")).json
        assert status["ready"] is False
        assert "stale for" in status["reason"]
        assert status["keys"]["live"] is False
        assert status["state_dir"] is None
        assert status["environments"][ENVIRONMENT]["source"] == "stale"


async def test_it_tells_no_secret_and_no_flag(world: World) -> None:
    async with running_relay("handover", world) as relay:
        key, secret = await relay.key("admin")
        body = (await ask(relay.port, "/statusz")).body.decode()
        assert secret not in body
        assert key.digest not in body
        assert '"flag"' not in body
        assert "beta" not in body
