"""Another county system at the front door, over HTTP, with its own key."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from services.grid.clock import plus
from services.grid.events.bindings import BATCH, PLAIN, STRUCTURED
from tests.contract import documented
from tests.end_to_end.county import GRID, County, eventually

TOWN = "469002104"
ALL = ["case.report", "case.update", "case.withdraw"]


@dataclass
class System:
    """A system with its key."""

    county: County
    name: str
    key: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def event(self, kind: str = "case.report", **data: Any) -> dict[str, Any]:
        """An event with a new id; of a report with a new reference."""
        if kind == "case.report":
            data = {**report(), **data}
        return {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": self.name,
            "type": f"huashi.{kind}.v1",
            "data": data,
        }

    def post(self, body: Any, media_type: str = STRUCTURED, **headers: str) -> httpx.Response:
        """Sends it; every answer must be as the document says."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        def answered() -> httpx.Response | None:
            answer = httpx.post(
                f"{self.county.about['intake']}/v1/events",
                content=raw,
                headers={
                    "Authorization": f"Bearer {self.key}",
                    "Content-Type": media_type,
                    **headers,
                },
                timeout=30,
            )
            documented.check("intake", answer)
            return None if answer.status_code == 503 else answer

        return eventually("an answer", answered)

    def accepted(self, event: dict[str, Any]) -> dict[str, Any]:
        """What is said of an event that must be accepted."""
        answer = self.post(event)
        assert answer.status_code == 202, answer.text
        ((found,), rejected) = answer.json()["accepted"], answer.json()["rejected"]
        assert rejected == []
        return dict(found)

    def get(self, path: str) -> httpx.Response:
        answer = httpx.get(
            f"{self.county.about['intake']}{path}", headers={"Authorization": f"Bearer {self.key}"}
        )
        documented.check("intake", answer)
        return answer


def report() -> dict[str, Any]:
    return {
        "reference": f"R-{uuid.uuid4().hex[:12]}",
        "division": GRID,
        "title": "文化广场路灯不亮",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
    }


Add = Callable[..., System]


@pytest.fixture(scope="module")
def add(county: County) -> Add:
    """Adds a system and knows its key."""

    def make(name: str, **body: Any) -> System:
        url = f"{county.about['intake']}/v1/systems/{name}"
        answer = county.ask("PUT", url, json={"may": ALL, **body})
        assert answer.status_code == 200, answer.text
        return System(county, name, answer.json()["key"])

    return make


@pytest.fixture(scope="module")
def hotline(add: Add) -> System:
    return add("hotline", divisions=[TOWN])


def errors(answer: httpx.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    return {each["field"]: each["detail"] for each in answer.json()["errors"]}


def test_a_report_becomes_a_case_in_each_of_the_three_modes(hotline: System) -> None:
    first, second = hotline.event(), hotline.event()
    told = hotline.accepted(first)
    assert told["reference"] == first["data"]["reference"]
    assert (told["index"], told["status"]) == (0, "reported")
    case = hotline.county.case(told["case"])
    assert case["external"] == {"system": "hotline", "reference": told["reference"]}
    assert case["title"] == first["data"]["title"]
    hotline.county.arrived("household", told["case"])

    headers = {f"ce-{name}": second[name] for name in ("specversion", "id", "source", "type")}
    answer = hotline.post(second["data"], PLAIN, **headers, **{"ce-subject": "%E8%B7%AF"})
    assert answer.status_code == 202, answer.text
    binary = answer.json()["accepted"][0]["case"]
    # The same event in another mode is the same event.
    assert hotline.accepted(second)["case"] == binary

    events = [hotline.event() for _ in range(5)]
    events[1]["data"]["category"] = "magic"
    events[3]["type"] = "huashi.case.reported.v1"
    answer = hotline.post([*events, {"id": 1}], BATCH)
    assert answer.status_code == 202
    found = answer.json()
    assert [each["index"] for each in found["accepted"]] == [0, 2, 4]
    refused = {each["index"]: each for each in found["rejected"]}
    assert list(refused) == [1, 3, 5]
    assert refused[1]["errors"][0]["field"] == "data.category"
    assert "case.report.v1" in refused[3]["errors"][0]["detail"]
    assert refused[1]["id"] == events[1]["id"]
    for each in found["accepted"]:
        assert hotline.county.case(each["case"])["status"] == "reported"
    answer = hotline.post([], BATCH)
    assert (answer.status_code, answer.json()) == (202, {"accepted": [], "rejected": []})


def test_source_and_id_are_the_idempotency_key(hotline: System) -> None:
    event = hotline.event()
    told = hotline.accepted(event)
    assert hotline.accepted(event) == told
    answer = hotline.post([event, event, event], BATCH).json()
    assert {each["case"] for each in answer["accepted"]} == {told["case"]}
    other = {**event, "data": {**event["data"], "title": "别的事"}}
    assert "use a new id" in errors(hotline.post(other), 409)["event"]
    again = hotline.event(reference=event["data"]["reference"])
    problem = hotline.post(again)
    assert "reported already" in errors(problem, 409)["event"]
    assert problem.json()["case"] == told["case"]
    # Of two with one reference in a batch one is accepted, and a third goes its own way.
    twins = [hotline.event(reference="TWIN"), hotline.event(reference="TWIN"), hotline.event()]
    found = hotline.post(twins, BATCH).json()
    assert len(found["accepted"]) == 2
    assert [each["index"] for each in found["rejected"]] == [1]


def test_a_case_is_updated_and_withdrawn_by_who_reported_it(hotline: System, add: Add) -> None:
    event = hotline.event()
    told = hotline.accepted(event)
    by_reference = {"reference": told["reference"]}
    update = hotline.event("case.update", **by_reference, text="西侧第一盏也不亮")
    for _ in range(2):
        assert hotline.accepted(update)["case"] == told["case"]
    (shown,) = hotline.county.case(told["case"])["updates"]
    assert (shown["text"], shown["by"]) == ("西侧第一盏也不亮", "system.hotline")
    (told_of,) = eventually(
        "the event",
        lambda: (
            hotline.county.timeline(told["case"], "huashi.case.updated.v1")
            or hotline.county.timeline(told["case"], "case.updated")
        ),
    )
    assert told_of["data"]["update"]["text"] == "西侧第一盏也不亮"
    changed = {**update, "data": {**update["data"], "text": "别的"}}
    assert "use a new id" in errors(hotline.post(changed), 409)["event"]
    other = add("other_system")
    for data in (by_reference, {"case": told["case"]}):
        for kind, more in (("case.update", {"text": "x"}), ("case.withdraw", {"reason": "x"})):
            problem = errors(other.post(other.event(kind, **data, **more)), 409)
            assert "you reported no case" in problem["event"]
    withdraw = hotline.event("case.withdraw", case=told["case"], reason="自己修好了")
    for _ in range(2):
        assert hotline.accepted(withdraw)["status"] == "withdrawn"
    late = hotline.event("case.update", **by_reference, text="又坏了")
    assert "withdrawn" in errors(hotline.post(late), 409)["event"]


def test_an_update_may_follow_its_report_in_one_batch(hotline: System) -> None:
    report, bad = hotline.event(), hotline.event(category="magic")
    updates = [
        hotline.event("case.update", reference=each["data"]["reference"], text="又有一盏不亮")
        for each in (report, bad)
    ]
    withdraw = hotline.event(
        "case.withdraw", reference=report["data"]["reference"], reason="自己修好了"
    )
    found = hotline.post([report, bad, *updates, withdraw], BATCH).json()
    assert [each["index"] for each in found["accepted"]] == [0, 2, 4]
    assert [each["index"] for each in found["rejected"]] == [1, 3]
    case = hotline.county.case(found["accepted"][0]["case"])
    assert (case["status"], len(case["updates"])) == ("withdrawn", 1)


def test_what_was_promised_is_a_deadline(hotline: System) -> None:
    soon = plus(hotline.county.clock.now(), 1800)
    told = hotline.accepted(hotline.event(respond_by=soon))
    case = hotline.county.case(told["case"])
    assert case["respond_by"] == soon
    (resolve,) = [item for item in case["deadlines"] if item["kind"] == "resolve"]
    assert (resolve["due"], resolve["rule"]) == (soon, "respond_by")
    past = hotline.event(respond_by=plus(hotline.county.clock.now(), -60))
    assert list(errors(hotline.post(past), 422)) == ["data.respond_by"]


def test_each_refusal_names_the_field_and_the_cure(hotline: System, add: Add) -> None:
    foreign = {**hotline.event(), "source": "other_system"}
    assert "write hotline" in errors(hotline.post(foreign), 403)["source"]
    own = {**hotline.event(), "source": "hotline/east/7"}
    assert hotline.accepted(own)["source"] == "hotline/east/7"
    outside = hotline.event(division="469002105")
    answer = hotline.post(outside)
    assert answer.status_code in (409, 422), answer.text
    missing = hotline.event()
    del missing["data"]["reference"]
    assert list(errors(hotline.post(missing), 422)) == ["data.reference"]
    said = errors(hotline.post({**hotline.event(), "data": []}), 422)
    assert list(said) == ["data"]
    assert hotline.post(b"{", STRUCTURED).status_code == 422
    assert hotline.post(b"{", BATCH).status_code == 400
    assert hotline.post(b"<x/>", "application/xml").status_code == 415
    assert hotline.post(b"{}", STRUCTURED, **{"Content-Encoding": "gzip"}).status_code == 415
    large = hotline.event(description="x" * 70_000)
    assert hotline.post(large).status_code == 413
    assert hotline.post(b" " * (1024 * 1024 + 1), BATCH).status_code == 413
    number = hotline.event(title="打 138 0013 8000")
    assert list(errors(hotline.post(number), 422)) == ["data.title"]
    narrow = add("narrow", may=["case.withdraw"])
    assert "may send case.withdraw" in errors(narrow.post(narrow.event()), 409)["event"]
    kept = hotline.county.ask(
        "GET",
        f"{hotline.county.about['intake']}/v1/rejected",
        params={"system": "hotline", "limit": 200},
    ).json()["rejected"]
    assert foreign["id"] in {each["event"]["id"] for each in kept}
    assert "138 0013 8000" not in json.dumps(kept, ensure_ascii=False)


def test_a_system_reports_where_it_may(add: Add) -> None:
    village = add("village_only", divisions=["469002104205"])
    said = errors(village.post(village.event()), 409)
    assert "469002104205" in said["event"]
    assert village.post(village.event(division="46900210420501001")).status_code == 202


def test_a_reporter_is_kept_sealed_and_goes_nowhere(hotline: System) -> None:
    person = {"name": "欧阳门", "phone": "13987651111"}
    told = hotline.accepted(hotline.event(reporter=person))
    url = f"{hotline.county.about['intake']}/v1/cases/{told['case']}/reporter"
    assert hotline.county.ask("GET", url).json()["reporter"] == person
    timeline = eventually("the report", lambda: hotline.county.timeline(told["case"]))
    assert "欧阳门" not in json.dumps(timeline, ensure_ascii=False)


def test_a_key_opens_the_door_and_shows_own_cases_and_nothing_else(
    hotline: System, add: Add
) -> None:
    told = hotline.accepted(hotline.event())
    assert hotline.get(f"/v1/cases/{told['case']}").json()["id"] == told["case"]
    listed = hotline.get("/v1/cases?limit=200").json()["cases"]
    assert told["case"] in {case["id"] for case in listed}
    stranger = add("stranger")
    assert stranger.get(f"/v1/cases/{told['case']}").status_code == 403
    assert stranger.get("/v1/cases").json()["cases"] == []
    for path in ("/v1/systems", "/v1/audit", "/v1/rejected", f"/v1/cases/{told['case']}/timeline"):
        answer = hotline.get(path)
        assert answer.status_code == 401, path
        assert "here a token is needed" in answer.json()["detail"]
    headers = {"Authorization": f"Bearer {hotline.key}"}
    desk = f"{hotline.county.about['desks']['household']}/v1/desks/household/cases"
    assert httpx.get(desk, headers=headers).status_code == 401
    # Neither an operator nor a reporter is a system.
    url = f"{hotline.county.about['intake']}/v1/events"
    for role in ("operator", "reporter"):
        assert hotline.county.ask("POST", url, role, json={}).status_code == 403
    hotline.county.let("nobody_known", "system")
    answer = hotline.county.ask("POST", url, "nobody_known", json={})
    assert answer.status_code == 403
    assert "huashi system add" in answer.json()["detail"]


def test_two_keys_are_valid_and_a_third_ends_the_first(add: Add, county: County) -> None:
    system = add("rotating")
    url = f"{county.about['intake']}/v1/systems/rotating"

    def works(key: str) -> bool:
        return System(county, "rotating", key).post(system.event()).status_code == 202

    keys = [system.key]
    keys += [county.ask("POST", f"{url}/rotate", json={}).json()["key"] for _ in range(2)]
    eventually("the first key has ended", lambda: not works(keys[0]))
    assert [works(key) for key in keys] == [False, True, True]
    # To add it again says anew what it may, and shows no key.
    again = county.ask("PUT", url, json={"may": ALL}).json()
    assert again["key"] is None
    assert len(again["keys"]) == 2
    assert "hash" not in again["keys"][0]
    sole = county.ask("POST", f"{url}/rotate", json={"sole": True}).json()["key"]
    eventually("the others have ended", lambda: not works(keys[2]))
    assert works(sole)
    assert county.ask("DELETE", url).json()["removed"] is True
    eventually("all have ended", lambda: not works(sole))
    assert county.ask("DELETE", url).status_code == 404
    assert county.ask("POST", f"{url}/rotate", json={}).status_code == 404
    wrong = county.ask("PUT", f"{county.about['intake']}/v1/systems/Wrong-Name", json={"may": ALL})
    assert wrong.status_code == 422
    for key in ("hk_rotating_" + "0" * 64, "hk_", "hk_x"):
        assert not works(key)


def test_who_sends_too_fast_is_told_when_to_come_again(add: Add) -> None:
    system, other = add("too_fast", rate=1), add("patient")
    events = [system.event() for _ in range(100)]
    assert system.post(events, BATCH).status_code == 202
    answer = system.post([system.event() for _ in range(60)], BATCH)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert other.post(other.event()).status_code == 202


def test_rubbish_counts_against_the_rate(add: Add) -> None:
    system = add("rubbish_over_http", rate=1)
    found = {system.post(b"{", BATCH).status_code for _ in range(150)}
    assert found == {400, 429}


def test_only_so_many_cases_of_a_system_may_be_open(add: Add) -> None:
    system = add("crowded", open_cases=2)
    found = system.post([system.event() for _ in range(3)], BATCH).json()
    assert (len(found["accepted"]), len(found["rejected"])) == (2, 1)
    assert "2 cases of crowded are open" in found["rejected"][0]["errors"][0]["detail"]
    case = found["accepted"][0]["case"]
    withdraw = system.event("case.withdraw", case=case, reason="好了")
    assert system.accepted(withdraw)["status"] == "withdrawn"
    waiting = system.event()
    eventually("room for one more", lambda: system.post(waiting).status_code == 202)
