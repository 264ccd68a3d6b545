"""Duty (值班): when an officer is on duty, on leave, and who takes over then.

A week's rota, overrides for certain dates and a deputy are said of one officer. All three kinds
of time are written as :class:`Stretch`: hours on days of the week, within dates. Hours that end
where they begin, or before, go on to the next day: ``08:00-08:00`` is a whole day and night with
the handover at eight. At the gap and the fold of a zone's clock nobody's duty ends before the
next one's begins (:func:`services.grid.calendars.local_instant`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from services.grid.calendars import (
    WEEK,
    end_of_day,
    local_date,
    local_instant,
    read_hours,
)
from services.grid.clock import Instant

ALWAYS = "00:00-24:00"
MOST_WEEKS = 52
"""How many weeks a rotation may have."""

_WEEKS = re.compile(r"([1-9][0-9]?)/([1-9][0-9]?)", re.ASCII)


def read_weeks(text: str) -> tuple[int, int]:
    """Of ``1/2`` which week of how many: the first of every two.

    :raises ValueError: what is allowed.
    """
    match = _WEEKS.fullmatch(text)
    if match is None or not int(match[1]) <= int(match[2]) <= MOST_WEEKS:
        raise ValueError(
            f"{text!r}: write which week of how many, such as 1/2 and 2/2, at most {MOST_WEEKS}"
        )
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Stretch:
    """Hours that begin on some days of the week, from a ``first`` to a ``last`` day.

    ``week`` of ``weeks`` counts from the week of the first day.
    """

    days: frozenset[int]
    starts: time
    ends: time | None
    first: date | None
    last: date | None
    week: int
    weeks: int
    deputy: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Stretch:
        """From its form in entries: ``{days, hours, first, last, weeks, deputy}``."""
        hours = read_hours(said["hours"])
        if hours is None:
            raise ValueError(f"{said['hours']!r} are no hours")
        week, weeks = read_weeks(said["weeks"] or "1/1")
        return cls(
            frozenset(WEEK.index(day) for day in said["days"]),
            hours.starts,
            hours.ends,
            date.fromisoformat(said["first"]) if said["first"] else None,
            date.fromisoformat(said["last"]) if said["last"] else None,
            week,
            weeks,
            said.get("deputy"),
        )

    def begins_on(self, day: date) -> bool:
        """Whether it begins on this day."""
        if day.weekday() not in self.days:
            return False
        if (self.first and day < self.first) or (self.last and day > self.last):
            return False
        if self.first is None or self.weeks == 1:
            return True
        monday = self.first - timedelta(days=self.first.weekday())
        return (day - monday).days // 7 % self.weeks == self.week - 1

    def span(self, day: date, zone: ZoneInfo) -> tuple[Instant, Instant]:
        """From when to when the one that begins on this day lasts; the end is not included."""
        starts = local_instant(day, self.starts, zone, fold=0)
        if self.ends is None:
            return starts, end_of_day(day, zone)
        ends_on = day if self.starts < self.ends else day + timedelta(days=1)
        return starts, local_instant(ends_on, self.ends, zone, fold=1)

    def covers(self, at: Instant, zone: ZoneInfo) -> bool:
        """Whether it lasts at this time."""
        today = local_date(at, zone)
        for day in (today, today - timedelta(days=1)):
            if self.begins_on(day):
                starts, ends = self.span(day, zone)
                if starts <= at < ends:
                    return True
        return False


@dataclass(frozen=True)
class Duty:
    """What is said of one officer's duty, as entries carry it; ``division`` is the officer's.

    ``shifts`` are the week's rota, ``leaves`` when the officer is away, ``stand_ins`` when on duty
    besides; ``deputy`` takes over during a leave that names nobody else.
    """

    officer: str
    division: str
    timezone: str
    shifts: list[dict[str, Any]]
    leaves: list[dict[str, Any]]
    stand_ins: list[dict[str, Any]]
    deputy: str | None

    def serves(self, at: Instant, *, otherwise: bool) -> bool:
        """Whether the officer's place is to be filled at this time, by the rota or a stand-in.

        :param otherwise: whether it is without a rota, and at all.
        """
        if any(stretch.covers(at, self._zone) for stretch in self._stand_ins):
            return True
        if not otherwise or not self._shifts:
            return otherwise
        return any(stretch.covers(at, self._zone) for stretch in self._shifts)

    def away(self, at: Instant) -> bool:
        """Whether the officer is on leave (休假)."""
        return self._leave(at) is not None

    def deputy_at(self, at: Instant) -> str | None:
        """Who takes over, if the officer is on leave."""
        leave = self._leave(at)
        return None if leave is None else leave.deputy or self.deputy

    def changes(self, after: Instant, days: int) -> Iterator[Instant]:
        """When a stretch begins or ends, from ``after`` on for so many days; in no order."""
        today = local_date(after, self._zone)
        for stretch in (*self._shifts, *self._leaves, *self._stand_ins):
            for offset in range(-1, days):
                day = today + timedelta(days=offset)
                if stretch.begins_on(day):
                    yield from (at for at in stretch.span(day, self._zone) if at > after)

    @property
    def deputies(self) -> tuple[str, ...]:
        """Everybody who may take over."""
        named = (self.deputy, *(stretch.deputy for stretch in self._leaves))
        return tuple(name for name in named if name is not None)

    def _leave(self, at: Instant) -> Stretch | None:
        found = (stretch for stretch in self._leaves if stretch.covers(at, self._zone))
        return next(found, None)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def _shifts(self) -> tuple[Stretch, ...]:
        return tuple(map(Stretch.of, self.shifts))

    @cached_property
    def _leaves(self) -> tuple[Stretch, ...]:
        return tuple(map(Stretch.of, self.leaves))

    @cached_property
    def _stand_ins(self) -> tuple[Stretch, ...]:
        return tuple(map(Stretch.of, self.stand_ins))
