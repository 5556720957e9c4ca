"""/admin/v1/…: the operations of `control` over HTTP, with an admin key, whose name is the actor."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flagrelay.control.answers import Change
from flagrelay.control.faults import refusal_of
from flagrelay.control.openapi import document_json
from flagrelay.control.operation import BASE, Operation
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted
from flagrelay.control.table import OPERATIONS
from flagrelay.errors import Conflict, FlagrelayError, Refusal
from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.access import authenticate, pipeline_of, refuse_body
from flagrelay.server.asking import asked_for, expected_history
from flagrelay.server.bodies import read_body
from flagrelay.server.conditional import matches
from flagrelay.server.context import Context, context_of
from flagrelay.server.headers import single
from flagrelay.server.idempotency import Attempt, Reply, once
from flagrelay.settings import Settings
from flagrelay.store.access_keys import AccessKey
from flagrelay.store.reading import read_position

AnyOperation = Operation[Any, Any]

NO_STORE = {"cache-control": "no-store"}

log = structlog.get_logger()


def admin_routes() -> list[Route]:
    """A route for each path that operations have, and one for the document that describes them.

    What names a thing may hold slashes: it reaches as far as it can. So a POST to `/flags/a/kill/kill` kills the flag
    `a/kill`, and a GET of `/flags/a/kill` reads it.
    """
    described = Route(f"{BASE}/openapi.json", openapi)
    ordered = sorted(OPERATIONS.values(), key=lambda operation: operation.path, reverse=True)
    return [described, *(_route(path, list(each)) for path, each in groupby(ordered, key=lambda one: one.path))]


def _route(path: str, operations: list[AnyOperation]) -> Route:
    by_method = {operation.method: operation for operation in operations}

    async def endpoint(request: Request) -> Response:
        return await _perform(by_method["GET" if request.method == "HEAD" else request.method], request)

    return Route(BASE + re.sub(r"\{(\w+)\}", r"{\1:path}", path), endpoint, methods=list(by_method))


async def openapi(_request: Request) -> Response:
    """The document that describes all of it; it holds nothing of anybody's."""
    return Response(document_json(), headers=NO_STORE, media_type="application/json")


async def _perform(operation: AnyOperation, request: Request) -> Response:
    """Do an operation, for whoever asks for it with an admin key."""
    context = context_of(request)
    key, _ = _admitted(context, request)
    body = await _body(operation, request, context.settings)
    key, pipeline = _admitted(context, request)  # the key may have been revoked while the body was on its way
    attempt = Attempt()
    contexts = partial(_contexts, pipeline)
    session = Session(context.store, key.environment, key.name, contexts=contexts, around=attempt.around)
    do = partial(_do, operation, request, session, body)
    try:
        reply = await (once(context.store, key, request, body, do, attempt) if operation.writes else do())
    except FlagrelayError as error:
        refusal = _refusal(error, request)
        _log(operation, key, status=refusal.status, code=refusal.code)
        raise refusal from error
    _log(operation, key, status=200, revision=reply.revision, replayed=reply.replayed)
    return _answer(operation, request, reply)


def _admitted(context: Context, request: Request) -> tuple[AccessKey, Pipeline | None]:
    """The key of a request, and who serves its environment here.

    Raises:
        Refusal: 401, 403 or 503: it has none that may do this, here, now.
    """
    key = authenticate(context, request, "admin")
    pipeline = pipeline_of(context, key)
    meant = request.headers.get("flagrelay-environment", key.environment)
    if meant != key.environment:
        details = f'the access key is for environment "{key.environment}", and the request is for "{meant:.100}"'
        raise Refusal(403, "WRONG_ENVIRONMENT", f"{details}; nothing was changed")
    return key, pipeline


async def _body(operation: AnyOperation, request: Request, settings: Settings) -> bytes:
    if operation.has_body:
        return await read_body(request, settings, settings.max_admin_body_bytes)
    refuse_body(request)
    return b""


def _contexts(pipeline: Pipeline | None) -> Iterable[Mapping[str, Any]]:
    """The evaluation contexts of the streams that are open on this process."""
    subscribers = pipeline.evaluations.subscribers if pipeline else ()
    return [subscriber.view.context for subscriber in subscribers if subscriber.view]


async def _do(operation: AnyOperation, request: Request, session: Session, body: bytes) -> Reply:
    asked = asked_for(operation, request, body)
    history = await _history(operation, request, session)
    answer = await operation.run(session, asked)
    encoded = msgspec.json.encode(answer).decode()
    change = answer if isinstance(answer, Change) else getattr(answer, "change", None)
    revision = change.revision if isinstance(change, Change) and change.changed else None
    return Reply(body=encoded, etag=_etag(operation, answer, encoded, history), revision=revision)


async def _history(operation: AnyOperation, request: Request, session: Session) -> str:
    """What tells the environment's history from others; empty where nobody asks.

    It is read first: an ETag may be of the history before, which no If-Match will then meet, but never of one after.

    Raises:
        Refusal: 412, it is not the one that the request wants. Another one counts revisions of its own.
    """
    expected = expected_history(request)
    if not (operation.has_etag or expected):
        return ""
    epoch = (await read_position(session.store, session.environment)).epoch
    history = hashlib.blake2b(epoch.encode(), digest_size=4).hexdigest()
    if expected not in ("", history):
        details = f'environment "{session.environment}" has another history since it was read: read it again'
        raise Refusal(412, "PRECONDITION_FAILED", f"{details}; nothing was changed")
    return history


def _etag(
    operation: AnyOperation,
    answer: Any,  # noqa: ANN401 - each operation's is another
    encoded: str,
    history: str,
) -> str:
    """The ETag of what an operation is about; empty where it has none.

    What is read says things of others, too: who uses a population, whether the flag of a release is killed. So its ETag
    is more than its revision and history, which are all that an If-Match is held against.
    """
    if not operation.has_etag:
        return ""
    match answer:
        case Acted():
            return f'"{answer.release.revision}-{history}"' if answer.release.revision else ""
        case Change():
            return f'"{answer.revision}-{history}"' if answer.changed else ""
    return f'"{answer.revision}-{history}-{hashlib.blake2b(encoded.encode(), digest_size=8).hexdigest()}"'


def _refusal(error: FlagrelayError, request: Request) -> Refusal:
    """The refusal that an error is to who sent this request."""
    if isinstance(error, Refusal):
        return error
    conditional = "if-match" in request.headers or "if-none-match" in request.headers
    if isinstance(error, Conflict) and conditional:
        return Refusal(412, "PRECONDITION_FAILED", str(error))
    return refusal_of(error)


def _answer(operation: AnyOperation, request: Request, reply: Reply) -> Response:
    headers = dict(NO_STORE)
    if reply.etag:
        headers["etag"] = reply.etag
    if reply.replayed:
        headers["idempotency-replayed"] = "true"
    has = single(request, "if-none-match") if operation.method == "GET" and reply.etag else None
    if has is not None and matches(has, reply.etag):
        return Response(status_code=304, headers=headers)
    return Response(reply.body, headers=headers, media_type="application/json")


def _log(operation: AnyOperation, key: AccessKey, **outcome: Any) -> None:  # noqa: ANN401 - members of a log's line
    """One line for each write that somebody asked for: who did what, and what came of it; nothing of what they sent."""
    if operation.writes:
        log.info(
            "control", operation=operation.name, actor=key.name, key=key.id, environment=key.environment, **outcome
        )
