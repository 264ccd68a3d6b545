"""What the services answer over HTTP: to good requests, and to every kind of bad one."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from kombu.connection import Connection
from pymongo import MongoClient

from services.bus import auth
from services.bus.topology import EVENTS, PARKED_QUEUE
from tests.end_to_end.county import GRID, County, eventually

GOOD: dict[str, Any] = {
    "division": GRID,
    "title": "宅基地滴水纠纷",
    "category": "facility",
    "urgency": "ordinary",
    "source": "app",
}
LEAP_DAY = "2024-02-29T23:30:00+08:00"


def post(county: County, body: Any, **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **more.pop("headers", {})}
    url = f"{county.about['intake']}/v1/cases"
    return county.ask("POST", url, content=content, headers=headers, **more)


def fields_of(answer: httpx.Response) -> set[str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert "Traceback" not in answer.text
    return {error["field"] for error in problem.get("errors", [])}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": None}, "title"),
        ({"title": ""}, "title"),
        ({"title": " \u202e\u3000"}, "title"),
        ({"title": "长" * 201}, "title"),
        ({"title": 7}, "title"),
        ({"title": "请打电话 13812345678"}, "title"),
        ({"title": "身份证 460102199003072316 丢失"}, "title"),
        ({"category": "weather"}, "category"),
        ({"category": "设施"}, "category"),
        ({"urgency": "yesterday"}, "urgency"),
        ({"source": "pigeon"}, "source"),
        ({"division": "4690021"}, "division"),
        ({"division": "沙美村"}, "division"),
        ({"division": "469002104999"}, "division"),
        ({"division": "46900210421400"}, "division"),
        ({"division": "110101001001"}, "division"),
        ({"division": None}, "division"),
        ({"address": ""}, "address"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"occurred_at": "2026-01-01T00:00:00"}, "occurred_at"),
        ({"occurred_at": "2025-02-29T00:00:00Z"}, "occurred_at"),
        ({"occurred_at": "2999-01-01T00:00:00Z"}, "occurred_at"),
        ({"location": {"lat": 91, "long": 0}}, "location.lat"),
        ({"location": {"lat": 19.2}}, "location.long"),
        ({"location": {"lat": "19.2", "long": 110}}, "location.lat"),
        ({"attachments": [{"url": "ftp://x/y", "sha256": "0" * 64}]}, "attachments.0.url"),
        ({"attachments": [{"url": "https://x.cn/y", "sha256": "abc"}]}, "attachments.0.sha256"),
        ({"reporter": {"phone": "call me"}}, "reporter.phone"),
        ({"reporter": {"nome": "x"}}, "reporter.nome"),
        ({"external": {"system": "hotline"}}, "external.reference"),
        ({"priority": 1}, "priority"),
        ({"description": "x" * 5001}, "description"),
    ],
)
def test_a_report_with_a_mistake_gets_the_field(
    county: County, change: dict[str, Any], field: str
) -> None:
    answer = post(county, {**GOOD, **change})
    assert answer.status_code == 422, answer.text
    assert field in fields_of(answer)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"title": NaN}', 400),
        (b'{"title": "\\ud800"}', 400),
        (b'{"title": "\xff"}', 400),
        (b'{"x": 123456789012345678901234567890}', 400),
        (b'{"a":' * 200 + b"1" + b"}" * 200, 400),
        (b'{"title": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_a_body_that_is_no_report_gets_a_reason(county: County, body: bytes, status: int) -> None:
    answer = post(county, body)
    assert answer.status_code == status, answer.text
    fields_of(answer)


def test_who_may_what(county: County) -> None:
    intake = county.about["intake"]
    assert httpx.get(f"{intake}/v1/cases").status_code == 401
    forged = {"Authorization": "Bearer " + auth.issue("x" * 40, "me", "operator", 2e9, 60)}
    assert httpx.get(f"{intake}/v1/cases", headers=forged).status_code == 401
    assert county.ask("GET", f"{intake}/v1/cases", "reporter").status_code == 200
    assert county.ask("POST", f"{intake}/v1/cases", "auditor", json=GOOD).status_code == 403
    case = county.report()
    assert county.ask("GET", f"{intake}/v1/cases/{case}/timeline", "reporter").status_code == 403
    assert county.ask("GET", f"{intake}/v1/cases/{case}/reporter", "reporter").status_code == 403
    desk = county.about["desks"]["household"]
    url = f"{desk}/v1/desks/household/cases/{case}/acknowledge"
    assert county.ask("POST", url, "reporter", json={}).status_code == 403
    contact = f"{county.about['notify']}/v1/contacts/division:469002"
    assert county.ask("PUT", contact, "officer", json={"webhook": None}).status_code == 403


def test_the_same_key_gives_the_same_answer_and_another_report_is_refused(county: County) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {**GOOD, "reporter": {"name": "林", "phone": "0898 6282 1234"}}
    first = post(county, body, headers=key)
    again = post(county, body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == first.json()["links"]["self"]
    other = post(county, {**body, "title": "别的事"}, headers=key)
    assert other.status_code == 409
    assert "Idempotency-Key" in other.json()["detail"]
    assert post(county, body, headers={"Idempotency-Key": "x" * 201}).status_code == 400


def test_what_was_reported_is_shown(county: County) -> None:
    body = {
        **GOOD,
        "description": "因屋檐滴水和围墙位置发生争执。",
        "occurred_at": LEAP_DAY,
        "location": {"lat": 19.15, "long": 110.58},
        "attachments": [{"url": "https://example.cn/图.jpg", "sha256": "a" * 64, "name": "图"}],
        "external": {"system": "hotline", "reference": "H-1"},
    }
    opened = post(county, body).json()
    shown = county.case(opened["id"])
    for name in (
        "title",
        "description",
        "category",
        "urgency",
        "source",
        "location",
        "attachments",
    ):
        assert shown[name] == body[name]
    assert shown["occurred_at"] == "2024-02-29T15:30:00.000Z"
    assert shown["division"] == {"code": GRID, "name": "琼海市博鳌镇沙美村委会3组7户"}
    assert shown["external"] == body["external"]
    assert shown["clocks"]["case"]["started_at"] == opened["reported_at"]
    assert {item["kind"] for item in shown["deadlines"]} == {"acknowledge", "resolve"}


def test_a_tracking_code_shows_how_far_it_is_and_nobody(county: County) -> None:
    opened = post(county, {**GOOD, "reporter": {"name": "王小明", "phone": "13812345678"}}).json()
    code = opened["tracking"]
    tracking = f"{county.about['intake']}/v1/tracking"
    spoken = f"{code[:5]}-{code[5:]}".lower()
    shown = httpx.get(f"{tracking}/{spoken}")
    assert shown.status_code == 200
    assert shown.json()["level_title"] == "户联系"
    assert set(shown.json()) == {
        "tracking", "status", "level", "level_title", "reported_at", "due", "outcome", "ended_at",
        "feedback_until", "satisfied", "merged",
    }  # fmt: skip
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    assert fields_of(httpx.get(f"{tracking}/{wrong}")) == {"code"}
    assert httpx.get(f"{tracking}/{code[:4]}").status_code == 422


def test_who_reported_is_encrypted_and_in_no_event_log_or_metric(county: County) -> None:
    secret = {"name": "诸葛密闻", "phone": "13987654321", "address": "密闻路八号"}
    opened = post(county, {**GOOD, "reporter": secret}).json()
    case = opened["id"]
    county.arrived("household", case)
    county.act("household", case, "resolve", outcome="settled")
    eventually("the end", lambda: county.case(case)["status"] == "resolved")
    url = f"{county.about['intake']}/v1/cases/{case}/reporter"
    assert county.ask("GET", url, "operator").json()["reporter"] == secret
    places = [json.dumps(county.timeline(case), ensure_ascii=False)]
    places += [path.read_text(errors="replace") for path in county.stack.folder.glob("logs/*")]
    for service in ("intake", "escalation", "notify"):
        places.append(httpx.get(f"{county.about[service]}/metrics").text)
    with MongoClient[dict[str, Any]](county.about["mongodb"]) as client:
        database = client["huashi"]
        for name in database.list_collection_names():
            places += [str(document) for document in database[name].find()]
    for word in ("诸葛", "13987654321", "密闻路"):
        assert not [place for place in places if word in place], word
    # Once the key is gone, nobody can read it any more.
    assert county.ask("DELETE", url, "officer").status_code == 403
    assert county.ask("DELETE", url, "operator").json() == {"case": case, "reporter": None}
    assert county.ask("GET", url, "operator").status_code == 404
    assert county.ask("DELETE", url, "operator").status_code == 200


def test_lists_have_pages_and_filters(county: County) -> None:
    intake = f"{county.about['intake']}/v1/cases"
    group = "46900210420577"
    wanted = [county.report(group) for _ in range(7)]
    first = county.case(wanted[0])["reported_at"]
    # Other tests may have reported from there before.
    ours = {"division": group, "reported_from": first}
    found: list[str] = []
    cursor = None
    while True:
        query = {**ours, "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = county.ask("GET", intake, params=query).json()
        found += [case["id"] for case in page["cases"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == list(reversed(wanted))
    above = county.ask("GET", intake, params={**ours, "division": "469002104", "limit": 200}).json()
    assert set(wanted) <= {case["id"] for case in above["cases"]}
    none = county.ask("GET", intake, params={**ours, "status": "resolved"})
    assert none.json() == {"cases": [], "next": None}
    alike = county.ask("GET", intake, params={**ours, "category": "facility"})
    assert len(alike.json()["cases"]) == 7
    other = county.ask("GET", intake, params={**ours, "category": "order"})
    assert other.json()["cases"] == []
    until = {**ours, "reported_to": first}
    assert county.ask("GET", intake, params=until).json()["cases"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("cursor=nonsense", "cursor"),
        ("division=4690029999", "division"),
        ("status=lost", "status"),
        ("reported_from=monday", "reported_from"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_a_query_with_a_mistake_gets_the_field(county: County, query: str, field: str) -> None:
    answer = county.ask("GET", f"{county.about['intake']}/v1/cases?{query}")
    assert answer.status_code == 422, answer.text
    assert field in fields_of(answer)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dry_run": 0}, "dry_run"),
        ({"dry_run": "no"}, "dry_run"),
        ({"limit": "5"}, "limit"),
        ({"limit": 2.5}, "limit"),
    ],
)
def test_what_only_looks_like_a_truth_or_a_number_migrates_nothing(
    county: County, change: dict[str, Any], field: str
) -> None:
    version = county.case(county.report())["profile"]
    url = f"{county.about['escalation']}/v1/migrations"
    answer = county.ask("POST", url, json={"to": version, **change})
    assert (answer.status_code, fields_of(answer)) == (422, {field})


def test_what_is_not_there_is_a_404(county: County) -> None:
    nowhere = str(uuid.uuid4())
    about = county.about
    for url in (
        f"{about['intake']}/v1/cases/{nowhere}",
        f"{about['intake']}/v1/cases/{nowhere}/timeline",
        f"{about['intake']}/v1/nothing",
        f"{about['escalation']}/v1/cases/{nowhere}/deadlines",
        f"{about['desks']['group']}/v1/desks/household/cases",
    ):
        answer = county.ask("GET", url)
        assert answer.status_code == 404, url
        fields_of(answer)
    assert county.act("household", nowhere, "acknowledge").status_code == 404


def test_a_desk_refuses_what_is_not_possible_and_says_why(county: County) -> None:
    case = county.report()
    county.arrived("household", case)
    assert fields_of(county.act("household", case, "resolve")) == {"outcome"}
    bad_note = county.act("household", case, "resolve", outcome="settled", note="找 13812345678")
    assert fields_of(bad_note) == {"note"}
    assert fields_of(county.act("household", case, "resolve", outcome="magic")) == {"outcome"}
    assert county.act("household", case, "resolve", outcome="explained").status_code == 200
    again = county.act("household", case, "resolve", outcome="settled")
    assert again.status_code == 409
    late = county.act("household", case, "acknowledge")
    assert late.status_code == 409
    assert late.json()["stage"] == "resolved"


def test_contacts_are_checked_and_kept(county: County) -> None:
    notify = f"{county.about['notify']}/v1/contacts"
    assert fields_of(county.ask("PUT", f"{notify}/somebody", json={"webhook": None})) == {
        "recipient"
    }
    bad = county.ask("PUT", f"{notify}/division:469002", json={"webhook": "javascript:1"})
    assert fields_of(bad) == {"webhook"}
    inside = county.ask("PUT", f"{notify}/division:469002", json={"webhook": "http://127.0.0.1:9/"})
    assert fields_of(inside) == {"webhook"}
    good = {"webhook": "https://town.example.cn/hook"}
    assert county.ask("PUT", f"{notify}/desk:village:469002104214", json=good).status_code == 200


def test_rubbish_on_the_bus_is_parked_with_the_reason_and_holds_nothing_up(county: County) -> None:
    example = Path(__file__).parent / "examples" / "huashi.case.acknowledged.v1.json"
    broken = json.loads(example.read_text())
    broken["data"]["state"]["token"]["hop"] = "three"
    letters = {
        b"not json at all": "body",
        json.dumps(broken).encode(): "data.state.token.hop",
        json.dumps({**broken, "type": "huashi.case.exploded.v9"}).encode(): "type",
    }
    with Connection(county.about["amqp"]) as connection:
        channel: Any = connection.default_channel
        for body in letters:
            message = channel.prepare_message(body, content_type="application/json")
            channel.basic_publish(message, EVENTS, "case.acknowledged.household.46.90.02")
        case = county.report()
        county.arrived("household", case)
        seen: dict[bytes, list[dict[str, Any]]] = {}

        def parked() -> bool:
            while (message := channel.basic_get(PARKED_QUEUE, no_ack=True)) is not None:
                body = message.body if isinstance(message.body, bytes) else message.body.encode()
                seen.setdefault(body, []).append(message.headers)
            return set(seen) >= set(letters)

        eventually("all three are parked", parked)
    for body, field in letters.items():
        for headers in seen[body]:
            assert headers["x-reason"] == "invalid_event"
            assert field in headers["x-error"]
            assert headers["x-original-key"].startswith("case.acknowledged")


def test_operations_answer_without_a_token(county: County) -> None:
    for service in ("intake", "escalation", "notify"):
        url = county.about[service]
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        ready = httpx.get(f"{url}/readyz").json()
        assert set(ready["checks"].values()) == {True}
        text = httpx.get(f"{url}/metrics").text
        assert f'huashi_process_info{{level="",service="{service}"}} 1.0' in text
