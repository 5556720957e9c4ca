"""A kill is done on the text, in Redis: what it does not mean to change stays as it is, byte for byte."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flagrelay.errors import Conflict, NotKilled, VariantMissing
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.changelog import read_changes
from flagrelay.store.connection import Store
from flagrelay.store.environments import create_environment
from flagrelay.store.reading import Kill, read_flag, read_snapshot
from flagrelay.store.writing import Draft, kill_flag, revive_flag, write_change
from support.stores import ENVIRONMENT, everything, flag, folded, plant, put, stored

SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Texts of JSON, as any tool may write it

SPACE = st.sampled_from(["", "", " ", "\n", "\t ", " \r\n  "])
HOSTILE = st.sampled_from(
    [
        '"',
        "\\",
        '\\"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '":"',
        '"state":"ENABLED"',
        "state",
        "/",
        "\x7f",
        "\u2028",
        "ü",
        "😀",
    ]
)
WORDS = st.lists(HOSTILE | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=4).map("".join)
STRINGS = st.builds(lambda word, ascii_only: json.dumps(word, ensure_ascii=ascii_only), WORDS, st.booleans())
NUMBERS = st.sampled_from(
    ["1.0", "1e300", "1E+2", "-0", "-0.0", "0.1", "9007199254740993", "18446744073709551615", "5e-324", "12"]
)
NAMES = STRINGS | st.sampled_from(
    ['"state"', '"flag"', '"original"', '"rule"', '"revision"', '"variants"', '"st\\u0061te"']
)


def joined(opening: str, pieces: list[tuple[str, str, str]], closing: str, inside: str) -> str:
    return opening + (",".join(before + piece + after for before, piece, after in pieces) or inside) + closing


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda pieces, inside: joined("[", pieces, "]", inside),
        st.lists(st.tuples(SPACE, inner, SPACE), max_size=3),
        SPACE,
    )


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.builds(lambda name, space, value: f"{name}{space}:{space}{value}", NAMES, SPACE, inner)
    return st.builds(
        lambda pieces, inside: joined("{", pieces, "}", inside),
        st.lists(st.tuples(SPACE, member, SPACE), max_size=3),
        SPACE,
    )


VALUES = st.recursive(
    st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS,
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=12,
)


@dataclass(frozen=True)
class Written:
    """A definition as text: its members in their order, and the whitespace around each."""

    members: list[tuple[str, str]]
    space: str = ""
    names: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        space = self.space
        return "{" + ",".join(f'{space}"{name}"{space}:{space}{text}{space}' for name, text in self.members) + "}"

    def with_member(self, name: str, text: str) -> "Written":
        """The same, with another text for one member, wherever it stands; nothing where there is none."""
        return replace(self, members=[(each, text if each == name else old) for each, old in self.members])

    def has(self, name: str) -> bool:
        return name in dict(self.members)


@st.composite
def definitions(draw: st.DrawFn) -> tuple[Written, str]:
    """A definition, and the name of one of its variants."""
    names = draw(st.lists(WORDS.filter(bool), min_size=1, max_size=3, unique=True))
    space = draw(SPACE)
    variants = ",".join(
        f"{space}{json.dumps(name, ensure_ascii=draw(st.booleans()))}{space}:{space}{draw(VALUES)}" for name in names
    )
    members = [
        ("state", draw(st.sampled_from(['"ENABLED"', '"DISABLED"']))),
        ("variants", f"{{{variants}{space}}}"),
    ]
    default = draw(st.sampled_from(["", "null", json.dumps(names[0])]))
    if default:
        members.append(("defaultVariant", default))
    more = draw(st.lists(st.sampled_from(["targeting", "metadata", "x"]), unique=True))
    members += [(name, draw(objects(VALUES))) for name in more]
    return Written(draw(st.permutations(members)), draw(SPACE)), draw(st.sampled_from(names))


def as_lua_quotes(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("/", "\\/").replace("\x7f", "\\u007f")


def pinned(definition: Written, variant: str) -> str:
    """What `kill --to` must make of a definition."""
    quoted = as_lua_quotes(variant)
    served = definition.with_member("state", '"ENABLED"').with_member("targeting", "{}")
    if definition.has("defaultVariant"):
        return str(served.with_member("defaultVariant", quoted))
    return f'{str(served)[:-1]},"defaultVariant":{quoted}}}'


async def fresh(store: Store) -> Snapshot:
    await store.client.flushall()
    return Snapshot(await create_environment(store, ENVIRONMENT))


@SETTINGS
@given(definitions())
@example((Written([("variants", '{"state":"ENABLED"}'), ("state", '"ENABLED"')], " "), "state"))
async def test_a_kill_changes_the_state_and_a_revive_brings_every_byte_back(
    store: Store, drawn: tuple[Written, str]
) -> None:
    definition, _ = drawn
    await fresh(store)
    await plant(store, "a", str(definition))
    await kill_flag(store, ENVIRONMENT, "a")
    assert await stored(store, "a") == str(definition.with_member("state", '"DISABLED"'))
    await revive_flag(store, ENVIRONMENT, "a")
    assert await stored(store, "a") == str(definition)
    assert not await store.client.exists(store.keys.killed(ENVIRONMENT))


@SETTINGS
@given(definitions())
async def test_a_kill_to_a_variant_serves_it_to_everybody_and_a_revive_brings_every_byte_back(
    store: Store, drawn: tuple[Written, str]
) -> None:
    definition, variant = drawn
    await fresh(store)
    await plant(store, "a", str(definition))
    await kill_flag(store, ENVIRONMENT, "a", to=variant)
    served = await stored(store, "a")
    assert served == pinned(definition, variant)
    assert orjson.loads(served)["defaultVariant"] == variant
    await revive_flag(store, ENVIRONMENT, "a")
    assert await stored(store, "a") == str(definition)


@SETTINGS
@given(definitions(), st.lists(st.booleans(), min_size=1, max_size=5))
async def test_kills_on_kills_are_made_from_the_first_original(
    store: Store, drawn: tuple[Written, str], kills: list[bool]
) -> None:
    definition, variant = drawn
    empty = await fresh(store)
    await plant(store, "a", str(definition))
    before = None
    for disable in kills:
        written = await kill_flag(store, ENVIRONMENT, "a", to=None if disable else variant)
        expected = str(definition.with_member("state", '"DISABLED"')) if disable else pinned(definition, variant)
        assert await stored(store, "a") == expected
        assert written.changed is (before != expected)
        before = expected
    entry = await read_flag(store, ENVIRONMENT, "a")
    assert entry.killed
    assert entry.killed.to == (None if kills[-1] else variant)
    assert entry.killed.original == orjson.loads(str(definition))
    await revive_flag(store, ENVIRONMENT, "a")
    assert await stored(store, "a") == str(definition)
    assert await folded(store, empty) == await read_snapshot(store, ENVIRONMENT)


@SETTINGS
@given(
    st.dictionaries(
        WORDS.filter(bool),
        st.dictionaries(WORDS, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)),
        min_size=1,
        max_size=3,
    )
)
async def test_a_flag_that_we_wrote_is_killed_and_revived_exactly(store: Store, variants: dict[str, Any]) -> None:
    await fresh(store)
    await write_change(store, ENVIRONMENT, Draft(flags={"a": {"state": "ENABLED", "variants": variants}}))
    before = await stored(store, "a")
    await kill_flag(store, ENVIRONMENT, "a")
    assert await stored(store, "a") == before.replace('{"state":"ENABLED"', '{"state":"DISABLED"', 1)
    await revive_flag(store, ENVIRONMENT, "a")
    assert await stored(store, "a") == before


async def test_a_kill_says_who_and_why_and_is_urgent(store: Store, empty: Snapshot) -> None:
    await put(store, "a", 1)
    written = await kill_flag(store, ENVIRONMENT, "a", actor="ada", reason='error rate "5 %"')
    assert written.revision == 2
    entry = await read_flag(store, ENVIRONMENT, "a")
    assert entry.killed == Kill(written.at, "ada", 'error rate "5 %"', None, flag(1))
    assert entry.definition == flag(1) | {"state": "DISABLED"}
    await revive_flag(store, ENVIRONMENT, "a", actor="bob", reason="fixed")
    _, kill, revival = await read_changes(store, ENVIRONMENT, 0)
    assert (kill.actor, kill.reason, kill.urgent) == ("ada", 'error rate "5 %"', True)
    assert (revival.actor, revival.reason, revival.urgent) == ("bob", "fixed", True)
    assert revival.flags == {"a": flag(1)}


@pytest.mark.parametrize("to", [None, "off"])
async def test_killing_twice_writes_once(store: Store, empty: Snapshot, to: str | None) -> None:
    await put(store, "a")
    await kill_flag(store, ENVIRONMENT, "a", to=to, actor="ada")
    before = await everything(store)
    again = await kill_flag(store, ENVIRONMENT, "a", to=to, actor="bob")
    assert (again.revision, again.changed) == (2, False)
    assert await everything(store) == before


async def test_a_flag_that_is_disabled_already_can_be_killed_and_revived(store: Store, empty: Snapshot) -> None:
    disabled = flag(1) | {"state": "DISABLED"}
    await write_change(store, ENVIRONMENT, Draft(flags={"a": disabled}))
    assert (await kill_flag(store, ENVIRONMENT, "a")).changed
    await revive_flag(store, ENVIRONMENT, "a")
    assert (await read_flag(store, ENVIRONMENT, "a")).definition == disabled


async def test_a_flag_of_another_tool_without_a_state_is_killed_all_the_same(store: Store, empty: Snapshot) -> None:
    for key, text, killed in (
        ("a", "{}", '{"state":"DISABLED"}'),
        ("b", '{"variants": {"on": 1} }', '{"variants": {"on": 1} ,"state":"DISABLED"}'),
    ):
        await plant(store, key, text)
        await kill_flag(store, ENVIRONMENT, key)
        assert await stored(store, key) == killed
        await revive_flag(store, ENVIRONMENT, key)
        assert await stored(store, key) == text


async def test_a_flag_with_a_member_twice_is_killed_where_readers_look(store: Store, empty: Snapshot) -> None:
    await plant(store, "a", '{"state":"ENABLED","variants":{"on":1},"state":"ENABLED"}')
    await kill_flag(store, ENVIRONMENT, "a")
    assert (await read_flag(store, ENVIRONMENT, "a")).definition["state"] == "DISABLED"


async def test_the_largest_flag_is_killed(store: Store, empty: Snapshot) -> None:
    large = flag(1, metadata={"text": '{["\\' * 40_000})
    await write_change(store, ENVIRONMENT, Draft(flags={"a": large}))
    await kill_flag(store, ENVIRONMENT, "a")
    assert (await read_flag(store, ENVIRONMENT, "a")).definition == large | {"state": "DISABLED"}


async def test_a_kill_to_a_missing_variant_of_a_killed_flag_changes_nothing(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    await kill_flag(store, ENVIRONMENT, "a", to="off")
    before = await everything(store)
    with pytest.raises(VariantMissing, match='flag "a" of environment "production" has no variant "of"'):
        await kill_flag(store, ENVIRONMENT, "a", to="of")
    assert await everything(store) == before


async def test_a_revive_of_what_is_not_killed_changes_nothing(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    before = await everything(store)
    with pytest.raises(NotKilled, match='flag "a" of environment "production" is not killed'):
        await revive_flag(store, ENVIRONMENT, "a")
    assert await everything(store) == before


@pytest.mark.parametrize("definition", [flag(2), None])
async def test_a_write_over_a_killed_flag_ends_the_kill(
    store: Store, empty: Snapshot, definition: dict[str, Any] | None
) -> None:
    await put(store, "a", 1)
    await put(store, "b", 1)
    await kill_flag(store, ENVIRONMENT, "a")
    await kill_flag(store, ENVIRONMENT, "b")
    await write_change(store, ENVIRONMENT, Draft(flags={"a": definition}, expected_flags={"a": 3}))
    await put(store, "a", 3)
    with pytest.raises(NotKilled):
        await revive_flag(store, ENVIRONMENT, "a")
    assert (await read_flag(store, ENVIRONMENT, "a")).killed is None
    assert (await read_flag(store, ENVIRONMENT, "b")).killed, "the kill of another flag is none of its business"


async def test_an_edit_made_from_before_a_kill_gets_the_conflict(store: Store, empty: Snapshot) -> None:
    await put(store, "a", 1)
    await kill_flag(store, ENVIRONMENT, "a")
    with pytest.raises(Conflict, match='flag "a" is at revision 2'):
        await put(store, "a", 2, expected_flags={"a": 1})
    await revive_flag(store, ENVIRONMENT, "a")
    with pytest.raises(Conflict, match="is at revision 3"):
        await put(store, "a", 2, expected_flags={"a": 2})


async def test_of_many_kills_at_once_one_writes(store: Store, empty: Snapshot) -> None:
    await put(store, "a")
    kills = await asyncio.gather(*(kill_flag(store, ENVIRONMENT, "a") for _ in range(20)))
    assert sorted(kill.changed for kill in kills) == [False] * 19 + [True]
    assert (await read_snapshot(store, ENVIRONMENT)).position.revision == 2


async def test_a_kill_wins_over_many_edits_and_keeps_the_newest(store: Store, empty: Snapshot) -> None:
    for _ in range(5):
        await write_change(store, ENVIRONMENT, Draft(flags={"a": flag(0)}))
        start = (await read_flag(store, ENVIRONMENT, "a")).revision
        conflicts, edited = 0, asyncio.Event()

        async def edit(edited: asyncio.Event = edited, enough: int = start + 20) -> None:
            nonlocal conflicts
            while True:
                entry = await read_flag(store, ENVIRONMENT, "a")
                if entry.killed:
                    return
                try:
                    written = await put(
                        store, "a", entry.definition["variants"]["on"] + 1, expected_flags={"a": entry.revision}
                    )
                except Conflict:
                    conflicts += 1
                else:
                    if written.revision > enough:
                        edited.set()

        async def kill(edited: asyncio.Event = edited) -> None:
            await edited.wait()
            await kill_flag(store, ENVIRONMENT, "a", reason="now")

        await asyncio.wait_for(asyncio.gather(kill(), *(edit() for _ in range(6))), 20)
        changes = await read_changes(store, ENVIRONMENT, start - 1)
        assert [change.reason for change in changes].index("now") == len(changes) - 1, "nothing came after the kill"
        entry = await read_flag(store, ENVIRONMENT, "a")
        assert entry.killed
        assert entry.killed.original == changes[-2].flags["a"], "the original is the newest edit"
        assert entry.definition == {**entry.killed.original, "state": "DISABLED"}
        assert conflicts
