"""What may be reported twice, asked of a real database: by which index, and what is alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.bus.fold import Write
from services.grid.clock import Instant, plus
from services.intake import duplicates
from services.intake.store import Register
from tests.simulator.county import atlas

START = Instant("2026-11-01T00:00:00.000Z")
HOUR, DAY = 3600.0, 86400.0
VILLAGE, GRID, BESIDE = "469002104214", "46900210421403007", "46900210421403008"
DIRECTORY = atlas().directory


def case(
    number: int, *, category: str = "facility", status: str = "reported", **more: Any
) -> dict[str, Any]:
    division = more.get("division", GRID)
    return {
        "case": f"case-{number:02}",
        "tracking": f"T{number:02}",
        "facts": {
            "title": more.get("title", "路灯不亮"),
            "category": category,
            "division": division,
            "reported_at": plus(START, number * HOUR),
        },
        "report": {"description": more.get("description")},
        "status": status,
        "under": [place.code for place in DIRECTORY.ancestors(division)],
    }


@pytest.fixture
def register(database: Any) -> Register:
    made = Register(database["register"])
    made.ensure_indexes()
    return made


def fill(register: Register, *cases: dict[str, Any]) -> None:
    assert register.write([Write(item["case"], 0, item, ()) for item in cases], 0.0) == set()


def test_those_nearest_in_time_are_compared(register: Register) -> None:
    fill(
        register,
        *(case(number) for number in range(0, 20, 2)),
        case(9, category="order"),
        case(11, status="withdrawn"),
        case(13, division="46900210420501001"),
    )
    around = duplicates.around(GRID, DIRECTORY)

    def found(hours: float, within: float, limit: int, *category: str) -> list[str]:
        items = register.like(around, plus(START, hours * HOUR), within, limit, *category)
        return [item["case"] for item in items]

    near = ["case-10", "case-08", "case-06", "case-12", "case-14"]
    assert found(10, 4 * HOUR, 9, "facility") == near
    assert found(10, 100 * HOUR, 2, "facility") == ["case-10", "case-08", "case-12", "case-14"]
    assert found(10, 4 * HOUR, 9) == ["case-10", "case-09", *near[1:]]
    assert found(10, 100 * HOUR, 2) == ["case-10", "case-09", "case-12", "case-14"]
    # Nothing of them is read that nobody needs.
    item = register.like(around, START, HOUR, 1)[0]
    assert item.keys() == {"case", "facts", "report", "status"}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("category", [None, "order"])
def test_an_index_finds_them_in_their_order(
    register: Register, order: int, category: str | None
) -> None:
    fill(
        register,
        *(case(number, category=("facility", "order")[number % 2]) for number in range(40)),
    )
    where = {
        "document.under": VILLAGE,
        **({"document.facts.category": category} if category else {}),
        "document.facts.reported_at": {"$gte": START, "$lte": plus(START, 3 * DAY)},
        "document.status": {"$ne": "withdrawn"},
    }
    by_time = [("document.facts.reported_at", order), ("_id", order)]
    plan = register.collection.find(where).sort(by_time).limit(9).explain()["queryPlanner"]
    text = json.dumps(plan["winningPlan"], default=str)
    assert "COLLSCAN" not in text
    assert '"stage": "SORT"' not in text
    assert ('"document.facts.category": 1' in text) == (category is not None)
