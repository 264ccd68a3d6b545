"""What is broken on purpose is found and mended within one pass, and found no more by the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from pymongo import MongoClient

from deploy.local.stack import Stack
from tests.end_to_end.county import QUICK, County, eventually

# Slow enough that nothing comes due meanwhile, and no pass begins by itself.
SLOW = {"PROFILES": QUICK, "TIME_SCALE": "1", "RECONCILE_SECONDS": "86400"}


@pytest.fixture(scope="module")
def still(make_stack: Callable[..., Stack]) -> County:
    """A county in which hardly any time passes, with two custodians."""
    return County(make_stack(**SLOW, REPLICAS_ESCALATION="2"))


@pytest.fixture
def database(still: County) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](still.about["mongodb"]) as client:
        yield client["huashi"]


def reconciled(county: County) -> dict[str, Any]:
    """What a pass found that began after now."""
    url = f"{county.about['escalation']}/v1/reconciliation"
    answer = county.ask("POST", url)
    assert answer.status_code == 202, answer.text
    number = answer.json()["asked"]

    def done() -> dict[str, Any] | None:
        shown: dict[str, Any] = county.ask("GET", url).json()
        return shown["last"] if shown["answered"] >= number else None

    return eventually("a pass of the reconciler", done) or {}


def held(county: County) -> str:
    """A case that its household holds, as everybody knows."""
    case = county.report()
    token = county.arrived("household", case)["token"]
    known(county, case, token)
    return case


def known(county: County, case: str, token: dict[str, Any]) -> None:
    """Register and custodian have heard of what the desk did last."""
    eventually("the register", lambda: county.case(case)["token"] == token)
    eventually(
        "the custodian",
        lambda: (told := county.custody(case)) and told["custody"]["token"] == token,
    )


def found(result: dict[str, Any], case: str) -> list[str]:
    """The kinds of what was found about a case; all of it was mended."""
    about = [item for item in result["findings"] if item["case"] == case]
    assert all(item["repaired"] for item in about), about
    return [item["kind"] for item in about]


def mended(county: County, *cases: str) -> None:
    """All agree again, and another pass finds nothing."""
    for case in cases:
        county.settled_everywhere(case)
    again = reconciled(county)
    assert again["found"] == {}, again
    assert again["outcome"] == "complete", again


def test_nothing_is_found_where_nothing_is_wrong(still: County) -> None:
    cases = [held(still) for _ in range(3)]
    assert still.act("household", cases[0], "acknowledge").status_code == 200
    assert still.act("household", cases[1], "resolve", outcome="settled").status_code == 200
    result = reconciled(still)
    assert (result["outcome"], result["found"], result["not_asked"]) == ("complete", {}, {})
    assert result["compared"]["custody"] >= 2
    assert set(result["compared"]) >= {"household", "group", "village", "township"}


def test_one_pass_finds_and_mends_all_that_was_broken(still: County, database: Any) -> None:
    unarmed, late, lost, older, unheard, missing, ended, forgot, undone = (
        held(still) for _ in range(9)
    )
    custody, register = database["custody"], database["register"]
    docket = database["docket_household"]
    before = still.custody(unarmed)["next_due"]
    custody.update_one({"_id": unarmed}, {"$set": {"document.next_due": None}})
    far = "2999-01-01T00:00:00.000Z"
    custody.update_one({"_id": late}, {"$set": {"document.next_due": far}})
    custody.delete_one({"_id": lost})
    old = {case: docket.find_one({"_id": f"{case}:1.0"}) for case in (forgot, undone)}
    kept = custody.find_one({"_id": older})
    for case in (older, forgot):
        assert still.act("household", case, "acknowledge").status_code == 200
    assert still.act("household", undone, "resolve", outcome="settled").status_code == 200
    for case in (older, forgot, undone):
        entry = still.entry("household", case)
        assert entry is not None
        known(still, case, entry["token"])
    custody.replace_one({"_id": older}, kept)
    for was in old.values():
        docket.replace_one({"_id": was["_id"]}, was)
    register.delete_one({"_id": unheard})
    docket.delete_one({"_id": f"{missing}:1.0"})
    broken = {"document.status": "ended", "document.ended": "custody"}
    docket.update_one({"_id": f"{ended}:1.0"}, {"$set": broken})
    result = reconciled(still)
    assert found(result, unarmed) == ["unarmed"]
    assert found(result, late) == ["unarmed"]
    assert found(result, lost) == ["custody_missing"]
    assert found(result, older) == ["custody_behind"]
    assert found(result, unheard) == ["register_behind"]
    assert found(result, missing) == ["entry_missing"]
    assert found(result, ended) == ["entry_ended"]
    assert found(result, forgot) == ["entry_behind"]
    assert found(result, undone) == ["entry_behind"]
    assert result["found"] == result["repaired"]
    assert sum(result["found"].values()) == 9
    assert still.custody(unarmed)["next_due"] == before
    assert still.custody(lost)["next_due"]
    assert still.custody(late)["next_due"] < far
    eventually("the entry is back", lambda: still.entry("household", missing))
    assert still.case(unheard)["id"] == unheard
    assert still.entry("household", forgot)["acknowledged"]
    mended(still, unarmed, late, lost, older, unheard, missing, ended, forgot, undone)
    # Each mending is on the case's timeline, and the desk can go on.
    told = still.timeline(missing, "case.reconciled")
    assert [event["data"]["found"] for event in told] == ["entry_missing"]
    assert still.act("household", ended, "resolve", outcome="settled").status_code == 200


def test_followers_that_were_forgotten_follow_again(still: County, database: Any) -> None:
    pairs = [(held(still), held(still)) for _ in range(2)]
    for older, younger in pairs:
        body = {"with": younger, "reason": "同一盏路灯"}
        answer = still.act("household", older, "merge", **body)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["kept"]["case"], answer.json()["heard"]) == (older, True)
        eventually("it is told", lambda older=older: still.case(older)["followers"])
        still.settled_everywhere(younger)
    # As if the custody of the one, or of the other, were of before the merge.
    (lead, follower), (_, forgetful) = pairs
    custody = database["custody"]
    custody.update_one({"_id": lead}, {"$unset": {"document.followers": ""}})
    custody.update_one({"_id": forgetful}, {"$unset": {"document.following": ""}})
    result = reconciled(still)
    for case in (follower, forgetful):
        assert found(result, case) == ["follower_forgotten"]
        (told,) = eventually("it is told", lambda c=case: still.timeline(c, "case.reconciled"))
        assert told["data"]["found"] == "follower_forgotten"
    assert result["found"] == {"follower_forgotten": 2}
    mended(still, lead, follower, forgetful)
    for older, younger in pairs:
        assert still.act("household", older, "resolve", outcome="settled").status_code == 200
        eventually(
            "it is resolved as well",
            lambda younger=younger: still.case(younger)["status"] == "resolved",
        )
        assert still.case(younger)["resolution"]["followed"] == older


def test_a_unit_whose_desk_forgot_that_it_is_called_is_called_again(
    still: County, database: Any
) -> None:
    case = still.report("469002104214")
    still.arrived("village", case)
    units = {"units": [{"unit": "team"}], "reason": "联合处置"}
    assert still.act("village", case, "whistle", **units).status_code == 200
    docket, about = (
        database["docket_village"],
        {"document.case": case, "document.call": {"$ne": None}},
    )
    key = eventually("the call", lambda: docket.find_one(about))["_id"]
    url = f"{still.about['desks']['village']}/v1/desks/village/calls/{key.removeprefix('call:')}"
    seen = {"If-Match": still.ask("GET", url).headers["ETag"]}
    came = still.ask("POST", f"{url}/check-in", json={"note": "已到"}, headers=seen)
    assert came.status_code == 200, came.text
    stale = still.ask("POST", f"{url}/finish", json={}, headers=seen)
    assert (stale.status_code, stale.json()["now"]["status"]) == (412, "checked_in")
    assert came.headers["ETag"] == still.ask("GET", url).headers["ETag"]

    def heard() -> bool:
        known = database["custody"].find_one({"_id": case})["document"]["calls"]
        return all(item["checked_in"] for item in known.values())

    eventually("the custodian has heard", heard)
    docket.delete_one({"_id": key})
    assert still.ask("GET", url).status_code == 404
    assert found(reconciled(still), case) == ["call_missing"]
    again = eventually(
        "it is there again",
        lambda: (answer := still.ask("GET", url)).status_code == 200 and answer.json(),
    )
    assert again["checked_in"] == came.json()["checked_in"]
    assert again["status"] == "checked_in"
    mended(still, case)


def test_an_entry_that_is_live_again_after_its_release_ends(county: County) -> None:
    case = county.report()
    eventually("supervision", lambda: county.case(case)["supervised"])
    county.settled_everywhere(case)
    alive = {"document.status": "live", "document.ended": None, "document.held": None}
    with MongoClient[dict[str, Any]](county.about["mongodb"]) as client:
        entries = client["huashi"]["docket_household"]
        entries.update_one({"_id": f"{case}:1.0"}, {"$set": alive})
    assert found(reconciled(county), case) == ["entry_stale"]
    county.settled_everywhere(case)
    assert found(reconciled(county), case) == []


def test_who_may_ask_and_who_may_see(still: County) -> None:
    url = f"{still.about['escalation']}/v1/reconciliation"
    for method in ("GET", "POST"):
        assert still.ask(method, url, "officer").status_code == 403
        assert httpx.request(method, url).status_code == 401


def test_a_dead_desk_is_left_out_and_stops_nothing(still: County, database: Any) -> None:
    broken = held(still)
    database["custody"].update_one({"_id": broken}, {"$set": {"document.next_due": None}})
    still.stack.stop("dispatch-village")
    try:
        result = reconciled(still)
    finally:
        still.stack.start("dispatch-village")
    assert result["outcome"] == "partial"
    assert list(result["not_asked"]) == ["village"]
    assert found(result, broken) == ["unarmed"]
    assert "township" in result["compared"]
    mended(still, broken)


def test_questions_are_answered_again_after_the_broker_was_killed(still: County) -> None:
    held(still)
    pids = {name: still.stack.pid(name) for name in ("escalation", "intake", "dispatch-group")}
    still.kill("rabbitmq")

    def complete() -> bool:
        return bool(reconciled(still)["outcome"] == "complete")

    eventually("a complete pass", complete)
    assert pids == {name: still.stack.pid(name) for name in pids}, "no service had to be restarted"


def test_a_desk_stops_in_time_while_the_broker_is_away(still: County) -> None:
    still.stack.stop("rabbitmq")
    try:
        log = still.stack.folder / "logs" / "supervisord.log"
        before = log.stat().st_size
        still.stack.stop("dispatch-group")
        said = log.read_bytes()[before:].decode()
        assert "stopped: dispatch-group (exit status 0)" in said, "it was ended by force"
    finally:
        still.stack.start("rabbitmq")
        still.stack.start("dispatch-group")
    eventually("a complete pass", lambda: reconciled(still)["outcome"] == "complete")


def test_two_replicas_make_one_pass_at_a_time(still: County) -> None:
    before = _passes(still)
    url = f"{still.about['escalation']}/v1/reconciliation"
    number = [still.ask("POST", url).json()["asked"] for _ in range(5)][-1]
    eventually("they are done", lambda: still.ask("GET", url).json()["answered"] >= number)
    # What was asked for together one pass answers, or two if the first had begun.
    assert 1 <= _passes(still) - before <= 2
    reconciled(still)
    reconciled(still)
    assert 3 <= _passes(still) - before <= 4


def test_its_metrics_say_when_and_what(still: County) -> None:
    reconciled(still)
    text = "".join(httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in _ports(still))
    names = set(re.findall(r"^huashi_reconciliation_\w+", text, re.MULTILINE))
    assert {
        "huashi_reconciliation_findings_total",
        "huashi_reconciliation_repairs_total",
        "huashi_reconciliation_passes_total",
        "huashi_reconciliation_finished_timestamp_seconds",
        "huashi_reconciliation_duration_seconds",
        "huashi_reconciliation_compared",
        "huashi_reconciliation_not_asked",
    } <= names


def _ports(county: County) -> list[int]:
    pids = [county.stack.pid(name) for name in ("escalation", "escalation-2")]
    binds = [psutil.Process(pid).environ()["HTTP_BIND"] for pid in pids]
    return [int(bind.rpartition(":")[2]) for bind in binds]


def _passes(county: County) -> float:
    """How many passes both custodians made."""
    texts = [httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in _ports(county)]
    lines = [
        line
        for text in texts
        for line in text.splitlines()
        if line.startswith("huashi_reconciliation_passes_total{")
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
