"""`Idempotency-Key`: a write that is sent again, since nobody knows what came of it, is done once.

A refusal changes nothing, so its request is forgotten: it may be sent again with the same key, and succeed where the
reason is gone. Of anything else that goes wrong once a write has begun, nobody knows whether the write was done: its
answer may be what was lost. That is remembered as well, so that the request is not done a second time.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct
from starlette.requests import Request

from flagrelay.control.faults import refusal_of
from flagrelay.errors import FlagrelayError, Refusal, StoreUnavailable
from flagrelay.server.headers import single
from flagrelay.store.access_keys import AccessKey
from flagrelay.store.connection import Store
from flagrelay.store.idempotency import Begun, Mark, claim, forget, settle

HEADER = "idempotency-key"
MAX_LENGTH = 255
RETRY_AFTER = 1
"""Seconds after which a request that is being done is worth another look."""

_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_LENGTH}}}")

OUR_FAULT = 500
"""The lowest status of what is no refusal of the request, but went wrong here."""

Answer = TypeVar("Answer")

log = structlog.get_logger()


@dataclass(slots=True)
class Attempt:
    """Whether a request may have written something; a `Session` does its writes through `around`."""

    may_have_written: bool = False

    async def around(self, store: Store, write: Callable[[Store], Awaitable[Answer]]) -> Answer:
        """Do a write. One that is refused has changed nothing; of any other that fails, who knows."""
        before, self.may_have_written = self.may_have_written, True
        try:
            return await write(store)
        except FlagrelayError as error:
            refused = refusal_of(error).status < OUR_FAULT
            if refused or (isinstance(error, StoreUnavailable) and not error.unsure):
                self.may_have_written = before
            raise


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
    store: Store, key: AccessKey, request: Request, body: bytes, do: Callable[[], Awaitable[Reply]], attempt: Attempt
) -> Reply:
    """Do what a request asks for, unless it was done before: then what came of that.

    Args:
        store: where outcomes are remembered.
        key: whose request it is; another's idempotency keys are others.
        request: the request.
        body: its body.
        do: does it.
        attempt: knows whether that may have written something.

    Raises:
        Refusal: 400, its idempotency key is none; 409, it is being done now, or nobody knows whether it was done; 422,
            the key came with another request.
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
    if isinstance(begun, Begun):
        return _replay(begun, fingerprint)
    outcome: str | None = None
    try:
        reply = await do()
        outcome = msgspec.json.encode(reply).decode()
    finally:
        if outcome is None and attempt.may_have_written:
            outcome = ""
        await _settled(store, key.environment, digest, begun, outcome)
    return reply


async def _settled(store: Store, environment: str, digest: str, mark: Mark, outcome: str | None) -> None:
    """Remember an outcome, or forget the request where it has none.

    Where Redis cannot be told, the mark stays: it says as little as an outcome that nobody knows.
    """
    try:
        if outcome is None:
            await forget(store, environment, digest, mark)
        else:
            await settle(store, environment, digest, mark, outcome)
    except StoreUnavailable as error:
        log.warning("the outcome of a request is not remembered for its idempotency key", why=str(error))


def _replay(begun: Begun, fingerprint: str) -> Reply:
    if begun.fingerprint != fingerprint:
        details = "this Idempotency-Key came with another request; nothing was changed"
        raise Refusal(422, "IDEMPOTENCY_KEY_REUSED", details)
    if begun.pending:
        details = "the request with this Idempotency-Key is being done; ask again"
        raise Refusal(409, "IDEMPOTENCY_IN_PROGRESS", details, retry_after=RETRY_AFTER)
    if not begun.outcome:
        details = (
            "the request with this Idempotency-Key may have been done, and nobody knows what came of it, or the "
            "environment has another history since: look at how things stand, and ask under another key if need be; "
            "nothing was changed now"
        )
        raise Refusal(409, "OUTCOME_UNKNOWN", details)
    reply = msgspec.json.decode(begun.outcome, type=Reply)
    reply.replayed = True
    return reply


def _fingerprint(request: Request, body: bytes) -> str:
    """What tells a request from others: everything that it says of what it wants."""
    conditions = (request.headers.get(name, "") for name in ("if-match", "if-none-match"))
    content = hashlib.sha256(body).hexdigest()
    return _digest(request.method, request.url.path, request.url.query, *conditions, content)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
