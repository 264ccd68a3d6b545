"""Declaring waits for a broker that has just been started, and for nothing else."""

from __future__ import annotations

import re

import pytest

from services.bus import desk_acts, topology
from services.bus.topology import TopologyError


def test_a_queue_that_is_not_back_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def recovers(_uri: str, _levels: object) -> None:
        tries.append("try")
        if len(tries) < 3:
            raise topology._Recovering("home node is down or inaccessible")

    monkeypatch.setattr(topology, "_declare_all", recovers)
    monkeypatch.setattr("services.bus.topology.time.sleep", lambda _seconds: None)
    topology.declare("amqp://", ["household"])
    assert len(tries) == 3


def test_one_that_never_comes_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_uri: str, _levels: object) -> None:
        raise topology._Recovering("home node is down or inaccessible")

    monkeypatch.setattr(topology, "_declare_all", gone)
    monkeypatch.setattr(topology, "_RECOVERY_SECONDS", -1.0)
    with pytest.raises(TopologyError, match="down or inaccessible"):
        topology.declare("amqp://", ["household"])


def test_each_question_that_is_answered_may_be_asked_by_somebody() -> None:
    answered = [method for methods in topology.SERVES.values() for method in methods]
    asked = [method for methods in topology.CALLERS.values() for method in methods]
    assert sorted(answered) == sorted(asked)


def test_what_desks_ask_for_is_what_they_show() -> None:
    acts = [each for each in vars(desk_acts).values() if isinstance(each, desk_acts.DeskAct)]
    assert sorted(act.name for act in acts) == sorted(topology.CALLERS["dispatch"])
    for act in acts:
        assert act.name in topology.SERVES[act.service]


def test_who_answers_and_asks_may_write_both_and_nothing_more() -> None:
    names = topology.users(["village"])
    definitions = topology.broker_definitions(["village"], dict.fromkeys(names, "secret"))
    (desk,) = [
        row
        for row in definitions["topic_permissions"]
        if (row["user"], row["exchange"]) == ("dispatch-village", topology.RPC)
    ]
    number = "6f1d6f6e-52a5-5d0e-9f43-0d3c2f7f6a11"
    for key in (number, "escalation.merge.village", "intake.watch.village"):
        assert re.match(desk["write"], key)
    for key in (
        "escalation.merge",
        "escalation.merge.township",
        "escalation.merge.villagex",
        "intake.open_cases",
        f"x{number}",
        f"{number}.merge",
        "",
    ):
        assert not re.match(desk["write"], key)
