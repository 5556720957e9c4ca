"""What all workers of a node say, as one; pure.

Workers follow the same Redis and hold the same, but for what is on its way. What adds up is added; of everything else
the worst is shown, and what each one says stands beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flagrelay.server.slots import SlotState

Entry = dict[str, Any]
"""A worker as its supervisor describes it, with what it says as `report`, or an `error`."""

WORST_FIRST = ("connecting", "stale", "loading", "live")


def merge_readiness(gathered: Mapping[str, Any]) -> dict[str, Any]:
    """What /readyz says of a node: ready where all workers are."""
    workers = gathered["workers"]
    reports = [entry["report"] for entry in workers if "report" in entry]
    return {
        "reasons": _reasons(gathered),
        "environments": _environments(report["environments"] for report in reports),
        "workers": [{**_head(entry), "ready": not _why(entry), "reason": "; ".join(_why(entry))} for entry in workers],
    }


def merge_status(gathered: Mapping[str, Any]) -> dict[str, Any]:
    """What /statusz says of a node, in the form in which a relay says it of itself; and each worker's own."""
    workers, supervisor = gathered["workers"], gathered["supervisor"]
    reports = [entry["report"] for entry in workers if "report" in entry]
    lost = [report["keys"]["reason"] for report in reports if not report["keys"]["live"]]
    reasons = _reasons(gathered)
    return {
        "version": reports[0]["version"] if reports else None,
        "relay_id": reports[0]["relay_id"] if reports else None,
        "uptime_ms": (supervisor or reports[0])["uptime_ms"],
        "ready": not reasons,
        "reason": "; ".join(reasons),
        "streams": sum(report["streams"] for report in reports),
        "waiting": sum(report["waiting"] for report in reports),
        "refused": _added(report["refused"] for report in reports),
        "keys": {"live": bool(reports) and not lost, "reason": next(iter(lost), "")},
        "state_dir": _state_dir([report["state_dir"] for report in reports if report["state_dir"]]),
        "environments": _environments(report["environments"] for report in reports),
        "supervisor": supervisor,
        "workers": [{**_head(entry), **entry.get("report", {"error": entry.get("error")})} for entry in workers],
    }


def merge_kills(gathered: Mapping[str, Any], environment: str) -> tuple[list[dict[str, Any]], int]:
    """The local kills in one environment, one standing for each flag: the worst, and who holds it; and open streams."""
    found: dict[str, dict[str, Any]] = {}
    streams = 0
    for entry in gathered["workers"]:
        report = entry.get("report", {}).get(environment, {"held": [], "streams": 0})
        streams += report["streams"]
        for standing in report["held"]:
            known = found.setdefault(standing["kill"]["key"], {**standing, "workers": []})
            known["workers"].append(entry["worker"])
            if known["state"] == "written" != standing["state"]:
                known |= {"state": standing["state"], "why": standing["why"]}
    return list(found.values()), streams


def faults(gathered: Mapping[str, Any]) -> list[str]:
    """Who has not answered, and why."""
    errors = [f"worker {entry['worker']}: {entry['error']}" for entry in gathered["workers"] if "error" in entry]
    return [*errors, *([gathered["error"]] if "error" in gathered else [])]


def _head(entry: Entry) -> dict[str, Any]:
    return {name: entry[name] for name in ("worker", "pid", "state", "restarts")}


def _reasons(gathered: Mapping[str, Any]) -> list[str]:
    """Why a node is not ready: what several workers say is said once."""
    said: dict[str, list[str]] = {}
    for entry in gathered["workers"]:
        for why in _why(entry):
            said.setdefault(why, []).append(str(entry["worker"]))
    everybody = len(gathered["workers"])
    reasons = [why if len(who) == everybody > 1 else f"worker {' and '.join(who)}: {why}" for why, who in said.items()]
    return [*reasons, *([gathered["error"]] if "error" in gathered else [])]


def _why(entry: Entry) -> list[str]:
    """Why a worker is not ready: the node stops, it says nothing, or what it says."""
    if entry["state"] == SlotState.STOPPING:
        return ["shutting down"]
    if "error" in entry:
        return [entry["error"]]
    report = entry["report"]
    reasons: list[str] = report["reasons"] if "reasons" in report else [report["reason"]] if report["reason"] else []
    return ["it does not accept yet", *reasons] if entry["state"] == SlotState.STARTING else reasons


def _environments(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    for environments in documents:
        for name, document in environments.items():
            found.setdefault(name, []).append(document)
    return {name: _environment(each) for name, each in found.items()}


def _environment(each: list[dict[str, Any]]) -> dict[str, Any]:
    """One environment, of which each worker says something: as the one that is furthest behind has it."""
    worst = min(each, key=_standing)
    merged = dict(worst)
    for name, join in JOINS.items():
        said = [document[name] for document in each if name in document]
        if said:
            merged[name] = join(said)
    return merged


def _standing(document: dict[str, Any]) -> tuple[int, int]:
    return WORST_FIRST.index(document["source"]), document.get("revision", -1)


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _most(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Of what all workers hold: each holds the same, so that adding it up would count it several times."""
    most: dict[str, int] = {}
    for each in counts:
        most |= {name: max(count, most.get(name, 0)) for name, count in each.items()}
    return most


def _state_dir(each: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The directory, which all workers share: a file is as new as the newest, and fails where it fails for any."""
    if not each:
        return None
    failing = {name: why for document in each for name, why in document["failing"].items()}
    return {"written_at": _most(document["written_at"] for document in each), "failing": failing}


JOINS: Mapping[str, Callable[[list[Any]], Any]] = {
    "streams": _added,
    "lagging": sum,
    "age_ms": max,
    "histories_lost": max,
    "local_kills": _most,
    "served_from": min,  # "disk" comes before "redis"
}
"""How the members of an environment are joined in which the workers may differ; of any other, one stands for all."""
