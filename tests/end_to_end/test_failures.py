"""Desks that are down, a custodian that was away, processes that are killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy.local.stack import Stack
from services.grid.profile import load
from tests.end_to_end.county import QUICK, County, eventually

PROGRAMS = (
    "intake",
    "dispatch-household",
    "dispatch-group",
    "dispatch-village",
    "dispatch-township",
    "escalation",
    "notify",
)


def test_a_desk_that_is_down_holds_nothing_up(county: County) -> None:
    county.stack.stop("dispatch-group")
    try:
        case = county.report()
        shown = eventually(
            "the village",
            lambda: (found := county.case(case))["address"]["level"] == "village" and found,
        )
        assert shown["token"]["hop"] == 2
    finally:
        county.stack.start("dispatch-group")
    # The arrival and its release were waiting for the desk: the entry is born and ends.
    entry = eventually("the group's entry", lambda: county.entry("group", case))
    county.settled_everywhere(case)
    entry = county.entry("group", case) or entry
    assert (entry["status"], entry["ended"]) == ("ended", "custody")
    refused = county.act("group", case, "resolve", outcome="settled")
    assert refused.status_code == 409
    assert refused.json()["held_by"]["level"] in ("village", "township")


def test_a_desk_that_may_not_ask_is_not_ready(county: County) -> None:
    """As after an upgrade before which the rights were not imported."""
    rights = f"{county.about['broker']}/api/permissions/%2F/dispatch-village"
    has = httpx.get(rights).json()
    may = {name: has[name] for name in ("configure", "write", "read")}

    def ready() -> dict[str, Any] | None:
        try:
            answer = httpx.get(f"{county.about['desks']['village']}/readyz")
        except httpx.TransportError:
            return None
        checks: dict[str, Any] = answer.json()["checks"]
        assert (answer.status_code == 200) == all(checks.values())
        return checks if all(checks[name] for name in checks if name != "rpc") else None

    httpx.put(rights, json={**may, "configure": "^$"}).raise_for_status()
    try:
        county.stack.stop("dispatch-village")
        county.stack.start("dispatch-village")
        checks = eventually("all the rest is ready", ready)
        assert checks and checks["rpc"] is False
    finally:
        httpx.put(rights, json=may).raise_for_status()
    # It tries again by itself.
    eventually("it may ask", lambda: (found := ready()) and found["rpc"])


def test_an_answer_given_in_time_while_the_custodian_was_down_counts(county: County) -> None:
    case = county.report()
    entry = county.arrived("household", case)
    due = next(item["due"] for item in entry["deadlines"] if item["kind"] == "acknowledge")
    eventually("the custodian knows it", lambda: county.custody(case))
    county.stack.stop("escalation")
    assert county.act("household", case, "acknowledge").status_code == 200
    county.until(due)
    county.stack.start("escalation")
    met = eventually(
        "the custodian caught up",
        lambda: [
            row
            for row in county.custody(case)["deadlines"]
            if row["kind"] == "acknowledge" and row["status"] == "met"
        ],
    )
    assert met
    assert county.timeline(case, "case.escalated") == []
    assert county.case(case)["address"]["level"] == "household"


def test_after_an_outage_of_the_custodian_no_level_is_short_changed(county: County) -> None:
    case = county.report()
    county.arrived("household", case)
    eventually("the custodian knows it", lambda: county.custody(case))
    county.stack.stop("escalation")
    # Long enough for every level's time to have passed.
    shown = county.case(case)
    last = max(item["due"] for item in shown["deadlines"])
    county.until(last)
    county.stack.start("escalation")
    moved = eventually("the climb", lambda: county.timeline(case, "case.escalated"))
    assert moved[0]["data"]["state"]["address"]["level"] == "group"
    # It climbs one level, and that level gets its grace: it can still answer.
    second = eventually(
        "the second climb",
        lambda: len(found := county.timeline(case, "case.escalated")) > 1 and found,
    )
    first, then = (event["time"] for event in second[:2])
    assert then > first
    county.settled_everywhere(case)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_process_that_is_killed_loses_nothing(county: County, program: str) -> None:
    cases = []
    for number in range(12):
        cases.append(county.report())
        if number in (3, 8):
            county.kill(program)
    for case in cases:
        eventually(
            f"{case} assigned, in the register",
            lambda case=case: county.case(case)["assigned"] or county.case(case)["token"]["hop"],
        )
    for case in cases:
        county.settled_everywhere(case)
        assert county.timeline(case, "case.reported"), case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile that a test may change."""
    return Path(shutil.copytree(QUICK, tmp_path_factory.mktemp("profile") / "quick"))


@pytest.fixture(scope="module")
def slow(make_stack: Callable[..., Stack], folder: Path) -> County:
    """A county with a minute of deadlines in a second, and a profile of its own."""
    return County(make_stack(PROFILES=str(folder), TIME_SCALE="60"))


def test_a_broker_and_a_database_that_are_killed_lose_nothing(slow: County) -> None:
    county = slow
    before = [county.report() for _ in range(5)]
    county.kill("rabbitmq")
    during = [county.report() for _ in range(5)]
    for case in before + during:
        county.arrived("household", case)
    county.kill("mongodb")
    after = [county.report() for _ in range(5)]
    for case in before + during + after:
        county.arrived("household", case)
        assert county.act("household", case, "resolve", outcome="settled").status_code == 200
    for case in before + during + after:
        eventually("the resolution", lambda case=case: county.case(case)["status"] == "resolved")
        county.settled_everywhere(case)


def test_replicas_give_what_one_gives(make_stack: Callable[..., Stack]) -> None:
    twos = {f"REPLICAS_{name}": "2" for name in ("INTAKE", "DISPATCH", "ESCALATION", "NOTIFY")}
    county = County(make_stack(PROFILES=QUICK, TIME_SCALE="600", **twos))
    # That all sixteen that climb fall to one custodian has a chance of one in 32,768.
    cases = [county.report() for _ in range(21)]
    for case in cases[:5]:
        county.arrived("household", case)
        assert county.act("household", case, "resolve", outcome="settled").status_code == 200
    # Both custodians have a share; what the one that is killed had, the other takes over.
    for port in _ports(county, "escalation"):
        eventually(f"deadlines fired by {port}", lambda port=port: _fired(port) > 0)
    county.kill("escalation")
    for case in cases[5:]:
        eventually("supervision", lambda case=case: county.case(case)["supervised"])
        assert len(county.timeline(case, "case.escalated")) == 3
        rows = county.custody(case)["deadlines"]
        fired = [(row["hop"], row["kind"], row["due"]) for row in rows if row["status"] == "fired"]
        assert len(fired) == len(set(fired)), "each deadline fires once in effect"
    for case in cases:
        county.settled_everywhere(case)
    for case in cases[:5]:
        assert county.case(case)["status"] == "resolved"


def _ports(county: County, service: str) -> list[int]:
    """Where every replica of a service listens."""
    lines = county.stack.control("status").splitlines()
    names = [line.split()[0].partition(":")[2] for line in lines]
    replicas = [name for name in names if name == service or name.startswith(f"{service}-")]
    binds = [psutil.Process(county.stack.pid(name)).environ()["HTTP_BIND"] for name in replicas]
    return [int(bind.rpartition(":")[2]) for bind in binds]


def _fired(port: int) -> float:
    """How many deadlines a custodian has fired, by its metrics."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("huashi_deadlines_fired_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_cases_in_flight_are_brought_under_a_new_version(slow: County, folder: Path) -> None:
    county = slow
    case = county.report()
    county.arrived("household", case)
    assert county.act("household", case, "acknowledge").status_code == 200
    eventually("the acknowledgement", lambda: county.custody(case)["custody"]["token"]["seq"] == 2)
    before = county.custody(case)
    rules = (folder / "profile.yaml").read_text()
    longer = rules.replace("acknowledge: 1h, resolve: 2h", "acknowledge: 1h, resolve: 9h")
    (folder / "profile.yaml").write_text(longer)
    version = load(folder).id
    county.kill("intake")
    url = f"{county.about['escalation']}/v1/migrations"

    def migrate(**body: object) -> dict[str, Any] | None:
        answer = county.ask("POST", url, json={"to": version, **body})
        # Until the version has come to the custodian.
        return answer.json() if answer.status_code == 200 else None

    tried = eventually("the new version", migrate)
    (planned,) = tried["cases"]
    assert tried["dry_run"]
    assert (planned["case"], planned["before"]["address"]) == (case, planned["after"]["address"])
    assert county.custody(case)["custody"] == before["custody"], "a dry run changes nothing"
    assert migrate(division="469002104205") == {**tried, "cases": []}
    assert migrate(division="469002104214") == tried
    done = migrate(dry_run=False)
    assert done == {**tried, "dry_run": False}
    shown = eventually(
        "the new version in the register",
        lambda: (found := county.case(case))["token"]["hop"] == 1 and found,
    )
    assert shown["acknowledged"] is not None
    assert shown["deadlines"] == planned["after"]["deadlines"]
    county.settled_everywhere(case)
    # Its officer goes on with it.
    county.arrived("household", case)
    assert county.act("household", case, "resolve", outcome="settled").status_code == 200
    county.settled_everywhere(case)
