"""Snapshots, access keys and local kills as JSON, and back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from flagrelay.errors import DefinitionError, StateDamaged, StateError
from flagrelay.flags.environment_settings import EnvironmentSettings, read_settings
from flagrelay.flags.local_kill import LocalKill
from flagrelay.flags.position import Position
from flagrelay.flags.snapshot import Snapshot
from flagrelay.store.access_keys import AccessKey, KeysSnapshot


@dataclass(frozen=True, slots=True)
class SavedSnapshot:
    """A snapshot as it was kept, not compiled yet; `confirmed` is when it was last known to be Redis's, since 1970."""

    position: Position
    flags: Mapping[str, Any]
    evaluators: Mapping[str, Any]
    metadata: Mapping[str, Any]
    settings: EnvironmentSettings
    confirmed: float

    def snapshot(self) -> Snapshot:
        """The snapshot, compiled."""
        return Snapshot(self.position, self.flags, self.evaluators, self.metadata, self.settings)


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise StateError(f"what is to be kept cannot be written as JSON: {error}") from error


def encode_snapshot(owner: Mapping[str, str], snapshot: Snapshot, confirmed: float) -> bytes:
    """A snapshot as a document. `owner` says whose it is: prefix and environment."""
    return _dumped(
        {
            **owner,
            "confirmed": confirmed,
            "position": [*snapshot.position],
            "flags": snapshot.flags,
            "$evaluators": snapshot.evaluators,
            "metadata": snapshot.metadata,
            "settings": snapshot.settings.as_json(),
        }
    )


def decode_snapshot(owner: Mapping[str, str], body: bytes) -> SavedSnapshot:
    """The snapshot that a document holds.

    Raises:
        StateDamaged: it holds none, or somebody else's.
    """
    document = _document(owner, body)
    try:
        flags, evaluators, metadata = document["flags"], document["$evaluators"], document["metadata"]
        _check(dict, flags, evaluators, metadata, *flags.values())
        settings = read_settings(document["settings"])
        position = _position(document["position"])
        return SavedSnapshot(position, flags, evaluators, metadata, settings, float(document["confirmed"]))
    except (KeyError, TypeError, ValueError, AttributeError, DefinitionError) as error:
        raise StateDamaged(f"it holds no snapshot: {error!r}") from error


def encode_keys(owner: Mapping[str, str], keys: KeysSnapshot) -> bytes:
    """Every access key as a document, hashed as they are."""
    return _dumped({**owner, "position": keys.position, "keys": [asdict(key) for key in keys.keys.values()]})


def decode_keys(owner: Mapping[str, str], body: bytes) -> KeysSnapshot:
    """The access keys that a document holds.

    Raises:
        StateDamaged: it holds none, or somebody else's.
    """
    document = _document(owner, body)
    try:
        epoch, revision = document["position"]
        keys = {key["digest"]: AccessKey(**key) for key in document["keys"]}
        for key in keys.values():
            _check(str, key.digest, key.id, key.environment, key.kind, key.name)
            _check(int, key.created, key.created if key.expires is None else key.expires)
        _check(str, epoch)
        _check(int, revision)
        return KeysSnapshot((epoch, revision), keys, 0)
    except (KeyError, TypeError, ValueError) as error:
        raise StateDamaged(f"it holds no access keys: {error!r}") from error


def encode_kills(owner: Mapping[str, str], kills: Iterable[LocalKill]) -> bytes:
    """Local kills as a document."""
    return _dumped({**owner, "kills": [kill_as_json(kill) for kill in kills]})


def kill_as_json(kill: LocalKill) -> dict[str, Any]:
    """One local kill as members of JSON."""
    return {**asdict(kill), "over": [*kill.over]}


def kill_from_json(members: Mapping[str, Any]) -> LocalKill:
    """The local kill that such members are; what they are is not checked but for the position."""
    return LocalKill(**{**members, "over": _position(members["over"])})


def decode_kills(owner: Mapping[str, str], body: bytes) -> dict[str, LocalKill]:
    """The local kills that a document holds, by flag key.

    Raises:
        StateDamaged: it holds none, or somebody else's.
    """
    document = _document(owner, body)
    try:
        kills = [kill_from_json(kill) for kill in document["kills"]]
        for kill in kills:
            _check(str, kill.key, kill.to or "", kill.actor, kill.reason)
            _check(int, kill.at)
            _check(dict, kill.original)
    except (KeyError, TypeError, ValueError) as error:
        raise StateDamaged(f"it holds no local kills: {error!r}") from error
    return {kill.key: kill for kill in kills}


def _document(owner: Mapping[str, str], body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise StateDamaged(f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise StateDamaged("it is not a JSON object")
    for name, value in owner.items():
        if document.get(name) != value:
            raise StateDamaged(f"it is somebody else's: its {name} is {document.get(name)!r:.80}, and not {value!r}")
    return document


def _position(members: Iterable[Any]) -> Position:
    epoch, revision, nonce = members
    _check(str, epoch, nonce)
    _check(int, revision)
    return Position(epoch, revision, nonce)


def _check(kind: type, *values: object) -> None:
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r:.80} should be {kind.__name__}")
