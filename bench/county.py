"""The county of the measures, and reports in one of its grids."""

from __future__ import annotations

import uuid
from typing import cast

from services.bus.directory import Follower
from services.bus.fold import Fold, Record
from services.bus.memory import MemoryBus
from services.bus.store import MongoStore
from services.grid.clock import Instant, ScaledClock
from services.grid.events import Event
from services.grid.profile import Loaded
from services.intake import directory as intake
from services.intake import model
from tests.simulator.county import DIVISIONS, GRID, OFFICERS, atlas

ATLAS = atlas()
LOADED = Loaded(ATLAS.profile(ATLAS.current[0].id), DIVISIONS, (), OFFICERS)


def report(now: Instant) -> Event:
    """``case.reported`` of a new case, as intake publishes it."""
    place = ATLAS.directory.division(GRID)
    assert place is not None
    decision = model.open_case(
        None,
        str(uuid.uuid4()),
        {
            "title": "路灯不亮",
            "category": "facility",
            "urgency": "ordinary",
            "source": "app",
            "digest": "",
            "reporter": None,
        },
        place,
        certain=True,
        profile=ATLAS.current[0],
        atlas=ATLAS,
        now=now,
    )
    return cast(Event, decision.events[0])


def fill_directory(store: MongoStore) -> None:
    """What a service would have learned of this county from intake."""
    store.collection.drop()
    clock = ScaledClock(1, 0.0, 0.0)
    fold = Fold(store, MemoryBus(), clock)
    works = intake.works(LOADED, (), clock.now(), clock.real())
    told = [event for work in works for event in work.change(Record(work.key)).events]
    fold.run(Follower(fold, store, clock).absorb(told))
