"""`flagrelay settings`, and what is generated from the table."""

import json
from pathlib import Path

import click
import pytest

from flagrelay.cli.options import METAVARS, REDIS
from flagrelay.cli.serve import serve
from flagrelay.settings import Settings, settings_from_environment, settings_table
from support.cli import Cli

ROOT = Path(__file__).parents[2]
TABLE = list(settings_table())


def test_the_page_of_settings_is_what_the_command_prints(cli: Cli) -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == cli.ok("settings", "--markdown")


def test_the_environment_file_is_what_the_command_prints(cli: Cli) -> None:
    assert (ROOT / "deploy" / "flagrelay.env").read_text(encoding="utf-8") == cli.ok("settings", "--env-file")


def test_the_environment_file_uncommented_gives_the_defaults(cli: Cli) -> None:
    lines = [line.removeprefix("#") for line in cli.ok("settings", "--env-file").splitlines() if "# " not in line]
    variables = dict(line.split("=", 1) for line in lines if line)
    assert len(variables) == len(TABLE)
    assert settings_from_environment(variables) == Settings()


def test_settings_are_listed_for_people_and_for_scripts(cli: Cli) -> None:
    lines = cli.ok("settings").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["VARIABLE", *(setting.variable for setting in TABLE)]
    listed = json.loads(cli.ok("settings", "--json"))
    assert {each["name"]: each["default"] for each in listed}["port"] == 8080
    assert {each["name"]: each["most"] for each in listed}["port"] == 65535


def test_serve_has_an_option_for_each_setting_of_that_name_variable_and_default(cli: Cli) -> None:
    options = {option.name: option for option in serve.params if isinstance(option, click.Option)}
    assert list(options) == [setting.name for setting in TABLE]
    text = " ".join(cli.ok("serve", "--help").split())
    for setting in TABLE:
        option = options[setting.name]
        assert option.opts == [setting.option]
        assert option.envvar == setting.variable
        assert setting.variable in text
        assert setting.about in text
        assert setting.bounds in text or setting.choices
    context = serve.make_context("serve", [])
    assert Settings(**context.params) == Settings()
    assert METAVARS.keys() <= options.keys()


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PORT": "1", "RETRY": "7", "ENV": "a b", "REDIS_CLUSTER": "1", "PREFIX": ""}
    for name, value in variables.items():
        monkeypatch.setenv(f"FLAGRELAY_{name}", value)
    given = Settings(**serve.make_context("serve", ["--port", "2", "--log-format", "json"]).params)
    assert (given.port, given.retry, given.env, given.redis_cluster) == (2, 7.0, ("a", "b"), True)
    assert (given.log_format, given.prefix) == ("json", "flagrelay")


def test_commands_that_talk_to_redis_have_the_settings_about_it() -> None:
    assert set(REDIS) == {setting.name for setting in TABLE if setting.group == "Redis"}
