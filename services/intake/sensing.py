"""Sensors (监测): a profile's threshold makes readings a case, one however much a sensor flaps.

A record for each sensor and quantity is ``{system, sensor, quantity, time, beyond, case, number,
opened, told}``:

- ``time`` is when the latest reading was measured: one that is no later changes nothing, so that
  readings may come late, twice and in any order;
- ``beyond`` is whether it has crossed the threshold and was not calm since (hysteresis);
- ``case`` is its last case, none before the first, ``number`` how many it had, ``opened`` and
  ``told`` when that began and was last told of a reading.

The record says which case there is to be before the register has it: a case's id follows from the
record, and whoever finds that the register lacks it opens it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.bus.fold import Decision, Document
from services.bus.store import MongoStore, database_errors
from services.grid.clock import Instant, seconds_between
from services.grid.events.envelope import NAMESPACE
from services.grid.sensors import SensorRule
from services.grid.tokens import Stage

LATE, CALM, BEYOND = "late", "calm", "beyond"
STATES = (LATE, CALM, BEYOND)
"""What a reading says of its sensor; ``late`` is one that a later one has overtaken."""
MOST = 10_000
"""So many sensors may a system have."""


class Sensors(MongoStore):
    """The collection of sensors."""

    name = "sensors"

    def ensure_indexes(self) -> None:
        """Those of a system are counted."""
        super().ensure_indexes()
        with database_errors():
            self.collection.create_index("document.system")

    def count(self, system: str) -> int:
        """How many sensors a system has, counted up to :data:`MOST`."""
        with database_errors():
            return self.collection.count_documents({"document.system": system}, limit=MOST)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sensor measured, and when."""

    system: str
    sensor: str
    quantity: str
    value: float
    time: Instant

    @property
    def key(self) -> str:
        """Of its record."""
        return f"{self.system}:{self.sensor}:{self.quantity}"


@dataclass(frozen=True, slots=True)
class Sensed:
    """What a reading comes to: the sensor's state, and the case that is to be told of it.

    ``opens`` says that the register may have to open it.
    """

    state: str
    case: str | None = None
    number: int = 0
    opens: bool = False


def take(
    document: Document | None, reading: Reading, rule: SensorRule, stage: str | None
) -> Decision:
    """The record after a reading; the answer is :class:`Sensed`.

    A sensor opens a case when it goes beyond the threshold; while that is open, readings beyond it
    are told to it, at most one in each quiet time. After it has ended, there is another only once
    the sensor was calm, and not within a quiet time of the last one's beginning.

    :param stage: of the record's case in the register, none if it has none.
    """
    known = document or {
        **{"system": reading.system, "sensor": reading.sensor, "quantity": reading.quantity},
        **{"time": "", "beyond": False, "case": None, "number": 0, "opened": "", "told": ""},
    }
    if reading.time < known["time"]:
        return Decision(document, answer=Sensed(LATE))
    if reading.time == known["time"]:
        # The same once more; what it was to open may be missing still.
        told = known["told"] == reading.time
        state = BEYOND if known["beyond"] else CALM
        return Decision(document, answer=_sensed(known, state, told=told, stage=stage))
    beyond = rule.beyond(reading.value) or (known["beyond"] and not rule.calm(reading.value))
    known = {**known, "time": reading.time}
    if not rule.beyond(reading.value):
        # Between the two values nothing is told.
        known |= {"beyond": beyond}
        state = BEYOND if beyond else CALM
        return Decision(known, answer=_sensed(known, state, told=False, stage=stage))
    was, open_ = known["beyond"], known["case"] is not None and stage in (None, Stage.HELD.word)
    if open_ or was:
        due = seconds_between(known["told"], reading.time) >= rule.quiet
        if due and open_:
            known |= {"told": reading.time}
        known |= {"beyond": True}
        return Decision(known, answer=_sensed(known, BEYOND, told=due and open_, stage=stage))
    if known["case"] is not None and seconds_between(known["opened"], reading.time) < rule.quiet:
        return Decision(known, answer=_sensed(known, BEYOND, told=False, stage=stage))
    number = known["number"] + 1
    case = str(uuid.uuid5(NAMESPACE, str(("sensor", reading.key, number))))
    known |= {"beyond": True, "case": case, "number": number}
    known |= {"opened": reading.time, "told": reading.time}
    return Decision(known, answer=Sensed(BEYOND, case, number, opens=True))


def _sensed(known: Mapping[str, Any], state: str, *, told: bool, stage: str | None) -> Sensed:
    """What is said of a sensor whose case, if it has one, is to be told or may be missing."""
    if state != BEYOND:
        return Sensed(state)
    missing = stage is None
    opens = missing or known["opened"] == known["told"] == known["time"]
    return Sensed(state, known["case"] if told or missing else None, known["number"], opens=opens)
