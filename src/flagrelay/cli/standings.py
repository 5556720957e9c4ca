"""How releases stand, for people: the bar of stages, who has it, who does not."""

from collections.abc import Iterator, Sequence
from time import time

import click
from rich.console import Console
from rich.text import Text

from flagrelay.cli.asking import show_effect
from flagrelay.cli.histories import show_entries
from flagrelay.cli.output import clock, one_line, print_table
from flagrelay.control.answers import Killed
from flagrelay.control.reach import Reach, StageReach
from flagrelay.control.standing import Acted, ReleaseAnswer
from flagrelay.release.duration import format_duration
from flagrelay.release.plan import Mix, Plan, check_plan
from flagrelay.release.sample import telling
from flagrelay.store.history import HistoryEntry

REACHED, OPEN = "█", "░"
BLOCK = 3
"""Columns of a stage in the bar."""


def show_plan(acted: Acted, plan: Plan, reach: Reach) -> None:
    """What each stage will expose, and what storing the plan does to the flag as it is."""
    click.echo(f'plan of flag "{one_line(plan.flag)}": {_served(plan.released)} over {_served(plan.baseline)}')
    for label, text in (("owner", plan.owner), ("description", plan.description)):
        if text:
            click.echo(f"{label}: {one_line(text)}")
    scopes = [each.scope for each in reach.stages[0].exposures]
    counted = ("OF THE SAMPLE" if reach.over == "sample" else "OF OPEN STREAMS",) if reach.contexts else ()
    columns = ("", "STAGE", "RELEASES TO", "AT LEAST", "APPROVED", *(scope.upper() for scope in scopes), *counted)
    print_table(columns, _plan_rows(plan, reach), empty="")
    for note in acted.notes:
        click.echo(f"note: {one_line(note)}", err=True)
    click.echo()
    if acted.effect.shifts:
        click.echo("storing it does this to those who have the flag now:")
        show_effect(acted.effect)
    elif acted.effect.counted and (acted.effect.counted.gain or acted.effect.counted.lose):
        show_effect(acted.effect)
    click.echo("nothing was written: --apply stores it")


def _plan_rows(plan: Plan, reach: Reach) -> Iterator[Sequence[str]]:
    for position, (stage, reached) in enumerate(zip(plan.stages, reach.stages, strict=True), 1):
        minimum = format_duration(stage.minimum) if stage.minimum else "-"
        shown = (f"{each.shown}{_keys(reached, each.scope)}" for each in reached.exposures)
        counted = (_of_sample(reach, reached),) if reach.contexts else ()
        yield (str(position), stage.name, stage.whom, minimum, str(stage.approval) or "-", *shown, *counted)


def _keys(reached: StageReach, scope: str) -> str:
    """How many of a population's keys have it, where it lists them."""
    found = [keys for keys in reached.keys if keys.population == scope]
    return f" ({found[0].have:,} of {found[0].keys:,} keys)" if found else ""


def _of_sample(reach: Reach, reached: StageReach) -> str:
    return f"{reached.have:,} of {reach.contexts:,} ({reached.have / reach.contexts:.2%})"


def _served(mix: Mix) -> str:
    if len(mix) == 1:
        return f'"{one_line(next(iter(mix)))}"'
    return ", ".join(f'{weight} x "{one_line(name)}"' for name, weight in mix.items())


def show_releases(answers: Sequence[ReleaseAnswer]) -> None:
    """A line for each release."""
    rows = [
        (
            answer.flag,
            "killed" if answer.killed else answer.state,
            f"{bar(answer)} {answer.position}/{len(answer.stages)}",
            answer.stage,
            format_duration(time() - answer.since / 1e6),
            _withheld(answer) or "-",
        )
        for answer in answers
    ]
    columns = ("FLAG", "STATE", "STAGES", "AT", "FOR", "UN-RELEASED FROM")
    print_table(columns, rows, empty="no flag has a release: flagrelay release plan KEY --file plan.yaml")


def show_release(answer: ReleaseAnswer, reach: Reach, last: Sequence[HistoryEntry]) -> None:
    """Everything that a person wants to know of one."""
    console = Console(highlight=False, soft_wrap=True)
    head = Text.assemble(
        (one_line(answer.flag), "bold"),
        f"  {bar(answer)}  ",
        (f"{answer.position}/{len(answer.stages)} {one_line(answer.stage)}", "bold"),
        f"  {answer.state} for {format_duration(time() - answer.since / 1e6)}",
    )
    console.print(head)
    if answer.killed:
        kill = answer.killed
        who = f"killed by {kill.actor} since {clock(kill.at)} UTC: {kill.reason}"
        console.print(Text(one_line(f"{who}; {while_killed(answer, kill)}"), style="bold red"))
    for label in ("description", "owner"):
        if answer.plan.get(label):
            console.print(Text(f"{label}: {one_line(str(answer.plan[label]))}"))
    console.print()
    rows = [
        (
            REACHED if stage.reached else OPEN,
            stage.name,
            stage.whom,
            format_duration(stage.minimum) if stage.minimum else "-",
            _approval(stage.approval, stage.approved_by),
        )
        for stage in answer.stages
    ]
    print_table(("", "STAGE", "RELEASES TO", "AT LEAST", "APPROVED"), rows, empty="")
    console.print()
    now = reach.now
    exposed = [(each.scope, each.shown + (_keys(now, each.scope) if now else "")) for each in answer.exposures]
    once = " once it is revived" if answer.killed else ""
    print_table(("WHO", f"HAS IT{once.upper()}"), exposed, empty="")
    if now and reach.contexts:
        source = "the sample" if reach.over == "sample" else "open streams"
        console.print(f"of the contexts of {source}: {_of_sample(reach, now)} have it{once}")
    console.print()
    show_entries(last, empty="nothing was done yet", of_one_flag=True)
    console.print(f"\nwhat fits now: {', '.join(answer.fitting)}", style="dim")


def while_killed(answer: ReleaseAnswer, kill: Killed) -> str:
    """What everybody has while a flag is killed, and how that ends."""
    what = "nobody has it" if kill.to is None else f'everybody has "{kill.to}"'
    told = f"while it is killed, {what}: `flagrelay revive {answer.flag}` brings it back to this"
    released = kill.to is not None and kill.to in telling(check_plan(answer.plan))
    return f"{told}, `flagrelay kill {answer.flag}` takes it from everybody" if released else told


def bar(answer: ReleaseAnswer) -> str:
    """A block for each stage: those that are reached are full."""
    return "".join((REACHED if stage.reached else OPEN) * BLOCK for stage in answer.stages[:20])


def _approval(needed: str, given: Sequence[str]) -> str:
    if not needed:
        return "-"
    return f"by {', '.join(given)}" if given else f"must be, {needed}"


def _withheld(answer: ReleaseAnswer) -> str:
    return ", ".join([*answer.blocks, *(f"all but {name}" for name in answer.only)])
