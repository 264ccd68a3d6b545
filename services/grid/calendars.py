"""Calendars: which days and hours count, in a county's zone and with its statutory holidays.

A working day of the calendar ``{days: Mon-Fri, hours: ["08:30-12:00", "14:30-17:30"],
holidays: cn}`` is a day from Monday to Friday that is no statutory holiday, or a make-up
workday (调休) on a weekend. Times of day are the zone's; at the gap of a zone's clock a time
that does not exist is the moment of the change, in a fold the first of the two counts for a
beginning and the last for an end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import chinese_calendar

from services.grid.clock import Instant, instant, moment, plus, seconds_between

OFF, WORK = "off", "work"
"""What a day can be by law: a statutory holiday, or a make-up workday."""

HOLIDAYS = ("cn",)
"""Sets of statutory holidays that are known without a file."""

WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAYS = f"all, a range such as Mon-Fri, or a list of {', '.join(WEEK)}"
"""What people may write for days of the week."""

_LONGEST_DAYS = 3660
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")


class Hours(NamedTuple):
    """A stretch of a working day; ``ends`` is not included, None is the end of the day."""

    starts: time
    ends: time | None

    @property
    def seconds(self) -> float:
        """How long it is, on a day on which no clock is changed."""
        ends = 86400 if self.ends is None else self.ends.hour * 3600 + self.ends.minute * 60
        return float(ends - self.starts.hour * 3600 - self.starts.minute * 60)

    def __str__(self) -> str:
        ends = "24:00" if self.ends is None else f"{self.ends:%H:%M}"
        return f"{self.starts:%H:%M}-{ends}"


ALL_DAY = (Hours(time(0), None),)


def read_hours(text: str) -> Hours | None:
    """The hours of ``08:30-12:00`` or ``14:00-24:00``; None for what is written otherwise."""
    match = _HOURS.fullmatch(text)
    if match is None:
        return None
    ends = time(int(match[3]), int(match[4])) if match[3] else None
    return Hours(time(int(match[1]), int(match[2])), ends)


def read_days(text: str) -> frozenset[int]:
    """The weekdays, Monday 0, of ``all``, ``Mon-Fri``, ``Sat-Mon`` or ``Wed``.

    :raises ValueError: what is allowed.
    """
    first, dash, last = text.partition("-")
    last = last if dash else first
    if text == "all":
        return frozenset(range(7))
    if first not in WEEK or last not in WEEK:
        raise ValueError(f"{text!r}: write {DAYS}")
    begins, ends = WEEK.index(first), WEEK.index(last)
    # Sat-Mon goes over the end of the week.
    return frozenset((begins + offset) % 7 for offset in range((ends - begins) % 7 + 1))


class Pause(NamedTuple):
    """A time that does not count (中止), after ``starts`` and up to ``ends``, and why."""

    starts: Instant
    ends: Instant
    reason: str


class Holidays:
    """Statutory holidays and make-up workdays by name: the library's and those of a file.

    :param files: ``{name: {date: "off" or "work"}}``; a year that a file has anything of is
        the file's alone.
    """

    def __init__(self, files: Mapping[str, Mapping[date, str]] | None = None) -> None:
        self._files = dict(files or {})
        self._years = {
            name: frozenset(day.year for day in days) for name, days in self._files.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The sets that a calendar can name."""
        return tuple(dict.fromkeys((*HOLIDAYS, *sorted(self._files))))

    def covers(self, name: str, year: int) -> bool:
        """Whether this set says which days of ``year`` are off."""
        return year in self._years.get(name, ()) or (name == "cn" and year in _known_years())

    def of(self, name: str, day: date) -> str | None:
        """``off``, ``work``, or None for a day that the week alone decides.

        So is each day of a year that nothing covers: the fallback is the plain week.
        """
        if day.year in self._years.get(name, ()):
            return self._files[name].get(day)
        if name == "cn" and day.year in _known_years():
            if day in chinese_calendar.constants.workdays:
                return WORK
            if day in chinese_calendar.constants.holidays:
                return OFF
        return None


@lru_cache(1)
def _known_years() -> frozenset[int]:
    """The years of the library, each published by the State Council (国务院办公厅) a year ahead."""
    return frozenset(day.year for day in chinese_calendar.constants.holidays)


@dataclass(frozen=True)
class Calendar:
    """Working days and hours, as a profile writes them.

    ``days`` are weekdays, Monday 0; ``hours`` are in order and don't overlap; ``holidays``
    names a set, or None where the week alone decides.
    """

    name: str
    days: frozenset[int]
    hours: tuple[Hours, ...]
    holidays: str | None


@dataclass(frozen=True)
class Office:
    """A calendar in its zone, with the holidays that are known: what deadlines count with.

    ``pauses`` are when the clock that is counted on stood, in order.
    """

    calendar: Calendar
    zone: ZoneInfo
    holidays: Holidays
    pauses: tuple[Pause, ...] = ()

    def elapsed(self, started: Instant, seconds: float) -> Instant:
        """When so many seconds have passed on the clock."""
        at = plus(started, seconds)
        for pause in self.pauses:
            starts = max(pause.starts, started)
            if starts < at and starts < pause.ends:
                at = plus(at, seconds_between(starts, pause.ends))
        return at

    def ran(self, started: Instant, until: Instant) -> float:
        """How many seconds the clock ran between the two."""
        stood = sum(
            max(0.0, seconds_between(max(pause.starts, started), min(pause.ends, until)))
            for pause in self.pauses
        )
        return seconds_between(started, until) - stood

    def day_ends(self, day: date) -> date:
        """The first day from ``day`` on that is over while the clock runs."""
        while self._stands(end_of_day(day, self.zone)):
            day += timedelta(days=1)
        return day

    def works(self, day: date) -> bool:
        """Whether it is a working day."""
        said = None
        if self.calendar.holidays is not None:
            said = self.holidays.of(self.calendar.holidays, day)
        return day.weekday() in self.calendar.days if said is None else said == WORK

    def closes(self, day: date) -> Instant:
        """When business ends on that day, 24:00 without hours (Civil Code, article 203)."""
        ends = self.calendar.hours[-1].ends
        if ends is None:
            return end_of_day(day, self.zone)
        return local_instant(day, ends, self.zone, fold=1)

    def working_days(self, started: Instant, count: int) -> list[date]:
        """The ``count`` working days after the day of ``started``, which does not count.

        Civil Code (民法典), article 201: the first day is not counted. A day whose business
        ends in a pause is not counted either. If ten years have too few (holidays without an
        end), each day after them counts: a case must not wait for ever.
        """
        day = local_date(started, self.zone)
        found: list[date] = []
        for number in itertools.count(1):
            day += timedelta(days=1)
            counts = self.works(day) or number > _LONGEST_DAYS
            if counts and not self._stands(self.closes(day)):
                found.append(day)
                if len(found) == count:
                    break
        return found

    def stretches(self, started: Instant) -> Iterator[tuple[Instant, Instant]]:
        """The working hours from ``started`` on, without what lies before it, or in a pause.

        After ten years each day has them, see :meth:`working_days`.
        """
        day = local_date(started, self.zone)
        for number in itertools.count():
            if self.works(day) or number > _LONGEST_DAYS:
                for opens, closes in self._hours(day):
                    opens = max(opens, started)  # noqa: PLW2901
                    yield from self._without_pauses(opens, closes)
            day += timedelta(days=1)

    def years_unknown(self, days: Sequence[date]) -> list[int]:
        """Years among these days for which the holidays are not known."""
        name = self.calendar.holidays
        if name is None:
            return []
        years = sorted({day.year for day in days})
        return [year for year in years if not self.holidays.covers(name, year)]

    def _stands(self, at: Instant) -> bool:
        return any(pause.starts < at <= pause.ends for pause in self.pauses)

    def _without_pauses(self, opens: Instant, closes: Instant) -> Iterator[tuple[Instant, Instant]]:
        for pause in self.pauses:
            if pause.ends <= opens or pause.starts >= closes:
                continue
            if opens < pause.starts:
                yield opens, pause.starts
            opens = pause.ends
        # Hours that a jump of the clock leaves out have no length.
        if opens < closes:
            yield opens, closes

    def _hours(self, day: date) -> Iterator[tuple[Instant, Instant]]:
        for hours in self.calendar.hours:
            opens = local_instant(day, hours.starts, self.zone, fold=0)
            closes = (
                end_of_day(day, self.zone)
                if hours.ends is None
                else local_instant(day, hours.ends, self.zone, fold=1)
            )
            yield opens, closes


def out_of_pause(at: Instant, pauses: Iterable[Pause]) -> Instant:
    """``at``, or the end of the pause that it lies in."""
    for pause in pauses:
        if pause.starts < at <= pause.ends:
            at = pause.ends
    return at


def local_date(when: Instant, zone: tzinfo) -> date:
    """The day of an instant in a zone."""
    return moment(when).astimezone(zone).date()


def end_of_day(day: date, zone: ZoneInfo) -> Instant:
    """The first instant of the next day: 24:00."""
    return local_instant(day + timedelta(days=1), time(0), zone, fold=0)


@lru_cache(4096)
def local_instant(day: date, at: time, zone: ZoneInfo, *, fold: int) -> Instant:
    """The instant of a time of day; in a fold the first (0) or the last (1) of the two.

    A time that a jump of the clock leaves out is the moment of the jump.
    """
    local = datetime.combine(day, at, zone).replace(fold=fold)
    there = local.astimezone(UTC).astimezone(zone)
    if there.replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant(local)
    return instant(_change(local))


def _change(nonexistent: datetime) -> datetime:
    """The moment at which the clock jumped over this time of day."""
    # Read with the offset of after the jump it lies before it, and the other way round.
    low, high = (nonexistent.replace(fold=fold).astimezone(UTC) for fold in (1, 0))
    before = low.astimezone(nonexistent.tzinfo).utcoffset()
    while high - low > timedelta(milliseconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(nonexistent.tzinfo).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=high.microsecond // 1000 * 1000)
