"""Calendars: working days and hours, holidays, and the clocks of zones that jump."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid.calendars import (
    ALL_DAY,
    OFF,
    WORK,
    Calendar,
    Holidays,
    Hours,
    Office,
    end_of_day,
    local_date,
)
from services.grid.clock import Instant, instant, moment, seconds_between

SHANGHAI = ZoneInfo("Asia/Shanghai")
MORNING = Hours(time(8, 30), time(12))
AFTERNOON = Hours(time(14, 30), time(17, 30))
OFFICE = Calendar("office", frozenset(range(5)), (MORNING, AFTERNOON), "cn")


def office(zone: ZoneInfo = SHANGHAI, holidays: Holidays | None = None) -> Office:
    return Office(OFFICE, zone, holidays or Holidays())


@pytest.mark.parametrize(
    ("day", "works"),
    [
        (date(2026, 11, 25), True),
        (date(2026, 11, 28), False),
        # The Spring Festival of 2026 and its make-up Saturdays.
        (date(2026, 2, 14), True),
        (date(2026, 2, 16), False),
        (date(2026, 2, 28), True),
        (date(2026, 10, 1), False),
        (date(2024, 2, 29), True),
        # Nobody has published 2031 yet: the plain week.
        (date(2031, 10, 1), True),
        (date(2031, 10, 4), False),
    ],
)
def test_working_days_of_the_state_council(day: date, works: bool) -> None:
    assert office().works(day) is works


def test_a_file_s_year_is_the_file_s_alone() -> None:
    holidays = Holidays({"cn": {date(2027, 1, 1): OFF, date(2027, 1, 2): WORK}})
    assert holidays.covers("cn", 2027)
    assert not office(holidays=holidays).works(date(2027, 1, 1))
    assert office(holidays=holidays).works(date(2027, 1, 2))
    # A library that has learned of 2026 does not add to what the file says of it.
    corrected = Holidays({"cn": {date(2026, 1, 1): OFF}})
    assert office(holidays=corrected).works(date(2026, 10, 1))
    assert office(holidays=corrected).works(date(2025, 10, 9))


def test_holidays_of_another_name_need_a_file() -> None:
    holidays = Holidays({"prefecture": {date(2026, 8, 8): OFF}})
    assert holidays.names == ("cn", "prefecture")
    assert holidays.covers("prefecture", 2026)
    assert not holidays.covers("prefecture", 2025)
    assert not Holidays().covers("prefecture", 2026)


@pytest.mark.parametrize(
    ("zone", "day", "ends"),
    [
        ("Asia/Shanghai", date(2026, 11, 25), "2026-11-25T16:00:00.000Z"),
        ("Asia/Urumqi", date(2026, 11, 25), "2026-11-25T18:00:00.000Z"),
        # The clock goes from 24:00 to 01:00: the day ends where the next one begins.
        ("Africa/Cairo", date(2026, 4, 23), "2026-04-23T22:00:00.000Z"),
        ("Asia/Beirut", date(2026, 3, 28), "2026-03-28T22:00:00.000Z"),
        # The clock goes back from 24:00 to 23:00: the day is over when it comes to 24:00 again.
        ("America/Asuncion", date(2023, 3, 25), "2023-03-26T04:00:00.000Z"),
        # 00:00 comes twice: the first is the next day already.
        ("America/Havana", date(2026, 10, 31), "2026-11-01T04:00:00.000Z"),
        # A whole day that never was: Samoa went over the date line.
        ("Pacific/Apia", date(2011, 12, 29), "2011-12-30T10:00:00.000Z"),
    ],
)
def test_the_end_of_a_day(zone: str, day: date, ends: str) -> None:
    assert end_of_day(day, ZoneInfo(zone)) == ends


def test_hours_in_a_gap_and_in_a_fold() -> None:
    night = Calendar("night", frozenset(range(7)), (Hours(time(2), time(2, 30)),), None)
    berlin = Office(night, ZoneInfo("Europe/Berlin"), Holidays())
    # 02:00 to 03:00 does not exist on 29 March 2026; on 25 October it comes twice.
    opens, closes = next(berlin.stretches(Instant("2026-03-28T23:30:00.000Z")))
    assert (opens, closes) == ("2026-03-30T00:00:00.000Z", "2026-03-30T00:30:00.000Z")
    opens, closes = next(berlin.stretches(Instant("2026-10-24T22:30:00.000Z")))
    assert (opens, closes) == ("2026-10-25T00:00:00.000Z", "2026-10-25T01:30:00.000Z")


ZONES = sorted(available_timezones())
# 1990 to 2037.
MOMENTS = st.integers(631_152_000, 2_114_380_800).map(
    lambda seconds: instant(datetime.fromtimestamp(seconds, UTC))
)


@given(st.sampled_from(ZONES), MOMENTS)
def test_a_day_ends_when_its_date_does_in_every_zone(name: str, now: Instant) -> None:
    zone = ZoneInfo(name)
    day = local_date(now, zone)
    ends = end_of_day(day, zone)
    assert ends > now
    assert local_date(ends, zone) > day
    just_before = datetime.fromtimestamp(moment(ends).timestamp() - 0.001, UTC)
    assert local_date(instant(just_before), zone) == day


@given(st.sampled_from(ZONES), MOMENTS)
def test_working_hours_go_forward_in_every_zone(name: str, now: Instant) -> None:
    calendar = Calendar("split", frozenset(range(7)), (MORNING, Hours(time(22), None)), None)
    stretches = Office(calendar, ZoneInfo(name), Holidays()).stretches(now)
    before = now
    for _ in range(6):
        opens, closes = next(stretches)
        assert before <= opens < closes
        assert seconds_between(opens, closes) <= 5 * 3600
        before = closes


def test_all_day_is_a_whole_day() -> None:
    always = Office(Calendar("always", frozenset(range(7)), ALL_DAY, None), SHANGHAI, Holidays())
    opens, closes = next(always.stretches(Instant("2026-11-24T16:00:00.000Z")))
    assert seconds_between(opens, closes) == 86400
    assert str(ALL_DAY[0]) == "00:00-24:00"
