"""An operation: its name, its path over HTTP, its request, its answer."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from flagrelay.control.session import Session
from flagrelay.errors import InputError

BASE = "/admin/v1"
"""What the paths of all operations begin with."""

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
        counts: whether it only looks at what there is, though its request comes as the body of a POST.

    A request's member `if_revision` is no part of query or body, but the `If-Match` header; what is read or put, and
    has a revision, has it as its `ETag` too. The first line of what `run` says of itself is the summary.
    """

    name: str
    method: str
    path: str
    request: type[RequestT]
    answer: Any
    run: Callable[[Session, RequestT], Awaitable[AnswerT]]
    counts: bool = False

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return self.method != "GET" and not self.counts

    @property
    def has_body(self) -> bool:
        """Whether its request comes as a body."""
        return self.method in ("POST", "PUT")

    @property
    def takes_revision(self) -> bool:
        """Whether it can be bound to the revision at which somebody has read what it changes."""
        return "if_revision" in self.request.__struct_fields__

    @property
    def has_etag(self) -> bool:
        """Whether its answer tells the revision of the one thing that it is about."""
        members = getattr(self.answer, "__struct_fields__", ())
        read = "revision" in members and self.method in ("GET", "PUT")
        return bool(self.path_members) and (read or "release" in members)

    @cached_property
    def path_members(self) -> tuple[str, ...]:
        """The members of the request that stand in the path."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))


_EMPTY = re.compile(r"Expected `\w+` (?:of length >= 1|matching regex .*) - at `\$\.(\w+)`")

EMPTY = {
    "reason": "it is empty: say why",
    "from": "it is empty: name populations, or leave it out, which is everybody",
}
"""What is said of members that say nothing, rather than by which rule that is told."""


def explained(operation: Operation[Any, Any], error: msgspec.ValidationError) -> str:
    """What is wrong with the request of an operation."""
    empty = _EMPTY.fullmatch(str(error))
    if empty and empty[1] in EMPTY:
        return f"{operation.name}: {empty[1]}: {EMPTY[empty[1]]}"
    return f"{operation.name}: {error}"


def request_of(operation: Operation[RequestT, Any], members: Mapping[str, Any]) -> RequestT:
    """The request that members make; those that are None are left out.

    Raises:
        InputError: they make none.
    """
    given = {name: value for name, value in members.items() if value is not None}
    try:
        return msgspec.convert(given, operation.request)
    except msgspec.ValidationError as error:
        raise InputError(explained(operation, error)) from error


async def perform(session: Session, operation: Operation[Any, AnswerT], **members: Any) -> AnswerT:  # noqa: ANN401 - each has its own
    """Do an operation, with the members of its request.

    Raises:
        FlagrelayError: what is wrong with them, or what went wrong.
    """
    return await operation.run(session, request_of(operation, members))
