"""An operation: its name, its path over HTTP, its request, its answer."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from msgspec import Struct

from flagrelay.control.session import Session

RequestT = TypeVar("RequestT", bound=Struct)
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Operation(Generic[RequestT, AnswerT]):
    """Something that people do to an environment.

    Args:
        name: `release.advance`: what it is called in logs, tests and the OpenAPI document.
        method: of HTTP.
        path: below `/admin/v1`, with parameters in braces, which are members of the request.
        request: a struct; what of it is not in the path is the query of a GET or DELETE, else the body.
        answer: the type of what it gives: a struct, or a list of such.
        run: does it.

    A request's member `if_revision` is no part of query or body, but the `If-Match` header; an answer's member
    `revision` is the `ETag` header too. The first line of what `run` says of itself is the summary.
    """

    name: str
    method: str
    path: str
    request: type[RequestT]
    answer: Any
    run: Callable[[Session, RequestT], Awaitable[AnswerT]]

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return self.method != "GET"

    @property
    def has_body(self) -> bool:
        """Whether its request comes as a body."""
        return self.method in ("POST", "PUT")

    @cached_property
    def path_members(self) -> tuple[str, ...]:
        """The members of the request that stand in the path."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))
