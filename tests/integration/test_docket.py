"""A desk's questions to a real database: a unit's queue, rates, and by which index."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.bus.fold import Write
from services.bus.paging import Cursor
from services.dispatch.store import Docket, _arrived, _called
from services.grid.clock import Instant, plus
from services.grid.scope import WHOLE, Scope

START = Instant("2026-11-01T00:00:00.000Z")
TOWNSHIP, VILLAGE, OTHER = "469002104", "469002104214", "469002104205"
HOUR = 3600


def entry(
    number: int,
    *,
    division: str = VILLAGE,
    unit: str | None = None,
    accepted: bool = False,
    ended: str | None = None,
    passed: list[str] | None = None,
    moved_on: bool = False,
) -> dict[str, Any]:
    """An entry of the village desk, as the model writes it; older ones have no ``passed``."""
    return {
        "case": f"case-{number}",
        "state": {
            "address": {"level": "village", "division": division, "unit": unit},
            "acknowledged": {"by": "v-1", "at": START} if accepted else None,
        },
        "arrived": plus(START, number * HOUR),
        "status": "ended" if ended else "live",
        "ended": ended,
        "held": {"token": {}} if moved_on else None,
        "under": [division, TOWNSHIP, "469002"],
        **({"passed": passed} if passed is not None else {}),
    }


@pytest.fixture
def docket(database: Any) -> Docket:
    made = Docket(database["docket_village"])
    made.ensure_indexes()
    return made


def fill(docket: Docket, *entries: dict[str, Any]) -> None:
    writes = [Write(f"{item['case']}:1.0", 0, item, ()) for item in entries]
    assert docket.write(writes, 0.0) == set()


def test_rates_of_a_desk_a_division_and_a_unit(docket: Docket) -> None:
    fill(
        docket,
        entry(0, accepted=True),
        entry(1, accepted=True, ended="resolved"),
        entry(2, ended="resolved", passed=["acknowledge"]),
        entry(3, accepted=True, ended="resolved", passed=["acknowledge", "resolve"]),
        entry(4, ended="custody", passed=["acknowledge"], moved_on=True),
        entry(5, ended="custody", moved_on=True),
        entry(
            6, unit="team", accepted=True, ended="resolved", passed=["acknowledge"], moved_on=True
        ),
        entry(7, unit="team", accepted=True, passed=["progress"]),
        entry(8, division=OTHER),
        # What the level below asks for, and what only a release is known of, did not arrive.
        {"case": "asked", "status": "asked", "asked_in": {}, "under": [VILLAGE]},
        {**entry(9), "case": "released", "arrived": None, "state": None},
    )
    month = START, plus(START, 30 * 86400)
    assert docket.rates(WHOLE, *month) == {
        "arrived": 9,
        "acknowledged": 6,
        "completed": 4,
        "on_time": 2,
        "overdue": 5,
        "due": 6,
    }
    assert docket.rates(Scope(OTHER), *month)["arrived"] == 1
    assert docket.rates(Scope(TOWNSHIP), *month)["arrived"] == 9
    assert docket.rates(Scope(VILLAGE, unit="team"), *month) == {
        "arrived": 2,
        "acknowledged": 2,
        "completed": 1,
        "on_time": 0,
        "overdue": 2,
        "due": 2,
    }
    assert docket.rates(WHOLE, START, plus(START, 2 * HOUR))["arrived"] == 2
    assert set(docket.rates(Scope("469002999"), *month).values()) == {0}


def test_a_case_that_stays_with_its_holder_came_once(docket: Docket) -> None:
    """A merge, an emergency, a migration: a hop to the same holder is no new arrival."""
    here = {"level": "village", "division": VILLAGE, "unit": None}

    def stayed(number: int, hop: int, to: dict[str, Any], **more: Any) -> dict[str, Any]:
        made = entry(number, ended="custody", **more)
        held = {"token": {"round": 1, "hop": hop, "stage": "held"}, "address": to}
        return {**made, "round": 1, "hop": 0, "held": held}

    fill(
        docket,
        stayed(0, 1, here),
        {**entry(1, ended="resolved"), "round": 1, "hop": 1},
        # It had gone on and come back; it went elsewhere; a deadline had passed here before.
        stayed(2, 2, here),
        stayed(3, 1, {**here, "division": OTHER}),
        stayed(4, 1, here, passed=["resolve"]),
    )
    found = docket.rates(WHOLE, START, plus(START, 30 * 86400))
    assert (found["arrived"], found["completed"], found["overdue"]) == (4, 1, 1)


def test_what_is_settled_in_the_instant_of_such_a_hop_is_settled_in_time(docket: Docket) -> None:
    here = {"level": "village", "division": VILLAGE, "unit": None}
    for number, to in enumerate((here, {**here, "division": OTHER})):
        held = {"token": {"round": 1, "hop": 1, "stage": "held"}, "address": to}
        fill(docket, {**entry(number, ended="resolved"), "round": 1, "hop": 0, "held": held})
    found = docket.rates(WHOLE, START, plus(START, 30 * 86400))
    assert (found["completed"], found["on_time"]) == (2, 1)


def test_a_units_queue_by_page(docket: Docket) -> None:
    units = ["team", None, "team", "other", "team"]
    fill(docket, *(entry(number, unit=unit) for number, unit in enumerate(units)))
    page, cursor = docket.entries(Scope(VILLAGE, unit="team"), "live", None, 2)
    assert [record.key for record in page] == ["case-4:1.0", "case-2:1.0"]
    rest, end = docket.entries(Scope(unit="team"), None, Cursor.read(cursor or ""), 2)
    assert ([record.key for record in rest], end) == (["case-0:1.0"], None)
    assert len(docket.entries(Scope(VILLAGE), None, None, 9)[0]) == 5


MONTH = {"document.arrived": {"$gte": START, "$lt": plus(START, 30 * 86400)}}


@pytest.mark.parametrize(
    ("division", "unit", "keys"),
    [
        (None, "team", ["document.state.address.unit", "document.status"]),
        (VILLAGE, None, ["document.under", "document.status"]),
        (None, None, ["document.status"]),
    ],
)
@pytest.mark.parametrize("status", [None, "live"])
def test_an_index_answers_them(
    docket: Docket, division: str | None, unit: str | None, keys: list[str], status: str | None
) -> None:
    fill(docket, *(entry(number, unit=("team", None)[number % 2]) for number in range(40)))
    where = {**_arrived(Scope(division, unit=unit), status), **MONTH}
    order = [("document.arrived", -1), ("_id", -1)]
    plan = docket.collection.find(where).sort(order).limit(9).explain()["queryPlanner"]
    text = json.dumps(plan["winningPlan"], default=str)
    assert "COLLSCAN" not in text
    # It comes in the order of the index.
    assert '"stage": "SORT"' not in text
    assert (
        f'"keyPattern": {json.dumps(dict.fromkeys(keys, 1))[:-1]}, "document.arrived": -1' in text
    )


def call(
    number: int,
    unit: str = "team",
    *,
    came: float | None = None,
    done: float | None = None,
    score: int | None = None,
    left: float | None = None,
) -> dict[str, Any]:
    """A call of a unit, due to check in after an hour and to finish after ten; times in hours."""
    at = plus(START, number * HOUR)

    def when(hours: float | None) -> dict[str, Any] | None:
        return None if hours is None else {"by": "t-1", "at": plus(at, hours * HOUR), "note": ""}

    released = {"score": score} if left is not None else None
    ended = {"why": "released", "at": plus(at, (left or 0) * HOUR), "released": released}
    return {
        "case": f"call:{number}",
        "state": None,
        "call": {
            "unit": unit,
            "at": at,
            "check_in": {"due": plus(at, HOUR)},
            "finish": {"due": plus(at, 10 * HOUR)},
        },
        "checked_in": when(came),
        "finished": when(done),
        "ended": None if left is None else ended,
        "status": "called" if left is None else "ended",
        "under": [VILLAGE, TOWNSHIP, "469002"],
    }


def test_rates_of_units_that_were_called(docket: Docket) -> None:
    fill(
        docket,
        call(0, came=0.5, done=9, score=5, left=12),
        call(1, came=2, done=11, score=2, left=12),
        call(2),
        # Called off before it had to come: that says nothing of it.
        call(3, left=0.5),
        call(4, unit="other", came=1, left=2),
        entry(5, unit="team"),
    )
    until, now = plus(START, 30 * 86400), plus(START, 20 * HOUR)
    assert docket.call_rates(WHOLE, START, until, now) == {
        "called": 5,
        "checked_in": 3,
        "checked_in_on_time": 2,
        "checked_in_due": 4,
        "finished": 2,
        "finished_on_time": 1,
        "finished_due": 3,
        "scored": 2,
        "score": 3.5,
    }
    # What is not due yet, and what was not scored, does not count.
    early = docket.call_rates(Scope(unit="other"), START, until, plus(START, 4.5 * HOUR))
    assert (early["checked_in_due"], early["finished_due"], early["score"]) == (1, 0, None)
    assert docket.call_rates(Scope(OTHER), START, until, now)["called"] == 0
    # A desk's own rates know nothing of them.
    assert docket.rates(WHOLE, START, until)["arrived"] == 1


@pytest.mark.parametrize("unit", [None, "team"])
def test_calls_come_by_page_from_an_index(docket: Docket, unit: str | None) -> None:
    fill(docket, *(call(number, ("team", "other")[number % 2]) for number in range(8)))
    fill(docket, *(entry(number, unit="team") for number in range(20, 60)))
    page, cursor = docket.calls(Scope(VILLAGE, unit=unit), "called", None, 3)
    rest, _end = docket.calls(Scope(unit=unit), None, Cursor.read(cursor or ""), 9)
    keys = [(record.document or {})["case"] for record in [*page, *rest]]
    wanted = [number for number in range(8) if unit is None or number % 2 == 0]
    assert keys == [f"call:{number}" for number in reversed(wanted)]
    assert docket.calls(WHOLE, "ended", None, 9)[0] == []
    order = [("document.call.at", -1), ("_id", -1)]
    found = docket.collection.find(_called(Scope(unit=unit))).sort(order).limit(3)
    text = json.dumps(found.explain()["queryPlanner"]["winningPlan"], default=str)
    assert "COLLSCAN" not in text
    assert '"stage": "SORT"' not in text
