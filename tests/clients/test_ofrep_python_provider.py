"""The OFREP provider from PyPI, as it is published: what it makes of our answers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import (
    ErrorCode,
    FlagNotFoundError,
    GeneralError,
    OpenFeatureError,
    ParseError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagResolutionDetails, Reason

from flagrelay.store.writing import kill_flag
from support.relays import ENVIRONMENT, RunningRelay, World, running_relay

ADA = EvaluationContext("ada", {"email": "ada@example.com", "age": 36})
EVE = EvaluationContext("eve", {"email": "eve@example.org", "tags": ["a", {"b": 1}]})


def flag(variants: dict[str, Any], default: str | None = "it", **more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": variants, "defaultVariant": default, **more}


FLAGS: dict[str, dict[str, Any]] = {
    "boolean": flag({"it": True, "other": False}),
    "string": flag({"it": "text é", "other": ""}),
    "integer": flag({"it": 7, "other": 2**40}),
    "float": flag({"it": 0.5, "one": 1}),
    "float at one": flag({"half": 0.5, "it": 1}),
    "object": flag({"it": {"a": [1, None, {"b": 0.5}]}}),
    "disabled": flag({"it": 7}, state="DISABLED"),
    "null default": flag({"it": 7}, None),
    "beta": flag({"on": True, "off": False}, "off", targeting={"if": [{"$ref": "beta"}, "on"]}, metadata={"n": 1}),
    "adults": flag({"on": "yes", "off": "no"}, "off", targeting={"if": [{">": [{"var": "age"}, 18]}, "on"]}),
    "by key": flag({"ada": 1, "eve": 2}, "eve", targeting={"var": "targetingKey"}),
    "no such variant": flag({"on": True, "off": False}, "off", targeting={"if": [True, "elsewhere"]}),
    "hidden": flag({"it": True}, metadata={"serverOnly": True}),
}

DEFAULTS: dict[str, Any] = {
    "boolean": False,
    "string": "default",
    "integer": -1,
    "float": -1.5,
    "object": {"the": "default"},
}


class Ofrep:
    """The published provider, which blocks, asked from a thread."""

    def __init__(self, relay: RunningRelay, secret: str) -> None:
        self.provider = OFREPProvider(relay.url, headers_factory=lambda: {"Authorization": f"Bearer {secret}"})
        self.answers: list[requests.Response] = []
        self.provider.session.hooks["response"].append(lambda answer, **_: self.answers.append(answer))

    async def resolve(
        self, kind: str, key: str, default: Any = None, context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        resolve = getattr(self.provider, f"resolve_{kind}_details")
        return await asyncio.to_thread(resolve, key, DEFAULTS[kind] if default is None else default, context)


@pytest.fixture
def providers() -> Iterator[list[OFREPProvider]]:
    """The providers that a test makes, whose connections are closed after it."""
    made: list[OFREPProvider] = []
    yield made
    for provider in made:
        provider.session.close()


@pytest.fixture
async def ofrep(relay: RunningRelay, world: World, providers: list[OFREPProvider]) -> Ofrep:
    """A provider with a client key, for a relay that has the flags."""
    await relay.at((await world.put(FLAGS)).revision)
    made = Ofrep(relay, await relay.secret("client"))
    providers.append(made.provider)
    return made


# -- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("boolean", "boolean", True),
        ("string", "string", "text é"),
        ("integer", "integer", 7),
        ("float", "float", 0.5),
        ("float", "float at one", 1.0),
        ("object", "object", {"a": [1, None, {"b": 0.5}]}),
    ],
)
async def test_every_type_arrives(ofrep: Ofrep, kind: str, key: str, value: Any) -> None:
    details = await ofrep.resolve(kind, key)
    assert (details.value, type(details.value)) == (value, type(value))
    assert (details.variant, details.reason) == ("it", Reason.STATIC)
    assert details.flag_metadata == {"team": "checkout"}


async def test_rules_see_the_context(ofrep: Ofrep) -> None:
    beta = await ofrep.resolve("boolean", "beta", context=ADA)
    assert (beta.value, beta.variant, beta.reason) == (True, "on", Reason.TARGETING_MATCH)
    assert beta.flag_metadata == {"team": "checkout", "n": 1}
    assert (await ofrep.resolve("string", "adults", context=ADA)).value == "yes"
    assert (await ofrep.resolve("integer", "by key", context=ADA)).value == 1
    assert (await ofrep.resolve("integer", "by key", context=EVE)).value == 2


async def test_a_rule_that_matches_nothing_gives_the_default_variant(ofrep: Ofrep) -> None:
    for context in (EVE, EvaluationContext(), None):
        details = await ofrep.resolve("boolean", "beta", True, context)
        # OFREP's schema has no DEFAULT, and the provider takes OpenFeature's words only.
        assert (details.value, details.variant, details.reason) == (False, "off", Reason.UNKNOWN)


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize(("key", "reason"), [("disabled", Reason.DISABLED), ("null default", Reason.UNKNOWN)])
async def test_without_a_value_the_callers_default_is_one(ofrep: Ofrep, key: str, reason: Reason, kind: str) -> None:
    details = await ofrep.resolve(kind, key)
    assert details.value == DEFAULTS[kind]
    assert (details.variant or None, details.reason) == (None, reason)


async def test_a_change_and_a_kill_are_seen_at_the_next_question(ofrep: Ofrep, relay: RunningRelay) -> None:
    assert (await ofrep.resolve("integer", "integer")).value == 7
    await relay.at((await relay.world.put({"integer": flag({"it": 8})})).revision)
    assert (await ofrep.resolve("integer", "integer")).value == 8
    killed = await kill_flag(relay.world.store, ENVIRONMENT, "integer")
    await relay.at(killed.revision)
    assert (await ofrep.resolve("integer", "integer")).reason == Reason.DISABLED


# -- errors -----------------------------------------------------------------------------------------------------


async def test_an_unknown_flag_is_not_found_and_a_hidden_one_no_less(ofrep: Ofrep) -> None:
    messages = []
    for key in ("nowhere", "hidden"):
        with pytest.raises(FlagNotFoundError) as raised:
            await ofrep.resolve("boolean", key)
        messages.append(raised.value.error_message)
    assert messages == ['there is no flag "nowhere"', 'there is no flag "hidden"']


async def test_a_server_key_sees_what_is_hidden(
    relay: RunningRelay, world: World, providers: list[OFREPProvider]
) -> None:
    await relay.at((await world.put(FLAGS)).revision)
    trusted = Ofrep(relay, await relay.secret("server"))
    providers.append(trusted.provider)
    assert (await trusted.resolve("boolean", "hidden")).value is True


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("boolean", "string"),
        ("string", "boolean"),
        ("string", "object"),
        ("integer", "string"),
        ("integer", "boolean"),
        ("integer", "float"),  # of a flag without fractions it can only guess, and does not
        ("float", "integer"),
        ("float at one", "integer"),
        ("object", "string"),
    ],
)
async def test_the_wrong_type_is_a_mismatch(ofrep: Ofrep, key: str, kind: str) -> None:
    with pytest.raises(TypeMismatchError):
        await ofrep.resolve(kind, key)


async def test_a_rule_that_names_no_variant_is_a_general_error_that_says_so(ofrep: Ofrep) -> None:
    with pytest.raises(GeneralError) as raised:
        await ofrep.resolve("boolean", "no such variant")
    assert raised.value.error_message == 'flag "no such variant" has no variant "elsewhere"'


async def test_a_flag_whose_population_is_gone_is_a_parse_error(ofrep: Ofrep, relay: RunningRelay) -> None:
    await relay.at((await relay.world.put({}, evaluators={"beta": None})).revision)
    with pytest.raises(ParseError) as raised:
        await ofrep.resolve("boolean", "beta", context=ADA)
    assert "beta" in (raised.value.error_message or "")


async def test_an_unknown_key_is_unauthorized_and_one_of_the_wrong_kind_forbidden(
    relay: RunningRelay, providers: list[OFREPProvider]
) -> None:
    for secret, expected in (
        ("", "unauthorized"),
        ("fr_nobody", "unauthorized"),
        (await relay.secret("admin"), "forbidden"),
    ):
        refused = Ofrep(relay, secret)
        providers.append(refused.provider)
        with pytest.raises(OpenFeatureError) as raised:
            await refused.resolve("boolean", "flag")
        assert (raised.value.error_code, raised.value.error_message) == (ErrorCode.GENERAL, expected)


# -- under the SDK ----------------------------------------------------------------------------------------------


async def test_under_the_sdk_every_failure_is_the_default_with_its_error_code(ofrep: Ofrep) -> None:
    def ask(client: OpenFeatureClient) -> dict[str, FlagEvaluationDetails[str]]:
        keys = ("string", "disabled", "nowhere", "boolean", "no such variant")
        return {key: client.get_string_details(key, "default", ADA) for key in keys}

    try:
        await asyncio.to_thread(api.set_provider_and_wait, ofrep.provider, "ofrep")
        found = await asyncio.to_thread(ask, api.get_client("ofrep"))
    finally:
        api.shutdown()
    assert (found["string"].value, found["string"].error_code) == ("text é", None)
    assert (found["disabled"].value, found["disabled"].error_code) == ("default", None)
    for key, code in (
        ("nowhere", ErrorCode.FLAG_NOT_FOUND),
        ("boolean", ErrorCode.TYPE_MISMATCH),
        ("no such variant", ErrorCode.GENERAL),
    ):
        assert (found[key].value, found[key].reason, found[key].error_code) == ("default", Reason.ERROR, code)


# -- too many questions -----------------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_when_to_come_back_and_keeps_to_it(
    world: World, providers: list[OFREPProvider]
) -> None:
    async with running_relay("handover", world, max_evaluations_per_second=1) as relay:
        hasty = Ofrep(relay, await relay.secret("client"))
        providers.append(hasty.provider)

        async def refused() -> str:
            for _ in range(20):  # a slow machine may be within its rate for once
                try:
                    await hasty.resolve("boolean", "flag")
                except GeneralError as error:
                    return error.error_message or ""
            pytest.fail("never told to wait")

        assert await refused() == "Rate limited, retry after: 1"
        asked = len(hasty.answers)
        assert hasty.answers[-1].status_code == 429
        assert "paused" in await refused()
        assert len(hasty.answers) == asked, "it asks nothing while it waits"

        async def answered() -> bool:
            try:
                return (await hasty.resolve("boolean", "flag")).variant == "off"
            except GeneralError:
                return False

        async with asyncio.timeout(10):
            while not await answered():
                await asyncio.sleep(0.05)
        assert [answer.status_code for answer in hasty.answers[asked:]] == [200]


# -- keys in addresses ------------------------------------------------------------------------------------------

CARRIED = (
    "a b",
    " ",
    "team/checkout/v2",
    "a/",
    "é😀",
    "a+b",
    "a&b=c",
    "a:b",
    "100%",
    "~.-_!*'()",
    "[a]",
)
"""Keys that its requests carry as they are, or escaped. Two slashes in a row become one in some versions of Python."""

NOT_CARRIED = ("a?b", "a#b", "a%20b", "%2Fa", "../a", "a/../b", "./a")
"""Keys that it writes into the address unescaped, where they mean something else."""


async def test_keys_with_slashes_and_spaces_arrive(ofrep: Ofrep, relay: RunningRelay) -> None:
    await relay.at((await relay.world.put({key: flag({"it": key}) for key in CARRIED})).revision)
    for key in CARRIED:
        assert (await ofrep.resolve("string", key)).value == key


async def test_keys_that_its_addresses_cannot_carry_are_not_found(ofrep: Ofrep, relay: RunningRelay) -> None:
    await relay.at((await relay.world.put({key: flag({"it": key}) for key in NOT_CARRIED})).revision)
    for key in NOT_CARRIED:
        with pytest.raises(FlagNotFoundError):
            await ofrep.resolve("string", key)
