"""Duty (值班): the week's rota, leaves, stand-ins and deputies, as a function of the time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.grid.atlas import Atlas
from services.grid.clock import Instant, parse, plus, seconds_between
from services.grid.directory import Directory, Division, Officer, Unit
from services.grid.directory_source import check_duties, read_duties
from services.grid.duty import Duty
from services.grid.problems import ProfileError
from services.grid.profile import Profile, duties_of
from services.grid.roster import roster
from services.grid.tokens import Address
from tests.simulator.county import RULES

TOWNSHIP, VILLAGE = "469002104", "469002104214"
PLACES = (
    Division("469002", "琼海市", "county", None, "county"),
    Division(TOWNSHIP, "博鳌镇", "township", "469002", "township"),
    Division(VILLAGE, "沙美村", "village", TOWNSHIP, "village"),
)
UNITS = (Unit("team", "治安联防队", "village", VILLAGE),)


def officer(
    name: str,
    *,
    unit: str | None = None,
    role: str = "officer",
    on_duty: bool = True,
    place: tuple[str, str] = ("village", VILLAGE),
) -> Officer:
    return Officer(name, name, *place, unit, role, on_duty)


def said(path: Path, rows: str) -> dict[str, dict[str, Any]]:
    path /= "duty.csv"
    path.write_text(f"officer,duty,days,hours,from,to,weeks,deputy\n{rows}", encoding="utf-8")
    return read_duties(path)


def county(path: Path, rows: str, *officers: Officer, zone: str = "Asia/Shanghai") -> Directory:
    plain = Directory(PLACES, UNITS, officers)
    return Directory(PLACES, UNITS, officers, duties_of(said(path, rows), plain, zone))


def on_duty(directory: Directory, at: str, unit: str | None = None) -> list[str]:
    return [found.id for found in directory.on_duty("village", VILLAGE, unit, parse(at))]


DAY_AND_NIGHT = """\
day,shift,Mon-Fri,08:00-18:00,,,,
night,shift,all,18:00-08:00,,,,
weekend,shift,Sat Sun,08:00-18:00,,,,
"""


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        # 2026-11-26 is a Thursday.
        ("2026-11-26T07:59:59.999+08:00", ["night"]),
        ("2026-11-26T08:00:00+08:00", ["day"]),
        ("2026-11-26T17:59:59.999+08:00", ["day"]),
        ("2026-11-26T18:00:00+08:00", ["night"]),
        ("2026-11-27T00:00:00+08:00", ["night"]),
        ("2026-11-28T10:00:00+08:00", ["weekend"]),
    ],
)
def test_a_week_of_shifts_across_midnight(tmp_path: Path, at: str, expected: list[str]) -> None:
    team = [officer(name) for name in ("day", "night", "weekend")]
    assert on_duty(county(tmp_path, DAY_AND_NIGHT, *team), at) == expected


def test_who_has_no_rota_is_on_duty_as_the_officers_file_says(tmp_path: Path) -> None:
    found = county(
        tmp_path, "a,shift,Mon,,,,,\n", officer("a"), officer("b"), officer("c", on_duty=False)
    )
    assert on_duty(found, "2026-11-26T12:00:00+08:00") == ["b"]
    assert on_duty(found, "2026-11-23T12:00:00+08:00") == ["a", "b"]


def test_every_other_week_hands_over_on_monday_morning(tmp_path: Path) -> None:
    rows = "a,shift,all,08:00-08:00,2026-12-21,,1/2,\nb,shift,all,08:00-08:00,2026-12-21,,2/2,\n"
    found = county(tmp_path, rows, officer("a"), officer("b"))
    assert on_duty(found, "2026-12-28T07:59:00+08:00") == ["a"]
    assert on_duty(found, "2026-12-28T08:00:00+08:00") == ["b"]
    # 2026 has 53 weeks: the rotation goes on over the end of the year.
    assert on_duty(found, "2027-01-04T08:00:00+08:00") == ["a"]
    assert on_duty(found, "2027-01-11T08:00:00+08:00") == ["b"]
    assert on_duty(found, "2026-12-21T07:00:00+08:00") == []


def test_a_leave_takes_the_shifts_that_begin_on_its_days(tmp_path: Path) -> None:
    rows = "a,shift,all,18:00-08:00,,,,\na,leave,all,18:00-08:00,2026-10-01,2026-10-02,,b\n"
    found = county(tmp_path, rows, officer("a"), officer("b", on_duty=False))
    assert on_duty(found, "2026-10-01T07:00:00+08:00") == ["a"]
    assert on_duty(found, "2026-10-01T19:00:00+08:00") == ["b"]
    assert on_duty(found, "2026-10-03T07:59:00+08:00") == ["b"]
    assert on_duty(found, "2026-10-03T12:00:00+08:00") == []
    (standing,) = found.on_duty("village", VILLAGE, None, parse("2026-10-01T19:00:00+08:00"))
    assert standing.instead_of == "a"


def test_deputies_take_over_in_turn_and_never_for_ever(tmp_path: Path) -> None:
    leave = "leave,,,2026-10-01,2026-10-07,,"
    rows = f"a,deputy,,,,,,b\na,{leave}\nb,deputy,,,,,,c\n"
    at = "2026-10-03T12:00:00+08:00"
    team = [officer("a"), officer("b"), officer("c", place=("township", TOWNSHIP))]
    # Who stands in for two is there once.
    assert on_duty(county(tmp_path, rows, *team), at) == ["b"]
    assert on_duty(county(tmp_path, rows + f"b,{leave}\n", *team), at) == ["c"]
    assert on_duty(county(tmp_path, rows + f"b,{leave}\nc,{leave}a\n", *team), at) == []
    assert on_duty(county(tmp_path, f"a,{leave}\n", *team), at) == ["b"]


def test_a_stand_in_is_on_duty_besides(tmp_path: Path) -> None:
    rows = (
        "a,shift,Mon,08:00-18:00,,,,\na,stand_in,,08:00-12:00,2026-11-26,2026-11-26,,\n"
        "off,stand_in,,,2026-11-27,2026-11-27,,\n"
    )
    found = county(tmp_path, rows, officer("a"), officer("off", on_duty=False))
    assert on_duty(found, "2026-11-26T09:00:00+08:00") == ["a"]
    assert on_duty(found, "2026-11-26T12:00:00+08:00") == []
    assert on_duty(found, "2026-11-27T23:59:59+08:00") == ["off"]
    assert on_duty(found, "2026-11-28T00:00:00+08:00") == []


def test_no_gap_where_the_clock_jumps(tmp_path: Path) -> None:
    """Berlin 2026: at 2:00 on 29 March it is 3:00, at 3:00 on 25 October it is 2:00."""
    rows = "a,shift,all,20:00-02:30,,,,\nb,shift,all,02:30-20:00,,,,\n"
    found = county(tmp_path, rows, officer("a"), officer("b"), zone="Europe/Berlin")
    assert on_duty(found, "2026-03-29T00:59:59.999Z") == ["a"]
    assert on_duty(found, "2026-03-29T01:00:00Z") == ["b"]
    # In the hour that comes twice both are there, from the first 2:30 to the last.
    assert on_duty(found, "2026-10-25T00:29:59Z") == ["a"]
    assert on_duty(found, "2026-10-25T00:30:00Z") == ["a", "b"]
    assert on_duty(found, "2026-10-25T01:30:00Z") == ["b"]


def test_a_lead_on_leave_leads_nowhere(tmp_path: Path) -> None:
    team = [
        officer("village", role="lead"),
        officer("township", role="lead", place=("township", TOWNSHIP)),
    ]
    found = county(tmp_path, "village,leave,,,2026-10-01,2026-10-07,,\n", *team)

    def lead(at: str) -> str | None:
        who = found.lead("village", VILLAGE, parse(at))
        return who and who.id

    assert lead("2026-09-30T23:59:00+08:00") == "village"
    assert lead("2026-10-01T00:00:00+08:00") == "township"
    assert lead("2026-10-08T00:00:00+08:00") == "village"


def test_a_unit_has_its_own_duty_and_the_desk_stands_in(tmp_path: Path) -> None:
    rows = "t,shift,all,08:00-18:00,,,,\n"
    team = [officer("t", unit="team"), officer("v")]
    found, profile = county(tmp_path, rows, *team), Profile.parse(RULES)
    address = Address("village", VILLAGE, "team")

    def answers(profile: Profile, at: str) -> tuple[list[str], str]:
        officers, why = profile.on_duty(address, found, parse(at))
        return [person.id for person in officers], why

    noon, night = "2026-11-26T12:00:00+08:00", "2026-11-26T22:00:00+08:00"
    assert answers(profile, noon) == (["t"], "on duty")
    assert answers(profile, night) == (["v"], "deputy")
    skipping = Profile.parse({**RULES, "unstaffed": "skip"})
    assert answers(skipping, night) == ([], "nobody on duty")


def test_who_is_next_and_from_when(tmp_path: Path) -> None:
    team = [officer(name) for name in ("day", "night", "weekend")]
    found, profile = county(tmp_path, DAY_AND_NIGHT, *team), Profile.parse(RULES)
    address = Address("village", VILLAGE)
    now = roster(profile, address, found, parse("2026-11-27T12:00:00+08:00"))
    assert [person.id for person in now.officers] == ["day"]
    assert now.until == parse("2026-11-27T18:00:00+08:00")
    assert [person.id for person in now.then] == ["night"]
    assert (now.why, now.then_why) == ("on duty", "on duty")
    # Midnight, where a shift of two days meets itself, is no change.
    alone = county(tmp_path, "day,shift,all,00:00-24:00,,2026-11-30,,\n", officer("day"))
    assert roster(profile, address, alone, parse("2026-11-27T12:00:00+08:00")).until == parse(
        "2026-12-01T00:00:00+08:00"
    )
    plain = Directory(PLACES, UNITS, [officer("a")])
    assert roster(profile, address, plain, parse("2026-11-27T12:00:00+08:00")).until is None


WEEKDAYS = st.sampled_from(["all", "Mon-Fri", "Sat Sun", "Sat-Mon", "Wed"])
CLOCK_TIMES = st.builds(
    lambda h, m: f"{h:02d}:{m:02d}", st.integers(0, 23), st.sampled_from([0, 30])
)
SHIFTS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["shift", "leave", "stand_in"]),
        WEEKDAYS,
        st.builds(lambda begin, end: f"{begin}-{end}", CLOCK_TIMES, CLOCK_TIMES),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=50)
@given(
    shifts=SHIFTS,
    zone=st.sampled_from(["Asia/Shanghai", "Europe/Berlin"]),
    hours=st.integers(0, 500),
)
def test_between_two_changes_nothing_changes(
    tmp_path_factory: pytest.TempPathFactory,
    shifts: list[tuple[str, str, str, str]],
    zone: str,
    hours: int,
) -> None:
    rows = "".join(
        f"{name},{kind},{days},{at},2026-10-01,2026-11-30,,{'b' if kind == 'leave' else ''}\n"
        for name, kind, days, at in shifts
        if (name, kind) != ("b", "leave")
    )
    team = [officer(name) for name in "abc"]
    found = county(tmp_path_factory.mktemp("duty"), rows, *team, zone=zone)
    profile, address = Profile.parse(RULES), Address("village", VILLAGE)
    at = plus(Instant("2026-10-15T00:00:00.000Z"), hours * 3600 + 0.5)
    now = roster(profile, address, found, at)
    until = now.until or plus(at, 10 * 86400)
    for step in range(0, int(seconds_between(at, until)), 1800):
        there = profile.on_duty(address, found, plus(at, step))
        assert (there[0], there[1]) == (now.officers, now.why)
    if now.until is not None:
        then = profile.on_duty(address, found, now.until)
        assert then == (now.then, now.then_why) != (now.officers, now.why)


def test_it_travels_as_an_entry(tmp_path: Path) -> None:
    found = county(
        tmp_path, DAY_AND_NIGHT, *(officer(name) for name in ("day", "night", "weekend"))
    )
    entries = [
        {"kind": "duty", "version": 1, "retired": False, "entry": {**asdict(duty), "more": 1}}
        for duty in found.duties.values()
    ]
    directory = Atlas.of(entries).directory
    assert directory.duties == found.duties
    assert {type(duty) for duty in directory.duties.values()} == {Duty}


def test_everything_wrong_with_the_duty_file_is_found(tmp_path: Path) -> None:
    rows = (
        "a,shifts,,,,,,\n"
        "a,shift,Mon-Xyz,8-18,2026-13-01,,,\n"
        "a,shift,,,,,2/1,b\n"
        "a,leave,,,2026-10-07,2026-10-01,,\n"
        "a,stand_in,,,,2026-10-01,,\n"
        "a,deputy,Mon,,,,,\n"
        "b,deputy,,,,,,a\nb,deputy,,,,,,c\n"
    )
    with pytest.raises(ProfileError) as raised:
        said(tmp_path, rows)
    weekdays = "write all, a range such as Mon-Fri, or a list of Mon, Tue, Wed, Thu, Fri, Sat, Sun"
    assert [(item.line, item.field, item.text) for item in raised.value.problems] == [
        (
            2,
            "duty",
            "'shifts' is not known: did you mean shift? Allowed: shift, leave, stand_in, deputy",
        ),
        (3, "days", f"'Mon-Xyz': {weekdays}"),
        (3, "from", "'2026-13-01': month must be in 1..12"),
        (3, "hours", "'8-18': write hours such as 08:00-18:00, or 18:00-08:00"),
        (4, "deputy", "a shift has none: leave it empty, or write leave or deputy"),
        (4, "from", "weeks are counted from the week of a date: write it here"),
        (4, "weeks", "'2/1': write which week of how many, such as 1/2 and 2/2, at most 52"),
        (5, "to", "2026-10-01 is before 2026-10-07: write the first day in from"),
        (6, "from", "write the first day"),
        (7, "days", "a deputy is for every leave: leave it empty"),
        (7, "deputy", "write the id of the officer who takes over"),
        (9, "deputy", "a is the deputy already: keep one"),
    ]


def test_officers_and_deputies_are_in_the_officers_file(tmp_path: Path) -> None:
    said(tmp_path, "officer-1,deputy,,,,,,officer-1\nnobody,deputy,,,,,,officer-2\n")
    found = check_duties(tmp_path / "duty.csv", Directory(PLACES, UNITS, [officer("officer-1")]))
    assert [(item.line, item.field, item.text) for item in found] == [
        (2, "deputy", "officer-1 can't take over for officer-1: write another"),
        (3, "officer", "'nobody' is not in officers.csv: write an id of it"),
        (3, "deputy", "'officer-2' is not in officers.csv: did you mean officer-1?"),
    ]
