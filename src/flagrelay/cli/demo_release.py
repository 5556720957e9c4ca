"""The demo's second scene: a plan, stages, trouble, and an un-release from one population, each with its proof."""

import random
from typing import Any

from rich.console import Console
from rich.table import Table

from flagrelay.control.answers import written_of
from flagrelay.control.operation import Operation, perform
from flagrelay.control.proof import prove
from flagrelay.control.reach import Reach
from flagrelay.control.session import Session
from flagrelay.control.standing import Acted
from flagrelay.control.table import ADVANCE, PLAN, REACH, START, UNRELEASE
from flagrelay.store.connection import Store
from flagrelay.store.reports import Reports, read_reports

FLAG = "one-page-checkout"
PLANNED: dict[str, Any] = {
    "flag": FLAG,
    "description": "The checkout on one page",
    "owner": "payments",
    "variants": {"on": True, "off": False},
    "released": "on",
    "baseline": "off",
    "stages": [
        {"population": "dev-team"},
        {"population": "internal"},
        {"population": "beta", "percent": 50},
        {"percent": 1},
        {"percent": 100},
    ],
}
PEOPLE = 1000
GROUPS: tuple[list[str], ...] = ([], [], [], [], [], [], [], ["beta"])
WITHIN = 5.0
"""Seconds that are waited for a proof."""

STEPS: tuple[tuple[str, Operation[Any, Any], dict[str, Any]], ...] = (
    ("release plan", PLAN, {"plan": PLANNED, "reason": "ships dark"}),
    ("release start", START, {"reason": "the team tries it in production"}),
    ("release advance", ADVANCE, {"reason": "looks well"}),
    ("release advance", ADVANCE, {"reason": "looks well"}),
    ("unrelease --from beta", UNRELEASE, {"from": ["beta"], "reason": "errors among beta users"}),
)


async def show_release_scene(console: Console, store: Store, environment: str) -> None:
    """Release a flag to one population after another, and take it back from one of them."""
    session = Session(store, environment, "demo")
    people = _people()
    console.print(f"[bold]{FLAG}[/bold] ships dark, and is released to one population after another:\n")
    table = Table(
        "", "who gains, who loses", "have it", "streams have it in", box=None, pad_edge=False, header_style="dim"
    )
    for name, operation, members in STEPS:
        acted: Acted = await perform(session, operation, key=FLAG, **members)
        said = await _proven(session, acted)
        reach: Reach = await perform(session, REACH, key=FLAG, sample=people)
        have = f"{reach.now.have if reach.now else 0:,} of {reach.contexts:,}"
        table.add_row(_styled(name), _shifts(acted), have, said)
    console.print(table)
    console.print(
        "\nThe others keep it: no rollback, no redeploy. [bold]flagrelay release status "
        f"{FLAG}[/bold] shows where it stands.\n"
    )


def _people() -> list[dict[str, Any]]:
    """A thousand contexts as this shop would see them, the same in every run."""
    chance = random.Random(7)
    team: list[dict[str, Any]] = [
        {"targetingKey": f"dev-{name}", "email": f"{name}@shop.example"} for name in ("ada", "grace", "linus")
    ]
    staff = [{"targetingKey": f"staff-{each}", "email": f"staff-{each}@shop.example"} for each in range(40)]
    rest: list[dict[str, Any]] = [
        {"targetingKey": f"user-{each}", "groups": chance.choice(GROUPS)} for each in range(PEOPLE)
    ]
    return [*team, *staff, *rest][:PEOPLE]


async def _proven(session: Session, acted: Acted) -> str:
    """After how long the relay's streams have it, as it reports itself; what is missing, where something is."""

    async def read() -> Reports:
        return await read_reports(session.store, session.environment)

    if acted.change is None:
        return ""
    proof = await prove(read, written_of(acted.change), within=WITHIN)
    if not proof.complete or proof.ms is None:
        return proof.sentence("written")
    written, streams = (sum(getattr(relay, name) for relay in proof.standings) for name in ("written", "streams"))
    return f"{proof.ms:.1f} ms: {written}/{streams}"


def _shifts(acted: Acted) -> str:
    shifts = [
        f"{'[green]+' if shift.gains else '[red]-'} {shift.scope}: {shift.after}[/]" for shift in acted.effect.shifts
    ]
    return ", ".join(shifts) or "nobody"


def _styled(name: str) -> str:
    return f"[bold red]{name}[/]" if name.startswith("unrelease") else name
