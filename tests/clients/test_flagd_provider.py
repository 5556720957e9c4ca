"""flagd's own in-process provider, reading a file, with our evaluator where it has flagd's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.contrib.provider.flagd.resolvers import in_process
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from flagrelay.sdk.evaluator import SnapshotEvaluator
from support.sources import until

DOMAIN = "flagd"
USER = EvaluationContext("u1", {"email": "ada@example.com"})
OTHER = EvaluationContext("u2", {"email": "eve@example.org"})


def write(path: Path, number: int, **more: Any) -> None:
    """A flag file in which one thing differs for each number; never half-written."""
    document = {
        "flags": {
            "beta": {
                "state": "ENABLED",
                "variants": {"on": True, "off": False},
                "defaultVariant": "off",
                "targeting": {"if": [{"$ref": "staff"}, "on"]},
            },
            "number": {"state": "ENABLED", "variants": {"it": number}, "defaultVariant": "it"},
            "disabled": {"state": "DISABLED", "variants": {"it": number}, "defaultVariant": "it"},
        },
        "$evaluators": {"staff": {"ends_with": [{"var": "email"}, "@example.com"]}},
        "metadata": {"team": "checkout"},
        **more,
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(document), encoding="utf-8")
    new.replace(path)


@pytest.fixture
def flag_file(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    write(path, 1)
    return path


@pytest.fixture
def client(flag_file: Path) -> Iterator[OpenFeatureClient]:
    with mock.patch.object(in_process, "FlagdCore", SnapshotEvaluator):
        provider = FlagdProvider(
            resolver_type=ResolverType.FILE, offline_flag_source_path=str(flag_file), deadline_ms=20
        )
    api.set_provider_and_wait(provider, DOMAIN)
    yield api.get_client(DOMAIN)
    api.shutdown()


def test_it_evaluates_what_the_file_holds(client: OpenFeatureClient) -> None:
    beta = client.get_boolean_details("beta", False, USER)
    assert (beta.value, beta.variant, beta.reason) == (True, "on", Reason.TARGETING_MATCH)
    assert beta.flag_metadata == {"team": "checkout"}
    assert client.get_boolean_details("beta", True, OTHER).reason == Reason.DEFAULT
    assert client.get_integer_value("number", 0) == 1
    assert repr(client.get_float_value("number", 0.0)) == "1.0"
    assert client.get_integer_details("disabled", 9).reason == Reason.DISABLED
    assert client.get_integer_value("disabled", 9) == 9


def test_its_errors_are_the_sdks(client: OpenFeatureClient) -> None:
    wrong, none = client.get_string_details("number", "default"), client.get_string_details("nowhere", "default")
    assert (wrong.value, wrong.error_code) == ("default", ErrorCode.TYPE_MISMATCH)
    assert (none.value, none.error_code) == ("default", ErrorCode.FLAG_NOT_FOUND)


async def test_a_change_of_the_file_is_told_and_evaluated(client: OpenFeatureClient, flag_file: Path) -> None:
    told: list[EventDetails] = []
    client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, told.append)
    write(flag_file, 2, metadata={"team": "search"})
    await until(lambda: told, "the change is told")
    assert sorted(told[0].flags_changed or []) == ["disabled", "number"]
    assert told[0].metadata == {"team": "search"}
    assert client.get_integer_value("number", 0) == 2


async def test_a_file_that_breaks_is_told_and_what_was_held_goes_on(client: OpenFeatureClient, flag_file: Path) -> None:
    told: list[EventDetails] = []
    client.add_handler(ProviderEvent.PROVIDER_ERROR, told.append)
    write(flag_file, 2, flags=[])
    await until(lambda: told, "the error is told")
    assert told[0].error_code == ErrorCode.PARSE_ERROR
    assert "flags" in (told[0].message or "")
    assert client.get_integer_value("number", 0) == 1
    write(flag_file, 3)
    await until(lambda: client.get_integer_value("number", 0) == 3, "the mended file is read")
