"""What comes over the bus and can't be: it is parked with its reason, and holds up nobody."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import amqp
import pytest
from kombu.connection import Connection

from services.bus import topology
from services.grid.clock import plus
from tests.end_to_end.county import County, eventually

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def genuine(county: County) -> dict[str, Any]:
    """An event as intake sends it."""
    case = county.report()
    county.arrived("household", case)
    (told,) = county.timeline(case, "case.reported")
    return {
        "specversion": "1.0",
        "id": told["id"],
        "source": told["source"],
        "type": "huashi.case.reported.v1",
        "subject": case,
        "time": told["time"],
        "data": told["data"],
    }


@pytest.fixture
def channel(county: County) -> Iterator[Any]:
    with Connection(county.about["amqp"]) as connection:
        yield connection.default_channel


def put(*path: str, value: Any) -> Change:
    def change(event: dict[str, Any]) -> None:
        inner = event
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value

    return change


def overdue(**deadline: Any) -> Change:
    def change(event: dict[str, Any]) -> None:
        due = plus(event["time"], -3600)
        why = {"rule": "r", "source": "s", "calendar": None, "counted": []}
        event["data"]["state"]["deadlines"] = [{"due": due, **why, **deadline}]

    return change


def send(channel: Any, genuine: dict[str, Any], *changes: Change) -> str:
    event = copy.deepcopy(genuine)
    event["id"], event["subject"] = str(uuid.uuid4()), str(uuid.uuid4())
    event["data"]["case"]["tracking"] = uuid.uuid4().hex[:10]
    for change in changes:
        change(event)
    key = "case.reported.household.46.90.02.104.214.03.007"
    message = amqp.Message(json.dumps(event).encode(), delivery_mode=2)
    channel.basic_publish(message, topology.EVENTS, key)
    return str(event["id"])


def parked(channel: Any, count: int) -> list[tuple[str, str, str]]:
    """Service, reason and words of as many dead letters."""
    found: list[tuple[str, str, str]] = []

    def all_there() -> bool:
        while (message := channel.basic_get(topology.PARKED_QUEUE, no_ack=True)) is not None:
            headers = message.headers
            found.append((headers["x-service"], headers["x-reason"], headers["x-error"]))
        return len(found) >= count

    eventually(f"{count} dead letters", all_there)
    return sorted(found)


def goes_on(county: County) -> None:
    """A report that comes now reaches its desk and its custodian, and climbs in time."""
    case = county.report()
    county.arrived("household", case)
    eventually("the custodian", lambda: county.custody(case))
    eventually("the climb", lambda: county.timeline(case, "case.escalated"))


CONTRADICTION = "contradiction"


@pytest.mark.parametrize(
    ("changes", "reason", "said", "services"),
    [
        (
            [put("data", "case", "ladder", value="nope")],
            CONTRADICTION,
            "ladder 'nope' is not known",
            {"dispatch-household", "escalation", "notify"},
        ),
        (
            [put("data", "state", "address", "level", value="moon")],
            CONTRADICTION,
            "level 'moon' is not known",
            {"dispatch-household", "escalation", "notify"},
        ),
        (
            [put("data", "state", "address", "level", value="village")],
            "wrong_level",
            "a case for village came to the household desk",
            {"dispatch-household"},
        ),
        (
            [put("data", "state", "token", "hop", value=1_000_000)],
            CONTRADICTION,
            "token.hop 1000000",
            {"dispatch-household", "escalation", "notify"},
        ),
        (
            [put("data", "case", "pad", value="x" * 300_000)],
            "invalid_event",
            "bytes: at most 262144 are read",
            {"dispatch-household", "escalation", "notify", "intake"},
        ),
        (
            [put("data", "case", "title", value="电话13800138000")],
            "invalid_event",
            "leave out phone and identity numbers",
            {"dispatch-household", "escalation", "notify", "intake"},
        ),
    ],
)
def test_it_is_parked_with_words_and_the_others_go_on(
    county: County,
    channel: Any,
    genuine: dict[str, Any],
    *,
    changes: list[Change],
    reason: str,
    said: str,
    services: set[str],
) -> None:
    send(channel, genuine, *changes)
    goes_on(county)
    letters = parked(channel, len(services))
    assert {service for service, _, _ in letters} == services
    assert {why for _, why, _ in letters} == {reason}
    assert all(said in words for _, _, words in letters), letters


@pytest.mark.parametrize(
    "changes",
    [
        [put("data", "case", "profile", value="quick@000000000000")],
        [overdue(kind="supervise")],
        [overdue(kind="moon")],
        [overdue(kind="remind")],
        [overdue(kind="acknowledge"), put("data", "case", "division", value="999999")],
    ],
)
def test_an_event_that_nobody_can_act_upon_holds_up_nobody(
    county: County, channel: Any, genuine: dict[str, Any], changes: list[Change]
) -> None:
    send(channel, genuine, *changes)
    goes_on(county)
    assert channel.basic_get(topology.PARKED_QUEUE, no_ack=True) is None
