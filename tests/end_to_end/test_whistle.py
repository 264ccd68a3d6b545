"""Units that are called to a case (吹哨报到), on the real servers: who comes, late, and never."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.end_to_end.county import County, eventually

VILLAGE, TOWNSHIP = "469002104214", "469002104"
CENTRE, TEAM = "centre", "team"
LEVEL = {CENTRE: "township", TEAM: "village"}
OFFICER = {CENTRE: "u-1", TEAM: "t-1"}
BOTH = [{"unit": CENTRE}, {"unit": "治安联防队"}]


@pytest.fixture(scope="module")
def people(county: County) -> County:
    """A county with the holder's officer and those of two units, and of a third one."""
    county.let("v-214", "officer", VILLAGE, "village")
    county.let("t-104", "lead", TOWNSHIP, "township")
    county.let("u-1", "officer", TOWNSHIP, "township", CENTRE)
    county.let("t-1", "officer", VILLAGE, "village", TEAM)
    county.let("t-2", "officer", VILLAGE, "village", TEAM)
    county.let("x-1", "officer", VILLAGE, "village", "volunteers")
    return county


def held(people: County) -> str:
    """A case that the village holds, with time for whatever a test does."""
    case = people.report(VILLAGE, urgency="calm")
    people.arrived("village", case)
    return case


def blow(people: County, case: str, **more: Any) -> httpx.Response:
    body = {"units": BOTH, "reason": "占道经营，联合处置", **more}
    return people.act("village", case, "whistle", "v-214", **body)


def desk(people: County, unit: str, what: str = "calls", **query: Any) -> httpx.Response:
    level = LEVEL[unit]
    url = f"{people.about['desks'][level]}/v1/desks/{level}/{what}"
    return people.ask("GET", url, OFFICER[unit], params=query)


def call(people: County, case: str, unit: str) -> dict[str, Any]:
    """What a unit's own officer finds in the unit's queue, once it is there."""

    def there() -> dict[str, Any] | None:
        found = desk(people, unit, limit=200).json()["calls"]
        assert {item["address"]["unit"] for item in found} <= {unit}
        return next((item for item in found if item["case"] == case), None)

    return eventually(f"{unit} is called to {case}", there)


def answer(
    people: County, case: str, unit: str, what: str, by: str | None = None, **body: Any
) -> httpx.Response:
    identity, level = call(people, case, unit)["id"], LEVEL[unit]
    url = f"{people.about['desks'][level]}/v1/desks/{level}/calls/{identity}/{what}"
    return people.ask("POST", url, by or OFFICER[unit], json=body)


def joined(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["unit"]: item for item in shown["joined"]}


def release(people: County, case: str, unit: str, **more: Any) -> httpx.Response:
    return people.act("village", case, "release", "v-214", unit=unit, **more)


def everybody_knows(people: County, case: str, level: str, unit: str, what: str) -> None:
    """The register and the holder's desk show what a unit did."""

    def known() -> bool:
        shown = people.case(case), people.latest(level, case).json()
        return all(joined(item)[unit][what] is not None for item in shown)

    eventually(f"{unit} has {what}", known)


def test_units_of_two_levels_come_finish_and_leave_when_they_are_released(people: County) -> None:
    case = held(people)
    blown = blow(people, case, lead="治安联防队", check_in="6h")
    assert blown.status_code == 200, blown.text
    units = joined(blown.json())
    assert {unit: item["lead"] for unit, item in units.items()} == {CENTRE: False, TEAM: True}
    assert {item["check_in"]["rule"] for item in units.values()} == {
        "profile.yaml whistle[0]",
        "profile.yaml whistle[1]",
    }
    assert units[TEAM]["check_in"]["counted"] == ["6h"]
    asked = call(people, case, TEAM)
    assert (asked["reason"], asked["lead"], asked["status"], asked["called_by"]["level"]) == (
        "占道经营，联合处置",
        True,
        "called",
        "village",
    )
    # Who is called may read what it is about, though the case is with another desk.
    url = f"{people.about['intake']}/v1/cases/{case}"
    eventually("it may read", lambda: people.ask("GET", url, "u-1").status_code == 200)
    first = answer(people, case, CENTRE, "check-in", note="两人已到")
    assert (first.status_code, first.json()["status"]) == (200, "checked_in"), first.text
    assert answer(people, case, CENTRE, "check-in", note="两人已到").json() == first.json()
    assert answer(people, case, TEAM, "check-in").status_code == 200
    other = answer(people, case, TEAM, "check-in", by="t-2")
    assert (other.status_code, "t-1 has checked in already" in other.text) == (409, True)
    everybody_knows(people, case, "village", CENTRE, "checked_in")
    everybody_knows(people, case, "village", TEAM, "checked_in")
    done = answer(people, case, CENTRE, "finish", note="已清理")
    assert (done.status_code, done.json()["status"]) == (200, "finished")
    everybody_knows(people, case, "village", CENTRE, "finished")
    # Done, and still there: nobody leaves before the holder lets it (人不撤).
    assert call(people, case, CENTRE)["ended"] is None
    unscored = release(people, case, CENTRE)
    assert [item["field"] for item in unscored.json()["errors"]] == ["score"]
    for score in (0, 6, "5"):
        assert release(people, case, CENTRE, score=score).status_code == 422
    let = release(people, case, CENTRE, score=5, note="来得快")
    assert let.status_code == 200, let.text
    assert release(people, case, CENTRE, score=5, note="来得快").json() == let.json()
    again = release(people, case, CENTRE, score=1)
    assert (again.status_code, again.json()["released"]["score"]) == (409, 5)
    ended = eventually("it may leave", lambda: call(people, case, CENTRE)["ended"])
    assert (ended["why"], ended["released"]["score"], ended["released"]["note"]) == (
        "released",
        5,
        "来得快",
    )
    assert call(people, case, TEAM)["status"] == "checked_in"
    # A resolution lets go whoever is left, scored or not.
    wrong = people.act("village", case, "resolve", "v-214", outcome="settled", scores={"nobody": 3})
    assert [item["field"] for item in wrong.json()["errors"]] == ["scores.nobody"]
    end = people.act("village", case, "resolve", "v-214", outcome="settled", scores={TEAM: 4})
    assert end.status_code == 200, end.text
    ended = eventually("so may the team", lambda: call(people, case, TEAM)["ended"])
    assert ended["released"]["score"] == 4
    people.settled_everywhere(case)
    told = [event["data"] for event in people.timeline(case, "notification.delivered")]
    recipients = {
        item["notification"]["recipient"]
        for item in told
        if item["notification"]["about"] == "case.called"
    }
    assert "officer:u-1" in recipients
    assert any(item.startswith("officer:t-") for item in recipients)
    rates = desk(people, CENTRE, "rates").json()["calls"]
    assert rates["counts"]["checked_in_on_time"] >= 1
    assert rates["rates"]["score"] is not None
    assert rates["counts"]["scored"] >= 1


def test_a_whistle_that_no_unit_answers_and_one_that_comes_late(people: County) -> None:
    case = held(people)
    assert blow(people, case, check_in="2h", finish="20h").status_code == 200
    asked = call(people, case, CENTRE)
    rows = {
        (row["unit"], row["kind"]): row
        for row in people.custody(case)["deadlines"]
        if row["kind"] in ("check_in", "finish")
    }
    assert rows[CENTRE, "check_in"]["due"] == asked["check_in"]["due"]
    assert {row["status"] for row in rows.values()} == {"armed"}
    assert rows[TEAM, "finish"]["source"] == "assumption"
    people.until(asked["check_in"]["due"])
    overdue = eventually(
        "both are said to stay away",
        lambda: (
            len(found := people.timeline(case, "case.unit_overdue")) == 2 and found  # type: ignore[func-returns-value]
        ),
    )
    assert {event["data"]["call"]["unit"] for event in overdue} == {CENTRE, TEAM}
    (supervised,) = eventually("it is supervised", lambda: people.timeline(case, "case.supervised"))
    assert supervised["data"]["passed"]["kind"] == "unanswered"
    assert supervised["data"]["supervisor"]["reason"] == "assumption"
    # The holder sees it; its own deadlines go on.
    eventually(
        "the holder knows",
        lambda: all(
            item["missed"] == ["check_in"]
            for item in joined(people.latest("village", case).json()).values()
        ),
    )
    entry = people.latest("village", case).json()
    assert (entry["status"], entry["passed"]) == ("live", [])
    assert {item["kind"] for item in entry["deadlines"]} == {"acknowledge", "resolve"}
    told = eventually(
        "those above are told",
        lambda: (
            {
                event["data"]["notification"]["recipient"]
                for event in people.timeline(case, "notification.delivered")
                if event["data"]["notification"]["about"] == "case.unit_overdue"
            }
            >= {"division:469002", "desk:township:469002104"}
        ),
    )
    assert told
    # Late is better than never.
    late = answer(people, case, TEAM, "check-in", note="堵车")
    assert late.status_code == 200, late.text
    assert late.json()["checked_in"]["at"] > late.json()["check_in"]["due"]
    everybody_knows(people, case, "village", TEAM, "checked_in")
    assert release(people, case, TEAM).status_code == 422
    assert release(people, case, TEAM, score=2, note="迟到").status_code == 200
    # Who never came may go without a score.
    assert release(people, case, CENTRE, note="未到").status_code == 200
    ended = eventually("it is off", lambda: call(people, case, CENTRE)["ended"])
    assert ended["released"]["score"] is None
    too_late = answer(people, case, CENTRE, "check-in")
    assert (too_late.status_code, "has released it" in too_late.text) == (409, True)
    rates = desk(people, CENTRE, "rates").json()["calls"]
    assert rates["counts"]["checked_in_due"] > rates["counts"]["checked_in_on_time"]
    rows = [row for row in people.custody(case)["deadlines"] if row["kind"] == "check_in"]
    assert [row["status"] for row in rows] == ["fired", "fired"]
    assert len(people.timeline(case, "case.unit_overdue")) == 2
    people.settled_everywhere(case)


def test_units_stay_when_the_case_climbs_and_the_next_holder_releases_them(people: County) -> None:
    case = held(people)
    assert blow(people, case).status_code == 200
    assert answer(people, case, TEAM, "check-in").status_code == 200
    everybody_knows(people, case, "village", TEAM, "checked_in")
    moved = people.act("village", case, "escalate", "v-214", reason="需镇里协调")
    assert moved.status_code == 200, moved.text
    entry = people.arrived("township", case)
    assert {unit: item["released"] for unit, item in joined(entry).items()} == {
        CENTRE: None,
        TEAM: None,
    }
    everybody_knows(people, case, "township", TEAM, "checked_in")
    # What a unit does after that, the new holder hears as well.
    assert call(people, case, CENTRE)["ended"] is None
    assert answer(people, case, CENTRE, "check-in").status_code == 200
    everybody_knows(people, case, "township", CENTRE, "checked_in")
    lost = release(people, case, TEAM, score=3)
    assert (lost.status_code, lost.json()["held_by"]["level"]) == (409, "township")
    let = people.act("township", case, "release", "t-104", unit=TEAM, score=3)
    assert let.status_code == 200, let.text
    ended = eventually("the team may leave", lambda: call(people, case, TEAM)["ended"])
    assert ended["released"]["by"] == "t-104"
    people.settled_everywhere(case)


def test_a_case_that_is_withdrawn_lets_everybody_go(people: County) -> None:
    case = held(people)
    assert blow(people, case).status_code == 200
    call(people, case, CENTRE)
    url = f"{people.about['intake']}/v1/cases/{case}/withdraw"
    answered = people.ask("POST", url, json={"reason": "自己解决了"})
    assert answered.status_code == 200, answered.text
    for unit in (CENTRE, TEAM):
        ended = eventually("it may leave", lambda unit=unit: call(people, case, unit)["ended"])  # type: ignore[misc]
        assert (ended["why"], ended["released"]) == ("ended", None)
    answered = answer(people, case, TEAM, "finish")
    assert (answered.status_code, "the case has ended" in answered.text) == (409, True)


def test_what_can_not_be_done_is_named(people: County) -> None:
    case = held(people)
    for said, field, why in (
        ({"units": [{"unit": "center"}]}, "units.0.unit", "did you mean centre?"),
        ({"units": [{"unit": TEAM, "level": "township"}]}, "units.0.unit", "is at the village"),
        ({"units": []}, "units", "Length must be between 1 and 20."),
        ({"lead": "h-007"}, "lead", "is not known"),
        ({"check_in": "3d"}, "check_in", "the profile allows 12h at most"),
        ({"finish": "whenever"}, "finish", "is not a deadline"),
        ({"reason": ""}, "reason", "Length must be between 1 and 500."),
    ):
        refused = blow(people, case, **said)
        assert refused.status_code == 422, refused.text
        (error,) = refused.json()["errors"]
        assert error["field"] == field
        assert why in error["detail"]
    # Nobody was called by any of these.
    assert people.latest("village", case).json()["joined"] == []
    never = release(people, case, CENTRE)
    assert (never.status_code, "centre was not called" in never.text) == (409, True)
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"units": BOTH, "reason": "联合处置"}
    first = people.act("village", case, "whistle", "v-214", headers=key, **body)
    assert first.status_code == 200, first.text
    again = people.act("village", case, "whistle", "v-214", headers=key, **body)
    assert again.json() == first.json()
    assert people.act("village", case, "whistle", "v-214", **body).json() == first.json()
    others = blow(people, case, reason="别的")
    assert (others.status_code, "was called already" in others.text) == (409, True)
    # One who is of another unit, or below, answers for nobody else.
    for stranger in ("x-1", "u-1"):
        problem = answer(people, case, TEAM, "check-in", by=stranger)
        assert problem.status_code == 403, problem.text
        assert "with a unit only what is addressed to that unit" in problem.json()["rule"]
    # A unit's officer is no holder.
    assert people.act("village", case, "release", "t-1", unit=TEAM).status_code == 403
    base = f"{people.about['desks']['village']}/v1/desks/village/calls"
    missing = people.ask("POST", f"{base}/{uuid.uuid4()}/check-in", "t-1", json={})
    assert missing.status_code == 404
    # Before it has come it may be called off, without a score.
    assert release(people, case, TEAM).status_code == 200
    # Who is not there any more is scored by nobody.
    body = {"outcome": "settled", "scores": {TEAM: 5}}
    scored = people.act("village", case, "resolve", "v-214", **body)
    assert (scored.status_code, scored.json()["errors"][0]["field"]) == (422, f"scores.{TEAM}")
    assert people.act("village", case, "resolve", "v-214", outcome="settled").status_code == 200
    over = blow(people, case)
    assert (over.status_code, over.json()["stage"]) == (409, "resolved")


def test_a_call_reaches_a_desk_that_was_away_and_so_does_its_answer(people: County) -> None:
    case = held(people)
    people.kill("dispatch-township")
    people.kill("escalation")
    assert blow(people, case).status_code == 200
    people.kill("dispatch-village")
    assert answer(people, case, CENTRE, "check-in").status_code == 200
    people.kill("dispatch-township")
    everybody_knows(people, case, "village", CENTRE, "checked_in")
    people.kill("escalation")
    assert release(people, case, CENTRE, score=5).status_code == 200
    eventually("it may leave", lambda: call(people, case, CENTRE)["ended"])
    assert len(people.timeline(case, "case.called")) == 2
    assert len(people.timeline(case, "case.checked_in")) == 1
    people.settled_everywhere(case)


def at_once(*acts: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(acts)) as pool:
        return [done.result() for done in [pool.submit(act) for act in acts]]


def test_of_two_at_once_one_is_told_of_the_other(people: County) -> None:
    for _ in range(3):
        case = held(people)
        blown = at_once(
            lambda case=case: blow(people, case),  # type: ignore[misc]
            lambda case=case: people.act(  # type: ignore[misc]
                "village", case, "whistle", "operator", units=BOTH, reason="联合处置"
            ),
        )
        assert sorted(found.status_code for found in blown) == [200, 409]
        assert "was called already" in max(blown, key=lambda found: found.status_code).text
        call(people, case, TEAM)
        came = at_once(
            lambda case=case: answer(people, case, TEAM, "check-in"),  # type: ignore[misc]
            lambda case=case: answer(people, case, TEAM, "check-in", by="t-2"),  # type: ignore[misc]
        )
        assert sorted(found.status_code for found in came) == [200, 409]
        everybody_knows(people, case, "village", TEAM, "checked_in")
        assert len(people.timeline(case, "case.checked_in")) == 1
        people.settled_everywhere(case)


def test_a_whistle_while_the_case_goes_up_counts_for_all_or_for_nobody(people: County) -> None:
    for _ in range(5):
        case = held(people)
        blown, moved = at_once(
            lambda case=case: blow(people, case),  # type: ignore[misc]
            lambda case=case: people.act(  # type: ignore[misc]
                "village", case, "escalate", "v-214", reason="超出本村职权"
            ),
        )
        assert moved.status_code == 200, moved.text
        assert blown.status_code in (200, 409), blown.text
        people.arrived("township", case)
        people.settled_everywhere(case)
        shown = joined(people.case(case))
        assert joined(people.latest("township", case).json()).keys() == shown.keys()
        # Who stands in no state that counts was never called; who does, is.
        assert shown.keys() in (set(), {CENTRE, TEAM})
        if shown:
            for unit in (CENTRE, TEAM):
                assert call(people, case, unit)["status"] == "called"
        else:
            assert people.timeline(case, "case.called") == []
