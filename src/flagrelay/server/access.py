"""Who asks, and may they."""

from starlette.requests import Request

from flagrelay.errors import Refusal
from flagrelay.relay.pipeline import Pipeline
from flagrelay.server.context import Context
from flagrelay.store.access_keys import AccessKey

VIEWERS = ("server", "client")
"""The kinds of keys that may see evaluated values."""

ENVIRONMENT = "flagrelay.environment"
"""Where a request's scope says which environment its key is for."""

NOT_LOADED_RETRY_AFTER = 1
"""Seconds after which an environment that has not loaded yet is worth another try."""


def authenticate(context: Context, request: Request, *kinds: str) -> AccessKey:
    """The access key of a request: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.

    Raises:
        Refusal: 401 without a key, or with an unknown or expired one; 403 for a kind not among `kinds`; 503
            where the key cannot be checked.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        secret = request.headers.get("x-api-key", "")
    if not secret.strip():
        raise Refusal(401, "UNAUTHORIZED", "no access key: send it as `Authorization: Bearer KEY`, or as `X-API-Key`")
    return _of_kind(request, context.keyring.check(secret.strip()), kinds)


def authenticate_viewer(context: Context, request: Request) -> tuple[AccessKey, bool]:
    """The access key of a request for evaluated values, and whether it sees only what may leave to clients.

    A GET may bring a stream's token instead: `?token=TOKEN`. It sees what a client key sees.

    Raises:
        Refusal: as for `authenticate`.
    """
    token = request.query_params.get("token", "") if request.method in ("GET", "HEAD") else ""
    if token:
        return _of_kind(request, context.keyring.check_token(token), VIEWERS), True
    key = authenticate(context, request, *VIEWERS)
    return key, key.kind == "client"


def _of_kind(request: Request, key: AccessKey, kinds: tuple[str, ...]) -> AccessKey:
    # Which origins may read the answer is a matter of the key's environment.
    request.scope[ENVIRONMENT] = key.environment
    if key.kind not in kinds:
        raise Refusal(
            403,
            "WRONG_KEY_KIND",
            f"this takes a key of kind {' or '.join(kinds)}; this one is a {key.kind} key",
        )
    return key


def pipeline_of(context: Context, key: AccessKey) -> Pipeline | None:
    """The pipeline of a key's environment; None where the relay has not come across that yet.

    Raises:
        Refusal: 403, this relay does not serve the environment.
    """
    pipeline = context.relay.pipelines.get(key.environment)
    if pipeline is None and not context.relay.discovers:
        raise Refusal(403, "ENVIRONMENT_NOT_SERVED", f'this relay does not serve the environment "{key.environment}"')
    return pipeline


def pipeline_for(context: Context, key: AccessKey) -> Pipeline:
    """The pipeline of a key's environment, loaded.

    Raises:
        Refusal: 403 where this relay does not serve the environment, 503 where it has not loaded yet.
    """
    pipeline = pipeline_of(context, key)
    if pipeline is None or not pipeline.hub.loaded:
        raise Refusal(
            503,
            "PROVIDER_NOT_READY",
            f'the environment "{key.environment}" has not been loaded yet; /readyz says why',
            retry_after=NOT_LOADED_RETRY_AFTER,
        )
    return pipeline


def refuse_body(request: Request) -> None:
    """Refuse a request that brings a body where none is expected.

    Raises:
        Refusal: 400; a stream could not be told apart from the rest of such a request.
    """
    length = request.headers.get("content-length", "").strip().strip("0")
    if length or "transfer-encoding" in request.headers:
        raise Refusal(400, "INVALID_REQUEST", f"{request.method} {request.url.path} takes no body")
