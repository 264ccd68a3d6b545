"""A desk's questions to a real database: a unit's queue, rates, and by which index."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.bus.fold import Write
from services.bus.paging import Cursor
from services.dispatch.store import Docket, _arrived
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
