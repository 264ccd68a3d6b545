"""An acknowledgement lapses without progress (进展), where the profile says so."""

from __future__ import annotations

from typing import Any

import pytest

from services.escalation import model
from services.grid import deadlines
from services.grid.atlas import Atlas
from services.grid.calendars import Holidays
from services.grid.clock import Instant, plus
from services.grid.problems import ProfileError
from services.grid.profile import Profile
from tests.simulator.county import RULES, atlas, with_successor
from tests.simulator.world import World

HOUR, DAY = 3600, 86400


def county(level: str = "household", **line: Any) -> Atlas:
    said = {"level": level, "acknowledge": "2h", "resolve": "9d", "progress": "1d"} | line
    lines = [{**item, **said} if item["level"] == level else item for item in RULES["deadlines"]]
    return atlas(deadlines=lines, routing=[{"enter": level}])


def held(world: World) -> dict[str, Any]:
    return world.nodes["escalation"].store.documents()["case-1"]


def pass_time(world: World, seconds: float) -> None:
    world.clock.advance(seconds)
    world.second()
    world.settle()


def accepted(at: Atlas, level: str = "household") -> tuple[World, Instant]:
    """A case that was accepted an hour after it was reported; and when."""
    world = World(at)
    world.report("case-1")
    world.settle()
    pass_time(world, HOUR)
    act(world, "acknowledge", level)
    return world, world.clock.now()


def act(world: World, action: str, level: str = "household") -> None:
    (entry,) = world.entries(level)
    assert world.act(level, entry, action)
    world.settle()


def happened(world: World, kind: str) -> list[dict[str, Any]]:
    return [sent.event.data for sent in world.published if sent.event.type == kind]


def progress(world: World) -> Instant:
    (found,) = [item for item in held(world)["state"]["deadlines"] if item["kind"] == "progress"]
    return Instant(found["due"])


def test_it_moves_on_when_nothing_was_done_for_so_long() -> None:
    world, at = accepted(county())
    assert progress(world) == plus(at, DAY)
    pass_time(world, DAY - 60)
    assert happened(world, "case.deadline_passed") == []
    pass_time(world, 60)
    (passed,) = happened(world, "case.deadline_passed")
    assert (passed["passed"]["kind"], passed["passed"]["due"]) == ("progress", plus(at, DAY))
    state = held(world)["state"]
    assert (state["address"]["level"], state["acknowledged"]) == ("group", None)
    assert state["clocks"]["level"]["started_at"] == plus(at, DAY)
    assert "progress" not in {item["kind"] for item in state["deadlines"]}
    desk = world.nodes["household"].store.documents()["case-1:1.0"]
    assert (desk["status"], desk["passed"]) == ("ended", ["progress"])


def test_before_it_is_accepted_there_is_no_such_deadline() -> None:
    world = World(county())
    world.report("case-1")
    world.settle()
    kinds = [item["kind"] for item in held(world)["state"]["deadlines"]]
    assert kinds == ["acknowledge", "remind", "resolve"]


def test_what_the_holder_does_starts_it_again_and_a_pause_does_not_count() -> None:
    world, at = accepted(county())
    pass_time(world, 20 * HOUR)
    act(world, "suspend")
    # The longest pause of the profile is two days.
    assert progress(world) == plus(at, 20 * HOUR + 3 * DAY)
    pass_time(world, DAY)
    act(world, "resume")
    assert progress(world) == plus(at, 20 * HOUR + 2 * DAY)
    rows = [row for row in model.explain(held(world)) if row["kind"] == "progress"]
    assert [row["status"] for row in rows] == ["moved", "armed", "moved"]
    pass_time(world, DAY)
    (passed,) = happened(world, "case.deadline_passed")
    assert passed["passed"]["kind"] == "progress"
    assert "progressed_at" not in held(world)["state"]


def test_a_note_is_progress_and_a_request_is_none() -> None:
    world, at = accepted(county())
    pass_time(world, 20 * HOUR)
    act(world, "note")
    assert progress(world) == plus(at, 20 * HOUR + DAY)
    pass_time(world, 20 * HOUR)
    act(world, "extend")
    assert progress(world) == plus(at, 20 * HOUR + DAY)


def test_what_a_person_wants_supervised_goes_on_though_something_is_done() -> None:
    world, _at = accepted(county("township"), "township")
    pass_time(world, DAY)
    pass_time(world, 12 * HOUR)
    assert world.supervise("case-1")
    world.settle()
    act(world, "note", "township")
    assert len(happened(world, "case.supervised")) == 2
    # The next repeat, long before the note lapses.
    pass_time(world, 12 * HOUR)
    assert len(happened(world, "case.supervised")) == 3


def test_a_reopened_case_has_all_of_the_time_again() -> None:
    world, _at = accepted(county())
    pass_time(world, 23 * HOUR)
    act(world, "resolve")
    pass_time(world, 30 * DAY)
    assert world.reopen("case-1")
    world.settle()
    assert held(world)["state"]["acknowledged"] is not None
    assert progress(world) == plus(world.clock.now(), DAY)


def test_at_the_last_level_it_is_supervised_until_something_is_done() -> None:
    world, _at = accepted(county("township"), "township")
    pass_time(world, DAY)
    pass_time(world, DAY)
    assert [item["times"] for item in happened(world, "case.supervised")] == [1, 2]
    pass_time(world, 12 * HOUR)
    act(world, "suspend", "township")
    act(world, "resume", "township")
    # The next repeat would be due now.
    pass_time(world, 12 * HOUR)
    assert len(happened(world, "case.supervised")) == 2
    pass_time(world, 12 * HOUR)
    assert [item["times"] for item in happened(world, "case.supervised")] == [1, 2, 3]


def test_that_it_lapsed_once_says_nothing_of_the_next_time_after_a_migration() -> None:
    world, _at = accepted(with_successor(county("township")), "township")
    pass_time(world, DAY)
    act(world, "suspend", "township")
    act(world, "resume", "township")
    # Ours was away, and a migration comes before it has looked.
    world.clock.advance(DAY + 60)
    (other,) = set(world.atlas.profiles) - {held(world)["facts"]["profile"]}
    assert world.migrate("case-1", other)
    pass_time(world, HOUR)
    kinds = [item["passed"]["kind"] for item in happened(world, "case.deadline_passed")]
    assert kinds == ["progress", "progress"]


def test_what_only_the_end_ends_is_supervised_though_something_is_done() -> None:
    world, _at = accepted(county("township", resolve="1d"), "township")
    # Its time to resolve passes first, then that to do something.
    pass_time(world, DAY)
    pass_time(world, 2 * HOUR)
    kinds = [item["passed"]["kind"] for item in happened(world, "case.deadline_passed")]
    assert kinds == ["resolve", "progress"]
    act(world, "suspend", "township")
    act(world, "resume", "township")
    before = len(happened(world, "case.supervised"))
    pass_time(world, 23 * HOUR)
    assert len(happened(world, "case.supervised")) > before


def test_it_gives_a_level_no_time_of_its_own() -> None:
    (profile,) = county(progress="10m").current
    address = held(accepted(county())[0])["state"]["address"]
    place = deadlines.Address.of(address)
    assert deadlines.own_time(profile, {"urgency": "ordinary"}, place) == 2 * HOUR


@pytest.mark.parametrize("text", ["1d since report", "end_of_day", "monthly_window 1-7", "soon"])
def test_only_what_counts_from_an_act_is_allowed(text: str) -> None:
    with pytest.raises(ProfileError, match=r"deadlines\[0\]\.progress: .*write a duration"):
        county(progress=text)


def test_working_days_need_a_calendar() -> None:
    with pytest.raises(ProfileError, match="'2 working days' needs a calendar"):
        county(progress="2 working days")
    calendars = {"office": {"days": "Mon-Fri", "hours": ["08:30-17:30"]}}
    line = {"progress": "2 working days", "calendar": "office"}
    lines = [{**RULES["deadlines"][0], **line}, *RULES["deadlines"][1:]]
    profile = Profile.parse({**RULES, "calendars": calendars, "deadlines": lines})
    friday = Instant("2026-11-27T02:00:00.000Z")
    state = {
        "token": {"round": 1, "stage": "held", "hop": 0, "seq": 2},
        "address": {"level": "household", "division": "46900210421403007", "unit": None},
        "acknowledged": {"by": "h-1", "at": friday},
        "clocks": {name: {"started_at": plus(friday, -HOUR)} for name in ("level", "case")},
    }
    found = deadlines.of_state(profile, {"urgency": "ordinary"}, state, Holidays())
    (item,) = [item for item in found if item["kind"] == "progress"]
    assert (item["due"], item["calendar"]) == ("2026-12-01T09:30:00.000Z", "office")
    assert item["counted"] == ["2 working days", "2026-11-30", "2026-12-01"]
