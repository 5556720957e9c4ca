"""Access keys, stored hashed."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any

import orjson

from flagrelay.errors import AccessKeyMissing
from flagrelay.store.connection import Store
from flagrelay.store.reading import read_position
from flagrelay.store.script import Script

KINDS = ("server", "client", "admin")

# The hash has two fields beside the digests, `epoch` and `revision`, so that it outlives its last key: a key that
# was revoked must differ from a Redis that was wiped. The right to publish is asked for first, as in write.lua.
_WRITE = Script("""
local digest, record, epoch = ARGV[1], ARGV[2], ARGV[3]
if redis.acl_check_cmd and not redis.acl_check_cmd('PUBLISH', KEYS[1], '') then
  return redis.error_reply('NOPERM this user has no permission to PUBLISH ' .. KEYS[1] .. '; nothing was changed')
end
if record ~= '' then
  redis.call('HSET', KEYS[1], digest, record)
elseif redis.call('HDEL', KEYS[1], digest) == 0 then
  return 0
end
redis.call('HSETNX', KEYS[1], 'epoch', epoch)
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('PUBLISH', KEYS[1],
  cjson.encode({epoch = redis.call('HGET', KEYS[1], 'epoch'), revision = revision}))
return 1
""")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key, without its secret: `digest` is the SHA-256 of it; times in seconds since 1970."""

    id: str
    digest: str
    environment: str
    kind: str
    name: str
    created: int
    expires: int | None


@dataclass(frozen=True, slots=True)
class KeysSnapshot:
    """Every access key at one revision, by digest; `unreadable` counts records that are none of ours."""

    position: tuple[str, int]
    keys: Mapping[str, AccessKey]
    unreadable: int


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def stream_token(key: AccessKey) -> str:
    """What stands for a key in a URL, where a browser's EventSource can send no header.

    It opens streams of evaluated values and OFREP's event streams, as a client key does, and nothing else. It is the
    same on every relay, says nothing of the key or of what is stored of it, and is revoked with it.
    """
    signed = hmac.new(key.digest.encode(), f"flagrelay stream {key.id}".encode(), hashlib.sha256).digest()
    return f"{key.id}.{base64.urlsafe_b64encode(signed[:24]).decode()}"


async def create_access_key(
    store: Store, environment: str, kind: str, name: str, expires: int | None
) -> tuple[AccessKey, str]:
    """Create an access key. Returns it, and its secret, which is stored nowhere.

    Raises:
        EnvironmentMissing: there is no such environment.
    """
    await read_position(store, environment)
    secret = f"fr_{kind}_{secrets.token_urlsafe(32)}"
    name = name.encode(errors="replace").decode()  # a command line may hold what is no Unicode
    key = AccessKey(secrets.token_hex(6), digest(secret), environment, kind, name, int(time()), expires)
    record = {
        "id": key.id,
        "environment": environment,
        "kind": kind,
        "name": key.name,
        "created": key.created,
        "expires": expires,
    }
    await _WRITE.run(store, [store.keys.keys], key.digest, orjson.dumps(record), secrets.token_hex(16))
    return key, secret


async def list_access_keys(store: Store) -> list[AccessKey]:
    """Every access key, by environment and name."""
    read = await read_access_keys(store)
    keys = read.keys.values() if read else ()
    return sorted(keys, key=lambda key: (key.environment, key.name, key.created, key.id))


async def revoke_access_key(store: Store, key_id: str) -> AccessKey:
    """Revoke an access key. Relays end its streams at once.

    Raises:
        AccessKeyMissing: there is none with that id.
    """
    for key in await list_access_keys(store):
        if key.id == key_id and await _WRITE.run(store, [store.keys.keys], key.digest, "", ""):
            return key
    raise AccessKeyMissing(key_id)


async def read_access_keys(store: Store) -> KeysSnapshot | None:
    """Every access key; None where there never was one, or Redis was wiped."""
    with store.talking():
        fields: dict[bytes, bytes] = await store.client.hgetall(store.keys.keys)
    position = _position(fields.pop(b"epoch", None), fields.pop(b"revision", None))
    if position is None:
        return None
    keys = {}
    for name, record in fields.items():
        key = _access_key(name.decode(errors="replace"), record)
        if key:
            keys[key.digest] = key
    return KeysSnapshot(position, keys, len(fields) - len(keys))


async def read_keys_position(store: Store) -> tuple[str, int] | None:
    """Epoch and revision of the access keys; None where there are none."""
    with store.talking():
        epoch, revision = await store.client.hmget(store.keys.keys, ["epoch", "revision"])
    return _position(epoch, revision)


def _position(epoch: bytes | None, revision: bytes | None) -> tuple[str, int] | None:
    if epoch is None or revision is None or not revision.isdigit():
        return None
    return epoch.decode(errors="replace"), int(revision)


def _access_key(name: str, record: bytes) -> AccessKey | None:
    # By name, so that what a later version adds to a record does not make the key unknown to this one.
    members = ("id", "environment", "kind", "name", "created", "expires")
    try:
        fields: dict[str, Any] = orjson.loads(record)
        key = AccessKey(digest=name, **{member: fields[member] for member in members})
    except (ValueError, TypeError, KeyError):
        return None
    texts: tuple[object, ...] = (key.id, key.environment, key.kind, key.name)
    times: tuple[object, ...] = (key.created, key.created if key.expires is None else key.expires)
    sound = all(isinstance(text, str) for text in texts) and all(isinstance(moment, int) for moment in times)
    return key if sound and key.kind in KINDS else None
