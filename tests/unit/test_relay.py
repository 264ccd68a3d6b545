"""Acts that are carried from a desk to the service that decides them."""

from __future__ import annotations

from typing import Any

import pytest

from services.bus import relay
from services.bus.access import Guard
from services.bus.auth import Identity
from services.bus.desk_acts import MERGE, SUPERVISE, WATCH, DeskAct
from services.bus.problems import Problem
from services.bus.rpc import Caller, NoAnswer
from services.bus.web import Answer, Call
from services.grid import json
from services.grid.scope import Scope

CASE, OTHER = "6f1d6f6e-52a5-5d0e-9f43-0d3c2f7f6a11", "0b9ab4f0-6f0e-5c41-9d5e-1f2a3b4c5d6e"
OFFICER = Identity("v-214", "officer", Scope("469002104214", "village"))
PICTURE = {"url": "https://files.example.org/lamp.jpg", "sha256": "0f" * 32, "name": "路灯.jpg"}


class Service(Caller):
    """Answers what it is asked at once, or never."""

    def __init__(self, act: DeskAct, *, away: bool = False) -> None:
        self.act, self.away = act, away
        self.asked: list[dict[str, Any]] = []
        self.calls: list[Call] = []

    def call(
        self, instance: str, method: str, *arguments: Any, seconds: float = 0
    ) -> tuple[Any, bool]:
        assert (instance, method, seconds) == (self.act.service, self.act.name, self.act.seconds)
        (question,) = json.loads(json.dumps(arguments))
        self.asked.append(question)
        if self.away:
            raise NoAnswer("it is away")
        return json.loads(
            json.dumps(relay.answer(self.act, question, "village", self._decide))
        ), False

    def _decide(self, call: Call, case: str) -> Answer:
        self.calls.append(call)
        call.guard.asked = True
        call.trail.about(case)
        return Answer({"case": case})


def called(body: dict[str, Any], **more: Any) -> Call:
    return Call(body=body, identity=OFFICER, guard=Guard(OFFICER), **more)


@pytest.mark.parametrize(
    ("act", "body"),
    [
        (SUPERVISE, {"reason": "群众多次反映", "attachments": [PICTURE]}),
        (MERGE, {"with": OTHER, "reason": "同一盏路灯"}),
        (WATCH, {"level": "village", "division": "469002104214", "note": "盯住"}),
        (WATCH, {"officer": "v-205"}),
    ],
)
def test_what_was_said_at_the_desk_is_what_the_service_hears(
    act: DeskAct, body: dict[str, Any]
) -> None:
    service = Service(act)
    said = called(act.body.load(body), if_match=frozenset({'"a"'}), idempotency_key="k")
    assert relay.ask(service, act, said, CASE).body == {"case": CASE}
    (heard,) = service.calls
    assert (heard.body, heard.identity, heard.if_match, heard.idempotency_key) == (
        said.body,
        said.identity,
        said.if_match,
        said.idempotency_key,
    )
    assert (said.guard.asked, said.trail.cases) == (True, [CASE])


@pytest.mark.parametrize("case", ["13800138000", "none", CASE.upper(), f"{CASE}\n", "张三"])
def test_what_is_no_case_s_id_is_not_asked_over_the_bus(case: str) -> None:
    service, call = Service(SUPERVISE), called({"reason": "r", "attachments": []})
    with pytest.raises(Problem) as raised:
        relay.ask(service, SUPERVISE, call, case)
    assert (raised.value.status, service.asked, call.trail.cases) == (404, [], [])


@pytest.mark.parametrize("act", [SUPERVISE, MERGE])
def test_an_act_that_nobody_answered_may_have_been_done(act: DeskAct) -> None:
    call = called({"reason": "r", "other": OTHER, "attachments": []})
    with pytest.raises(Problem) as raised:
        relay.ask(Service(act, away=True), act, call, CASE)
    assert (raised.value.status, call.trail.uncertain) == (503, True)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"body": {"reason": {"zh": "反映"}}}, 422),
        ({"body": {"reason": "电话 13800138000"}}, 422),
        ({"body": {"reason": "r", "attachments": [{"url": "javascript:1"}]}}, 422),
        ({"body": {"reason": "r", "since": "1.2"}}, 422),
        ({"body": None}, 500),
        ({"case": {"$gt": ""}}, 500),
        ({"case": "13800138000"}, 500),
        ({"identity": {"sub": "v-214", "role": "reporter"}}, 500),
        ({"identity": {"sub": "张三", "role": "operator"}}, 500),
        ({"identity": {"sub": "13800138000", "role": "operator"}}, 500),
        ({"identity": {"sub": "v-214", "role": "officer"}}, 500),
        ({"if_match": [{}]}, 500),
        ({"idempotency_key": 7}, 500),
        ({"as": "root"}, 500),
    ],
)
def test_a_desk_is_believed_who_calls_and_nothing_else(wrong: dict[str, Any], status: int) -> None:
    sound = {
        "case": CASE,
        "body": {"reason": "群众多次反映"},
        "identity": OFFICER.claims(),
        "if_match": None,
        "idempotency_key": None,
    }
    service = Service(SUPERVISE)
    assert "problem" not in relay.answer(SUPERVISE, sound, "village", service._decide)
    service.calls.clear()
    said = relay.answer(SUPERVISE, sound | wrong, "village", service._decide)
    assert (said["problem"]["status"], service.calls) == (status, [])
