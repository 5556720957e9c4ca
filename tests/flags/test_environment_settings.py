import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import DefinitionError
from flagrelay.flags.bucket import GENERATIONS
from flagrelay.flags.environment_settings import MOST_ORIGINS, EnvironmentSettings, check_settings, read_settings

ORIGINS = st.builds(
    lambda scheme, host, port: f"{scheme}://{host}{port}",
    st.sampled_from(["https", "http", "capacitor", "chrome-extension", "a+b.c-d"]),
    st.from_regex(r"\A[a-z0-9-]{1,10}(\.[a-z0-9-]{1,5}){0,3}\Z") | st.sampled_from(["localhost", "127.0.0.1", "[::1]"]),
    st.just("") | st.integers(1, 65535).map(lambda port: f":{port}"),
) | st.just("*")
SETTINGS = st.builds(
    EnvironmentSettings,
    st.sampled_from(GENERATIONS),
    st.lists(ORIGINS, max_size=5, unique=True).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["fractional", "origins"]) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(SETTINGS)
def test_settings_are_read_back_as_they_were_written(settings: EnvironmentSettings) -> None:
    document = json.loads(json.dumps(settings.as_json()))
    assert check_settings(document) == read_settings(document) == settings


def test_without_anything_the_generation_is_v3_and_no_web_page_may_ask() -> None:
    assert check_settings({}) == EnvironmentSettings() == EnvironmentSettings("v3", ())
    assert EnvironmentSettings().as_json() == {"fractional": "v3", "origins": []}


def test_an_origin_stands_there_once_and_in_the_order_given() -> None:
    twice = {"origins": ["https://b.example", "https://a.example", "https://b.example"]}
    assert check_settings(twice).origins == ("https://b.example", "https://a.example")


NO_ORIGINS: list[Any] = [
    "", "a.example", "https://", "https://a.example/", "https://a.example/path", "https://a example",
    "null", "**",
    "//a.example", "HTTPS://a.example", "https://a.example\n", "https://a.example\r\nX: y",
    "https://*.example", 5, None, [],
    "https://user@a.example", "https://a.example?x", "https://é.example", "*,https://a.example",
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "path", "cause"),
    [
        (None, "", "should be an object"),
        ([], "", "should be an object"),
        ("v3", "", "should be an object"),
        ({"fraction": "v3"}, "fraction", "unknown; there are fractional, origins"),
        ({"n" * 500: 1}, "n" * 80, "unknown"),
        ({"fractional": "v1"}, "fractional", "'v1' is none of v3, v2"),
        ({"fractional": "V3"}, "fractional", "'V3' is none of v3, v2"),
        ({"fractional": None}, "fractional", "None is none of v3, v2"),
        ({"fractional": 3}, "fractional", "3 is none of v3, v2"),
        ({"fractional": ["v3"]}, "fractional", "is none of v3, v2"),
        ({"origins": None}, "origins", "should be an array of at most 100 origins"),
        ({"origins": "https://a.example"}, "origins", "should be an array"),
        ({"origins": {"https://a.example": True}}, "origins", "should be an array"),
        ({"origins": ["https://a.example"] * (MOST_ORIGINS + 1)}, "origins", "at most 100 origins"),
        *[
            ({"origins": ["https://good.example", each]}, "origins", "is no origin: it should be")
            for each in NO_ORIGINS
        ],
    ],
)
def test_what_are_no_settings_is_refused_with_place_and_cause(document: Any, path: str, cause: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        check_settings(document)
    assert caught.value.subject == "environment settings"
    assert caught.value.path == path
    assert cause in caught.value.cause
    assert len(caught.value.cause) < 200


def test_as_many_origins_as_may_be_are_taken() -> None:
    origins = [f"https://{number}.example" for number in range(MOST_ORIGINS)]
    assert check_settings({"origins": origins}).origins == tuple(origins)


def test_what_a_later_version_wrote_is_left_out_where_settings_are_read() -> None:
    document = {"fractional": "v2", "origins": ["*"], "sampling": {"rate": 0.5}}
    assert read_settings(document) == EnvironmentSettings("v2", ("*",))
    with pytest.raises(DefinitionError, match="at sampling: unknown"):
        check_settings(document)


def test_what_is_known_and_broken_is_refused_also_where_settings_are_read() -> None:
    with pytest.raises(DefinitionError, match="at fractional"):
        read_settings({"fractional": "v4", "sampling": 1})


@given(JSON)
def test_any_json_is_settings_or_refused(document: Any) -> None:
    try:
        settings = check_settings(document)
    except DefinitionError as error:
        assert str(error).startswith("environment settings: ")
    else:
        assert check_settings(settings.as_json()) == settings
