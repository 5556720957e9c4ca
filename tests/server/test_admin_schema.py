"""The control API beside its own description: whatever is asked, the answer is one that the document has."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

from flagrelay.cli.private_redis import PrivateRedis
from flagrelay.control.openapi import EXAMPLES, PATH_EXAMPLES, document
from flagrelay.control.operation import BASE, perform
from flagrelay.control.session import Session
from flagrelay.control.table import KILL, OPERATIONS, PLAN, PUT_FLAG, PUT_POPULATION, START, UNRELEASE
from flagrelay.store.access_keys import create_access_key
from flagrelay.store.connection import RedisAddress, Store, open_store
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.reports import Report, write_report
from support.admin import FLAG
from support.relays import ENVIRONMENT
from support.served import served

HELD_TO_MORE = frozenset(
    {
        "flags.put",
        "flagset.import",
        "flagset.sync",
        "history.list",
        "releases.plan",
        "releases.reach",
        "populations.put",
    }
)
"""They take flags, rules, plans or times, and a schema does not say all that those must be."""

NARROWED: dict[str, dict[str, Any] | None] = {
    "Idempotency-Key": None,
    "Flagrelay-Environment": {"type": "string", "enum": [ENVIRONMENT]},
    "If-Match": {"type": "string", "enum": ['"1"', '"18-5d1c0f2a9be37c44"']},
    "wait": {"type": "number", "minimum": 0, "maximum": 0.01},
}
"""Parameters that are tried with less than they take, or not at all.

A key that comes again with another request is refused, and so is the name of another environment: nearly everything
would be. Of If-Match's pattern schemathesis makes what does not match it. And nobody waits for a minute. What those
are for is tested elsewhere.
"""


def narrowed() -> dict[str, Any]:
    """The document, with less to try. Each request has a key: that none goes without is tested for each operation."""
    narrowed = document()
    del narrowed["security"]
    operations = (operation for methods in narrowed["paths"].values() for operation in methods.values())
    for operation in operations:
        operation["parameters"] = [
            {**parameter, "schema": schema}
            for parameter in operation["parameters"]
            if (schema := NARROWED.get(parameter["name"], parameter["schema"])) is not None
        ]
    return narrowed


SCHEMA = schemathesis.openapi.from_dict(narrowed())
ACCEPTANCE = SCHEMA.config.checks.positive_data_acceptance
ACCEPTANCE.expected_statuses = [*ACCEPTANCE.expected_statuses, "412"]  # a precondition may always fail


REPORT = Report(
    relay=PATH_EXAMPLES["relay"],
    epoch="e",
    revision=1,
    source="live",
    streams=0,
    written=0,
    lagging=0,
    interval=5.0,
)


@dataclass
class Fuzzed:
    """A relay in a process of its own, and what Redis holds before each operation is tried."""

    runner: asyncio.Runner
    store: Store
    url: str
    secret: str
    http: requests.Session
    seeded: str = field(default="", init=False)

    def call(self, case: schemathesis.Case[Any], **options: Any) -> Any:
        """Send a request, and hold the answer to the document."""
        name = case.operation.definition.raw["operationId"]
        if self.seeded != name:
            self.runner.run(self._seed(name))
            self.seeded = name
        headers = {"Authorization": f"Bearer {self.secret}"}
        return case.call_and_validate(self.url, self.http, headers, **options)

    async def _seed(self, name: str) -> None:
        """What the examples speak of: a flag, a population, and where it is about such, a release."""
        await destroy_environment(self.store, ENVIRONMENT)
        await create_environment(self.store, ENVIRONMENT)
        session = Session(self.store, ENVIRONMENT, "ada")
        key = {"key": PATH_EXAMPLES["key"]}
        await perform(session, PUT_POPULATION, name="beta", **EXAMPLES["populations.put"])
        await perform(session, PUT_FLAG, **key, definition=FLAG)
        if name == "flags.revive":
            await perform(session, KILL, **key, reason="error rate")
        if name.startswith("releases.") and name != "releases.plan":
            await perform(session, PLAN, **key, **_plan(name))
        if name.startswith("releases.") and name not in ("releases.plan", "releases.start"):
            await perform(session, START, **key, reason="go")
        if name == "relays.forget":
            await write_report(self.store, ENVIRONMENT, REPORT, sweep=False)
        if name == "releases.restore":
            await perform(session, UNRELEASE, **key, **{"from": ["beta"]}, reason="error rate")


def _plan(name: str) -> dict[str, Any]:
    """The plan of the examples, whose second stage takes an approval where that is what it is about."""
    example = EXAMPLES["releases.plan"]
    first, second, third = example["plan"]["stages"]
    approval = {"approval": True} if name == "releases.approve" else {}
    return {**example, "plan": {**example["plan"], "stages": [first, {**second, **approval}, third]}}


@pytest.fixture(scope="module")
def relay(redis_server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A relay whose control API answers."""
    with asyncio.Runner() as runner:
        serving = _serving(runner, redis_server.url, tmp_path_factory.mktemp("relay"))
        fuzzed = runner.run(anext(serving))
        yield fuzzed
        runner.run(serving.aclose())


async def _serving(runner: asyncio.Runner, redis_url: str, folder: Path) -> Any:
    async with open_store(RedisAddress(redis_url)) as store:
        await store.client.flushall()
        await create_environment(store, ENVIRONMENT)
        _, secret = await create_access_key(store, ENVIRONMENT, "admin", "fuzz", None)
        async with served(redis_url, folder, "--admin-api", "--log-level", "warning") as process:
            with requests.Session() as http:
                http.trust_env = False  # it would look for proxies at every request
                yield Fuzzed(runner, store, f"http://127.0.0.1:{process.port}", secret, http)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_example_is_granted_and_answered_as_described(operation: Any, relay: Fuzzed) -> None:
    relay.seeded = ""
    described = SCHEMA[BASE + operation.path][operation.method]
    query: dict[str, Any] = {"revision": 1, "epoch": "e"} if operation.name == "relays.proof" else {}
    body: Any = {}
    if operation.has_body:
        body = {"body": EXAMPLES[operation.name], "media_type": "application/json"}
    case = described.Case(
        path_parameters={name: PATH_EXAMPLES[name] for name in operation.path_members},
        query=query,
        **body,
    )
    answer = relay.call(case)
    assert answer.status_code == 200, answer.text


def meaningless(case: schemathesis.Case[Any]) -> Iterator[Any]:
    """The checks that say nothing of an operation."""
    if case.operation.definition.raw["operationId"] in HELD_TO_MORE:
        yield positive_data_acceptance
    if case.operation.path.rpartition("}")[2]:
        yield unsupported_method  # a GET of `/flags/a/kill` reads the flag `a/kill`


@SCHEMA.parametrize()
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_is_answered_as_described(case: schemathesis.Case[Any], relay: Fuzzed) -> None:
    relay.call(case, excluded_checks=list(meaningless(case)))
