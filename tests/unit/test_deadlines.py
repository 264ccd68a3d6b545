"""Deadlines: forms, when they are due, reminders, and what identifies a firing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid import deadlines
from services.grid.clock import Instant, plus
from services.grid.events.parts import DeadlineSchema
from services.grid.profile import Profile
from services.grid.tokens import Address

START = Instant("2026-02-28T16:00:00.000Z")
VILLAGE = Address("village", "469002104214")
TITLES = {"a": {"zh": "甲", "en": "A"}, "b": {"zh": "乙", "en": "B"}}


def profile(*lines: dict[str, Any]) -> Profile:
    return Profile.parse(
        {
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
    assert deadlines.term(text).due(START) == plus(START, seconds)


@pytest.mark.parametrize(
    "text", ["", "0s", "0d", "-1d", "1.5h", "1 d", "1w", "d", "3661d", "9999999999s", "١d", "1d\n"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write a duration such as 90s, 10m, 2h or 1d"):
        deadlines.duration(text)


@pytest.mark.parametrize("text", ["end_of_day", "3 working days", "monthly_window", "1d 2h"])
def test_a_form_that_is_not_known_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        deadlines.term(text)
    assert str(raised.value) == (
        f"{text!r} is not a deadline: write a duration such as 90s, 10m, 2h or 1d"
    )


@pytest.mark.parametrize("text", ["", "0%", "100%", "5.5%", "50", "half", "050%", "%"])
def test_what_is_no_reminder(text: str) -> None:
    with pytest.raises(ValueError, match="write a percentage from 1% to 99%"):
        deadlines.reminder(text)


def test_deadlines_are_explained_and_in_order() -> None:
    rules = profile({"acknowledge": "4h", "resolve": "3d", "remind": ["90%", "50%"]})
    why = {"rule": "profile.yaml deadlines[0]", "source": "assumption", "calendar": None}
    found = deadlines.for_level(rules, {"urgency": "a"}, VILLAGE, START)
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
        found = deadlines.for_level(rules, facts, VILLAGE, START)
        assert {item["rule"] for item in found} == {f"profile.yaml deadlines[{rule}]"}
        assert deadlines.own_time(rules, facts, VILLAGE) == own
        assert deadlines.then(rules, facts, VILLAGE) is None


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True))
def test_of_several_of_one_kind_the_earliest_counts(seconds: list[int]) -> None:
    rules = profile({"resolve": [f"{each}s" for each in seconds]})
    (found,) = deadlines.for_level(rules, {}, VILLAGE, START)
    assert found["due"] == plus(START, min(seconds))
    assert found["counted"] == [f"{min(seconds)}s"]
    assert deadlines.own_time(rules, {}, VILLAGE) == min(seconds)


@given(st.integers(1, 10**8), st.integers(1, 99))
def test_a_reminder_comes_before_what_it_reminds_of(seconds: int, percent: int) -> None:
    rules = profile({"resolve": f"{seconds}s", "remind": f"{percent}%"})
    remind, resolve = deadlines.for_level(rules, {}, VILLAGE, START)
    assert (remind["kind"], resolve["kind"]) == ("remind", "resolve")
    assert START <= remind["due"] < resolve["due"]


def test_what_follows_at_the_last_level() -> None:
    rules = profile({"resolve": "7d", "then": {"supervise": "1d", "tell": ["469002"]}})
    assert deadlines.then(rules, {}, VILLAGE) == deadlines.Then(86400, ("469002",), "assumption")


def test_marks_tell_firings_apart() -> None:
    rules = profile({"acknowledge": "1d", "resolve": "1d", "remind": ["50%", "90%"]})
    found = deadlines.for_level(rules, {}, VILLAGE, START)
    assert [deadlines.mark(item) for item in found] == [
        "remind:resolve:50%@2026-03-01T04:00:00.000Z",
        "remind:resolve:90%@2026-03-01T13:36:00.000Z",
        "acknowledge@2026-03-01T16:00:00.000Z",
        "resolve@2026-03-01T16:00:00.000Z",
    ]
    supervise = {"kind": "supervise", "of": "resolve", "due": START}
    assert deadlines.mark(supervise) == f"supervise:resolve@{START}"
