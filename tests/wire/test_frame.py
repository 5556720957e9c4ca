import json
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagrelay.flags.change import Change
from flagrelay.flags.snapshot import Snapshot
from flagrelay.wire.frame import (
    BEGIN,
    END,
    Frame,
    Framing,
    comment_frame,
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


FRAMES = st.lists(
    st.builds(lambda flags: put_frame(Snapshot(empty_snapshot().position, flags, {}, {})), RULES)
    | st.builds(lambda n: patch_frame(next_change(empty_snapshot(), "flag", n), "e0.1"), st.integers(0, 9))
    | st.builds(lambda ms: heartbeat_frame(revision=1, live=True, age_ms=ms), st.integers(0, 2**40))
    | st.builds(lambda ms: goodbye_frame("lifetime", retry_ms=ms), st.integers(0, 2**40))
    | st.builds(retry_frame, st.integers(0, 2**40))
    | st.builds(comment_frame, TEXT),
    max_size=8,
)


def received(framing: Framing, data: bytes) -> bytes:
    """What a client has of these bytes, as soon as it has them."""
    if framing.chunked:
        data = unchunked(data)
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data) if framing.compressed else data


@given(FRAMES, st.data())
def test_every_framing_carries_the_same_events_each_complete_when_its_last_byte_is_there(
    frames: list[Frame], draw: st.DataObject
) -> None:
    framing = draw.draw(st.sampled_from(Framing))
    sent = BEGIN[framing]
    plain = b""
    for frame in frames:
        sent += frame[framing]
        plain += frame.plain
        assert received(framing, sent) == plain
    assert received(framing, sent + END[framing]) == plain


@given(FRAMES, FRAMES, st.lists(st.integers(0, 7)))
def test_a_compressed_frame_refers_to_nothing_before_it(
    frames: list[Frame], others: list[Frame], missed: list[int]
) -> None:
    """Streams that began at different moments share its bytes: any frame may follow any other, or none."""
    chosen = others + [frame for index, frame in enumerate(frames) if index not in missed]
    sent = BEGIN[Framing.GZIP] + b"".join(frame[Framing.GZIP] for frame in chosen)
    assert received(Framing.GZIP, sent) == b"".join(frame.plain for frame in chosen)


def test_a_frame_is_compressed_once() -> None:
    frame = put_frame(empty_snapshot())
    assert frame[Framing.GZIP_CHUNKED] is frame[Framing.GZIP_CHUNKED]


def test_a_large_put_is_a_tenth_when_compressed() -> None:
    flags = {f"flag-{number}": definition(number) for number in range(500)}
    frame = put_frame(Snapshot(empty_snapshot().position, flags, {}, {}))
    assert len(frame[Framing.GZIP]) < len(frame.plain) / 10


def test_only_chunks_have_an_end() -> None:
    assert {framing: unchunked(end) if framing.chunked else end for framing, end in END.items()} == dict.fromkeys(
        Framing, b""
    )


def test_a_refusal_is_openfeatures_kind_of_json() -> None:
    assert json.loads(error_body("UNAUTHORIZED", 'no "key"')) == {
        "errorCode": "UNAUTHORIZED",
        "errorDetails": 'no "key"',
    }
