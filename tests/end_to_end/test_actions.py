"""What people do to a case at its desk, on real servers: each does what one would expect."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import amqp
import httpx
import pytest
from kombu.connection import Connection

from services.bus import topology
from tests.contract import documented
from tests.end_to_end.county import GRID, County, eventually

PICTURE = {"url": "https://files.example.org/lamp.jpg", "sha256": "0f" * 32, "name": "路灯.jpg"}
OTHER_VILLAGE = "469002104205"


def calm(county: County, level: str = "household") -> str:
    """A case that has come to a desk, with time for whatever a test does."""
    place = {"household": GRID, "village": "469002104214", "township": "469002104"}[level]
    case = county.report(place, urgency="calm")
    county.arrived(level, case)
    return case


def holder(county: County, case: str) -> dict[str, Any]:
    """Who holds a case, as the custodian says."""
    found: dict[str, Any] = county.custody(case)["custody"]["address"]
    return found


def at_desk(county: County, level: str, case: str, division: str) -> dict[str, Any]:
    """The live, assigned entry of a case at a division that a desk serves."""

    def there() -> dict[str, Any] | None:
        answer = county.latest(level, case)
        entry: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        live = entry.get("status") == "live" and entry["assigned"]
        return entry if live and entry["address"]["division"] == division else None

    return eventually(f"{case} at {level} {division}", there)


def at_once(*acts: Any) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(acts)) as pool:
        return [done.result() for done in [pool.submit(act) for act in acts]]


def test_two_officers_who_acknowledge_at_once(county: County) -> None:
    for _ in range(5):
        case = calm(county)
        first, second = at_once(
            lambda case=case: county.act("household", case, "acknowledge"),
            lambda case=case: county.act("household", case, "acknowledge", role="operator"),
        )
        assert sorted([first.status_code, second.status_code]) == [200, 409]
        won, lost = (first, second) if first.status_code == 200 else (second, first)
        accepted = won.json()["acknowledged"]
        assert lost.json()["acknowledged"] == accepted
        assert f"{accepted['by']} has acknowledged" in lost.json()["detail"]
        eventually(
            "everybody knows",
            lambda case=case, accepted=accepted: county.case(case)["acknowledged"] == accepted,
        )
        county.settled_everywhere(case)


def test_two_requests_at_once(county: County) -> None:
    for _ in range(5):
        case = calm(county, "village")
        up, aside = at_once(
            lambda case=case: county.act("village", case, "escalate", reason="超出本村职权"),
            lambda case=case: county.act(
                "village",
                case,
                "transfer",
                role="operator",
                reason="属于朝烈村",
                to={"division": OTHER_VILLAGE},
            ),
        )
        assert sorted([up.status_code, aside.status_code]) == [200, 409]
        county.settled_everywhere(case)
        level = "township" if up.status_code == 200 else "village"
        assert (holder(county, case)["level"], county.case(case)["token"]["hop"]) == (level, 1)


def test_a_note_is_kept_with_what_shows_it(county: County) -> None:
    case = calm(county)
    said = {"note": "已到现场，灯杆漏电", "attachments": [PICTURE]}
    answer = county.act("household", case, "note", **said)
    assert answer.status_code == 200, answer.text
    (note,) = answer.json()["notes"]
    assert (note["text"], note["attachments"]) == (said["note"], [PICTURE])
    # Sent again over a bad network it is the same note; under a key it can be another one.
    assert county.act("household", case, "note", **said).json() == answer.json()
    key = {"Idempotency-Key": str(uuid.uuid4())}
    another = county.act("household", case, "note", headers=key, **said)
    assert len(another.json()["notes"]) == 2
    assert county.act("household", case, "note", headers=key, **said).json() == another.json()
    reused = county.act("household", case, "note", headers=key, note="别的")
    assert (reused.status_code, "use a new key" in reused.text) == (409, True)
    assert county.act("household", case, "note", note="").status_code == 422
    wrong = [{**PICTURE, "sha256": "0F"}]
    refused = county.act("household", case, "note", note="图", attachments=wrong)
    assert refused.json()["errors"][0]["field"] == "attachments.0.sha256"
    assert county.act("household", case, "note", note="电话 13800138000").status_code == 422
    noted = eventually("both notes", lambda: len(county.timeline(case, "case.noted")) == 2)
    assert noted
    assert county.timeline(case, "case.noted")[0]["data"]["note"] == note
    county.settled_everywhere(case)
    shown = county.act(
        "household", case, "resolve", outcome="settled", note="已更换", attachments=[PICTURE]
    )
    assert shown.status_code == 200, shown.text
    (resolved,) = eventually("it is told", lambda: county.timeline(case, "case.resolved"))
    assert resolved["data"]["attachments"] == [PICTURE]


def test_a_granted_escalation_says_who_holds_the_case_now(county: County) -> None:
    case = calm(county)
    before = county.latest("household", case).json()
    answer = county.act("household", case, "escalate", reason="需要电工", attachments=[PICTURE])
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["request"]["answer"], shown["status"]) == ("granted", "ended")
    assert shown["held_by"]["level"] == "group"
    again = county.act("household", case, "escalate", reason="需要电工", attachments=[PICTURE])
    assert (again.status_code, again.json()) == (200, shown)
    group = county.arrived("group", case)
    (moved,) = eventually("the hop", lambda: county.timeline(case, "case.escalated"))
    assert moved["data"]["reason"] == "requested"
    asked = moved["data"]["request"]
    assert (asked["reason"], asked["by"], asked["attachments"]) == (
        "需要电工",
        "officer",
        [PICTURE],
    )
    # The level's clock starts at the grant; the case's own goes on.
    assert group["clocks"]["level"]["started_at"] == moved["time"] > before["arrived_at"]
    assert group["clocks"]["case"] == before["clocks"]["case"]
    county.settled_everywhere(case)
    assert len(county.timeline(case, "case.escalated")) == 1


def test_a_case_goes_down_sideways_and_back(county: County) -> None:
    case = calm(county, "township")
    to = {"division": OTHER_VILLAGE}
    down = county.act("township", case, "delegate", reason="就近处理", to=to)
    assert down.status_code == 200, down.text
    village = at_desk(county, "village", case, OTHER_VILLAGE)
    assert village["assigned"]["officer"] == "v-205"
    aside = county.act(
        "village", case, "transfer", reason="属于沙美村", to={"division": "469002104214"}
    )
    assert aside.status_code == 200, aside.text
    at_desk(county, "village", case, "469002104214")
    # The same desk serves both villages: sent again, it is the first answer.
    again = county.act(
        "village", case, "transfer", reason="属于沙美村", to={"division": "469002104214"}
    )
    assert (again.status_code, again.json()) == (200, aside.json())
    for division in (OTHER_VILLAGE, None):
        back = county.act("village", case, "return", reason=f"无力办理 {division}")
        assert back.status_code == 200, back.text
        if division is not None:
            at_desk(county, "village", case, division)
    at_desk(county, "township", case, "469002104")
    county.settled_everywhere(case)
    kinds = [
        (event["type"], event["data"]["request"]["reason"])
        for event in county.timeline(case)
        if event["type"] in ("case.delegated", "case.transferred", "case.returned")
    ]
    assert kinds == [
        ("case.delegated", "就近处理"),
        ("case.transferred", "属于沙美村"),
        ("case.returned", f"无力办理 {OTHER_VILLAGE}"),
        ("case.returned", "无力办理 None"),
    ]
    unsent = county.act("township", case, "return", reason="不是我们的")
    assert unsent.status_code == 409
    assert (unsent.json()["why"], unsent.json()["held_by"]["level"]) == (
        "nobody_sent_it",
        "township",
    )
    # It was asked for, which is in the events, and so in the trail.
    asked = county.audit("township", case=case)[0]
    assert (asked["status"], asked["changes"][0]["case"]) == (409, case)


def test_a_unit_has_a_case_with_its_own_officer(county: County) -> None:
    case = calm(county, "township")
    wrong = county.act("township", case, "transfer", reason="归口", to={"unit": "center"})
    assert wrong.json()["errors"] == [
        {
            "field": "to.unit",
            "detail": "'center' is not known: did you mean centre? Allowed: centre",
        }
    ]
    assert county.act("township", case, "transfer", reason="归口").status_code == 422
    answer = county.act("township", case, "transfer", reason="归口", to={"unit": "centre"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["held_by"]["unit"] == "centre"
    entry = eventually(
        "the unit's officer",
        lambda: (found := county.latest("township", case).json())["assigned"] and found,
    )
    assert (entry["address"]["unit"], entry["assigned"]["officer"]) == ("centre", "u-1")


def test_a_delegated_case_that_times_out_climbs_again(county: County) -> None:
    case = county.report("469002104", urgency="urgent")
    county.arrived("township", case)
    down = county.act("township", case, "delegate", reason="就近处理", to={"division": GRID})
    assert down.status_code == 200, down.text
    moved = eventually("the climb", lambda: county.timeline(case, "case.escalated"))
    assert moved[0]["data"]["reason"] == "deadline_missed"
    assert moved[0]["data"]["previous"]["level"] == "household"
    assert moved[0]["data"]["state"]["address"]["level"] == "group"


def test_an_acknowledgement_that_comes_late_says_who_holds_the_case(county: County) -> None:
    case = county.report()
    county.arrived("household", case)
    eventually("the climb", lambda: county.timeline(case, "case.escalated"))
    eventually("the release", lambda: county.entry("household", case)["status"] == "ended")
    late = county.act("household", case, "acknowledge")
    assert late.status_code == 409
    assert late.json()["held_by"]["level"] != "household"
    assert "has moved on" in late.json()["detail"]


def test_nothing_can_be_done_to_a_case_that_has_moved_on(county: County) -> None:
    case = calm(county)
    assert county.act("household", case, "escalate", reason="需要电工").status_code == 200
    county.arrived("group", case)
    for action, body in (
        ("note", {"note": "还在路上"}),
        ("suspend", {"reason": "waiting"}),
        ("escalate", {"reason": "别的原因"}),
        ("transfer", {"reason": "不是我们的", "to": {"division": "46900210421403008"}}),
        ("resolve", {"outcome": "settled"}),
    ):
        answer = county.act("household", case, action, **body)
        assert (action, answer.status_code) == (action, 409)
        assert answer.json()["held_by"]["level"] == "group"
    county.settled_everywhere(case)
    assert holder(county, case)["level"] == "group"


def test_a_desk_that_lost_the_case_without_hearing_of_it_still_resolves_it(
    county: County,
) -> None:
    case = calm(county)
    county.stack.stop("escalation")
    try:
        asked = county.act("household", case, "escalate", reason="需要电工")
        assert asked.status_code == 202, asked.text
        assert asked.json()["request"]["answer"] is None
        where = asked.headers["Location"]
        assert where == f"/v1/desks/household/cases/{case}"
        pending = county.act("household", case, "return", reason="别的")
        assert (pending.status_code, pending.json()["request"]["action"]) == (409, "escalate")
        # It was granted in the custodian's queue, where the resolution comes behind it.
        solved = county.act("household", case, "resolve", outcome="settled", note="自己修好了")
        assert solved.status_code == 200, solved.text
    finally:
        county.stack.start("escalation")
    eventually("the grant", lambda: county.timeline(case, "case.escalated"))
    county.settled_everywhere(case)
    shown = county.case(case)
    assert (shown["status"], shown["late_custody"]) == ("resolved", True)
    assert shown["resolution"]["note"] == "自己修好了"
    group = county.latest("group", case).json()
    assert (group["status"], group["ended"]) == ("ended", "custody")
    entry = county.latest("household", case).json()
    assert (entry["ended"], entry["request"]["answer"]) == ("resolved", "granted")


def test_a_request_that_overtakes_its_token(county: County) -> None:
    like = calm(county)
    assert county.act("household", like, "escalate", reason="需要电工").status_code == 200
    told = {
        event["type"]: event
        for event in county.timeline(like)
        if event["type"] in ("case.reported", "case.requested")
    }
    case = str(uuid.uuid4())

    def send(channel: Any, kind: str) -> None:
        data = json.loads(json.dumps(told[kind]["data"]))
        data["case"]["tracking"] = uuid.uuid4().hex[:10]
        if "request" in data:
            data["request"]["id"] = case
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": told[kind]["source"],
            "type": f"huashi.{kind}.v1",
            "subject": case,
            "time": told[kind]["time"],
            "data": data,
        }
        message = amqp.Message(json.dumps(event).encode(), delivery_mode=2)
        key = f"{kind}.household.46.90.02.104.214.03.007"
        channel.basic_publish(message, topology.EVENTS, key)

    with Connection(county.about["amqp"]) as connection:
        send(connection.default_channel, "case.requested")
        eventually("it is granted", lambda: county.custody(case).get("custody"))
        assert holder(county, case)["level"] == "group"
        send(connection.default_channel, "case.reported")
    county.arrived("group", case)
    entry = eventually(
        "the late arrival ends",
        lambda: (
            (found := county.latest("household", case)).status_code == 200
            and found.json()["status"] == "ended"
            and found.json()
        ),
    )
    assert entry["held_by"]["level"] == "group"
    county.settled_everywhere(case)
    assert len(county.timeline(case, "case.escalated")) == 1


def test_an_action_may_insist_on_what_was_seen(county: County) -> None:
    case = calm(county)
    seen = county.latest("household", case)
    tag = seen.headers["ETag"]
    assert county.latest("household", case).headers["ETag"] == tag
    other = county.act("household", case, "note", role="operator", note="先看一下")
    now = other.headers["ETag"]
    assert now != tag
    stale = county.act("household", case, "acknowledge", headers={"If-Match": tag})
    assert stale.status_code == 412
    assert stale.json()["now"] == other.json()
    assert stale.headers["ETag"] == now
    weak = county.act("household", case, "acknowledge", headers={"If-Match": f"W/{now}"})
    assert weak.status_code == 412
    done = county.act("household", case, "acknowledge", headers={"If-Match": f'"x", {now}'})
    assert done.status_code == 200
    # Sent again with what was seen then, it is the same act, and done already.
    again = county.act("household", case, "acknowledge", headers={"If-Match": now})
    assert (again.status_code, again.json()) == (200, done.json())
    request = county.act("household", case, "escalate", reason="急", headers={"If-Match": now})
    assert request.status_code == 412
    url = f"{county.about['intake']}/v1/cases/{case}"
    assert county.ask("GET", url).headers["ETag"]


@pytest.fixture
def watched(county: County) -> str:
    case = calm(county)
    answer = county.act("household", case, "watch", officer="v-205")
    assert answer.json()["watchers"] == ["officer:v-205"]
    desk = {"level": "village", "division": "469002104214"}
    answer = county.act("household", case, "watch", **desk)
    assert answer.json()["watchers"] == ["desk:village:469002104214", "officer:v-205"]
    for body, field in (
        ({}, "officer"),
        ({"officer": "nobody"}, "officer"),
        ({"level": "village"}, "officer"),
        ({"level": "group", "division": "469002104214"}, "level"),
        ({"level": "village", "division": "469002104999"}, "division"),
    ):
        wrong = county.act("household", case, "watch", **body)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, field)
    gone = county.act("household", case, "unwatch", **desk)
    assert gone.json()["watchers"] == ["officer:v-205"]
    assert county.case(case)["watchers"] == ["officer:v-205"]
    eventually("it is told", lambda: len(county.timeline(case, "case.watched")) == 3)
    return case


def test_somebody_above_supervises_and_who_watches_is_told(county: County, watched: str) -> None:
    def supervise(level: str, role: str, case: str = watched, **body: Any) -> httpx.Response:
        return county.act(level, case, "supervise", role, **body)

    why = {"reason": "群众多次反映"}
    own = supervise("household", "officer:household", **why)
    assert (own.status_code, own.json()["held_by"]["level"]) == (403, "household")
    answer = supervise("group", "officer:group", **why)
    assert answer.status_code == 200, answer.text
    assert answer.json()["supervised"]["times"] == 1
    again = supervise("group", "officer:group", **why)
    assert again.json() == answer.json()
    assert supervise("village", "operator").json()["errors"][0]["field"] == "reason"
    assert supervise("village", "operator", "none", **why).status_code == 404
    (told,) = eventually("it is told", lambda: county.timeline(watched, "case.supervised"))
    assert told["data"]["supervisor"] == {"by": "officer:group", "reason": "群众多次反映"}
    assert told["data"]["passed"]["kind"] == "asked"

    def recipients() -> set[str]:
        sent = county.timeline(watched, "notification.delivered")
        told = [event["data"]["notification"] for event in sent]
        return {item["recipient"] for item in told if item["about"] == "case.supervised"}

    eventually("both are told", lambda: recipients() >= {"division:469002", "officer:v-205"})
    assert county.case(watched)["supervised"]["times"] == 1
    # It goes on whoever holds the case.
    assert county.act("household", watched, "escalate", reason="需要电工").status_code == 200
    assert county.custody(watched)["supervised"]["times"] == 1
    assert county.act("household", watched, "escalate", reason="需要电工").status_code == 200
    county.arrived("group", watched)
    assert county.act("group", watched, "resolve", outcome="settled").status_code == 200
    eventually("it ended", lambda: county.custody(watched)["next_due"] is None)
    assert supervise("village", "operator", reason="还要督办").status_code == 409


def test_one_acts_at_the_desks_that_one_s_token_reaches(county: County) -> None:
    case = calm(county)
    for action, body in (
        ("supervise", {"reason": "群众多次反映"}),
        ("merge", {"with": str(uuid.uuid4()), "reason": "同一盏灯"}),
        ("watch", {"officer": "v-205"}),
        ("unwatch", {"officer": "v-205"}),
        ("link", {"case": str(uuid.uuid4())}),
        ("unlink", {"case": str(uuid.uuid4())}),
    ):
        above = county.act("village", case, action, "officer:group", **body)
        assert above.status_code == 403, above.text
        assert above.json()["rule"].startswith("one acts for and reads what is addressed to")
        elsewhere = county.about["desks"]["village"]
        url = f"{elsewhere}/v1/desks/group/cases/{case}/{action}"
        wrong = county.ask("POST", url, json=body)
        assert (wrong.status_code, "the village desk" in wrong.json()["detail"]) == (404, True)
        nobody = county.act("village", case, action, "auditor", **body)
        assert nobody.status_code == 403


def test_a_desk_asks_for_nothing_above_its_level_whoever_calls(county: County) -> None:
    case, other = calm(county, "village"), calm(county, "village")
    acts: list[tuple[str, dict[str, str]]] = [
        ("supervise", {"reason": "群众多次反映"}),
        ("watch", {"officer": "v-205"}),
        ("link", {"case": other}),
        ("merge", {"with": other, "reason": "同一盏灯"}),
    ]
    for action, body in acts:
        below = county.act("group", case, action, "operator", **body)
        assert below.status_code == 403, below.text
        assert "at the group desk what is addressed to its level" in below.json()["detail"]
    for action, body in acts:
        assert county.act("village", case, action, "operator", **body).status_code == 200


def test_what_is_done_elsewhere_is_kept_in_the_trail_of_the_desk(county: County) -> None:
    case = calm(county)
    assert county.act("village", case, "supervise", reason="群众多次反映").status_code == 200
    (entry,) = county.audit("village", case=case)
    assert (entry["action"], entry["status"], entry["from"]) == (
        "POST /v1/desks/<level>/cases/<case>/supervise",
        200,
        "127.0.0.1",
    )
    (change,) = entry["changes"]
    assert change["after"]["token"] == county.case(case)["token"]
    assert county.audit("escalation", case=case) == []
    assert county.act("household", case, "supervise", "officer:household", reason="r").is_error
    refused = county.audit("household", case=case)[0]
    assert (refused["who"], refused["status"]) == ("officer:household", 403)
    assert "supervised from above" in refused["why"]


def test_a_desk_says_so_when_who_decides_is_away(county: County) -> None:
    case = calm(county)
    desk = f"{county.about['desks']['village']}/v1/desks/village/cases/{case}"
    headers = {"Authorization": f"Bearer {county.about['tokens']['operator']}"}
    why = {"reason": "群众多次反映"}
    county.stack.stop("escalation")
    try:
        away = httpx.post(f"{desk}/supervise", json=why, headers=headers, timeout=30)
        documented.check("dispatch", away)
        assert (away.status_code, away.headers["Retry-After"]) == (503, "2")
        assert "escalation does not answer" in away.json()["detail"]
        # What intake decides goes on.
        assert county.act("village", case, "watch", officer="v-205").status_code == 200
    finally:
        county.stack.start("escalation")
    kept = county.audit("village", case=case)
    assert [(entry["status"], entry["cases"]) for entry in kept] == [(200, [case]), (503, [case])]
    done = county.act("village", case, "supervise", "operator", **why)
    # It may have been taken by the one that came back; so it is one act, and done once.
    assert (done.status_code, done.json()["supervised"]["times"]) == (200, 1)


def test_questions_that_no_desk_would_ask_hold_up_nobody(county: County) -> None:
    case = calm(county)
    before = county.stack.pid("escalation")
    bodies = (b"", b"[]", b"{}", b'{"args":[{"case":7}],"kwargs":[]}', "督办".encode(), b"\xff\xfe")
    with Connection(county.about["amqp"]) as connection:
        channel: Any = connection.default_channel
        for key in ("merge.village", "supervise", "merge.a.b"):
            for body in bodies:
                for more in ({}, {"reply_to": str(uuid.uuid4()), "correlation_id": "1"}):
                    message = amqp.Message(body, content_type="application/json", **more)
                    channel.basic_publish(message, topology.RPC, f"escalation.{key}")
    done = county.act("village", case, "supervise", reason="群众多次反映")
    assert done.status_code == 200, done.text
    assert county.stack.pid("escalation") == before
