"""Duplicates on real servers: merged in every way at once, and what becomes of each case."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from services.grid.clock import plus
from tests.end_to_end.county import GRID, County, eventually

VILLAGE, OTHER_VILLAGE, TOWN = "469002104214", "469002104205", "469002104"
WHY = "同一盏路灯"
PICTURE = {"url": "https://files.example.org/lamp.jpg", "sha256": "0f" * 32, "name": "路灯.jpg"}


def calm(county: County, division: str = GRID, **more: Any) -> str:
    """A case with time for whatever a test does, of which the custodian has heard."""
    case = county.report(division, **{"urgency": "calm", **more})
    eventually("the custodian has heard of it", lambda: county.custody(case))
    return case


def several(county: County, count: int, **more: Any) -> list[str]:
    """Some cases, the oldest first."""
    return [calm(county, **more) for _ in range(count)]


def merge(county: County, case: str, other: str, role: str = "operator") -> httpx.Response:
    return county.act("village", case, "merge", role, **{"with": other, "reason": WHY})


def merged(county: County, case: str, other: str) -> dict[str, Any]:
    answer = merge(county, case, other)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def at_once(*acts: Any) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(acts)) as pool:
        return [done.result() for done in [pool.submit(act) for act in acts]]


def follow(county: County, lead: str, *cases: str) -> None:
    """All of these follow ``lead``, which follows none, in the register and at their desks."""

    def known() -> bool:
        shown = {case: county.case(case) for case in (lead, *cases)}
        return (
            [shown[case]["follows"] for case in cases] == [lead] * len(cases)
            and shown[lead]["follows"] is None
            and shown[lead]["followers"] == sorted(cases)
        )

    eventually(f"{cases} follow {lead}", known)
    for case in (lead, *cases):
        county.settled_everywhere(case)
    level = county.case(lead)["address"]["level"]
    eventually(
        "the desk knows who follows",
        lambda: county.latest(level, lead).json()["followers"] == sorted(cases),
    )


def resolved(county: County, case: str) -> dict[str, Any]:
    """A case once it is resolved."""
    eventually(f"{case} is resolved", lambda: county.case(case)["status"] == "resolved")
    county.settled_everywhere(case)
    return county.case(case)


def test_each_merged_into_the_other_at_once_is_one_merge(county: County) -> None:
    for _ in range(5):
        older, younger = several(county, 2)
        answers = at_once(
            lambda older=older, younger=younger: merge(county, older, younger),
            lambda older=older, younger=younger: merge(county, younger, older),
        )
        for answer in answers:
            assert answer.status_code == 200, answer.text
            said = answer.json()
            assert (said["kept"]["case"], said["follower"]["case"]) == (older, younger)
        follow(county, older, younger)
        assert len(county.timeline(younger, "case.followed")) == 1
        assert len(county.timeline(older, "case.merged")) == 1
        # Once more it changes nothing.
        merged(county, older, younger)
        assert len(county.timeline(younger, "case.followed")) == 1


def test_what_is_done_with_the_kept_one_is_done_with_its_follower(county: County) -> None:
    older, younger = several(county, 2)
    before = county.case(younger)
    merged(county, younger, older)
    follow(county, older, younger)
    after = county.case(younger)
    assert after["deadlines"] == before["deadlines"]
    assert county.latest("household", younger).json()["follows"] == older

    def recipients(case: str, about: str) -> list[str]:
        sent = county.timeline(case, "notification.delivered")
        items = [event["data"]["notification"] for event in sent]
        return [item["recipient"] for item in items if item["about"] == about]

    for case, about in ((older, "case.merged"), (younger, "case.followed")):
        (recipient,) = eventually(
            "it is told", lambda case=case, about=about: recipients(case, about)
        )
        # Whoever is assigned; the desk, if the merge's hop was told before somebody was.
        officer = county.case(case)["assigned"]["officer"]
        assert recipient in {f"officer:{officer}", f"desk:household:{GRID}"}
    tracking = county.ask("GET", f"{county.about['intake']}{after['links']['tracking']}").json()
    assert tracking["merged"] is True
    done = county.act("household", older, "resolve", outcome="explained", note="已说明")
    assert done.status_code == 200, done.text
    shown = resolved(county, younger)
    said = shown["resolution"]
    assert (said["outcome"], said["note"], said["followed"]) == ("explained", "已说明", older)
    assert said["by"] == done.json()["resolution"]["by"]
    # Each reporter is asked, and says for themselves.
    assert shown["closing"]
    url = f"{county.about['intake']}/v1/cases"
    told = {"satisfied": False}
    assert county.ask("POST", f"{url}/{older}/feedback", json=told).status_code == 200
    county.arrived("household", older)
    assert county.case(younger)["status"] == "resolved"
    told = {"satisfied": True}
    assert county.ask("POST", f"{url}/{younger}/feedback", json=told).status_code == 200
    assert county.case(younger)["status"] == "closed"
    late = merge(county, older, younger)
    assert (late.status_code, late.json()["case"]) == (409, younger)
    assert late.json()["held_by"]["level"] == "household"


def test_three_are_merged_by_everybody_at_once(county: County) -> None:
    for _ in range(3):
        cases = several(county, 3)
        pairs = list(permutations(cases, 2))
        answers = at_once(
            *[lambda one=one, other=other: merge(county, one, other) for one, other in pairs]
        )
        assert [answer.status_code for answer in answers] == [200] * len(pairs)
        follow(county, *cases)
        assert county.act("household", cases[0], "resolve", outcome="settled").status_code == 200
        for case in cases[1:]:
            assert resolved(county, case)["resolution"]["followed"] == cases[0]


def test_merged_and_resolved_at_once(county: County) -> None:
    for ends in (0, 1, 0, 1):
        pair = several(county, 2)
        for case in pair:
            county.arrived("household", case)
        done, joined = at_once(
            lambda pair=pair, ends=ends: county.act(
                "household", pair[ends], "resolve", outcome="settled"
            ),
            lambda pair=pair: merge(county, *pair),
        )
        # The hop of the merge may have come first: then it is resolved as it is now.
        if done.status_code == 409:
            county.arrived("household", pair[ends])
            done = county.act("household", pair[ends], "resolve", outcome="settled")
        assert done.status_code == 200, done.text
        assert joined.status_code in (200, 409)
        resolved(county, pair[ends])
        if ends == 0 and joined.status_code == 200:
            resolved(county, pair[1])
        else:
            other = county.case(pair[1 - ends])
            assert (other["status"], other["follows"]) == ("reported", None)


def test_what_its_holder_does_while_it_is_merged_counts(county: County) -> None:
    for action in ("acknowledge", "escalate") * 3:
        older, younger = several(county, 2)
        county.arrived("household", younger)
        said = {"reason": "超出职权"} if action == "escalate" else {}

        def act(case: str = younger, what: str = action, **more: Any) -> httpx.Response:
            return county.act("household", case, what, **more)

        done, joined = at_once(
            lambda act=act, said=said: act(**said),
            lambda one=older, two=younger: merge(county, one, two),
        )
        assert joined.status_code == 200, joined.text
        if done.status_code == 409:
            # Only in the moment between its release and its arrival, which the answer says.
            assert done.json()["held_by"]["level"] == "household"
            continue
        assert done.status_code in (200, 202), done.text
        follow(county, older, younger)
        if action == "escalate":
            county.arrived("group", younger)
        else:
            shown = county.latest("household", younger).json()
            assert shown["acknowledged"] is not None, shown


def test_the_most_urgent_urgency_and_the_earliest_deadline(county: County) -> None:
    older = calm(county, VILLAGE)
    county.arrived("village", older)
    before = county.case(older)
    younger = calm(county, VILLAGE, urgency="ordinary")
    theirs = {item["kind"]: item["due"] for item in county.case(younger)["deadlines"]}
    merged(county, older, younger)
    follow(county, older, younger)
    shown = county.case(older)
    assert shown["urgency"] == "ordinary"
    mine = {item["kind"]: item for item in shown["deadlines"]}
    for kind in ("acknowledge", "resolve"):
        was = next(item["due"] for item in before["deadlines"] if item["kind"] == kind)
        assert mine[kind]["due"] == min(theirs[kind], was) == theirs[kind]
        assert mine[kind]["counted"][-1] == f"taken over from {younger}"
    assert (shown["token"]["hop"], shown["address"]) == (1, before["address"])
    rows = county.custody(older)["deadlines"]
    armed = {row["kind"]: row["due"] for row in rows if row["status"] == "armed"}
    assert armed["resolve"] == theirs["resolve"]
    (hop,) = county.timeline(older, "case.transferred")
    assert hop["data"]["reason"] == "merged"


def test_a_follower_climbs_by_its_own_time_and_is_resolved_where_it_is(county: County) -> None:
    older = calm(county, VILLAGE)
    younger = calm(county, GRID, urgency="ordinary")
    # The older one is given the younger one's time, and settled before that is over.
    merged(county, older, younger)
    follow(county, older, younger)
    county.arrived("village", older)
    assert county.act("village", older, "acknowledge").status_code == 200
    # An hour at the household, of which this one knows by itself.
    county.arrived("group", younger)
    assert county.case(younger)["follows"] == older
    assert county.act("village", older, "resolve", outcome="settled").status_code == 200
    shown = resolved(county, younger)
    assert shown["resolution"]["followed"] == older
    assert shown["token"]["hop"] >= 2


def test_a_desk_that_is_down_holds_no_follower(county: County) -> None:
    older = calm(county, VILLAGE)
    younger = calm(county, GRID, urgency="ordinary")
    merged(county, older, younger)
    follow(county, older, younger)
    county.stack.stop("dispatch-household")

    def resolved() -> bool:
        # It has the younger one's time, and may have climbed while the desk stopped.
        level = county.case(older)["address"]["level"]
        return county.act(level, older, "resolve", outcome="settled").status_code == 200

    try:
        eventually("who holds the older one resolves it", resolved)
        shown = eventually(
            "the next desk resolves it",
            lambda: (found := county.case(younger))["status"] == "resolved" and found,
        )
        assert shown["address"]["level"] != "household"
    finally:
        county.stack.start("dispatch-household")
    county.settled_everywhere(younger)


def test_one_that_is_withdrawn_frees_its_followers(county: County) -> None:
    cases = several(county, 3)
    merged(county, cases[0], cases[1])
    merged(county, cases[2], cases[0])
    follow(county, *cases)
    url = f"{county.about['intake']}/v1/cases/{cases[0]}/withdraw"
    assert county.ask("POST", url, json={"reason": "报错了"}).status_code == 200
    for case in cases[1:]:
        eventually("it is free", lambda case=case: county.case(case)["follows"] is None)
        assert county.case(case)["status"] == "reported"
        assert county.timeline(case, "case.followed")[-1]["data"]["following"]["why"] == "withdrawn"
    merged(county, cases[2], cases[1])
    follow(county, cases[1], cases[2])


def test_killed_custodians_lose_no_merge(county: County) -> None:
    older, younger = several(county, 2)
    urgent = calm(county, urgency="ordinary")
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(merge, county, *pair) for pair in ((older, younger), (urgent, younger))
        ]
        county.kill("escalation")
        answers = [done.result() for done in asked]
    assert [answer.status_code for answer in answers] == [200, 200]
    follow(county, older, younger, urgent)
    assert county.case(older)["urgency"] == "ordinary"

    def done() -> bool:
        # It has the urgent one's hour, and may have climbed on a busy machine.
        level = county.case(older)["address"]["level"]
        return county.act(level, older, "resolve", outcome="settled").status_code == 200

    eventually("who holds the older one resolves it", done)
    county.kill("escalation")
    for case in (older, younger, urgent):
        resolved(county, case)


@pytest.fixture(scope="module")
def people(county: County) -> County:
    county.let("m-214", "officer", VILLAGE, "village")
    county.let("m-205", "officer", OTHER_VILLAGE, "village")
    county.let("m-104", "lead", TOWN, "township")
    return county


def test_who_may_merge_acts_for_the_one_and_reads_the_other(people: County) -> None:
    here, there = calm(people, VILLAGE), calm(people, OTHER_VILLAGE)
    own = calm(people, GRID)
    assert merge(people, here, own, "m-214").status_code == 200
    for case, other, role in (
        (here, there, "m-214"),
        (there, here, "m-214"),
        (here, own, "m-205"),
        (here, there, "auditor"),
        (here, there, "reporter"),
    ):
        answer = merge(people, case, other, role)
        assert answer.status_code == 403, answer.text
    assert people.case(there)["follows"] is None
    answer = merge(people, there, here, "m-104")
    assert (answer.status_code, answer.json()["kept"]["case"]) == (200, here)
    follow(people, here, *sorted([own, there]))
    entry = people.audit("village", case=there)[0]
    assert (entry["who"], entry["status"]) == ("m-104", 200)
    assert set(entry["cases"]) >= {here, there}


def test_a_desk_that_lost_the_case_does_not_merge_it(people: County) -> None:
    here, other = calm(people, VILLAGE), calm(people, VILLAGE)
    people.arrived("village", here)
    up = people.act("village", here, "escalate", reason="超出职权")
    assert up.status_code == 200
    answer = merge(people, here, other, "m-214")
    assert answer.status_code == 403
    assert answer.json()["held_by"]["level"] == "township"


def test_what_is_wrong_is_named(county: County) -> None:
    case, nowhere = calm(county), str(uuid.uuid4())
    for body, field in (
        ({"reason": WHY}, "with"),
        ({"with": case, "reason": WHY}, "with"),
        ({"with": nowhere, "reason": WHY}, "with"),
        ({"with": "", "reason": WHY}, "with"),
        ({"with": nowhere}, "reason"),
        ({"with": nowhere, "reason": "电话 13800138000"}, "reason"),
    ):
        answer = county.act("village", case, "merge", "operator", **body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    body = {"with": nowhere, "reason": WHY, "other": case}
    misnamed = county.act("village", case, "merge", "operator", **body)
    assert "the fields are attachments, reason, with" in misnamed.json()["errors"][0]["detail"]
    assert merge(county, nowhere, case).status_code == 404


def link(county: County, case: str, other: str, action: str = "link") -> httpx.Response:
    url = f"{county.about['desks']['village']}/v1/desks/village/cases/{case}/{action}"
    return county.ask("POST", url, json={"case": other})


def test_linked_cases_show_each_other_and_nothing_else_changes(county: County) -> None:
    one, other, third = several(county, 3)
    tokens = [county.case(case)["token"] for case in (one, other)]
    for answer in at_once(lambda: link(county, one, other), lambda: link(county, other, one)):
        assert answer.status_code == 200, answer.text
    assert other in link(county, one, third).json()["linked"]

    def shown(case: str) -> list[str]:
        found: list[str] = county.case(case)["linked"]
        return found

    eventually(
        "both show it", lambda: (shown(one), shown(other)) == (sorted([other, third]), [one])
    )
    assert [county.case(case)["token"] for case in (one, other)] == tokens
    for case in (one, other):
        linked = [event["data"]["link"] for event in county.timeline(case, "case.linked")]
        assert len([item for item in linked if item["case"] in (one, other)]) == 1
    assert link(county, other, one, "unlink").json()["linked"] == []
    eventually("neither shows it", lambda: (shown(one), shown(other)) == ([third], []))
    nowhere = str(uuid.uuid4())
    for wrong in (one, nowhere):
        answer = link(county, one, wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "case")
    assert link(county, nowhere, one).status_code == 404


def test_what_may_be_the_same_is_suggested(people: County) -> None:
    place = "46900210421405002"
    said = {"title": "水塘边护栏损坏", "description": "小孩在边上玩, 很危险"}
    case = people.report(place, urgency="calm", **said)
    # The one that was there first is kept.
    people.until(people.case(case)["reported_at"])
    same = people.report(
        place, urgency="calm", title="水塘边的护栏坏了", description="怕小孩掉下去"
    )
    near = people.report("46900210421405003", urgency="calm", **said)
    people.report(place, urgency="calm", category="order", **said)
    people.report(OTHER_VILLAGE, urgency="calm", **said)
    gone = people.report(place, urgency="calm", **said)
    url = f"{people.about['intake']}/v1/cases"
    assert people.ask("POST", f"{url}/{gone}/withdraw", json={"reason": "重复"}).status_code == 200

    def alike(case: str, role: str = "operator", **query: Any) -> dict[str, Any]:
        answer = people.ask("GET", f"{url}/{case}/duplicates", role, params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    found = alike(case)
    assert {item["id"] for item in found["duplicates"]} >= {same, near}
    assert not {item["id"] for item in found["duplicates"]} & {case, gone}
    assert {item["id"] for item in alike(same)["duplicates"]} >= {case}
    by_id = {item["id"]: item for item in found["duplicates"]}
    assert (by_id[near]["why"]["words"], by_id[near]["why"]["place"]) == (1.0, "beside")
    assert by_id[same]["why"]["place"] == "same"
    assert all(0.45 <= item["score"] <= 1 for item in found["duplicates"])
    assert "危险" not in str(found)
    assert len(alike(case, limit=1)["duplicates"]) == 1
    # Of another village one sees nothing.
    answer = people.ask("GET", f"{url}/{case}/duplicates", "m-205")
    assert answer.status_code == 403
    far = plus(people.clock.now(), -4 * 86400)
    assert found["within_seconds"] == 3 * 86400
    assert all(item["reported_at"] > far for item in found["duplicates"])
    merged(people, same, case)
    eventually(
        "it is told",
        lambda: {item["id"]: item["follows"] for item in alike(case)["duplicates"]}[same] == case,
    )


def entry_of(database: Any, case: str, **changed: Any) -> None:
    """A household's desk has done something of which nobody else has heard."""
    fields = {f"document.{name}": value for name, value in changed.items()}
    done = database["docket_household"].update_one({"_id": f"{case}:1.0"}, {"$set": fields})
    assert done.matched_count == 1


@pytest.fixture
def database(county: County) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](county.about["mongodb"]) as client:
        yield client["huashi"]


def test_who_resolved_it_before_hearing_of_the_merge_is_believed(
    county: County, database: Any
) -> None:
    older, younger = several(county, 2)
    county.arrived("household", younger)
    # As if the event of the resolution were still on its way.
    entry_of(database, younger, status="ended", ended="resolved")
    answer = merge(county, older, younger)
    assert answer.status_code == 409, answer.text
    said = answer.json()
    assert (said["case"], said["stage"]) == (younger, "resolved")
    assert said["held_by"]["level"] == "household"
    assert "before its desk heard" in said["detail"]


def test_what_is_answered_of_a_merge_is_so_in_the_end(county: County) -> None:
    """A resolution of the younger one that is on its way, at the same time."""
    for _ in range(6):
        older, younger = several(county, 2)
        county.arrived("household", younger)
        done, joined = at_once(
            lambda younger=younger: county.act(
                "household", younger, "resolve", outcome="settled", note="自己的"
            ),
            lambda older=older, younger=younger: merge(county, older, younger),
        )
        assert joined.status_code in (200, 409)
        if joined.status_code == 409:
            assert done.status_code == 200, done.text
            assert joined.json()["stage"] == "resolved"
            assert resolved(county, younger)["follows"] is None
            eventually("nobody follows", lambda older=older: not county.case(older)["followers"])
        else:
            # It may have been resolved as a follower, after the desk had heard.
            county.settled_everywhere(younger)
            assert county.case(younger)["follows"] == older


def test_a_merge_of_which_the_desk_has_not_heard_is_not_promised(county: County) -> None:
    older, younger = several(county, 2)
    county.arrived("household", younger)
    county.stack.stop("dispatch-household")
    try:
        asked = merge(county, older, younger)
        assert asked.status_code == 202, asked.text
        assert asked.json()["follower"]["case"] == younger
        # The desk that was asked has nothing to show of it: one asks once more.
        assert "Location" not in asked.headers
        assert county.custody(younger)["follows"] == older
    finally:
        county.stack.start("dispatch-household")
    follow(county, older, younger)
    merged(county, older, younger)


def test_cases_are_merged_supervised_and_linked_as_they_were_seen(county: County) -> None:
    older, younger = several(county, 2)
    custodian = f"{county.about['escalation']}/v1/cases"
    desk = f"{county.about['desks']['village']}/v1/desks/village/cases"
    seen = county.ask("GET", f"{custodian}/{younger}/deadlines")
    tag = seen.headers["ETag"]
    county.arrived("household", younger)
    assert county.act("household", younger, "acknowledge").status_code == 200
    eventually("it is heard", lambda: county.custody(younger)["custody"]["token"]["seq"] > 1)
    stale = {"If-Match": tag}
    body = {"with": older, "reason": WHY, "attachments": [PICTURE]}
    wrong = county.ask("POST", f"{desk}/{younger}/merge", json=body, headers=stale)
    assert (wrong.status_code, wrong.json()["now"]["case"]) == (412, younger)
    watch = {"reason": "群众多次反映", "attachments": [PICTURE]}
    wrong = county.ask("POST", f"{desk}/{younger}/supervise", json=watch, headers=stale)
    assert wrong.status_code == 412
    assert county.custody(younger)["supervised"] is None
    now = {"If-Match": wrong.headers["ETag"]}
    done = county.ask("POST", f"{desk}/{younger}/supervise", json=watch, headers=now)
    assert done.status_code == 200, done.text
    # The same again is done already, whatever it has become since.
    again = county.ask("POST", f"{desk}/{younger}/supervise", json=watch, headers=stale)
    assert (again.status_code, again.json()) == (200, done.json())
    wrong = county.ask("POST", f"{desk}/{younger}/merge", json=body, headers=now)
    assert wrong.status_code == 412
    now = {"If-Match": done.headers["ETag"]}
    joined = county.ask("POST", f"{desk}/{younger}/merge", json=body, headers=now)
    assert joined.status_code == 200, joined.text
    (told,) = eventually("it is told", lambda: county.timeline(younger, "case.supervised"))
    assert told["data"]["supervisor"]["attachments"] == [PICTURE]
    (said,) = eventually("it is told", lambda: county.timeline(younger, "case.followed"))
    assert said["data"]["following"]["attachments"] == [PICTURE]
    follow(county, older, younger)

    url = f"{county.about['intake']}/v1/cases/{older}"
    seen = county.ask("GET", url)
    at_desk = {"level": "village", "division": VILLAGE}
    first = {"If-Match": seen.headers["ETag"]}
    watched = county.ask("POST", f"{desk}/{older}/watch", json=at_desk, headers=first)
    assert watched.status_code == 200, watched.text
    third = calm(county)
    link_ = {"case": third, "note": "同一片区", "attachments": [PICTURE]}
    for action, told_ in (("unwatch", at_desk), ("link", link_)):
        answer = county.ask("POST", f"{desk}/{older}/{action}", json=told_, headers=first)
        assert (answer.status_code, answer.json()["now"]["id"]) == (412, older)
    second = {"If-Match": watched.headers["ETag"]}
    linked = county.ask("POST", f"{desk}/{older}/link", json=link_, headers=second)
    assert (linked.status_code, linked.json()["linked"]) == (200, [third])
    for case in (older, third):
        (event,) = eventually("both say so", lambda case=case: county.timeline(case, "case.linked"))
        assert (event["data"]["note"], event["data"]["attachments"]) == ("同一片区", [PICTURE])
