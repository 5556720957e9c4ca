"""Evaluated values: what each flag says for one context, as JSON, made once for each resolution and shared."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from flagrelay.flags.resolution import Reason, Resolution
from flagrelay.wire.frame import Frame, event_frame


class Encoded(NamedTuple):
    """The JSON of a resolution: as a member of our own events, and as an item of OFREP's answers."""

    member: bytes
    item: bytes


def encoded(resolution: Resolution) -> Encoded:
    """The JSON of a resolution, kept with it: thousands of contexts share each."""
    memo = resolution.memo
    if memo is None:
        # orjson's bytes keep the 1 to 4 KB that they were written into; what is kept for long is copied out of them.
        memo = resolution.memo = Encoded(_member(resolution), bytes(memoryview(_item(resolution))))
    known: Encoded = memo
    return known


def altered(before: Resolution | None, now: Resolution | None, *, timed: bool) -> bool:
    """Whether a client that has one has to be told the other.

    What depended on the time cannot be looked up again: it is told anew whenever its flag is touched.
    """
    if before is None or now is None:
        return before is not now
    return timed or encoded(before).member != encoded(now).member


def evaluated_put_frame(event_id: str, resolutions: Iterable[Resolution]) -> Frame:
    """What every flag says."""
    members = b",".join([encoded(resolution).member for resolution in resolutions])
    return event_frame("put", b'{"flags":{%b}}' % members, event_id)


def evaluated_patch_frame(event_id: str, news: Iterable[tuple[str, Resolution | None]], *, at: int) -> Frame:
    """What changed: null where the flag is gone. `at` is the time of the last change, in microseconds."""
    members = b",".join(
        [orjson.dumps(key) + b":null" if now is None else encoded(now).member for key, now in news],
    )
    return event_frame("patch", b'{"at":%d,"flags":{%b}}' % (at, members), event_id)


def _member(resolution: Resolution) -> bytes:
    details: dict[str, Any] = {}
    if resolution.variant is not None:
        details = {"value": value_of(resolution), "variant": resolution.variant}
    details["reason"] = resolution.reason
    if resolution.error_code:
        details |= {"errorCode": resolution.error_code, "errorMessage": resolution.error_message}
    details["metadata"] = resolution.metadata
    return orjson.dumps(resolution.flag_key) + b":" + orjson.dumps(details)


OFREP_REASONS = {Reason.DEFAULT: "UNKNOWN"}
"""Reasons that OFREP's schema does not have. STATIC would say that another context changes nothing."""


def _item(resolution: Resolution) -> bytes:
    if resolution.error_code:
        return orjson.dumps(
            {
                "key": resolution.flag_key,
                "errorCode": resolution.error_code,
                "errorDetails": resolution.error_message or "",
                "metadata": resolution.metadata,
            }
        )
    item: dict[str, Any] = {
        "key": resolution.flag_key,
        "reason": OFREP_REASONS.get(resolution.reason, resolution.reason),
        "variant": resolution.variant or "",  # the Python provider fails where there is none
        "metadata": resolution.metadata,
    }
    if resolution.variant is not None:
        item["value"] = value_of(resolution)
    return orjson.dumps(item)


def value_of(resolution: Resolution) -> Any:  # noqa: ANN401 - a variant is any JSON value
    """The value, a whole number of a flag with fractions as a float: typed clients take 1 for no float."""
    value = resolution.value
    return float(value) if resolution.fractions and type(value) is int else value
