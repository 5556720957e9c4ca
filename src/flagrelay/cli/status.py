"""`flagrelay status`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from flagrelay.cli.emergency import Outcomes, on_relays, relay_option
from flagrelay.cli.options import json_option
from flagrelay.cli.output import clock, print_json, print_table
from flagrelay.errors import FlagrelayError, StreamError
from flagrelay.sdk.asking import read_status

DEFAULT = ("http://127.0.0.1:8080",)
COLUMNS = (
    "RELAY",
    "ENVIRONMENT",
    "REVISION",
    "EPOCH",
    "SOURCE",
    "AGE",
    "STREAMS",
    "LAGGING",
    "LAST CHANGE (UTC)",
    "NOTES",
)


@click.command(epilog="Example: flagrelay status --relay http://relay-1:8080 --relay http://relay-2:8080")
@relay_option
@json_option
def status(relays: tuple[str, ...], as_json: bool) -> None:
    """Show how relays and their environments stand: revision, source, age, streams, last change.

    A relay with several workers is one line for each environment, and one more for each worker that stands elsewhere
    or does not answer. Asks http://127.0.0.1:8080 where no --relay is given. Exits with 1 where a relay does not answer
    or is not ready.
    """
    outcomes = on_relays(relays or DEFAULT, "", read_status, needs_key=False)
    if as_json:
        print_json({url: {"error": str(o)} if isinstance(o, FlagrelayError) else o for url, o in outcomes.items()})
    else:
        print_table(COLUMNS, _rows(outcomes), empty="no environment is followed")
    wrong = [_wrong(url, outcome) for url, outcome in outcomes.items()]
    if any(wrong):
        raise StreamError("; ".join(filter(None, wrong)))


def _wrong(url: str, outcome: Mapping[str, Any] | FlagrelayError) -> str:
    if isinstance(outcome, FlagrelayError):
        return str(outcome)
    return "" if outcome["ready"] else f"{url} is not ready: {outcome['reason']}"


def _rows(outcomes: Outcomes) -> Iterator[Sequence[str]]:
    for url, outcome in outcomes.items():
        if isinstance(outcome, FlagrelayError):
            continue
        workers = outcome.get("workers", [])
        of = f"of {len(workers)} workers" if workers else ""
        for name, environment in outcome["environments"].items():
            yield _row(url, name, environment, [*filter(None, [of]), *_notes(environment)])
            for worker in workers:
                own = worker.get("environments", {}).get(name)
                if own and _standing(own) != _standing(environment):
                    yield _row(f"{url} worker {worker['worker']}", name, own, _notes(own))
        for worker in workers:
            if "error" in worker:
                yield (f"{url} worker {worker['worker']}", *"-" * (len(COLUMNS) - 2), worker["error"])


def _row(relay: str, name: str, environment: Mapping[str, Any], notes: Sequence[str]) -> Sequence[str]:
    change = environment["last_change"]
    return (
        relay,
        name,
        str(environment.get("revision", "-")),
        environment.get("epoch", "-")[:8],
        environment["source"],
        _age(environment.get("age_ms")),
        str(sum(environment["streams"].values())),
        str(environment["lagging"]),
        f"{change['revision']} at {clock(change['at'])}" if change else "-",
        "; ".join(notes),
    )


def _standing(environment: Mapping[str, Any]) -> Sequence[Any]:
    """That in which the workers of a relay should not differ."""
    return [environment["source"], *(environment.get(name) for name in ("epoch", "revision", "served_from"))]


def _age(age_ms: int | None) -> str:
    return "-" if age_ms is None else f"{age_ms / 1000:.1f} s"


def _notes(environment: Mapping[str, Any]) -> list[str]:
    """What is out of the ordinary."""
    notes = [] if environment["source"] == "live" else [environment["reason"]]
    if environment.get("served_from") == "disk":
        notes.append("served from disk")
    notes += [f"{count} local kill(s): {state}" for state, count in environment["local_kills"].items()]
    if environment["histories_lost"]:
        notes.append(f"Redis lost acknowledged changes {environment['histories_lost']} time(s)")
    return notes
