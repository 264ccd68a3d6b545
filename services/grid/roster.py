"""Who answers at a place now, until when, and who is next."""

from __future__ import annotations

from typing import NamedTuple

from services.grid.clock import Instant
from services.grid.directory import Directory, OnDuty
from services.grid.profile import Profile
from services.grid.tokens import Address

AHEAD_DAYS = 60
"""How far it looks for the next handover."""


class Roster(NamedTuple):
    """Who answers, and why (see :meth:`Profile.on_duty`); from ``until`` on it is ``then``.

    ``until`` is None if nothing changes within :data:`AHEAD_DAYS`.
    """

    officers: tuple[OnDuty, ...]
    why: str
    until: Instant | None = None
    then: tuple[OnDuty, ...] = ()
    then_why: str | None = None


def roster(profile: Profile, address: Address, directory: Directory, at: Instant) -> Roster:
    """The roster of a place at a time."""
    now = profile.on_duty(address, directory, at)
    for change in directory.duty_changes(address, at, AHEAD_DAYS):
        later = profile.on_duty(address, directory, change)
        if later != now:
            return Roster(*now, change, *later)
    return Roster(*now)
