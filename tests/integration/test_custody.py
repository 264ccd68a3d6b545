"""Which deadlines are fired first when many are overdue, on a real database and by an index."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.bus.fold import Write
from services.escalation.store import Custody
from services.grid.clock import Instant, plus

START = Instant("2026-11-01T00:00:00.000Z")
HOUR = 3600
EVERY = range(4)


@pytest.fixture
def custody(database: Any) -> Custody:
    made = Custody(database["custody"])
    made.ensure_indexes()
    return made


def case(name: str, hours: float | None, level: str, rank: int = 1) -> dict[str, Any]:
    """A case that is to be looked at so many hours after the start, as far as it counts."""
    due = None if hours is None else plus(START, hours * HOUR)
    state = {"token": {"stage": "held"}, "address": {"level": level}}
    return {"case": name, "state": state, "next_due": due, "rank": rank, "shard": hash(name) % 4}


def fill(custody: Custody, *cases: dict[str, Any]) -> None:
    assert custody.write([Write(item["case"], 0, item, ()) for item in cases], 0.0) == set()


def due(custody: Custody, hours: float, limit: int, fresh: float = 0.0) -> list[str]:
    """What is taken ``hours`` after the start; what came due in the last ``fresh`` is fresh."""
    now = plus(START, hours * HOUR)
    return custody.due(now, limit, EVERY, plus(now, -fresh * HOUR))


def test_in_a_storm_levels_take_turns_as_they_came_due(custody: Custody) -> None:
    # The households' storm, and now and then one of the township's.
    storm = [case(f"h-{number:02}", number, "household") for number in range(40)]
    others = [case(f"t-{number:02}", number + 0.5, "township") for number in range(0, 40, 10)]
    fill(custody, *storm, *others)
    taken = due(custody, 100, 22)
    assert taken == sorted(taken, key=lambda name: int(name[2:]) + 0.5 * (name[0] == "t"))
    assert [name for name in taken if name[0] == "t"] == ["t-00", "t-10"]


def test_what_is_more_urgent_comes_first_whatever_its_level(custody: Custody) -> None:
    fill(
        custody,
        case("calm", 1, "township", rank=2),
        case("urgent", 3, "household", rank=0),
        case("ordinary", 2, "village", rank=1),
    )
    assert due(custody, 4, 9) == ["urgent", "ordinary", "calm"]


def test_half_of_the_places_are_for_what_is_due_just_now(custody: Custody) -> None:
    storm = [case(f"old-{number:02}", number / 100, "household", rank=0) for number in range(30)]
    live = [case(f"new-{number}", 9 + number / 100, "village") for number in range(3)]
    fill(custody, *storm, *live)
    taken = due(custody, 10, 10, fresh=2)
    assert taken[:3] == ["new-0", "new-1", "new-2"]
    assert taken[3:] == [f"old-{number:02}" for number in range(7)]
    # Of many that are fresh no more than half.
    fill(custody, *(case(f"more-{number:02}", 9.5, "village") for number in range(30)))
    taken = due(custody, 10, 10, fresh=2)
    assert len(taken) == 10
    assert sum(name.startswith("old") for name in taken) == 5


def test_what_is_not_due_or_another_s_or_not_known_to_all_yet_is_left(custody: Custody) -> None:
    fill(
        custody,
        case("due", 1, "household"),
        case("later", 3, "household"),
        case("ended", None, "household"),
        case("untold", 1, "household"),
    )
    custody.collection.update_one({"_id": "untold"}, {"$set": {"unpublished": [{"custody": True}]}})
    assert due(custody, 2, 9) == ["due"]
    shard = hash("due") % 4
    now = plus(START, 2 * HOUR)
    assert custody.due(now, 9, [each for each in EVERY if each != shard], now) == []
    assert custody.due(now, 9, [], now) == []


def test_an_index_gives_the_most_urgent_in_their_order(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(custody, *(case(f"{number}", number, "village", number % 3) for number in range(60)))
    asked: list[dict[str, Any]] = []
    find = custody.collection.find

    class Watched:
        """The collection, that remembers what it was asked."""

        def find(self, where: dict[str, Any], *more: Any) -> Any:
            asked.append(where)
            return find(where, *more)

    monkeypatch.setattr(custody, "collection", Watched())
    due(custody, 100, 5)
    (overdue, _) = asked
    by_rank = [("document.rank", 1), ("document.next_due", 1)]
    plan = find(overdue).sort(by_rank).limit(5).explain()["queryPlanner"]["winningPlan"]
    text = json.dumps(plan, default=str)
    assert "COLLSCAN" not in text
    assert '"stage": "SORT"' not in text
