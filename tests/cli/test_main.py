"""The entry point: how commands are found, helped and ended."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from flagrelay import __version__
from flagrelay.cli.main import COMMANDS, cli
from flagrelay.cli.private_redis import private_redis
from support.cli import Cli


def commands(group: click.Group = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


ALL = dict(commands())


def test_it_has_exactly_the_commands_that_are_documented() -> None:
    assert {" ".join(words) for words in ALL} == {
        "serve",
        *("env create", "env list", "env set", "env destroy"),
        *("flags list", "flags get", "flags put", "flags delete", "flags import", "flags export"),
        *("populations list", "populations put", "populations delete", "populations members"),
        *("release plan", "release start", "release advance", "release retreat", "release restore", "release approve"),
        *("release finish", "release abandon", "release detach", "release status", "release history"),
        *("unrelease", "history", "sync"),
        "relays forget",
        *("kill", "revive", "kills", "status", "eval", "explain", "watch"),
        *("keys create", "keys list", "keys token", "keys revoke"),
        *("settings", "openapi", "demo"),
    }
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert all(f"flagrelay {name}" in readme or f"`{name}`" in readme for name in COMMANDS)


def test_its_help_lists_every_command_with_what_it_does(production: Cli) -> None:
    text = " ".join(production.ok("--help").split())
    assert all(f"{name} {about}" in text for name, about in COMMANDS.items())
    assert production.ok("-h") == production.ok("--help")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example_that_its_options_allow(words: tuple[str, ...], cli: Cli) -> None:
    text = " ".join(cli.ok(*words, "--help").split())
    command = ALL[words]
    assert command.help
    assert command.epilog
    assert command.epilog in text
    example = shlex.split(command.epilog.removeprefix("Example: ").partition(" > ")[0])
    assert tuple(example[1 : 1 + len(words)]) == words
    cli.ok(*example[1:], "--help")


@pytest.mark.parametrize("group", ["", "env", "flags", "populations", "release", "keys", "relays"])
def test_every_group_of_commands_has_an_example_too(group: str, cli: Cli) -> None:
    example = cli.ok(*group.split(), "--help").rpartition("Example: ")[2]
    cli.ok(*shlex.split(example)[1:], "--help")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_has_help_and_an_environment_variable(words: tuple[str, ...]) -> None:
    for option in ALL[words].params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert option.show_envvar, option.name
            own = "_".join(("FLAGRELAY", *words, *option.opts[0].removeprefix("--").split("-"))).upper()
            shared = "FLAGRELAY" + own.removeprefix("_".join(("FLAGRELAY", *words)).upper())
            assert option.envvar in (own, shared), "named like the option, and not like a parameter of ours"


def test_an_option_without_a_setting_is_named_after_its_command(production: Cli) -> None:
    created = production.json(
        "keys", "create", "--kind", "server", FLAGRELAY_KEYS_CREATE_NAME="shop", FLAGRELAY_KEYS_CREATE_EXPIRES="1d"
    )
    assert created["name"] == "shop"
    assert created["expires"]
    assert json.loads(production.ok("keys", "list", FLAGRELAY_KEYS_LIST_JSON="1"))[0]["name"] == "shop"
    assert production.ok("keys", "list", FLAGRELAY_KEYS_LIST_JSON="0").startswith("ID\t")
    production.ok("env", "destroy", "production", FLAGRELAY_ENV_DESTROY_YES="true")


def test_the_version_stands_in_one_place(cli: Cli) -> None:
    assert cli.ok("--version") == f"flagrelay, version {__version__}\n"
    assert version("flagrelay") == __version__


def test_a_version_in_the_environment_is_not_taken_for_the_option(production: Cli) -> None:
    assert production.json("env", "list", FLAGRELAY_VERSION="7.1")[0]["name"] == "production"


def test_wrong_usage_is_2(cli: Cli) -> None:
    assert "No such command 'off'" in cli.misused("off")
    assert "Missing option '--reason'" in cli.misused("kill", "x", "--env", "production")
    assert "Missing option '--env'" in cli.misused("flags", "list")
    assert "No such option" in cli.misused("env", "list", "--nonsense")


def test_a_redis_that_does_not_answer_is_one_line_without_the_password(cli: Cli) -> None:
    line = cli.refused("env", "list", "--redis-url", "redis://ada:swordfish@127.0.0.1:1/0")
    assert "127.0.0.1:1" in line
    assert "swordfish" not in line
    for url in ("nonsense", "http://127.0.0.1", "redis://:swordfish@h:port"):
        assert "swordfish" not in cli.refused("env", "list", "--redis-url", url)


def test_a_wrong_password_is_one_line_that_does_not_show_it(cli: Cli) -> None:
    with private_redis("--requirepass", "sesame") as server:
        for url in (server.url, server.url.replace("unix://", "unix://:swordfish@")):
            for words in (("env", "list"), ("env", "create", "x"), ("keys", "list")):
                line = cli.refused(*words, "--redis-url", url)
                assert str(server.folder) in line
                assert "swordfish" not in line
                assert "sesame" not in line
        assert cli.json("env", "list", "--redis-url", server.url.replace("unix://", "unix://:sesame@")) == []


def test_what_somebody_wrote_cannot_speak_to_the_terminal(production: Cli) -> None:
    line = production.refused("flags", "get", "a\x1b[31m\nb")
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FLAGRELAY_ENV", "production staging", ("flags", "list")),
        ("FLAGRELAY_ENV", "no such/name", ("watch",)),
        ("FLAGRELAY_PORT", "http", ("serve",)),
        ("FLAGRELAY_PORT", "65536", ("serve",)),
        ("FLAGRELAY_RETRY", "nan", ("serve",)),
        ("FLAGRELAY_LOG_LEVEL", "loud", ("serve",)),
    ],
)
def test_a_wrong_environment_variable_is_named(cli: Cli, variable: str, value: str, words: tuple[str, ...]) -> None:
    assert variable in cli.misused(*words, **{variable: value})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--redis-url", "nonsense"), "nonsense://"),
        (("--redis-url", ""), "FLAGRELAY_REDIS_URL"),
        (("--host", ""), "FLAGRELAY_HOST"),
        (("--prefix", "a{b}"), "FLAGRELAY_PREFIX"),
        (("--env", "a/b"), "FLAGRELAY_ENV"),
        (("--backoff-max", "0.01"), "FLAGRELAY_BACKOFF_MAX"),
        (("--redis-sentinels", "host:1"), "FLAGRELAY_REDIS_SENTINEL_MASTER"),
    ],
)
def test_serve_refuses_settings_that_make_no_sense_before_it_starts(cli: Cli, words: tuple[str, ...], why: str) -> None:
    outcome = cli.run("serve", *words)
    assert outcome.status in (1, 2)
    assert outcome.out == ""
    assert why in outcome.err
    assert "Traceback" not in outcome.err


def test_words_that_are_not_unicode_are_refused(production: Cli) -> None:
    wrong = os.fsdecode(b"\xff")
    for words in (("flags", "get", wrong), ("kill", "x", "--reason", wrong), ("revive", "x", "--reason", wrong)):
        assert "it is not UTF-8" in production.misused(*words)
    assert production.run("kill", "x", "--reason", "x" * 1001).status == 2
    assert production.run("env", "create", wrong).status == 1


def test_python_m_flagrelay_is_the_same_and_colours_its_error_at_a_terminal_only(cli: Cli) -> None:
    with cli.process("flags", "list", "--env", "nowhere") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err.startswith('error: environment "nowhere" does not exist')
    assert "\x1b" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_quietly(production: Cli, number: signal.Signals) -> None:
    with production.process("watch") as process:
        assert process.stderr
        assert "waiting for changes" in process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert (out, err.strip()) == ("", "")


def test_ctrl_c_is_130_though_it_hit_in_source_that_was_made_at_an_import(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from flagrelay.cli import main\n"
        "def hit():\n"
        "    try:\n"
        "        exec('import os, signal; os.kill(os.getpid(), signal.SIGINT); [each for each in range(1000)]')\n"
        "    except KeyboardInterrupt:\n"
        "        return main.INTERRUPTED\n"
        "main._run = hit\n"
    )
    command = [sys.executable, "-m", "flagrelay"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, timeout=20, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_whoever_reads_our_output_may_stop_reading(production: Cli) -> None:
    document = (
        "{" + ", ".join(f'"flag-{n:05}": {{"state": "ENABLED", "variants": {{"on": true}}}}' for n in range(4000)) + "}"
    )
    production.ok("flags", "import", "-", stdin=f'{{"flags": {document}}}')
    script = f"{shlex.quote(sys.executable)} -m flagrelay flags export | head -1"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=20,
        env=production.environment_for({}),
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("sink", ["/dev/full", "&-"])
def test_output_that_cannot_be_written_is_no_traceback(production: Cli, sink: str) -> None:
    script = f"{shlex.quote(sys.executable)} -m flagrelay env list >{sink}"
    done = subprocess.run(
        ["bash", "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        env=production.environment_for({}),
        check=False,
    )
    expected = (1, "error: [Errno 28] No space left on device\n") if sink == "/dev/full" else (0, "")
    assert (done.returncode, done.stderr) == expected
