"""Headers that mean nothing where they come twice."""

from starlette.requests import Request

from flagrelay.errors import Refusal


def single(request: Request, name: str) -> str | None:
    """The value of a header, or None where it is not there.

    Raises:
        Refusal: 400, it is there twice.
    """
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise Refusal(400, "INVALID_REQUEST", f"the header {name} stands there {len(values)} times; once is enough")
    return values[0] if values else None
