"""Deadlines: forms, when they are due, reminders, and what identifies a firing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid import deadlines
from services.grid.calendars import OFF, Holidays, Office, Pause
from services.grid.clock import Instant, instant, plus
from services.grid.deadlines import Start
from services.grid.events.parts import DeadlineSchema
from services.grid.problems import ProfileError
from services.grid.profile import Profile
from services.grid.tokens import Address

START = Instant("2026-02-28T16:00:00.000Z")
OFFICE = Office(deadlines.EVERY_DAY, ZoneInfo("Asia/Shanghai"), Holidays())
VILLAGE = Address("village", "469002104214")
TITLES = {"a": {"zh": "甲", "en": "A"}, "b": {"zh": "乙", "en": "B"}}


def of(
    rules: Profile, facts: dict[str, Any], level: str = START, case: str = START
) -> list[dict[str, Any]]:
    start = Start(Instant(level), Instant(case))
    return deadlines.for_level(rules, facts, VILLAGE, start, Holidays())


def profile(*lines: dict[str, Any]) -> Profile:
    return Profile.parse(
        {
            "calendars": {
                "office": {
                    "days": "Mon-Fri",
                    "hours": ["08:30-12:00", "14:30-17:30"],
                    "holidays": "cn",
                },
            },
            "profile": "sample",
            "title": {"zh": "样例", "en": "Sample"},
            "region": "469002",
            "timezone": "Asia/Shanghai",
            "ladders": {"default": [{"level": "village", "title": "村处理"}]},
            "categories": TITLES,
            "urgencies": TITLES,
            "sources": TITLES,
            "outcomes": TITLES,
            "deadlines": [{"level": "village", "source": "assumption", **line} for line in lines],
        }
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("3660d", 316224000)],
)
def test_durations(text: str, seconds: float) -> None:
    assert deadlines.duration(text) == seconds
    due = deadlines.term(text).due(Start(START, START), OFFICE)
    assert due == (plus(START, seconds), (text,))


@pytest.mark.parametrize(
    "text", ["", "0s", "0d", "-1d", "1.5h", "1 d", "1w", "d", "3661d", "9999999999s", "١d", "1d\n"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write a duration such as 90s, 10m, 2h or 1d"):
        deadlines.duration(text)


@pytest.mark.parametrize("text", ["end of day", "3 days", "monthly", "1d 2h", "", "3working days"])
def test_a_form_that_is_not_known_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        deadlines.term(text)
    assert str(raised.value) == (
        f"{text!r} is not a deadline: write a duration such as 90s, 10m, 2h or 1d, end_of_day, "
        "3 working days, 4 working hours (or minutes), monthly_window 1-7 (from the 1st to the "
        "end of the 7th); with ' since report' after it, it counts from the report on"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 working days", "0 working days: write 1 to 366"),
        ("367 working days", "367 working days: write 1 to 366"),
        ("0 working hours", "0 working hours: write 1 to 2000"),
        ("monthly_window 7-1", "write two days of every month in order, 1 to 28"),
        ("monthly_window 0-7", "write two days of every month in order, 1 to 28"),
        ("monthly_window 1-31", "write two days of every month in order, 1 to 28"),
        ("0d since report", "above 0"),
    ],
)
def test_a_form_with_a_value_that_can_not_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        deadlines.term(text)


def due(text: str, started: str, **line: Any) -> tuple[str, list[str]]:
    """When a deadline of the village is due, and what was counted; both times Shanghai's."""
    instants = Instant(started.replace("Z", ":00.000Z"))
    (found,) = of(profile({"resolve": text, **line}), {}, instants, instants)
    return found["due"], found["counted"]


OFFICE_HOURS = {"calendar": "office"}


@pytest.mark.parametrize(
    ("text", "started", "due_at", "counted"),
    [
        # 小事不过夜: to midnight in Shanghai, which is 16:00 UTC.
        ("end_of_day", "2026-11-25T02:00Z", "2026-11-25T16:00:00.000Z", ["2026-11-25"]),
        ("end_of_day", "2026-11-25T15:59Z", "2026-11-25T16:00:00.000Z", ["2026-11-25"]),
        ("end_of_day", "2026-11-25T16:00Z", "2026-11-26T16:00:00.000Z", ["2026-11-26"]),
        ("end_of_day", "2024-02-28T18:00Z", "2024-02-29T16:00:00.000Z", ["2024-02-29"]),
    ],
)
def test_end_of_day(text: str, started: str, due_at: str, counted: list[str]) -> None:
    assert due(text, started) == (due_at, [text, f"to the end of {counted[0]}"])


@pytest.mark.parametrize(
    ("text", "started", "due_at", "counted"),
    [
        # A Wednesday; the day of arrival does not count, also if it arrives before office hours.
        ("1 working day", "2026-11-25T02:00Z", "2026-11-26T09:30:00.000Z", ["2026-11-26"]),
        ("1 working day", "2026-11-24T16:01Z", "2026-11-26T09:30:00.000Z", ["2026-11-26"]),
        # Over a weekend.
        (
            "3 working days",
            "2026-11-26T02:00Z",
            "2026-12-01T09:30:00.000Z",
            ["2026-11-27", "2026-11-30", "2026-12-01"],
        ),
        # The day before the Spring Festival of 2026 (15 to 23 February, Saturday the 14th and
        # Saturday the 28th are make-up workdays).
        (
            "2 working days",
            "2026-02-13T02:00Z",
            "2026-02-24T09:30:00.000Z",
            ["2026-02-14", "2026-02-24"],
        ),
        (
            "5 working days",
            "2026-02-23T02:00Z",
            "2026-02-28T09:30:00.000Z",
            ["2026-02-24", "2026-02-25", "2026-02-26", "2026-02-27", "2026-02-28"],
        ),
        # The eve of the National Day holiday of 2025, eight days long.
        ("1 working day", "2025-09-30T02:00Z", "2025-10-09T09:30:00.000Z", ["2025-10-09"]),
    ],
)
def test_working_days(text: str, started: str, due_at: str, counted: list[str]) -> None:
    assert due(text, started, **OFFICE_HOURS) == (due_at, [text, *counted])


@pytest.mark.parametrize(
    ("text", "started", "due_at", "counted"),
    [
        # In the morning, through lunch, into the afternoon.
        (
            "4 working hours",
            "2026-11-25T01:00Z",
            "2026-11-25T07:30:00.000Z",
            ["2026-11-25 09:00-12:00", "2026-11-25 14:30-15:30"],
        ),
        # At lunch it waits for the afternoon; exactly to the end of the day.
        (
            "3 working hours",
            "2026-11-25T05:00Z",
            "2026-11-25T09:30:00.000Z",
            ["2026-11-25 14:30-17:30"],
        ),
        # On a Friday evening it waits for Monday.
        (
            "90 working minutes",
            "2026-11-27T12:00Z",
            "2026-11-30T02:00:00.000Z",
            ["2026-11-30 08:30-10:00"],
        ),
        # The eve of a holiday with a make-up Saturday.
        (
            "4 working hours",
            "2026-02-13T08:30Z",
            "2026-02-14T03:30:00.000Z",
            ["2026-02-13 16:30-17:30", "2026-02-14 08:30-11:30"],
        ),
    ],
)
def test_working_hours(text: str, started: str, due_at: str, counted: list[str]) -> None:
    assert due(text, started, **OFFICE_HOURS) == (due_at, [text, *counted])


@pytest.mark.parametrize(
    ("started", "due_at", "window"),
    [
        # Found in the course of a month: the next month's window.
        ("2026-11-25T02:00Z", "2026-12-07T16:00:00.000Z", "2026-12-01 to 2026-12-07"),
        ("2026-12-25T02:00Z", "2027-01-07T16:00:00.000Z", "2027-01-01 to 2027-01-07"),
        ("2026-01-31T02:00Z", "2026-02-07T16:00:00.000Z", "2026-02-01 to 2026-02-07"),
        # What arrives within the window belongs to it, to the last minute.
        ("2026-11-03T02:00Z", "2026-11-07T16:00:00.000Z", "2026-11-01 to 2026-11-07"),
        ("2026-11-07T15:59Z", "2026-11-07T16:00:00.000Z", "2026-11-01 to 2026-11-07"),
        ("2026-11-07T16:00Z", "2026-12-07T16:00:00.000Z", "2026-12-01 to 2026-12-07"),
    ],
)
def test_monthly_window(started: str, due_at: str, window: str) -> None:
    assert due("monthly_window 1-7", started) == (due_at, ["monthly_window 1-7", window])


def test_a_deadline_on_the_case_s_own_clock_does_not_start_again() -> None:
    rules = profile({"resolve": ["3d", "5d since report"]})
    level, case = plus(START, 3 * 86400), START
    (found,) = of(rules, {}, level, case)
    assert found["due"] == plus(START, 5 * 86400)
    assert found["counted"] == ["5d since report"]
    # When it has passed already, the level learns that it is overdue from the start.
    (late,) = of(rules, {}, plus(START, 9 * 86400), case)
    assert late["due"] == plus(START, 5 * 86400)


def test_a_deadline_to_report_upwards_climbs_like_the_others() -> None:
    rules = profile({"report": "1d", "resolve": "2d"})
    found = of(rules, {})
    assert [item["kind"] for item in found] == ["report", "resolve"]
    assert "report" in deadlines.KINDS


def test_reminders_at_a_time_before_or_after() -> None:
    rules = profile(
        {"resolve": "1d", "remind": ["2h before", "1h after", "2d before", "30h after"]}
    )
    found = [(item["at"], item["due"]) for item in of(rules, {}) if item["kind"] == "remind"]
    assert found == [
        ("1h after", plus(START, 3600)),
        ("2h before", plus(START, 22 * 3600)),
    ]


def test_a_reminder_of_working_days_waits_for_office_hours() -> None:
    rules = profile({"resolve": "3 working days", "calendar": "office", "remind": ["50%", "90%"]})
    reported = "2026-11-26T01:00:00.000Z"
    found = [(item.get("at"), item["due"]) for item in of(rules, {}, reported, reported)]
    # Half of the time has passed on a Sunday night: Monday 08:30; Tuesday before dawn: 08:30.
    assert found[:2] == [
        ("50%", "2026-11-30T00:30:00.000Z"),
        ("90%", "2026-12-01T00:30:00.000Z"),
    ]


def test_a_year_whose_holidays_nobody_knows_counts_the_plain_week_and_says_so() -> None:
    (found,) = of(
        profile({"resolve": "2 working days", "calendar": "office"}), {}, "2031-01-01T02:00:00.000Z"
    )
    assert found["due"] == "2031-01-03T09:30:00.000Z"
    assert found["counted"] == [
        "2 working days",
        "2031-01-02",
        "2031-01-03",
        "2031: the holidays are not known, the plain week counts",
    ]


@pytest.mark.parametrize(
    ("text", "due_at"),
    [
        ("2 working days", "2036-12-04T09:30:00.000Z"),
        ("7 working hours", "2036-12-04T01:00:00.000Z"),
    ],
)
def test_holidays_without_an_end_are_no_crash_and_no_wait_for_ever(text: str, due_at: str) -> None:
    started = Instant("2026-11-25T02:00:00.000Z")
    off = {date(2026, 11, 25) + timedelta(number): OFF for number in range(12 * 366)}
    rules = profile({"resolve": text, "remind": ["50%"], "calendar": "office"})
    start = Start(started, started)
    found = deadlines.for_level(rules, {}, VILLAGE, start, Holidays({"cn": off}))
    assert found[-1]["due"] == due_at


@pytest.mark.parametrize(
    ("days", "hours", "text", "allowed"),
    [
        ("Mon-Fri", "08:30-08:45", "2000 working hours", False),
        ("Wed", "08:30-09:30", "2000 working hours", False),
        ("Wed", "08:30-09:30", "366 working days", True),
        ("Wed", "00:00-24:00", "2000 working hours", True),
    ],
)
def test_what_its_calendar_can_never_give_is_refused(
    days: str, hours: str, text: str, *, allowed: bool
) -> None:
    office = {"days": days, "hours": [hours]}
    line = {"level": "village", "resolve": text, "calendar": "office", "source": "assumption"}
    rules = {**profile({"resolve": "1d"}).rules, "calendars": {"office": office}}
    if allowed:
        assert Profile.parse({**rules, "deadlines": [line]})
        return
    with pytest.raises(ProfileError, match=f"'{text}' takes office more than eight years"):
        Profile.parse({**rules, "deadlines": [line]})


@given(
    st.integers(1_704_067_200, 1_830_297_600),
    st.sampled_from(
        ["2h", "end_of_day", "3 working days", "4 working hours", "monthly_window 1-7", "1d"]
    ),
)
def test_whatever_the_form_it_is_due_after_the_start_and_never_earlier_for_a_later_one(
    started: int, text: str
) -> None:
    rules = profile({"resolve": text, "calendar": "office"})
    first = instant(datetime.fromtimestamp(started, UTC))
    later = plus(first, 1)
    dues = [of(rules, {}, when, when)[0]["due"] for when in (first, later)]
    assert first < dues[0] <= dues[1]


@pytest.mark.parametrize("text", ["", "0%", "100%", "5.5%", "50", "half", "050%", "%"])
def test_what_is_no_reminder(text: str) -> None:
    with pytest.raises(
        ValueError, match="write a percentage from 1% to 99%, or a duration with before or after"
    ):
        deadlines.reminder(text)


def test_deadlines_are_explained_and_in_order() -> None:
    rules = profile({"acknowledge": "4h", "resolve": "3d", "remind": ["90%", "50%"]})
    why = {"rule": "profile.yaml deadlines[0]", "source": "assumption", "calendar": None}
    found = of(rules, {"urgency": "a"})
    assert found == [
        {"kind": "acknowledge", "due": "2026-02-28T20:00:00.000Z", **why, "counted": ["4h"]},
        {
            "kind": "remind",
            "of": "resolve",
            "at": "50%",
            "due": "2026-03-02T04:00:00.000Z",
            **why,
            "counted": ["50% of 3d"],
        },
        {
            "kind": "remind",
            "of": "resolve",
            "at": "90%",
            "due": "2026-03-03T08:48:00.000Z",
            **why,
            "counted": ["90% of 3d"],
        },
        {"kind": "resolve", "due": "2026-03-03T16:00:00.000Z", **why, "counted": ["3d"]},
    ]
    schema = DeadlineSchema()
    assert [schema.load(item) for item in found] == found


def test_the_first_rule_that_matches_counts() -> None:
    rules = profile(
        {"when": {"urgency": "b", "category": ["a"]}, "resolve": "1h"},
        {"when": {"urgency": "b", "source": "a"}, "resolve": "2h"},
        {"acknowledge": "30m", "resolve": "3h"},
    )
    for facts, rule, own in (
        ({"urgency": "b", "category": "a", "source": "a"}, 0, 3600),
        ({"urgency": "b", "category": "b", "source": "a"}, 1, 7200),
        ({"urgency": "a", "category": "a", "source": "a"}, 2, 1800),
        ({"urgency": "of another profile"}, 2, 1800),
    ):
        found = of(rules, facts)
        assert {item["rule"] for item in found} == {f"profile.yaml deadlines[{rule}]"}
        assert deadlines.own_time(rules, facts, VILLAGE) == own
        assert deadlines.then(rules, facts, VILLAGE) is None


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True))
def test_of_several_of_one_kind_the_earliest_counts(seconds: list[int]) -> None:
    rules = profile({"resolve": [f"{each}s" for each in seconds]})
    (found,) = of(rules, {})
    assert found["due"] == plus(START, min(seconds))
    assert found["counted"] == [f"{min(seconds)}s"]
    assert deadlines.own_time(rules, {}, VILLAGE) == min(seconds)


@given(st.integers(1, 10**8), st.integers(1, 99))
def test_a_reminder_comes_before_what_it_reminds_of(seconds: int, percent: int) -> None:
    rules = profile({"resolve": f"{seconds}s", "remind": f"{percent}%"})
    *reminds, resolve = of(rules, {})
    assert resolve["kind"] == "resolve"
    # A hundredth of some seconds may be no millisecond: then there is nothing to remind of.
    assert [START < item["due"] < resolve["due"] for item in reminds] == [True] * len(reminds)
    assert reminds or seconds * percent < 1


def test_what_follows_at_the_last_level() -> None:
    rules = profile({"resolve": "7d", "then": {"supervise": "1d", "tell": ["469002"]}})
    assert deadlines.then(rules, {}, VILLAGE) == deadlines.Then(86400, ("469002",), "assumption")


def test_marks_tell_firings_apart() -> None:
    rules = profile({"acknowledge": "1d", "resolve": "1d", "remind": ["50%", "90%"]})
    found = of(rules, {})
    assert [deadlines.mark(item) for item in found] == [
        "remind:resolve:50%@2026-03-01T04:00:00.000Z",
        "remind:resolve:90%@2026-03-01T13:36:00.000Z",
        "acknowledge@2026-03-01T16:00:00.000Z",
        "resolve@2026-03-01T16:00:00.000Z",
    ]
    supervise = {"kind": "supervise", "of": "resolve", "due": START}
    assert deadlines.mark(supervise) == f"supervise:resolve@{START}"


def paused(text: str, started: str, *pauses: tuple[str, str], **line: Any) -> tuple[str, list[str]]:
    """When a deadline of the village is due whose clock stood meanwhile."""
    stood = tuple(Pause(at(starts), at(ends), "waiting") for starts, ends in pauses)
    start = Start(at(started), at(started), stood, stood)
    rules = profile({"resolve": text, **line})
    (found,) = deadlines.for_level(rules, {}, VILLAGE, start, Holidays())
    return found["due"], found["counted"]


def at(text: str) -> Instant:
    """A time of day in Shanghai."""
    return instant(datetime.fromisoformat(f"{text}+08:00"))


@pytest.mark.parametrize(
    ("text", "pause", "expected"),
    [
        # Monday, 2 March 2026, 10:00 is the start of all.
        ("2h", ("2026-03-02T11:00", "2026-03-02T15:00"), "2026-03-02T16:00"),
        ("2h", ("2026-03-02T12:00", "2026-03-02T15:00"), "2026-03-02T12:00"),
        ("2h", ("2026-03-02T09:00", "2026-03-02T10:30"), "2026-03-02T12:30"),
        # Lunch is no working time, and neither is a pause in it.
        ("4 working hours", ("2026-03-02T12:00", "2026-03-02T14:30"), "2026-03-02T16:30"),
        ("4 working hours", ("2026-03-02T15:00", "2026-03-03T09:00"), "2026-03-03T10:30"),
        # A day whose business ends in the pause is not counted.
        ("3 working days", ("2026-03-03T10:00", "2026-03-04T10:00"), "2026-03-06T17:30"),
        ("3 working days", ("2026-03-03T10:00", "2026-03-03T15:00"), "2026-03-05T17:30"),
        # The third day, on which it is due, ends in the pause: the next one is.
        ("3 working days", ("2026-03-05T10:00", "2026-03-08T10:00"), "2026-03-09T17:30"),
        ("end_of_day", ("2026-03-02T11:00", "2026-03-02T15:00"), "2026-03-03T00:00"),
        ("end_of_day", ("2026-03-02T11:00", "2026-03-04T15:00"), "2026-03-05T00:00"),
        ("monthly_window 1-7", ("2026-03-07T11:00", "2026-03-09T15:00"), "2026-03-10T00:00"),
    ],
)
def test_what_a_pause_does_to_a_deadline(text: str, pause: tuple[str, str], expected: str) -> None:
    line = {"calendar": "office"} if "working" in text else {}
    due, counted = paused(text, "2026-03-02T10:00", pause, **line)
    assert due == at(expected)
    told = [item for item in counted if item.startswith("without")]
    assert bool(told) == (at(pause[0]) < due)


TEXTS = ["2h", "3d", "5 working hours", "2 working days", "end_of_day", "monthly_window 1-7"]
MINUTES = st.integers(0, 30 * 1440)


@given(
    text=st.sampled_from(TEXTS),
    started=MINUTES,
    bounds=st.lists(MINUTES, min_size=2, max_size=6, unique=True),
    shorter=st.floats(0, 1),
)
def test_nothing_is_due_in_a_pause_and_a_shorter_one_never_moves_it_further(
    text: str, started: int, bounds: list[int], shorter: float
) -> None:
    def after(minutes: float) -> Instant:
        return plus(at("2026-03-02T00:00"), minutes * 60)

    ordered = sorted(bounds)
    pairs = list(zip(ordered[::2], ordered[1::2], strict=False))
    stood = tuple(Pause(after(low), after(high), "waiting") for low, high in pairs)
    rules = profile({"resolve": text, "calendar": "office"})

    def due(pauses: tuple[Pause, ...]) -> Instant:
        start = Start(after(started), after(started), pauses, pauses)
        return Instant(deadlines.for_level(rules, {}, VILLAGE, start, Holidays())[0]["due"])

    moved = due(stood)
    assert moved >= due(())
    assert not any(pause.starts < moved <= pause.ends for pause in stood)
    low, high = pairs[-1]
    sooner = (*stood[:-1], Pause(after(low), after(low + int(shorter * (high - low))), "waiting"))
    assert due(()) <= due(sooner) <= moved


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("1d", "2026-03-06T17:30"),
        ("2 working days", "2026-03-09T17:30"),
        ("1 working hour", "2026-03-06T09:30"),
    ],
)
def test_an_extension_counts_from_when_it_was_due(more: str, expected: str) -> None:
    rules = profile({"resolve": "3 working days", "calendar": "office", "remind": ["50%"]})
    start = Start(at("2026-03-02T10:00"), at("2026-03-02T10:00"))
    granted = [{"by": more, "granted_by": "lead-1"}]
    found = deadlines.for_level(rules, {}, VILLAGE, start, Holidays(), extensions=granted)
    (resolve,) = [item for item in found if item["kind"] == "resolve"]
    assert resolve["due"] == at(expected)
    assert f"extended by {more}, granted by lead-1" in resolve["counted"]


@pytest.mark.parametrize("text", ["end_of_day", "monthly_window 1-7", "1d since report", "soon"])
def test_what_is_no_extension(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        deadlines.extension(text)


@pytest.mark.parametrize(
    ("text", "percent", "expected", "said"),
    [
        # Monday, 2 March 2026, 10:00 is the start of all.
        ("2h", 50, "2026-03-02T11:00", "50% of it, because the case was reopened: 1h"),
        ("1s", 50, "2026-03-02T10:00:01", "50% of it, because the case was reopened: 1s"),
        ("1d", 33, "2026-03-02T17:55:12", "33% of it, because the case was reopened: 28512s"),
        ("3 working days", 50, "2026-03-04T17:30", "reopened: 2 working days"),
        ("1 working days", 10, "2026-03-03T17:30", "reopened: 1 working day"),
        ("4 working hours", 25, "2026-03-02T11:00", "reopened: 60 working minutes"),
        ("200 working hours", 99, "2026-04-14T15:30", "reopened: 11880 working minutes"),
        ("end_of_day", 50, "2026-03-03T00:00", None),
        ("monthly_window 1-7", 50, "2026-03-08T00:00", None),
        ("2d since report", 50, "2026-03-04T10:00", None),
    ],
)
def test_a_reopened_case_has_so_many_percent_of_the_time(
    text: str, percent: int, expected: str, said: str | None
) -> None:
    rules = profile({"resolve": text, **({"calendar": "office"} if "working" in text else {})})
    reopening = {
        "enter": "resolver",
        "clock": "starts_again",
        "shorter": f"{percent}%",
        "source": "assumption",
    }
    less = Profile.parse({**rules.rules, "reopening": reopening})
    start = Start(at("2026-03-02T10:00"), at("2026-03-02T10:00"))
    (first,) = deadlines.for_level(less, {}, VILLAGE, start, Holidays())
    assert [first] == deadlines.for_level(rules, {}, VILLAGE, start, Holidays())
    (second,) = deadlines.for_level(less, {}, VILLAGE, start, Holidays(), round_=2)
    if said is not None:
        assert second["counted"][1].endswith(said)
    assert second["due"] == at(expected)
    assert second["counted"][0] == text
    assert (second["counted"] == first["counted"]) == (said is None)
    assert deadlines.own_time(less, {}, VILLAGE, 2) <= deadlines.own_time(less, {}, VILLAGE)
