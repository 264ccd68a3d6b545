"""Who reports, sealed by another system: over both doors it is ciphertext until intake opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from joserfc import jwe
from joserfc.jwk import ECKey
from kombu.connection import Connection
from pymongo import MongoClient

from tests.contract import documented
from tests.end_to_end.county import County
from tests.end_to_end.test_front_door import System, errors
from tests.end_to_end.test_front_door_amqp import Publisher, of
from tests.integration.test_systems import told

PERSON = {"name": "林小燕", "phone": "13987650101", "address": "文化路 7 号"}


@pytest.fixture(scope="module")
def doors(county: County) -> Iterator[tuple[Publisher, System]]:
    found = told(county, "add", "welfare", "--may", "case.report")
    account, host = found["amqp"], county.about["amqp"].rpartition("@")[2]
    with Connection(f"amqp://{account['user']}:{account['password']}@{host}") as connection:
        connection.default_channel.confirm_select()
        yield (
            Publisher("welfare", connection.default_channel),
            System(county, "welfare", found["key"]),
        )


def sealed(county: County, content: Any) -> str:
    answer = httpx.get(f"{county.about['intake']}/v1/keys")
    documented.check("intake", answer)
    (key,) = answer.json()["keys"]
    head = {"alg": key["alg"], "enc": "A256GCM", "kid": key["kid"]}
    return jwe.encrypt_compact(head, json.dumps(content).encode(), ECKey.import_key(key))


def reporter(county: County, case: str) -> Any:
    return county.ask("GET", f"{county.about['intake']}/v1/cases/{case}/reporter").json()


def test_a_sealed_reporter_is_known_to_who_may_call_back_and_in_no_event(
    county: County, doors: tuple[Publisher, System]
) -> None:
    publisher, system = doors
    event = publisher.event(sealed_reporter=sealed(county, PERSON))
    publisher.send(event)
    case = publisher.answer("accepted", of(event))["data"]["case"]
    found = reporter(county, case)
    assert PERSON.items() <= {**found, **found.get("reporter", {})}.items()
    shown = json.dumps([county.timeline(case), county.case(case)], ensure_ascii=False)
    assert not any(word in shown for word in PERSON.values())
    with MongoClient[dict[str, Any]](county.about["mongodb"]) as client:
        kept = str(client["huashi"]["register"].find_one({"_id": case}))
    assert not any(word in kept for word in PERSON.values())
    assert event["data"]["sealed_reporter"] not in kept
    # Sealed anew it is another text, and the same report.
    again = {**event, "data": {**event["data"], "sealed_reporter": sealed(county, PERSON)}}
    assert system.accepted(again)["case"] == case
    other = {**event, "data": {**event["data"], "sealed_reporter": sealed(county, {"name": "王"})}}
    assert "new id" in errors(system.post(other), 409)["event"]


def test_what_can_not_be_opened_is_refused_and_nothing_of_it_kept(
    county: County, doors: tuple[Publisher, System]
) -> None:
    publisher, system = doors
    good = sealed(county, PERSON)
    sent = {
        good[:-6] + "AAAAAA": "can't be opened",
        sealed(county, {"姓名13987650101": 1}): "something else",
        sealed(county, "13987650101"): "something else",
        "x": "compact JWE",
    }
    for text, said in sent.items():
        event = publisher.event(sealed_reporter=text)
        publisher.send(event)
        (wrong,) = publisher.answer("rejected", of(event))["data"]["errors"]
        assert wrong["field"] == "data.sealed_reporter"
        assert said in wrong["detail"]
    event = publisher.event(sealed_reporter=sealed(county, {"phone": "林小燕13987650101"}))
    publisher.send(event)
    (wrong,) = publisher.answer("rejected", of(event))["data"]["errors"]
    assert wrong["field"] == "data.reporter.phone"
    # The title must not have the reporter's own name in it, sealed or not.
    event = publisher.event(sealed_reporter=good, title="林小燕家的路灯不亮")
    publisher.send(event)
    (wrong,) = publisher.answer("rejected", of(event))["data"]["errors"]
    assert wrong["field"] == "data.title"
    both = system.event(sealed_reporter=good, reporter=PERSON)
    assert list(errors(system.post(both), 422)) == ["data.reporter"]
    kept = json.dumps(told(county, "rejected", "--system", "welfare"), ensure_ascii=False)
    assert not any(word in kept for word in PERSON.values())
    logs = [path.read_text() for path in (county.stack.folder / "logs").iterdir() if path.is_file()]
    assert not any(word in text for text in logs for word in ("13987650101", "林小燕"))


def test_open_personal_data_goes_by_http_only(
    county: County, doors: tuple[Publisher, System]
) -> None:
    publisher, system = doors
    event = publisher.event(reporter=PERSON)
    publisher.send(event)
    (wrong,) = publisher.answer("rejected", of(event))["data"]["errors"]
    assert (wrong["field"], "sealed_reporter" in wrong["detail"]) == ("data.reporter", True)
    for name in ("description", "address"):
        event = publisher.event(**{name: "来电 139-8765-0101, 三组"})
        publisher.send(event)
        (wrong,) = publisher.answer("rejected", of(event))["data"]["errors"]
        assert wrong["field"] == f"data.{name}"
    case = system.accepted(system.event(reporter=PERSON))["case"]
    found = reporter(county, case)
    assert PERSON.items() <= {**found, **found.get("reporter", {})}.items()
