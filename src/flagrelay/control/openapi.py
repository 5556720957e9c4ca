"""The OpenAPI document of the control API, made from the table of operations and the types that they have."""

import inspect
import json
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec.json import schema_components

from flagrelay import __version__
from flagrelay.control.faults import FAULTS
from flagrelay.control.operation import BASE, Operation
from flagrelay.control.table import OPERATIONS

AnyOperation = Operation[Any, Any]
Document = dict[str, Any]

REF = "#/components/schemas/{name}"

ABOUT = """\
What people do to an environment's flags: the same operations as those of the command line, with the same errors.

The access key is of kind `admin`. It says which environment is meant, and its name is the actor that history has. A
flag's key or a population's name stands percent-encoded in the path, its slashes too; one that is `.` or `..` cannot be
said in a URL.
"""

ERROR = {
    "title": "Error",
    "description": "What went wrong: a code for machines, and a sentence for people.",
    "type": "object",
    "properties": {"errorCode": {"type": "string"}, "errorDetails": {"type": "string"}},
    "required": ["errorCode", "errorDetails"],
}

REFUSALS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request, or what it would write, breaks a rule.", ()),
    401: ("There is no access key, or an unknown or expired one.", ("UNAUTHORIZED",)),
    403: (
        "The access key is for something else.",
        ("WRONG_KEY_KIND", "WRONG_ENVIRONMENT", "ENVIRONMENT_NOT_SERVED"),
    ),
    404: ("What it is about is not there.", ("NOT_FOUND",)),
    408: ("The body did not come in time.", ("REQUEST_TIMEOUT",)),
    409: ("It does not fit how things stand now.", ("IDEMPOTENCY_IN_PROGRESS", "OUTCOME_UNKNOWN")),
    412: ("It was written since the revision of the precondition.", ("PRECONDITION_FAILED",)),
    413: ("The body is too large.", ("TOO_LARGE",)),
    415: ("The body is no JSON.", ("UNSUPPORTED_MEDIA_TYPE",)),
    422: ("The idempotency key came with another request.", ("IDEMPOTENCY_KEY_REUSED",)),
    431: ("The path and the headers are too large.", ("HEAD_TOO_LARGE",)),
    500: ("The relay, or what Redis holds, is at fault.", ("GENERAL",)),
    503: ("Redis does not answer, or the keys cannot be checked: try again.", ("KEYS_UNAVAILABLE",)),
}
"""What each status means, and its codes beside those that operations themselves fail with."""

RETRIED = (409, 503)
"""Those that may say when to try again."""

ETAG = {"description": "Its revision; for If-Match, and If-None-Match.", "schema": {"type": "string"}}
REPLAYED = {
    "description": "That this came of the same request before, which had the same idempotency key.",
    "schema": {"type": "string", "enum": ["true"]},
}
RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 0}}

PATH_EXAMPLES = {"key": "checkout-v2", "name": "beta", "relay": "relay-1:8080"}

FLAG_EXAMPLE = {
    "state": "ENABLED",
    "variants": {"on": True, "off": False},
    "defaultVariant": "off",
    "targeting": {"if": [{"$ref": "beta"}, "on"]},
}
CONTEXT_EXAMPLE = {"targetingKey": "user-1", "email": "ada@example.com"}
STEP_EXAMPLE = {"reason": "error rate is fine"}

EXAMPLES: Mapping[str, Document] = {
    "flags.put": {"definition": FLAG_EXAMPLE, "reason": "for the new checkout"},
    "flags.kill": {"reason": "error rate"},
    "flags.revive": {"reason": "fixed"},
    "flagset.import": {"document": {"flags": {"checkout-v2": FLAG_EXAMPLE}}, "dry_run": True},
    "flagset.sync": {"document": {"flags": {"checkout-v2": FLAG_EXAMPLE}}},
    "releases.plan": {
        "plan": {
            "flag": "checkout-v2",
            "released": "on",
            "baseline": "off",
            "stages": [{"population": "beta", "percent": 50}, {"percent": 1}, {"percent": 100}],
        },
        "replace_targeting": True,
    },
    "releases.start": STEP_EXAMPLE,
    "releases.advance": STEP_EXAMPLE,
    "releases.retreat": {"reason": "complaints"},
    "releases.unrelease": {"from": ["beta"], "reason": "error rate"},
    "releases.restore": {"population": "beta", "reason": "fixed"},
    "releases.approve": {"reason": "looks right"},
    "releases.finish": {"force": True},
    "releases.abandon": {"reason": "not wanted"},
    "releases.detach": {"preview": True},
    "releases.reach": {"sample": [CONTEXT_EXAMPLE]},
    "populations.put": {"email_domains": ["example.com"], "description": "who asked for it", "risk": 2},
    "populations.members": {"sample": [CONTEXT_EXAMPLE]},
}
"""A body for each operation that takes one."""

MEANT = {
    "name": "Flagrelay-Environment",
    "in": "header",
    "description": "The environment that is meant; refused where the access key is for another.",
    "example": "production",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag at which it was read, or a revision alone: 412 where it was written since.",
    "example": '"18"',
    "schema": {"type": "string", "pattern": '^"[1-9][0-9]{0,14}(-[0-9a-f]+){0,2}"$'},
}
IF_NOT_THERE = {
    "name": "If-None-Match",
    "in": "header",
    "description": "`*`: only where it is not there yet; 412 where it is.",
    "schema": {"type": "string", "enum": ["*"]},
}
IF_NEW = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag that the client has: 304 where that is still so.",
    "example": '"18-3f0e9a71-5d1c0f2a9be37c44"',
    "schema": {"type": "string"},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Sent again with the same key, the same request is done once, and answered with what came of it.",
    "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
}


@cache
def document_json() -> bytes:
    """The document as JSON."""
    return json.dumps(document(), indent=2).encode() + b"\n"


def document() -> Document:
    """The OpenAPI document."""
    schemas = _schemas()
    paths: Document = {}
    for operation in OPERATIONS.values():
        paths.setdefault(BASE + operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flagrelay control API",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"accessKey": []}],
        "tags": _tags(),
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, **_kept(schemas)},
            "responses": {str(status): _refused(status) for status in REFUSALS},
            "securitySchemes": {
                "accessKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access key of kind `admin`: `flagrelay keys create --kind admin --name ACTOR`.",
                }
            },
        },
    }


def _schemas() -> Document:
    """The schema of every type that operations take or give, by name."""
    types = [each for operation in OPERATIONS.values() for each in (operation.request, operation.answer)]
    _, schemas = schema_components(types, ref_template=REF)
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    plain: Document = json.loads(json.dumps(schemas))  # defaults that are tuples are lists, to whoever reads this
    return plain


def _kept(schemas: Document) -> Document:
    """The schemas that something refers to: requests without what comes in path, query and headers."""
    kept = dict(schemas)
    for operation in OPERATIONS.values():
        name = operation.request.__name__
        if operation.has_body:
            kept[name] = _without(schemas[name], {*operation.path_members, "if_revision"})
        else:
            kept.pop(name, None)
    return kept


def _without(schema: Document, names: set[str]) -> Document:
    return {
        **schema,
        "properties": {name: each for name, each in schema["properties"].items() if name not in names},
        "required": [name for name in schema["required"] if name not in names],
    }


def _tags() -> list[Document]:
    """What the first parts of operations' names are about, as the modules say that have them."""
    modules = {_tag(operation): sys.modules[operation.run.__module__] for operation in reversed(OPERATIONS.values())}
    return [{"name": name, "description": inspect.getdoc(modules[name])} for name in reversed(modules)]


def _tag(operation: AnyOperation) -> str:
    return operation.name.partition(".")[0]


def _described(operation: AnyOperation, schemas: Document) -> Document:
    """One operation."""
    described: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": inspect.getdoc(operation.run),
        "tags": [_tag(operation)],
        "parameters": [*_parameters(operation, schemas[operation.request.__name__]), *_headers(operation)],
        "responses": _responses(operation),
    }
    if operation.has_body:
        name = operation.request.__name__
        required = bool(set(schemas[name]["required"]) - {*operation.path_members})
        schema = {"$ref": REF.format(name=name)}
        content = {"schema": schema, "example": EXAMPLES[operation.name]}
        described["requestBody"] = {"required": required, "content": {"application/json": content}}
    return described


def _parameters(operation: AnyOperation, schema: Document) -> list[Document]:
    """What comes in the path, and in the query where there is no body."""
    parameters = []
    for name, each in schema["properties"].items():
        in_path = name in operation.path_members
        if name == "if_revision" or (operation.has_body and not in_path):
            continue
        shown = _plain(each)
        parameters.append(
            {
                "name": name,
                "in": "path" if in_path else "query",
                "required": name in schema["required"],
                **({"description": shown.pop("description")} if "description" in shown else {}),
                **({"example": PATH_EXAMPLES[name]} if in_path else {}),
                "schema": shown,
            }
        )
    return parameters


def _plain(schema: Document) -> Document:
    """The schema of text in a URL, where nothing is null: what is null is left out."""
    if "anyOf" not in schema:
        return dict(schema)
    [some] = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return dict(some)


def _headers(operation: AnyOperation) -> list[Document]:
    headers = [MEANT]
    if operation.takes_revision:
        headers += [IF_MATCH, IF_NOT_THERE] if operation.method == "PUT" else [IF_MATCH]
    if operation.writes:
        headers.append(IDEMPOTENCY_KEY)
    elif operation.has_etag:
        headers.append(IF_NEW)
    return headers


def _responses(operation: AnyOperation) -> Document:
    """The answer, and every refusal that there may be."""
    [schema], _ = schema_components([operation.answer], ref_template=REF)
    headers = {
        **({"ETag": ETAG} if operation.has_etag else {}),
        **({"Idempotency-Replayed": REPLAYED} if operation.writes else {}),
    }
    granted = {"description": operation.summary, "content": {"application/json": {"schema": schema}}}
    responses: Document = {"200": {**granted, "headers": headers} if headers else granted}
    if operation.has_etag and not operation.writes:
        responses["304"] = {"description": "The client has it as it is.", "headers": {"ETag": ETAG}}
    only_some = {
        408: operation.has_body,
        412: operation.takes_revision,
        413: operation.has_body,
        415: operation.has_body,
        422: operation.writes,
    }
    for status in REFUSALS:
        if only_some.get(status, True):
            responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return responses


def _refused(status: int) -> Document:
    """A refusal: what it means, and its codes."""
    meaning, codes = REFUSALS[status]
    codes = (*dict.fromkeys(code for _, each, code in FAULTS if each == status), *codes)
    refused: Document = {
        "description": f"{meaning} `errorCode` is {', '.join(codes)}.",
        "content": {"application/json": {"schema": {"$ref": REF.format(name="Error")}}},
    }
    if status in RETRIED:
        refused["headers"] = {"Retry-After": RETRY_AFTER}
    return refused
