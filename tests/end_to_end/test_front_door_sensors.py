"""Sensors at the front door, over both doors: readings become cases by the profile's threshold."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.connection import Connection

from services.grid.clock import plus
from services.grid.events.bindings import BATCH
from tests.end_to_end.county import County, eventually
from tests.end_to_end.test_front_door import System, errors
from tests.end_to_end.test_front_door_amqp import Publisher, of
from tests.integration.test_systems import told

VILLAGE = "469002104205"


@pytest.fixture(scope="module")
def doors(county: County) -> Iterator[tuple[Publisher, System]]:
    found = told(county, "add", "station", "--may", "sensor.reading", "--division", VILLAGE)
    account, host = found["amqp"], county.about["amqp"].rpartition("@")[2]
    with Connection(f"amqp://{account['user']}:{account['password']}@{host}") as connection:
        connection.default_channel.confirm_select()
        yield (
            Publisher("station", connection.default_channel),
            System(county, "station", found["key"]),
        )


class Sensor:
    """A sensor that reads at times of its own, an hour before now."""

    def __init__(self, county: County, system: System | Publisher) -> None:
        self.name = f"r-{uuid.uuid4().hex[:8]}"
        self.system = system
        self.start = plus(county.clock.now(), -3600)

    def reading(self, value: Any, minutes: float, **more: Any) -> dict[str, Any]:
        data = {
            "sensor": self.name,
            "division": VILLAGE,
            "quantity": "water_level",
            "value": value,
            "measured_in": "m",
            **more,
        }
        event = self.system.event("sensor.reading", **data)
        return {**event, "time": plus(self.start, minutes * 60)}


def test_a_sensor_that_flaps_makes_one_case_which_is_told(
    county: County, doors: tuple[Publisher, System]
) -> None:
    _, system = doors
    sensor = Sensor(county, system)
    assert system.accepted(sensor.reading(9, 0))["reading"] == "calm"
    first = sensor.reading(10.2, 1)
    opened = system.accepted(first)
    assert (opened["reading"], opened["status"]) == ("beyond", "reported")
    flaps = [sensor.reading(10.4 if minute % 2 else 9.7, minute) for minute in range(2, 30)]
    answer = system.post(flaps, BATCH).json()
    assert answer["rejected"] == []
    assert all("case" not in each for each in answer["accepted"])
    # The same once more opens and tells nothing; an earlier one is late.
    assert system.accepted(first)["reading"] == "late"
    assert system.accepted(sensor.reading(12, 0.5))["reading"] == "late"
    told_of = system.accepted(sensor.reading(10.9, 62))
    assert (told_of["case"], told_of["reading"]) == (opened["case"], "beyond")
    case = county.case(opened["case"])
    assert (case["title"], case["external"]["system"]) == ("水位超限", "station")
    (update,) = eventually("told", lambda: county.timeline(opened["case"], "case.updated"))
    assert "10.9 m" in update["data"]["update"]["text"]
    assert len(system.get("/v1/cases").json()["cases"]) == 1


def test_over_amqp_it_is_the_same_and_another_case_comes_after_it_was_calm(
    county: County, doors: tuple[Publisher, System]
) -> None:
    publisher, _ = doors
    sensor = Sensor(county, publisher)

    def sends(value: float, minutes: float) -> dict[str, Any]:
        event = sensor.reading(value, minutes)
        publisher.send(event, kind="sensor.reading")
        return dict(publisher.answer("accepted", of(event))["data"])

    first = sends(11, -400)
    county.arrived("village", first["case"])
    assert county.act("village", first["case"], "resolve", outcome="settled").status_code == 200
    eventually("resolved", lambda: county.case(first["case"])["status"] == "resolved")
    assert "case" not in sends(11, -200)
    assert sends(9, -190)["reading"] == "calm"
    second = sends(11, -180)
    assert second.get("case") not in (None, first["case"]), second
    heard = publisher.answer("status", lambda data: data["case"] == second["case"])["data"]
    assert heard["reference"] == f"{sensor.name}/water_level/2"


def test_what_no_threshold_is_for_is_refused(
    county: County, doors: tuple[Publisher, System]
) -> None:
    _, system = doors
    sensor = Sensor(county, system)
    wrong = {
        "quantity": sensor.reading(1, 1, quantity="wind"),
        "measured_in": sensor.reading(1, 1, measured_in="cm"),
        "value": sensor.reading("11", 1),
        "sensor": sensor.reading(1, 1, sensor="西 侧"),
    }
    for field, event in wrong.items():
        assert list(errors(system.post(event), 422)) == [f"data.{field}"]
    # Only this pump has a threshold.
    pump = sensor.reading(90, 1, quantity="pressure", measured_in="kPa")
    assert list(errors(system.post(pump), 422)) == ["data.quantity"]
    timeless = {name: value for name, value in sensor.reading(11, 1).items() if name != "time"}
    assert list(errors(system.post(timeless), 422)) == ["time"]
    outside = sensor.reading(11, 1, division="469002104214")
    assert "outside" in errors(system.post(outside), 409)["event"]
    # A clock that runs ahead is believed up to now: what comes after it counts.
    assert system.accepted({**sensor.reading(9, 1), "time": "2199-01-01T00:00:00Z"})
    now = {**sensor.reading(11, 1), "time": plus(county.clock.now(), 3600)}
    assert system.accepted(now)["reading"] == "beyond"
