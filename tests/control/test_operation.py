"""The rules that every operation keeps, since routes, documents and commands are made from them."""

import inspect
import re
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

import msgspec
import pytest
from msgspec import Struct

from flagrelay.control import table
from flagrelay.control.answers import Request
from flagrelay.control.operation import Operation, perform, request_of
from flagrelay.control.session import Session
from flagrelay.errors import InputError
from flagrelay.store.connection import Store
from support.released import do
from support.stores import ENVIRONMENT, everything, put

OPERATIONS = table.OPERATIONS

every = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def test_every_operation_that_is_made_is_in_the_table_by_its_name() -> None:
    made = {each for each in vars(table).values() if isinstance(each, Operation)}
    assert made == set(OPERATIONS.values())
    assert all(name == operation.name for name, operation in OPERATIONS.items())


def test_no_two_operations_have_the_same_method_and_path() -> None:
    shapes = [(each.method, re.sub(r"\{\w+\}", "{}", each.path)) for each in OPERATIONS.values()]
    assert len(set(shapes)) == len(shapes)


@every
def test_an_operation_says_what_it_does_in_one_sentence(operation: Operation[Any, Any]) -> None:
    assert re.fullmatch(r"[A-Z][^.]{5,}\.", operation.summary)


@every
def test_an_operation_has_the_request_and_the_answer_that_it_says(operation: Operation[Any, Any]) -> None:
    assert issubclass(operation.request, Request)
    assert operation.request.__struct_config__.forbid_unknown_fields
    session, request = inspect.signature(operation.run, eval_str=True).parameters.values()
    assert (session.annotation, request.annotation) == (Session, operation.request)
    assert inspect.signature(operation.run, eval_str=True).return_annotation == operation.answer
    kind = get_args(operation.answer)[0] if get_origin(operation.answer) is list else operation.answer
    assert issubclass(kind, Struct) or is_dataclass(kind)
    msgspec.json.schema(operation.answer)


@every
def test_what_stands_in_the_path_is_text_that_the_request_must_have(operation: Operation[Any, Any]) -> None:
    assert operation.path.startswith("/")
    fields = {each.name: each for each in msgspec.structs.fields(operation.request)}
    for name in operation.path_members:
        assert fields[name].required
        with pytest.raises(InputError, match="str"):
            request_of(operation, dict.fromkeys(operation.path_members, 7))
        with pytest.raises(InputError, match=r"length|missing"):
            request_of(operation, dict.fromkeys(operation.path_members, ""))


@every
def test_what_only_reads_is_a_get_or_says_so_and_what_stands_in_a_query_is_plain(
    operation: Operation[Any, Any],
) -> None:
    assert operation.method in ("GET", "PUT", "POST", "DELETE")
    assert operation.writes is (operation.method != "GET" and operation.name not in COUNTING)
    if not operation.has_body:
        for each in msgspec.structs.fields(operation.request):
            schema = msgspec.json.schema(each.type)
            kinds = {part.get("type") for part in schema.get("anyOf", [schema])}
            assert kinds <= {"string", "integer", "number", "boolean", "null"}, each.name


COUNTING = ("releases.reach", "populations.members")


@every
async def test_nothing_of_it_happens_where_a_member_is_unknown(store: Store, operation: Operation[Any, Any]) -> None:
    await do_nothing(store, operation, nonsense=1)


async def do_nothing(store: Store, operation: Operation[Any, Any], **members: Any) -> None:
    before = await everything(store)
    with pytest.raises(InputError, match=f"^{operation.name}: "):
        await do(store, operation, **members)
    assert await everything(store) == before


def test_a_member_that_is_none_counts_as_left_out() -> None:
    assert request_of(table.KILL, {"key": "a", "reason": "why", "to": None}) == request_of(
        table.KILL, {"key": "a", "reason": "why"}
    )
    with pytest.raises(InputError, match=r"flags.kill: .*reason"):
        request_of(table.KILL, {"key": "a", "reason": None})


@pytest.mark.parametrize("reason", ["", " ", "\t\n", "x" * 1001])
def test_who_takes_something_away_says_why(reason: str) -> None:
    for operation in (table.KILL, table.UNRELEASE, table.RETREAT, table.START, table.ADVANCE):
        with pytest.raises(InputError, match=r"reason"):
            request_of(operation, {"key": "a", "reason": reason})


@pytest.mark.parametrize("reason", ["", " ", "\t\n"])
def test_a_reason_that_says_nothing_is_refused_in_a_sentence(reason: str) -> None:
    with pytest.raises(InputError, match=r"^flags.kill: reason: it is empty: say why$"):
        request_of(table.KILL, {"key": "a", "reason": reason})


def test_an_empty_list_of_populations_is_not_everybody() -> None:
    with pytest.raises(InputError, match=r"^releases.unrelease: from: it is empty: name populations, or leave it out"):
        request_of(table.UNRELEASE, {"key": "a", "reason": "x", "from": []})
    assert request_of(table.UNRELEASE, {"key": "a", "reason": "x"})


async def test_each_write_goes_through_what_the_session_has_around_it(store: Store, desk: object) -> None:
    seen: list[Store] = []

    async def around(given: Store, write: Any) -> Any:
        seen.append(given)
        return await write(given)

    await put(store, "a")
    session = Session(store, ENVIRONMENT, "ada", around=around)
    await perform(session, table.GET_FLAG, key="a")
    assert seen == []
    await perform(session, table.KILL, key="a", reason="why")
    assert seen == [store]


@pytest.mark.parametrize(
    ("operation", "etag"),
    [
        (table.GET_FLAG, True),
        (table.PUT_FLAG, True),
        (table.LIST_FLAGS, False),
        (table.GET_RELEASE, True),
        (table.PLAN, True),
        (table.ADVANCE, True),
        (table.RELEASE_HISTORY, False),
        (table.GET_POPULATION, True),
        (table.MEMBERS, False),
        (table.HISTORY, False),
        (table.KILL, False),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_has_one_revision_tells_it_as_its_etag(operation: Operation[Any, Any], etag: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    assert operation.has_etag is etag
