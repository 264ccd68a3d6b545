"""The quality loop (回访) on the real servers: feedback, closing, withdrawing, the notice board."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.end_to_end.county import GRID, County, eventually

VILLAGE = "469002104207"
HOUSEHOLD = f"{VILLAGE}01001"


def intake(county: County, path: str) -> str:
    return f"{county.about['intake']}/v1/{path}"


def report(county: County, division: str = HOUSEHOLD, **more: Any) -> str:
    """An urgent case: it enters at the last level, where no deadline takes it away."""
    return county.report(division, urgency="urgent", **more)


def resolve(county: County, case: str) -> None:
    county.arrived("township", case)
    answer = county.act("township", case, "resolve", outcome="settled", note="换了灯泡")
    assert answer.status_code == 200, answer.text
    eventually("the resolution", lambda: county.case(case)["status"] == "resolved")


def say(county: County, path: str, role: str = "operator", **said: Any) -> httpx.Response:
    return county.ask("POST", intake(county, f"{path}/feedback"), role, json=said)


def board(county: County, **more: Any) -> httpx.Response:
    query = {"division": VILLAGE, **more}
    return httpx.get(intake(county, "public/cases"), params=query)


def too_often(county: County, case: str) -> list[dict[str, Any]]:
    """What was told upwards because the case was reopened too often."""
    told = county.timeline(case, "case.supervised")
    return [event for event in told if event["data"]["passed"]["kind"] == "reopened"]


def counted(county: County) -> dict[str, float]:
    """Intake's metrics by name and labels: other tests have done things before."""
    lines = httpx.get(f"{county.about['intake']}/metrics").text.splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


def test_feedback_closes_a_case_or_has_it_taken_up_again(county: County) -> None:
    before = counted(county)
    case = report(county)
    tracking = county.case(case)["tracking"]
    early = say(county, f"tracking/{tracking}", satisfied=True)
    assert (early.status_code, early.json()["stage"]) == (409, "held")
    resolve(county, case)
    public = httpx.get(intake(county, f"tracking/{tracking}")).json()
    assert public["feedback_until"] == county.case(case)["closing"]["due"]

    # By whoever knows the code, without a token: nothing personal comes back.
    url = intake(county, f"tracking/{tracking}/feedback")
    said = {"satisfied": False, "score": 1, "comment": "张三没来，灯还是坏的"}
    first = httpx.post(url, json=said)
    assert first.status_code == 200, first.text
    assert (first.json()["status"], first.json()["satisfied"]) == ("acknowledged", False)
    assert "张三" not in first.text
    assert httpx.post(url, json=said).json()["status"] == "acknowledged"
    other = httpx.post(url, json={**said, "score": 2})
    assert other.status_code == 409
    assert "taken up again" in other.json()["detail"]
    shown = county.case(case)
    assert (shown["token"]["round"], shown["feedback"]["comment"]) == (2, said["comment"])
    (told,) = eventually("it is told", lambda: county.timeline(case, "case.reopened"))
    assert told["data"]["reopening"]["why"] == "unsatisfied"
    assert all("张三" not in str(event) for event in county.timeline(case))

    # The second reopening is told upwards.
    resolve(county, case)
    assert too_often(county, case) == []
    assert say(county, f"cases/{case}", satisfied=False).status_code == 200
    (told,) = eventually("it is supervised", lambda: too_often(county, case))
    assert told["data"]["supervisor"]["by"] == "profile.yaml reopening"

    resolve(county, case)
    answer = say(county, f"cases/{case}", satisfied=True, score=5)
    assert (answer.status_code, answer.json()["status"]) == (200, "closed")
    assert answer.json()["closed"]["why"] == "confirmed"
    assert answer.json()["closing"] is None
    eventually(
        "the custodian knows", lambda: county.custody(case)["custody"]["token"]["stage"] == "closed"
    )
    county.settled_everywhere(case)
    assert say(county, f"cases/{case}", satisfied=True, score=5).json()["status"] == "closed"
    since = {name: value - before.get(name, 0.0) for name, value in counted(county).items()}
    assert since['huashi_feedback_total{satisfied="no"}'] == 2.0
    assert since['huashi_reopened_total{why="unsatisfied"}'] == 2.0
    assert since['huashi_closed_total{why="confirmed"}'] == 1.0

    # Closed is not for ever: a lead or operator may have it taken up again.
    url = intake(county, f"cases/{case}/reopen")
    assert county.ask("POST", url, json={"reason": "又坏了"}).json()["token"]["round"] == 4


def test_two_answers_at_once_are_one(county: County) -> None:
    case = report(county)
    resolve(county, case)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda number: say(county, f"cases/{case}", satisfied=number % 2 == 0, score=3),
                range(8),
            )
        )
    taken = {
        answer.json()["feedback"]["satisfied"] for answer in answers if answer.status_code == 200
    }
    assert len(taken) == 1
    assert {answer.status_code for answer in answers} == {200, 409}
    eventually("it is told", lambda: county.timeline(case, "case.feedback_given"))
    assert len(county.timeline(case, "case.feedback_given")) == 1
    ends = [
        event["type"]
        for event in county.timeline(case)
        if "closed" in event["type"] or "reopened" in event["type"]
    ]
    assert len(ends) == 1


def test_a_code_shows_no_more_than_its_page_whatever_is_sent_along(county: County) -> None:
    case = report(county, description="张三家门口的灯坏了")
    resolve(county, case)
    url = intake(county, f"tracking/{county.case(case)['tracking']}/feedback")
    answer = httpx.post(url, json={"satisfied": True}, headers={"If-Match": '"seen"'})
    assert answer.status_code == 200, answer.text
    assert "张三" not in answer.text
    assert answer.json().keys() == httpx.get(url.removesuffix("/feedback")).json().keys()


def test_what_is_done_with_a_report_is_done_as_it_was_seen(county: County) -> None:
    case = county.report(HOUSEHOLD, urgency="calm")
    eventually("the register knows who has it", lambda: county.case(case)["assigned"])
    stale = {"If-Match": '"seen"'}
    url = intake(county, f"cases/{case}")
    for what, body in (
        ("reopen", {"reason": "又坏了"}),
        ("feedback", {"satisfied": True}),
        ("withdraw", {"reason": "自己修好了"}),
    ):
        answer = county.ask("POST", f"{url}/{what}", json=body, headers=stale)
        assert (what, answer.status_code) == (what, 412)
        assert answer.json()["now"]["id"] == case
    seen = {"If-Match": county.ask("GET", url).headers["ETag"]}
    assert county.ask("POST", f"{url}/reopen", json=body, headers=seen).status_code == 409
    assert county.ask("POST", f"{url}/withdraw", json=body, headers=seen).status_code == 200


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "satisfied"),
        ({"satisfied": "vielleicht"}, "satisfied"),
        ({"satisfied": True, "score": 6}, "score"),
        ({"satisfied": True, "score": 0}, "score"),
        ({"satisfied": True, "comment": "很" * 2001}, "comment"),
        ({"satisfied": True, "comment": "\x1b[31m"}, "comment"),
        ({"satisfied": True, "mark": 5}, "mark"),
    ],
)
def test_bad_feedback_names_the_field(county: County, said: dict[str, Any], field: str) -> None:
    case = report(county)
    answer = say(county, f"cases/{case}", **said)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_a_wrong_code_is_no_case(county: County) -> None:
    assert (
        httpx.post(
            intake(county, "tracking/0000000001/feedback"), json={"satisfied": True}
        ).status_code
        == 422
    )
    assert (
        httpx.post(
            intake(county, "tracking/0000000000/feedback"), json={"satisfied": True}
        ).status_code
        == 404
    )


def test_a_withdrawn_case_ends_everywhere(county: County) -> None:
    case = report(county)
    county.arrived("township", case)
    url = intake(county, f"cases/{case}/withdraw")
    body = {"reason": "自己修好了"}
    assert county.ask("POST", url, "officer", json=body).status_code == 403
    assert county.ask("POST", url, json={}).json()["errors"][0]["field"] == "reason"
    # The portal whose token reported it may take it back.
    first = county.ask("POST", url, "reporter", json=body)
    assert (first.status_code, first.json()["status"]) == (200, "withdrawn")
    assert (
        county.ask("POST", url, "reporter", json=body).json()["withdrawal"]
        == first.json()["withdrawal"]
    )
    assert county.ask("POST", url, json=body).status_code == 409

    def ended() -> bool:
        entry = county.entry("township", case)
        return entry is not None and entry["status"] == "ended"

    eventually("the desk's entry ends", ended)
    answer = county.act("township", case, "acknowledge")
    assert (answer.status_code, answer.json()["stage"]) == (409, "withdrawn")
    assert county.custody(case)["next_due"] is None
    county.settled_everywhere(case)
    assert say(county, f"cases/{case}", satisfied=True).status_code == 409
    again = county.ask("POST", intake(county, f"cases/{case}/reopen"), json=body)
    assert (again.status_code, again.json()["stage"]) == (409, "withdrawn")
    tracking = httpx.get(intake(county, f"tracking/{first.json()['tracking']}")).json()
    assert (tracking["status"], tracking["ended_at"]) == (
        "withdrawn",
        first.json()["withdrawal"]["at"],
    )


def test_only_who_reported_it_withdraws_it(county: County) -> None:
    answer = county.ask(
        "POST",
        intake(county, "cases"),
        "operator",
        json={
            "division": GRID,
            "title": "路灯不亮",
            "category": "facility",
            "urgency": "ordinary",
            "source": "app",
        },
    )
    case = answer.json()["id"]
    for action, body in (("withdraw", {"reason": "重复"}), ("feedback", {"satisfied": True})):
        url = intake(county, f"cases/{case}/{action}")
        assert county.ask("POST", url, "reporter", json=body).status_code == 403


def test_the_notice_board_shows_what_ended_and_no_person(county: County) -> None:
    there = "469002104209"
    reporter = {"name": "王小二", "phone": "13800138000"}
    cases = [
        report(
            county,
            f"{there}010{number:02d}",
            title=f"李家门口 {number}",
            description="王小二家",
            reporter=reporter,
        )
        for number in range(1, 4)
    ]
    assert board(county, division=there).json()["cases"] == []
    for case in cases:
        resolve(county, case)
    assert say(county, f"cases/{cases[0]}", satisfied=True, comment="王小二谢谢").status_code == 200
    page = board(county, division=there)
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "public, max-age=60"
    shown = page.json()["cases"]
    assert [item["satisfied"] for item in shown] == [None, None, True]
    assert {item["status"] for item in shown} == {"resolved", "closed"}
    for item in shown:
        assert item.keys() == {
            *("place", "category", "category_title", "reported_on", "ended_on"),
            *("days", "outcome", "outcome_title", "status", "satisfied"),
        }
        assert item["place"]["code"] == there
        assert item["outcome_title"]["zh"] == "办结"
        assert len(item["reported_on"]) == 10
    for word in ("王小二", "李家", "138", f"{there}01", *cases):
        assert word not in page.text

    # Page by page it is the same, and who has it already is not sent it again.
    first = board(county, division=there, limit=2).json()
    second = board(county, division=there, limit=2, cursor=first["next"]).json()
    assert [*first["cases"], *second["cases"]] == shown
    assert second["next"] is None
    tag = {"If-None-Match": page.headers["ETag"]}
    again = httpx.get(intake(county, "public/cases"), params={"division": there}, headers=tag)
    assert (again.status_code, again.content) == (304, b"")

    # What is taken up again is not over.
    assert say(county, f"cases/{cases[1]}", satisfied=False).status_code == 200
    assert len(board(county, division=there).json()["cases"]) == 2
    township = board(county, division=there[:9], limit=100).json()["cases"]
    assert {item["place"]["code"] for item in township} >= {there}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"division": HOUSEHOLD}, "division"),
        ({"division": "469002999"}, "division"),
        ({"category": "dispute"}, "category"),
        ({"limit": 101}, "limit"),
        ({"cursor": "x"}, "cursor"),
    ],
)
def test_a_board_that_is_not_there_says_why(
    county: County, query: dict[str, Any], field: str
) -> None:
    answer = board(county, **query)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
