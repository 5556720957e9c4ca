"""What all workers of a node say, as one: added up where it adds up, and otherwise the worst."""

from typing import Any

from flagrelay.server.merging import faults, merge_kills, merge_readiness, merge_status

HEAD = {"state": "serving", "restarts": 0, "restarts_by_reason": {}}
SUPERVISOR = {"pid": 1, "uptime_ms": 5000, "wanted": 2, "alive": 2}


def gathered(*workers: dict[str, Any], **more: Any) -> dict[str, Any]:
    entries = [{"worker": number, "pid": 100 + number, **HEAD, **each} for number, each in enumerate(workers, 1)]
    return {"workers": entries, "supervisor": SUPERVISOR, **more}


def environment(**different: Any) -> dict[str, Any]:
    return {
        "source": "live",
        "reason": "the same as Redis",
        "streams": {"definitions": 2, "events": 1},
        "lagging": 1,
        "histories_lost": 0,
        "local_kills": {},
        "last_change": {"revision": 7, "at": 70},
        "epoch": "e",
        "revision": 7,
        "flags": 3,
        "age_ms": 10,
        "served_from": "redis",
        **different,
    }


def status(**different: Any) -> dict[str, Any]:
    return {
        "report": {
            "version": "1",
            "relay_id": "relay-1",
            "uptime_ms": 1000,
            "ready": True,
            "reason": "",
            "streams": 3,
            "waiting": 1,
            "refused": {"herd": 2},
            "keys": {"live": True, "reason": ""},
            "state_dir": None,
            "environments": {"production": environment()},
            **different,
        }
    }


def ready(*reasons: str, **environments: Any) -> dict[str, Any]:
    return {"report": {"reasons": list(reasons), "environments": environments}}


def test_a_node_is_ready_where_all_workers_are() -> None:
    said = merge_readiness(gathered(ready(production=environment()), ready(production=environment(revision=6))))
    assert said["reasons"] == []
    assert said["environments"]["production"]["revision"] == 6
    assert [(worker["worker"], worker["ready"], worker["reason"]) for worker in said["workers"]] == [
        (1, True, ""),
        (2, True, ""),
    ]


def test_what_one_worker_says_is_said_with_its_number_and_what_all_say_once() -> None:
    said = merge_readiness(gathered(ready("cold", "both"), ready("both"), ready("both")))
    assert said["reasons"] == ["worker 1: cold", "both"]
    said = merge_readiness(gathered(ready(), ready("some"), ready("some")))
    assert said["reasons"] == ["worker 2 and 3: some"]


def test_who_does_not_answer_is_never_left_out() -> None:
    silent = gathered(ready(), {"error": "it does not answer within 1 s"})
    assert merge_readiness(silent)["reasons"] == ["worker 2: it does not answer within 1 s"]
    assert faults(silent) == ["worker 2: it does not answer within 1 s"]
    lost = {**gathered(ready()), "supervisor": None, "error": "the supervisor: it is gone"}
    assert merge_readiness(lost)["reasons"] == ["the supervisor: it is gone"]
    assert faults(lost) == ["the supervisor: it is gone"]


def test_a_node_that_stops_says_so_whatever_its_workers_have_noticed() -> None:
    said = merge_readiness(gathered({**ready(), "state": "stopping"}, {**ready("shutting down"), "state": "stopping"}))
    assert said["reasons"] == ["shutting down"]


def test_a_worker_that_is_being_replaced_counts_as_the_one_that_still_serves() -> None:
    assert (
        merge_readiness(gathered({**ready(), "state": "renewing"}, {**ready(), "state": "retiring"}))["reasons"] == []
    )


def test_what_adds_up_is_added_and_of_the_rest_the_worst_is_shown() -> None:
    behind = environment(
        source="stale",
        reason="no connection",
        revision=5,
        age_ms=900,
        local_kills={"local": 1},
        served_from="disk",
        last_change=None,
        histories_lost=1,
    )
    said = merge_status(
        gathered(
            status(),
            status(
                ready=False,
                reason="stale",
                refused={"herd": 1, "key": 1},
                environments={"production": behind, "new": environment()},
                keys={"live": False, "reason": "no Redis"},
            ),
        )
    )
    assert (said["ready"], said["reason"]) == (False, "worker 2: stale")
    assert (said["streams"], said["waiting"], said["refused"]) == (6, 2, {"herd": 3, "key": 1})
    assert said["keys"] == {"live": False, "reason": "no Redis"}
    assert (said["version"], said["relay_id"]) == ("1", "relay-1")
    assert said["uptime_ms"] == 5000, "the node's, not a worker's"
    assert said["environments"].keys() == {"production", "new"}
    assert said["environments"]["production"] == {
        **behind,
        "streams": {"definitions": 4, "events": 2},
        "lagging": 2,
    }
    assert [worker["environments"]["production"]["revision"] for worker in said["workers"]] == [7, 5]


def test_an_environment_that_a_worker_has_not_loaded_is_shown_as_that_worker_has_it() -> None:
    new = {name: value for name, value in environment(source="connecting").items() if name != "revision"}
    said = merge_status(gathered(status(), status(environments={"production": new})))
    assert said["environments"]["production"]["source"] == "connecting"
    assert "revision" not in said["environments"]["production"]


def test_a_status_in_which_nobody_answers_is_still_one() -> None:
    said = merge_status(gathered({"error": "it starts"}, {"error": "it starts"}))
    assert (said["ready"], said["reason"], said["streams"]) == (False, "it starts", 0)
    assert said["keys"] == {"live": False, "reason": ""}
    assert [worker["error"] for worker in said["workers"]] == ["it starts"] * 2


def test_the_state_directory_is_shared_and_so_is_what_is_said_of_it() -> None:
    one = {"written_at": {"access.keys": 5.0, "production.snapshot": 9.0}, "failing": {}}
    other = {"written_at": {"access.keys": 7.0}, "failing": {"production.snapshot": "disk full"}}
    said = merge_status(gathered(status(state_dir=one), status(state_dir=other)))
    assert said["state_dir"] == {
        "written_at": {"access.keys": 7.0, "production.snapshot": 9.0},
        "failing": {"production.snapshot": "disk full"},
    }


def standing(key: str, state: str = "local") -> dict[str, Any]:
    return {"kill": {"key": key}, "state": state, "why": state, "seen_at": None}


def test_a_kill_is_shown_once_at_its_worst_with_who_holds_it() -> None:
    held, streams = merge_kills(
        gathered(
            {"report": {"production": {"held": [standing("a", "written"), standing("b")], "streams": 3}}},
            {"report": {"production": {"held": [standing("a", "conflict")], "streams": 4}}},
            {"report": {"staging": {"held": [standing("c")], "streams": 9}}},
            {"error": "it hangs"},
        ),
        "production",
    )
    assert [(each["kill"]["key"], each["state"], each["workers"]) for each in held] == [
        ("a", "conflict", [1, 2]),
        ("b", "local", [1]),
    ]
    assert streams == 7
