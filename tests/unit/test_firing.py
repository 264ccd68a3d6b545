"""When the custodian acts: how long it waits, and what it says of what is overdue."""

from __future__ import annotations

from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from services.escalation import firing
from services.escalation.firing import BATCH, Markers
from services.grid.clock import FrozenClock, Instant, plus

START = FrozenClock().now()


class _Custody:
    """So many cases that are due, of which each look takes a batch."""

    def __init__(self, due: list[Instant]) -> None:
        self._due = sorted(due)

    def due(self, horizon: Instant, limit: int, *_others: object) -> list[str]:
        found = [at for at in self._due if at <= horizon][:limit]
        self._due = self._due[len(found) :]
        return [f"case-{at}" for at in found]

    def next_due(self, _shards: object) -> Instant | None:
        return self._due[0] if self._due else None


class _Custodian:
    """What firing asks of a custodian's shell."""

    shards = (0, 1)

    def __init__(self, clock: FrozenClock, due: list[Instant]) -> None:
        self.clock = clock
        self.store = _Custody(due)
        self.custodians = self
        self.county = self

    def reached(self, _by: str) -> None:
        """No other replica has read anything."""

    def atlas(self) -> None:
        """The county, of which nobody asks anything here."""

    def knowing(self, *_arguments: object) -> None:
        """Nothing becomes of a case here."""


@pytest.fixture(autouse=True)
def _nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing, "_written", lambda _custodian, _works: None)


def overdue() -> float | None:
    return REGISTRY.get_sample_value("huashi_deadlines_overdue_seconds", {"lane": "0"})


def fire(clock: FrozenClock, due: list[Instant], *, read: bool = True) -> float:
    markers = Markers(clock)
    if read:
        markers.came_back(markers.next())
    return firing.fire(cast(Any, _Custodian(clock, due)), markers, 0)


def test_it_waits_until_the_next_is_due() -> None:
    clock = FrozenClock()
    assert fire(clock, [START, plus(START, 90)]) == 90
    assert overdue() == 0
    assert fire(clock, []) == 1
    assert overdue() == 0


def test_when_its_clock_was_set_back_it_goes_on_with_its_next_marker() -> None:
    clock = FrozenClock()
    markers = Markers(clock)
    clock.advance(7200)
    old = markers.next()
    markers.came_back(old)
    clock.advance(-3600)
    now = clock.advance(1)
    read = markers.next()
    # The one that read the queue keeps the furthest of each name: of this one it has heard nothing.
    assert (read.subject == markers.by, read.subject == old.subject) == (True, False)
    assert markers.horizon(None) is None
    markers.came_back(read)
    assert markers.horizon(None) == now
    # An ordinary second later it is still the same.
    clock.advance(1)
    assert markers.next().subject == read.subject


def test_it_says_how_long_one_is_overdue_also_in_a_storm_and_while_nothing_may_fire() -> None:
    clock = FrozenClock()
    due = [plus(START, second) for second in range(2 * BATCH)]
    clock.advance(3600)
    assert fire(clock, due) == 0
    assert overdue() == 3600 - BATCH
    assert fire(clock, due, read=False) == 1
    assert overdue() == 3600
