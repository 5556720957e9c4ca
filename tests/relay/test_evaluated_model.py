"""Streams of evaluated values, whatever happens to flags, populations and streams: each holds what its context gets."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagrelay.flags.change import Change
from flagrelay.flags.compiled_flag import CompiledFlag
from flagrelay.flags.environment_settings import EnvironmentSettings
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.relay.evaluations import EvaluationsFeed
from flagrelay.relay.held import Held
from flagrelay.relay.hub import Hub, Resume
from flagrelay.relay.stats import Delivery, Stats
from flagrelay.relay.subscriber import Subscriber
from flagrelay.wire.evaluated import encoded
from flagrelay.wire.event_id import format_event_id, parse_event_id
from flagrelay.wire.frame import Framing, heartbeat_frame
from flagrelay.wire.sse import EventParser
from support.fakes import FakeTransport

KEYS = ("a", "b", "c")
CONTEXTS: tuple[dict[str, Any], ...] = (
    {"targetingKey": "u1", "plan": "pro"},
    {"targetingKey": "u2", "plan": "free"},
    {"plan": "pro"},
    {},
)
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", None]},
    {"if": [{"$ref": "team"}, "on", "off"]},
    {"fractional": [["on", 50], ["off", 50]]},
    {"if": [{"var": "targetingKey"}, "nowhere", "off"]},
)
POPULATIONS: tuple[dict[str, Any], ...] = (
    {"in": [{"var": "targetingKey"}, ["u1"]]},
    {"in": [{"var": "targetingKey"}, ["u2"]]},
)


def flag(rule: dict[str, Any], *, default: str = "off", server_only: bool = False, state: str = "ENABLED") -> Any:
    metadata = {"serverOnly": True} if server_only else {}
    variants = {"on": True, "off": False}
    return {"state": state, "variants": variants, "defaultVariant": default, "targeting": rule, "metadata": metadata}


FLAGS = st.builds(
    flag,
    st.sampled_from(RULES),
    default=st.sampled_from(["on", "off"]),
    server_only=st.booleans(),
    state=st.sampled_from(["ENABLED", "ENABLED", "DISABLED"]),
)

STEPS = st.one_of(
    st.tuples(st.just("put"), st.dictionaries(st.sampled_from(KEYS), FLAGS | st.none(), min_size=1, max_size=2)),
    st.tuples(st.just("population"), st.sampled_from(POPULATIONS) | st.none()),
    st.tuples(st.just("metadata"), st.integers(0, 2)),
    st.tuples(st.just("settings"), st.sampled_from(["v2", "v3"])),
    st.tuples(st.just("reload"), st.none()),
    st.tuples(st.just("open"), st.tuples(st.integers(0, len(CONTEXTS) - 1), st.booleans())),
    st.tuples(st.just("stall"), st.integers(0, 9)),
    st.tuples(st.just("read"), st.integers(0, 9)),
    st.tuples(st.just("resume"), st.integers(0, 9)),
)


@dataclass
class Client:
    """What an SDK makes of one stream after another of one context."""

    context: dict[str, Any]
    public: bool
    transport: FakeTransport
    flags: dict[str, Any] = field(default_factory=dict)
    last_event_id: str = ""
    taken: int = 0
    parser: EventParser = field(default_factory=EventParser)

    def take(self) -> list[str]:
        """Apply what came; the types of the events that say what flags are."""
        news, self.taken = self.transport.received[self.taken :], len(self.transport.received)
        seen = []
        for event in self.parser.feed(news):
            if event.type not in ("put", "patch"):
                continue
            seen.append(event.type)
            data = json.loads(event.data)["flags"]
            before, after = parse_event_id(self.last_event_id), parse_event_id(event.id)
            assert after
            if event.type == "put":
                self.flags = data
            else:
                assert before
                assert before[0] == after[0], "a patch of another history"
                assert after[1] > before[1], "an id that did not grow"
                for key, says in data.items():
                    assert self.flags.get(key) != says, "a patch of what did not change"
                    self.flags.pop(key, None)
                    if says is not None:
                        self.flags[key] = says
            self.last_event_id = event.id
        return seen


class World:
    """A hub of evaluated values, and whoever listens."""

    def __init__(self, held: int = 100) -> None:
        self.delivered: list[Delivery] = []
        self.feed = EvaluationsFeed(Held(held, held * 10), self.heartbeat)
        self.hub = Hub(self.feed, stats=Stats(), delivered=self.delivered.append, retry=1.0, lagging_timeout=30.0)
        self.snapshot = Snapshot(Position("e0", 0, "n0"), {"a": flag(RULES[1])})
        self.clients: list[Client] = []
        self.hub.load(self.snapshot)

    def heartbeat(self) -> Any:
        return heartbeat_frame(revision=self.snapshot.position.revision, live=True, age_ms=0)

    def change(self, **what: Any) -> None:
        epoch, revision, nonce = self.snapshot.position
        change = Change(epoch, revision + 1, f"n{revision + 1}", nonce, 1_764_000_000_000_000 + revision, **what)
        self.snapshot = self.snapshot.with_change(change)
        self.hub.publish(change, self.snapshot)

    def reload(self) -> None:
        epoch, revision, _ = self.snapshot.position
        self.snapshot = Snapshot(
            Position(epoch + "x", revision + 3, "fresh"), {"b": flag(RULES[2])}, {"team": POPULATIONS[0]}
        )
        self.hub.load(self.snapshot)

    def open(self, context: dict[str, Any], *, public: bool, client: Client | None = None) -> Resume:
        transport = FakeTransport()
        view = self.feed.view((public, json.dumps(context).encode()), context)
        subscriber = Subscriber(self.hub, transport, framing=Framing.PLAIN, key_id="k", ends_at=float("inf"), view=view)
        transport.subscriber = subscriber
        resume, start = self.hub.join(subscriber, client.last_event_id if client else "")
        transport.write(b"".join(start))
        if client is None:
            self.clients.append(Client(context, public, transport))
        else:
            client.transport, client.taken, client.parser = transport, 0, EventParser()
        return resume

    def expected(self, client: Client) -> dict[str, Any]:
        says: dict[str, Any] = {}
        for key, compiled in self.snapshot.compiled.flags.items():
            if not (client.public and compiled.server_only):
                member = encoded(self.snapshot.resolve(key, client.context)).member
                says |= json.loads(b"{%b}" % member)
        return says

    def step(self, name: str, what: Any) -> None:
        match name:
            case "put":
                self.change(flags=what)
            case "population":
                self.change(evaluators={"team": what})
            case "metadata":
                self.change(metadata={"n": what} if what else {})
            case "settings":
                self.change(settings=EnvironmentSettings(what))
            case "reload":
                self.reload()
            case "open":
                self.open(CONTEXTS[what[0]], public=what[1])
            case _ if not self.clients:
                pass
            case "stall":
                self.clients[what % len(self.clients)].transport.stall()
            case "read":
                self.clients[what % len(self.clients)].transport.read()
            case "resume":
                client = self.clients[what % len(self.clients)]
                client.transport.read()
                client.take()
                client.transport.abort()
                self.open(client.context, public=client.public, client=client)

    def check(self) -> None:
        for client in self.clients:
            client.transport.read()
            client.take()
            assert client.flags == self.expected(client)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.lists(STEPS, max_size=25))
async def test_every_stream_holds_what_its_context_gets_whatever_happens(held: int, steps: list[Any]) -> None:
    world = World(held)
    world.open(CONTEXTS[0], public=False)
    world.open(CONTEXTS[1], public=True)
    for name, what in steps:
        world.step(name, what)
        await settle()
    world.check()


async def test_who_is_not_concerned_hears_nothing() -> None:
    world = World()
    for context in CONTEXTS:
        world.open(context, public=False)
    world.change(flags={"b": flag(RULES[0]), "c": flag(RULES[4])})
    await settle()
    for client in world.clients:
        client.take()
    world.change(flags={"a": flag({"if": [{"==": [{"var": "plan"}, "pro"]}, "on", {"!": "x"}]})})
    await settle()
    assert [client.take() for client in world.clients] == [[], ["patch"], [], ["patch"]]
    world.check()


async def test_equal_contexts_share_a_view_and_different_ones_the_bytes_of_what_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    for context in (CONTEXTS[0], dict(CONTEXTS[0]), CONTEXTS[2]):
        world.open(context, public=False)
    first, second, third = world.hub.subscribers
    assert first.view is second.view is not third.view
    frames: list[bytes] = []
    for client in world.clients:
        monkeypatch.setattr(client.transport, "write", frames.append)
    world.change(flags={"a": flag(RULES[0])})
    await settle()
    assert len(frames) == 3
    assert frames[0] is frames[1]
    assert frames[0] is frames[2]


async def test_a_change_resolves_only_the_flags_that_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.change(flags={"b": flag(RULES[1]), "c": flag(RULES[1])})
    world.open(CONTEXTS[0], public=False)
    resolved = []
    resolve = CompiledFlag.resolve

    def counted(flag: CompiledFlag, context: Any) -> Resolution:
        resolved.append(flag.key)
        return resolve(flag, context)

    monkeypatch.setattr(CompiledFlag, "resolve", counted)
    world.change(flags={"b": flag(RULES[1], default="on")})
    await settle()
    assert resolved == ["b", "b"], "as it was, and as it is"


async def test_what_depends_on_the_time_is_told_anew_when_it_is_touched() -> None:
    world = World()
    timed = flag({"if": [{"<": [{"var": "$flagd.timestamp"}, 1]}, "on", "off"]})
    world.change(flags={"b": timed})
    world.open(CONTEXTS[0], public=False)
    world.clients[0].take()
    world.change(flags={"b": json.loads(json.dumps(timed))})
    await settle()
    assert b"event: patch" in world.clients[0].transport.received


async def test_a_flag_that_becomes_server_only_is_gone_for_clients_alone() -> None:
    world = World()
    world.open(CONTEXTS[0], public=True)
    world.open(CONTEXTS[0], public=False)
    for client in world.clients:
        client.take()
    world.change(flags={"a": flag(RULES[1], server_only=True)})
    await settle()
    world.check()
    assert [sorted(client.flags) for client in world.clients] == [[], ["a"]]


async def test_nothing_of_a_context_is_kept_once_its_last_stream_is_gone() -> None:
    world = World()
    for _ in range(2):
        world.open(CONTEXTS[0], public=False)
    first, second = list(world.hub.subscribers)
    world.hub.drop(first, "gone")
    assert len(world.feed._views) == 1
    world.hub.drop(second, "gone")
    assert not world.feed._views
    assert not world.feed._puts


async def test_it_resumes_as_definitions_do() -> None:
    world = World(held=2)
    world.open(CONTEXTS[0], public=False)
    client = world.clients[0]
    client.take()
    assert world.open(client.context, public=False, client=client) is Resume.CURRENT
    world.change(flags={"b": flag(RULES[0])})
    client.last_event_id = format_event_id("e0", 0)
    assert world.open(client.context, public=False, client=client) is Resume.DELTA
    for number in range(3):
        world.change(flags={"c": flag(RULES[0], default=["on", "off"][number % 2])})
    client.last_event_id = format_event_id("e0", 0)
    assert world.open(client.context, public=False, client=client) is Resume.FULL
    await settle()
    client.take()
    assert client.flags == world.expected(client)


async def test_a_context_that_cannot_be_served_costs_its_own_stream_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    for context in CONTEXTS:
        world.open(context, public=False)
    broken = list(world.hub.subscribers)[1]
    tail = world.feed.tail

    def fails(subscriber: Subscriber) -> bytes:
        if subscriber is broken:
            raise TypeError("cannot be written as JSON")
        return tail(subscriber)

    monkeypatch.setattr(world.feed, "tail", fails)
    world.change(flags={"a": flag(RULES[0], default="on")})
    await settle()
    assert broken not in world.hub.subscribers
    world.clients.pop(1)
    world.check()
