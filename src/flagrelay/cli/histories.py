"""What was done, for people: a line each, the oldest first."""

from collections.abc import Sequence

from flagrelay.cli.output import clock, one_line, print_table
from flagrelay.store.history import HistoryEntry

MAX_SHOWN = 5
"""Names that a line shows."""

OF_CHANGES = {"settings", "metadata", "agreed"}
"""What the history knows of changes, beside what they touched."""


def show_entries(
    entries: Sequence[HistoryEntry], *, empty: str, flag: str | None = None, of_one_flag: bool = False
) -> None:
    """What was done, when, by whom and why; the newest last, where one looks.

    Args:
        entries: the newest first.
        empty: what is said where there is none.
        flag: the one that is asked for, among those that were touched.
        of_one_flag: whether all of it is of one flag's release, whose name goes without saying.
    """
    rows = []
    for entry in reversed(entries):
        about = _detail(entry) if of_one_flag else _about(entry, flag)
        rows.append((clock(entry.at), str(entry.revision), entry.action, about, entry.actor or "unknown", entry.reason))
    print_table(("WHEN (UTC)", "REVISION", "ACTION", "WHAT", "WHO", "WHY"), rows, empty=empty)


def _about(entry: HistoryEntry, flag: str | None) -> str:
    detail = entry.detail or {}
    if entry.action.startswith("keys "):
        return _access_key(entry)
    names = [f"{name} deleted" if name in entry.deleted else name for name in entry.flags]
    names += [f"population {name}" for name in entry.populations]
    names += [f"setting {name}" for name in detail.get("settings", [])] + ["metadata"] * ("metadata" in detail)
    more = len(names) - MAX_SHOWN + entry.left_out
    shown = ", ".join(names[:MAX_SHOWN]) or "-"
    shown += f" and {more} more" if more > 0 else ""
    if detail and not detail.keys() & OF_CHANGES:
        shown += f": {_detail(entry)}"
    maybe = f", perhaps {flag}" if flag is not None and flag not in entry.flags else ""  # one of those left out
    return one_line(f"{'as it was: ' if 'agreed' in detail else ''}{shown}{maybe}")


def _access_key(entry: HistoryEntry) -> str:
    detail = entry.detail or {}
    return one_line(f'key {detail.get("key")} ("{detail.get("name")}", {detail.get("kind")})')


def _detail(entry: HistoryEntry) -> str:
    """What was done, and where a release stands by it."""
    return one_line("; ".join(filter(None, (_done(entry), _standing(entry)))) or "-")


def _done(entry: HistoryEntry) -> str:
    """What was done beside going from stage to stage."""
    detail = entry.detail or {}
    match entry.action:
        case "kill":
            return "disabled" if detail.get("to") is None else f"everybody has {detail['to']}"
        case "approve" if "approves" in detail:
            return f"{detail['approves']} approved"
        case "restore" if "population" in detail:
            return f"{detail['population']} restored"
        case "unrelease" if "from" in detail:
            to = [] if detail.get("to") is None else [f"to {detail['to']}"]
            return ", ".join([*(f"from {name}" for name in detail["from"]), *to]) or "from everybody"
    return ""


def _standing(entry: HistoryEntry) -> str:
    """The stage that a release came to, and from whom else it is taken back."""
    detail = entry.detail or {}
    before, after = detail.get("from_stage"), detail.get("stage")
    if after is None or (entry.action == "approve" and "approves" in detail):
        return ""
    said = [*detail.get("from", []), detail.get("to")] if entry.action == "unrelease" else []
    parts = [f"{before} → {after}" if before not in (None, after) else str(after)]
    parts += [f"not {name}" for name in detail.get("blocks", []) if name not in said]
    parts += [f"only {name}" for name in detail.get("only", []) if name not in said]
    return ", ".join(parts)
