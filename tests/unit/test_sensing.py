"""Sensors: a threshold makes readings a case, and one that flaps makes one."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.bus.fold import Document
from services.grid.clock import Instant, plus
from services.grid.problems import ProfileError
from services.grid.profile import Profile
from services.grid.sensors import SensorRule, rule_for
from services.intake.sensing import BEYOND, CALM, LATE, Reading, Sensed, take
from tests.simulator.county import RULES

START = Instant("2026-01-05T00:00:00.000Z")
LINE: dict[str, Any] = {
    "quantity": "level",
    "measured_in": "m",
    "above": 10,
    "clear": 9.5,
    "quiet": "1h",
    "category": "facility",
    "urgency": "urgent",
    "title": "水位超限",
    "reported_as": "app",
    "source": "assumption",
}


def rule(**more: Any) -> SensorRule:
    return Profile.parse({**RULES, "sensors": [{**LINE, **more}]}).sensors[0]


class Sensor:
    """A sensor's record, and its cases as the register has them, by their stage."""

    def __init__(self) -> None:
        self.document: Document | None = None
        self.cases: dict[str, str] = {}
        self.told: list[str] = []

    def reads(self, value: float, minutes: float) -> str:
        reading = Reading("station", "r-7", "level", value, plus(START, minutes * 60))
        known = self.document["case"] if self.document else None
        decision = take(self.document, reading, rule(), self.cases.get(known or ""))
        self.document = decision.document
        sensed: Sensed = decision.answer
        if sensed.case is not None and sensed.case not in self.cases:
            assert sensed.opens
            self.cases[sensed.case] = "held"
        elif sensed.case is not None and not sensed.opens:
            self.told.append(sensed.case)
        return sensed.state

    def ends(self) -> None:
        self.cases = dict.fromkeys(self.cases, "resolved")


def test_one_that_flaps_makes_one_case() -> None:
    sensor = Sensor()
    assert sensor.reads(9.9, 0) == CALM
    for minute in range(1, 50):
        assert sensor.reads(10.1 if minute % 2 else 9.8, minute) == BEYOND
    assert len(sensor.cases) == 1
    assert sensor.told == []
    # Also if it flaps over both values: the case is open still.
    for minute in range(50, 120):
        sensor.reads(10.1 if minute % 2 else 9, minute)
    assert len(sensor.cases) == 1


def test_it_is_told_at_most_once_in_each_quiet_time() -> None:
    sensor = Sensor()
    for minute in range(200):
        sensor.reads(11, minute)
    assert len(sensor.told) == 3


def test_after_the_case_has_ended_another_needs_a_sensor_that_was_calm() -> None:
    sensor = Sensor()
    sensor.reads(11, 0)
    sensor.ends()
    assert sensor.reads(12, 90) == BEYOND
    assert sensor.reads(9.8, 91) == BEYOND
    assert sensor.reads(12, 200) == BEYOND
    assert len(sensor.cases) == 1
    assert sensor.reads(9.5, 201) == CALM
    sensor.reads(10.5, 202)
    assert list(sensor.cases.values()) == ["resolved", "held"]
    # Not within a quiet time of the last one's beginning.
    sensor.ends()
    sensor.reads(9, 203)
    sensor.reads(11, 204)
    assert len(sensor.cases) == 2
    sensor.reads(11, 263)
    assert len(sensor.cases) == 3


def test_late_and_repeated_readings_change_nothing() -> None:
    sensor = Sensor()
    sensor.reads(9, 10)
    assert sensor.reads(12, 5) == LATE
    assert sensor.cases == {}
    sensor.reads(12, 20)
    before = sensor.document
    assert sensor.reads(12, 20) == BEYOND
    assert sensor.reads(9, 15) == LATE
    assert (sensor.document, len(sensor.cases), sensor.told) == (before, 1, [])


def test_a_case_that_the_register_lacks_is_opened_by_whatever_comes_next() -> None:
    sensor = Sensor()
    sensor.reads(12, 0)
    (case,) = sensor.cases
    sensor.cases = {}
    # The process died before it opened it: the same again, or the next one.
    sensor.reads(12, 0)
    assert list(sensor.cases) == [case]
    sensor.cases = {}
    sensor.reads(12, 1)
    assert list(sensor.cases) == [case]


VALUES = st.lists(st.sampled_from([8.0, 9.5, 9.8, 10.0, 10.2, 12.0]), max_size=40)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.randoms())
def test_in_any_order_and_twice_there_are_never_more_cases_than_crossings(
    values: list[float], random: Any
) -> None:
    sent = list(zip(values, count(0, 30)))
    crossings, beyond = 0, False
    for value, _ in sent:
        crossings += value > 10 and not beyond
        beyond = value > 10 or (beyond and value > 9.5)
    again = [*sent, *random.sample(sent, len(sent) // 2)]
    sensor, straight = Sensor(), Sensor()
    for value, minute in sent:
        straight.reads(value, minute)
    assert len(straight.cases) == min(crossings, 1)
    random.shuffle(again)
    for value, minute in again:
        sensor.reads(value, minute)
        sensor.ends()
    assert len(sensor.cases) <= crossings


def test_below_is_the_other_way_round() -> None:
    line = {name: value for name, value in LINE.items() if name != "above"}
    low = Profile.parse({**RULES, "sensors": [{**line, "below": 100, "clear": 120}]}).sensors[0]
    assert (low.beyond(99), low.beyond(100), low.calm(119), low.calm(120)) == (
        True,
        False,
        False,
        True,
    )


def test_the_first_line_for_a_sensor_counts() -> None:
    lines = [{**LINE, "sensors": ["r-7"], "above": 20, "clear": 19}, LINE]
    rules = Profile.parse({**RULES, "sensors": lines}).sensors
    found = [rule_for(rules, "level", sensor) for sensor in ("r-7", "r-8")]
    assert [item.threshold for item in found if item] == [20, 10]
    assert rule_for(rules, "pressure", "r-7") is None


@pytest.mark.parametrize(
    ("change", "field", "cure"),
    [
        ({"clear": 11}, "clear", "calm side"),
        ({"below": 9}, "sensors[0]", "one of above and below"),
        ({"above": "ten"}, "above", "write a number"),
        ({"category": "magic"}, "category", "magic"),
        ({"reported_as": "owl"}, "reported_as", "owl"),
        ({"quiet": "soon"}, "quiet", "soon"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], field: str, cure: str) -> None:
    with pytest.raises(ProfileError) as wrong:
        rule(**change)
    (problem,) = wrong.value.problems
    assert field in problem.field
    assert cure in problem.text


def test_a_line_that_never_applies_is_wrong() -> None:
    with pytest.raises(ProfileError, match="a line before"):
        Profile.parse({**RULES, "sensors": [LINE, {**LINE, "sensors": ["r-7"]}]})
