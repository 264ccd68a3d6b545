"""Who may what, on the whole stack: officers of one village and another, teams, reporters."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from tests.end_to_end.county import GRID, County, eventually

SHAMEI, ZHAOLIE, TOWN, GROUP = "469002104214", "469002104205", "469002104", "46900210421403"
ELSEWHERE = "46900210420501001"


@pytest.fixture(scope="module")
def people(county: County) -> County:
    """A county with people of two villages."""
    county.let("v-214", "officer", SHAMEI, "village")
    county.let("l-214", "lead", SHAMEI, "village")
    county.let("v-205", "officer", ZHAOLIE, "village")
    county.let("h-007", "officer", GRID, "household")
    county.let("g-03", "lead", GROUP, "group")
    county.let("team", "officer", SHAMEI, "village", f"{SHAMEI}-team")
    county.let("t-104", "lead", TOWN, "township")
    county.let("r-1", "reporter")
    county.let("r-2", "reporter")
    county.let("town-operator", "operator", TOWN)
    return county


def forbidden(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 403, answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["rule"] in problem["detail"]
    assert set(problem) >= {"role", "scope", "rule"}
    return problem


def ids(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {case["id"] for case in answer.json()["cases"]}


def test_an_officer_of_another_village_can_do_nothing(people: County) -> None:
    # There is time for all this, however slow the machine.
    case = people.report(urgency="calm")
    people.arrived("household", case)
    body: dict[str, dict[str, Any]] = {
        "acknowledge": {},
        "resolve": {"outcome": "settled"},
        "suspend": {"reason": "waiting"},
        "resume": {},
        "extend": {"by": "1d", "reason": "路远"},
    }
    for action, said in body.items():
        for stranger in ("v-205", "team"):
            problem = forbidden(people.act("household", case, action, stranger, **said))
            assert "one's division or below it" in problem["rule"]
    intake, custodian = people.about["intake"], people.about["escalation"]
    for url in (
        f"{intake}/v1/cases/{case}",
        f"{intake}/v1/cases/{case}/timeline",
        f"{intake}/v1/cases/{case}/reporter",
        f"{custodian}/v1/cases/{case}/deadlines",
    ):
        forbidden(people.ask("GET", url, "v-205"))
    # Nothing has happened, and who may do it can.
    assert people.case(case)["token"]["seq"] == 1
    assert people.act("household", case, "acknowledge", "h-007").status_code == 200
    assert people.act("household", case, "resolve", "v-214", outcome="settled").status_code == 200


def test_one_acts_at_ones_level_or_below_and_not_above(people: County) -> None:
    case = people.report(SHAMEI)
    people.arrived("village", case)
    for below in ("h-007", "g-03"):
        forbidden(people.act("village", case, "acknowledge", below))
        forbidden(people.ask("GET", f"{people.about['intake']}/v1/cases/{case}", below))
    assert people.act("village", case, "acknowledge", "v-214").status_code == 200
    urgent = people.report(GRID, urgency="urgent")
    people.arrived("township", urgent)
    forbidden(people.act("township", urgent, "acknowledge", "l-214"))
    assert people.act("township", urgent, "acknowledge", "t-104").status_code == 200


def test_lists_have_what_the_scope_has(people: County) -> None:
    here, there = people.report(), people.report(ELSEWHERE)
    for case in (here, there):
        people.arrived("household", case)
    lists = [
        f"{people.about['intake']}/v1/cases",
        f"{people.about['desks']['household']}/v1/desks/household/cases",
    ]
    for url in lists:
        assert {here, there} <= ids(people.ask("GET", url, params={"limit": 200}))
        for officer, seen, unseen in (
            ("v-214", here, there),
            ("v-205", there, here),
            ("h-007", here, there),
        ):
            found = ids(people.ask("GET", url, officer, params={"limit": 200}))
            assert seen in found
            assert unseen not in found
        assert ids(people.ask("GET", url, "team")) == set()
        for outside in (TOWN, ZHAOLIE, "469002"):
            forbidden(people.ask("GET", url, "v-214", params={"division": outside}))
        inside = {"division": GROUP, "limit": 200}
        assert here in ids(people.ask("GET", url, "v-214", params=inside))
    forbidden(people.ask("GET", lists[0], "v-214", params={"level": "township"}))
    forbidden(
        people.ask("GET", f"{people.about['desks']['township']}/v1/desks/township/cases", "v-214")
    )


def test_who_reports_sees_their_own_cases_and_no_others(people: County) -> None:
    intake = f"{people.about['intake']}/v1/cases"
    body = {
        "division": GRID,
        "title": "路灯不亮",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
    }
    mine = people.ask("POST", intake, "r-1", json=body).json()["id"]
    key = {"Idempotency-Key": "the-same"}
    theirs = people.ask("POST", intake, "r-2", json=body, headers=key).json()["id"]
    # The same key of another person is another report.
    assert people.ask("POST", intake, "r-1", json=body, headers=key).json()["id"] != theirs
    assert people.ask("GET", f"{intake}/{mine}", "r-1").json()["id"] == mine
    forbidden(people.ask("GET", f"{intake}/{theirs}", "r-1"))
    assert theirs in ids(people.ask("GET", intake, "r-2"))
    assert mine not in ids(people.ask("GET", intake, "r-2"))
    forbidden(people.ask("GET", f"{intake}/{mine}/timeline", "r-1"))
    forbidden(people.ask("GET", f"{intake}/{mine}/reporter", "r-1"))
    # What a reporter's token is called is in no event.
    assert "r-1" not in json.dumps(people.timeline(mine))


def test_more_time_is_granted_by_a_lead_who_reaches_the_desk_that_was_asked(
    people: County,
) -> None:
    case = people.report()
    people.arrived("household", case)
    # While it waits there is time for all this, however slow the machine.
    assert people.act("household", case, "suspend", "h-007", reason="waiting").status_code == 200
    asked = people.act("household", case, "extend", "h-007", by="1d", reason="路远")
    identity = asked.json()["extension"]["id"]
    desk = f"{people.about['desks']['group']}/v1/desks/group/extensions"

    def seen(who: str) -> bool:
        found = people.ask("GET", desk, who, params={"status": "asked", "limit": 200}).json()
        return identity in [item["id"] for item in found["extensions"]]

    eventually("the request at the group's desk", lambda: seen("l-214"))
    assert not seen("v-205")
    people.let("g-04", "lead", f"{SHAMEI}04", "group")
    for who in ("v-214", "h-007", "v-205", "g-04"):
        forbidden(people.ask("POST", f"{desk}/{identity}/grant", who, json={}))
    assert people.ask("POST", f"{desk}/{identity}/grant", "g-03", json={}).status_code == 200
    (entry,) = people.audit("group", who="g-03", case=case)
    assert [entry["changes"][0][when]["status"] for when in ("before", "after")] == [
        "asked",
        "granted",
    ]


def test_whom_a_case_has_left_for_another_place_of_the_same_desk_is_told_who_holds_it(
    people: County,
) -> None:
    desk = f"{people.about['desks']['village']}/v1/desks/village/cases"
    case = people.report(SHAMEI, urgency="calm")
    own = people.arrived("village", case)
    moved = people.act(
        "village", case, "transfer", "v-214", reason="就近", to={"division": ZHAOLIE}
    )
    assert moved.status_code == 200, moved.text
    eventually("it has come", lambda: people.latest("village", case).json()["hop"] == 1)
    late = people.act("village", case, "acknowledge", "v-214")
    assert (late.status_code, late.json()["held_by"]["division"]) == (409, ZHAOLIE)
    seen = people.ask("GET", f"{desk}/{case}", "v-214").json()
    assert (seen["hop"], seen["address"]) == (0, own["address"])
    forbidden(people.act("village", case, "acknowledge", "team"))
    assert people.act("village", case, "acknowledge", "v-205").status_code == 200
    # So it is for a team whose case has come to the desk above it.
    teams = people.report(SHAMEI, category="order", urgency="calm")
    assert people.arrived("village", teams)["address"]["unit"] == "team"
    people.let("t-1", "lead", SHAMEI, "village", "team")
    assert (
        people.act(
            "village", teams, "transfer", "t-1", reason="归口", to={"division": SHAMEI}
        ).status_code
        == 200
    )
    eventually("it has come", lambda: people.latest("village", teams).json()["hop"] == 1)
    late = people.act("village", teams, "resolve", "t-1", outcome="settled")
    assert (late.status_code, late.json()["held_by"]["unit"]) == (409, None)


def test_a_unit_is_supervised_from_its_level_s_desk_and_not_from_within(people: County) -> None:
    case = people.report(SHAMEI, category="order", urgency="calm")
    assert people.arrived("village", case)["address"]["unit"] == "team"
    people.let("t-1", "lead", SHAMEI, "village", "team")
    why = {"reason": "久拖不决"}
    eventually("the custodian has it", lambda: people.custody(case))
    inside = forbidden(people.act("village", case, "supervise", "t-1", **why))
    assert inside["held_by"]["unit"] == "team"
    forbidden(people.act("village", case, "supervise", "v-205", **why))
    for times, who in enumerate(("v-214", "t-104"), 1):
        answer = people.act("village", case, "supervise", who, **why)
        assert (answer.status_code, answer.json()["supervised"]["times"]) == (200, times)


def test_a_lead_reopens_what_was_resolved_within_reach(people: County) -> None:
    case = people.report(SHAMEI)
    people.arrived("village", case)
    assert people.act("village", case, "resolve", "l-214", outcome="settled").status_code == 200
    eventually("the resolution", lambda: people.case(case)["status"] == "resolved")
    url, why = f"{people.about['intake']}/v1/cases/{case}/reopen", {"reason": "又漏了"}
    for who in ("v-214", "g-03", "v-205"):
        forbidden(people.ask("POST", url, who, json=why))
    assert people.ask("POST", url, "l-214", json=why).status_code == 200


def test_an_auditor_reads_and_changes_nothing(people: County) -> None:
    case = people.report()
    people.arrived("household", case)
    intake = f"{people.about['intake']}/v1/cases"
    assert case in ids(people.ask("GET", intake, "auditor", params={"limit": 200}))
    assert people.ask("GET", f"{intake}/{case}/timeline", "auditor").status_code == 200
    desk = f"{people.about['desks']['household']}/v1/desks/household/cases"
    assert people.ask("GET", desk, "auditor").status_code == 200
    forbidden(people.act("household", case, "acknowledge", "auditor"))
    forbidden(people.ask("DELETE", f"{intake}/{case}/reporter", "auditor"))
    forbidden(people.ask("POST", f"{people.about['escalation']}/v1/reconciliation", "auditor"))


def test_an_operator_of_a_part_has_that_part(people: County) -> None:
    custodian, notify = people.about["escalation"], people.about["notify"]
    forbidden(people.ask("POST", f"{custodian}/v1/reconciliation", "town-operator"))
    contact = f"{notify}/v1/contacts/division:469002"
    forbidden(people.ask("PUT", contact, "town-operator", json={"webhook": None}))
    version = people.case(people.report())["profile"]
    url = f"{custodian}/v1/migrations"
    forbidden(people.ask("POST", url, "town-operator", json={"to": version, "division": "469002"}))
    assert people.ask("POST", url, "town-operator", json={"to": version}).status_code == 200


def test_an_operator_of_a_part_switches_that_part_to_emergency_mode(people: County) -> None:
    intake, custodian = people.about["intake"], people.about["escalation"]
    why = {"reason": "台风"}
    for action in ("begin", "end"):
        url = f"{intake}/v1/emergencies/469002/{action}"
        forbidden(people.ask("POST", url, "town-operator", json=why))
        forbidden(people.ask("POST", url.replace("469002", TOWN), "t-104", json=why))
    forbidden(people.ask("GET", f"{custodian}/v1/emergencies/469002", "town-operator"))
    assert people.ask("GET", f"{custodian}/v1/emergencies/{TOWN}", "town-operator").is_success
    url = f"{intake}/v1/emergencies/469002104205/begin"
    assert people.ask("POST", url, "town-operator", json=why).status_code == 200
    # Everybody may know of it, also next door.
    known = people.ask("GET", f"{intake}/v1/emergencies", "v-214").json()["emergencies"]
    assert ZHAOLIE in {entry["division"] for entry in known if entry["on"]}
    end = url.replace("begin", "end")
    assert people.ask("POST", end, "town-operator", json=why).status_code == 200
    ended, begun = people.audit("intake", who="town-operator")[:2]
    assert begun["said"]["emergency"] == "begun"
    assert ended["said"]["emergency"] == "ended"
    assert begun["target"] == {"division": ZHAOLIE}


def test_the_audit_trail_says_who_did_what_and_what_it_changed(people: County) -> None:
    secret = {"name": "欧阳审计", "phone": "13987650000"}
    case = people.report(reporter=secret)
    people.arrived("household", case)
    note = "SECRET-NOTE"
    assert people.act("household", case, "acknowledge", "h-007", note=note).status_code == 200
    assert people.act("household", case, "acknowledge", "h-007", note=note).status_code == 200
    forbidden(people.act("household", case, "acknowledge", "v-205"))
    assert people.act("household", case, "acknowledge", "v-214").status_code == 409
    refused, again, first = people.audit("household", case=case)
    assert (first["who"], first["role"], first["status"]) == ("h-007", "officer", 200)
    assert first["scope"] == {"division": GRID, "level": "household", "unit": None}
    assert first["action"] == "POST /v1/desks/<level>/cases/<case>/acknowledge"
    assert first["from"] == "127.0.0.1"
    (change,) = first["changes"]
    assert (change["before"]["token"]["seq"], change["after"]["token"]["seq"]) == (1, 2)
    # The same again changed nothing, and it was refused to a stranger.
    assert again["changes"][0]["before"] == again["changes"][0]["after"]
    assert (refused["who"], refused["status"], refused["changes"]) == ("v-205", 403, [])
    (reported,) = people.audit("intake", case=case)
    assert reported["action"] == "POST /v1/cases"
    assert reported["changes"][0]["before"] is None
    url = f"{people.about['intake']}/v1/cases/{case}/reporter"
    assert people.ask("GET", url, "h-007").json()["reporter"] == secret
    assert people.ask("DELETE", url).status_code == 200
    forgotten, looked, _ = people.audit("intake", case=case)
    assert (looked["who"], looked["action"]) == ("h-007", "GET /v1/cases/<case>/reporter")
    assert forgotten["said"] == {"reporter": "forgotten"}
    said = json.dumps([*people.audit("intake"), *people.audit("household")], ensure_ascii=False)
    for word in ("欧阳审计", "13987650000", "SECRET-NOTE"):
        assert word not in said
    anonymous = httpx.post(f"{people.about['intake']}/v1/cases/{case}/reopen", json={})
    assert anonymous.status_code == 401
    (entry, *_) = people.audit("intake", case=case)
    assert (entry["who"], entry["role"], entry["status"]) == (None, "anonymous", 401)


def test_the_trail_has_pages_and_filters(people: County) -> None:
    began = people.clock.now()
    cases = [people.report() for _ in range(5)]
    url = f"{people.about['intake']}/v1/audit"
    found: list[str] = []
    query: dict[str, Any] = {"who": "reporter", "from": began, "limit": 2}
    while True:
        page = people.ask("GET", url, "auditor", params=query).json()
        found += [case for entry in page["entries"] for case in entry["cases"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert found == list(reversed(cases))
    assert people.audit("intake", to=began, case=cases[0]) == []
    assert people.audit("intake", who=str(uuid.uuid4())) == []
    forbidden(people.ask("GET", url, "v-214"))
    forbidden(people.ask("GET", url, "town-operator"))
