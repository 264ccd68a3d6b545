"""Recorded cases under other rules, with numbers that can be checked by hand.

The county has household (2h to acknowledge, 1d to resolve), group (2h, 12h), village (4h, 3d)
and township (4h, 7d).
"""

from __future__ import annotations

from typing import Any

import pytest

from services.grid import json
from services.grid.clock import Instant, plus
from services.grid.profile import Loaded
from services.grid.recorded import RecordedCase, UnreadableCase, of_timeline, read_case
from services.grid.tally import Comparison, Durations, Open
from services.grid.whatif import NOTHING, TOO_LITTLE, Course, recorded_course, replay
from tests.simulator.county import DIVISIONS, GRID, OFFICERS, RULES, STEPS, UNITS, atlas

BEGAN = Instant("2026-03-02T01:00:00.000Z")
HOUR = 3600.0


def at(hours: float) -> Instant:
    """So many hours after the report."""
    return plus(BEGAN, hours * HOUR)


def county(levels: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Loaded:
    """The county, with other terms for some levels."""
    changed = levels or {}
    lines = [{**line, **changed.get(line["level"], {})} for line in RULES["deadlines"]]
    (profile,) = atlas(deadlines=lines, **changes).profiles.values()
    return Loaded(profile, DIVISIONS, (), OFFICERS)


def stay(level: str, arrived: float, left: str | None = None, **acts: float) -> dict[str, Any]:
    found: dict[str, Any] = {"level": level, "arrived_at": at(arrived)}
    found |= {f"{name}_at": at(hours) for name, hours in acts.items()}
    return found if left is None else {**found, "left": left}


def line(*stays: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "c-1",
        "division": GRID,
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
        "reported_at": BEGAN,
        "stays": list(stays),
        **more,
    }


def case(*stays: dict[str, Any], **more: Any) -> RecordedCase:
    return read_case(json.dumps(line(*stays, **more)))


# Nobody answers at the household and the group; the village accepts it after 1 h and has it
# settled 5 h after it came there, 9 h after the report.
CLIMBED = (
    stay("household", 0, "passed"),
    stay("group", 2, "passed"),
    stay("village", 4, acknowledged=5, resolved=9),
)


def path(course: Course) -> list[tuple[str, float, str]]:
    """Levels with the hour until which they had it, and how that ended."""
    hours = {at(quarter / 4): quarter / 4 for quarter in range(4000)}
    return [(item.level, hours[item.until], item.ended) for item in course.stays]


def test_under_the_same_rules_it_goes_as_it_went() -> None:
    went = [("household", 2, "passed"), ("group", 4, "passed"), ("village", 9, "resolved")]
    course = replay(county(), case(*CLIMBED))
    assert path(course) == path(recorded_course(case(*CLIMBED))) == went
    assert (course.resolved_by, course.resolved, course.assumed) == ("village", at(9), False)
    assert course.climbed
    assert not course.supervised


def test_a_shorter_deadline_brings_it_to_the_next_level_earlier() -> None:
    course = replay(county({"household": {"acknowledge": "1h"}}), case(*CLIMBED))
    went = [("household", 1, "passed"), ("group", 3, "passed"), ("village", 8, "resolved")]
    assert path(course) == went
    assert not course.assumed


def test_a_level_that_let_its_time_pass_lets_a_longer_one_pass_too_and_that_is_assumed() -> None:
    course = replay(county({"household": {"acknowledge": "6h"}}), case(*CLIMBED))
    went = [("household", 6, "passed"), ("group", 8, "passed"), ("village", 13, "resolved")]
    assert path(course) == went
    assert course.assumed


def test_where_the_resolving_level_has_less_time_the_next_one_is_not_made_up() -> None:
    shorter = county({"village": {"resolve": "270m"}})
    course = replay(shorter, case(*CLIMBED))
    went = [("household", 2, "passed"), ("group", 4, "passed"), ("village", 8.5, "passed")]
    assert path(course) == [*went, ("township", 9, "unknown")]
    last = course.stays[-1]
    assert (last.arrived, last.unknown, course.told) == (at(8.5), NOTHING, False)
    assert course.resolved_by is None


def test_in_the_worst_case_it_climbs_on_and_is_supervised() -> None:
    course = replay(county({"village": {"resolve": "270m"}}), case(*CLIMBED), worst_case=True)
    last = course.stays[-1]
    assert (last.level, last.supervised, last.ended, last.unknown) == (
        *("township", True, "unknown"),
        NOTHING,
    )
    assert last.fired is not None
    assert (last.fired.kind, last.fired.text) == ("acknowledge", "4h")


def test_to_accept_in_time_is_not_to_settle_in_time() -> None:
    """Accepted after 1 h, settled after 5 h: a deadline of 30 min or of 3 h takes it away."""
    for terms, kind in (({"acknowledge": "30m"}, "acknowledge"), ({"resolve": "3h"}, "resolve")):
        village = replay(county({"village": terms}), case(*CLIMBED)).stays[2]
        assert village.ended == "passed"
        assert village.fired is not None
        assert (village.fired.kind, village.late) == (kind, kind == "acknowledge")
        assert village.fired.rule == "profile.yaml deadlines[3]"


def test_what_is_done_at_the_last_moment_is_in_time() -> None:
    exactly = county({"village": {"acknowledge": "1h", "resolve": "5h"}})
    assert replay(exactly, case(*CLIMBED)).resolved_by == "village"


def test_a_level_that_resolved_too_late_has_it_resolved_if_it_is_given_the_time() -> None:
    late = case(stay("household", 0, "passed", resolved=3), stay("group", 2))
    went = recorded_course(late)
    assert path(went) == [("household", 2, "passed"), ("group", 3, "elsewhere")]
    assert (went.resolved_by, went.resolved) == ("household", at(3))
    course = replay(county({"household": {"acknowledge": "4h"}}), late)
    assert path(course) == [("household", 3, "resolved")]
    assert not course.assumed
    assert replay(county(), late).stays[-1].unknown == TOO_LITTLE


def test_an_open_case_is_followed_as_far_as_the_record_goes() -> None:
    waiting = case(stay("household", 0, "passed"), stay("group", 2), recorded_at=at(3))
    assert path(replay(county(), waiting)) == [("household", 2, "passed"), ("group", 3, "open")]
    sooner = replay(county({"group": {"acknowledge": "30m"}}), waiting)
    assert [item.ended for item in sooner.stays] == ["passed", "passed", "unknown"]
    # It came there an hour earlier: what the group did in its second hour nobody knows.
    earlier = replay(
        county({"household": {"acknowledge": "1h"}, "group": {"acknowledge": "90m"}}), waiting
    )
    assert earlier.stays[-1].unknown == TOO_LITTLE


def test_the_last_level_keeps_it_and_is_supervised() -> None:
    office = case(
        stay("household", 0, "passed"),
        stay("group", 2, "passed"),
        stay("village", 4, "passed"),
        {
            **stay("township", 8, acknowledged=13, resolved=20),
            "passed": [{"kind": "acknowledge", "due": at(12)}],
        },
    )
    for course in (replay(county(), office), recorded_course(office)):
        last = course.stays[-1]
        assert (last.ended, last.until, last.supervised, last.late) == (
            *("resolved", at(20), True),
            True,
        )
    longer = replay(county({"township": {"acknowledge": "5h"}}), office)
    assert not longer.supervised


def test_a_withdrawn_case_ends_when_it_was_withdrawn() -> None:
    told = case(stay("household", 0, "passed"), stay("group", 2), withdrawn_at=at(3))
    assert path(replay(county(), told)) == [("household", 2, "passed"), ("group", 3, "withdrawn")]
    longer = replay(county({"household": {"acknowledge": "8h"}}), told)
    assert path(longer) == [("household", 3, "withdrawn")]


def test_a_level_asks_for_the_next_as_long_after_it_came() -> None:
    asked = case(stay("household", 0, "requested"), stay("group", 1, resolved=2))
    course = replay(county(), asked)
    assert path(course) == [("household", 1, "requested"), ("group", 2, "resolved")]
    assert not course.climbed
    short = replay(county({"household": {"acknowledge": "30m"}}), asked)
    assert path(short) == [("household", 0.5, "passed"), ("group", 1.5, "resolved")]


def test_a_level_that_was_skipped_has_done_nothing() -> None:
    skipped = case(stay("household", 0, "unstaffed"), stay("group", 0, resolved=1))
    assert replay(county(), skipped).stays[-1].unknown == NOTHING


def test_routing_of_the_proposed_profile_counts() -> None:
    straight = county(
        routing=[{"when": {"urgency": "ordinary"}, "enter": "village", "source": "assumption"}]
    )
    assert path(replay(straight, case(*CLIMBED))) == [("village", 5, "resolved")]


def test_what_a_unit_did_its_desk_does_not_do_again() -> None:
    """A unit's step, and its desk's above it, are two of one level."""
    (profile,) = atlas(ladders=STEPS["ladders"]).profiles.values()
    below = (
        stay("household", 0, "passed"),
        stay("group", 2, "passed"),
        stay("village", 4, "requested"),
    )
    unit = {**stay("township", 5, "passed"), "unit": "centre"}
    both = case(*below, unit, stay("township", 9, resolved=10))
    found = replay(Loaded(profile, DIVISIONS, UNITS, OFFICERS), both)
    assert path(found)[3:] == [("township", 9, "passed"), ("township", 10, "resolved")]
    # The record has the desk alone: the unit does as it did, and then nothing is known.
    lines = [{**line, "resolve": "2h"} for line in RULES["deadlines"]]
    (shorter,) = atlas(ladders=STEPS["ladders"], deadlines=lines).profiles.values()
    alone = case(*below, stay("township", 5, acknowledged=6, resolved=10))
    found = replay(Loaded(shorter, DIVISIONS, UNITS, OFFICERS), alone)
    assert path(found)[3:] == [("township", 7, "passed"), ("township", 10, "unknown")]
    assert found.stays[-1].unknown == "nothing recorded"


def test_the_leap_day_is_a_day() -> None:
    leap = Instant("2028-02-28T10:00:00.000Z")
    passed = {"level": "household", "arrived_at": leap, "left": "passed"}
    group = {
        "level": "group",
        "arrived_at": "2028-02-28T16:00:00.000Z",
        "resolved_at": "2028-02-29T01:30:00+08:00",
    }
    told = case(passed, group, reported_at=leap)
    tonight = county({"household": {"resolve": "end_of_day", "acknowledge": "end_of_day"}})
    course = replay(tonight, told)
    assert course.stays[0].until == "2028-02-28T16:00:00.000Z"
    assert course.resolved == "2028-02-28T17:30:00.000Z"


# -- counting ------------------------------------------------------------------------------


def test_everything_is_counted_on_both_sides() -> None:
    """Three cases: one climbs to the village, one the household settles in 1 h, one in 90 min."""
    comparison = Comparison(county({"household": {"acknowledge": "1h"}}))
    comparison.add(case(*CLIMBED))
    comparison.add(case(stay("household", 0, acknowledged=1, resolved=1), id="c-2"))
    comparison.add(case(stay("household", 0, resolved=1.5), id="c-3"))
    told = comparison.shown()
    before, after = told["recorded"], told["replayed"]
    assert (before["climbed"], after["climbed"]) == (1, 2)
    assert (before["resolved"], after["resolved"]) == (3, 2)
    assert (after["told"], after["assumed"], after["unknown"]) == (2, 0, 1)
    assert after["unknown_at"] == [{"level": "group", "why": NOTHING, "cases": 1}]
    household, group = (after["levels"][level] for level in ("household", "group"))
    assert (household["came"], household["climbed"], household["resolved"]) == (3, 2, 1)
    assert (household["late"], household["most_open"], household["most_open_at"]) == (2, 3, BEGAN)
    assert (group["came"], group["climbed"], group["unknown"]) == (2, 1, 1)
    # Held at the household: 1 h each now; before 2 h, 1 h and 1.5 h.
    assert before["levels"]["household"]["held_median_seconds"] == 5400
    assert before["levels"]["household"]["held_90_seconds"] == 7200
    assert household["held_median_seconds"] == household["held_90_seconds"] == 3600
    assert told["resolved_on_both_sides"] == {
        "cases": 2,
        "before": {"taken_median_seconds": 3600, "taken_90_seconds": 9 * 3600},
        "after": {"taken_median_seconds": 3600, "taken_90_seconds": 8 * 3600},
    }
    assert after["categories"] == {"facility": 2}
    assert after["rules"][0] == {
        "level": "household",
        "kind": "acknowledge",
        "rule": "profile.yaml deadlines[0]",
        "text": "1h",
        "source": "assumption",
        "times": 2,
    }
    # What then becomes of c-3 nobody knows: it is no case of which both sides are told.
    assert (told["climbs_now"], told["climbs_no_more"]) == (0, 0)


def test_words_that_the_proposed_profile_does_not_know_are_listed() -> None:
    comparison = Comparison(county())
    comparison.add(case(*CLIMBED))
    for number, changed in enumerate(
        ({"category": "noise"}, {"category": "noise"}, {"urgency": "soon"}, {"division": "110101"})
    ):
        comparison.add(case(*CLIMBED, id=f"x-{number}", **changed))
    told = comparison.shown()
    assert (told["cases"], told["not_replayed"]) == (5, 4)
    assert told["recorded"]["cases"] == told["replayed"]["cases"] == 1
    assert [tuple(item.values()) for item in told["unknown_words"]] == [
        ("category", "noise", 2),
        ("division", "110101", 1),
        ("urgency", "soon", 1),
    ]


def test_two_profiles_are_compared_by_the_same_cases() -> None:
    comparison = Comparison(county({"household": {"acknowledge": "4h"}}), county())
    comparison.add(case(stay("household", 0, resolved=3)))
    told = comparison.shown()
    assert (told["present"]["climbed"], told["replayed"]["climbed"]) == (1, 0)
    assert told["present"]["unknown"] == 1
    assert "recorded" not in told


def test_a_case_that_comes_twice_is_told() -> None:
    comparison = Comparison(county())
    for number in (1, 1, 2):
        comparison.add(case(*CLIMBED, round=number))
    assert comparison.shown()["repeated"] == 1


def test_quantiles_are_of_what_was_counted() -> None:
    durations = Durations()
    assert durations.quantile(0.5) is None
    for hours in range(1, 11):
        durations.add(hours * HOUR)
    assert (durations.quantile(0.5), durations.quantile(0.9)) == (5 * HOUR, 9 * HOUR)
    durations = Durations()
    durations.add(7 * 86400)
    assert durations.quantile(0.5) == 605_000


def test_the_most_at_once_is_looked_at_each_full_minute() -> None:
    opened = Open()
    assert opened.most() == (0, None)
    opened.add(at(0), at(2))
    opened.add(at(1), at(3))
    # One leaves as another comes; one is there for less than a minute.
    opened.add(at(2), at(4))
    opened.add(plus(at(1), 1), plus(at(1), 59))
    assert opened.most() == (2, at(1))


# -- the file ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "field", "cure"),
    [
        ({"category": None}, "category", "missing: write it"),
        ({"division": "沙美村"}, "division", "write a division code, 6 digits or more"),
        ({"title": "路灯不亮"}, "title", "leave out what is not needed"),
        ({"urgency": "Urgent"}, "urgency", "write a lower-case word"),
        ({"reported_at": "2026-02-29T00:00:00Z"}, "reported_at", "day is out of range for month"),
        ({"reported_at": "2026-03-02"}, "reported_at", "write an RFC 3339 time with a zone"),
        ({"reported_at": 5}, "reported_at", "not text"),
        ({"reported_at": "1970-01-01T00:00:00Z"}, "reported_at", "not in the years 2000 to 2099"),
        ({"reported_at": at(9)}, "stays[0].arrived_at", "lies before reported_at"),
        ({"stays": []}, "stays", "write a list of 1 to 1000 stays"),
        ({"stays": [5]}, "stays[0]", "write an object with level and arrived_at"),
        ({"stays": [stay("group", 1)]}, "recorded_at", "nobody resolved it"),
        ({"stays": [stay("group", 1, "passed")]}, "stays[0].left", "the last stay has none"),
        ({"stays": [stay("group", 1), stay("village", 2)]}, "stays[0].left", "why it left"),
        (
            {"stays": [stay("group", 1, "pased"), stay("village", 2, resolved=3)]},
            "stays[0].left",
            "did you mean passed?",
        ),
        (
            {"stays": [stay("group", 2, resolved=1)]},
            "stays[0].resolved_at",
            "lies before stays[0].arrived_at",
        ),
        (
            {"stays": [{**stay("group", 2, resolved=3), "passed": [{"kind": "x", "due": at(3)}]}]},
            "stays[0].passed[0].kind",
            "'x' is not known",
        ),
        (
            {"stays": [{**stay("group", 2, resolved=3), "aknowledged_at": at(3)}]},
            "stays[0].aknowledged_at",
            "did you mean acknowledged_at?",
        ),
        ({"round": 0}, "round", "write a number from 1 on"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(
    changed: dict[str, Any], field: str, cure: str
) -> None:
    with pytest.raises(UnreadableCase) as raised:
        case(*CLIMBED, **changed)
    assert any(item.field == field and cure in item.text for item in raised.value.wrong), (
        raised.value.wrong
    )


@pytest.mark.parametrize("text", [b"", b"5", b"[]", b"{", b"\xff\xfe{", b'{"id": NaN}'])
def test_what_is_no_case_is_refused(text: bytes) -> None:
    with pytest.raises(UnreadableCase):
        read_case(text)


def test_clocks_that_differ_a_little_are_no_mistake() -> None:
    skewed = case(stay("household", 0, acknowledged=-0.05, resolved=1))
    assert skewed.conduct["household", None].acknowledges == 0


def test_what_another_system_promised_holds_under_every_profile() -> None:
    # One on the case's own clock has passed for every level above as well.
    broken = (
        stay("household", 0, "passed", acknowledged=0.5),
        stay("group", 1, "passed"),
        stay("village", 1, "passed"),
        stay("township", 1, acknowledged=1.25, resolved=1.5),
    )
    told = replay(county(), case(*broken, respond_by=at(1)))
    assert path(told) == [
        ("household", 1, "passed"),
        ("group", 1, "passed"),
        ("village", 1, "passed"),
        ("township", 1.5, "resolved"),
    ]
    assert (told.assumed, told.supervised) == (False, True)
    assert {(item.fired.kind, item.fired.rule) for item in told.stays if item.fired} == {
        ("resolve", "respond_by")
    }


def test_a_promise_is_recorded() -> None:
    facts = {name: line()[name] for name in ("id", "category", "urgency", "source", "reported_at")}
    state = {
        "token": {"round": 1, "stage": "held", "hop": 0, "seq": 0},
        "address": {"level": "household", "division": GRID, "unit": None},
        "acknowledged": None,
        "clocks": {"level": {"started_at": BEGAN}, "case": {"started_at": BEGAN}},
        "resolution": None,
    }
    register = {**facts, "division": GRID, "respond_by": at(5), **state}
    (found,) = of_timeline(register, [], at(3))
    assert found["respond_by"] == at(5)
    assert read_case(json.dumps(found)).facts["respond_by"] == at(5)
    (found,) = of_timeline({**register, "respond_by": None}, [], at(3))
    assert "respond_by" not in found


def test_a_timeline_that_is_not_complete_counts_with_the_register() -> None:
    """The events are still on their way: the register's own state is one more."""
    state = {
        "token": {"round": 1, "stage": "held", "hop": 1, "seq": 1},
        "address": {"level": "group", "division": GRID[:14], "unit": None},
        "acknowledged": {"by": "x", "at": at(2.5)},
        "clocks": {"level": {"started_at": at(2)}, "case": {"started_at": BEGAN}},
        "resolution": None,
    }
    facts = {name: line()[name] for name in ("id", "category", "urgency", "source", "reported_at")}
    register = {**facts, "division": {"code": GRID, "name": ""}, "title": "路灯不亮", **state}
    (found,) = of_timeline(register, [], at(3))
    assert found["stays"] == [stay("group", 2, acknowledged=2.5)]
    assert found["recorded_at"] == at(3)
    assert "路灯" not in str(found)
    assert read_case(json.dumps(found)).division == GRID


def test_a_case_that_comes_under_other_rules_where_it_is_made_one_stay() -> None:
    """A migration, or a switch of emergency mode: the level had it all the time."""
    here = {"level": "group", "division": GRID[:14], "unit": None}

    def state(hop: int, started: float, **more: Any) -> dict[str, Any]:
        return {
            "token": {"round": 1, "stage": "held", "hop": hop, "seq": 0},
            "address": here,
            "acknowledged": None,
            "clocks": {"level": {"started_at": at(started)}, "case": {"started_at": BEGAN}},
            "deadlines": [],
            "resolution": None,
            **more,
        }

    def event(kind: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"type": kind, "time": at(0), "data": {"state": state, **more}}

    moved = event("case.transferred", state(1, 1), previous=here, reason="emergency")
    events = [event("case.reported", state(0, 0)), moved]
    facts = {name: line()[name] for name in ("id", "category", "urgency", "source", "reported_at")}
    latest = state(1, 1, resolution={"at": at(2)})
    (found,) = of_timeline({**facts, "division": GRID, **latest}, events, at(3))
    assert found["stays"] == [stay("group", 0, resolved=2)]
