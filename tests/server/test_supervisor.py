"""Several workers behind one address, as processes: what the node does when one of them, or all, end."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from flagrelay.control.proof import Proof, prove
from flagrelay.errors import FlagrelayError, SettingError
from flagrelay.sdk.client import Client, ClientState
from flagrelay.server import worker_process
from flagrelay.server.listeners import reserve
from flagrelay.server.places import Patience
from flagrelay.server.supervisor import Supervisor, shares, supervise
from flagrelay.settings import Settings
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.reading import read_position
from flagrelay.store.reports import Report, read_reports
from flagrelay.store.writing import Written
from support.fakes import definition
from support.relays import ENVIRONMENT, World
from support.served import DRAIN, GRACE, Served, first, gone, served
from support.sources import Wire, until
from support.streams import Answer, Stream, ask, connection, request, stream

STREAMS = 12
"""So many that each worker has some, but once in two thousand runs."""

ORDER = json.dumps({"actor": "ada", "reason": "error rate"}).encode()


async def secret_of(world: World, kind: str = "server") -> str:
    return (await create_access_key(world.store, ENVIRONMENT, kind, "a test's", None))[1]


@contextlib.asynccontextmanager
async def node(world: World, folder: Path, *options: str, workers: int = 2) -> AsyncIterator[Served]:
    quick = ("--workers", str(workers), "--verify-interval", "0.2", "--heartbeat-interval", "0.5", "--retry", "0.05")
    async with served(world.redis_url, folder, *quick, "--log-format", "json", *options) as relay:
        yield relay


@contextlib.asynccontextmanager
async def streams(relay: Served, secret: str) -> AsyncIterator[list[Stream]]:
    """Streams on every worker, each with everything."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(stream(relay.port, secret)) for _ in range(STREAMS)]
        for each in opened:
            await each.event("put")
        yield opened


def logged(relay: Served, event: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in relay.logged.splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == event]


async def order(port: int, secret: str, method: str, key: str = "flag") -> Answer:
    body = ORDER if method == "PUT" else b""
    async with connection(port) as opened:
        opened.send(request(f"/v1/kills/{key}", secret, method=method, content_length=str(len(body))) + body)
        return await opened.answer()


# -- its beginning and its end ------------------------------------------------------------------------------------


async def test_several_workers_share_a_port_of_the_systems_choice_and_one_signal_to_all_drains_them(
    world: World, tmp_path: Path
) -> None:
    secret = await secret_of(world)
    async with node(world, tmp_path) as relay, streams(relay, secret) as opened:
        workers = relay.workers
        assert len(workers) == 2
        status = (await ask(relay.port, "/statusz")).json
        assert sorted(worker["pid"] for worker in status["workers"]) == sorted(workers)
        assert status["supervisor"]["pid"] == relay.process.pid
        assert min(worker["streams"] for worker in status["workers"]) > 0, "the kernel spreads them"
        assert status["streams"] == sum(worker["streams"] for worker in status["workers"]) == STREAMS
        environment = status["environments"][ENVIRONMENT]
        assert environment["streams"] == {"definitions": STREAMS, "evaluations": 0, "events": 0}
        assert {entry["worker"] for entry in logged(relay, "source")} == {1, 2}, "log lines say whose they are"
        await world.tick(1)
        for each in opened:
            await each.until("patch")
        os.killpg(relay.process.pid, signal.SIGTERM)  # as a terminal, or systemd, does it
        assert [await each.goodbye() for each in opened] == ["drain"] * STREAMS
        assert await relay.ended(DRAIN + GRACE) == 0
        await gone(workers)
        with pytest.raises(ConnectionRefusedError):
            await ask(relay.port, "/livez")


async def test_a_second_signal_ends_all_at_once(world: World, tmp_path: Path) -> None:
    async with node(world, tmp_path, "--drain-delay", "60") as relay:
        relay.process.send_signal(signal.SIGTERM)
        answer = await relay.until("/readyz", lambda said: "reason" in said, "it goes")
        assert answer["reason"] == "shutting down"
        relay.process.send_signal(signal.SIGTERM)
        assert await relay.ended(5) == 0


async def test_workers_whose_supervisor_is_killed_say_goodbye_and_end(world: World, tmp_path: Path) -> None:
    secret = await secret_of(world)
    async with node(world, tmp_path) as relay, streams(relay, secret) as opened:
        workers = relay.workers
        relay.process.kill()
        reasons = [await each.goodbye() for each in opened]
        assert reasons == ["drain"] * STREAMS
        await gone(workers)


async def test_an_address_that_another_node_has_is_an_error_at_once(world: World, tmp_path: Path) -> None:
    async with node(world, tmp_path) as relay:
        status, output, errors = await failing(world, "--port", str(relay.port))
        assert (status, output) == (1, "")
        [line] = errors.splitlines()
        assert f"cannot listen on 127.0.0.1 port {relay.port}: " in line
        assert "already in use" in line


async def test_what_no_worker_can_start_with_is_one_line_and_1(world: World, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    cert = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "cert.pem"))
    status, output, errors = await failing(world, "--port", "0", *cert)
    assert (status, output) == (1, "")
    [line] = [line for line in errors.splitlines() if not line.startswith("{")]
    assert line.startswith("error: the certificate ")
    assert "Traceback" not in errors


async def failing(world: World, *options: str) -> tuple[int, str, str]:
    """How a node ends that cannot start, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flagrelay", "serve", "--workers", "2", "--redis-url", world.redis_url, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def test_several_workers_take_a_system_that_spreads_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingError, match=r"FLAGRELAY_WORKERS \(--workers\) is 2; it should be 1 on this system"):
        supervise(Settings(workers=2))


def test_workers_that_die_before_they_accept_are_the_end_of_the_node(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started = []

    def dying(*_: object) -> "subprocess.Popen[bytes]":
        started.append(1)
        return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])

    monkeypatch.setattr(worker_process, "_started", dying)
    before = {number: signal.getsignal(number) for number in (*worker_process.SUPERVISORS, signal.SIGCHLD)}
    with reserve("127.0.0.1", 0) as address, pytest.raises(FlagrelayError, match=r"status 7; 5 times in a row"):
        asyncio.run(Supervisor(Settings(workers=2), address, Patience(again=(0.01, 0.02))).run())
    for number, handler in before.items():
        signal.signal(number, handler)
    assert 5 <= len(started) <= 10
    assert "listening on" not in capfd.readouterr().out


# -- one that dies, or hangs --------------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_the_streams_of_the_others_go_on(world: World, tmp_path: Path) -> None:
    secret = await secret_of(world)
    async with node(world, tmp_path) as relay, streams(relay, secret) as opened:
        status = (await ask(relay.port, "/statusz")).json
        [lost] = [worker for worker in status["workers"] if worker["worker"] == 1]
        os.kill(lost["pid"], signal.SIGKILL)
        survivors = []
        await until(lambda: logged(relay, "worker ended"), "it is noted")
        await world.tick(1)
        for each in opened:
            with contextlib.suppress(EOFError, ConnectionError):
                await each.until("patch")
                survivors.append(each)
        assert len(survivors) == STREAMS - lost["streams"]
        await relay.until("/readyz", lambda said: said["status"] == "ready", "another is there")
        for _ in range(4):
            async with stream(relay.port, secret, await world.event_id()) as again:
                assert again.resume == "current"
        status = (await ask(relay.port, "/statusz")).json
        assert [worker["restarts"] for worker in status["workers"]] == [1, 0]
        assert lost["pid"] not in [worker["pid"] for worker in status["workers"]]
        [entry] = logged(relay, "worker ended")
        assert (entry["worker"], entry["pid"], entry["how"]) == (1, lost["pid"], "SIGKILL")
        metrics = (await ask(relay.port, "/metrics")).body.decode()
        assert 'flagrelay_worker_restarts_total{reason="killed",worker="1"} 1.0' in metrics
        assert "flagrelay_workers_alive 2.0" in metrics


async def reporting(world: World, condition: Callable[[list[Report]], bool]) -> list[Report]:
    """What workers report of their streams, once that meets a condition."""
    async with asyncio.timeout(20):
        while not condition(said := list((await read_reports(world.store, ENVIRONMENT)).reports)):
            await asyncio.sleep(0.02)
    return said


async def test_what_a_killed_worker_reported_is_forgotten_and_what_its_successor_does_stands(
    world: World, tmp_path: Path
) -> None:
    async with node(world, tmp_path) as relay:
        before = await reporting(world, lambda said: len(said) == 2)
        [lost] = [worker for worker in (await ask(relay.port, "/statusz")).json["workers"] if worker["worker"] == 1]
        os.kill(lost["pid"], signal.SIGKILL)
        old = before[0].instance
        after = await reporting(world, lambda said: len(said) == 2 and old not in [each.instance for each in said])
        assert [each.worker for each in after] == [1, 2]
        assert after[1].instance == before[1].instance
        assert len({each.node for each in (*before, *after)}) == 1


async def test_a_worker_that_is_being_replaced_counts_until_it_has_taken_its_leave(
    world: World, tmp_path: Path
) -> None:
    async def proof(within: float) -> Proof:
        position = await read_position(world.store, ENVIRONMENT)
        written = Written(position.revision, 0, epoch=position.epoch)
        return await prove(lambda: read_reports(world.store, ENVIRONMENT), written, within=within)

    secret = await secret_of(world)
    async with node(world, tmp_path) as relay, streams(relay, secret):
        await reporting(world, lambda said: sum(each.streams for each in said) == STREAMS)
        [old] = [worker for worker in (await ask(relay.port, "/statusz")).json["workers"] if worker["worker"] == 1]
        os.kill(old["pid"], signal.SIGSTOP)
        try:
            relay.process.send_signal(signal.SIGHUP)
            await reporting(world, lambda said: len(said) == 3)
            await world.tick(1)
            stopped = await proof(0.5)
            assert not stopped.complete
            assert "worker 1 " in stopped.sentence("killed")
            assert sum(standing.streams for standing in stopped.standings) == STREAMS
        finally:
            os.kill(old["pid"], signal.SIGCONT)
        assert (await proof(20)).complete


async def test_a_stopped_worker_is_named_everywhere_and_keeps_nobody_waiting(world: World, tmp_path: Path) -> None:
    admin = await secret_of(world, "admin")
    async with node(world, tmp_path) as relay:
        [_, stopped] = (await ask(relay.port, "/statusz")).json["workers"]
        os.kill(stopped["pid"], signal.SIGSTOP)
        said = await relay.until("/readyz", lambda said: said["status"] != "ready", "it is noticed")
        assert "worker 2: it does not answer within 1 s" in said["reason"]
        assert [worker["ready"] for worker in said["workers"]] == [True, False]
        asked = [relay.ask(path) for path in ("/livez", "/statusz", "/metrics")]
        alive, status, metrics = await asyncio.gather(*asked)
        assert alive.status == 200
        assert status.json["ready"] is False
        assert "does not answer" in status.json["workers"][1]["error"]
        assert b'flagrelay_worker_up{worker="1"} 1.0' in metrics.body
        assert b'flagrelay_worker_up{worker="2"} 0.0' in metrics.body
        # A kill that not all have confirmed is no kill, though who could be told holds it.
        answer = await first(lambda: order(relay.port, admin, "PUT"))
        assert (answer.status, answer.json["errorCode"]) == (503, "NOT_ON_ALL_WORKERS")
        assert "worker 2: it does not answer" in answer.json["errorDetails"]
        os.kill(stopped["pid"], signal.SIGCONT)
        assert (await order(relay.port, admin, "PUT")).status == 200
        await relay.until("/readyz", lambda said: said["status"] == "ready", "it is back")


async def test_a_worker_that_hangs_for_too_long_is_replaced(world: World, tmp_path: Path) -> None:
    async with node(world, tmp_path, "--worker-timeout", "2") as relay:
        [hung, _] = (await ask(relay.port, "/statusz")).json["workers"]
        os.kill(hung["pid"], signal.SIGSTOP)
        await gone([hung["pid"]])
        await relay.until("/readyz", lambda said: said["status"] == "ready", "another is there")
        metrics = (await ask(relay.port, "/metrics")).body.decode()
        assert 'flagrelay_worker_restarts_total{reason="hung",worker="1"} 1.0' in metrics
        assert logged(relay, "worker ended")[0]["how"] == "it did not answer for 2 s"


async def test_a_worker_that_has_nothing_to_serve_leaves_its_clients_to_those_that_have(
    world: World, tmp_path: Path
) -> None:
    secret = await secret_of(world)
    path = world.redis_url.removeprefix("unix://").partition("?")[0]
    async with (
        Wire(tmp_path / "redis.sock", Path(path)) as wire,
        node(World(world.store, f"unix://{wire.path}"), tmp_path) as relay,
    ):
        wire.refusing = True
        wire.cut()
        [one, other] = (await ask(relay.port, "/statusz")).json["workers"]
        os.kill(one["pid"], signal.SIGKILL)
        # Its successor, for which clients wait, gives up, and the next one has a socket that nobody waits at.
        await until(lambda: len(logged(relay, "worker is replaced")) == 2, "it is replaced once more")
        assert "others serve, and it was not ready" in logged(relay, "worker ended")[1]["how"]
        for _ in range(20):
            assert (await ask(relay.port, "/v1/flags", secret)).status == 200
        said = await relay.until("/readyz", lambda said: "not loaded yet" in said.get("reason", ""), "it says why")
        assert "it does not accept yet" in said["reason"]
        # Where nobody has anything, somebody says so.
        os.kill(other["pid"], signal.SIGKILL)
        await relay.until("/readyz", lambda said: said["workers"][0]["state"] == "serving", "it accepts, to say so")
        wire.refusing = False
        await relay.until("/readyz", lambda said: said["status"] == "ready", "all is well")
        # A worker that waits does not outlive its supervisor: `served` sees to that.
        wire.refusing = True
        wire.cut()
        os.kill(relay.workers[0], signal.SIGKILL)
        await relay.until("/readyz", lambda said: "it does not accept yet" in said.get("reason", ""), "it waits")


# -- reloading ----------------------------------------------------------------------------------------------------


class Prober:
    """Connects again and again, and counts what came of it."""

    def __init__(self, port: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._done = False

    async def run(self) -> None:
        while not self._done:
            try:
                answer = await ask(self._port, "/livez")
                self.outcomes[str(answer.status)] += 1
            except (OSError, EOFError) as error:
                self.outcomes[repr(error)] += 1
            await asyncio.sleep(0.002)

    def stop(self) -> None:
        self._done = True


async def test_a_reload_replaces_every_worker_and_no_client_meets_an_error(world: World, tmp_path: Path) -> None:
    secret = await secret_of(world)
    async with node(world, tmp_path, "--drain-spread", "0.5") as relay:
        before = relay.workers
        clients = [Client(f"http://127.0.0.1:{relay.port}", secret, silence=5, retry=0.05) for _ in range(STREAMS)]
        probers = [Prober(relay.port) for _ in range(4)]
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(client.run()) for client in clients]
            probing = [tasks.create_task(prober.run()) for prober in probers]
            await until(lambda: all(client.state is ClientState.READY for client in clients), "all follow")
            relay.process.send_signal(signal.SIGHUP)
            relay.process.send_signal(signal.SIGHUP)
            number = 0
            while len(logged(relay, "reloaded")) < 1:
                number += 1
                await world.tick(number)
                await asyncio.sleep(0.02)
            while len(logged(relay, "reloaded")) < len(logged(relay, "reloading")):
                await asyncio.sleep(0.02)
            for prober in probers:
                prober.stop()
            await asyncio.gather(*probing)
            await until(
                lambda: all(client.replica.flags["flag"] == definition(number) for client in clients),
                "everybody has the last change",
            )
            for each in following:
                each.cancel()
        assert not set(before) & set(relay.workers)
        assert len(relay.workers) == 2
        assert sum((prober.outcomes for prober in probers), Counter()).keys() == {"200"}
        said = (await ask(relay.port, "/readyz")).json
        assert said["status"] == "ready"
        assert {worker["state"] for worker in said["workers"]} == {"serving"}


async def test_a_reload_whose_successor_cannot_start_stops_and_who_runs_goes_on(world: World, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    pem = tmp_path / "cert.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    options = ("--workers", "2", "--log-format", "json", "--tls-cert", str(pem), "--tls-key", str(pem))
    async with served(world.redis_url, tmp_path, *options, ready=False, scheme="https") as relay:
        before = relay.workers
        pem.rename(tmp_path / "away.pem")
        relay.process.send_signal(signal.SIGHUP)
        await until(lambda: logged(relay, "the reload stops: a successor did not become ready; who runs goes on"), "so")
        assert relay.workers == before
        os.kill(before[0], signal.SIGKILL)
        # The node does not give up on a worker as long as another serves.
        await until(lambda: len(logged(relay, "worker is replaced")) > 2, "it is tried again and again")
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{relay.port}/readyz"
            async with session.get(url, ssl=trusted) as response:
                said = await response.json()
                assert "worker 1: the certificate" in said["reason"]
            (tmp_path / "away.pem").rename(pem)
            said = {}
            async with asyncio.timeout(20):
                while said.get("status") != "ready":
                    await asyncio.sleep(0.1)
                    async with session.get(url, ssl=trusted) as response:
                        said = await response.json()


# -- kills that must hold on all ----------------------------------------------------------------------------------


async def test_a_kill_through_one_worker_holds_on_all_and_on_those_that_come_later(
    world: World, tmp_path: Path
) -> None:
    secret, admin = await secret_of(world), await secret_of(world, "admin")
    path = world.redis_url.removeprefix("unix://").partition("?")[0]
    async with Wire(tmp_path / "redis.sock", Path(path)) as wire:
        cut = World(world.store, f"unix://{wire.path}")
        state = ("--state-dir", str(tmp_path / "state"), "--state-wait", "0.1", "--state-interval", "0")
        async with node(cut, tmp_path, *state) as relay, streams(relay, secret) as opened:
            wire.refusing = True
            wire.cut()
            await relay.until("/readyz", lambda said: said["environments"][ENVIRONMENT]["source"] == "stale", "alone")
            answer = await order(relay.port, admin, "PUT")
            assert (answer.status, answer.json["kept"], answer.json["streams"]) == (200, True, STREAMS)
            assert [kill["workers"] for kill in answer.json["kills"]] == [[1, 2]]
            for each in opened:
                patch = json.loads((await each.until("patch")).data)
                assert patch["flags"]["flag"]["state"] == "DISABLED"
            (tmp_path / "state" / f"{ENVIRONMENT}.kills").unlink()  # it is not from there that the next one has it
            os.kill((await ask(relay.port, "/statusz")).json["workers"][0]["pid"], signal.SIGKILL)
            await until(lambda: logged(relay, "worker ended"), "it has ended")
            await relay.until("/readyz", lambda said: said["status"] == "ready", "another is there, without Redis")
            held = (await ask(relay.port, "/v1/kills", admin)).json
            assert [kill["workers"] for kill in held["kills"]] == [[1, 2]]
            assert held["errors"] == []
            for _ in range(6):
                assert (await ask(relay.port, "/v1/flags", secret)).json["flags"]["flag"]["state"] == "DISABLED"
            assert (await order(relay.port, admin, "DELETE")).json["kills"] == []
            for _ in range(6):
                assert (await ask(relay.port, "/v1/flags", secret)).json["flags"]["flag"]["state"] == "ENABLED"
            assert (await order(relay.port, admin, "DELETE")).status == 404


# -- limits -------------------------------------------------------------------------------------------------------


def test_each_worker_gets_its_share_of_the_limits_rounded_up() -> None:
    shared = shares(Settings(workers=3, max_streams=100, max_streams_per_key=1, max_evaluations_per_second=0))
    assert (shared.max_streams, shared.max_streams_per_key, shared.max_evaluations_per_second) == (34, 1, 0)
    assert shared.max_waiting == 3334
    assert shared.max_body_bytes == Settings().max_body_bytes
