"""`flagrelay eval` and `flagrelay explain`: what a flag says for a context, and why."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from flagrelay.cli.options import json_option, key_argument, redis_options, with_store
from flagrelay.cli.output import one_line, print_json
from flagrelay.errors import DefinitionError, FlagMissing, FlagrelayError, InputError, StreamError
from flagrelay.flags.definition import check_environment_name, parse_json
from flagrelay.flags.environment_settings import read_settings
from flagrelay.flags.javascript import to_string
from flagrelay.flags.position import Position
from flagrelay.flags.resolution import Resolution
from flagrelay.flags.snapshot import Snapshot
from flagrelay.flags.trace import Step, trace_rule
from flagrelay.sdk.asking import evaluate, flag_set
from flagrelay.store.reading import read_flag_snapshot
from flagrelay.wire.evaluated import encoded
from flagrelay.wire.ofrep import check_context

WIDE = 1000
"""Columns of what is printed elsewhere than at a terminal: a line a step, however long."""

LONGEST_SHOWN = 60
"""Characters of a value in the way through a rule."""

MOST_PARTS = 1000
"""Parts of a value that scripts are given of each step."""

DEEPEST_SHOWN = 30
"""How deep values nest that are shown."""


def _context(_ctx: click.Context, _param: click.Parameter, text: str) -> dict[str, Any]:
    """An evaluation context from JSON, or from a file for `@FILE`."""
    try:
        document = Path(text[1:]).read_bytes() if text.startswith("@") else text
        return check_context(parse_json(document, "the context"))
    except OSError as error:
        raise click.BadParameter(f"cannot read {text[1:]}: {error.strerror}") from None
    except InputError as error:
        raise click.BadParameter(str(error)) from None


def _environment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        return check_environment_name(value) if value else None
    except DefinitionError as error:
        raise click.BadParameter(str(error)) from None


def _asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to ask, and whom: Redis itself, or a relay."""
    for option in (
        click.option(
            "--access-key",
            envvar="FLAGRELAY_ACCESS_KEY",
            show_envvar=True,
            metavar="KEY",
            help="For --url: what to show to the relay.",
        ),
        click.option("--url", metavar="URL", help="Ask this relay rather than Redis; its access key says which flags."),
        click.option(
            "--context",
            callback=_context,
            default="{}",
            metavar="JSON",
            help='The evaluation context: \'{"targetingKey": "u1", "plan": "pro"}\', or @FILE.',
        ),
        click.option(
            "--env",
            "environment",
            callback=_environment,
            envvar="FLAGRELAY_ENV",
            show_envvar=True,
            metavar="NAME",
            help="The environment; not needed with --url.",
        ),
    ):
        command = option(command)
    return key_argument(command)


@click.command(
    "eval", epilog="""Example: flagrelay eval checkout-v2 --env production --context '{"targetingKey": "u1"}'"""
)
@_asking
@json_option
@redis_options
def eval_(
    key: str,
    environment: str | None,
    context: dict[str, Any],
    url: str | None,
    access_key: str | None,
    as_json: bool,
    **redis: Any,
) -> int:
    """Say what a flag says for a context: from Redis directly, or, with --url, as a relay answers.

    Exits with 1 where it says nothing: no such flag, or a rule that fails.
    """
    if url:
        answer = _ask(lambda: evaluate(url, _required(access_key), key, context))
    else:
        resolution = _snapshot(environment, key, redis).resolve(key, context)
        answer = orjson.loads(encoded(resolution).item)
        answer["reason"] = resolution.reason
    if as_json:
        print_json(answer)
    elif "errorCode" in answer:
        raise StreamError(f"{answer['errorCode']}: {answer.get('errorDetails', '')}")
    else:
        click.echo(_described(answer))
    return int("errorCode" in answer)


@click.command(epilog="""Example: flagrelay explain checkout-v2 --env production --context '{"targetingKey": "u1"}'""")
@_asking
@json_option
@redis_options
def explain(
    key: str,
    environment: str | None,
    context: dict[str, Any],
    url: str | None,
    access_key: str | None,
    as_json: bool,
    **redis: Any,
) -> int:
    """Show the way through a flag's rule: each branch, what it saw, what it gave, the bucket and the weights.

    With --url the flag comes from a relay, whose access key must be of kind `server`: rules go to no other.
    """
    if url:
        snapshot = _from_relay(_ask(lambda: flag_set(url, _required(access_key))))
    else:
        snapshot = _snapshot(environment, key, redis)
    definition = snapshot.flags.get(key)
    if definition is None:
        raise FlagMissing(environment or str(url), key)
    resolution = snapshot.resolve(key, context)
    step = _traced(snapshot, key, context, resolution)
    if as_json:
        print_json({**orjson.loads(encoded(resolution).item), "reason": resolution.reason, "steps": _as_members(step)})
    else:
        _print_way(key, step, resolution)
    return int(resolution.error_code is not None)


def _required(access_key: str | None) -> str:
    if not access_key:
        raise click.UsageError("--url needs --access-key, or FLAGRELAY_ACCESS_KEY")
    return access_key


def _ask(question: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        return await question()

    try:
        return asyncio.run(ask())
    except aiohttp.ClientError as error:
        raise StreamError(f"the relay cannot be reached: {error}") from error


def _snapshot(environment: str | None, key: str, redis: dict[str, Any]) -> Snapshot:
    if not environment:
        raise click.UsageError("say which environment with --env, or ask a relay with --url")
    return with_store(redis, lambda store: read_flag_snapshot(store, environment, key))


def _from_relay(document: dict[str, Any]) -> Snapshot:
    try:
        return Snapshot(
            Position("", 0, ""),
            dict(document["flags"]),
            dict(document["$evaluators"]),
            dict(document["metadata"]),
            read_settings(document),
        )
    except (KeyError, TypeError, ValueError, DefinitionError) as error:
        raise StreamError(f"the relay's answer is no flag set: {error!r}") from error


def _traced(snapshot: Snapshot, key: str, context: dict[str, Any], resolution: Resolution) -> Step | None:
    """The way through the rule; None where there is none to go, or it leads nowhere."""
    definition = snapshot.flags[key]
    if (
        not definition.get("targeting")
        or definition.get("state") != "ENABLED"
        or resolution.error_code == "PARSE_ERROR"
    ):
        return None
    try:
        return trace_rule(
            definition["targeting"],
            context,
            key,
            generation=snapshot.settings.fractional,
            rules=snapshot.evaluators,
        )
    except (FlagrelayError, ValueError, ArithmeticError, RecursionError):
        return None


def _described(answer: dict[str, Any]) -> str:
    """A result, for people."""
    value = orjson.dumps(answer["value"]).decode() if "value" in answer else "the caller's own default"
    variant = f'variant "{answer["variant"]}", ' if answer.get("variant") else ""
    return one_line(f"{value}  ({variant}{answer['reason']})")


def _print_way(key: str, step: Step | None, resolution: Resolution) -> None:
    if step:
        tree = Tree(_label(step))
        _grow(tree, step)
        console = Console()
        Console(width=None if console.is_terminal else WIDE).print(tree)
    else:
        click.echo("no rule was run")
    answer = orjson.loads(encoded(resolution).item)
    if resolution.error_code:
        click.echo(one_line(f"{key}: {resolution.error_code}: {resolution.error_message}"))
    else:
        click.echo(one_line(f"{key} = ") + _described({**answer, "reason": resolution.reason}))


def _grow(tree: Tree, step: Step) -> None:
    for each in step.steps:
        if each.operator or each.steps:
            _grow(tree.add(_label(each)), each)
        elif step.operator in ("if", "?:"):
            tree.add(Text(f"→ {_shown(each.gave)}"))


def _label(step: Step) -> Text:
    note = f"  [{one_line(step.note)}]" if step.note else ""
    return Text(f"{step.operator or 'list'} → {_shown(step.gave)}{note}")


def _shown(value: Any, longest: int = LONGEST_SHOWN) -> str:
    text = orjson.dumps(_plain(value, [longest])).decode()
    return text if len(text) <= longest else f"{text[:longest]}…"


def _as_members(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "path": step.path,
        "operator": step.operator,
        "gave": _plain(step.gave, [MOST_PARTS]),
        "note": step.note,
        "steps": [_as_members(each) for each in step.steps],
    }


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """What JSON can hold of a value, and no more parts than there are left: a rule may give more than fits anywhere.

    Numbers that JSON has not, and integers that are too large for it, become text; so do halves of characters.
    """
    left[0] -= 1
    if isinstance(value, list | tuple | dict):
        if depth > DEEPEST_SHOWN:
            return "…"
        items = value.items() if isinstance(value, dict) else enumerate(value)
        kept = [(str(name), _plain(each, left, depth + 1)) for name, each in items if left[0] > 0]
        if isinstance(value, dict):
            return dict(kept)
        return [each for _, each in kept] + ["…"] * (len(kept) < len(value))
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int | float) and not (math.isfinite(value) and -(2.0**63) <= value < 2.0**63):
        return to_string(value)
    return value
