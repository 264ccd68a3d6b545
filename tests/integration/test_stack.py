"""The local stack: it comes up, goes down, mends itself, and nobody has more rights than needed."""

from __future__ import annotations

import json
import os
import signal
import stat
import uuid
from pathlib import Path
from typing import Any

import amqp
import httpx
import psutil
import pytest
from kombu.connection import Connection
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from deploy.local.processes import StackError, of_folder
from deploy.local.stack import Stack
from services.bus import topology
from services.bus.topology import EVENTS
from tests.end_to_end.county import GRID, QUICK, County, eventually


def test_the_description_is_as_the_design_says_and_private(county: County) -> None:
    about = county.about
    assert set(about) == {
        "profiles", "intake", "desks", "escalation", "notify", "amqp", "mongodb", "tokens", "clock",
        "broker",
    }  # fmt: skip
    assert about["profiles"] == ["quick"]
    assert list(about["desks"]) == ["household", "group", "village", "township"]
    levels = {f"officer:{level}" for level in about["desks"]}
    roles = {"operator", "auditor", "reporter", "lead", "officer"}
    assert set(about["tokens"]) >= {*roles, *levels}
    assert set(about["clock"]) == {"real", "virtual", "scale"}
    for name in ("stack.json", "secrets.json", "supervisord.conf"):
        mode = stat.S_IMODE((county.stack.folder / name).stat().st_mode)
        assert mode == 0o600, name


def test_everything_listens_on_loopback_only(county: County) -> None:
    listening = [
        connection.laddr.ip
        for process in of_folder(county.stack.folder)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 10
    assert set(listening) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("program", ["intake", "dispatch-village", "escalation", "notify"])
def test_a_service_that_is_told_to_stop_ends_well(county: County, program: str) -> None:
    log = county.stack.folder / "logs" / f"{program}.log"
    before = log.stat().st_size
    county.stack.stop(program)
    county.stack.start(program)
    said = [json.loads(line) for line in log.read_bytes()[before:].splitlines() if line[:1] == b"{"]
    assert "stopped" in [line["event"] for line in said]
    assert [line for line in said if line["level"] == "error"] == []


def test_up_twice_is_up_once(county: County) -> None:
    said: list[str] = []
    again = Stack(county.stack.folder, {}, said.append)
    assert again.up() == county.about
    assert said == [f"already running: {county.stack.description}"]


def test_a_service_that_is_killed_is_back_on_its_port(county: County) -> None:
    before = county.stack.pid("dispatch-village")
    county.kill("dispatch-village")
    url = county.about["desks"]["village"]

    def back() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    eventually("the desk is back", back)
    assert county.stack.pid("dispatch-village") != before


def test_a_broker_user_can_do_what_its_service_does_and_nothing_else(county: County) -> None:
    passwords = json.loads((county.stack.folder / "secrets.json").read_text())
    host = county.about["amqp"].rpartition("@")[2]

    def refused(user: str, act: Any) -> bool:
        with Connection(f"amqp://{user}:{passwords[user]}@{host}") as connection:
            try:
                channel: Any = connection.default_channel
                channel.confirm_select()
                act(channel)
            except amqp.exceptions.AccessRefused:
                return True
        return False

    def publish(key: str, exchange: str = EVENTS) -> Any:
        message = amqp.Message(b"{}")
        return lambda channel: channel.basic_publish_confirm(message, exchange, key)

    desk = "dispatch-household"
    assert refused(desk, publish("case.escalated.group.46.90.02"))
    assert refused(desk, publish("case.assigned.township.46.90.02"))
    assert refused(desk, publish("directory.officer.household.46"))
    assert refused(desk, publish("anything", "huashi.inbound"))
    assert refused(desk, publish("intake.events", ""))
    assert refused(desk, lambda channel: channel.basic_get("intake.events"))
    assert refused(desk, lambda channel: channel.basic_get("dispatch.group.events"))
    assert refused(desk, lambda channel: channel.queue_declare("mine"))
    assert refused(desk, lambda channel: channel.queue_delete("dispatch.household.events"))
    assert refused(desk, lambda channel: channel.queue_bind("dispatch.household.events", EVENTS))
    assert refused("intake", publish("case.resolved.village.46"))
    assert refused("notify", publish("case.reported.village.46"))
    assert not refused("escalation", publish("custodian.marker"))


def test_a_database_user_reaches_its_own_collections_only(county: County) -> None:
    passwords = json.loads((county.stack.folder / "secrets.json").read_text())
    host = county.about["mongodb"].rpartition("@")[2].partition("/")[0]

    def database(user: str) -> Any:
        uri = f"mongodb://{user}:{passwords[user]}@{host}/huashi?replicaSet=huashi"
        return MongoClient(uri)["huashi"]

    custodian = database("escalation")
    assert custodian["custody"].count_documents({}) >= 0
    for name in ("register", "reporters", "docket_household", "contacts"):
        with pytest.raises(OperationFailure, match="not authorized"):
            custodian[name].find_one()
    with pytest.raises(OperationFailure, match="not authorized"):
        custodian["custody"].delete_one({"_id": "nobody"})
    with pytest.raises(OperationFailure, match="not authorized"):
        custodian["custody"].drop()
    with pytest.raises(OperationFailure, match="not authorized"):
        database("dispatch-household")["docket_group"].find_one()


def test_a_database_user_may_add_to_its_audit_trail_and_change_nothing(county: County) -> None:
    passwords = json.loads((county.stack.folder / "secrets.json").read_text())
    host = county.about["mongodb"].rpartition("@")[2].partition("/")[0]
    for owner in topology.instances(county.about["desks"]):
        uri = f"mongodb://{owner.name}:{passwords[owner.name]}@{host}/huashi?replicaSet=huashi"
        with MongoClient[dict[str, Any]](uri) as client:
            database = client["huashi"]
            trail = database[owner.audit]
            entry = {"_id": str(uuid.uuid4()), "at": "", "status": 200, "cases": []}
            trail.insert_one(dict(entry))
            assert trail.find_one({"_id": entry["_id"]}) == entry
            command = database.command
            for change in (
                lambda it=trail, e=entry: it.update_one(e, {"$set": {"status": 403}}),
                lambda it=trail, e=entry: it.replace_one(e, {"status": 403}, upsert=True),
                lambda it=trail, e=entry: it.find_one_and_update(e, {"$unset": {"status": 1}}),
                lambda it=trail, e=entry: it.delete_one(e),
                lambda it=trail, e=entry: it.find_one_and_delete(e),
                lambda it=trail: it.delete_many({}),
                lambda it=trail: it.drop(),
                lambda it=trail: it.rename("elsewhere"),
                # An entry that expires is an entry removed.
                lambda it=trail: it.create_index("at", expireAfterSeconds=1),
                lambda it=trail: it.drop_index("at_-1__id_-1"),
                lambda it=trail: it.aggregate([{"$match": {}}, {"$out": it.name}]),
                lambda run=command, name=owner.audit: run("collMod", name, validationLevel="off"),
                lambda run=command, name=owner.audit: run("convertToCapped", name, size=4096),
            ):
                with pytest.raises(OperationFailure, match="not authorized"):
                    change()
            assert trail.find_one({"_id": entry["_id"]}) == entry


def test_the_audit_trails_are_indexed_for_what_is_asked(county: County) -> None:
    with MongoClient[dict[str, Any]](county.about["mongodb"]) as client:
        for owner in topology.instances(county.about["desks"]):
            trail = client["huashi"][owner.audit]
            for where in ({}, {"who": "x"}, {"cases": "x"}):
                plan = trail.find(where).sort([("at", -1), ("_id", -1)]).limit(10).explain()
                assert "'stage': 'SORT'" not in str(plan["queryPlanner"]["winningPlan"]), where


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TIME_SCALE": "fast"}, "TIME_SCALE is 'fast'"),
        ({"TIME_ANCHOR": "now"}, "TIME_ANCHOR is 'now'"),
        ({"REPLICAS_ESCALATION": "many"}, "REPLICAS_ESCALATION is 'many'"),
        ({"PROFILES": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        Stack(tmp_path, {"PROFILES": QUICK, **environment}).up()
    assert of_folder(tmp_path) == []


def test_what_a_crash_left_is_ended_and_the_data_kept_if_wanted(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"PROFILES": QUICK})
    try:
        stack.up()
        case = County(stack).report(GRID)
        left = of_folder(tmp_path)
        supervisor = int((tmp_path / "supervisord.pid").read_text())
        os.kill(supervisor, signal.SIGKILL)
        eventually("the supervisor is gone", lambda: not psutil.pid_exists(supervisor))
        assert not stack.is_running()
        said: list[str] = []
        again = Stack(tmp_path, {"PROFILES": QUICK, "KEEP": "1"}, said.append)
        again.up()
        assert said[0] == f"ending {len(left) - 1} processes that an earlier crash left"
        assert County(again).case(case)["id"] == case
    finally:
        stack.down()
    assert of_folder(tmp_path) == []
    assert not stack.description.exists()
