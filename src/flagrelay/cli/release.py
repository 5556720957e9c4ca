"""`flagrelay release` and `flagrelay unrelease`: a flag's way through populations, and back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import click
import msgspec

from flagrelay.cli.acting import members_of, prove_change
from flagrelay.cli.asking import confirm, sample_option, show_effect, yes_option
from flagrelay.cli.documents import format_option, read_document, subject_of
from flagrelay.cli.histories import show_entries
from flagrelay.cli.options import Command, checked_text, json_option, key_argument, who_options
from flagrelay.cli.output import one_line, print_json
from flagrelay.cli.proof import end_with, wait_option
from flagrelay.cli.standings import show_plan, show_release, show_releases, while_killed
from flagrelay.cli.target import Perform, Target, target_options
from flagrelay.control import table
from flagrelay.control.operation import Operation
from flagrelay.control.proof import Proof
from flagrelay.control.reach import Reach
from flagrelay.control.releases import approved_stage
from flagrelay.control.standing import Acted, ReleaseAnswer
from flagrelay.errors import DefinitionError
from flagrelay.release.plan import check_plan

to_option = click.option(
    "--to", metavar="STAGE", callback=checked_text(), help="To this stage, by name or number, rather than the next."
)
force_option = click.option("--force", is_flag=True, help="Though the stage has not lasted its minimum time.")

ENDS = {
    "finished": "everybody has it, and it is a plain flag again",
    "abandoned": "everybody has the baseline, and it is a plain flag again",
    "detached": "it stays as it is, and is a plain flag again",
}
"""What the ends of a release leave."""


@click.group(epilog="Example: flagrelay release plan checkout-v2 --env production --file plan.yaml")
def release() -> None:
    """Release a flag to one population after another.

    A plan says to whom, in which order; `start` and `advance` go on, `retreat` goes back. `flagrelay unrelease` takes
    it from any population, at once.
    """


def _action(*, reason_required: bool = True, asks: bool = True) -> Callable[[Command], Command]:
    """The options that all actions have."""

    def add(command: Command) -> Command:
        made = target_options(replicas=True)(command)
        made = json_option(wait_option(sample_option(made)))
        made = yes_option(made) if asks else made
        return who_options(reason_required=reason_required)(made)

    return add


@release.command(epilog="Example: flagrelay release plan checkout-v2 --env production --file plan.yaml --apply")
@key_argument
@click.option("--file", "path", default="-", show_default="standard input", metavar="FILE", help="The plan.")
@format_option
@click.option("--apply", is_flag=True, help="Store it; the flag then serves its baseline to everybody.")
@click.option("--replace-targeting", is_flag=True, help="Over targeting that the flag has of its own.")
@_action(reason_required=False)
def plan(
    key: str, path: str, document_format: str | None, apply: bool, replace_targeting: bool, **options: Any
) -> None:
    """Check a plan, and show what each of its stages will expose; with --apply, store it.

    \b
        flag: checkout-v2
        released: "on"
        baseline: "off"
        stages:
          - population: dev-team
          - {population: internal, minimum: 1h}
          - {population: beta, percent: 50, approval: true}
          - percent: 1
          - percent: 100
    """  # noqa: D301 - \b is click's mark for text that stays as it is
    document = read_document(path, document_format)
    try:
        wanted = check_plan(document)
    except DefinitionError as error:
        raise DefinitionError(f"{subject_of(path)}: {error.subject}", error.path, error.cause) from error
    members = {"key": key, "plan": document, "replace_targeting": replace_targeting}
    if not apply:
        acted, reach = options["target"].run(lambda perform: _look(perform, members, options["sample"]))
        if options["as_json"]:
            print_json({**_json(acted, None), "reach": reach})
        else:
            show_plan(acted, wanted, reach)
        return
    _act(table.PLAN, "stored", f'Store the plan of flag "{key}"?', members, options)


async def _look(perform: Perform, members: dict[str, Any], sample: Any) -> tuple[Acted, Reach]:
    acted = await perform(table.PLAN, preview=True, sample=sample, **members)
    return acted, await perform(table.REACH, key=members["key"], plan=members["plan"], sample=sample)


@release.command(epilog="Example: flagrelay release start checkout-v2 --env production --reason 'dark launch is over'")
@key_argument
@to_option
@force_option
@_action()
def start(key: str, to: str | None, force: bool, **options: Any) -> None:
    """Enter the first stage."""
    _act(
        table.START, "released", f'Start the release of flag "{key}"?', {"key": key, "to": to, "force": force}, options
    )


@release.command(epilog="Example: flagrelay release advance checkout-v2 --env production --reason 'error rate is flat'")
@key_argument
@to_option
@force_option
@_action()
def advance(key: str, to: str | None, force: bool, **options: Any) -> None:
    """Enter the next stage, or a later one."""
    members = {"key": key, "to": to, "force": force}
    _act(table.ADVANCE, "released", f'Advance the release of flag "{key}"?', members, options)


@release.command(epilog="Example: flagrelay release retreat checkout-v2 --env production --to internal --reason slow")
@key_argument
@to_option
@_action()
def retreat(key: str, to: str | None, **options: Any) -> None:
    """Go back to the stage before, or to an earlier one; from the first one, to nobody."""
    _act(table.RETREAT, "taken back", f'Take back flag "{key}" by this?', {"key": key, "to": to}, options)


@release.command(
    epilog="Example: flagrelay release restore checkout-v2 --env production --population beta --reason fixed"
)
@key_argument
@click.option("--population", required=True, callback=checked_text(), metavar="NAME", help="To which it is given back.")
@_action()
def restore(key: str, population: str, **options: Any) -> None:
    """Give it back to a population that it was taken back from, as far as the stages go."""
    members = {"key": key, "population": population}
    _act(table.RESTORE, "restored", f'Give flag "{key}" back to {population}?', members, options)


@release.command(
    epilog="Example: flagrelay release approve checkout-v2 --env production --reason 'looked at dashboards'"
)
@key_argument
@click.option("--stage", metavar="STAGE", callback=checked_text(), help="The stage; the next one where none is given.")
@_action(reason_required=False, asks=False)
def approve(key: str, stage: str | None, **options: Any) -> None:
    """Agree to the entry of a stage that takes an approval; in your own name, for somebody else to advance."""
    _act(table.APPROVE, "approved", "", {"key": key, "stage": stage}, options)


def _approved(release: ReleaseAnswer, stage: str | None) -> str:
    return f'stage "{approved_stage(check_plan(release.plan), release.position, stage)}" of '


@release.command(epilog="Example: flagrelay release finish checkout-v2 --env production --reason 'everybody has it'")
@key_argument
@click.option("--force", is_flag=True, help="Though its stages have not reached everybody.")
@_action(reason_required=False)
def finish(key: str, force: bool, **options: Any) -> None:
    """End it with everybody having it: the flag is plain again, and the plan is kept in its history."""
    _act(table.FINISH, "finished", f'Finish the release of flag "{key}"?', {"key": key, "force": force}, options)


@release.command(
    epilog="Example: flagrelay release abandon checkout-v2 --env production --reason 'another way is taken'"
)
@key_argument
@_action(reason_required=False)
def abandon(key: str, **options: Any) -> None:
    """End it with nobody having it: the flag is plain again, and the plan is kept in its history."""
    _act(table.ABANDON, "abandoned", f'Abandon the release of flag "{key}"?', {"key": key}, options)


@release.command(epilog="Example: flagrelay release detach checkout-v2 --env production --reason 'targeting by hand'")
@key_argument
@_action(reason_required=False)
def detach(key: str, **options: Any) -> None:
    """End it and leave the flag as it is, to be edited as plain JSON from now on."""
    _act(table.DETACH, "detached", f'Detach flag "{key}" from its release?', {"key": key}, options)


@release.command(epilog="Example: flagrelay release status checkout-v2 --env production")
@click.argument("key", required=False, callback=checked_text(256))
@sample_option
@json_option
@target_options()
def status(key: str | None, sample: Any, as_json: bool, target: Target) -> None:
    """Show where a release stands: its stages, who has it, who does not, and what was done last. Without KEY: all.

    How many people that are is counted where populations are lists of keys; for the rest, over a --sample, or, with
    --url, over the contexts of that relay's open streams of evaluated values.
    """
    if key is None:
        answers = target.do(table.LIST_RELEASES)
        if as_json:
            print_json(answers)
        else:
            show_releases(answers)
        return

    async def read(perform: Perform) -> tuple[Any, ...]:
        answer = await perform(table.GET_RELEASE, key=key)
        reach = await perform(table.REACH, key=key, sample=sample)
        return answer, reach, await perform(table.RELEASE_HISTORY, key=key, limit=5)

    answer, reach, last = target.run(read)
    if as_json:
        print_json({**msgspec.structs.asdict(answer), "reach": reach, "last": last})
    else:
        show_release(answer, reach, last)


@release.command(epilog="Example: flagrelay release history checkout-v2 --env production")
@key_argument
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The newest so many.")
@json_option
@target_options()
def history(key: str, limit: int, as_json: bool, target: Target) -> None:
    """Show every action on a flag's release, and every kill, however long ago: who, when and why."""
    entries = target.do(table.RELEASE_HISTORY, key=key, limit=limit)
    if as_json:
        print_json(entries)
    else:
        empty = f'nothing was ever done to a release of flag "{key}"'
        show_entries(entries, empty=empty, of_one_flag=True)


@click.command(
    epilog="Example: flagrelay unrelease checkout-v2 --env production --from beta --reason 'error rate'. "
    "Down to internal users: flagrelay unrelease checkout-v2 --env production --to internal --reason 'error rate'"
)
@key_argument
@click.option(
    "--from",
    "from_",
    multiple=True,
    metavar="POPULATION",
    callback=lambda ctx, param, names: [checked_text()(ctx, param, name) for name in names],
    help="From this population, whatever stage or percentage it is in; may be given several times.",
)
@click.option(
    "--to",
    metavar="NAME",
    callback=checked_text(),
    help="From everybody but those up to this stage, or who are in this population.",
)
@_action(asks=False)
def unrelease(key: str, from_: list[str], to: str | None, **options: Any) -> None:
    """Take a release back, at once: from populations, from all but some, or from everybody. Never asks.

    It wins over every stage and percentage, and over whatever is being edited. `flagrelay release restore` gives it
    back to a population, `flagrelay release advance` to the stages.
    """
    _act(table.UNRELEASE, "un-released", "", {"key": key, "from": from_ or None, "to": to}, options)


def _act(
    operation: Operation[Any, Any], verb: str, question: str, members: dict[str, Any], options: dict[str, Any]
) -> None:
    """Show what an action does and ask, where there is a question; do it; prove it."""
    target: Target = options["target"]
    reason, as_json, sample = options["reason"], options["as_json"], options["sample"]
    members = {**members, "reason": reason}
    if question:
        preview: Acted = target.do(operation, preview=True, sample=sample, **members)
        if not as_json:
            show_effect(preview.effect)
            _note(preview)
        confirm(question, yes=options["yes"])
        members["if_revision"] = preview.release.revision
        if operation is table.PLAN:
            members["if_flag_revision"] = preview.flag_revision

    async def run(perform: Perform) -> tuple[Acted, Proof | None]:
        acted: Acted = await perform(operation, sample=None if question else sample, **members)
        if not as_json:
            what = _approved(acted.release, members["stage"]) if operation is table.APPROVE else ""
            _say(acted, verb, what, effect=not question)
        proving = {"verb": verb, "wait": options["wait"], "as_json": as_json, "flag": members["key"]}
        proof = await prove_change(perform, acted.change, **proving, unproven=partial(_json, acted, None))
        return acted, proof

    acted, proof = target.run(run)
    if as_json:
        print_json(_json(acted, proof))
    end_with(proof)


def _note(acted: Acted) -> None:
    for note in acted.notes:
        click.echo(f"note: {one_line(note)}", err=True)


def _say(acted: Acted, verb: str, what: str, *, effect: bool) -> None:
    change, release = acted.change, acted.release
    if effect:
        _note(acted)
    if change is None or not change.changed:
        click.echo(f'flag "{one_line(release.flag)}" stays as it is: there is nothing to be {verb}')
        return
    if effect and acted.effect.shifts:
        show_effect(acted.effect)
    stands = ENDS.get(release.state) or f"{release.state}, stage {release.stage}"
    click.echo(one_line(f'{what}flag "{release.flag}" is {verb}: {stands} (revision {change.revision})'))
    if release.killed:
        click.echo(one_line(while_killed(release, release.killed)), err=True)


def _json(acted: Acted, proof: Proof | None) -> dict[str, Any]:
    return {
        **members_of(acted.change, proof),
        "release": acted.release,
        "effect": acted.effect,
        "notes": acted.notes,
        "definition": acted.definition,
    }
