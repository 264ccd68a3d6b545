"""A unit with a rota of its own, on the real servers: who is on duty, its queue, its rates."""

from __future__ import annotations

from typing import Any

import httpx

from services.grid.clock import Instant, plus
from tests.end_to_end.county import GRID, County, eventually

VILLAGE = "469002104214"
UNIT = {"id": "water", "name": "水务队", "level": "village", "division": VILLAGE}
TEAM = {"id": "team", "name": "治安联防队", "level": "village", "division": VILLAGE}


def desk(
    county: County, what: str, level: str = "village", role: str = "operator", **query: Any
) -> httpx.Response:
    url = f"{county.about['desks'][level]}/v1/desks/{level}/{what}"
    return county.ask("GET", url, role, params=query)


def team(county: County, at: str | None = None) -> dict[str, Any]:
    """Who is on duty of the village's team."""
    found = desk(county, "duty", division=GRID, **({"at": at} if at else {})).json()
    places = {place["unit"]: place for place in found["places"]}
    assert list(places) == [None, "team"]
    return dict(places["team"])


def named(officers: list[dict[str, Any]]) -> list[str]:
    return [officer["id"] for officer in officers]


def test_who_is_on_duty_now_and_who_is_next(county: County) -> None:
    now = county.clock.now()
    noon, night = "2026-11-26T12:00:00+08:00", "2026-11-26T23:00:00+08:00"
    assert named(team(county, noon)["officers"]) == ["t-1"]
    found = team(county, night)
    assert (named(found["officers"]), named(found["then"])) == (["t-2"], ["t-1"])
    assert (found["why"], found["until"]) == ("on duty", "2026-11-26T22:00:00.000Z")
    assert found["unit_name"] == "治安联防队"
    assert now < team(county)["until"] <= plus(county.clock.now(), 12 * 3600)
    # From above, all that is below; a page at a time.
    first = desk(county, "duty", division="469002104", limit=1).json()
    rest = desk(county, "duty", division="469002104", cursor=first["next"]).json()
    places = [(place["division"], place["unit"]) for place in first["places"] + rest["places"]]
    assert len(first["places"]) == 1
    assert [place for place in places if place[0] == VILLAGE] == [
        (VILLAGE, None),
        (VILLAGE, "team"),
    ]
    assert places == sorted(set(places), key=lambda place: (place[0], place[1] or ""))
    assert len({division for division, _unit in places}) > 1
    for query, field in (
        ({"division": "469002104999"}, "division"),
        ({}, "division"),
        ({"division": GRID, "at": "noon"}, "at"),
        ({"division": GRID, "at": "9999-12-31T23:59:59Z"}, "at"),
        ({"division": GRID, "at": "0001-01-01T00:00:00Z"}, "at"),
    ):
        answer = desk(county, "duty", **query)
        assert answer.status_code == 422, answer.text
        assert [item["field"] for item in answer.json()["errors"]] == [field]


def test_a_case_goes_to_the_officer_of_the_unit_who_is_on_duty_then(county: County) -> None:
    case = county.report(category="order")
    entry = county.arrived("village", case)
    assert entry["address"] == {"level": "village", "division": VILLAGE, "unit": "team"}
    assigned = entry["assigned"]
    assert (assigned["why"], [assigned["officer"]]) == (
        "on duty",
        named(team(county, assigned["at"])["officers"]),
    )
    # The unit's own deadline, not the desk's half hour.
    due = {item["kind"]: item["due"] for item in entry["deadlines"]}
    assert due["acknowledge"] == plus(Instant(entry["arrived_at"]), 3600)
    other = county.report(VILLAGE)
    county.arrived("village", other)
    queue = desk(county, "cases", unit="治安联防队", division=VILLAGE, status="live").json()
    found = {item["id"] for item in queue["cases"]}
    assert case in found
    assert other not in found
    assert desk(county, "cases", unit="team", division="469002104205").json()["cases"] == []
    wrong = desk(county, "cases", unit="联防队", division=VILLAGE)
    assert wrong.status_code == 422, wrong.text
    assert wrong.json()["errors"][0]["field"] == "unit"
    assert "team" in wrong.json()["errors"][0]["detail"]


def test_an_acknowledgement_lapses_without_progress_and_counts_as_overdue(county: County) -> None:
    since = county.clock.now()
    settled = county.report(category="order")
    county.arrived("village", settled)
    case = county.report(category="order")
    county.arrived("village", case)
    answer = county.act("village", settled, "resolve", outcome="settled")
    assert answer.status_code == 200, answer.text
    answer = county.act("village", case, "acknowledge")
    accepted = answer.json()
    due = {item["kind"]: item["due"] for item in accepted["deadlines"]}
    assert due["progress"] == plus(Instant(accepted["acknowledged"]["at"]), 2 * 3600)
    eventually("the lapse", lambda: county.timeline(case, "case.escalated"))
    (passed,) = county.timeline(case, "case.deadline_passed")
    assert passed["data"]["passed"]["kind"] == "progress"
    assert county.arrived("township", case)["acknowledged"] is None

    def counted() -> dict[str, Any] | None:
        query = {"unit": "team", "from": since, "to": accepted["acknowledged"]["at"]}
        found = desk(county, "rates", **query).json()
        return found if found["counts"]["overdue"] else None

    found = eventually("the rates", counted)
    assert found["counts"] == {
        "arrived": 2,
        "acknowledged": 2,
        "completed": 1,
        "on_time": 1,
        "overdue": 1,
        "due": 2,
    }
    assert found["rates"] == {
        "response": 1.0,
        "completion": 0.5,
        "on_time": 0.5,
        "overdue": 0.5,
    }
    nothing = desk(county, "rates", division="469002104205", to="2020-01-01T00:00:00Z").json()
    assert set(nothing["rates"].values()) == {None}
    wrong = desk(county, "rates", **{"from": since, "to": since})
    assert wrong.status_code == 422, wrong.text


def test_everybody_may_know_who_is_on_duty_and_not_what_came(county: County) -> None:
    contact = county.let("contact", "officer", GRID, "household")
    above = desk(county, "duty", "township", contact, division=GRID)
    assert (above.status_code, above.json()["places"][0]["division"]) == (200, "469002104")
    assert desk(county, "rates", "township", contact).status_code == 403
    member = county.let("t-1", "officer", VILLAGE, "village", "team")
    case = county.report(VILLAGE)
    county.arrived("village", case)
    listed = desk(county, "cases", role=member).json()["cases"]
    assert {item["address"]["unit"] for item in listed} <= {"team"}
    assert desk(county, "rates", role=member).json()["unit"] == "team"


def test_an_operator_changes_who_is_on_duty_while_everything_runs(county: County) -> None:
    url = f"{county.about['intake']}/v1/directory"

    def say(role: str = "operator", **body: Any) -> httpx.Response:
        return county.ask("POST", url, role, json=body)

    def entry(name: str, **query: str) -> dict[str, Any] | None:
        kind = name.partition(":")[0]
        found = county.ask("GET", url, params={"kind": kind, **query}).json()["entries"]
        return next((item for item in found if item["id"] == name), None)

    stand_in = {
        "id": "t-4",
        "name": "治安联防队员四",
        "level": "village",
        "division": VILLAGE,
        "unit": "team",
        "role": "officer",
    }
    days = {"first": "2020-01-01", "last": "2099-12-31"}
    leaves = [{"officer": name, "leaves": [{**days, "deputy": "t-4"}]} for name in ("t-1", "t-2")]
    wanted = {"officers": [stand_in], "duties": leaves}
    dry = say(**wanted, dry_run=True).json()
    assert {item["id"]: item["change"] for item in dry["entries"]} == {
        "officer:t-4": "new",
        "duty:t-1": "changed",
        "duty:t-2": "changed",
    }
    assert entry("officer:t-4") is None
    before = {name: entry(f"duty:{name}") for name in ("t-1", "t-2")}
    assert say(**wanted).status_code == 200
    assert {item["change"] for item in say(**wanted).json()["entries"]} == {"unchanged"}
    try:
        eventually("the stand-in", lambda: named(team(county)["officers"]) == ["t-4"])
        case = county.report(category="order")
        assert county.arrived("village", case)["assigned"]["officer"] == "t-4"
        # A start with the same folder takes nothing back.
        county.kill("intake")
        eventually("intake", lambda: entry("officer:t-4", division=VILLAGE))
        duty = entry("duty:t-1")
        assert duty is not None
        assert (duty["origin"], duty["entry"]["leaves"][0]["deputy"]) == ("profile:quick", "t-4")
        assert named(team(county)["officers"]) == ["t-4"]
        # Who may, and what is wrong with it.
        elsewhere = county.let("elsewhere", "operator", "469002104205")
        assert (
            say(elsewhere, officers=[{**stand_in, "division": "469002104205"}]).status_code == 403
        )
        assert say("officer", **wanted).status_code == 403
        assert entry("officer:t-4", division="469002104205") is None
        for body, field in (
            ({}, "body"),
            ({"officers": [{**stand_in, "division": "469002104999"}]}, "officers.0.division"),
            ({"officers": [{**stand_in, "unit": "centre"}]}, "officers.0.unit"),
            ({"officers": [{**stand_in, "level": "group", "unit": None}]}, "officers.0.level"),
            ({"officers": [stand_in, stand_in]}, "body"),
            ({"units": [{**UNIT, "name": "治安联防队"}]}, "units.0.name"),
            ({"units": [{**TEAM, "division": "469002104205"}]}, "units.0.division"),
            ({"units": [{**TEAM, "name": "治安巡防队"}]}, "units.0.name"),
            ({"officers": [{**stand_in, "name": "队员 138 0013 8000"}]}, "officers.0.name"),
            ({"duties": [{"officer": "t-9"}]}, "duties.0.officer"),
            ({"duties": [{"officer": "t-1", "deputy": "t-1"}]}, "duties.0.deputy"),
            (
                {"duties": [{"officer": "t-1", "leaves": [{"last": "2026-12-03"}]}]},
                "duties.0.leaves.0.first",
            ),
            ({"retire": ["officer:t-9"]}, "retire.0"),
            ({"retire": ["unit:team"]}, "retire.0"),
            ({"retire": ["officer:t-4"]}, "retire.0"),
            (
                {"duties": [{"officer": "t-1", "deputy": "v-205"}], "retire": ["officer:t-4"]},
                "retire.0",
            ),
            ({"retire": ["division:469002104214"]}, "retire.0"),
        ):
            answer = say(**body)
            assert answer.status_code == 422, answer.text
            assert [item["field"] for item in answer.json()["errors"]] == [field]
        # What is wrong says whose deputy it is, and of whom it is said anew in the same request.
        kept = say(duties=[{"officer": "t-1"}], retire=["officer:t-4"]).json()["detail"]
        assert "officer:t-4 is deputy of t-2: name another in their duty first" in kept
    finally:
        back = [{**item["entry"]} for item in before.values() if item]
        for item in back:
            del item["division"], item["timezone"]
        assert say(duties=back, retire=["officer:t-4"]).status_code == 200
    eventually("who was there before", lambda: named(team(county)["officers"])[0] in {"t-1", "t-2"})
    assert entry("officer:t-4") is None
    # Who moves takes their duty along: those who are there now can see and change it.
    mover = {**stand_in, "id": "m-1", "unit": None}
    assert say(officers=[mover], duties=[{"officer": "m-1"}]).status_code == 200
    moved = say(officers=[{**mover, "division": "469002104205"}])
    assert moved.json()["entries"] == [
        {"id": "officer:m-1", "change": "changed"},
        {"id": "duty:m-1", "change": "changed"},
    ]
    assert say(elsewhere, duties=[{"officer": "m-1", "deputy": "v-205"}]).status_code == 200
    assert entry("duty:m-1", division="469002104205") is not None
    assert say(retire=["duty:m-1", "officer:m-1"]).status_code == 200
    said = [item["said"].get("entries") for item in county.audit("intake")]
    assert ["officer:t-4", "duty:t-1", "duty:t-2"] in said
