"""Emergency mode on the real servers: a village goes into it, and back."""

from __future__ import annotations

from typing import Any

import httpx

from tests.end_to_end.county import GRID, County, eventually

VILLAGE = "469002104205"
HOUSEHOLD = f"{VILLAGE}01001"


def switch(county: County, action: str, division: str = VILLAGE, **more: Any) -> httpx.Response:
    url = f"{county.about['intake']}/v1/emergencies/{division}/{action}"
    return county.ask("POST", url, json={"reason": "台风登陆", **more})


def would_change(county: County, on: bool) -> dict[str, dict[str, Any]]:
    """What the custodian says that a switch would change, by case."""
    url = f"{county.about['escalation']}/v1/emergencies/{VILLAGE}"
    page = county.ask("GET", url, params={"on": str(on).lower()}).json()
    assert page["next"] is None
    return {item["case"]: item for item in page["cases"]}


def hops(county: County, case: str) -> list[str]:
    return [event["data"]["reason"] for event in county.timeline(case, "case.transferred")]


def test_a_village_goes_into_emergency_mode_and_back(county: County) -> None:
    suspended = county.report(HOUSEHOLD)
    elsewhere = county.report(GRID)
    county.arrived("household", suspended)
    # So that it is in flight for as long as this test takes.
    answer = county.act("household", suspended, "suspend", reason="waiting")
    assert answer.status_code == 200, answer.text
    eventually("the suspension", lambda: county.custody(suspended)["suspension"] is not None)

    planned = would_change(county, True)
    assert elsewhere not in planned
    assert planned[suspended]["before"]["address"]["level"] == "household"
    assert planned[suspended]["after"]["address"]["level"] == "village"
    assert county.case(suspended)["emergency"] is None

    begun = switch(county, "begin").json()
    assert (begun["on"], begun["name"]) == (True, "琼海市博鳌镇朝烈村委会")
    number = begun["number"]
    assert switch(county, "begin").json() == begun

    entry = county.arrived("village", suspended)
    assert entry["emergency"] == f"{VILLAGE}.{number}"
    assert entry["assigned"]["officer"] != "h-007"
    reported = county.report(HOUSEHOLD)
    assert county.arrived("village", reported)["emergency"] == f"{VILLAGE}.{number}"
    assert county.case(reported)["emergency"] == f"{VILLAGE}.{number}"
    eventually("the hop in the timeline", lambda: hops(county, suspended) == ["emergency"])
    # The new one came under it at intake already.
    assert hops(county, reported) == []
    assert county.case(elsewhere)["emergency"] is None
    told = eventually("its custody", lambda: county.custody(reported))["deadlines"]
    assert {row["emergency"] for row in told} == {f"{VILLAGE}.{number}"}
    assert {row["rule"] for row in told} == {"profile.yaml emergency.deadlines[0]"}

    metrics = httpx.get(f"{county.about['escalation']}/metrics").text
    assert "huashi_emergencies 1.0" in metrics
    assert 'huashi_emergency_hops_total{switch="on"}' in metrics

    planned = would_change(county, False)
    assert {suspended, reported} <= planned.keys()
    ended = switch(county, "end").json()
    assert (ended["on"], ended["number"]) == (False, number)
    for case in (suspended, reported):
        eventually(
            "the ordinary rules",
            lambda case=case: "emergency_ended" in hops(county, case),
        )
        # The timeline has the event a moment before the register does.
        eventually("the register", lambda case=case: county.case(case)["emergency"] is None)
    listed = county.ask("GET", f"{county.about['intake']}/v1/emergencies").json()["emergencies"]
    assert [item["on"] for item in listed if item["division"] == VILLAGE] == [False]
    for case in (suspended, reported):
        county.settled_everywhere(case)


def test_what_can_not_be_switched_says_why(county: County) -> None:
    answer = switch(county, "begin", "469002999")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "division")
    answer = switch(county, "end", "469002104214")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "469002104214 is not in emergency mode",
    )
    answer = switch(county, "begin", reason="")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "reason")
    url = f"{county.about['intake']}/v1/emergencies/{VILLAGE}/begin"
    assert county.ask("POST", url, "officer", json={"reason": "台风"}).status_code == 403
