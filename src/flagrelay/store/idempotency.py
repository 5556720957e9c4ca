"""What came of requests that had an idempotency key, for who sends one again without knowing what came of it.

It stands below the environment's hash tag for a day, under a digest. While a request is being done a mark stands in its
place, which goes by itself after a minute: a relay that died over it blocks nobody.
"""

import secrets

import msgspec
from msgspec import Struct

from flagrelay.errors import StoreCorrupt
from flagrelay.store.connection import Store
from flagrelay.store.script import Script

KEPT = 24 * 60 * 60
"""Seconds for which an outcome is remembered."""

PENDING = 60
"""Seconds after which a request that has no outcome counts as never begun."""

# KEYS: the request's; ARGV: mark, seconds that it stands.
_CLAIM = Script("""
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return held
""")

# KEYS: the request's; ARGV: mark, outcome or '' for none, seconds that it is kept. Does nothing to another's mark.
_SETTLE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
""")


class Begun(Struct, kw_only=True):
    """A request that was begun: what it was, by whom it is done, and what came of it; empty while that is open."""

    fingerprint: str
    owner: str = ""
    outcome: str = ""


async def claim(store: Store, environment: str, digest: str, fingerprint: str) -> Begun | bytes:
    """Begin a request. Returns the mark that stands for it; or, where it was begun before, what is known of that.

    Raises:
        StoreUnavailable: Redis does not answer, or this relay may not do it.
    """
    mark = msgspec.json.encode(Begun(fingerprint=fingerprint, owner=secrets.token_hex(8)))
    held = await _CLAIM.run(store, [store.keys.idempotency(environment, digest)], mark, PENDING)
    if held is None:
        return mark
    try:
        return msgspec.json.decode(held, type=Begun)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"what stands for an idempotency key in Redis cannot be read: {error}") from error


async def settle(store: Store, environment: str, digest: str, mark: bytes, fingerprint: str, outcome: str) -> None:
    """Remember what came of a request; with no outcome, that it never was. Nothing happens once its mark is gone.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    kept = msgspec.json.encode(Begun(fingerprint=fingerprint, outcome=outcome)) if outcome else b""
    await _SETTLE.run(store, [store.keys.idempotency(environment, digest)], mark, kept, KEPT)
