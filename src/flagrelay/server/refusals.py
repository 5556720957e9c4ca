"""Every error as JSON: `{"errorCode", "errorDetails"}`."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.errors import Refusal
from flagrelay.wire.frame import error_body

CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 500: "GENERAL"}


def refused(_request: Request, error: Exception) -> Response:
    """The answer to a request that we refuse."""
    if not isinstance(error, Refusal):
        raise TypeError(f"not a refusal: {error!r}")
    return answer_of(error)


def answer_of(error: Refusal) -> Response:
    """The same, for who has no request to hand."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="flagrelay"'
    if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT):
        # What else is on the connection may be the rest of the same misunderstanding.
        headers["connection"] = "close"
    return _answer(error.status, error.code, error.details, headers)


def not_routed(request: Request, error: Exception) -> Response:
    """The answer to a request for what is not there."""
    if not isinstance(error, HTTPException):
        raise TypeError(f"not an HTTP exception: {error!r}")
    code = CODES.get(error.status_code, "GENERAL")
    details = f"{request.method} {request.url.path}: {HTTPStatus(error.status_code).phrase.lower()}"
    return _answer(error.status_code, code, details, dict(error.headers or {}))


def failed(_request: Request, _error: Exception) -> Response:
    """The answer where we are at fault; the log has the rest."""
    return _answer(500, CODES[500], "the relay failed to answer; its log says why", {})


def _answer(status: int, code: str, details: str, headers: dict[str, str]) -> Response:
    return Response(
        error_body(code, details),
        status,
        {"cache-control": "no-store", **headers},
        media_type="application/json",
    )
