"""What a profile says of sensors (监测): from which value on a reading is a case, and what case.

One line for a quantity (and, if it names them, certain sensors); the first that is for a reading
counts. ``clear`` is where a sensor counts as calm again: between the two nothing changes, so that
one that flaps around the threshold makes one case (hysteresis).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SIDES = ("above", "below")


@dataclass(frozen=True)
class SensorRule:
    """One line of a profile's ``sensors``.

    ``sensors`` are the only ones that it is for, none: all; ``quiet`` is in seconds;
    ``measured_in`` the unit that readings must say; ``reported_as`` one of the profile's sources.
    """

    name: str
    quantity: str
    sensors: tuple[str, ...]
    side: str
    threshold: float
    clear: float
    quiet: float
    measured_in: str
    category: str
    urgency: str
    title: str
    reported_as: str
    source: str

    def beyond(self, value: float) -> bool:
        """Whether this value makes a case."""
        return value > self.threshold if self.side == "above" else value < self.threshold

    def calm(self, value: float) -> bool:
        """Whether a sensor that was beyond the threshold is calm again."""
        return value <= self.clear if self.side == "above" else value >= self.clear


def rule_for(rules: Iterable[SensorRule], quantity: str, sensor: str) -> SensorRule | None:
    """The line that is for this sensor's readings of a quantity, if there is one."""
    return next(
        (
            rule
            for rule in rules
            if rule.quantity == quantity and (not rule.sensors or sensor in rule.sensors)
        ),
        None,
    )
