"""The bodies of requests, as large as they may be, and no slower than they may."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from flagrelay.errors import Refusal
from flagrelay.settings import Settings

LONGEST_LENGTH = 18
"""Digits of a length that are worth reading; what is longer shows by itself."""


async def read_body(request: Request, settings: Settings, most: int = 0) -> bytes:
    """The body of a request. It may have `most` bytes, or as many as bodies may have that are nothing special.

    Raises:
        Refusal: 413, it has more bytes than it may; what is too large is not even read where it says so itself. 408,
            it does not come in time.
    """
    most = most or settings.max_body_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) <= LONGEST_LENGTH and int(announced) > most:
        raise too_large("the body", int(announced), most)
    pieces, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise too_large("the body", size, most)
                pieces.append(piece)
    except ClientDisconnect:  # nobody will read this; it ends the request as any other refusal does
        raise Refusal(400, "INVALID_REQUEST", "the client left before its body had come") from None
    except TimeoutError:
        details = f"the body did not come within {settings.body_timeout:g} s; {size} bytes of it did"
        raise Refusal(408, "REQUEST_TIMEOUT", details) from None
    return b"".join(pieces)


def too_large(what: str, size: int, most: int) -> Refusal:
    """The refusal of what is too large."""
    return Refusal(413, "TOO_LARGE", f"{what} has {size} bytes or more; the most is {most}")
