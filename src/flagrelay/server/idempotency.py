"""`Idempotency-Key`: a write that is sent again, since nobody knows what came of it, is done once.

Only what was done is remembered. A refusal changes nothing, so its request may be sent again with the same key, and
succeed where the reason is gone.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from msgspec import Struct
from starlette.requests import Request

from flagrelay.errors import Refusal, StoreUnavailable
from flagrelay.server.headers import single
from flagrelay.store.access_keys import AccessKey
from flagrelay.store.connection import Store
from flagrelay.store.idempotency import claim, settle

HEADER = "idempotency-key"
MAX_LENGTH = 255
RETRY_AFTER = 1
"""Seconds after which a request that is being done is worth another look."""

_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_LENGTH}}}")

log = structlog.get_logger()


class Reply(Struct, kw_only=True):
    """The answer to a request that was granted.

    Args:
        body: JSON.
        etag: the ETag of what it is about; empty where that has none.
        revision: the revision of the change that was written; None where none was.
        replayed: whether it is what came of the same request before.
    """

    body: str
    etag: str = ""
    revision: int | None = None
    replayed: bool = False


async def once(
    store: Store, key: AccessKey, request: Request, body: bytes, do: Callable[[], Awaitable[Reply]]
) -> Reply:
    """Do what a request asks for, unless it was done before: then what came of that.

    Args:
        store: where outcomes are remembered.
        key: whose request it is; another's idempotency keys are others.
        request: the request.
        body: its body.
        do: does it.

    Raises:
        Refusal: 400, its idempotency key is none; 409, it is being done now; 422, the key came with another request.
        StoreUnavailable: Redis does not answer, so nobody knows.
    """
    given = single(request, HEADER)
    if given is None:
        return await do()
    if not _KEY.fullmatch(given):
        details = f"Idempotency-Key should have 1 to {MAX_LENGTH} printable ASCII characters"
        raise Refusal(400, "INVALID_REQUEST", details)
    digest = _digest(key.id, given)
    fingerprint = _fingerprint(request, body)
    begun = await claim(store, key.environment, digest, fingerprint)
    if not isinstance(begun, bytes):
        return _replay(begun.fingerprint == fingerprint, begun.outcome)
    outcome = ""
    try:
        reply = await do()
        outcome = msgspec.json.encode(reply).decode()
    finally:
        await _settled(store, key.environment, digest, begun, fingerprint, outcome)
    return reply


async def _settled(store: Store, environment: str, digest: str, mark: bytes, fingerprint: str, outcome: str) -> None:
    """Remember an outcome, or forget the request. What was done is done, whether that is remembered or not."""
    try:
        await settle(store, environment, digest, mark, fingerprint, outcome)
    except StoreUnavailable as error:
        log.warning("the outcome of a request is not remembered for its idempotency key", why=str(error))


def _replay(same: bool, outcome: str) -> Reply:  # noqa: FBT001 - one of the two things it is about
    if not same:
        details = "this Idempotency-Key came with another request; nothing was changed"
        raise Refusal(422, "IDEMPOTENCY_KEY_REUSED", details)
    if not outcome:
        details = "the request with this Idempotency-Key is being done; ask again"
        raise Refusal(409, "IDEMPOTENCY_IN_PROGRESS", details, retry_after=RETRY_AFTER)
    reply = msgspec.json.decode(outcome, type=Reply)
    reply.replayed = True
    return reply


def _fingerprint(request: Request, body: bytes) -> str:
    """What tells a request from others: everything that it says of what it wants."""
    conditions = (request.headers.get(name, "") for name in ("if-match", "if-none-match"))
    content = hashlib.sha256(body).hexdigest()
    return _digest(request.method, request.url.path, request.url.query, *conditions, content)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
