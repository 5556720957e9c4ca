"""`--wait`: what is shown of a proof, and how the command ends; at last with real relays, one of them stopped."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.cli.proof import NOT_PROVEN
from flagrelay.store.reports import Report
from support.cli import FLAG, Cli, Outcome
from support.served import Served, served
from support.streams import Replica, stream

Relay = Callable[..., None]


@pytest.fixture
def relay(production: Cli, redis_command: Callable[..., bytes]) -> Relay:
    """Has a relay report, some seconds ago, that it has a revision."""
    production.ok("flags", "put", "x", stdin=json.dumps(FLAG))
    [environment] = production.json("env", "list")

    def report(name: str, revision: int, *, ago: float = 0.0, kills: dict[str, str] | None = None) -> None:
        said = Report(
            relay=name,
            epoch=environment["epoch"],
            revision=revision,
            source="live",
            streams=10_000,
            written=9_990,
            lagging=10,
            ms=38.2,
            interval=5.0,
            kills=kills or {},
            seen=round((time.time() - ago) * 1e6),
        )
        redis_command("HSET", "flagrelay:{production}:relays", name, json.dumps(said.as_json()))

    return report


KILL = ("kill", "x", "--reason", "y")


def test_elsewhere_than_at_a_terminal_nothing_is_waited_for_unless_it_is_said(production: Cli, relay: Relay) -> None:
    relay("relay-1", 1)
    assert production.run(*KILL) == Outcome(0, 'flag "x" is killed (revision 2)\n', "")
    assert "proof" not in production.json(*KILL)


def test_a_relay_that_shows_the_flag_by_a_kill_of_its_own_is_named_and_by_one_of_another_flag_is_not(
    production: Cli, relay: Relay
) -> None:
    relay("relay-1", 2, kills={"x": "conflict", "y": "local"})
    outcome = production.run(*KILL, "--wait=0.1")
    assert outcome.status == NOT_PROVEN
    assert outcome.out.endswith('; relay-1: shows flag "x" by a kill of its own (conflict)\n')
    relay("relay-1", 9, kills={"y": "local"})
    production.ok(*KILL, "--wait=0.1")
    everything = production.run("flags", "import", "-", "--wait=0.1", stdin=json.dumps({"flags": {"z": FLAG}}))
    assert everything.status == NOT_PROVEN, "it may have been about any flag"
    assert 'shows flag "y" by a kill of its own (local)' in everything.out
    plan = {
        "flag": "r",
        "released": "on",
        "baseline": "off",
        "stages": [{"percent": 100}],
        "variants": FLAG["variants"],
    }
    planned = production.run(
        *("release", "plan", "r", "--file", "-", "--apply", "--yes", "--wait=0.1"), stdin=json.dumps(plan)
    )
    assert planned.status == 0, planned


def test_where_all_have_it_the_sentence_follows_and_the_status_is_0(production: Cli, relay: Relay) -> None:
    for name in ("relay-1", "relay-2"):
        relay(name, 2)
    said = production.ok(*KILL, "--wait")
    assert said == (
        'flag "x" is killed (revision 2)\n'
        "killed in 38 ms: 2 of 2 relays, 19,980 of 20,000 streams written, 20 lagging\n"
    )
    again = production.ok(*KILL, "--wait")
    assert again.splitlines()[1] == "killed: 2 of 2 relays, 19,980 of 20,000 streams written, 20 lagging"


def test_whoever_has_it_not_is_named_and_the_status_says_so(production: Cli, relay: Relay) -> None:
    relay("relay-1", 2)
    relay("relay-2", 1, ago=60.0)
    relay("relay-3", 1)
    outcome = production.run(*KILL, "--wait=0.1")
    assert (outcome.status, outcome.err) == (NOT_PROVEN, "")
    sentence = outcome.out.splitlines()[1]
    counted = "killed only in part: 1 of 3 relays, 9,990 of 30,000 streams written, 10 lagging; relay-2: silent for 60."
    assert sentence.startswith(counted)
    assert sentence.endswith("; relay-3: at revision 1")


def test_where_no_relay_reports_nothing_is_proven(production: Cli) -> None:
    outcome = production.run("flags", "put", "x", "--wait", stdin=json.dumps(FLAG))
    assert outcome.status == NOT_PROVEN
    assert outcome.out.splitlines()[1] == "written, but nobody knows where: no relay reports here"


@pytest.mark.parametrize("words", [KILL, ("revive", "x"), ("flags", "put", "x", "--force")], ids=" ".join)
def test_scripts_get_the_proof_as_a_member(production: Cli, relay: Relay, words: tuple[str, ...]) -> None:
    if words[0] == "revive":
        production.ok(*KILL)
    relay("relay-1", 3)
    relay("relay-2", 1, ago=60.0)
    outcome = production.run(*words, "--json", "--wait", stdin=json.dumps(FLAG))
    assert (outcome.status, outcome.err) == (NOT_PROVEN, "")
    document = json.loads(outcome.out)
    assert document["changed"] is True
    assert document["proof"]["complete"] is False
    assert document["proof"]["revision"] == document["revision"]
    assert [(each["relay"], each["state"]) for each in document["proof"]["relays"]] == [
        ("relay-1", "done"),
        ("relay-2", "silent"),
    ]


@pytest.mark.parametrize("words", [("--wait", "0"), ("--wait=0",), ("--no-wait",), ("--wait=9", "--no-wait")])
def test_waiting_is_turned_off(production: Cli, relay: Relay, words: tuple[str, ...]) -> None:
    assert production.ok(*KILL, *words) == 'flag "x" is killed (revision 2)\n'


def test_waiting_may_be_set_in_the_environment(production: Cli, relay: Relay) -> None:
    assert "no relay reports" in production.run(*KILL, FLAGRELAY_KILL_WAIT="0.5").out
    assert "no relay reports" not in production.ok(*KILL, FLAGRELAY_KILL_WAIT="0.5", FLAGRELAY_KILL_NO_WAIT="1")


def test_what_is_no_time_is_refused_before_anything_is_written(production: Cli, relay: Relay) -> None:
    said = " ".join(production.misused("kill", "--wait", "x", "--reason", "y").split())
    assert "'x' is no number of seconds: write --wait=5, or put --wait last" in said
    for wrong in ("nan", "inf", "3601"):
        assert "is no time to wait" in production.misused(*KILL, f"--wait={wrong}")
    assert production.json("flags", "list")[0]["killed"] is None


def test_a_write_that_fails_is_an_error_and_nothing_is_waited_for(production: Cli, relay: Relay) -> None:
    assert 'no flag "y"' in production.refused("kill", "y", "--reason", "y", "--wait")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody who presses Ctrl-C as soon as a proof is waited for."""

    async def wait(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("flagrelay.cli.proof.prove", wait)
    yield
    signal.signal(signal.SIGINT, before)


IMPATIENT = (
    KILL,
    ("flags", "import", "FILE"),
    ("sync", "FILE", "--apply"),
    ("release", "plan", "x", "--file", "PLAN", "--apply", "--yes"),
)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("words", IMPATIENT, ids=lambda words: words[0])
def test_whoever_has_no_patience_for_the_proof_still_gets_what_is_written(
    production: Cli, relay: Relay, tmp_path: Path, words: tuple[str, ...]
) -> None:
    plan = {"flag": "x", "released": "on", "baseline": "off", "stages": [{"percent": 100}]}
    paths = {"FILE": {"flags": {"x": {**FLAG, "defaultVariant": "on"}}}, "PLAN": plan}
    for name, document in paths.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    given = [str(tmp_path / f"{word}.json") if word in paths else word for word in words]
    outcome = production.run(*given, "--json", "--wait=60")
    assert (outcome.status, outcome.err.strip()) == (130, "")
    document = json.loads(outcome.out)
    assert (document["revision"], document["changed"], "proof" in document) == (2, True, False)


# -- at a terminal ------------------------------------------------------------------------------------------------


def at_a_terminal(cli: Cli, *words: str) -> tuple[int, str]:
    """A command with a terminal for its output: how it ended, and all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flagrelay", *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=cli.environment_for({"TERM": "xterm", "COLUMNS": "120"}),
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what reads a terminal whose other end is closed gets an error
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    return process.wait(20), shown.decode()


def test_at_a_terminal_it_waits_by_itself_with_a_line_for_each_relay(production: Cli, relay: Relay) -> None:
    relay("relay-1", 2)
    relay("relay-2", 1, ago=60.0)
    status, shown = at_a_terminal(production, *KILL)
    assert status == NOT_PROVEN
    for word in ("RELAY", "relay-1", "done", "9,990/10,000", "38.2", "relay-2", "silent", "0/10,000"):
        assert word in shown
    assert "killed only in part: 1 of 2 relays" in shown
    assert shown.index('flag "x" is killed') < shown.index("RELAY") < shown.index("only in part")


def test_at_a_terminal_too_scripts_get_json_and_nothing_else(production: Cli, relay: Relay) -> None:
    relay("relay-1", 2)
    status, shown = at_a_terminal(production, *KILL, "--json")
    assert status == 0
    assert json.loads(shown)["proof"]["complete"] is True


# -- with real relays ---------------------------------------------------------------------------------------------


async def told(cli: Cli, *words: str, stdin: str = "") -> Outcome:
    """A command, in a thread: it runs an event loop of its own, while this one reads streams."""
    return await asyncio.to_thread(cli.run, *words, stdin=stdin)


async def asked(cli: Cli, *words: str) -> Any:
    return json.loads((await told(cli, *words, "--json")).out)


@contextlib.asynccontextmanager
async def three_relays(redis_url: str, folder: Path) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        relays: list[Served] = []
        for number in (1, 2, 3):
            own = folder / str(number)
            own.mkdir()
            options = ("--relay-id", f"relay-{number}", "--report-interval", "0.5", "--env", "production")
            relays.append(await stack.enter_async_context(served(redis_url, own, *options)))
        yield relays


async def test_three_relays_prove_it_and_one_that_is_stopped_is_named(
    production: Cli, redis_server: PrivateRedis, tmp_path: Path
) -> None:
    await told(production, "flags", "put", "x", stdin=json.dumps(FLAG))
    key = (await asked(production, "keys", "create", "--kind", "server", "--name", "a"))["key"]
    async with three_relays(redis_server.url, tmp_path) as relays, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(stream(relay.port, key)) for relay in relays for _ in range(5)]
        replicas = [Replica() for _ in streams]
        outcome = await told(production, *KILL, "--wait", "10")
        assert outcome.status == 0, outcome
        assert outcome.out.endswith(" ms: 3 of 3 relays, 15 of 15 streams written, 0 lagging\n")
        for opened, replica in zip(streams, replicas, strict=True):
            await replica.follow(opened, 2)
        relays[1].process.send_signal(signal.SIGSTOP)
        try:
            outcome = await told(production, "revive", "x", "--wait", "1")
            assert outcome.status == NOT_PROVEN
            assert "revived only in part: 2 of 3 relays, 10 of 15 streams written, 0 lagging; relay-2: " in outcome.out
            for opened, replica in zip([*streams[:5], *streams[10:]], [*replicas[:5], *replicas[10:]], strict=True):
                await replica.follow(opened, 3)
        finally:
            relays[1].process.send_signal(signal.SIGCONT)
        outcome = await told(production, *KILL, "--wait", "10")
        assert outcome.status == 0, outcome
        relays[2].process.terminate()
        await relays[2].ended(10)
        states = {each["relay"]: each["state"] for each in await asked(production, "relays")}
        assert states == {"relay-1": "live", "relay-2": "live"}, "who ends in order is not missed"


async def test_a_node_is_proven_by_all_of_its_workers(
    production: Cli, redis_server: PrivateRedis, tmp_path: Path
) -> None:
    await told(production, "flags", "put", "x", stdin=json.dumps(FLAG))
    async with served(redis_server.url, tmp_path, "--workers", "2", "--env", "production") as node:
        outcome = await told(production, *KILL, "--wait", "10", "--json")
        assert outcome.status == 0, outcome
        [relay] = json.loads(outcome.out)["proof"]["relays"]
        assert relay["relay"].endswith(f":{node.port}")
        assert [each["worker"] for each in await asked(production, "relays")] == [1, 2]
        assert (await node.ask("/statusz")).json["relay_id"] == relay["relay"]
    assert await asked(production, "relays") == [], "its workers have ended in order, although it was killed"
