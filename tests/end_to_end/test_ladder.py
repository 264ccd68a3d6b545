"""A case climbs, stays where it is held, and stands still once it is resolved."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from services.grid.clock import Instant, plus, seconds_between
from tests.end_to_end.county import GRID, LEVELS, County, eventually


def test_a_case_that_nobody_answers_climbs_all_levels_and_is_supervised(county: County) -> None:
    case = county.report()
    shown = eventually(
        "supervision", lambda: (found := county.case(case))["supervised"] and found, 60
    )
    assert shown["address"]["level"] == "township"
    assert shown["address"]["division"] == "469002104"
    assert shown["token"]["hop"] == 3
    escalated = county.timeline(case, "case.escalated")
    assert [event["data"]["state"]["address"]["level"] for event in escalated] == list(LEVELS[1:])
    # Time is nominal: each level's clock starts when the last one's deadline was due.
    passed = county.timeline(case, "case.deadline_passed")
    starts = [event["data"]["state"]["clocks"]["level"]["started_at"] for event in escalated]
    assert starts == [event["data"]["passed"]["due"] for event in passed[:3]]
    rows = county.custody(case)["deadlines"]
    fired = [row for row in rows if row["status"] == "fired"]
    assert [row["level"] for row in fired[:4]] == list(LEVELS)
    assert all(row["fired_at"] >= row["due"] for row in fired)
    told = eventually("it is told", lambda: county.timeline(case, "case.supervised"))
    (supervised,) = told
    assert supervised["data"]["tell"] == ["469002"]
    county.settled_everywhere(case)
    kinds = Counter(event["type"] for event in county.timeline(case))
    assert kinds["case.escalated"] == 3
    assert kinds["case.released"] == 3


def test_supervision_is_repeated_until_the_case_is_settled(county: County) -> None:
    case = county.report(urgency="urgent")
    eventually(
        "a second supervision", lambda: len(county.timeline(case, "case.supervised")) >= 2, 90
    )
    supervised = county.timeline(case, "case.supervised")
    assert [event["data"]["times"] for event in supervised[:2]] == [1, 2]
    assert county.act("township", case, "resolve", outcome="settled").status_code == 200


def test_an_acknowledged_case_stays_until_its_resolve_deadline(county: County) -> None:
    case = county.report()
    entry = county.arrived("household", case)
    assert entry["assigned"]["officer"] == "h-007"
    assert county.act("household", case, "acknowledge", note="已接单").status_code == 200
    resolve = next(item["due"] for item in entry["deadlines"] if item["kind"] == "resolve")
    acknowledge = next(item["due"] for item in entry["deadlines"] if item["kind"] == "acknowledge")
    county.until(acknowledge)
    shown = eventually(
        "the acknowledgement", lambda: (found := county.case(case))["acknowledged"] and found
    )
    assert shown["status"] == "acknowledged"
    assert shown["address"]["level"] == "household"
    moved = eventually("the climb", lambda: county.timeline(case, "case.escalated"))
    passed = county.timeline(case, "case.deadline_passed")[0]["data"]["passed"]
    assert (passed["kind"], passed["due"]) == ("resolve", resolve)
    assert moved[0]["time"] >= resolve
    assert {row["status"] for row in county.custody(case)["deadlines"] if row["hop"] == 0} == {
        "fired",
        "met",
    }


def test_a_resolved_case_never_moves_again(county: County) -> None:
    case = county.report()
    entry = county.arrived("household", case)
    answer = county.act("household", case, "resolve", outcome="settled", note="已更换灯泡")
    assert answer.status_code == 200
    again = county.act("household", case, "resolve", outcome="settled", note="已更换灯泡")
    assert again.json() == answer.json()
    county.settled_everywhere(case)
    # A window in which every deadline that it had passes.
    county.until(max(item["due"] for item in entry["deadlines"]))
    shown = county.case(case)
    assert shown["status"] == "resolved"
    assert shown["resolution"]["outcome"] == "settled"
    assert county.timeline(case, "case.escalated") == []
    assert county.custody(case)["next_due"] is None
    assert county.entry("group", case) is None


def test_a_resolution_and_a_timeout_in_the_same_instant_end_resolved_everywhere(
    county: County,
) -> None:
    cases = [county.report() for _ in range(12)]
    dues = {}
    for case in cases:
        entry = county.arrived("household", case)
        dues[case] = next(
            item["due"] for item in entry["deadlines"] if item["kind"] == "acknowledge"
        )
    accepted: dict[str, bool] = {}

    def resolve(number: int, case: str) -> None:
        # Real milliseconds around the moment when it is due.
        offset = (number - 4) * 0.004
        wait = county.clock.real_seconds(seconds_between(county.clock.now(), Instant(dues[case])))
        time.sleep(max(0.0, wait + offset))
        answer = county.act("household", case, "resolve", outcome="settled")
        assert answer.status_code in (200, 409), answer.text
        accepted[case] = answer.status_code == 200
        if answer.status_code == 409:
            assert answer.json()["held_by"]["level"] == "group"

    threads = [threading.Thread(target=resolve, args=item) for item in enumerate(cases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(accepted.values())
    for case in cases:
        if accepted[case]:
            eventually(
                "it is resolved", lambda case=case: county.case(case)["status"] == "resolved"
            )
        county.settled_everywhere(case)
        shown = county.case(case)
        if accepted[case]:
            assert shown["resolution"]["outcome"] == "settled"
            moved = county.timeline(case, "case.escalated")
            assert shown["late_custody"] == bool(moved)
            group = county.entry("group", case)
            assert group is None or group["status"] == "ended"
        else:
            assert shown["address"]["level"] != "household"


def test_an_urgent_case_enters_at_the_township(county: County) -> None:
    case = county.report(GRID, urgency="urgent")
    entry = county.arrived("township", case)
    assert entry["address"]["division"] == "469002104"
    # Nobody is on duty there and nobody above leads: the desk says so.
    assert entry["assigned"]["officer"] is None
    assert county.entry("household", case) is None
    assert county.act("township", case, "resolve", outcome="explained").status_code == 200


def test_a_place_that_is_not_certain_enters_above_for_triage(county: County) -> None:
    village = county.report(None, address="博鳌镇沙美村文化广场旁")
    shown = county.case(village)
    assert shown["division"]["code"] == "469002104214"
    assert not shown["triage"]
    county.arrived("village", village)
    somewhere = county.report(None, address="不知道在哪里的路边")
    shown = county.case(somewhere)
    assert shown["division"]["code"] == "469002"
    assert shown["triage"]
    assert county.arrived("township", somewhere)["triage"]


def test_a_lead_stands_in_where_nobody_is_on_duty(county: County) -> None:
    case = county.report("46900210421403008")
    assert county.arrived("household", case)["assigned"] == {
        "officer": "g-03",
        "why": "deputy",
        "at": county.entry("household", case)["assigned"]["at"],
    }


def test_a_suspended_case_waits_its_longest_time_and_no_longer(county: County) -> None:
    case = county.report()
    entry = county.arrived("household", case)
    wrong = county.act("household", case, "suspend", reason="holidays")
    assert wrong.status_code == 422
    assert "waiting" in wrong.text
    assert (
        county.act("household", case, "suspend", reason="waiting", longest="9d").status_code == 422
    )
    answer = county.act("household", case, "suspend", reason="waiting", longest="2h")
    assert answer.status_code == 200, answer.text
    until = answer.json()["suspension"]["until"]
    moved = {item["kind"]: item["due"] for item in answer.json()["deadlines"]}
    before = {item["kind"]: item["due"] for item in entry["deadlines"]}
    for kind, due in moved.items():
        assert seconds_between(Instant(before[kind]), Instant(due)) == 2 * 3600
    # Sent again over a bad network it is the same.
    assert (
        county.act("household", case, "suspend", reason="waiting").json()["token"]
        == (answer.json()["token"])
    )
    # The desk does nothing any more: after the longest time it goes on by itself.
    passed = eventually("the deadline", lambda: county.timeline(case, "case.deadline_passed"))
    assert passed[0]["data"]["passed"]["due"] == moved["acknowledge"] > until
    rows = county.custody(case)["deadlines"]
    said = {(row["kind"], row["due"]): row["status"] for row in rows if row["hop"] == 0}
    assert said["acknowledge", before["acknowledge"]] == "moved"
    assert said["acknowledge", moved["acknowledge"]] == "fired"


def test_a_resumed_case_has_its_deadlines_back(county: County) -> None:
    case = county.report()
    county.arrived("household", case)
    assert county.act("household", case, "resume").status_code == 409
    assert county.act("household", case, "suspend", reason="waiting").status_code == 200
    answer = county.act("household", case, "resume", note="材料齐了")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["suspension"] is None
    (pause,) = shown["clocks"]["level"]["pauses"]
    stood = seconds_between(Instant(pause["starts"]), Instant(pause["ends"]))
    acknowledge = next(item for item in shown["deadlines"] if item["kind"] == "acknowledge")
    elapsed = seconds_between(Instant(shown["arrived_at"]), Instant(acknowledge["due"]))
    assert elapsed == pytest.approx(3600 + stood, abs=0.01)
    armed = eventually(
        "it is armed anew",
        lambda: (
            county.custody(case).get("next_due") == acknowledge["due"]
            or bool(county.timeline(case, "case.deadline_passed"))
        ),
    )
    assert armed


def test_the_level_above_grants_more_time_and_the_holder_has_it(county: County) -> None:
    case = county.report()
    county.arrived("household", case)
    assert county.act("household", case, "acknowledge").status_code == 200
    # While it waits there is time for all this, however slow the machine.
    waiting = county.act("household", case, "suspend", reason="waiting")
    assert waiting.status_code == 200, waiting.text
    assert county.act("household", case, "extend", by="9d", reason="路远").status_code == 422
    shows = [{"url": "https://files.example.org/lamp.jpg", "sha256": "0f" * 32, "name": "路.jpg"}]
    wanted = {"by": "1d", "reason": "路远", "attachments": shows}
    asked = county.act("household", case, "extend", **wanted)
    assert asked.status_code == 202, asked.text
    assert asked.json()["extension"]["attachments"] == shows
    identity = asked.json()["extension"]["id"]
    desk = f"{county.about['desks']['group']}/v1/desks/group/extensions"

    def arrived() -> bool:
        found = county.ask("GET", f"{desk}?status=asked&division={GRID}").json()["extensions"]
        return identity in [item["id"] for item in found]

    eventually("the request at the group's desk", arrived)
    seen = county.ask("GET", f"{desk}/{identity}")
    assert (seen.status_code, seen.json()["attachments"]) == (200, shows)
    said, now = {"note": "同意", "attachments": shows}, {"If-Match": seen.headers["ETag"]}
    other = {"If-Match": '"of another version"'}
    stale = county.ask("POST", f"{desk}/{identity}/grant", json=said, headers=other)
    assert (stale.status_code, stale.json()["now"]["status"]) == (412, "asked")
    granted = county.ask("POST", f"{desk}/{identity}/grant", json=said, headers=now)
    assert granted.status_code == 200, granted.text
    again = county.ask("POST", f"{desk}/{identity}/grant", json=said, headers=now)
    assert (again.status_code, again.json()) == (200, granted.json())
    assert county.ask("POST", f"{desk}/{identity}/refuse", json={}).status_code == 409
    assert county.ask("GET", f"{desk}/{'0' * 36}").status_code == 404
    deadlines = waiting.json()["deadlines"]
    resolve = next(item["due"] for item in deadlines if item["kind"] == "resolve")
    later = plus(Instant(resolve), 86400)
    eventually("the extended deadline", lambda: county.custody(case).get("next_due") == later)
    (extended,) = eventually("the record", lambda: county.timeline(case, "case.extended"))
    assert extended["data"]["extension"]["reason"] == "路远"
    (told,) = county.timeline(case, "case.extension_granted")
    assert told["data"]["answer"]["attachments"] == shows
    row = next(row for row in county.custody(case)["deadlines"] if row["due"] == later)
    assert "extended by 1d" in " ".join(row["counted"])
    again = county.act("household", case, "extend", by="1d", reason="还是远")
    assert again.status_code == 409


def test_a_reopened_case_goes_on_with_the_time_already_spent(county: County) -> None:
    case = county.report()
    county.arrived("household", case)
    reopen = f"{county.about['intake']}/v1/cases/{case}/reopen"
    assert county.ask("POST", reopen, json={"reason": "又漏了"}).status_code == 409
    assert county.act("household", case, "resolve", outcome="settled").status_code == 200
    eventually("the resolution", lambda: county.case(case)["status"] == "resolved")
    shows = [{"url": "https://files.example.org/lamp.jpg", "sha256": "0f" * 32}]
    wanted = {"reason": "又漏了", "attachments": shows}
    answer = county.ask("POST", reopen, json=wanted)
    assert answer.status_code == 200, answer.text
    (told,) = eventually("it is told", lambda: county.timeline(case, "case.reopened"))
    assert told["data"]["reopening"]["attachments"] == shows
    assert county.ask("POST", reopen, json={"reason": "又漏了"}).json()["token"]["round"] == 2
    shown = answer.json()
    assert (shown["token"]["round"], shown["token"]["hop"]) == (2, 0)
    assert [pause["reason"] for pause in shown["clocks"]["case"]["pauses"]] == ["ended"]
    eventually(
        "its second entry",
        lambda: (entry := county.entry("household", case)) and entry["status"] == "live",
    )
    county.settled_everywhere(case)
    moved = eventually("the climb", lambda: county.timeline(case, "case.escalated"))
    assert moved[0]["data"]["state"]["token"]["round"] == 2
