"""Telling relays directly, where Redis is away: options, asking several at once, and what came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import click

from flagrelay.cli.options import Command, checked_text
from flagrelay.cli.output import print_json, print_table
from flagrelay.errors import FlagrelayError, StreamError

Outcomes = Mapping[str, Mapping[str, Any] | FlagrelayError]
"""What each relay answered, or why it did not, by URL."""


def relay_option(command: Command) -> Command:
    """The relays that are told directly."""
    return click.option(
        "--relay",
        "relays",
        multiple=True,
        metavar="URL",
        callback=_urls,
        help="Tell this relay directly, rather than Redis; may be given several times.",
    )(command)


def admin_key_option(command: Command) -> Command:
    """The access key with which relays are told."""
    return click.option(
        "--admin-key",
        envvar="FLAGRELAY_ADMIN_KEY",
        show_envvar=True,
        default="",
        metavar="KEY",
        callback=_admin_key,
        help="An access key of kind admin, for --relay or --url; better in the environment than on a command line.",
    )(command)


def _admin_key(ctx: click.Context, param: click.Parameter, text: str | None) -> str:
    """The key without what surrounds it: a file that it was read from may end with a newline."""
    key: str = (checked_text(may_be_empty=True)(ctx, param, text) or "").strip()
    if not key.isprintable():
        raise click.BadParameter("it has characters that no access key has")
    return key


def _urls(_ctx: click.Context, _param: click.Parameter, urls: Sequence[str]) -> tuple[str, ...]:
    # A variable holds several, separated by spaces, as those of settings do.
    given = [url for each in urls for url in each.split()]
    for url in given:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r} is no URL of a relay: it begins with http:// or https://")
    return tuple(dict.fromkeys(given))


def on_relays(
    urls: Sequence[str], admin_key: str, ask: Callable[[str], Awaitable[Mapping[str, Any]]], *, needs_key: bool = True
) -> Outcomes:
    """Ask several relays at once: one that is away keeps none of the others waiting."""
    import aiohttp  # noqa: PLC0415 - a kill in Redis is not to wait for it

    if needs_key and not admin_key:
        raise click.UsageError("--relay takes an access key of kind admin: --admin-key, or FLAGRELAY_ADMIN_KEY.")

    async def one(url: str) -> Mapping[str, Any] | FlagrelayError:
        try:
            return await ask(url)
        except FlagrelayError as error:
            return error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # a host's name may be none
            return StreamError(f"{url} cannot be reached: {error}")

    async def everybody() -> Outcomes:
        return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))

    return asyncio.run(everybody())


def show_outcomes(outcomes: Outcomes, what: str, *, as_json: bool) -> None:
    """What came of it, a line for each relay. Exits with 1 where any of them has not done it.

    Raises:
        FlagrelayError: one of them has not.
    """
    failed = {url: outcome for url, outcome in outcomes.items() if isinstance(outcome, FlagrelayError)}
    if as_json:
        print_json({url: {"error": str(o)} if isinstance(o, FlagrelayError) else o for url, o in outcomes.items()})
    else:
        rows = [[url, *_cells(outcome)] for url, outcome in outcomes.items()]
        print_table(("RELAY", "ENVIRONMENT", "REVISION", "STREAMS", "SOURCE", "KEPT ON DISK"), rows, empty="")
        done = len(outcomes) - len(failed)
        click.echo(f"{what} on {done} of {len(outcomes)} relays", err=True)
    if failed:
        raise StreamError("; ".join(str(error) for error in failed.values()))


def _cells(outcome: Mapping[str, Any] | FlagrelayError) -> list[str]:
    if isinstance(outcome, FlagrelayError):
        return ["failed", "", "", "", ""]
    names = ("environment", "revision", "streams", "source")
    return [*(str(outcome.get(name, "")) for name in names), "yes" if outcome.get("kept") else "no"]
