"""What came of requests that had an idempotency key, for who sends one again without knowing what came of it.

It stands below the environment's hash tag for a day, under a digest. While a request is being done a mark stands in its
place. A mark that is older than a minute is that of a relay which died over it, or could not say what came of it: the
request may have been done, and nobody does it again under that key.
"""

import secrets
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from flagrelay.errors import StoreCorrupt
from flagrelay.store.connection import Store
from flagrelay.store.script import Script

KEPT = 24 * 60 * 60
"""Seconds for which an outcome is remembered."""

PENDING = 60
"""Seconds after which nobody counts on the outcome of a request any more."""

# KEYS: the request's, state; ARGV: mark, seconds that it stands. Answers with what stood there before, or '', for how
# many seconds that stands yet, and the epoch.
_CLAIM = Script("""
local held, left = redis.call('GET', KEYS[1]), redis.call('TTL', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return {held or '', left, redis.call('HGET', KEYS[2], 'epoch') or ''}
""")

# KEYS: the request's; ARGV: mark, what to keep or '' for nothing, for how many seconds. Does nothing to another's mark.
_SETTLE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
""")


class _Kept(Struct, kw_only=True):
    """What stands in Redis; `owner` is whose mark it is, while it is one."""

    fingerprint: str
    owner: str = ""
    outcome: str = ""
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands for a request while it is done, and the history that the environment had then."""

    text: bytes
    fingerprint: str
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A request that was begun before.

    Args:
        fingerprint: what it was.
        outcome: what came of it; empty where that is not known, or is of a history that the environment has no more.
        pending: whether it is being done.
    """

    fingerprint: str
    outcome: str
    pending: bool


async def claim(store: Store, environment: str, digest: str, fingerprint: str) -> Begun | Mark:
    """Begin a request. Returns the mark that stands for it; or, where it was begun before, what is known of that.

    Raises:
        StoreUnavailable: Redis does not answer, or this relay may not do it.
    """
    mark = msgspec.json.encode(_Kept(fingerprint=fingerprint, owner=secrets.token_hex(8)))
    keys = [store.keys.idempotency(environment, digest), store.keys.state(environment)]
    held, left, epoch = await _CLAIM.run(store, keys, mark, KEPT)
    if not held:
        return Mark(mark, fingerprint, epoch.decode())
    try:
        kept = msgspec.json.decode(held, type=_Kept)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"what stands for an idempotency key in Redis cannot be read: {error}") from error
    outcome = kept.outcome if kept.epoch == epoch.decode() else ""
    return Begun(fingerprint=kept.fingerprint, outcome=outcome, pending=bool(kept.owner) and left > KEPT - PENDING)


async def settle(store: Store, environment: str, digest: str, mark: Mark, outcome: str) -> None:
    """Remember what came of a request; empty, that nobody knows. Nothing happens once its mark is gone.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    kept = _Kept(fingerprint=mark.fingerprint, outcome=outcome, epoch=mark.epoch)
    keys = [store.keys.idempotency(environment, digest)]
    await _SETTLE.run(store, keys, mark.text, msgspec.json.encode(kept), KEPT)


async def forget(store: Store, environment: str, digest: str, mark: Mark) -> None:
    """Forget a request that has changed nothing: it never was. Nothing happens once its mark is gone.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    await _SETTLE.run(store, [store.keys.idempotency(environment, digest)], mark.text, "", KEPT)
