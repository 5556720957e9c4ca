"""/admin/v1: what people do to an environment, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog

from flagrelay.control.openapi import document_json
from flagrelay.control.operation import BASE, request_of
from flagrelay.control.session import Session
from flagrelay.control.table import OPERATIONS
from flagrelay.errors import FlagrelayError
from flagrelay.flags.definition import MAX_KEY_LENGTH
from flagrelay.store.access_keys import create_access_key, revoke_access_key
from flagrelay.store.environments import create_environment, destroy_environment
from flagrelay.store.reading import read_flag, read_position
from flagrelay.store.reports import Report, write_report
from flagrelay.store.writing import Draft, write_change
from support.admin import FLAG, NOTHING, PLAN, Admin, administered
from support.admin import request_of as bytes_of
from support.relays import ENVIRONMENT, World, running_relay, wired_relay
from support.sources import until
from support.streams import ask, connection, request

DEVS = {"equals": {"attribute": "team", "value": "dev"}, "description": "who builds it", "risk": 1}
BETA = {"email_domains": ["example.com"], "risk": 2}


@pytest.fixture
async def admin(world: World) -> AsyncIterator[Admin]:
    """Somebody who may use the control API of a relay."""
    async with administered(world) as someone:
        yield someone


async def planned(admin: Admin, **members: Any) -> Any:
    """A release of `checkout`, which is planned and not started."""
    await admin.ok("PUT", "/flags/checkout", {"definition": FLAG})
    await admin.ok("PUT", "/populations/devs", DEVS)
    await admin.ok("PUT", "/populations/beta", BETA)
    return await admin.ok("PUT", "/releases/checkout", {"plan": {**PLAN, **members}, "reason": "ship it"})


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_it_is_off_unless_somebody_turns_it_on(world: World) -> None:
    async with running_relay("handover", world) as relay:
        secret = await relay.secret("admin")
        for path in ("/flags", "/flags/flag", "/openapi.json", "/nothing"):
            answer = await ask(relay.port, BASE + path, secret)
            assert (answer.status, answer.json["errorCode"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_takes_an_admin_key(name: str, world: World) -> None:
    operation = OPERATIONS[name]
    path = operation.path.format(**dict.fromkeys(operation.path_members, "flag"))
    async with administered(world) as admin:
        before = await read_position(world.store, ENVIRONMENT)
        secrets = {"": 401, "fr_admin_unknown": 401, **{await admin.relay.secret(k): 403 for k in ("server", "client")}}
        for secret, status in secrets.items():
            answer = await admin.asked(bytes_of(operation.method, path, secret))
            assert answer.status == status
            assert answer.json["errorCode"] == ("UNAUTHORIZED" if status == 401 else "WRONG_KEY_KIND")
        assert await read_position(world.store, ENVIRONMENT) == before


async def test_a_key_is_for_its_own_environment(admin: Admin, world: World) -> None:
    assert await admin.ok("GET", "/flags/flag", flagrelay_environment=ENVIRONMENT)
    why = await admin.refused(403, "WRONG_ENVIRONMENT", "DELETE", "/flags/flag", flagrelay_environment="staging")
    assert f'"{ENVIRONMENT}"' in why
    assert '"staging"' in why
    await create_environment(world.store, "staging")
    _, secret = await admin.relay.key("admin", environment="staging")
    answer = await admin.asked(bytes_of("GET", "/flags", secret))
    assert (answer.status, answer.json["errorCode"]) == (403, "ENVIRONMENT_NOT_SERVED")


async def test_an_environment_that_the_relay_has_not_come_across_yet_can_be_written(world: World) -> None:
    async with administered(world, env=(), verify_interval=60) as admin:
        await create_environment(world.store, "later")
        key, secret = await admin.relay.key("admin", environment="later")
        admin.relay.context.relay.pipelines.pop("later", None)
        answer = await admin.asked(bytes_of("PUT", "/flags/a", secret, {"definition": FLAG}))
        assert answer.status == 200
        assert (await read_flag(world.store, "later", "a")).definition == FLAG
        await revoke_access_key(world.store, key.id)


async def test_a_key_that_is_revoked_while_its_body_is_on_the_way_does_nothing(admin: Admin, world: World) -> None:
    key, secret = await admin.relay.key("admin")
    data = bytes_of("PUT", "/flags/new", secret, {"definition": FLAG})
    async with connection(admin.relay.port) as opened:
        opened.send(data[:-1])
        await until(lambda: admin.relay.connections == 1, "the request is being read")
        await revoke_access_key(world.store, key.id)
        await until(lambda: key.digest not in admin.relay.context.keyring._keys, "the key is revoked")
        opened.send(data[-1:])
        answer = await opened.answer()
    assert (answer.status, answer.json["errorCode"]) == (401, "UNAUTHORIZED")
    await admin.refused(404, "FLAG_NOT_FOUND", "GET", "/flags/new")


async def test_the_actor_is_the_key_whatever_a_request_says(admin: Admin) -> None:
    await admin.ok("POST", "/flags/flag/kill", {"reason": "error rate"}, flagrelay_actor="eve")
    assert (await admin.ok("GET", "/flags/flag"))["killed"]["actor"] == "a test's"
    why = await admin.refused(400, "INVALID_REQUEST", "POST", "/flags/old/kill", {"reason": "x", "actor": "eve"})
    assert "unknown field `actor`" in why
    assert [entry["actor"] for entry in await admin.ok("GET", "/history?limit=1")] == ["a test's"]


# -- what can be done -------------------------------------------------------------------------------------------------


async def test_a_flag_is_put_read_killed_revived_and_deleted(admin: Admin) -> None:
    made = await admin.ok("PUT", "/flags/new", {"definition": FLAG, "reason": "first"}, if_none_match="*")
    assert made["changed"]
    read = await admin.ok("GET", "/flags/new")
    assert (read["definition"], read["revision"], read["killed"], read["stage"]) == (FLAG, made["revision"], None, None)
    assert {each["key"]: each["state"] for each in await admin.ok("GET", "/flags")}.keys() == {"flag", "new", "old"}
    killed = await admin.ok("POST", "/flags/new/kill", {"reason": "error rate", "to": "on"})
    assert killed["revision"] == made["revision"] + 1
    assert (await admin.ok("GET", "/flags/new"))["killed"]["to"] == "on"
    await admin.refused(409, "KILLED", "PUT", "/flags/new", {"definition": FLAG})
    await admin.ok("POST", "/flags/new/revive")
    await admin.refused(409, "NOT_KILLED", "POST", "/flags/new/revive", {})
    assert (await admin.ok("GET", "/flags/new"))["definition"] == FLAG
    await admin.ok("DELETE", "/flags/new?reason=no%20more&force=true")
    assert (await admin.ok("GET", "/history?flag=new&limit=1"))[0]["reason"] == "no more"
    await admin.refused(404, "FLAG_NOT_FOUND", "GET", "/flags/new")


async def test_a_release_goes_all_its_way(admin: Admin) -> None:
    acted = await planned(admin)
    assert (acted["release"]["state"], acted["release"]["stage"]) == ("planned", "dark")

    async def step(action: str, **members: Any) -> Any:
        return await admin.ok("POST", f"/releases/checkout/{action}", {"reason": "as planned", **members})

    before = (await admin.ok("GET", "/releases/checkout"))["revision"]
    preview = await step("start", preview=True, sample=[{"targetingKey": "u1", "team": "dev"}, {"targetingKey": "u2"}])
    assert preview["change"] is None
    assert (preview["effect"]["counted"]["contexts"], preview["effect"]["counted"]["gain"]) == (2, 1)
    assert (await admin.ok("GET", "/releases/checkout"))["revision"] == before
    assert (await step("start"))["release"]["position"] == 1
    assert (await step("advance"))["release"]["position"] == 2
    assert (await step("retreat"))["release"]["position"] == 1
    assert (await step("advance", to="3"))["release"]["position"] == 3
    assert (await step("unrelease", **{"from": ["beta"]}))["release"]["blocks"] == ["beta"]
    assert (await step("restore", population="beta"))["release"]["blocks"] == []
    assert [each["flag"] for each in await admin.ok("GET", "/releases")] == ["checkout"]
    reach = await admin.ok("POST", "/releases/checkout/reach", {"sample": [{"targetingKey": "u1"}]})
    assert reach["contexts"] == 1
    assert (await step("finish"))["release"]["state"] == "finished"
    await admin.refused(404, "RELEASE_NOT_FOUND", "GET", "/releases/checkout")
    actions = [entry["action"] for entry in await admin.ok("GET", "/release-history/checkout")]
    steps = ["plan", "start", "advance", "retreat", "advance", "unrelease", "restore", "finish"]
    assert actions == steps[::-1]


@pytest.mark.parametrize("end", ["abandon", "detach"])
async def test_a_release_can_end_otherwise(end: str, admin: Admin) -> None:
    await planned(admin)
    await admin.ok("POST", "/releases/checkout/start", {"reason": "go"})
    assert (await admin.ok("POST", f"/releases/checkout/{end}"))["change"]["changed"]
    await admin.refused(404, "RELEASE_NOT_FOUND", "GET", "/releases/checkout")


async def test_a_stage_is_approved_by_the_name_of_another_key(admin: Admin, world: World) -> None:
    await planned(admin, stages=[{"population": "devs", "name": "devs", "approval": True}])
    why = await admin.refused(409, "APPROVAL_MISSING", "POST", "/releases/checkout/start", {"reason": "go"})
    assert "must be approved" in why
    key, secret = await create_access_key(world.store, ENVIRONMENT, "admin", "grace", None)
    await until(lambda: key.digest in admin.relay.context.keyring._keys, "the relay has heard of the key")
    await Admin(admin.relay, secret).ok("POST", "/releases/checkout/approve", {"stage": "devs"})
    started = await admin.ok("POST", "/releases/checkout/start", {"reason": "go"})
    assert started["release"]["stages"][0]["approved_by"] == ["grace"]


async def test_a_population_is_put_read_counted_and_deleted(admin: Admin) -> None:
    await admin.ok("PUT", "/populations/devs", DEVS, if_none_match="*")
    read = await admin.ok("GET", "/populations/devs")
    assert (read["kind"], read["risk"], read["description"]) == ("equals", 1, "who builds it")
    await admin.ok("PUT", "/populations/devs", {"risk": None})
    assert (await admin.ok("GET", "/populations/devs"))["risk"] is None
    assert [each["name"] for each in await admin.ok("GET", "/populations")] == ["beta", "devs"]
    members = await admin.ok("POST", "/populations/devs/members", {"sample": [{"team": "dev"}, {}]})
    assert (members["contexts"], members["members"]) == (2, 1)
    assert (await admin.ok("DELETE", "/populations/devs?reason=merged"))["changed"]
    await admin.refused(404, "POPULATION_NOT_FOUND", "DELETE", "/populations/devs")


async def test_a_flag_set_is_exported_imported_and_synced(admin: Admin) -> None:
    document = (await admin.ok("GET", "/flag-set"))["document"]
    document["flags"]["new"] = FLAG
    imported = await admin.ok("POST", "/flag-set/import", {"document": document, "dry_run": True})
    assert (imported["added"], imported["change"]) == (["new"], None)
    assert (await admin.ok("POST", "/flag-set/import", {"document": document}))["change"]["changed"]
    await admin.ok("POST", "/flags/new/kill", {"reason": "error rate"})
    synced = await admin.ok("POST", "/flag-set/sync", {"document": document, "apply": True})
    assert not synced["change"]["changed"], "what a person took away stays away"


async def test_a_change_is_proven_and_relays_are_listed_and_forgotten(admin: Admin) -> None:
    change = await admin.ok("POST", "/flags/flag/kill", {"reason": "error rate"})
    proof = await admin.ok("GET", f"/proof?revision={change['revision']}&epoch={change['epoch']}&wait=5")
    assert proof["complete"]
    [report] = (await admin.ok("GET", "/relays"))["reports"]
    assert report["revision"] == change["revision"]
    store = admin.relay.world.store
    other = Report(**{**report, "relay": "another", "kills": {"other": "conflict"}, "seen": 0})
    await write_report(store, ENVIRONMENT, other)
    about = f"revision={change['revision']}&epoch={change['epoch']}"
    for more, complete in (("", False), ("&flag=other", False), ("&flag=flag", True)):
        assert (await admin.ok("GET", f"/proof?{about}{more}"))["complete"] is complete
    assert await admin.ok("DELETE", f"/relays/{quote(report['relay'], safe='')}")
    await admin.refused(404, "RELAY_NOT_FOUND", "DELETE", "/relays/nosuch")


async def test_the_contexts_of_open_streams_are_counted_over(admin: Admin) -> None:
    await planned(admin)
    body = json.dumps({"context": {"targetingKey": "u1", "team": "dev"}}).encode()
    client = await admin.relay.secret("client")
    asked = request("/v1/evaluations/stream", client, method="POST", content_length=str(len(body)))
    async with connection(admin.relay.port) as opened:
        opened.send(asked + body)
        assert (await opened.head()).status == 200
        acted = await admin.ok("POST", "/releases/checkout/start", {"reason": "go", "preview": True})
        counted = acted["effect"]["counted"]
        assert (counted["over"], counted["contexts"], counted["gain"]) == ("streams", 1, 1)
        members = await admin.ok("POST", "/populations/devs/members")
        assert (members["contexts"], members["members"]) == (1, 1)
        assert "u1" not in json.dumps([acted, members])


ODD = (
    "a/b",
    "a/kill",
    "a/kill/kill",
    "kill",
    "/",
    "//",
    "a/",
    "/a",
    "ä ö",
    "%2F",
    "a%b",
    "a?b#c",
    "..a",
    "a;b=c",
    "🏁",
)


@pytest.mark.parametrize("key", ODD)
async def test_a_key_may_be_anything_that_a_flag_may_be_called(key: str, admin: Admin) -> None:
    path = f"/flags/{quote(key, safe='')}"
    made = await admin.ok("PUT", path, {"definition": FLAG}, if_none_match="*")
    assert (await admin.ok("GET", path))["key"] == key
    await admin.ok("POST", f"{path}/kill", {"reason": "error rate"})
    assert (await admin.ok("GET", path))["killed"]
    await admin.ok("POST", f"{path}/revive", {"reason": "fixed"})
    name = f"/populations/{quote(key, safe='')}"
    await admin.ok("PUT", name, DEVS)
    assert (await admin.ok("POST", f"{name}/members", {"sample": [{"team": "dev"}]}))["name"] == key
    await admin.ok("DELETE", name)
    assert (await admin.ok("DELETE", path))["revision"] == made["revision"] + 5
    assert {each["key"] for each in await admin.ok("GET", "/flags")} == {"flag", "old"}


async def test_it_describes_itself_to_anybody(admin: Admin) -> None:
    answer = await admin.asked(bytes_of("GET", "/openapi.json", ""))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == document_json(), "as `flagrelay openapi` prints it"


async def test_a_population_of_100_000_keys_passes(admin: Admin) -> None:
    keys = [f"user-{number:06}-{'x' * 20}" for number in range(100_000)]
    await admin.ok("PUT", "/populations/pilots", {"keys": keys})
    assert (await admin.ok("GET", "/populations/pilots"))["keys"] == 100_000


# -- concurrency ------------------------------------------------------------------------------------------------------


async def test_of_two_who_edit_what_they_have_both_read_one_is_refused(admin: Admin) -> None:
    etag = (await admin.ask("GET", "/flags/flag")).headers["etag"]
    first, second = await asyncio.gather(
        *(
            admin.ask("PUT", "/flags/flag", {"definition": {**FLAG, "metadata": {"by": by}}}, if_match=etag)
            for by in ("ada", "grace")
        )
    )
    assert sorted((first.status, second.status)) == [200, 412]
    done, refused = sorted((first, second), key=lambda answer: answer.status)
    assert refused.json["errorCode"] == "PRECONDITION_FAILED"
    assert "read it again and repeat the edit" in refused.json["errorDetails"]
    assert done.headers["etag"].startswith(f'"{done.json["revision"]}-')
    await admin.ok("PUT", "/flags/flag", {"definition": FLAG}, if_match=done.headers["etag"])


async def test_what_must_not_be_there_yet_is_made_once(admin: Admin) -> None:
    await admin.ok("PUT", "/flags/new", {"definition": FLAG}, if_none_match="*")
    await admin.refused(412, "PRECONDITION_FAILED", "PUT", "/flags/new", {"definition": FLAG}, if_none_match="*")
    await admin.refused(412, "PRECONDITION_FAILED", "PUT", "/flags/no", {"definition": FLAG}, if_match='"3"')


async def test_an_etag_of_another_history_does_not_fit_although_its_revision_does(admin: Admin) -> None:
    store = admin.relay.world.store
    put = ("PUT", "/flags/flag", {"definition": FLAG})
    etag = (await admin.ask("GET", "/flags/flag")).headers["etag"]
    revision = int(etag[1:].partition("-")[0])
    await destroy_environment(store, ENVIRONMENT)
    await create_environment(store, ENVIRONMENT)
    for number in range(revision):
        flag = {**FLAG, "metadata": {"n": number}}
        await write_change(store, ENVIRONMENT, Draft(flags={"flag": flag}))
    for method, path, *body in (put, ("DELETE", "/flags/flag")):
        why = await admin.refused(412, "PRECONDITION_FAILED", method, path, *body, if_match=etag)
        assert "another history" in why
    assert (await admin.ask("GET", "/flags/flag", if_none_match=etag)).status == 200
    await admin.ok(*put, if_match=f'"{revision}"')


async def test_every_step_of_a_release_gives_the_etag_for_the_next(admin: Admin) -> None:
    await planned(admin)
    etag = (await admin.ask("GET", "/releases/checkout")).headers["etag"]
    for action in ("start", "advance", "unrelease"):
        answer = await admin.ask("POST", f"/releases/checkout/{action}", {"reason": "go"}, if_match=etag)
        assert answer.status == 200
        await admin.refused(
            412, "PRECONDITION_FAILED", "POST", f"/releases/checkout/{action}", {"reason": "go"}, if_match=etag
        )
        etag = answer.headers["etag"]
    preview = await admin.ask("POST", "/releases/checkout/abandon", {"preview": True}, if_match=etag)
    assert (preview.status, preview.headers["etag"]) == (200, etag)


async def test_a_write_without_precondition_that_meets_another_is_a_conflict(
    admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Session.write

    async def after_another(self: Session, body: Any) -> Any:
        monkeypatch.setattr(Session, "write", original)
        await world.tick(7)
        return await original(self, body)

    monkeypatch.setattr(Session, "write", after_another)
    await admin.refused(409, "CONFLICT", "PUT", "/flags/flag", {"definition": FLAG})


async def test_who_has_what_is_read_is_told_so(admin: Admin) -> None:
    await planned(admin)
    for path in ("/flags/checkout", "/releases/checkout", "/populations/beta"):
        first = await admin.ask("GET", path)
        etag = first.headers["etag"]
        assert etag.startswith(f'"{first.json["revision"]}-')
        for known in (etag, f'"x", W/{etag}', "*"):
            again = await admin.ask("GET", path, if_none_match=known)
            assert (again.status, again.headers["etag"]) == (304, etag)
        assert (await admin.ask("GET", path, if_none_match='"1"')).status == 200
        head = await admin.ask("HEAD", path)
        assert (head.status, head.headers["etag"]) == (200, etag)
    assert "etag" not in (await admin.ask("GET", "/flags")).headers


async def test_what_is_read_is_new_where_it_says_something_new_of_others(admin: Admin) -> None:
    await planned(admin)
    known = {
        path: (await admin.ask("GET", path)).headers["etag"] for path in ("/releases/checkout", "/populations/beta")
    }
    await admin.ok("POST", "/flags/checkout/kill", {"reason": "error rate"})
    await admin.ok("PUT", "/flags/more", {"definition": {**FLAG, "targeting": {"if": [{"$ref": "beta"}, "on"]}}})
    for path, etag in known.items():
        answer = await admin.ask("GET", path, if_none_match=etag)
        assert answer.status == 200
        assert answer.headers["etag"].partition("-")[0] == etag.partition("-")[0], "the revision is what it was"


# -- what is refused --------------------------------------------------------------------------------------------------

SAME: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("flags.get", {"key": "no"}, 404),
    ("flags.put", {"key": "x", "definition": {**FLAG, "defaultVariant": "no"}}, 400),
    ("flags.put", {"key": "x", "definition": {**FLAG, "targeting": {"if": [{"$ref": "no"}, "on"]}}}, 400),
    ("flags.put", {"key": "flag", "definition": FLAG, "if_revision": 77}, 412),
    ("flags.delete", {"key": "no"}, 404),
    ("flags.kill", {"key": "no", "reason": "x"}, 404),
    ("flags.kill", {"key": "flag", "to": "no", "reason": "x"}, 404),
    ("flags.revive", {"key": "flag"}, 409),
    ("flagset.import", {"document": {}}, 400),
    ("releases.get", {"key": "flag"}, 404),
    ("releases.plan", {"key": "flag", "plan": {}}, 400),
    ("releases.plan", {"key": "other", "plan": {**PLAN, "stages": [{"percent": 1}]}}, 409),
    ("releases.plan", {"key": "checkout", "plan": PLAN}, 404),
    ("releases.start", {"key": "flag", "reason": "x"}, 404),
    ("releases.unrelease", {"key": "flag", "from": ["no"], "reason": "x"}, 404),
    ("releases.finish", {"key": "flag"}, 404),
    ("populations.get", {"name": "no"}, 404),
    ("populations.put", {"name": "new"}, 400),
    ("populations.put", {"name": "new", "rule": {"$ref": "beta"}}, 400),
    ("populations.put", {"name": "beta", "risk": 1, "if_revision": 77}, 412),
    ("populations.members", {"name": "no"}, 404),
    ("history.list", {"since": "yesterday"}, 400),
)


@pytest.mark.parametrize(("name", "members", "status"), SAME, ids=lambda value: value if isinstance(value, str) else "")
async def test_what_fails_fails_with_the_same_sentence_as_elsewhere(
    name: str, members: dict[str, Any], status: int, admin: Admin, world: World
) -> None:
    operation = OPERATIONS[name]
    with pytest.raises(FlagrelayError) as here:
        await operation.run(Session(world.store, ENVIRONMENT, "ada"), request_of(operation, members))
    rest = dict(members)
    path = operation.path.format(**{each: rest.pop(each) for each in operation.path_members})
    revision = rest.pop("if_revision", None)
    query = "" if operation.has_body or not rest else "?" + "&".join(f"{n}={v}" for n, v in rest.items())
    headers = {} if revision is None else {"if_match": f'"{revision}"'}
    body = rest if operation.has_body else NOTHING
    answer = await admin.ask(operation.method, path + query, body, **headers)
    assert (answer.status, answer.json["errorDetails"]) == (status, str(here.value))


@pytest.mark.parametrize(
    ("method", "path", "body", "why"),
    [
        ("PUT", "/flags/x", b"{", "the body: not JSON"),
        ("PUT", "/flags/x", b'{"definition": {}, "definition": {}}', '"definition" stands twice'),
        ("PUT", "/flags/x", b'{"definition": NaN}', "NaN is no JSON number"),
        ("PUT", "/flags/x", b"\xff", "not UTF-8"),
        ("PUT", "/flags/x", b"[" * 300, "nests deeper"),
        ("PUT", "/flags/x", b'{"definition": {}, "reason": "\\ud800"}', "the body: not JSON"),
        ("PUT", "/flags/x", [], "should be a JSON object"),
        ("PUT", "/flags/x", None, "should be a JSON object"),
        ("PUT", "/flags/x", b"", "flags.put: Object missing required field `definition`"),
        ("PUT", "/flags/x", {"definition": []}, "Expected `object`, got `array` - at `$.definition`"),
        ("PUT", "/flags/x", {"definition": FLAG, "force": 1}, "Expected `bool`, got `int` - at `$.force`"),
        ("PUT", "/flags/x", {"definition": FLAG, "nix": 1}, "unknown field `nix`"),
        ("PUT", "/flags/x", {"definition": FLAG, "key": "y"}, "unknown field `key`"),
        ("PUT", "/flags/x", {"definition": FLAG, "if_revision": 3}, "unknown field `if_revision`"),
        ("PUT", "/flags/x?force=true", {"definition": FLAG}, "unknown field `force`"),
        ("PUT", "/flags/", {"definition": FLAG}, "Expected `str` of length >= 1 - at `$.key`"),
        ("PUT", f"/flags/{'x' * (MAX_KEY_LENGTH + 1)}", {"definition": FLAG}, "of length <= 256 - at `$.key`"),
        ("POST", "/flags/flag/kill", {"reason": " "}, "flags.kill: reason: it is empty: say why"),
        ("GET", "/history?limit=0", NOTHING, "Expected `int` >= 1 - at `$.limit`"),
        ("GET", "/history?limit=x", NOTHING, "Expected `int`, got `str` - at `$.limit`"),
        ("GET", "/history?nix=1", NOTHING, "unknown field `nix`"),
        ("GET", "/history?flag=a&flag=b", NOTHING, "`flag` stands in the query twice"),
        ("GET", "/flags/flag?key=old", NOTHING, "unknown field `key`"),
        ("GET", "/proof?revision=1", NOTHING, "missing required field `epoch`"),
        ("GET", "/proof?revision=1&epoch=e&wait=nan", NOTHING, "at `$.wait`"),
        ("GET", "/flags", {}, "takes no body"),
        ("DELETE", "/flags/flag", {"reason": "x"}, "takes no body"),
        ("DELETE", "/flags/flag?force=maybe", NOTHING, "Expected `bool`, got `str` - at `$.force`"),
    ],
)
async def test_a_request_that_is_none_is_refused_and_changes_nothing(
    method: str, path: str, body: Any, why: str, admin: Admin, world: World
) -> None:
    before = await read_position(world.store, ENVIRONMENT)
    assert why in await admin.refused(400, "INVALID_REQUEST", method, path, body)
    assert await read_position(world.store, ENVIRONMENT) == before


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        *(("PUT", "/flags/flag", {"if_match": value}) for value in ("3", "*", 'W/"3"', '"3", "4"', '"x"', '"0"', "")),
        ("PUT", "/flags/flag", {"if_match": f'"{"9" * 30}"'}),
        ("PUT", "/flags/flag", {"if_none_match": '"3"'}),
        ("PUT", "/flags/flag", {"if_none_match": "*", "if_match": '"3"'}),
        ("DELETE", "/flags/flag", {"if_none_match": "*"}),
        ("POST", "/flags/flag/kill", {"if_match": '"3"'}),
        ("GET", "/flags/flag", {"if_match": '"3"'}),
        ("PUT", "/flags/flag", {"if_match": '"3"', "If-Match": '"3"'}),
        ("PUT", "/flags/flag", {"idempotency_key": "a", "Idempotency-Key": "b"}),
        ("PUT", "/flags/flag", {"idempotency_key": "ä"}),
        ("PUT", "/flags/flag", {"idempotency_key": "x" * 256}),
        ("PUT", "/flags/flag", {"idempotency_key": ""}),
    ],
)
async def test_a_header_that_cannot_be_understood_is_refused(
    method: str, path: str, headers: dict[str, str], admin: Admin, world: World
) -> None:
    before = await read_position(world.store, ENVIRONMENT)
    body = {"PUT": {"definition": FLAG}, "POST": {"reason": "x"}}.get(method, NOTHING)
    await admin.refused(400, "INVALID_REQUEST", method, path, body, **headers)
    assert await read_position(world.store, ENVIRONMENT) == before


async def test_a_body_of_another_kind_is_415(admin: Admin) -> None:
    body = {"reason": "error rate"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        await admin.refused(415, "UNSUPPORTED_MEDIA_TYPE", "POST", "/flags/flag/kill", body, content_type=kind)
    await admin.ok("POST", "/flags/flag/kill", body, content_type="Application/JSON; charset=utf-8")


async def test_a_body_that_is_too_large_is_413(world: World) -> None:
    async with administered(world, max_admin_body_bytes=2048) as admin:
        large = {"definition": FLAG, "reason": "x" * 2048}
        assert "the most is 2048" in await admin.refused(413, "TOO_LARGE", "PUT", "/flags/flag", large)


async def test_what_is_not_there_is_404_and_another_method_405_with_those_there_are(admin: Admin) -> None:
    for path in ("", "/", "/nothing", "/releases-history/x"):
        await admin.refused(404, "NOT_FOUND", "GET", path)
    for method, path, allowed in (
        ("PATCH", "/flags/flag", "DELETE, GET, HEAD, PUT"),
        ("POST", "/flags/flag", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/flags/flag/kill", "POST"),
        ("POST", "/flags", "GET, HEAD"),
    ):
        answer = await admin.ask(method, path)
        assert (answer.status, answer.json["errorCode"]) == (405, "METHOD_NOT_ALLOWED")
        assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed


async def test_without_redis_it_is_503_with_when_to_try_again(world: World, tmp_path: Path) -> None:
    async with wired_relay("handover", world, tmp_path, admin_api=True) as (relay, wire):
        admin = Admin(relay, await relay.secret("admin"))
        wire.refusing = True
        wire.cut()
        for method, path, body in (("GET", "/flags", NOTHING), ("POST", "/flags/flag/kill", {"reason": "x"})):
            for headers in ({}, {"idempotency_key": "k"}):
                answer = await admin.ask(method, path, body, **headers)
                assert (answer.status, answer.json["errorCode"]) == (503, "STORE_UNAVAILABLE")
                assert answer.headers["retry-after"] == "1"
        wire.refusing = False
        await admin.ok("POST", "/flags/flag/kill", {"reason": "x"}, idempotency_key="k")


# -- what is told of it -----------------------------------------------------------------------------------------------


async def test_each_write_is_one_line_of_the_log_without_anything_of_what_was_sent(
    admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    with structlog.testing.capture_logs() as logs:
        await admin.ok("GET", "/flags/flag")
        sample = [{"targetingKey": "context-of-a-person"}]
        await admin.ok("POST", "/populations/beta/members", {"sample": sample})
        change = await admin.ok("POST", "/flags/flag/kill", {"reason": "reason-in-body"}, idempotency_key="key-of-ours")
        await admin.refused(404, "FLAG_NOT_FOUND", "POST", "/flags/no/kill", {"reason": "reason-in-body"})
        await admin.refused(400, "INVALID_REQUEST", "PUT", "/flags/no", {"definition": "definition-in-body"})
    lines = [line for line in logs if line["event"] == "control"]
    assert [(line["operation"], line["status"]) for line in lines] == [
        ("flags.kill", 200),
        ("flags.kill", 404),
        ("flags.put", 400),
    ]
    assert {(line["actor"], line["environment"]) for line in lines} == {("a test's", ENVIRONMENT)}
    assert [line.get("revision") for line in lines] == [change["revision"], None, None]
    written = repr(logs) + "".join(capsys.readouterr())
    for secret in (admin.secret, "context-of-a-person", "in-body", "key-of-ours"):
        assert secret not in written
