"""What was done, for people: a line each, the oldest first."""

from collections.abc import Sequence

from flagrelay.cli.output import clock, one_line, print_table
from flagrelay.store.history import HistoryEntry

MAX_SHOWN = 5
"""Names that a line shows."""


def show_entries(entries: Sequence[HistoryEntry], *, empty: str) -> None:
    """What was done, when, by whom and why; the newest last, where one looks."""
    rows = [
        (clock(entry.at), str(entry.revision), entry.action, _about(entry), entry.actor or "unknown", entry.reason)
        for entry in reversed(entries)
    ]
    print_table(("WHEN (UTC)", "REVISION", "ACTION", "WHAT", "WHO", "WHY"), rows, empty=empty)


def _about(entry: HistoryEntry) -> str:
    if entry.action.startswith("keys "):
        return _access_key(entry)
    if entry.detail is not None:
        return _detail(entry)
    names = [f"{name} deleted" if name in entry.deleted else name for name in entry.flags]
    names += [f"population {name}" for name in entry.populations]
    more = len(names) - MAX_SHOWN + entry.left_out
    shown = ", ".join(names[:MAX_SHOWN]) or "-"
    return one_line(shown + (f" and {more} more" if more > 0 else ""))


def _access_key(entry: HistoryEntry) -> str:
    detail = entry.detail or {}
    return one_line(f'key {detail.get("key")} ("{detail.get("name")}", {detail.get("kind")})')


def _detail(entry: HistoryEntry) -> str:
    """Where a release went, and from whom it was taken back."""
    detail = entry.detail or {}
    parts = []
    before, after = detail.get("from_stage"), detail.get("stage")
    if after is not None:
        parts.append(f"{before} → {after}" if before not in (None, after) else str(after))
    if entry.action == "kill":
        parts.append("disabled" if detail.get("to") is None else f"everybody has {detail['to']}")
    parts += [f"not {name}" for name in detail.get("blocks", [])]
    parts += [f"only {name}" for name in detail.get("only", [])]
    return one_line(", ".join(parts) or "-")
