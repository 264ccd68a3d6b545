"""What comes over the bus and can't be: it is parked with its reason, and holds up nobody."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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


class Letters:
    """The dead letters of this module, whoever reads them first."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._found: list[tuple[bytes, dict[str, str]]] = []

    def about(self, case: str) -> list[tuple[str, str, str]]:
        """Service, reason and words of those in which a case is named."""
        while (message := self._channel.basic_get(topology.PARKED_QUEUE, no_ack=True)) is not None:
            body = message.body
            body = body if isinstance(body, bytes) else body.encode()
            self._found.append((body, message.headers))
        return [
            (headers["x-service"], headers["x-reason"], headers["x-error"])
            for body, headers in self._found
            if case.encode() in body
        ]


class Sent(NamedTuple):
    """A bad event's case, and the case that was reported right after it."""

    bad: str
    good: str


@pytest.fixture(scope="module")
def channel(county: County) -> Iterator[Any]:
    with Connection(county.about["amqp"]) as connection:
        yield connection.default_channel


@pytest.fixture(scope="module")
def letters(channel: Any) -> Letters:
    return Letters(channel)


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
    return str(event["subject"])


CONTRADICTION = "contradiction"

PARKED: list[tuple[list[Change], str, str, set[str]]] = [
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
]

HARMLESS: list[list[Change]] = [
    # A version before may have let it in.
    [put("data", "case", "title", value="电话13800138000")],
    [put("data", "case", "profile", value="quick@000000000000")],
    [overdue(kind="supervise")],
    [overdue(kind="moon")],
    [overdue(kind="remind")],
    [overdue(kind="acknowledge"), put("data", "case", "division", value="999999")],
]


@pytest.fixture(scope="module")
def sent(county: County, channel: Any, genuine: dict[str, Any]) -> list[Sent]:
    """All of them, one after the other; what is reported in between gets to desk and custodian."""
    cases = []
    for changes in [*(changes for changes, *_ in PARKED), *HARMLESS]:
        bad = send(channel, genuine, *changes)
        good = county.report()
        county.arrived("household", good)
        eventually("the custodian", lambda good=good: county.custody(good))
        cases.append(Sent(bad, good))
    return cases


def goes_on(county: County, case: str) -> None:
    """A report that came after a bad event climbs in time."""
    eventually("the climb", lambda: county.timeline(case, "case.escalated"))


@pytest.mark.parametrize("number", range(len(PARKED)), ids=[said for _, _, said, _ in PARKED])
def test_it_is_parked_with_words_and_the_others_go_on(
    county: County, letters: Letters, sent: list[Sent], number: int
) -> None:
    _, reason, said, services = PARKED[number]
    bad, good = sent[number]
    goes_on(county, good)
    found = eventually(
        f"{len(services)} dead letters",
        lambda: len(found := letters.about(bad)) >= len(services) and found,
    )
    assert {service for service, _, _ in found} == services
    assert {why for _, why, _ in found} == {reason}
    assert all(said in words for _, _, words in found), found


@pytest.mark.parametrize("number", range(len(HARMLESS)))
def test_an_event_that_nobody_can_act_upon_holds_up_nobody(
    county: County, letters: Letters, sent: list[Sent], number: int
) -> None:
    bad, good = sent[len(PARKED) + number]
    goes_on(county, good)
    assert letters.about(bad) == letters.about(good) == []
