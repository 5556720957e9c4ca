"""The bodies of requests, as large as they may be."""

from starlette.requests import Request

from flagrelay.errors import Refusal


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Args:
        request: whose body it is.
        most: bytes that it may have.

    Raises:
        Refusal: 413, it has more; what is too large is not even read where it says so itself.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise too_large("the body", int(announced), most)
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise too_large("the body", size, most)
        pieces.append(piece)
    return b"".join(pieces)


def too_large(what: str, size: int, most: int) -> Refusal:
    """The refusal of what is too large."""
    return Refusal(413, "TOO_LARGE", f"{what} has {size} bytes or more; the most is {most}")
