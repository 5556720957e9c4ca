"""The OpenAPI document."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from jsonschema import Draft202012Validator

from flagrelay import __version__
from flagrelay.control.faults import FAULTS
from flagrelay.control.openapi import EXAMPLES, PATH_EXAMPLES, document, document_json
from flagrelay.control.operation import BASE, Operation, request_of
from flagrelay.control.table import OPERATIONS
from support.cli import Cli

DOCUMENT = document()


def described(operation: Operation[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][BASE + operation.path][operation.method.lower()]
    return found


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in the document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from references(each)


def without_examples(value: Any) -> Any:
    """What a flag's example says of populations is no reference within the document."""
    if isinstance(value, dict):
        return {name: without_examples(each) for name, each in value.items() if name != "example"}
    return [without_examples(each) for each in value] if isinstance(value, list) else value


def test_it_is_a_valid_document_of_this_version() -> None:
    schemathesis.openapi.from_dict(document()).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert DOCUMENT["info"]["version"] == __version__


def test_every_reference_leads_to_something_and_nothing_is_left_over() -> None:
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    responses = {f"#/components/responses/{name}" for name in DOCUMENT["components"]["responses"]}
    assert set(references(without_examples(DOCUMENT))) == schemas | responses


def test_it_has_every_operation_once() -> None:
    there = {
        operation["operationId"]: (method.upper(), path.removeprefix(BASE))
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    assert there == {name: (operation.method, operation.path) for name, operation in OPERATIONS.items()}
    assert [tag["name"] for tag in DOCUMENT["tags"]] == list(dict.fromkeys(name.split(".")[0] for name in OPERATIONS))


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_is_described_as_it_is(operation: Operation[Any, Any]) -> None:
    found = described(operation)
    assert found["summary"] == operation.summary
    assert found["summary"].endswith(".")
    in_path = {each["name"] for each in found["parameters"] if each["in"] == "path"}
    assert in_path == set(operation.path_members)
    assert ("requestBody" in found) == operation.has_body
    headers = {each["name"] for each in found["parameters"] if each["in"] == "header"}
    assert ("If-Match" in headers, "Idempotency-Key" in headers) == (operation.takes_revision, operation.writes)
    assert ("ETag" in found["responses"]["200"].get("headers", {})) == operation.has_etag
    members = {each["name"] for each in found["parameters"] if each["in"] in ("path", "query")}
    if operation.has_body:
        name = found["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        members |= DOCUMENT["components"]["schemas"][name]["properties"].keys()
    fields = {field.encode_name for field in msgspec.structs.fields(operation.request)}
    assert members | {"if_revision"} == fields | {"if_revision"}


def test_every_status_of_an_error_is_described_with_its_codes() -> None:
    responses = DOCUMENT["components"]["responses"]
    for _, status, code in FAULTS:
        assert re.search(rf"\b{code}\b", responses[str(status)]["description"])
        assert all(str(status) in described(operation)["responses"] for operation in OPERATIONS.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_operation_takes(name: str) -> None:
    operation = OPERATIONS[name]
    path = {member: PATH_EXAMPLES[member] for member in operation.path_members}
    assert request_of(operation, {**EXAMPLES[name], **path})
    schema = {"$ref": f"#/components/schemas/{operation.request.__name__}", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(EXAMPLES[name])


def test_an_un_release_says_that_it_goes_to_a_stage_or_a_population() -> None:
    members = document()["components"]["schemas"]["Unrelease"]["properties"]
    [to] = [each for each in members["to"]["anyOf"] if each != {"type": "null"}]
    assert "a stage, by its name or number, or who are in a population" in to["description"]
    assert (members["from"]["minItems"], "default" in members["from"]) == (1, False)


def test_the_command_prints_it() -> None:
    assert json.loads(Cli().ok("openapi")) == json.loads(document_json()) == DOCUMENT
