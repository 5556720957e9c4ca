import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.wire.frame import (
    END,
    Frame,
    Framing,
    error_body,
    flag_set,
    goodbye_frame,
    heartbeat_frame,
    patch_frame,
    put_frame,
    retry_frame,
)
from flagrelay.wire.sse import Event, EventParser
from support.fakes import definition, empty_snapshot, next_change

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RULES = st.dictionaries(TEXT, st.dictionaries(TEXT, TEXT, max_size=3), max_size=3)


def only_event(frame: Frame) -> Event:
    (event,) = EventParser().feed(frame.plain)
    return event


def unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length:]
        assert data[:2] == b"\r\n"
        data = data[2:]
    return body


@given(RULES, RULES, st.none() | RULES)
def test_a_patch_carries_the_change_whatever_is_in_it(flags: Any, rules: Any, metadata: Any) -> None:
    change = Change(
        "e", 7, "n7", "n6", 1234, "ada", "a secret reason", flags=flags, evaluators=rules, metadata=metadata
    )
    event = only_event(patch_frame(change, "e.7"))
    assert (event.type, event.id) == ("patch", "e.7")
    data = json.loads(event.data)
    assert (data["at"], data["flags"], data["$evaluators"]) == (1234, flags, rules)
    assert data.get("metadata") == metadata


def test_who_made_a_change_and_why_stays_in_the_relay() -> None:
    frame = patch_frame(Change("e", 1, "n1", "n0", 0, "ada", "a secret reason"), "e.1")
    assert b"ada" not in frame.plain
    assert b"secret" not in frame.plain


def test_a_put_is_the_whole_flag_set() -> None:
    snapshot = Snapshot(empty_snapshot().position, {"a": definition(1)}, {"beta": {"==": [1, 1]}}, {"v": 1})
    event = only_event(put_frame(snapshot))
    assert (event.type, event.id) == ("put", "e0.0")
    assert event.data.encode() == flag_set(snapshot)
    assert json.loads(event.data) == {
        "flags": {"a": definition(1)},
        "$evaluators": {"beta": {"==": [1, 1]}},
        "metadata": {"v": 1},
    }


def test_a_heartbeat_has_no_id_so_that_it_moves_nobodys() -> None:
    parser = EventParser()
    parser.feed(put_frame(empty_snapshot()).plain)
    (event,) = parser.feed(heartbeat_frame(revision=3, live=False, age_ms=840).plain)
    assert json.loads(event.data) == {"revision": 3, "source": "stale", "age_ms": 840}
    assert parser.last_event_id == "e0.0"


def test_a_goodbye_says_why_and_when_to_come_back() -> None:
    event = only_event(goodbye_frame("drain", retry_ms=1730))
    assert (event.type, json.loads(event.data), event.retry) == ("goodbye", {"reason": "drain"}, 1730)


def test_a_retry_is_no_event() -> None:
    parser = EventParser()
    assert parser.feed(retry_frame(2000).plain) == []
    assert parser.retry == 2000


def test_a_chunk_holds_the_same_event() -> None:
    frames = [
        put_frame(empty_snapshot()),
        patch_frame(next_change(empty_snapshot(), "flag", 3), "e0.1"),
        heartbeat_frame(revision=1, live=True, age_ms=0),
        goodbye_frame("lifetime", retry_ms=1),
        retry_frame(5),
    ]
    chunks = b"".join(frame[Framing.CHUNKED] for frame in frames)
    assert unchunked(chunks) == b"".join(frame[Framing.PLAIN] for frame in frames)
    assert unchunked(END.chunked) == END.plain == b""


def test_a_refusal_is_openfeatures_kind_of_json() -> None:
    assert json.loads(error_body("UNAUTHORIZED", 'no "key"')) == {
        "errorCode": "UNAUTHORIZED",
        "errorDetails": 'no "key"',
    }
