"""The table of settings."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagrelay.errors import SettingError
from flagrelay.settings import Setting, Settings, settings_from_environment, settings_table

TABLE = {setting.name: setting for setting in settings_table()}
NUMBERS = [setting for setting in TABLE.values() if setting.type in (int, float)]
ROOT = Path(__file__).parent.parent


def test_the_defaults_are_allowed_and_as_agreed() -> None:
    settings = Settings()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert (settings.host, settings.port) == ("127.0.0.1", 8080), "loopback, unless told otherwise"
    assert (settings.heartbeat_interval, settings.stream_lifetime, settings.max_stale) == (15, 3600, 300)
    assert (settings.high_water, settings.max_header_bytes) == (64 * 1024, 16 * 1024)
    assert settings.env == ()
    assert settings == settings_from_environment({})


def test_every_group_stands_together_or_the_page_would_have_it_twice() -> None:
    groups = [setting.group for setting in TABLE.values()]
    assert groups == sorted(groups, key=groups.index)


@pytest.mark.parametrize("setting", TABLE.values(), ids=lambda setting: setting.name)
def test_what_is_shown_as_the_default_is_read_as_the_default(setting: Setting) -> None:
    if setting.shown_default:
        assert setting.parse(setting.shown_default) == setting.default
    assert settings_from_environment({setting.variable: setting.shown_default}) == Settings()


def test_environment_variables_give_each_kind_of_setting() -> None:
    settings = settings_from_environment(
        {
            "FLAGRELAY_PORT": "0",
            "FLAGRELAY_RETRY": "0.5",
            "FLAGRELAY_ENV": "production  staging",
            "FLAGRELAY_REDIS_CLUSTER": "Yes",
            "FLAGRELAY_LOG_LEVEL": "debug",
            "FLAGRELAY_PREFIX": "",
            "UNRELATED": "x",
        }
    )
    assert (settings.port, settings.retry, settings.env) == (0, 0.5, ("production", "staging"))
    assert (settings.redis_cluster, settings.log_level, settings.prefix) == (True, "debug", "flagrelay")


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("wrong", ["", "no", "nan", "inf", "-inf", "-1", "0x10", "1 2", True, None, "1e400"])
def test_a_number_out_of_its_bounds_is_refused_with_its_name_and_what_it_should_be(
    setting: Setting, wrong: Any
) -> None:
    with pytest.raises(SettingError) as refused:
        setting.check(setting.parse(wrong) if isinstance(wrong, str) else wrong)
    message = str(refused.value)
    assert setting.variable in message
    assert setting.option in message
    assert setting.bounds in message
    assert setting.about in message


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
def test_the_bounds_themselves_are_allowed_and_beyond_them_nothing_is(setting: Setting) -> None:
    for bound, beyond in ((setting.least, -0.001), (setting.most, 0.001)):
        if bound is not None:
            setting.check(bound)
            with pytest.raises(SettingError, match="it should be"):
                setting.check(bound + (beyond if setting.type is float else int(beyond * 1000)))


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"port": 80.0}, "FLAGRELAY_PORT .*whole number, 0 to 65535"),
        ({"redis_cluster": 1}, "FLAGRELAY_REDIS_CLUSTER .*1 or 0"),
        ({"log_level": "loud"}, "FLAGRELAY_LOG_LEVEL .*'loud'.*one of debug, info, warning, error"),
        ({"host": ""}, "FLAGRELAY_HOST .*not empty"),
        ({"host": "127.0.0.1\n"}, "FLAGRELAY_HOST .*printable"),
        ({"host": 1}, "FLAGRELAY_HOST .*printable"),
        ({"prefix": ""}, "FLAGRELAY_PREFIX .*not empty"),
        ({"prefix": "a{b}"}, "FLAGRELAY_PREFIX .*braces"),
        ({"relay_id": "x" * 129}, "FLAGRELAY_RELAY_ID .*129 characters; the most is 128"),
        ({"relay_id": "a\nb"}, "FLAGRELAY_RELAY_ID .*printable"),
        ({"env": ("ok", "not ok")}, "FLAGRELAY_ENV .*'not ok'"),
        ({"env": "production"}, "FLAGRELAY_ENV .*separated by spaces"),
        ({"redis_sentinels": ("",)}, "FLAGRELAY_REDIS_SENTINELS .*separated by spaces"),
        ({"backoff_min": 10.0}, "FLAGRELAY_BACKOFF_MAX .*below FLAGRELAY_BACKOFF_MIN"),
        ({"redis_sentinels": ("h:1",)}, "FLAGRELAY_REDIS_SENTINEL_MASTER"),
        ({"redis_sentinels": ("h:1",), "redis_sentinel_master": "m", "redis_cluster": True}, "exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused(given_: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=f"(?s){why}"):
        Settings(**given_)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(SettingError) as refused:
        Settings(redis_url="redis://:swordfish@host\n")
    assert "swordfish" not in str(refused.value)
    assert "FLAGRELAY_REDIS_URL" in str(refused.value)


def test_what_kubernetes_puts_into_our_variable_is_explained() -> None:
    with pytest.raises(SettingError, match="enableServiceLinks"):
        settings_from_environment({"FLAGRELAY_PORT": "tcp://10.0.0.1:8080"})


@given(st.sampled_from(list(TABLE.values())), st.text(max_size=20))
def test_any_text_in_any_variable_is_a_setting_or_an_error_that_names_the_variable(setting: Setting, text: str) -> None:
    try:
        settings_from_environment({setting.variable: text})
    except SettingError as error:
        assert "FLAGRELAY_" + setting.name.upper() in str(error)


def test_documents_name_no_variable_that_is_none() -> None:
    known = {setting.variable for setting in TABLE.values()} | {
        "FLAGRELAY_ACTOR",
        "FLAGRELAY_ADMIN_KEY",
        "FLAGRELAY_FAULT_RUNS",
        "FLAGRELAY_URL",
    }
    files = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*")]
    for file in files:
        named = set(re.findall(r"FLAGRELAY_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8")))
        assert named <= known, f"{file.name} names {named - known}"
