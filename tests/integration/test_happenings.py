"""What happened to other systems' cases, on MongoDB: once each, in the order it was heard of."""

from __future__ import annotations

from typing import Any

import pytest

from services.bus.errors import Retry
from services.grid.clock import FrozenClock, plus
from services.grid.events import Event
from services.grid.tokens import Address
from services.intake import model
from services.intake.happenings import entries
from services.intake.store import Happenings
from tests.simulator.county import GRID, atlas

ATLAS = atlas()
NOW = FrozenClock().now()
SOON, LATE = plus(NOW, 60), plus(NOW, 3600)


def case(by: str | None, number: int = 1) -> tuple[dict[str, Any], Event, Event]:
    """A case's record with its report, and with its withdrawal."""
    place = ATLAS.directory.division(GRID)
    assert place is not None
    report = {
        "title": "路灯不亮",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
        "digest": "d",
        "reporter": None,
        "by": by,
    }
    made = model.open_case(
        None,
        f"case-{number}",
        report,
        place,
        certain=True,
        profile=ATLAS.current[0],
        atlas=ATLAS,
        now=NOW,
    )
    assert made.document is not None
    taken = model.withdraw(made.document, by or "", "修好了", atlas=ATLAS, now=SOON)
    assert taken.document is not None
    return taken.document, made.events[0], taken.events[0]


@pytest.fixture
def kept(database: Any) -> Happenings:
    store = Happenings(database["happenings"])
    store.ensure_indexes()
    return store


def test_what_is_heard_twice_is_kept_once_as_it_was_heard_first(kept: Happenings) -> None:
    document, _, withdrawn = case("system.app")
    for at in (SOON, LATE):
        kept.keep(entries([(withdrawn, document)], at))
    (found,) = kept.of("system.app", NOW, LATE, 0, 10)
    assert (found["_id"], found["at"]) == (withdrawn.id, SOON)
    assert Address.of(found["state"]["address"]).level == "household"
    # With a new one among those that are there already.
    other, _, another = case("system.app", 2)
    kept.keep(entries([(withdrawn, document), (another, other)], LATE))
    assert [each["case"] for each in kept.of("system.app", NOW, LATE, 0, 10)] == [
        "case-1",
        "case-2",
    ]
    assert [each["case"] for each in kept.of("system.app", NOW, LATE, 1, 10)] == ["case-2"]
    assert kept.of("system.app", plus(LATE, 1), plus(LATE, 2), 0, 10) == []
    assert kept.of("system.other", NOW, LATE, 0, 10) == []


def test_a_report_and_what_people_report_is_not_kept() -> None:
    document, reported, withdrawn = case("system.app")
    assert entries([(reported, document)], NOW) == []
    people, _, theirs = case("lin")
    nobody, _, lost = case(None)
    assert entries([(theirs, people), (lost, nobody), (withdrawn, None)], NOW) == []
    # A record that was restored without its report.
    assert entries([(withdrawn, {**document, "report": None})], NOW) == []
    (entry,) = entries([(withdrawn, document)], NOW)
    assert "路灯" not in str(entry["state"])


def test_what_mongodb_does_not_take_is_not_taken_for_kept(kept: Happenings, database: Any) -> None:
    document, _, withdrawn = case("system.app")
    database.command("collMod", "happenings", validator={"at": {"$type": "int"}})
    with pytest.raises(Retry):
        kept.keep(entries([(withdrawn, document)], NOW))
