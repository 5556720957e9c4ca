"""Change messages, as Redis carries them: in the changelog, and on the channel."""

from collections.abc import Mapping
from typing import Any

import orjson

from flagrelay.errors import DefinitionError, MessageError
from flagrelay.flags.change import Change, Hint
from flagrelay.flags.environment_settings import EnvironmentSettings, read_settings

_HEADER = {"epoch": str, "revision": int, "nonce": str, "previous": str}
_DETAILS = {"at": (int, 0), "actor": (str, ""), "reason": (str, ""), "urgent": (bool, False)}
_BODY = ("flags", "$evaluators", "metadata", "settings")


def encode_change(change: Change) -> bytes:
    """A change as one JSON object."""
    message: dict[str, Any] = {
        "epoch": change.epoch,
        "revision": change.revision,
        "nonce": change.nonce,
        "previous": change.previous,
        "at": change.at,
        "actor": change.actor,
        "reason": change.reason,
        "urgent": change.urgent,
        "flags": change.flags,
        "$evaluators": change.evaluators,
    }
    if change.metadata is not None:
        message["metadata"] = change.metadata
    if change.settings is not None:
        message["settings"] = change.settings.as_json()
    return orjson.dumps(message)


def decode_message(data: bytes) -> Change | Hint:
    """What came on the channel: a change, or, where it has no body, the hint that there is one.

    Raises:
        MessageError: it is neither.
    """
    message = _object(data)
    if any(member in message for member in _BODY):
        return _change(message)
    return Hint(**_header(message))


def decode_change(data: bytes) -> Change:
    """An entry of the changelog.

    Raises:
        MessageError: it is no change.
    """
    return _change(_object(data))


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MessageError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise MessageError(f"not a JSON object but {type(message).__name__}")
    return message


def _header(message: Mapping[str, Any]) -> dict[str, Any]:
    for name, kind in _HEADER.items():
        if type(message.get(name)) is not kind:
            raise MessageError(f"{name!r} should be {kind.__name__} and is {message.get(name)!r:.80}")
    if message["revision"] < 0:
        raise MessageError(f"'revision' is {message['revision']}, below 0")
    return {name: message[name] for name in _HEADER}


def _change(message: Mapping[str, Any]) -> Change:
    details = {}
    for name, (kind, default) in _DETAILS.items():
        details[name] = message.get(name, default)
        if type(details[name]) is not kind:
            raise MessageError(f"{name!r} should be {kind.__name__} and is {details[name]!r:.80}")
    flags, evaluators = message.get("flags", {}), message.get("$evaluators", {})
    metadata = message.get("metadata")
    for name, member in (("flags", flags), ("$evaluators", evaluators), ("metadata", metadata or {})):
        if not isinstance(member, dict):
            raise MessageError(f"{name!r} should be an object and is {member!r:.80}")
    for key, flag in flags.items():
        if flag is not None and not isinstance(flag, dict):
            raise MessageError(f"flag {key!r:.80} should be an object or null and is {flag!r:.80}")
    return Change(
        **_header(message),
        **details,
        flags=flags,
        evaluators=evaluators,
        metadata=metadata,
        settings=_settings(message.get("settings")),
    )


def _settings(document: object) -> EnvironmentSettings | None:
    if document is None:
        return None
    if not isinstance(document, dict):
        raise MessageError(f"'settings' should be an object and is {document!r:.80}")
    try:
        return read_settings(document)
    except DefinitionError as error:
        raise MessageError(str(error)) from error
