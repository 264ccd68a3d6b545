"""A system that is bound to a unit acts at the unit's desk, over both doors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kombu.connection import Connection

from services.grid.events.bindings import BATCH
from tests.end_to_end.county import County, eventually
from tests.end_to_end.test_front_door import System, errors
from tests.end_to_end.test_front_door_amqp import Publisher, of
from tests.integration.test_systems import told

VILLAGE = "469002104214"
TEAM, CENTRE = "team", "centre"
ACTS = "case.acknowledge,case.progress,case.check_in,case.resolve"


@pytest.fixture(scope="module")
def connect(county: County) -> Iterator[Callable[..., tuple[Publisher, System]]]:
    """Adds a system that is bound to a unit, and knows both of its doors."""
    open_ = []
    host = county.about["amqp"].rpartition("@")[2]

    def make(name: str, unit: str) -> tuple[Publisher, System]:
        found = told(county, "add", name, "--may", ACTS, "--unit", unit)
        account = found["amqp"]
        connection = Connection(f"amqp://{account['user']}:{account['password']}@{host}")
        open_.append(connection)
        connection.default_channel.confirm_select()
        return Publisher(name, connection.default_channel), System(county, name, found["key"])

    yield make
    for connection in open_:
        connection.release()


@pytest.fixture(scope="module")
def team(connect: Callable[..., tuple[Publisher, System]]) -> tuple[Publisher, System]:
    # By its name, which only one unit has.
    return connect("team_app", "治安联防队")


@pytest.fixture(scope="module")
def centre(connect: Callable[..., tuple[Publisher, System]]) -> tuple[Publisher, System]:
    return connect("centre_app", CENTRE)


def with_team(county: County) -> str:
    """A case that the team holds, and that its system was told of."""
    case = county.report(VILLAGE, category="order", urgency="calm")
    assert county.arrived("village", case)["address"]["unit"] == TEAM
    return case


@contextmanager
def asleep(county: County, program: str) -> Iterator[None]:
    """A process that is there and does nothing."""
    pid = county.stack.pid(program)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("team")
def test_a_unit_is_bound_by_a_name_that_one_unit_has(county: County) -> None:
    listed = {each["name"]: each for each in told(county, "list")}
    assert listed["team_app"]["unit"] == TEAM
    url = f"{county.about['intake']}/v1/systems/nobodys"
    answer = county.ask("PUT", url, json={"may": ["case.resolve"]})
    assert list(errors(answer, 422)) == ["unit"]
    answer = county.ask("PUT", url, json={"may": ["case.resolve"], "unit": "联防"})
    assert "治安联防队" in errors(answer, 422)["unit"]


def test_it_acts_over_http_as_an_officer_of_the_unit_would(
    county: County, team: tuple[Publisher, System]
) -> None:
    _, system = team
    case = with_team(county)
    accept = system.event("case.acknowledge", case=case, note="已派员")
    found = system.accepted(accept)
    assert "pending" not in found
    assert found["case"] == case
    # The same again is the same answer, and no second act.
    assert "pending" not in system.accepted(accept)
    said = system.event("case.progress", case=case, note="已与双方谈话")
    for _ in range(2):
        system.accepted(said)
    done = system.event("case.resolve", case=case, outcome="settled", note="双方和解")
    system.accepted(done)
    shown = eventually("resolved", lambda: county.case(case)["status"] == "resolved")
    assert shown
    (noted,) = county.timeline(case, "case.noted")
    assert noted["data"]["note"]["by"] == "system.team_app"
    assert county.case(case)["resolution"]["by"] == "system.team_app"
    late = system.post(system.event("case.progress", case=case, note="补充"))
    assert "resolved" in errors(late, 409)["event"]
    county.settled_everywhere(case)


def test_it_acts_over_amqp_and_is_told_of_its_cases(
    county: County, team: tuple[Publisher, System]
) -> None:
    publisher, _ = team
    case = with_team(county)
    heard = publisher.answer("status", lambda data: data["case"] == case)["data"]
    assert (heard["unit"], heard["reference"]) == (TEAM, None)
    progress = publisher.event("case.progress", case=case, note="到了")
    for _ in range(3):
        publisher.send(progress, kind="case.progress")
    assert publisher.answer("accepted", of(progress))["data"]["case"] == case
    changed = {**progress, "data": {**progress["data"], "note": "没到"}}
    publisher.send(changed, kind="case.progress")
    refused = publisher.answer("rejected", of(progress))["data"]
    assert "new id" in refused["errors"][0]["detail"]
    wrong = publisher.event("case.resolve", case=case, outcome="magic")
    publisher.send(wrong, kind="case.resolve")
    refused = publisher.answer("rejected", of(wrong))["data"]
    assert [each["field"] for each in refused["errors"]] == ["data.outcome"]
    kept = told(county, "rejected", "--system", "team_app")
    assert wrong["id"] in {each["event"]["id"] for each in kept}
    done = publisher.event("case.resolve", case=case, outcome="settled")
    publisher.send(done, kind="case.resolve")
    assert publisher.answer("accepted", of(done))
    assert publisher.answer("status", lambda data: data["status"] == "resolved")
    assert len(county.timeline(case, "case.noted")) == 1


def test_what_is_not_the_units_is_refused_and_who_holds_it_is_told(
    county: County, team: tuple[Publisher, System], centre: tuple[Publisher, System]
) -> None:
    _, system = team
    elsewhere = county.report()
    county.arrived("household", elsewhere)
    answer = system.post(system.event("case.acknowledge", case=elsewhere))
    assert "no such case" in errors(answer, 409)["event"]
    assert "held_by" not in answer.json()
    unknown = system.post(
        system.event("case.acknowledge", case="0" * 8 + "-0000-4000-8000-" + "0" * 12)
    )
    assert errors(unknown, 409) == errors(answer, 409)
    case = with_team(county)
    # Another unit's system does not reach it, and the desk moves it on under the team's hands.
    assert (
        centre[1].post(centre[1].event("case.resolve", case=case, outcome="settled")).status_code
        == 409
    )
    moved = county.act("village", case, "escalate", reason="需要镇里", role="operator")
    assert moved.status_code == 200, moved.text
    eventually("moved", lambda: county.case(case)["address"]["level"] == "township")
    answer = system.post(system.event("case.resolve", case=case, outcome="settled"))
    assert "township" in errors(answer, 409)["event"]
    assert answer.json()["held_by"]["level"] == "township"
    batch = system.post([system.event("case.resolve", case=case, outcome="settled")], BATCH)
    assert batch.json()["rejected"][0]["held_by"]["level"] == "township"


def test_a_unit_that_is_called_checks_in(county: County, centre: tuple[Publisher, System]) -> None:
    publisher, system = centre
    case = county.report(VILLAGE, urgency="calm")
    county.arrived("village", case)
    early = system.post(system.event("case.check_in", case=case))
    assert early.status_code == 409
    blown = county.act(
        "village", case, "whistle", "operator", units=[{"unit": CENTRE}], reason="联合处置"
    )
    assert blown.status_code == 200, blown.text
    heard = publisher.answer("status", lambda data: data["case"] == case)["data"]
    assert heard["event"] == "huashi.case.called.v1"
    come = publisher.event("case.check_in", case=case, note="两人已到")
    publisher.send(come, kind="case.check_in")
    assert publisher.answer("accepted", of(come))

    def came() -> Any:
        (unit,) = county.case(case)["joined"]
        return unit["checked_in"]

    assert eventually("it has come", came)["by"] == "system.centre_app"
    # It is called, and does not hold it.
    answer = system.post(system.event("case.resolve", case=case, outcome="settled"))
    assert answer.json()["held_by"]["level"] == "village"


def test_a_desk_that_sleeps_holds_up_nobody_and_answers_later(
    county: County, team: tuple[Publisher, System]
) -> None:
    publisher, system = team
    case, other = with_team(county), with_team(county)
    done = publisher.event("case.resolve", case=case, outcome="settled")
    said = system.event("case.progress", case=other, note="在路上")
    with asleep(county, "dispatch-village"):
        publisher.send(done, kind="case.resolve")
        assert system.accepted(said)["pending"] is True
        wrong = publisher.event("case.progress", case=case)
        publisher.send(wrong, kind="case.progress")
        # What is behind it is answered meanwhile.
        assert publisher.answer("rejected", of(wrong))
        county.kill("intake")
    assert publisher.answer("accepted", of(done))
    eventually("answered", lambda: "pending" not in system.accepted(said))
    assert len(county.timeline(other, "case.noted")) == 1
    assert county.case(case)["status"] == "resolved"
